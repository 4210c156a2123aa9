/** A machine with one `tn`, its driver attached and up, on a wire held by the test. */

import { expect } from 'chai';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { TsCksum } from '../../src/host/cksum_ts.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { inPass, passReset } from '../../src/sys/pass.ts';
import { resetReasons } from '../../src/sys/reason.ts';
import type { PhysAddr } from '../../src/sys/types.ts';
import { deviceSramOff, mem, memView, PAGE_SIZE } from '../../src/vm/arena.ts';
import { payloadReset } from '../../src/vm/payload.ts';
import { sfBufInit } from '../../src/vm/sf_buf.ts';
import {
  type PageOwner,
  PHYS_TO_VM_PAGE,
  vm_page_alloc,
  vm_page_alloc_noobj,
  vm_page_startup,
  VM_PAGE_TO_PHYS,
  vm_page_unwire,
  vm_page_xunbusy,
  type VmPage,
} from '../../src/vm/vm_page.ts';
import { m_freem, m_gethdr, mb_alloc_ext_pgs, mbuf_init } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import { timeoutInit } from '../../src/kern/kern_timeout.ts';
import { vnet_alloc } from '../../src/kern/vnet.ts';
import {
  bus_dma_tag_create,
  bus_dma_tag_destroy,
  busDmaInit,
  type BusDmaTag,
  type BusDmaTagParams,
  type BusDmaTagRef,
  busDmaWatch,
  dmaStats,
} from '../../src/bus/bus_dma.ts';
import { dmaCheck } from '../../src/bus/busdma_check.ts';
import { RamDmaPort } from '../../src/bus/dma_port.ts';
import { IntrVector } from '../../src/bus/intr.ts';
import { IFF_UP, Ifnet, SIOCSIFFLAGS } from '../../src/net/if_var.ts';
import { TnDevice } from '../../src/dev/tn/tn.ts';
import { tn_attach, tn_detach } from '../../drivers/if_tn.ts';
import { TnSoftc } from '../../drivers/if_tnvar.ts';
import { FakeWire } from '../dev/fake_wire.ts';
import { type InUse, machineInUse } from '../support/machine.ts';

/** Addresses exceed 2^32 and their low halves 2^31: V8 stores neither as a small integer. */
export const BASE = 0x8002_c000_0000;

const noOwner: PageOwner = { pageReclaimed: () => {} };

/** Bytes of a mapped chain. The read is not counted as a payload read. */
export function chainBytes(m: Mbuf): Uint8Array {
  const parts: number[] = [];
  for (let n: Mbuf | null = m; n !== null; n = n.m_next)
    parts.push(...mem.subarray(n.m_data, n.m_data + n.m_len));
  return Uint8Array.from(parts);
}

/** DMA options of the host: base of RAM, IOMMU, parent tag of the bus. */
export interface TnHostDma {
  readonly base?: number;
  readonly iommu?: boolean;
  readonly parent?: BusDmaTagParams;
}

export class TnHost {
  readonly clock = new ManualClock();
  readonly wire: FakeWire;
  readonly dev: TnDevice;
  readonly intr: IntrVector;
  readonly ifp: Ifnet;
  /** Frames passed to if_input; the test frees them. */
  readonly received: Mbuf[] = [];
  readonly before: InUse;
  /** Whether to allocate file pages so that no two are adjacent in RAM. */
  scatter = false;
  readonly #spares: VmPage[] = [];
  #pindex = 0;

  readonly #parent: BusDmaTag | null = null;

  constructor(mode: 'wire' | 'vnet' = 'wire', size = 64 << 20, dma: TnHostDma = {}) {
    passReset();
    vm_page_startup(size, dma.base ?? BASE);
    sfBufInit(4096);
    mbuf_init();
    timeoutInit(this.clock);
    resetReasons();
    busDmaInit();
    busDmaWatch({ check: true, iommu: dma.iommu ?? false });
    payloadReset();
    this.before = machineInUse();
    this.wire = new FakeWire(mode === 'vnet');
    this.intr = new IntrVector(this.clock);
    this.dev = new TnDevice({
      dma: new RamDmaPort(),
      intr: this.intr,
      wire: this.wire,
      cksum: new TsCksum(mem.buffer),
      clock: this.clock,
      mem,
      view: memView,
      sramOff: deviceSramOff(),
      mode,
      mac: Uint8Array.from([2, 0, 0, 0, 0, 1]),
    });
    this.ifp = new Ifnet(vnet_alloc(new SeededPrng(1)), 'tn0');
    if (dma.parent !== undefined) {
      const ref: BusDmaTagRef = { tag: null };
      expect(bus_dma_tag_create(dma.parent, ref)).to.equal(0);
      this.#parent = ref.tag;
    }
    expect(tn_attach(this.ifp, this.dev, this.#parent, this.intr)).to.equal(0);
    this.ifp.if_input = (_ifp, m) => void this.received.push(m);
  }

  get sc(): TnSoftc {
    return this.ifp.if_softc as TnSoftc;
  }

  up(): this {
    this.ifp.if_flags |= IFF_UP;
    expect(this.ioctl(SIOCSIFFLAGS, 0)).to.equal(0);
    this.clock.runPosted();
    return this;
  }

  ioctl(command: Parameters<TnSoftc['if_ioctl']>[1], data: number): number {
    return this.sc.if_ioctl(this.ifp, command, data);
  }

  /**
   * Frees the received frames, detaches the driver, and checks for leaks and wrong bus_dma calls.
   */
  down(): void {
    for (const m of this.received) m_freem(m);
    for (const p of this.#spares) vm_page_unwire(p, false);
    tn_detach(this.ifp);
    if (this.#parent !== null) expect(bus_dma_tag_destroy(this.#parent)).to.equal(0);
    this.dev.close();
    this.clock.runPosted();
    expect(machineInUse(), 'leaked').to.deep.equal(this.before);
    expect([dmaStats.mapsLive, dmaStats.mapsLoaded]).to.deep.equal([0, 0]);
    expect(dmaCheck.reports, 'bus_dma calls').to.deep.equal([]);
  }

  /** Sends chains in one pass, then runs the interrupt handler. */
  send(...chains: Mbuf[]): number[] {
    const errors = inPass(() => chains.map((m) => this.sc.if_transmit(this.ifp, m)));
    this.clock.runPosted();
    return errors;
  }

  /** A wired file page with `bytes` at `off`. */
  filePage(bytes: Uint8Array, off = 0): VmPage {
    if (this.scatter) this.#spares.push(vm_page_alloc_noobj());
    const p = vm_page_alloc(noOwner, this.#pindex++);
    vm_page_xunbusy(p, true);
    mem.set(bytes, p * PAGE_SIZE + off);
    return p;
  }

  /**
   * The frame as the stack would send a file: `hdrLen` bytes in a mapped mbuf, the rest in unmapped
   * mbufs over file pages, `pagesPer` pages per mbuf, from offset `off` in the first page.
   */
  unmapped(frame: Uint8Array, hdrLen: number, off = 0, pagesPer = 19): Mbuf {
    const head = this.mapped(frame.subarray(0, hdrLen));
    head.m_pkthdr.len = frame.length;
    let tail = head;
    let at = hdrLen;
    let pgoff = off;
    while (at < frame.length) {
      const m = mb_alloc_ext_pgs(M_NOWAIT, false, freeFilePages)!;
      const pgs = m.m_ext.ext_pgs!;
      pgs.first_pg_off = pgoff;
      while (pgs.npgs < pagesPer && at < frame.length) {
        const n = Math.min(PAGE_SIZE - pgoff, frame.length - at);
        const page = this.filePage(frame.subarray(at, at + n), pgoff);
        pgs.pa[pgs.pa0 + pgs.npgs++] = VM_PAGE_TO_PHYS(page);
        pgs.last_pg_len = n;
        m.m_len += n;
        m.m_ext.ext_size += PAGE_SIZE;
        at += n;
        pgoff = 0;
      }
      tail.m_next = m;
      tail = m;
    }
    return head;
  }

  /** A packet-header mbuf with up to MHLEN bytes. */
  mapped(bytes: Uint8Array): Mbuf {
    const m = m_gethdr(M_NOWAIT, MT_DATA)!;
    mem.set(bytes, m.m_data);
    m.m_len = bytes.length;
    m.m_pkthdr.len = bytes.length;
    return m;
  }
}

function freeFilePages(m: Mbuf): void {
  const pgs = m.m_ext.ext_pgs!;
  for (let i = 0; i < pgs.npgs; i++)
    vm_page_unwire(PHYS_TO_VM_PAGE(pgs.pa[pgs.pa0 + i] as PhysAddr), true);
}
