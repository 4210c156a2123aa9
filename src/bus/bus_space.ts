/**
 * Register access, after bus_space(9): a tag and a handle are one MmioRegion here, and registers
 * are 32 bits wide. Left out: I/O ports, other widths, transfers over regions of registers.
 */

import type { Kva } from '../sys/types.ts';
import { memView } from '../vm/arena.ts';
import type { MmioRegion } from './device.ts';

/** Reads the register at byte offset `off`: 0 to 2^32-1. @see bus_space(9) */
export function bus_space_read_4(region: MmioRegion, off: number): number {
  return region.read32(off);
}

/** Writes the register at byte offset `off`. @see bus_space(9) */
export function bus_space_write_4(region: MmioRegion, off: number, value: number): void {
  region.write32(off, value);
}

/**
 * Reads the register at byte offset `off` `count` times and stores the words, little-endian, from
 * `datap` on: 4 * `count` bytes of mapped memory, of any alignment. Drivers read a data port with
 * it.
 * @see bus_space(9)
 */
export function bus_space_read_multi_4(
  region: MmioRegion,
  off: number,
  datap: Kva,
  count: number,
): void {
  for (let p: number = datap, end = p + 4 * count; p < end; p += 4)
    memView.setInt32(p, region.read32(off), true);
}

/**
 * Writes `count` little-endian words from `datap` on, one after another, to the register at byte
 * offset `off`. Drivers write a data port with it. The words are passed as signed numbers, because
 * V8 may allocate unsigned ones on its heap.
 * @see bus_space(9)
 */
export function bus_space_write_multi_4(
  region: MmioRegion,
  off: number,
  datap: Kva,
  count: number,
): void {
  for (let p: number = datap, end = p + 4 * count; p < end; p += 4)
    region.write32(off, memView.getInt32(p, true));
}
