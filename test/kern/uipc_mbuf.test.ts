import { expect } from 'chai';
import * as fc from 'fast-check';
import { m_free, m_freem, m_get, m_getcl, m_gethdr, mbufZones } from '../../src/kern/kern_mbuf.ts';
import { m_copydata, m_mbuftouio, m_unmappedtouio } from '../../src/kern/m_copydata.ts';
import {
  type Mbuf,
  M_COPYALL,
  m_extrefcnt,
  MHLEN,
  M_NOMAP,
  M_NOWAIT,
  M_PKTHDR,
  M_RDONLY,
  MT_DATA,
  mtod,
} from '../../src/kern/mbuf.ts';
import {
  m_adj,
  m_cat,
  m_catpkt,
  m_collapse,
  m_copym,
  m_copypacket,
  m_defrag,
  m_dup,
  m_fixhdr,
  m_getptr,
  m_getptrOff,
  m_last,
  m_length,
  M_PREPEND,
  m_pullup,
  m_split,
} from '../../src/kern/uipc_mbuf.ts';
import { m_copyback } from '../../src/kern/m_copyback.ts';
import { m_uiotombuf } from '../../src/kern/m_uiotombuf.ts';
import { kva } from '../../src/sys/types.ts';
import { mem } from '../../src/vm/arena.ts';
import { payloadBytesRead, READ_COPY } from '../../src/vm/payload.ts';
import { Uio, UIO_READ, UIO_WRITE } from '../../src/vm/uio.ts';
import { runs } from '../support/property.ts';
import { bootEach, bootKern, expectAllBack } from './boot.ts';
import {
  Chain,
  chainArb,
  chainBytes,
  expectBytes,
  MAPPED,
  must,
  pgsMbuf,
  scratchPages,
  sfbufMbuf,
} from './chains.ts';

const RUNS = runs(150);
const pktArb = fc.integer({ min: -1, max: 168 });
const n31 = fc.nat(0x7fffffff);

/** Runs `body` on random chains and fails if it leaks. */
function onChains(
  body: (c: Chain, x: number, y: number) => void,
  kinds = undefined as never,
): void {
  fc.assert(
    fc.property(chainArb(kinds), pktArb, n31, n31, (segs, pkt, x, y) => {
      try {
        const c = new Chain(segs, pkt);
        body(c, x, y);
        c.done();
        expectAllBack();
      } catch (error) {
        bootKern(); // clean state for the runs that shrink the counterexample
        throw error;
      }
    }),
    RUNS,
  );
}

/** Derives an offset into `bytes` and a length from there from two random numbers. */
function range(bytes: Uint8Array, x: number, y: number): [number, number] {
  const off = x % (bytes.length + 1);
  return [off, y % (bytes.length - off + 1)];
}

/** A user buffer in several pieces, and a uio over them. */
function pieces(len: number, seed: number): { parts: Uint8Array[]; uio: Uio } {
  const parts: Uint8Array[] = [];
  for (let left = len, s = seed; left > 0 || parts.length === 0; s = (s >>> 3) + 7) {
    const n = Math.min(left, s % 3000);
    parts.push(new Uint8Array(n));
    left -= n;
  }
  const uio = new Uio().set(
    parts.map((p) => ({ iov_base: p, iov_off: 0, iov_len: p.length })),
    UIO_READ,
  );
  return { parts, uio };
}

const joined = (parts: Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((p) => [...p]));

describe('uipc_mbuf: random chains against a flat array', function () {
  this.timeout(600_000);
  bootEach();

  it('m_copydata', () => {
    onChains((c, x, y) => {
      const to = scratchPages(80);
      const [off, len] = range(c.bytes, x, y);
      mem[to.off + len] = 0x5a;
      m_copydata(c.m, off, len, kva(to.off));
      const got = mem.slice(to.off, to.off + len);
      expect(got).to.eql(c.bytes.slice(off, off + len));
      expect(mem[to.off + len]).to.equal(0x5a); // no byte past the end is written
      to.free();
      m_freem(c.m);
    });
  });

  it('m_mbuftouio of the whole chain and of a part', () => {
    onChains((c, x, y) => {
      for (const len of [0, y % (c.bytes.length + 1)]) {
        const room = len === 0 ? c.bytes.length : Math.max(len, x % (c.bytes.length + 1));
        const { parts, uio } = pieces(room, x);
        m_mbuftouio(uio, c.m, len);
        const n = len === 0 ? c.bytes.length : len;
        expect(joined(parts).slice(0, n)).to.eql(c.bytes.slice(0, n));
        expect(uio.uio_resid).to.equal(room - n);
      }
      m_freem(c.m);
    });
  });

  it('m_copym of a range, freed before and after its source', () => {
    onChains((c, x, y) => {
      const [off, len] = range(c.bytes, x, y);
      const n = len === 0 ? null : must(m_copym(c.m, off, len, M_NOWAIT));
      expectBytes(n, c.bytes.slice(off, off + len));
      if (x % 2 === 0) {
        m_freem(n);
        expectBytes(c.m, c.bytes);
        m_freem(c.m);
      } else {
        m_freem(c.m);
        expectBytes(n, c.bytes.slice(off, off + len));
        m_freem(n);
      }
    });
  });

  it('m_copypacket', () => {
    onChains((c) => {
      const n = must(m_copypacket(c.m, M_NOWAIT));
      expectBytes(n, c.bytes);
      m_freem(c.m);
      expectBytes(n, c.bytes);
      m_freem(n);
    });
  });

  it('m_dup returns writable mbufs that share no storage', () => {
    onChains((c) => {
      const n = must(m_dup(c.m, M_NOWAIT));
      m_freem(c.m);
      expectBytes(n, c.bytes);
      for (let m: Mbuf | null = n; m !== null; m = m.m_next)
        expect(m.m_flags & (M_NOMAP | M_RDONLY)).to.equal(0);
      m_freem(n);
    });
  });

  it('m_split', () => {
    onChains((c, x) => {
      const at = x % (c.bytes.length + 1);
      const pkt = (c.m.m_flags & M_PKTHDR) !== 0;
      const rest = m_split(c.m, at, M_NOWAIT);
      expectBytes(c.m, c.bytes.slice(0, at), 'front');
      expectBytes(rest, c.bytes.slice(at), 'rest');
      if (pkt) expect(must(rest).m_flags & M_PKTHDR).to.equal(M_PKTHDR);
      m_freem(c.m);
      expectBytes(rest, c.bytes.slice(at), 'rest alone');
      m_freem(rest);
    });
  });

  it('m_split that fails leaks nothing and leaves a packet unchanged', () => {
    onChains((c, x, y) => {
      const at = x % (c.bytes.length + 1);
      const { mbuf } = mbufZones();
      const held = mbuf.current;
      mbuf.max = held + (y % 2);
      const rest = m_split(c.m, at, M_NOWAIT);
      mbuf.max = 1 << 20;
      if (rest === null && (c.m.m_flags & M_PKTHDR) !== 0) expectBytes(c.m, c.bytes);
      if (rest === null) expect(mbuf.current).to.equal(held);
      expect(m_length(c.m) + m_length(rest)).to.equal(c.bytes.length);
      m_freem(c.m);
      m_freem(rest);
    });
  });

  it('m_adj from the front and from the end', () => {
    onChains((c, x, y) => {
      const front = x % (c.bytes.length + 20); // may exceed the length of the chain
      m_adj(c.m, front);
      const left = c.bytes.slice(Math.min(front, c.bytes.length));
      expectBytes(c.m, left, 'front');
      const back = 1 + (y % (left.length + 20));
      m_adj(c.m, -back);
      expectBytes(c.m, left.slice(0, Math.max(left.length - back, 0)), 'back');
      m_freem(c.m);
    });
  });

  it('m_cat and m_catpkt', () => {
    fc.assert(
      fc.property(chainArb(), chainArb(), pktArb, (one, two, pkt) => {
        const a = new Chain(one, pkt);
        const b = new Chain(two, pkt);
        if (pkt >= 0) m_catpkt(a.m, b.m);
        else m_cat(a.m, b.m);
        expectBytes(a.m, Uint8Array.from([...a.bytes, ...b.bytes]));
        m_freem(a.m);
        a.done();
        b.done();
        expectAllBack();
      }),
      RUNS,
    );
  });

  it('M_PREPEND', () => {
    onChains((c, x) => {
      const n = x % (MHLEN + 1);
      const top = must(M_PREPEND(c.m, n, M_NOWAIT));
      expect(top.m_len).to.be.at.least(n);
      if (n > 0) mem.fill(0xa5, mtod(top), mtod(top) + n);
      expectBytes(top, Uint8Array.from([...Array.from({ length: n }, () => 0xa5), ...c.bytes]));
      m_freem(top);
    });
  });

  it('m_getptr', () => {
    onChains((c, x) => {
      const at = x % (c.bytes.length + 2);
      const m = m_getptr(c.m, at);
      if (at > c.bytes.length) {
        expect(m).to.equal(null);
      } else if (m !== null) {
        let before = 0;
        for (let n = c.m; n !== m; n = n.m_next!) before += n.m_len;
        expect(before + m_getptrOff.off).to.equal(at);
        expect(m_getptrOff.off).to.be.at.most(m.m_len);
      }
      m_freem(c.m);
    });
  });

  it('m_defrag returns mapped mbufs, or null with the chain unchanged', () => {
    onChains((c, x) => {
      if ((c.m.m_flags & M_PKTHDR) === 0) return m_freem(c.m);
      const { mbuf } = mbufZones();
      if (x % 4 === 0) mbuf.max = mbuf.current + (x % 3);
      const n = m_defrag(c.m, M_NOWAIT);
      mbuf.max = 1 << 20;
      expectBytes(n ?? c.m, c.bytes);
      for (let m = n; m !== null; m = m.m_next) expect(m.m_flags & M_NOMAP).to.equal(0);
      m_freem(n ?? c.m);
    });
  });

  /** Counts the fragments without using the code under test. */
  function frags(m: Mbuf | null): number {
    let n = 0;
    for (; m !== null; m = m.m_next) {
      const p = (m.m_flags & M_NOMAP) === 0 ? null : m.m_ext.ext_pgs!;
      n += p === null ? 1 : p.npgs + Math.sign(p.hdr_len) + Math.sign(p.trail_len);
    }
    return n;
  }

  it('m_collapse reaches the limit or returns null; the bytes are unchanged', () => {
    onChains((c, x, y) => {
      const max = 1 + (x % 10);
      const before = frags(c.m);
      const { clust } = mbufZones();
      if (y % 5 === 0) clust.failPoint.arm(1);
      const n = m_collapse(c.m, M_NOWAIT, max);
      clust.failPoint.disarm();
      if (n !== null) expect(frags(n)).to.be.at.most(max);
      else expect(before).to.be.above(max);
      expectBytes(c.m, c.bytes);
      m_freem(c.m);
    });
  });

  it('m_pullup of mapped chains', () => {
    onChains((c, x) => {
      const n = x % (MHLEN + 1);
      const first = c.m.m_len;
      const m = m_pullup(c.m, n);
      if (m === null) {
        expect(n).to.be.above(Math.min(c.bytes.length, first));
      } else {
        expect(m.m_len).to.be.at.least(n);
        expectBytes(m, c.bytes);
        m_freem(m);
      }
    }, MAPPED as never);
  });

  it('m_uiotombuf, with alignment and packet headers', () => {
    fc.assert(
      fc.property(n31, n31, fc.boolean(), fc.nat(76), (x, y, pkt, align) => {
        const { parts, uio } = pieces(x % 20_000, y);
        for (const p of parts) for (let i = 0; i < p.length; i++) p[i] = (i * 7 + y) & 0xff;
        uio.uio_rw = UIO_WRITE;
        const all = joined(parts);
        const want = y % 2 === 0 ? all : all.slice(0, y % (all.length + 1) || all.length);
        const len = y % 2 === 0 ? 0 : want.length;
        const m = must(m_uiotombuf(uio, M_NOWAIT, len, align, pkt ? M_PKTHDR : 0));
        expectBytes(m, want);
        expect(uio.uio_resid).to.equal(all.length - want.length);
        expect(m.m_flags & M_PKTHDR).to.equal(pkt ? M_PKTHDR : 0);
        m_freem(m);
        expectAllBack();
      }),
      RUNS,
    );
  });

  it('m_uiotombuf leaves the uio unchanged when an allocation fails', () => {
    const part = Uint8Array.from({ length: 9000 }, (_, i) => i & 0xff);
    const uio = new Uio().single(part, 0, 9000, UIO_WRITE);
    m_freem(m_uiotombuf(uio, M_NOWAIT, 1000, 0, 0));
    const { jumbop } = mbufZones();
    jumbop.max = 1;
    expect(m_uiotombuf(uio, M_NOWAIT, 0, 0, 0)).to.equal(null);
    expect(uio.uio_resid).to.equal(8000);
    jumbop.max = 100;
    const m = must(m_uiotombuf(uio, M_NOWAIT, 0, 0, 0));
    expectBytes(m, part.slice(1000));
    m_freem(m);
  });
});

describe('uipc_mbuf: rules', () => {
  bootEach();

  it('m_collapse count: unmapped, 3 pages, no header/trailer: 3 fragments', () => {
    const m = pgsMbuf({ npgs: 3 });
    expect(m_collapse(m, M_NOWAIT, 3)).to.equal(m);
    expect(m_collapse(m, M_NOWAIT, 2)).to.equal(null);
    m_free(m);
    const t = pgsMbuf({ npgs: 3, hdr: 1, trail: 1 });
    expect(m_collapse(t, M_NOWAIT, 5)).to.equal(t);
    expect(m_collapse(t, M_NOWAIT, 4)).to.equal(null);
    m_free(t);
  });

  it('m_cat links an unmapped mbuf and does not copy it, even if it fits', () => {
    const m = must(m_getcl(M_NOWAIT, MT_DATA, 0));
    const n = pgsMbuf({ npgs: 1, last: 10 });
    m_cat(m, n);
    expect(m.m_next).to.equal(n);
    m_freem(m);
  });

  it('m_copym shares external storage and copies internal data', () => {
    const a = must(m_get(M_NOWAIT, MT_DATA));
    a.m_len = 20;
    a.m_next = pgsMbuf({ npgs: 2 });
    const n = must(m_copym(a, 0, M_COPYALL, M_NOWAIT));
    expect(n.m_data).to.not.equal(a.m_data);
    expect(m_extrefcnt(a.m_next)).to.equal(2);
    expect(m_last(n).m_flags & (M_NOMAP | M_RDONLY)).to.equal(M_NOMAP | M_RDONLY);
    m_freem(n);
    m_freem(a);
  });

  it('m_copym panics when the chain is shorter than off + len', () => {
    const a = pgsMbuf({ npgs: 1 });
    expect(() => m_copym(a, 0, 4097, M_NOWAIT)).to.throw('too short');
    bootKern();
  });

  it('m_copym that fails leaves the source unchanged and frees the mbufs it has made', () => {
    const a = pgsMbuf({ npgs: 2 });
    a.m_next = pgsMbuf({ npgs: 2 });
    const { mbuf } = mbufZones();
    mbuf.max = mbuf.current + 1;
    expect(m_copym(a, 0, M_COPYALL, M_NOWAIT)).to.equal(null);
    expect([m_extrefcnt(a), m_extrefcnt(a.m_next)]).to.eql([1, 1]);
    m_freem(a);
  });

  it('m_copydata panics beyond the chain, and beyond the storage of an unmapped mbuf', () => {
    const a = pgsMbuf({ npgs: 1 });
    const to = scratchPages(3);
    expect(() => m_copydata(a, 0, 4097, kva(to.off))).to.throw('too short');
    a.m_len = 5000; // broken on purpose
    expect(() => m_copydata(a, 0, 5000, kva(to.off))).to.throw('beyond the unmapped storage');
    a.m_len = 4096;
    to.free();
    m_free(a);
  });

  it('m_unmappedtouio starts at m_data + m_off', () => {
    const m = pgsMbuf({ npgs: 2, first: 4000, hdr: 23, trail: 64 });
    const all = chainBytes(m);
    m.m_data = 20;
    m.m_len -= 20;
    const out = new Uint8Array(120);
    m_unmappedtouio(m, 2, new Uio().single(out, 0, 120, UIO_READ), 120);
    expect(out).to.eql(all.slice(22, 142));
    m_free(m);
  });

  it('counts the bytes read from file pages, mapped or unmapped, and no other bytes', () => {
    const to = scratchPages(2);
    const m = pgsMbuf({ npgs: 1, last: 100, hdr: 10, trail: 5 });
    m.m_next = sfbufMbuf(50, 70);
    m.m_next.m_next = must(m_get(M_NOWAIT, MT_DATA));
    m.m_next.m_next.m_len = 30;
    m_copydata(m, 0, 215, kva(to.off));
    expect(payloadBytesRead(READ_COPY)).to.equal(170);
    const n = must(m_pullup(must(m.m_next), 100));
    expect(payloadBytesRead(READ_COPY)).to.equal(240);
    m.m_next = null;
    m_freem(n);
    m_freem(m);
    to.free();
  });

  describe('unsafe routines panic on unmapped data', () => {
    it('mtod', () => {
      const m = pgsMbuf({ npgs: 1 });
      expect(() => mtod(m)).to.throw('unmapped');
      m_free(m);
    });

    it('m_pullup, in the first mbuf and in a following one', () => {
      const m = pgsMbuf({ npgs: 1 });
      expect(() => m_pullup(m, 10)).to.throw('unmapped');
      const h = must(m_gethdr(M_NOWAIT, MT_DATA));
      h.m_len = 8;
      h.m_next = m;
      h.m_pkthdr.len = m_fixhdr(h);
      expect(() => m_pullup(h, 9)).to.throw('unmapped');
      expect(must(m_pullup(h, 8))).to.equal(h);
      m_freem(h);
    });

    it('m_copyback, and read-only data too', () => {
      const m = must(m_get(M_NOWAIT, MT_DATA));
      m.m_len = 4;
      m.m_next = pgsMbuf({ npgs: 1 });
      const from = scratchPages(1);
      m_copyback(m, 0, 4, kva(from.off));
      expect(() => m_copyback(m, 2, 4, kva(from.off))).to.throw('unmapped');
      const r = sfbufMbuf(0, 10);
      expect(() => m_copyback(r, 2, 4, kva(from.off))).to.throw('read-only');
      m_freem(m);
      m_freem(r);
      from.free();
    });
  });

  it('m_copyback over several mbufs', () => {
    const a = must(m_get(M_NOWAIT, MT_DATA));
    const b = must(m_getcl(M_NOWAIT, MT_DATA, 0));
    a.m_len = 3;
    b.m_len = 10;
    a.m_next = b;
    const from = scratchPages(1);
    mem.set([1, 2, 3, 4, 5, 6], from.off);
    m_copyback(a, 1, 6, kva(from.off));
    expect(chainBytes(a).slice(1, 7)).to.eql(Uint8Array.of(1, 2, 3, 4, 5, 6));
    from.free();
    m_freem(a);
  });
});
