/** Random BPF instructions [code, jt, jf, k] that are often valid. */

import * as fc from 'fast-check';

const LOADS = [0x00, 0x01, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x60, 0x61, 0x80, 0x81, 0xb1];
const OTHERS = [0x02, 0x03, 0x06, 0x16, 0x07, 0x87];
const ALU = [0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c];
const ALU2 = [0x64, 0x6c, 0x74, 0x7c, 0x84, 0x94, 0x9c, 0xa4, 0xac];
const JUMPS = [0x05, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d];

const kArb = fc.oneof(
  { weight: 6, arbitrary: fc.nat(20) },
  { weight: 2, arbitrary: fc.nat(5000) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 0xffffffff }) },
  { weight: 1, arbitrary: fc.integer({ min: 0xfffffff0, max: 0xffffffff }) },
);

const codeArb = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(...LOADS) },
  { weight: 3, arbitrary: fc.constantFrom(...OTHERS) },
  { weight: 6, arbitrary: fc.constantFrom(...ALU, ...ALU2) },
  { weight: 4, arbitrary: fc.constantFrom(...JUMPS) },
  { weight: 1, arbitrary: fc.nat(0xff) },
);

/**
 * Shifts by a constant of 32 or more are not defined. libpcap accepts jumps backward, which a far
 * unconditional one is after overflow, and would not end.
 */
export const insnArb = fc.tuple(codeArb, fc.nat(3), fc.nat(3), kArb).map(([code, jt, jf, k]) => {
  if (code === 0x64 || code === 0x74) return [code, jt, jf, k % 32];
  return [code, jt, jf, (code & 0xf7) === 0x05 ? k % 64 : k];
});
