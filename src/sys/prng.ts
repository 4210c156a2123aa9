/** Randomness, passed in: the operating system's or a seeded one (src/host). */
export interface Prng {
  /** A uniform integer, 0 to 2^32-1. */
  next32(): number;
}
