import { expect } from 'chai';
import { failPoint } from '../../src/sys/fail_point.ts';
import { kva } from '../../src/sys/types.ts';
import { m_append, m_copyback, m_copyup, m_devget } from '../../src/kern/m_copyback.ts';
import { Sockaddr } from '../../src/kern/sockaddr.ts';
import { m_uiotombuf } from '../../src/kern/m_uiotombuf.ts';
import { m_fragment, m_unshare } from '../../src/kern/m_unshare.ts';
import {
  m_clget,
  m_freem,
  m_get,
  m_getcl,
  m_gethdr,
  m_getjcl,
  m_getm2,
  mb_alloc_ext_pgs,
  mb_unmapped_to_ext,
} from '../../src/kern/kern_mbuf.ts';
import {
  type Mbuf,
  M_COPYALL,
  MJUM16BYTES,
  MJUMPAGESIZE,
  M_NOMAP,
  M_NOWAIT,
  M_PKTHDR,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import {
  m_collapse,
  m_copym,
  m_copypacket,
  m_defrag,
  m_dup,
  m_fixhdr,
  m_last,
  M_PREPEND,
  m_pullup,
  m_split,
  m_length,
} from '../../src/kern/uipc_mbuf.ts';
import { sbappendaddr } from '../../src/kern/uipc_dgram.ts';
import { sbflush, sbreserve, Sockbuf } from '../../src/kern/uipc_sockbuf.ts';
import { tcp_m_copym } from '../../src/netinet/tcp_m_copym.ts';
import { Uio, UIO_WRITE } from '../../src/vm/uio.ts';
import { eachFailure, MEMORY_POOLS } from '../support/fail.ts';
import { bootEach, bootKern, expectAllBack } from './boot.ts';
import {
  chainBytes,
  expectBytes,
  fillPattern,
  freePages,
  must,
  pgsMbuf,
  sfbufMbuf,
} from './chains.ts';

function filled(m: Mbuf | null, len: number): Mbuf {
  const n = must(m);
  n.m_len = len;
  fillPattern(n.m_data, len);
  return n;
}

const plain = (len: number): Mbuf => filled(m_get(M_NOWAIT, MT_DATA), len);
const cluster = (len: number): Mbuf => filled(m_getcl(M_NOWAIT, MT_DATA, 0), len);

function packet(...rest: Mbuf[]): Mbuf {
  const h = filled(m_gethdr(M_NOWAIT, MT_DATA), 60);
  for (const m of rest) m_last(h).m_next = m;
  m_fixhdr(h);
  return h;
}

/** A packet with mbufs of every kind. */
const mixed = (): Mbuf =>
  packet(
    plain(200),
    pgsMbuf({ npgs: 3, first: 9, hdr: 5, trail: 7 }),
    sfbufMbuf(3, 900),
    cluster(1500),
  );
const mapped = (): Mbuf => packet(plain(10), sfbufMbuf(3, 900), plain(100), cluster(2000));

interface Case {
  /** Makes the argument; absent if the routine takes none. */
  make?: () => Mbuf;
  /**
   * Returns the new chain, or null on failure. A routine without a new chain returns true or false.
   */
  call: (m: Mbuf) => Mbuf | boolean | null;
  /**
   * Ownership of the argument after a failure: `kept`, the caller owns it with the same bytes;
   * `consumed`, it was freed; `prefix`, the caller owns it and it may have grown.
   */
  onFail: 'kept' | 'consumed' | 'prefix';
  /** Whether the caller still owns the argument after success. */
  keeps?: boolean;
}

const program = Uint8Array.from({ length: 9000 }, (_, i) => i & 0xff);
const from = kva(0x2000); // the bytes do not matter

const CASES: Record<string, Case> = {
  m_get: { call: () => m_get(M_NOWAIT, MT_DATA), onFail: 'kept' },
  m_gethdr: { call: () => m_gethdr(M_NOWAIT, MT_DATA), onFail: 'kept' },
  m_clget: { make: () => plain(0), call: (m) => m_clget(m, M_NOWAIT), onFail: 'kept', keeps: true },
  m_getcl: { call: () => m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR), onFail: 'kept' },
  'm_getjcl, a page': { call: () => m_getjcl(M_NOWAIT, MT_DATA, 0, MJUMPAGESIZE), onFail: 'kept' },
  'm_getjcl, 16 KB': { call: () => m_getjcl(M_NOWAIT, MT_DATA, 0, MJUM16BYTES), onFail: 'kept' },
  m_getm2: { call: () => m_getm2(null, 12_000, M_NOWAIT, MT_DATA, M_PKTHDR), onFail: 'kept' },
  'm_getm2 that extends a chain': {
    make: mixed,
    call: (m) => m_getm2(m, 9000, M_NOWAIT, MT_DATA, 0),
    onFail: 'kept',
  },
  mb_alloc_ext_pgs: { call: () => mb_alloc_ext_pgs(M_NOWAIT, true, freePages), onFail: 'kept' },
  M_PREPEND: {
    make: () => packet(plain(1)),
    call: (m) => M_PREPEND(m, 100, M_NOWAIT),
    onFail: 'consumed',
  },
  'M_PREPEND to an unmapped mbuf': {
    make: () => pgsMbuf({ npgs: 2 }),
    call: (m) => M_PREPEND(m, 14, M_NOWAIT),
    onFail: 'consumed',
  },
  m_copym: {
    make: mixed,
    call: (m) => m_copym(m, 30, 9000, M_NOWAIT),
    onFail: 'kept',
    keeps: true,
  },
  m_copypacket: {
    make: mixed,
    call: (m) => m_copypacket(m, M_NOWAIT),
    onFail: 'kept',
    keeps: true,
  },
  tcp_m_copym: {
    make: mixed,
    call: (m) => tcp_m_copym(m, 30, 9000, 0, 0),
    onFail: 'kept',
    keeps: true,
  },
  m_dup: { make: mixed, call: (m) => m_dup(m, M_NOWAIT), onFail: 'kept', keeps: true },
  'm_split in unmapped data': {
    make: mixed,
    call: (m) => m_split(m, 5000, M_NOWAIT),
    onFail: 'kept',
    keeps: true,
  },
  'm_split of a long plain mbuf': {
    make: () => packet(plain(220)),
    call: (m) => m_split(m, 65, M_NOWAIT),
    onFail: 'kept',
    keeps: true,
  },
  // m_pullup allocates a new mbuf here, because it does not fill up a cluster.
  m_pullup: {
    make: () => {
      const m = filled(m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR), 10);
      m.m_next = sfbufMbuf(3, 900);
      m_fixhdr(m);
      return m;
    },
    call: (m) => m_pullup(m, 160),
    onFail: 'consumed',
  },
  m_copyup: { make: mapped, call: (m) => m_copyup(m, 100, 16), onFail: 'consumed' },
  m_unshare: { make: mapped, call: (m) => m_unshare(m, M_NOWAIT), onFail: 'consumed' },
  m_copyback: {
    make: () => plain(100),
    call: (m) => {
      m_copyback(m, 50, 700, from);
      return chainBytes(m).length === 750;
    },
    onFail: 'prefix',
    keeps: true,
  },
  m_append: { make: mixed, call: (m) => m_append(m, 1000, from), onFail: 'prefix', keeps: true },
  m_defrag: { make: mixed, call: (m) => m_defrag(m, M_NOWAIT), onFail: 'kept' },
  m_collapse: {
    make: () => packet(...Array.from({ length: 9 }, () => sfbufMbuf(0, 300))),
    call: (m) => m_collapse(m, M_NOWAIT, 3),
    onFail: 'kept',
  },
  m_fragment: {
    make: mixed,
    call: (m) => {
      const len = m_length(m);
      m.m_pkthdr.len = 1; // m_fragment repairs it first, as FreeBSD's does
      const n = m_fragment(m, M_NOWAIT, 1000);
      expect(n.m_pkthdr.len).to.equal(len);
      return n === m ? null : n;
    },
    onFail: 'kept',
  },
  m_devget: { call: () => m_devget(0, 5000, 2, null, () => {}), onFail: 'kept' },
  mb_unmapped_to_ext: { make: mixed, call: (m) => mb_unmapped_to_ext(m), onFail: 'consumed' },
};

describe('mbuf routines when the k-th allocation fails', () => {
  bootEach();

  for (const [name, { make, call, onFail, keeps = false }] of Object.entries(CASES))
    it(`${name}: argument ${onFail}, nothing leaked, for every k of every pool`, () => {
      let refused = 0;
      for (const pool of MEMORY_POOLS) {
        const setup = (): [Mbuf | null, Uint8Array] => {
          bootKern(); // makes the zones empty, so that they allocate pages
          const m = make?.() ?? null;
          return [m, chainBytes(m)];
        };
        const runs = eachFailure(pool, setup, ([m, bytes], fired) => {
          const result = call(m as Mbuf);
          const failed = result === null || result === false;
          expect(failed, `${pool}: failed`).to.equal(fired());
          failPoint(pool).disarm();
          if (m !== null && failed && onFail === 'prefix')
            expectBytes(m, Uint8Array.from([...bytes.slice(0, 50), ...chainBytes(m).slice(50)]));
          if (m !== null && failed && onFail === 'kept') expectBytes(m, bytes, `${pool}: kept`);
          if (m !== null && (failed ? onFail !== 'consumed' : keeps)) m_freem(m);
          if (typeof result === 'object') m_freem(result);
          expectAllBack();
        });
        refused += runs - 1;
      }
      expect(refused, 'refusals').to.be.above(0);
    });

  for (const flags of [0, M_PKTHDR, M_NOMAP, M_NOMAP | M_PKTHDR])
    it(`m_uiotombuf, flags 0x${flags.toString(16)}: a failed allocation leaves the uio unchanged`, () => {
      for (const pool of MEMORY_POOLS)
        eachFailure(
          pool,
          () => {
            bootKern();
            return new Uio().single(program, 0, 9000, UIO_WRITE);
          },
          (uio, fired) => {
            const align = (flags & M_NOMAP) !== 0 ? 4096 : 20;
            const m = m_uiotombuf(uio, M_NOWAIT, 0, align, flags);
            expect(m === null).to.equal(fired());
            expect(uio.uio_resid).to.equal(fired() ? 9000 : 0);
            failPoint(pool).disarm();
            const all = m ?? must(m_uiotombuf(uio, M_NOWAIT, 0, align, flags));
            expectBytes(all, program);
            m_freem(all);
            expectAllBack();
          },
        );
    });

  it('sbappendaddr returns false and the caller keeps the packet when no mbuf is available', () => {
    const runs = eachFailure(
      'mbuf',
      () => mixed(),
      (m, fired) => {
        const sb = new Sockbuf();
        sbreserve(sb, 65_536);
        const ok = sbappendaddr(sb, new Sockaddr(), m);
        expect(ok).to.equal(!fired());
        if (ok) sbflush(sb);
        else m_freem(m);
        expect([sb.sb_mb, sb.sb_mbcnt, sb.sb_ctl]).to.eql([null, 0, 0]);
        expectAllBack();
      },
    );
    expect(runs).to.equal(2);
  });

  it('m_copym frees the mbufs it has made when the last allocation fails', () => {
    const m = mixed();
    const before = chainBytes(m);
    failPoint('mbuf').arm(5);
    expect(m_copym(m, 0, M_COPYALL, M_NOWAIT)).to.equal(null);
    expect(failPoint('mbuf').fired).to.equal(1);
    expectBytes(m, before);
    m_freem(m);
  });
});
