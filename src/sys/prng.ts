/**
 * The random number interface. src/host implements it with the operating system's or a seeded one.
 */
export interface Prng {
  /** A uniform integer, 0 to 2^32-1. */
  next32(): number;
}
