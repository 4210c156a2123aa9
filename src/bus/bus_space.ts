/**
 * Register access, after bus_space(9): a tag and a handle are one MmioRegion here, and registers
 * are 32 bits wide. Left out: I/O ports, other widths, multi-register transfers.
 */

import type { MmioRegion } from './device.ts';

export const BUS_SPACE_BARRIER_READ = 0x1;
export const BUS_SPACE_BARRIER_WRITE = 0x2;

/** Reads the register at byte offset `off`: 0 to 2^32-1. @see bus_space(9) */
export function bus_space_read_4(region: MmioRegion, off: number): number {
  return region.read32(off);
}

/** Writes the register at byte offset `off`. @see bus_space(9) */
export function bus_space_write_4(region: MmioRegion, off: number, value: number): void {
  region.write32(off, value);
}

/**
 * Orders accesses before it against those after it. One thread runs driver and device and sees
 * everything in order, so nothing is to be done; drivers call it where hardware would need it.
 * @see bus_space(9)
 */
export function bus_space_barrier(
  _region: MmioRegion,
  _off: number,
  _len: number,
  _flags: number,
): void {}
