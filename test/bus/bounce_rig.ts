/** Memory around 4 GiB for tests of bus_dma: a 32-bit device reaches only half of it. */

import { expect } from 'chai';
import { resetReasons } from '../../src/sys/reason.ts';
import { mem, PAGE_SIZE, ramBase } from '../../src/vm/arena.ts';
import { payloadReset } from '../../src/vm/payload.ts';
import { sfBufInit } from '../../src/vm/sf_buf.ts';
import {
  type VmPage,
  vm_page_alloc_noobj,
  vm_page_startup,
  VM_PAGE_TO_PHYS,
  PHYS_TO_VM_PAGE,
  vm_page_unwire,
  vmPageAllocBelow,
} from '../../src/vm/vm_page.ts';
import { mb_alloc_ext_pgs, mbuf_init } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_NOWAIT } from '../../src/kern/mbuf.ts';
import {
  bus_dma_tag_create,
  bus_dma_tag_destroy,
  bus_dmamap_create,
  bus_dmamap_destroy,
  bus_dmamap_unload,
  busDmaInit,
  type BusDmamap,
  type BusDmamapRef,
  type BusDmaSegs,
  type BusDmaTag,
  type BusDmaTagParams,
  dmaStats,
} from '../../src/bus/bus_dma.ts';
import { expectMachineClean } from '../support/machine.ts';

export const RAM = 16 << 20;
/** RAM starts 8 MiB below 4 GiB. */
export const LOW_BASE = 0x1_0000_0000 - RAM / 2;
export const MAX32 = 0xffffffff;

/** Boots the parts of a machine that bus_dma needs, with RAM at `base`. */
export function bootDma(base: number): void {
  vm_page_startup(RAM, base);
  sfBufInit(4096);
  mbuf_init();
  busDmaInit();
  payloadReset();
  resetReasons();
}

/** Runs `fn` while all memory below 4 GiB is allocated, so that `fn` allocates above 4 GiB. */
export function above4G<T>(fn: () => T): T {
  const low: VmPage[] = [];
  vmPageAllocBelow(RAM / PAGE_SIZE, MAX32, 1, low);
  try {
    return fn();
  } finally {
    for (const p of low) vm_page_unwire(p, false);
  }
}

/** The n-th byte of all test data. */
export const pattern = (n: number): number => (n * 7 + (n >> 8) * 13 + 1) & 0xff;

function freePages(m: Mbuf): void {
  const pgs = m.m_ext.ext_pgs!;
  for (let i = 0; i < pgs.npgs; i++)
    vm_page_unwire(PHYS_TO_VM_PAGE(pgs.pa[pgs.pa0 + i] as never), false);
}

/** Makes an unmapped mbuf over new pages: `len` bytes from offset `off` of the first page. */
export function newUnmapped(off: number, len: number): Mbuf {
  const m = mb_alloc_ext_pgs(M_NOWAIT, false, freePages)!;
  const pgs = m.m_ext.ext_pgs!;
  pgs.npgs = Math.ceil((off + len) / PAGE_SIZE);
  for (let i = 0; i < pgs.npgs; i++) pgs.pa[pgs.pa0 + i] = VM_PAGE_TO_PHYS(vm_page_alloc_noobj());
  pgs.first_pg_off = off;
  pgs.last_pg_len = pgs.npgs === 1 ? len : off + len - (pgs.npgs - 1) * PAGE_SIZE;
  m.m_len = len;
  m.m_ext.ext_size = pgs.npgs * PAGE_SIZE;
  return m;
}

/** Fills the bytes of an unmapped mbuf's pages with the pattern from `n` on. */
export function fillUnmapped(m: Mbuf, n: number): void {
  const pgs = m.m_ext.ext_pgs!;
  let left = m.m_len;
  for (let i = 0; i < pgs.npgs; i++) {
    const off = i === 0 ? pgs.first_pg_off : 0;
    const at = pgs.pa[pgs.pa0 + i]! - ramBase + off;
    const here = Math.min(PAGE_SIZE - off, left);
    for (let j = 0; j < here; j++) mem[at + j] = pattern(n++);
    left -= here;
  }
}

/** Returns the bytes that a device reads at the segments. */
export function gather(segs: BusDmaSegs): number[] {
  const out: number[] = [];
  for (let i = 0; i < segs.nsegs; i++) {
    const at = segs.ds_addr[i]! - ramBase;
    out.push(...mem.subarray(at, at + segs.ds_len[i]!));
  }
  return out;
}

/** Creates the tags and maps of a test; `end` destroys them. */
export class DmaThings {
  readonly #tags: BusDmaTag[] = [];
  readonly #maps: BusDmamap[] = [];

  tag(params: Partial<BusDmaTagParams> = {}): BusDmaTag {
    const ref = { tag: null as BusDmaTag | null };
    const all = { maxsize: 65536, nsegments: 64, maxsegsz: 65536, ...params };
    expect(bus_dma_tag_create(all, ref)).to.equal(0);
    this.#tags.unshift(ref.tag!);
    return ref.tag!;
  }

  map(tag: BusDmaTag): BusDmamap {
    const ref: BusDmamapRef = { map: null };
    expect(bus_dmamap_create(tag, 0, ref)).to.equal(0);
    this.#maps.push(ref.map!);
    return ref.map!;
  }

  /** Unloads and destroys all maps and tags, and fails if anything leaked. */
  end(): void {
    for (const map of this.#maps.splice(0)) {
      bus_dmamap_unload(map.tag, map);
      expect(bus_dmamap_destroy(map.tag, map)).to.equal(0);
    }
    for (const tag of this.#tags.splice(0)) expect(bus_dma_tag_destroy(tag)).to.equal(0);
    expect([dmaStats.mapsLive, dmaStats.mapsLoaded]).to.deep.equal([0, 0]);
    expectMachineClean();
  }
}
