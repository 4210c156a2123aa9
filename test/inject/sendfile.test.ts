/**
 * Refuses the k-th request to each pool during a sendfile transfer. Nothing may crash or leak, and
 * the stream must arrive whole or end cleanly after the bytes that the call reported.
 */

import { expect } from 'chai';
import { failPoint, failPointNames } from '../../src/sys/fail_point.ts';
import {
  NOPAGE,
  vm_page_alloc_noobj,
  VM_PAGE_TO_PHYS,
  vm_page_unwire,
  type VmPage,
} from '../../src/vm/vm_page.ts';
import { vmObjectsFlush } from '../../src/vm/vm_object.ts';
import { errnoName, TapnicError } from '../../src/sys/errno.ts';
import { nicModels } from '../../src/machine/nic_models.ts';
import { PluggedNic } from '../../src/machine/plugged_nic.ts';
import { FakeWire } from '../dev/fake_wire.ts';
import { fileBytes } from '../kern/disk.ts';
import { full } from '../support/needs.ts';
import { type InUse, machineInUse } from '../support/machine.ts';
import {
  type Conn,
  inWorld,
  type World,
  type WorldFile,
  type WorldOptions,
} from '../support/world.ts';

/** A path of file pages through the stack, and the pools it allocates from. */
interface Road {
  readonly title: string;
  readonly world: WorldOptions;
  /** Whether the pages of the file are cached before the transfer. */
  readonly cached?: boolean;
  /** Whether the pages below 4 GiB are allocated first, so that the file lies above 4 GiB. */
  readonly high?: boolean;
  readonly headers?: readonly Uint8Array[];
  readonly trailers?: readonly Uint8Array[];
  readonly pools: readonly string[];
  /** Bytes of the file. */
  readonly bytes: number;
}

const BYTES = full ? 300_000 : 80_000;

const ROADS: readonly Road[] = [
  {
    title: 'unmapped down to the wire',
    world: {},
    pools: ['mbuf', 'mbuf_extpgs', 'vm_page'],
    bytes: BYTES,
  },
  {
    title: 'between a header and a trailer',
    world: {},
    headers: [fileBytes(9000, 3)],
    trailers: [fileBytes(5000, 4)],
    pools: ['mbuf', 'mbuf_cluster', 'mbuf_extpgs'],
    bytes: BYTES / 5,
  },
  {
    title: 'mapped by sendfile',
    world: { useExtPgs: false },
    pools: ['mbuf', 'sf_buf', 'vm_page'],
    bytes: BYTES,
  },
  {
    title: 'bounced: 32-bit device, memory around 4 GiB',
    world: { model: 'tl', base: 0x1_0000_0000 - (4 << 20), memory: 16 << 20 },
    high: true,
    pools: ['bounce_page', 'mbuf', 'mbuf_cluster', 'sf_buf'],
    bytes: BYTES / 5,
  },
  {
    title: 'mapped by ip_output, -nomap',
    world: { caps: ['-nomap'] },
    cached: true,
    pools: ['mbuf', 'sf_buf'],
    bytes: BYTES,
  },
  {
    title: 'checksum in ip_output, -txcsum',
    world: { caps: ['-txcsum'] },
    cached: true,
    pools: ['mbuf', 'sf_buf'],
    bytes: BYTES / 2,
  },
  {
    title: 'unmapped down to the wire, IPv6',
    world: { six: true },
    pools: ['mbuf', 'mbuf_extpgs', 'vm_page'],
    bytes: BYTES / 2,
  },
  {
    title: 'mapped by ip6_output, -nomap, IPv6',
    world: { six: true, caps: ['-nomap'] },
    cached: true,
    pools: ['mbuf', 'sf_buf'],
    bytes: BYTES / 2,
  },
  {
    title: 'checksum in ip6_output, -txcsum6, IPv6',
    world: { six: true, caps: ['-txcsum6'] },
    cached: true,
    pools: ['mbuf', 'sf_buf'],
    bytes: BYTES / 2,
  },
];

/** Results over all k of a pool: whole transfers, cut transfers by cause, refused requests. */
interface Tally {
  whole: number;
  cut: Record<string, number>;
  fired: number;
}

/**
 * Runs one transfer with the fail point of the pool armed. Returns whether the transfer reached the
 * k-th request.
 */
function once(
  w: World,
  road: Road,
  file: WorldFile,
  pool: string,
  k: number,
  tally: Tally,
): boolean {
  const point = failPoint(pool);
  const { headers = [], trailers = [] } = road;
  const would = Buffer.concat([...headers, file.bytes, ...trailers]);
  point.arm(k);
  const conn: Conn = w.connect({ sport: 40_000 + w.conns.length });
  const call = w.sendfile(conn, file, { headers: [...headers], trailers: [...trailers] });
  let closed = false;
  const ended = w.until(() => {
    if (call.done && !closed) {
      // Close as a server does: after the file, or after the part of it that could be sent.
      closed = true;
      w.closeConn(conn);
    }
    return conn.reader.eof;
  });
  point.disarm();
  const { reset } = conn.reader;
  conn.reader.abort();
  expect(ended, `${pool} ${k}: the reader sees the end of the stream`).to.equal(true);
  const [heard] = call.heard;
  const sbytes = heard?.sbytes ?? 0;
  const { received } = conn.reader;
  const want = would.subarray(0, reset ? received.length : sbytes);
  expect(received.length, `${pool} ${k}: bytes`).to.equal(want.length);
  expect(Buffer.compare(received, want), `${pool} ${k}: content`).to.equal(0);
  if (heard?.error === 0 && sbytes === would.length && !reset) tally.whole++;
  else {
    expect(point.fired, `${pool} ${k}: cut short without a refused request`).to.be.above(0);
    const why = reset ? 'RST' : errnoName(heard!.error);
    tally.cut[why] = (tally.cut[why] ?? 0) + 1;
  }
  tally.fired += point.fired;
  return point.fired > 0;
}

/** Allocates every free page below 4 GiB and returns them; pages above 4 GiB are freed again. */
function takeLow(w: World): VmPage[] {
  const pages: VmPage[] = [];
  const high: VmPage[] = [];
  for (;;) {
    const page = vm_page_alloc_noobj();
    if (page === NOPAGE) break;
    if (VM_PAGE_TO_PHYS(page) > 0xffffffff) high.push(page);
    else pages.push(page);
    if (high.length > 64) break;
  }
  for (const page of high.toReversed()) vm_page_unwire(page, false);
  w.pass(1);
  return pages;
}

/** The next k: at full size every k, otherwise the first 40 and then every eleventh. */
const next = (k: number): number => (full || k < 40 ? k + 1 : k + 11);

describe('allocation failures during sendfile', function () {
  this.timeout(full ? 600_000 : 60_000);

  for (const road of ROADS)
    for (const pool of road.pools)
      it(`${road.title}: ${pool}`, () => {
        const { world, cached = false, bytes } = road;
        expect(failPointNames()).to.include(pool);
        const tally: Tally = { whole: 0, cut: {}, fired: 0 };
        inWorld(world, (w) => {
          const file = w.file(bytes);
          // MLD sends its reports of the groups again within a few seconds (RFC 3810, 6.1).
          if (world.six === true) w.pass(5000);
          const low = road.high === true ? takeLow(w) : [];
          let before: InUse | null = null;
          for (let k = 0, fired = true; fired; k = next(k)) {
            expect(k, 'number of requests of the transfer').to.be.below(10_000);
            if (!cached) vmObjectsFlush();
            fired = once(w, road, file, pool, k, tally) || k === 0;
            w.settle();
            const now = machineInUse();
            // The first run fills caches and the ARP table. After that, no pool may grow.
            if (before === null) before = now;
            expect(now, `${pool} ${k}: in use`).to.deep.equal(before);
          }
          for (const page of low) vm_page_unwire(page, false);
        });
        expect(tally.fired, 'failures').to.be.above(0);
        expect(tally.whole, 'at least the last transfer is whole').to.be.above(0);
        if (process.env['TAPNIC_VERBOSE'] === '1') console.log(pool, JSON.stringify(tally));
      });

  it('DMA maps: a NIC that cannot allocate all its maps fails to attach with ENOMEM and leaks nothing', () => {
    for (const model of nicModels)
      inWorld({}, (w) => {
        w.settle();
        const before = w.machine.leaked();
        const point = failPoint('dma_map');
        let attached = false;
        for (let k = 1; !attached; k = full || k < 20 ? k + 1 : k + 37) {
          expect(k, 'number of DMA maps of the NIC').to.be.below(10_000);
          point.arm(k);
          try {
            new PluggedNic(w.machine, model, new FakeWire(false), '02:00:5e:00:53:01').stop();
            attached = true;
          } catch (e) {
            if (!(e instanceof TapnicError)) throw e;
            expect(e.code, `${model.name} ${k}`).to.equal('ENOMEM');
          }
          point.disarm();
          expect(point.fired, `${model.name} ${k}: refused`).to.equal(attached ? 0 : 1);
          w.pass(1);
          expect(w.machine.leaked(), `${model.name} ${k}: in use`).to.deep.equal(before);
        }
      });
  });
});
