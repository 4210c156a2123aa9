/**
 * The path from a bus master to RAM: each address is checked against the page frames, frame 0 (which
 * is never used) and everything behind RAM left out. There is no IOMMU here: bus addresses are
 * physical addresses.
 */

import { count, R_DEV_DMA_FAULT } from '../sys/reason.ts';
import { PAGE_SIZE, ramBase, ramBytes } from '../vm/arena.ts';
import { dmaStats } from './bus_dma.ts';
import type { DmaPort } from './device.ts';

/** A device's port on a bus without IOMMU. */
export class RamDmaPort implements DmaPort {
  faults = 0;

  map(addrLo: number, addrHi: number, len: number, _write: boolean): number {
    // Above 2^53 the sum is not exact, but then it is far above any RAM as well.
    const off = (addrHi >>> 0) * 0x100000000 + (addrLo >>> 0) - ramBase;
    if (off >= PAGE_SIZE && len >= 0 && off + len <= ramBytes) return off;
    this.faults++;
    dmaStats.faults++;
    count(R_DEV_DMA_FAULT);
    return -1;
  }
}
