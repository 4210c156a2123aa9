/** A machine for tests, and the leak check: after a test every pool must have its earlier count. */

import { expect } from 'chai';
import { busDmaInit } from '../../src/bus/bus_dma.ts';
import { bouncePageCounts } from '../../src/bus/busdma_bounce.ts';
import { TsCksum } from '../../src/host/cksum_ts.ts';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { mbEmulator, mbuf_init, mbufZones } from '../../src/kern/kern_mbuf.ts';
import { calloutsPending, machineClock, timeoutInit } from '../../src/kern/kern_timeout.ts';
import { soStats } from '../../src/kern/uipc_socket.ts';
import { in_cksumInit } from '../../src/netinet/in_cksum.ts';
import { passReset } from '../../src/sys/pass.ts';
import { resetReasons } from '../../src/sys/reason.ts';
import { mem, PAGE_SIZE } from '../../src/vm/arena.ts';
import { payloadReset } from '../../src/vm/payload.ts';
import { sfBufInit, sfstatBufs } from '../../src/vm/sf_buf.ts';
import { vm_page_startup, vmPageCounts } from '../../src/vm/vm_page.ts';

/** Items in use, by pool. */
export type InUse = Record<string, number>;

const MACHINE_BYTES = 32 * 1024 * 1024;
let arena: ArrayBuffer | undefined;

/**
 * Boots a machine of 32 MiB with virtual time and all counters at 0. All tests share one arena,
 * which is zeroed here: boot before each test.
 */
export function bootMachine(): ManualClock {
  const clock = new ManualClock();
  if (arena !== undefined) new Uint8Array(arena).fill(0);
  passReset();
  vm_page_startup(MACHINE_BYTES, 0, arena);
  arena = mem.buffer;
  sfBufInit(4096);
  payloadReset();
  mbuf_init();
  busDmaInit();
  timeoutInit(clock);
  in_cksumInit(new TsCksum(arena));
  soStats.current = 0;
  resetReasons();
  return clock;
}

/** Runs the upcalls that wait for their turns, those included that they ask for. */
export function runUpcalls(): void {
  (machineClock() as ManualClock).runPosted();
}

/** Counts the items in use. Pages that back a zone do not count. */
export function machineInUse(): InUse {
  const pages = vmPageCounts();
  const use: InUse = {
    sf_bufs: sfstatBufs.current,
    unmapped_mbufs: mbEmulator.unmappedCurrent,
    wired_file_pages: pages.wiredFile,
    sockets: soStats.current,
    callouts: calloutsPending(),
  };
  let zonePages = 0;
  for (const zone of Object.values(mbufZones())) {
    use[zone.uz_name] = zone.current;
    zonePages += (zone.total * zone.size) / PAGE_SIZE;
    expect(zone.current + zone.cached, `${zone.uz_name}: in use + cached`).to.equal(zone.total);
  }
  const bounce = bouncePageCounts();
  use['bounce_pages'] = bounce.inUse;
  use['other_wired_pages'] = pages.wired - pages.wiredFile - zonePages - bounce.total;
  expect(pages.free + pages.cached + pages.wired, 'free + cached + wired').to.equal(pages.total);
  return use;
}

/**
 * Fails unless the items in use equal `before`, a result of `machineInUse()`. By default none may
 * be in use.
 */
export function expectMachineClean(before: InUse = {}): void {
  const now = machineInUse();
  const want = Object.fromEntries(Object.keys(now).map((pool) => [pool, before[pool] ?? 0]));
  expect(now, 'leaked').to.deep.equal(want);
}
