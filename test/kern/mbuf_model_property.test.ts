import * as fc from 'fast-check';
import { expect } from 'chai';
import { EBUSY } from '../../src/sys/errno.ts';
import { kva } from '../../src/sys/types.ts';
import { m_append, m_copyback } from '../../src/kern/m_copyback.ts';
import { m_fragment } from '../../src/kern/m_unshare.ts';
import {
  m_free,
  m_freem,
  mb_unmapped_compress,
  mb_unmapped_to_ext,
} from '../../src/kern/kern_mbuf.ts';
import {
  extHolder,
  type Mbuf,
  M_EXT,
  m_extrefcnt,
  MLEN,
  M_NOMAP,
  M_NOWAIT,
  M_PKTHDR,
  M_RDONLY,
  M_WRITABLE,
} from '../../src/kern/mbuf.ts';
import {
  m_adj,
  m_cat,
  m_catpkt,
  m_collapse,
  m_copym,
  m_defrag,
  m_dup,
  m_length,
  M_PREPEND,
  m_sanity,
  m_split,
} from '../../src/kern/uipc_mbuf.ts';
import { mem } from '../../src/vm/arena.ts';
import { runs } from '../support/property.ts';
import { bootEach, bootKern, expectAllBack } from './boot.ts';
import {
  Chain,
  chainArb,
  expectBytes,
  fillPattern,
  must,
  type Seg,
  scratchPages,
} from './chains.ts';
import { auditMemory } from './mbuf_audit.ts';

/** A chain and the bytes it must hold. */
interface Item {
  m: Mbuf;
  bytes: Uint8Array;
}

const isPkt = (m: Mbuf): boolean => (m.m_flags & M_PKTHDR) !== 0;
const concat = (a: Uint8Array, b: Uint8Array): Uint8Array => {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
};

/** Several chains that may share storage, each with a flat array of its expected bytes. */
class World {
  readonly items: Item[] = [];
  readonly chains: Chain[] = [];
  readonly scratch = scratchPages(2);

  make(segs: Seg[], pkt: number): void {
    const c = new Chain(segs, pkt);
    this.chains.push(c);
    this.items.push({ m: c.m, bytes: c.bytes });
  }

  copym(it: Item, x: number, y: number): void {
    const off = x % (it.bytes.length + 1);
    const len = y % (it.bytes.length - off + 1);
    if (len === 0) return;
    const m = must(m_copym(it.m, off, len, M_NOWAIT));
    this.items.push({ m, bytes: it.bytes.slice(off, off + len) });
  }

  split(it: Item, x: number): void {
    const at = x % (it.bytes.length + 1);
    const rest = m_split(it.m, at, M_NOWAIT);
    if (rest !== null) this.items.push({ m: rest, bytes: it.bytes.slice(at) });
    it.bytes = it.bytes.slice(0, at);
  }

  /** Appends the next item to this one. */
  cat(it: Item, i: number): void {
    const j = (i + 1) % this.items.length;
    const next = this.items[j]!;
    if (next === it) return;
    if (isPkt(it.m) && isPkt(next.m)) m_catpkt(it.m, next.m);
    else if (isPkt(it.m) || isPkt(next.m)) return;
    else m_cat(it.m, next.m);
    it.bytes = concat(it.bytes, next.bytes);
    this.items.splice(j, 1);
  }

  adj(it: Item, x: number, y: number): void {
    const n = x % (it.bytes.length + 3);
    m_adj(it.m, y % 2 === 0 ? n : -n);
    const keep = Math.max(it.bytes.length - n, 0);
    it.bytes = y % 2 === 0 ? it.bytes.slice(it.bytes.length - keep) : it.bytes.slice(0, keep);
  }

  prepend(it: Item, x: number): void {
    const n = 1 + (x % 60);
    it.m = must(M_PREPEND(it.m, n, M_NOWAIT));
    fillPattern(it.m.m_data, n);
    it.bytes = concat(mem.slice(it.m.m_data, it.m.m_data + n), it.bytes);
  }

  /** Skips chains with an empty unmapped mbuf: their conversion fails by definition. */
  convert(it: Item): void {
    for (let m: Mbuf | null = it.m; m !== null; m = m.m_next)
      if ((m.m_flags & M_NOMAP) !== 0 && m.m_len === 0) return;
    it.m = must(mb_unmapped_to_ext(it.m));
    for (let m: Mbuf | null = it.m; m !== null; m = m.m_next)
      expect(m.m_flags & M_NOMAP).to.equal(0);
  }

  compress(it: Item): void {
    for (let m: Mbuf | null = it.m; m !== null; m = m.m_next) {
      if ((m.m_flags & M_NOMAP) === 0 || isPkt(m) || m.m_len > MLEN) continue;
      const alone = m_extrefcnt(m) === 1 && extHolder(m) === m;
      expect(mb_unmapped_compress(m)).to.equal(alone ? 0 : EBUSY);
    }
  }

  copyback(it: Item, x: number, y: number): void {
    const len = y % 400;
    const off = x % (it.bytes.length + 300);
    // Skip ranges that touch unmapped, read-only or shared mbufs: m_copyback must not write there.
    let at = 0;
    for (let m: Mbuf | null = it.m; m !== null; at += m.m_len, m = m.m_next)
      if (!M_WRITABLE(m) && at < off + len && at + m.m_len > off) return;
    fillPattern(this.scratch.off, len);
    m_copyback(it.m, off, len, kva(this.scratch.off));
    const all = new Uint8Array(Math.max(it.bytes.length, off + len));
    all.set(it.bytes);
    // m_copyback with len 0 may still extend the chain up to `off`.
    all.set(mem.subarray(this.scratch.off, this.scratch.off + len), off);
    it.bytes = len === 0 ? all.slice(0, m_length(it.m)) : all;
  }

  append(it: Item, x: number): void {
    const len = x % 700;
    fillPattern(this.scratch.off, len);
    expect(m_append(it.m, len, kva(this.scratch.off))).to.equal(true);
    it.bytes = concat(it.bytes, mem.slice(this.scratch.off, this.scratch.off + len));
  }

  dup(it: Item): void {
    const m = must(m_dup(it.m, M_NOWAIT));
    for (let n: Mbuf | null = m; n !== null; n = n.m_next)
      expect(n.m_flags & (M_NOMAP | M_RDONLY)).to.equal(0);
    this.items.push({ m, bytes: it.bytes });
  }

  free(i: number): void {
    const [it] = this.items.splice(i, 1) as [Item];
    m_freem(it.m);
  }

  step([what, segs, pkt, i, x, y]: Op): void {
    if (what === 'make' || this.items.length === 0) return this.make(segs, pkt);
    const at = i % this.items.length;
    const it = this.items[at]!;
    switch (what) {
      case 'copym':
        return this.copym(it, x, y);
      case 'split':
        return this.split(it, x);
      case 'cat':
        return this.cat(it, at);
      case 'adj':
        return this.adj(it, x, y);
      case 'prepend':
        return this.prepend(it, x);
      case 'convert':
        return this.convert(it);
      case 'compress':
        return this.compress(it);
      case 'collapse':
        void m_collapse(it.m, M_NOWAIT, 1 + (x % 8));
        return;
      case 'defrag':
        if (isPkt(it.m)) it.m = must(m_defrag(it.m, M_NOWAIT));
        return;
      case 'fragment':
        it.m = m_fragment(it.m, M_NOWAIT, 64 + (x % 2000));
        return;
      case 'copyback':
        return this.copyback(it, x, y);
      case 'append':
        return this.append(it, x);
      case 'dup':
        return this.dup(it);
      case 'free':
        return this.free(at);
    }
  }

  check(): void {
    for (const it of this.items) {
      expectBytes(it.m, it.bytes);
      expect(m_length(it.m), 'm_length').to.equal(it.bytes.length);
      expect(m_sanity(it.m, false), 'm_sanity').to.equal(true);
      for (let m: Mbuf | null = it.m; m !== null; m = m.m_next)
        if ((m.m_flags & M_NOMAP) !== 0)
          expect(m.m_flags & (M_EXT | M_RDONLY)).to.equal(M_EXT | M_RDONLY);
    }
    auditMemory([...this.items.map((it) => it.m), ...this.chains.flatMap((c) => c.holders)]);
  }

  done(): void {
    while (this.items.length > 0) this.free(this.items.length - 1);
    for (const c of this.chains) for (const m of c.holders) m_free(m);
    this.scratch.free();
  }
}

const OPS = [
  'make',
  'copym',
  'split',
  'cat',
  'adj',
  'prepend',
  'convert',
  'compress',
  'collapse',
  'defrag',
  'fragment',
  'copyback',
  'append',
  'dup',
  'free',
] as const;
type Op = [(typeof OPS)[number], Seg[], number, number, number, number];

describe('mbufs: random sequences of routines against flat arrays', function () {
  this.timeout(600_000);
  bootEach();

  const n = fc.nat(0x7fffffff);
  const op: fc.Arbitrary<Op> = fc.tuple(
    fc.constantFrom(...OPS),
    chainArb(undefined, 4),
    fc.integer({ min: -1, max: 168 }),
    n,
    n,
    n,
  );

  it('bytes, lengths, reference counts and zones are right after each step', () => {
    fc.assert(
      fc.property(fc.array(op, { minLength: 3, maxLength: 25, size: 'max' }), (ops) => {
        try {
          const world = new World();
          for (const o of ops) {
            world.step(o);
            world.check();
          }
          world.done();
          expectAllBack();
        } catch (error) {
          bootKern(); // clean state for the runs that shrink the counterexample
          throw error;
        }
      }),
      runs(120),
    );
  });
});
