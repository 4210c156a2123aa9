/**
 * The path from a bus master to RAM. Each address must be in RAM and not in frame 0, which is never
 * used. With the IOMMU on it must also be loaded. Bus addresses are physical addresses.
 */

import { count, R_DEV_DMA_FAULT } from '../sys/reason.ts';
import { PAGE_SIZE, ramBase, ramBytes } from '../vm/arena.ts';
import { dmaStats } from './bus_dma.ts';
import { checkAccess, dmaCheck } from './busdma_check.ts';
import { watching } from './busdma_watch.ts';
import type { DmaPort } from './device.ts';
import { iommu, iommuAllows } from './iommu.ts';

/** Whether the IOMMU allows the access. The checker only reports. */
function allowed(off: number, len: number, write: boolean): boolean {
  if (dmaCheck.enabled) checkAccess(off, len, write);
  return !iommu.enabled || iommuAllows(off, len, write);
}

/** A device's port on the bus. */
export class RamDmaPort implements DmaPort {
  faults = 0;

  map(addrLo: number, addrHi: number, len: number, write: boolean): number {
    // Above 2^53 the sum is not exact, but then it is far above any RAM as well.
    const off = (addrHi >>> 0) * 0x100000000 + (addrLo >>> 0) - ramBase;
    if (off >= PAGE_SIZE && len >= 0 && off + len <= ramBytes) {
      if (!watching || allowed(off, len, write)) return off;
    }
    this.faults++;
    dmaStats.faults++;
    count(R_DEV_DMA_FAULT);
    return -1;
  }
}
