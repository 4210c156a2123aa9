/** The Internet checksum's inner loop, passed in: SIMD in the addon or TypeScript (src/host). */
export interface CksumKernel {
  /**
   * Adds `len` bytes of the arena at `off`, as big-endian 16-bit words, to `sum` (at most 0xffff).
   * A last odd byte is padded with zero. Returns the folded sum, not complemented: 0 to 0xffff. RFC
   * 1071.
   */
  sum(off: number, len: number, sum: number): number;
}

/** Folds a sum of 16-bit words to 16 bits, RFC 1071. `n` is below 2^32. */
export function fold16(n: number): number {
  n = (n & 0xffff) + (n >>> 16);
  return (n & 0xffff) + (n >>> 16);
}
