/**
 * A checker of drivers' bus_dma calls (ours). It compares each access of a device with the memory
 * that the driver has loaded and synced. It counts, records and prints each violation. The device
 * owns a map from the PRE sync to the POST sync. Memory of bus_dmamem_alloc is shared: POST does
 * not end the device's ownership there. Left out: CPU accesses to memory that the device owns.
 */

import { machineSysctl } from '../kern/kern_sysctl.ts';
import {
  count,
  R_DMA_CHECK_DOUBLE_LOAD,
  R_DMA_CHECK_NO_POST,
  R_DMA_CHECK_NO_PRE,
  R_DMA_CHECK_NOT_LOADED,
  R_DMA_CHECK_POST_FIRST,
  R_DMA_CHECK_UNLOAD_OWNED,
  R_DMA_CHECK_UNLOADED,
  type Reason,
} from '../sys/reason.ts';
import { ramBase } from '../vm/arena.ts';
import type { BusDmamap } from './bus_dma.ts';
import {
  BUS_DMASYNC_POSTREAD,
  BUS_DMASYNC_POSTWRITE,
  BUS_DMASYNC_PREREAD,
  BUS_DMASYNC_PREWRITE,
} from './busdma_sync.ts';
import { type Window, windowsAt } from './busdma_watch.ts';

/** Each POST operation is the bit above its PRE operation. */
const PRE = BUS_DMASYNC_PREREAD | BUS_DMASYNC_PREWRITE;

/** Maximum number of reports kept (the latest), and of lines written to the console in total. */
const REPORTS_MAX = 32;
const LINES_MAX = 64;
/** Maximum number of unloaded ranges kept. */
const PAST_MAX = 256;

/** A range that was loaded once. */
class PastWindow {
  start = 0;
  end = 0;
  map: BusDmamap | null = null;
}

/** The checker's state; `console` gets each report's line, at most LINES_MAX. */
export const dmaCheck = {
  enabled: false,
  violations: 0,
  reports: [] as string[],
  console: null as ((line: string) => void) | null,
};
/** Ring of the ranges unloaded last; `pastNext` is the entry to overwrite next. */
const past = Array.from({ length: PAST_MAX }, () => new PastWindow());
let pastNext = 0;

/** Clears the checker's state and turns it on or off. */
export function dmaCheckInit(enabled: boolean): void {
  dmaCheck.enabled = enabled;
  dmaCheck.violations = 0;
  dmaCheck.reports = [];
  for (const p of past) {
    p.end = 0;
    p.map = null;
  }
}

const mapName = (map: BusDmamap): string => `${map.tag.name} map ${map.id}`;
const hex = (off: number): string => `0x${(off + ramBase).toString(16)}`;
const access = (write: boolean, len: number, off: number): string =>
  `device ${write ? 'writes' : 'reads'} ${len} bytes at ${hex(off)}`;

function report(why: Reason, text: string): void {
  count(why);
  dmaCheck.violations++;
  if (dmaCheck.reports.length === REPORTS_MAX) dmaCheck.reports.shift();
  dmaCheck.reports.push(text);
  if (dmaCheck.violations <= LINES_MAX) dmaCheck.console?.(`bus_dma: ${text}`);
}

const opNames: readonly [bit: number, name: string][] = [
  [BUS_DMASYNC_PREREAD, 'PREREAD'],
  [BUS_DMASYNC_POSTREAD, 'POSTREAD'],
  [BUS_DMASYNC_PREWRITE, 'PREWRITE'],
  [BUS_DMASYNC_POSTWRITE, 'POSTWRITE'],
];

/** Names the operations in `op`: `BUS_DMASYNC_PREREAD|…`. */
function opName(op: number): string {
  const names = opNames.filter(([bit]) => (op & bit) !== 0).map(([, n]) => `BUS_DMASYNC_${n}`);
  return names.join('|');
}

/** Text for a report: where the memory of a map begins. */
function place(map: BusDmamap): string {
  let first: Window | null = map.windows;
  // The list begins with the last window.
  for (let w = first; w !== null; w = w.nextOfMap) first = w;
  return first === null ? 'nothing' : `memory at ${hex(first.start)}`;
}

/** Another map that shares bytes with this one, or null. */
function overlapping(map: BusDmamap): BusDmamap | null {
  for (let mine = map.windows; mine !== null; mine = mine.nextOfMap)
    for (let w = windowsAt(mine.start); w !== null; w = w.nextOfPage)
      if (w.map !== map && w.start < mine.end && mine.start < w.end) return w.map;
  return null;
}

/** Checks a sync, before the map records it. */
export function checkSync(map: BusDmamap, op: number): void {
  const pre = op & PRE;
  if (pre !== 0) {
    const unseen = map.touched & pre;
    if (unseen !== 0 && !map.isMemory)
      report(
        R_DMA_CHECK_NO_POST,
        `${mapName(map)}: ${opName(pre)} again without ${opName(unseen << 1)}: the device has used it`,
      );
    if ((pre & BUS_DMASYNC_PREREAD) !== 0) {
      const other = overlapping(map);
      if (other !== null)
        report(
          R_DMA_CHECK_DOUBLE_LOAD,
          `${mapName(map)}: ${place(map)} for the device to write is loaded in ${mapName(other)}, too`,
        );
    }
    return;
  }
  const missing = (op >> 1) & PRE & ~map.owned;
  if (missing !== 0)
    report(
      R_DMA_CHECK_POST_FIRST,
      `${mapName(map)}: ${opName(missing << 1)} without ${opName(missing)} before it`,
    );
}

/** Checks an unload, before the map's state is cleared. */
export function checkUnload(map: BusDmamap): void {
  if (!map.isMemory) {
    const unseen = map.touched & map.owned;
    if (unseen !== 0)
      report(
        R_DMA_CHECK_NO_POST,
        `${mapName(map)}: unloaded without ${opName(unseen << 1)}: the device has used it`,
      );
    else if (map.owned !== 0)
      report(
        R_DMA_CHECK_UNLOAD_OWNED,
        `${mapName(map)}: unloaded while the device owns it: ${opName(map.owned)}, never ` +
          opName(map.owned << 1),
      );
  }
  for (let w = map.windows; w !== null; w = w.nextOfMap) {
    const p = past[pastNext]!;
    p.start = w.start;
    p.end = w.end;
    p.map = map;
    pastNext = (pastNext + 1) % PAST_MAX;
  }
}

function reportStray(off: number, len: number, write: boolean, at: number): void {
  // Search from the latest one.
  for (let i = 1; i <= PAST_MAX; i++) {
    const p = past[(pastNext - i + PAST_MAX) % PAST_MAX]!;
    if (at < p.start || at >= p.end) continue;
    report(R_DMA_CHECK_UNLOADED, `${mapName(p.map!)}: ${access(write, len, off)} after the unload`);
    return;
  }
  const inside = at === off ? '' : `, of which those from ${hex(at)} on`;
  report(R_DMA_CHECK_NOT_LOADED, `${access(write, len, off)}${inside} are in no map`);
}

/**
 * Returns a window at `at`, if possible one that was synced with `pre`; null if there is no window.
 */
function windowFor(at: number, pre: number): Window | null {
  let best: Window | null = null;
  for (let w = windowsAt(at); w !== null; w = w.nextOfPage) {
    if (at < w.start || at >= w.end) continue;
    if ((w.map!.owned & pre) !== 0) return w;
    best ??= w;
  }
  return best;
}

/** Checks an access of a device to RAM; makes at most one report. */
export function checkAccess(off: number, len: number, write: boolean): void {
  const pre = write ? BUS_DMASYNC_PREREAD : BUS_DMASYNC_PREWRITE;
  const end = off + len;
  let told = false;
  for (let at = off; at < end;) {
    const w = windowFor(at, pre);
    if (w === null) {
      if (!told) reportStray(off, len, write, at);
      return;
    }
    const map = w.map!;
    map.touched |= pre;
    if ((map.owned & pre) === 0 && !told) {
      told = true;
      report(
        R_DMA_CHECK_NO_PRE,
        `${mapName(map)}: ${access(write, len, off)} without ${opName(pre)}`,
      );
    }
    at = w.end;
  }
}

/** Adds hw.busdma.check and the reports to the machine's tree. Called at boot. */
export function dmaCheckSysctlInit(): void {
  const { tree } = machineSysctl;
  tree.bool('hw.busdma.check', 'Check bus_dma calls (of tapnic)', () => dmaCheck.enabled, null);
  tree.int(
    'hw.busdma.violations',
    'Breaches of the rules of bus_dma found (of tapnic)',
    () => dmaCheck.violations,
    null,
  );
  tree.string('hw.busdma.violation_report', 'The latest breaches, one a line (of tapnic)', () =>
    dmaCheck.reports.join('\n'),
  );
}
