/**
 * An IOMMU between the devices and memory: a device can access only memory that bus_dma has loaded,
 * and write only memory that was synced for writing. All devices share one domain. Addresses are
 * not translated: a bus address is a physical address. Unlike hardware, it checks each byte, so it
 * also finds an overrun inside a page.
 */

import { machineSysctl } from '../kern/kern_sysctl.ts';
import { ramBase } from '../vm/arena.ts';
import { BUS_DMASYNC_PREREAD } from './busdma_sync.ts';
import { windowCount, windowsAt } from './busdma_watch.ts';

/** Set at boot by `busDmaWatch`. */
export const iommu = { enabled: false, lastFault: '' };

/** Whether the device may read, or write, all of `len` bytes at `off`. */
export function iommuAllows(off: number, len: number, write: boolean): boolean {
  const end = off + len;
  let at = off;
  while (at < end) {
    let reach = at;
    for (let w = windowsAt(at); w !== null; w = w.nextOfPage) {
      if (at < w.start || at >= w.end) continue;
      if (write && !w.map!.isMemory && (w.map!.handed & BUS_DMASYNC_PREREAD) === 0) continue;
      if (w.end > reach) reach = w.end;
    }
    if (reach === at) {
      iommu.lastFault =
        `${write ? 'write' : 'read'} of ${len} bytes at 0x${(off + ramBase).toString(16)}: ` +
        (windowsAt(at) === null ? 'page not mapped' : 'not allowed') +
        ` at 0x${(at + ramBase).toString(16)}`;
      return false;
    }
    at = reach;
  }
  return true;
}

/** Adds hw.iommu.* to the machine's tree. Called at boot, after the tree was created. */
export function iommuSysctlInit(): void {
  const { tree } = machineSysctl;
  tree.bool('hw.iommu.dma', 'Enable DMA remapping', () => iommu.enabled, null);
  tree.int(
    'hw.iommu.windows',
    'Ranges of memory that devices reach now (of tapnic)',
    () => (iommu.enabled ? windowCount : 0),
    null,
  );
  tree.string('hw.iommu.last_fault', 'The last access refused (of tapnic)', () => iommu.lastFault);
}
