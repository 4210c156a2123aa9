import { expect } from 'chai';
import * as fc from 'fast-check';
import { EBUSY } from '../../src/sys/errno.ts';
import { kva } from '../../src/sys/types.ts';
import {
  m_append,
  m_apply,
  m_copyback,
  m_copyup,
  m_devget,
  m_print,
} from '../../src/kern/m_copyback.ts';
import { m_copydata, m_unmappedtouio } from '../../src/kern/m_copydata.ts';
import { m_uiotombuf, m_uiotombuf_nomap } from '../../src/kern/m_uiotombuf.ts';
import { m_fragment, m_unshare } from '../../src/kern/m_unshare.ts';
import {
  _mb_unmapped_to_ext,
  m_free,
  m_freem,
  m_get,
  m_getcl,
  m_gethdr,
  m_getm2,
  mb_ext_pgs_check,
  mb_unmapped_compress,
  mb_unmapped_to_ext,
} from '../../src/kern/kern_mbuf.ts';
import {
  type Mbuf,
  MBUF_PEXT_FLAG_ANON,
  M_BCAST,
  M_COPYALL,
  M_EOR,
  M_EXT,
  m_extrefcnt,
  MHLEN,
  MLEN,
  M_NOMAP,
  M_NOTREADY,
  M_NOWAIT,
  M_PKTHDR,
  M_RDONLY,
  M_SIZE,
  MT_DATA,
  mtod,
  M_WRITABLE,
} from '../../src/kern/mbuf.ts';
import { m_copym, m_demote, m_fixhdr, m_last, m_sanity } from '../../src/kern/uipc_mbuf.ts';
import { mem } from '../../src/vm/arena.ts';
import { payloadBytesRead, READ_COPY, READ_SMALL } from '../../src/vm/payload.ts';
import { Uio, UIO_READ, UIO_WRITE } from '../../src/vm/uio.ts';
import { runs } from '../support/property.ts';
import { bootEach, bootKern, expectAllBack } from './boot.ts';
import {
  Chain,
  chainArb,
  chainBytes,
  expectBytes,
  fillPattern,
  type Kind,
  MAPPED,
  must,
  pgsMbuf,
  scratchPages,
  sfbufMbuf,
} from './chains.ts';
import { auditMemory } from './mbuf_audit.ts';

const n31 = fc.nat(0x7fffffff);

/** Runs `body` and fails if it leaks. */
function clean(body: () => void): void {
  try {
    body();
    expectAllBack();
  } catch (error) {
    bootKern(); // clean state for the runs that shrink the counterexample
    throw error;
  }
}

/** Runs `body` on random chains; `body` frees the chain. */
function onChains(body: (c: Chain, x: number, y: number) => void, kinds?: Kind[]): void {
  const pkt = fc.oneof(fc.constant(-1), fc.nat(MHLEN));
  fc.assert(
    fc.property(chainArb(kinds), pkt, n31, n31, (segs, hdr, x, y) =>
      clean(() => {
        const c = new Chain(segs, hdr);
        auditMemory([c.m, ...c.holders]);
        body(c, x, y);
        c.done();
      }),
    ),
    runs(100),
  );
}

/** Returns a function that returns the file bytes read for `reason` since its last call. */
function readOf(reason: number): () => number {
  let before = payloadBytesRead(reason);
  return () => {
    const n = payloadBytesRead(reason) - before;
    before += n;
    return n;
  };
}

const program = (len: number, seed: number): Uint8Array =>
  Uint8Array.from({ length: len }, (_, i) => (Math.imul(i + 1, seed | 1) >>> 9) & 0xff);

describe('mbuf routines: random chains against a flat array', () => {
  bootEach();

  it('m_unmappedtouio copies any part of an unmapped mbuf and no byte more', () => {
    onChains((c, x, y) => {
      for (let m: Mbuf | null = c.m; m !== null; m = m.m_next) {
        if ((m.m_flags & M_NOMAP) === 0) continue;
        const all = must(m_copym(m, 0, m.m_len, M_NOWAIT));
        const want = chainBytes(all);
        const off = x % (m.m_len + 1);
        const len = y % (m.m_len - off + 1);
        const out = new Uint8Array(len + 1).fill(0x5a);
        const uio = new Uio().single(out, 0, len + 1, UIO_READ);
        m_unmappedtouio(m, off, uio, len);
        expect(out.slice(0, len)).to.eql(want.slice(off, off + len));
        expect([out[len], uio.uio_resid]).to.eql([0x5a, 1]);
        m_freem(all);
      }
      m_freem(c.m);
    });
  });

  it('_mb_unmapped_to_ext makes at most one mbuf per page, header and trailer, and reads no file byte', () => {
    onChains((c) => {
      let m: Mbuf | null = c.m;
      const read = readOf(READ_COPY);
      while (m !== null) {
        const next: Mbuf | null = m.m_next;
        m.m_next = null;
        if ((m.m_flags & M_NOMAP) !== 0 && m.m_len > 0) {
          const want = chainBytes(m);
          const pgs = must(m.m_ext.ext_pgs);
          const most = pgs.npgs + Math.sign(pgs.hdr_len) + Math.sign(pgs.trail_len);
          const top = must(_mb_unmapped_to_ext(m));
          expectBytes(top, want);
          let n = 0;
          for (let p: Mbuf | null = top; p !== null; p = p.m_next, n++)
            expect(p.m_flags & (M_NOMAP | M_PKTHDR)).to.equal(0);
          expect(n).to.be.at.most(most);
          m = top;
        }
        m_freem(m);
        m = next;
      }
      expect(read(), 'file bytes read').to.equal(0);
    });
  });

  it('mb_unmapped_to_ext keeps the reference counts right when chains share pages', () => {
    onChains((c, x) => {
      for (let m: Mbuf | null = c.m; m !== null; m = m.m_next)
        if ((m.m_flags & M_NOMAP) !== 0 && m.m_len === 0) return m_freem(c.m);
      const len = c.bytes.length;
      const s = len === 0 ? null : must(m_copym(c.m, x % len, len - (x % len), M_NOWAIT));
      const top = must(mb_unmapped_to_ext(c.m));
      auditMemory([top, s, ...c.holders]);
      const t = s === null ? null : must(mb_unmapped_to_ext(s));
      auditMemory([top, t, ...c.holders]);
      m_freem(top);
      auditMemory([t, ...c.holders]);
      if (len > 0) expectBytes(t, c.bytes.slice(x % len));
      m_freem(t);
    });
  });

  it('mb_unmapped_compress copies small windows at any offset, and returns EBUSY for shared ones', () => {
    const shape = fc.record({
      npgs: fc.integer({ min: 1, max: 3 }),
      first: fc.nat(4095),
      hdr: fc.nat(23),
      trail: fc.nat(64),
    });
    fc.assert(
      fc.property(shape, n31, n31, fc.boolean(), (s, x, y, shared) =>
        clean(() => {
          const m = pgsMbuf({ ...s });
          const total = m.m_len;
          m.m_data = x % total;
          m.m_len = y % (Math.min(MLEN, total - m.m_data) + 1);
          const want = chainBytes(m);
          const other = shared ? m_copym(m, 0, m.m_len, M_NOWAIT) : null;
          const alone = m_extrefcnt(m) === 1; // m_copym of 0 bytes returns null and shares nothing
          const small = readOf(READ_SMALL);
          expect(mb_unmapped_compress(m)).to.equal(alone ? 0 : EBUSY);
          expect(m.m_flags).to.equal(alone ? 0 : M_EXT | M_RDONLY | M_NOMAP);
          expect(small()).to.be.at.most(alone ? want.length : 0);
          expectBytes(m, want);
          auditMemory([m, other]);
          m_free(m);
          m_freem(other);
        }),
      ),
      runs(200),
    );
  });

  it('m_uiotombuf_nomap fills anonymous pages, maxseg bytes per mbuf', () => {
    fc.assert(
      fc.property(n31, n31, fc.boolean(), fc.nat(19), (x, y, pkt, pages) =>
        clean(() => {
          const bytes = program(x % 200_000, y);
          const uio = new Uio().single(bytes, 0, bytes.length, UIO_WRITE);
          const want = y % 2 === 0 ? bytes : bytes.slice(0, y % (bytes.length + 1) || bytes.length);
          const flags = M_NOMAP | (pkt ? M_PKTHDR : 0);
          const m = must(
            m_uiotombuf(uio, M_NOWAIT, y % 2 === 0 ? 0 : want.length, pages * 4096, flags),
          );
          expectBytes(m, want);
          expect(uio.uio_resid).to.equal(bytes.length - want.length);
          const most = (pages || 19) * 4096;
          for (let n: Mbuf | null = m; n !== null; n = n.m_next) {
            const p = must(n.m_ext.ext_pgs);
            if (n.m_len > 0) mb_ext_pgs_check(p);
            expect([p.flags, p.first_pg_off]).to.eql([
              n.m_len > 0 ? MBUF_PEXT_FLAG_ANON : p.flags,
              0,
            ]);
            if (n.m_next !== null) expect(n.m_len).to.equal(most);
            expect(n.m_ext.ext_size).to.equal(p.npgs * 4096);
          }
          auditMemory([m]);
          m_freem(m);
        }),
      ),
      runs(60),
    );
  });

  it('m_copyup copies len bytes into one new mbuf, dstoff bytes after its start', () => {
    onChains((c, x, y) => {
      const len = x % (MHLEN + 2);
      const dstoff = y % 40;
      const pkt = (c.m.m_flags & M_PKTHDR) !== 0;
      const m = m_copyup(c.m, len, dstoff);
      if (m === null) {
        expect(len > c.bytes.length || len + dstoff > MHLEN).to.equal(true);
        return;
      }
      expect(m.m_len).to.equal(len);
      expect(m.m_data - m.m_dat).to.equal((pkt ? 56 : 0) + dstoff);
      expectBytes(m, c.bytes);
      m_freem(m);
    }, MAPPED);
  });

  it('m_apply calls f once per piece, in order, and stops when f returns non-zero', () => {
    onChains((c, x, y) => {
      const off = x % (c.bytes.length + 1);
      const len = y % (c.bytes.length - off + 1);
      const seen: number[] = [];
      const f = (_: null, at: number, n: number): number => {
        for (const byte of mem.subarray(at, at + n)) seen.push(byte);
        return 0;
      };
      expect(m_apply(c.m, off, len, f, null)).to.equal(0);
      expect(seen).to.eql(Array.from(c.bytes.subarray(off, off + len)));
      let calls = 0;
      expect(m_apply(c.m, off, len, () => ++calls && 7, null)).to.equal(calls === 0 ? 0 : 7);
      expect(calls).to.be.at.most(1);
      m_freem(c.m);
    }, MAPPED);
  });

  it('m_unshare appends small mbufs to a cluster with room, and does not join plain mbufs', () => {
    const lengths = (...sizes: number[]): number[] => {
      const mbufs = sizes.map((n) => {
        const m = must(n > 200 ? m_getcl(M_NOWAIT, MT_DATA, 0) : m_get(M_NOWAIT, MT_DATA));
        m.m_len = n;
        return m;
      });
      mbufs.forEach((m, i) => void (m.m_next = mbufs[i + 1] ?? null));
      const top = m_unshare(mbufs[0]!, M_NOWAIT);
      const out: number[] = [];
      for (let m = top; m !== null; m = m.m_next) out.push(m.m_len);
      m_freem(top);
      return out;
    };
    expect(lengths(10, 20, 30)).to.deep.equal([10, 20, 30]);
    expect(lengths(1000, 20, 30)).to.deep.equal([1050]);
    expect(lengths(2040, 20, 8)).to.deep.equal([2040, 20, 8]);
  });

  it('m_unshare makes every mbuf writable and leaves shared storage unchanged', () => {
    onChains(
      (c) => {
        const other = must(m_copym(c.m, 0, M_COPYALL, M_NOWAIT));
        const m = must(m_unshare(c.m, M_NOWAIT));
        expectBytes(m, c.bytes);
        for (let n: Mbuf | null = m; n !== null; n = n.m_next) {
          expect(M_WRITABLE(n)).to.equal(true);
          mem.fill(0xee, mtod(n), mtod(n) + n.m_len);
        }
        expectBytes(other, c.bytes);
        auditMemory([m, other, ...c.holders]);
        m_freem(m);
        m_freem(other);
      },
      ['plain', 'cluster', 'jumbo', 'sfbuf'],
    );
  });

  it('m_fragment makes mapped mbufs of at most the requested length', () => {
    onChains((c, x) => {
      const length = 1 + (x % 3000);
      const m = m_fragment(c.m, M_NOWAIT, length);
      expectBytes(m, c.bytes);
      if (m !== c.m)
        for (let n: Mbuf | null = m; n !== null; n = n.m_next) {
          expect(n.m_flags & M_NOMAP).to.equal(0);
          if (n.m_next !== null) expect(n.m_len).to.equal(Math.min(length, 2048));
        }
      m_freem(m);
    });
  });

  it('m_copyback writes inside the chain, across its end and beyond it; m_append extends it', () => {
    onChains(
      (c, x, y) => {
        const from = scratchPages(1);
        const len = y % 2000;
        const off = x % (c.bytes.length + 500);
        fillPattern(from.off, len);
        const src = mem.slice(from.off, from.off + len);
        const want = new Uint8Array(Math.max(c.bytes.length, len > 0 ? off + len : 0));
        want.set(c.bytes);
        if (len > 0) want.set(src, off);
        if (len > 0) m_copyback(c.m, off, len, kva(from.off));
        expect(m_append(c.m, len, kva(from.off))).to.equal(true);
        expectBytes(c.m, Uint8Array.from([...want, ...src]));
        m_freem(c.m);
        from.free();
      },
      ['plain', 'empty'],
    );
  });
});

describe('mbuf routines: rules', () => {
  bootEach();

  it('m_getm2 allocates the fewest mbufs with room for len bytes', () => {
    // More than 2048 bytes take a page cluster, 169 or more a cluster, fewer a plain mbuf.
    const cases: [number, number[]][] = [
      [0, []],
      [1, [224]],
      [168, [224]],
      [169, [2048]],
      [2048, [2048]],
      [2049, [4096]],
      [4096 + 100, [4096, 224]],
      [4096 + 2048, [4096, 2048]],
      [3 * 4096 + 1, [4096, 4096, 4096, 224]],
    ];
    for (const [len, want] of cases) {
      const m = m_getm2(null, len, M_NOWAIT, MT_DATA, 0);
      const sizes: number[] = [];
      for (let n = m; n !== null; n = n.m_next) sizes.push(M_SIZE(n));
      expect(sizes, `${len} bytes`).to.eql(want);
      m_freem(m);
    }
    const m = must(m_getm2(null, 5000, M_NOWAIT, MT_DATA, M_PKTHDR | M_EOR));
    expect([m.m_flags & M_PKTHDR, m_last(m).m_flags & (M_EOR | M_PKTHDR)]).to.eql([
      M_PKTHDR,
      M_EOR,
    ]);
    // Extending a chain adds no second packet header.
    expect(m_getm2(m, 200, M_NOWAIT, MT_DATA, M_PKTHDR)).to.equal(m);
    expect(m_last(m).m_flags & M_PKTHDR).to.equal(0);
    m_freem(m);
  });

  it('m_devget uses a header mbuf with room for a link header, or clusters', () => {
    const device = program(6000, 77);
    const copy = (at: number, to: number, len: number): void =>
      mem.set(device.subarray(at, at + len), to);
    for (const [len, off, room] of [
      [60, 2, 18],
      [150, 2, 18],
      [151, 2, 2],
      [166, 2, 2],
      [167, 2, 2],
      [6000, 0, 0],
      [6000, 2, 2],
    ] as const) {
      const m = must(m_devget(0, len, off, null, copy));
      expectBytes(m, device.slice(0, len), `${len} bytes`);
      expect(m.m_data - ((m.m_flags & M_EXT) !== 0 ? m.m_ext.ext_buf : m.m_dat + 56)).to.equal(
        room,
      );
      m_freem(m);
    }
    expect(m_devget(0, 60, -1, null, copy)).to.equal(null);
    expect(m_devget(0, 60, MHLEN + 1, null, copy)).to.equal(null);
  });

  it('m_demote clears all flags except storage flags and the named ones; all=false skips the first mbuf', () => {
    const m = must(m_gethdr(M_NOWAIT, MT_DATA));
    m.m_flags |= M_BCAST | M_EOR;
    m.m_next = pgsMbuf({ npgs: 1 });
    m.m_next.m_flags |= M_NOTREADY | M_EOR;
    m_demote(m, false, M_NOTREADY);
    expect(m.m_flags).to.equal(M_PKTHDR | M_BCAST | M_EOR);
    expect(m.m_next.m_flags).to.equal(M_EXT | M_RDONLY | M_NOMAP | M_NOTREADY);
    m_demote(m, true, 0);
    expect([m.m_flags, m.m_next.m_flags]).to.eql([0, M_EXT | M_RDONLY | M_NOMAP]);
    m_freem(m);
  });

  it('m_sanity detects each broken rule and repairs those it can', () => {
    const whole = (): Mbuf => {
      const m = must(m_gethdr(M_NOWAIT, MT_DATA));
      m.m_len = 20;
      m.m_next = pgsMbuf({ npgs: 2, hdr: 5, trail: 9 });
      m.m_next.m_next = must(m_getcl(M_NOWAIT, MT_DATA, 0));
      m_fixhdr(m);
      return m;
    };
    const broken: Record<string, [(m: Mbuf) => void, boolean]> = {
      'data before the start of the storage': [(m) => m.m_data--, false],
      'data after the end of the storage': [(m) => (m_last(m).m_len = 2049), false],
      'data after the end of unmapped storage': [(m) => m.m_next!.m_len++, false],
      'a negative length': [(m) => (m.m_len = -1), false],
      'a wrong packet length': [(m) => m.m_pkthdr.len++, true],
      'a packet header after the first mbuf': [(m) => (m_last(m).m_flags |= M_PKTHDR), true],
      'm_nextpkt set after the first mbuf': [
        (m) => (m_last(m).m_nextpkt = must(m_get(M_NOWAIT, MT_DATA))),
        true,
      ],
    };
    for (const [what, [harm, repairable]] of Object.entries(broken)) {
      const m = whole();
      expect(m_sanity(m, false)).to.equal(true);
      harm(m);
      expect(m_sanity(m, false), what).to.equal(false);
      expect(m_sanity(m, true), what).to.equal(repairable);
      if (repairable) expect(m_sanity(m, false), what).to.equal(true);
      m_freem(m);
    }
  });

  it('m_print: a line per mbuf, at most maxlen bytes', () => {
    expect(m_print(null, -1)).to.equal('mbuf: 0\n');
    const m = must(m_get(M_NOWAIT, MT_DATA));
    m.m_len = 2;
    mem.set([1, 0xab], m.m_data);
    m.m_next = must(m_get(M_NOWAIT, MT_DATA));
    m.m_next.m_len = 1;
    mem[m.m_next.m_data] = 0xff;
    expect(m_print(m, -1)).to.equal('2: 01 ab\n1: ff\n');
    expect(m_print(m, 1)).to.equal('1: 01\n');
    m_freem(m);
  });

  it('m_uiotombuf returns null for an alignment that leaves no space in a header mbuf', () => {
    const uio = new Uio().single(new Uint8Array(10), 0, 10, UIO_WRITE);
    expect(m_uiotombuf(uio, M_NOWAIT, 0, MHLEN, M_PKTHDR)).to.equal(null);
    expect(() => m_uiotombuf_nomap(uio, M_NOWAIT, 0, 19 * 4096 + 1, 0)).to.throw('maxseg');
    expect(uio.uio_resid).to.equal(10);
  });

  it('counts the file bytes that each routine reads with the CPU', () => {
    const read = readOf(READ_COPY);
    const to = scratchPages(1);
    const counts: Record<string, [number, (m: Mbuf) => Mbuf | null]> = {
      m_copydata: [100, (m) => (m_copydata(m, 0, 100, kva(to.off)), m)],
      m_copyup: [100, (m) => m_copyup(m, 100, 0)],
      m_apply: [100, (m) => (m_apply(m, 0, 100, () => 0, null), m)],
      m_print: [100, (m) => (m_print(m, -1), m)],
      m_unshare: [100, (m) => m_unshare(m, M_NOWAIT)],
    };
    for (const [name, [bytes, call]] of Object.entries(counts)) {
      const m = call(sfbufMbuf(10, 100));
      expect(read(), name).to.equal(bytes);
      m_freem(m);
    }
    const cl = must(m_getcl(M_NOWAIT, MT_DATA, 0));
    cl.m_len = 100;
    for (const [name, [, call]] of Object.entries(counts)) {
      const m = call(must(m_copym(cl, 0, 100, M_NOWAIT)));
      expect(read(), `${name} of a cluster`).to.equal(0);
      m_freem(m);
    }
    m_free(cl);
    to.free();
  });
});
