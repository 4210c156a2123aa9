/** A machine with one NIC of any model, its driver attached, on a wire held by the test. */

import { expect } from 'chai';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { TsCksum } from '../../src/host/cksum_ts.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { dmaStats } from '../../src/bus/bus_dma.ts';
import { dmaCheck } from '../../src/bus/busdma_check.ts';
import { EAGAIN } from '../../src/sys/errno.ts';
import { mb_alloc_ext_pgs, m_freem, m_get, m_gethdr, m_getjcl } from '../../src/kern/kern_mbuf.ts';
import { timeoutEnd } from '../../src/kern/kern_timeout.ts';
import { MCLBYTES, type Mbuf, M_NOWAIT, M_PKTHDR, MT_DATA } from '../../src/kern/mbuf.ts';
import { Machine } from '../../src/machine/machine.ts';
import type { NicModel } from '../../src/machine/nic_model.ts';
import { PluggedNic } from '../../src/machine/plugged_nic.ts';
import { type Ifnet, IFF_UP, type IfIoctl, SIOCSIFFLAGS } from '../../src/net/if_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { arenaBytes, mem, PAGE_SIZE } from '../../src/vm/arena.ts';
import {
  vmPageAllocBelow,
  type VmPage,
  vm_page_alloc_noobj,
  VM_PAGE_TO_PHYS,
  vm_page_unwire,
} from '../../src/vm/vm_page.ts';
import { HandDisk } from '../kern/disk.ts';
import { FakeWire } from '../dev/fake_wire.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { chainBytes } from './tn_host.ts';

export interface NicHostOptions {
  /** Physical address of RAM. */
  readonly base?: number;
  readonly iommu?: boolean;
}

const MEMORY = 32 << 20;
let arena: ArrayBuffer | null = null;

/** Boots a machine, in memory that all hosts use one after the other. bus_dma calls are checked. */
export function bootForNic(options: NicHostOptions = {}): Machine {
  arena ??= new ArrayBuffer(arenaBytes(MEMORY));
  new Uint8Array(arena).fill(0);
  return new Machine({
    memory: MEMORY,
    // Addresses exceed 2^32 and their low halves 2^31: V8 stores neither as a small integer.
    base: options.base ?? 0x8002_c000_0000,
    iommu: options.iommu ?? false,
    dmaCheck: true,
    seed: 1,
    clock: new ManualClock(),
    prng: new SeededPrng(1),
    pager: new HandDisk(),
    cksum: new TsCksum(arena),
    arena,
  });
}

/** Sends the chain that `make` makes. */
function transmit(ifp: Ifnet, make: () => Mbuf): void {
  ifp.if_driver!.if_transmit(ifp, make());
}

/** ext_free: the host owns the page, so freeing the mbuf leaves it alone. */
const keepPage = (): void => {};

export class NicHost {
  readonly machine: Machine;
  readonly wire = new FakeWire();
  readonly nic: PluggedNic;
  /** Frames passed to if_input; the test frees them, or `down` does. */
  readonly received: Mbuf[] = [];
  readonly #pages: VmPage[] = [];

  constructor(model: NicModel, options: NicHostOptions = {}) {
    this.machine = bootForNic(options);
    this.nic = new PluggedNic(this.machine, model, this.wire, '02:00:00:00:00:01');
    this.ifp.if_input = (_ifp, m) => void this.received.push(m);
  }

  get clock(): ManualClock {
    return this.machine.clock as ManualClock;
  }

  get ifp(): Ifnet {
    return this.nic.ifp;
  }

  ioctl(command: IfIoctl, data = 0): number {
    return this.ifp.if_driver!.if_ioctl(this.ifp, command, data);
  }

  up(): this {
    this.ifp.if_flags |= IFF_UP;
    expect(this.ioctl(SIOCSIFFLAGS)).to.equal(0);
    this.clock.runPosted();
    return this;
  }

  /** Sends chains in one pass, then runs the interrupt handler. */
  send(...chains: Mbuf[]): number[] {
    const errors = inPass(() => chains.map((m) => this.ifp.if_driver!.if_transmit(this.ifp, m)));
    this.clock.runPosted();
    return errors;
  }

  /** Injects frames, then runs the interrupt handler. */
  inject(...frames: Uint8Array[]): void {
    this.wire.inject(...frames);
    this.clock.runPosted();
  }

  /** The bytes of each received frame. */
  get receivedBytes(): Uint8Array[] {
    return this.received.map((m) => chainBytes(m));
  }

  /** Frees the received frames. */
  drop(): void {
    for (const m of this.received.splice(0)) m_freem(m);
  }

  /** Runs `fn` while no page below 4 GiB is free. */
  high<T>(fn: () => T): T {
    const low: number[] = [];
    vmPageAllocBelow(1 << 20, 0xffff_ffff, 1, low);
    try {
      return fn();
    } finally {
      for (const p of low) vm_page_unwire(p, false);
    }
  }

  /**
   * A chain of a frame's bytes, cut into mbufs of the given lengths and the rest into clusters of
   * `size` bytes.
   */
  chain(frame: Uint8Array, cuts: readonly number[] = [], size = MCLBYTES): Mbuf {
    const head = m_gethdr(M_NOWAIT, MT_DATA)!;
    head.m_pkthdr.len = frame.length;
    let tail = head;
    let at = 0;
    const append = (m: Mbuf, len: number): void => {
      mem.set(frame.subarray(at, at + len), m.m_data);
      m.m_len = len;
      at += len;
      if (m !== head) tail.m_next = m;
      tail = m;
    };
    for (const [i, len] of cuts.entries()) {
      const n = Math.min(len, frame.length - at);
      if (n > 0) append(i === 0 ? head : m_get(M_NOWAIT, MT_DATA)!, n);
    }
    while (at < frame.length)
      append(m_getjcl(M_NOWAIT, MT_DATA, 0, size)!, Math.min(frame.length - at, size));
    return head;
  }

  /** Returns a function that makes a copy of the frame in one cluster. */
  clusterMaker(frame: Uint8Array): () => Mbuf {
    return () => {
      const m = m_getjcl(M_NOWAIT, MT_DATA, M_PKTHDR, MCLBYTES)!;
      mem.set(frame, m.m_data);
      m.m_len = m.m_pkthdr.len = frame.length;
      return m;
    };
  }

  /**
   * Returns a function that makes the frame with 54 bytes mapped and the rest unmapped, on a page
   * that the host owns.
   */
  unmappedMaker(frame: Uint8Array): () => Mbuf {
    const page = vm_page_alloc_noobj();
    this.#pages.push(page);
    mem.set(frame.subarray(54), page * PAGE_SIZE);
    const pa = VM_PAGE_TO_PHYS(page);
    return () => {
      const head = m_gethdr(M_NOWAIT, MT_DATA)!;
      for (let i = 0; i < 54; i++) mem[head.m_data + i] = frame[i]!;
      head.m_len = 54;
      head.m_pkthdr.len = frame.length;
      const m = mb_alloc_ext_pgs(M_NOWAIT, false, keepPage)!;
      const pgs = m.m_ext.ext_pgs!;
      pgs.pa[pgs.pa0] = pa;
      pgs.npgs = 1;
      pgs.last_pg_len = frame.length - 54;
      m.m_len = frame.length - 54;
      m.m_ext.ext_size = PAGE_SIZE;
      head.m_next = m;
      return head;
    };
  }

  /** Heap bytes allocated per chain sent, interrupt included, `make` itself excluded. */
  garbageOfSending(make: () => Mbuf): number {
    this.wire.keep = false;
    const own = bytesPerCall(() => m_freem(make()));
    const { ifp, clock } = this;
    const all = bytesPerCall(() => {
      inPass(transmit, ifp, make);
      clock.runPosted();
    });
    return all - own;
  }

  /** Heap bytes allocated per frame received, interrupt included. */
  garbageOfReceiving(frame: Uint8Array): number {
    // A wire that copies the same frame from the arena each time, and allocates nothing.
    const keep = m_getjcl(M_NOWAIT, MT_DATA, M_PKTHDR, MCLBYTES)!;
    mem.set(frame, keep.m_data);
    let left = 0;
    this.wire.readv = (iov) => {
      if (left-- <= 0) return -EAGAIN;
      mem.copyWithin(iov[0]!, keep.m_data, keep.m_data + frame.length);
      return frame.length;
    };
    let n = 0;
    this.ifp.if_input = (_ifp, m) => {
      n++;
      m_freem(m);
    };
    const bytes = bytesPerCall(() => {
      left = 1;
      this.wire.notify();
      this.clock.runPosted();
    });
    expect(n).to.be.above(100_000);
    m_freem(keep);
    return bytes;
  }

  /** Frees the received frames, unplugs the NIC, and checks for leaks and wrong bus_dma calls. */
  down(): void {
    this.drop();
    for (const page of this.#pages) vm_page_unwire(page, false);
    this.nic.stop();
    this.clock.runPosted();
    timeoutEnd();
    expect(this.machine.leaked(), 'leaked').to.deep.equal({});
    expect([dmaStats.mapsLive, dmaStats.mapsLoaded]).to.deep.equal([0, 0]);
    expect(dmaCheck.reports, 'bus_dma calls').to.deep.equal([]);
  }
}
