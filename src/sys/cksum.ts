/** The Internet checksum's inner loop, passed in: SIMD in the addon or TypeScript (src/host). */
export interface CksumKernel {
  /**
   * Sums `len` bytes of the arena at `off` as big-endian 16-bit words, a last odd byte padded with
   * zero, on top of `sum` (at most 0xffff); folded, not complemented: 0 to 0xffff. RFC 1071.
   */
  sum(off: number, len: number, sum: number): number;
}

/** Folds a sum of 16-bit words to 16 bits, RFC 1071. `n` is below 2^32. */
export function fold16(n: number): number {
  n = (n & 0xffff) + (n >>> 16);
  return (n & 0xffff) + (n >>> 16);
}
