/**
 * Builds mbuf chains of every kind with known bytes. `chainBytes` shares no code with m_copydata,
 * so the tests can use it to check m_copydata.
 */

import * as fc from 'fast-check';
import { expect } from 'chai';
import {
  m_extadd,
  m_free,
  m_get,
  m_getcl,
  m_gethdr,
  m_getjcl,
  mb_alloc_ext_pgs,
  mb_ext_pgs_check,
} from '../../src/kern/kern_mbuf.ts';
import {
  EXT_SFBUF,
  MJUMPAGESIZE,
  type Mbuf,
  M_NOMAP,
  M_NOWAIT,
  M_PKTHDR,
  M_RDONLY,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import { mb_dupcl } from '../../src/kern/uipc_mbuf.ts';
import type { PhysAddr } from '../../src/sys/types.ts';
import { mem, PAGE_SIZE, ramBase } from '../../src/vm/arena.ts';
import {
  sf_buf_alloc,
  sf_buf_free,
  sf_buf_kva,
  sf_buf_page,
  type SfBuf,
} from '../../src/vm/sf_buf.ts';
import {
  NOPAGE,
  PHYS_TO_VM_PAGE,
  vm_page_alloc_contig,
  vm_page_alloc_noobj,
  VM_PAGE_TO_PHYS,
  vm_page_unwire,
} from '../../src/vm/vm_page.ts';

/** Returns `value`; throws if it is null or undefined. */
export function must<T>(value: T | null | undefined): T {
  if (value === null || value === undefined) throw new Error('allocation failed');
  return value;
}

let pattern = 1;

/** Fills arena bytes with pseudo-random numbers. */
export function fillPattern(off: number, len: number): void {
  for (let i = 0; i < len; i++) {
    pattern = (Math.imul(pattern, 1103515245) + 12345) >>> 0;
    mem[off + i] = pattern >>> 16;
  }
}

/** Returns the bytes of a chain, in order. */
export function chainBytes(m: Mbuf | null): Uint8Array {
  const parts: Uint8Array[] = [];
  for (; m !== null; m = m.m_next) parts.push(mbufBytes(m));
  return new Uint8Array(Buffer.concat(parts));
}

/** Returns the bytes [m_data, m_data + m_len) of one mbuf. */
function mbufBytes(m: Mbuf): Uint8Array {
  if ((m.m_flags & M_NOMAP) === 0) return mem.slice(m.m_data, m.m_data + m.m_len);
  const p = must(m.m_ext.ext_pgs);
  const all: Uint8Array[] = [mem.subarray(p.hdr, p.hdr + p.hdr_len)];
  for (let i = 0; i < p.npgs; i++) {
    const start = p.pa[p.pa0 + i]! - ramBase + (i === 0 ? p.first_pg_off : 0);
    const whole = PAGE_SIZE - (i === 0 ? p.first_pg_off : 0);
    const n = i === p.npgs - 1 ? p.last_pg_len : whole;
    all.push(mem.subarray(start, start + n));
  }
  all.push(mem.subarray(p.trail, p.trail + p.trail_len));
  return Buffer.concat(all).subarray(m.m_data, m.m_data + m.m_len);
}

/** Allocates a wired kernel page and fills it with the pattern. */
export function newPage(): number {
  const page = vm_page_alloc_noobj();
  if (page === NOPAGE) throw new Error('no page');
  fillPattern(page * PAGE_SIZE, PAGE_SIZE);
  return page;
}

/** The free routine of `pgsMbuf`: unwires the pages. */
export function freePages(m: Mbuf): void {
  const p = must(m.m_ext.ext_pgs);
  for (let i = 0; i < p.npgs; i++)
    vm_page_unwire(PHYS_TO_VM_PAGE(p.pa[p.pa0 + i]! as PhysAddr), false);
}

/** Layout of an unmapped mbuf: page count, offset into the first page, and byte counts. */
export interface PgsShape {
  npgs: number;
  first?: number;
  last?: number;
  hdr?: number;
  trail?: number;
}

/** Makes an unmapped mbuf over new pages; m_data and m_len cover all its bytes. */
export function pgsMbuf({ npgs, first = 0, last, hdr = 0, trail = 0 }: PgsShape): Mbuf {
  const m = must(mb_alloc_ext_pgs(M_NOWAIT, false, freePages));
  const p = must(m.m_ext.ext_pgs);
  p.first_pg_off = first;
  p.last_pg_len = last ?? PAGE_SIZE - (npgs === 1 ? first : 0);
  p.hdr_len = hdr;
  p.trail_len = trail;
  fillPattern(p.hdr, hdr);
  fillPattern(p.trail, trail);
  for (let i = 0; i < npgs; i++) p.pa[p.pa0 + p.npgs++] = VM_PAGE_TO_PHYS(newPage());
  m.m_ext.ext_size = npgs * PAGE_SIZE;
  m.m_len = hdr + trail + p.last_pg_len + (npgs > 1 ? (npgs - 1) * PAGE_SIZE - first : 0);
  mb_ext_pgs_check(p);
  return m;
}

/** Makes an EXT_SFBUF mbuf over part of a new page, as sendfile does when mb_use_ext_pgs is 0. */
export function sfbufMbuf(off: number, len: number): Mbuf {
  const sf = must(sf_buf_alloc(newPage()));
  const m = must(m_get(M_NOWAIT, MT_DATA));
  const free = (h: Mbuf): void => {
    const handle = h.m_ext.ext_arg1 as SfBuf;
    const page = sf_buf_page(handle);
    sf_buf_free(handle);
    vm_page_unwire(page, false);
  };
  m_extadd(m, sf_buf_kva(sf), PAGE_SIZE, free, sf, null, M_RDONLY, EXT_SFBUF);
  m.m_data += off;
  m.m_len = len;
  return m;
}

export type Kind = 'plain' | 'cluster' | 'jumbo' | 'sfbuf' | 'pgs' | 'empty';

/** One mbuf of a random chain. `plainOrExt` derives a valid mbuf from the random numbers. */
export interface Seg {
  kind: Kind;
  a: number;
  b: number;
  c: number;
  d: number;
  shadow: 'no' | 'alive' | 'dead';
}

const ALL: Kind[] = ['plain', 'cluster', 'jumbo', 'sfbuf', 'pgs', 'empty'];
export const MAPPED: Kind[] = ['plain', 'cluster', 'jumbo', 'sfbuf', 'empty'];

export function segArb(kinds: Kind[] = ALL): fc.Arbitrary<Seg> {
  const n = fc.nat(0x7fffffff);
  return fc.record({
    kind: fc.constantFrom(...kinds),
    a: n,
    b: n,
    c: n,
    d: n,
    shadow: fc.constantFrom('no' as const, 'alive' as const, 'dead' as const),
  });
}

/** Generates random chains as lists of segments. */
export function chainArb(kinds: Kind[] = ALL, maxLength = 6): fc.Arbitrary<Seg[]> {
  return fc.array(segArb(kinds), { minLength: 1, maxLength });
}

function mappedMbuf(m: Mbuf, room: number, s: Seg): Mbuf {
  const off = s.a % room;
  m.m_data += off;
  m.m_len = s.b % (room - off + 1);
  fillPattern(m.m_data, m.m_len);
  return m;
}

function pgsOfSeg(s: Seg): Mbuf {
  const npgs = s.a % 23 === 0 ? 19 : 1 + (s.a % 4);
  const first = s.b % 3 === 0 ? 0 : s.b % PAGE_SIZE;
  const room = PAGE_SIZE - (npgs === 1 ? first : 0);
  const last = s.c % 3 === 0 ? room : 1 + (s.c % room);
  const hdr = s.d % 3 === 0 ? s.d % 24 : 0;
  const trail = s.d % 5 === 0 ? s.d % 65 : 0;
  const m = pgsMbuf({ npgs, first, last, hdr, trail });
  const skip = s.d % 2 === 0 ? 0 : s.a % m.m_len;
  m.m_data += skip;
  m.m_len -= skip;
  if (s.c % 2 === 1) m.m_len = 1 + (s.b % m.m_len);
  return m;
}

function plainOrExt(s: Seg): Mbuf {
  switch (s.kind) {
    case 'plain':
      return mappedMbuf(must(m_get(M_NOWAIT, MT_DATA)), 224, s);
    case 'empty':
      return must(m_get(M_NOWAIT, MT_DATA));
    case 'cluster':
      return mappedMbuf(must(m_getcl(M_NOWAIT, MT_DATA, 0)), 2048, s);
    case 'jumbo':
      return mappedMbuf(must(m_getjcl(M_NOWAIT, MT_DATA, 0, MJUMPAGESIZE)), 4096, s);
    case 'sfbuf': {
      const off = s.a % PAGE_SIZE;
      return sfbufMbuf(off, 1 + (s.b % (PAGE_SIZE - off)));
    }
    case 'pgs':
      return pgsOfSeg(s);
  }
}

/** A chain under test, and the mbufs outside it that hold storage the chain shares. */
export class Chain {
  readonly m: Mbuf;
  readonly bytes: Uint8Array;
  /** Mbufs outside the chain whose storage it shares. */
  readonly holders: Mbuf[] = [];

  /** @param pkt if not negative, a packet header mbuf with `pkt` bytes precedes the segments */
  constructor(segs: Seg[], pkt = -1) {
    let top: Mbuf | null = null;
    let tail: Mbuf | null = null;
    const add = (m: Mbuf): void => {
      if (tail === null) top = m;
      else tail.m_next = m;
      tail = m;
    };
    if (pkt >= 0) {
      const h = must(m_gethdr(M_NOWAIT, MT_DATA));
      h.m_len = pkt;
      fillPattern(h.m_data, pkt);
      add(h);
    }
    for (const s of segs) add(this.#shadowed(plainOrExt(s), s));
    this.m = must(top as Mbuf | null);
    this.bytes = chainBytes(this.m);
    if ((this.m.m_flags & M_PKTHDR) !== 0) this.m.m_pkthdr.len = this.bytes.length;
  }

  #shadowed(m: Mbuf, s: Seg): Mbuf {
    if (s.shadow === 'no' || s.kind === 'plain' || s.kind === 'empty') return m;
    const n = must(m_get(M_NOWAIT, MT_DATA));
    mb_dupcl(n, m);
    n.m_data = m.m_data;
    n.m_len = m.m_len;
    if (s.shadow === 'dead') m_free(m);
    else this.holders.push(m);
    return n;
  }

  /** Frees the holders after the chain itself was freed. */
  done(): void {
    for (const m of this.holders) m_free(m);
  }
}

/** Fails unless the chain holds the bytes `want` and, for a packet, m_pkthdr.len is their count. */
export function expectBytes(m: Mbuf | null, want: Uint8Array, what = 'bytes'): void {
  const got = chainBytes(m);
  expect(got.length, `${what}: length`).to.equal(want.length);
  const at = got.findIndex((b, i) => b !== want[i]);
  expect(at, `${what}: first wrong byte`).to.equal(-1);
  if (m === null) return;
  if ((m.m_flags & M_PKTHDR) !== 0)
    expect(m.m_pkthdr.len, `${what}: packet length`).to.equal(want.length);
  for (let n = m.m_next; n !== null; n = n.m_next)
    expect(n.m_flags & M_PKTHDR, `${what}: packet header after the first mbuf`).to.equal(0);
}

/**
 * Allocates `n` adjacent wired pages to copy into. Returns their arena offset and a function that
 * frees them.
 */
export function scratchPages(n: number): { off: number; free: () => void } {
  const first = vm_page_alloc_contig(n, 1, 0);
  if (first === NOPAGE) throw new Error('no pages');
  return {
    off: first * PAGE_SIZE,
    free: () => {
      for (let p = first; p < first + n; p++) vm_page_unwire(p, false);
    },
  };
}
