/**
 * Physical memory: one arena of 4 KiB page frames, shown to the kernel as its direct map. A `Kva`
 * is an offset into it and a `PhysAddr` is base + offset, so both directions are one addition.
 * After the RAM are two regions that no host DMA address reaches: the NIC's on-board memory and
 * the capture ring. Left out: page tables, other address spaces, growth.
 *
 *   0           PAGE_SIZE                      ramBytes        + DEVICE_SRAM      + CAPTURE_RING
 *   | never used | page frames ...                | NIC on-board  | capture ring     |
 */

import { CAPTURE_IDS_ALL } from '../sys/capture.ts';
import { KASSERT } from '../sys/kassert.ts';
import { kva, physAddr, type Kva, type PhysAddr } from '../sys/types.ts';

export const PAGE_SIZE = 4096;
export const PAGE_MASK = 4095;

/** Bytes of NIC on-board memory after the RAM. */
export const DEVICE_SRAM_BYTES = 1 << 20;
/** Bytes of the capture ring after the NIC's memory; CAPTURE_IDS_ALL bytes follow it. */
export const CAPTURE_RING_BYTES = (8 << 20) - CAPTURE_IDS_ALL;
/** Bytes of an arena beyond its RAM. */
const ARENA_EXTRA_BYTES = DEVICE_SRAM_BYTES + CAPTURE_RING_BYTES + CAPTURE_IDS_ALL;

export const VM_SIZE_MIN = 16 * 1024 * 1024;
export const VM_SIZE_MAX = 4096 * 1024 * 1024;

/**
 * Bytes of arena for a machine of `size` bytes of memory. Offsets stay below 2^32, so at 4096 MiB
 * the regions after the RAM are taken from it.
 */
export function arenaBytes(size: number): number {
  return Math.min(size + ARENA_EXTRA_BYTES, 2 ** 32);
}

/** The whole arena as bytes. Set by `vm_init`; offsets are `Kva`s. */
export let mem = new Uint8Array(0);
/** The whole arena, for 16- and 32-bit fields in either byte order. */
export let memView = new DataView(mem.buffer);
/** Bytes of RAM; page frames are [0, ramBytes). */
export let ramBytes = 0;
/** Physical address of the first byte of RAM. */
export let ramBase = 0;

/** Offset of the NIC's on-board memory, and of the capture ring after it. */
export function deviceSramOff(): number {
  return ramBytes;
}
export function captureRingOff(): number {
  return ramBytes + DEVICE_SRAM_BYTES;
}

/** Places the arena. Only `vm_init` calls this. */
export function arenaSet(memory: ArrayBuffer, base: number): void {
  const size = memory.byteLength - ARENA_EXTRA_BYTES;
  KASSERT(
    size > 0 && size % PAGE_SIZE === 0 && base % PAGE_SIZE === 0,
    'vm_init: not page aligned',
  );
  mem = new Uint8Array(memory);
  memView = new DataView(memory);
  ramBytes = size;
  ramBase = base;
}

/** The physical address of mapped memory. @see pmap(9) */
export function vtophys(va: Kva): PhysAddr {
  return physAddr(va + ramBase);
}

/**
 * The arena offset of a physical address. Only the direct map may turn one into a Kva: src/vm
 * itself, bus_dma's bounce copies, and the device's DMA port.
 * @see pmap(9)
 */
export function PHYS_TO_DMAP(pa: PhysAddr): Kva {
  return kva(pa - ramBase);
}
