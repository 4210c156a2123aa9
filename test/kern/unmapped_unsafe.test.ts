import { expect } from 'chai';
import { Panic } from '../../src/sys/kassert.ts';
import { kva } from '../../src/sys/types.ts';
import { m_apply, m_copyback, m_copyup, m_print } from '../../src/kern/m_copyback.ts';
import { m_unshare } from '../../src/kern/m_unshare.ts';
import { m_free, m_freem, m_gethdr } from '../../src/kern/kern_mbuf.ts';
import { CSUM_UDP, type Mbuf, M_COPYALL, M_NOWAIT, MT_DATA, mtod } from '../../src/kern/mbuf.ts';
import { m_copym, m_dup, m_fixhdr, m_pullup, m_split } from '../../src/kern/uipc_mbuf.ts';
import {
  in_cksum,
  in_cksum_hdr,
  in_cksum_skip,
  in_delayed_cksum,
} from '../../src/netinet/in_cksum.ts';
import { mem } from '../../src/vm/arena.ts';
import { payloadBytesRead, payloadReasons } from '../../src/vm/payload.ts';
import { bootEach, bootKern } from './boot.ts';
import { chainBytes, expectBytes, must, pgsMbuf } from './chains.ts';

/** Chains with unmapped data, each with the offset of its first unmapped byte. */
const PLACES: Record<string, () => { m: Mbuf; at: number }> = {
  'unmapped mbuf first': () => ({ m: pgsMbuf({ npgs: 2, hdr: 13 }), at: 0 }),
  'shadow of an unmapped mbuf': () => {
    const holder = pgsMbuf({ npgs: 2, first: 100 });
    const m = must(m_copym(holder, 500, 2000, M_NOWAIT));
    m_free(holder);
    return { m, at: 0 };
  },
  'unmapped mbuf with a packet header, from m_split': () => {
    const { m } = PLACES['unmapped mbuf after a header']!();
    const rest = must(m_split(m, 140, M_NOWAIT));
    m_freem(m);
    return { m: rest, at: 0 };
  },
  'unmapped mbuf after a header': () => {
    const m = must(m_gethdr(M_NOWAIT, MT_DATA));
    m.m_len = 100;
    mem.fill(0x45, m.m_data, m.m_data + 100);
    m.m_next = pgsMbuf({ npgs: 2 });
    m_fixhdr(m);
    return { m, at: 100 };
  },
};

/** Each unsafe routine, called so that it accesses the byte at `at`. */
const UNSAFE: Record<string, (m: Mbuf, at: number) => unknown> = {
  m_pullup: (m, at) => m_pullup(m, at + 1),
  m_copyup: (m, at) => m_copyup(m, at + 1, 8),
  m_unshare: (m) => m_unshare(m, M_NOWAIT),
  m_copyback: (m, at) => m_copyback(m, at, 4, kva(0x2000)),
  m_apply: (m, at) => m_apply(m, 0, at + 1, () => 0, null),
  m_print: (m) => m_print(m, -1),
  in_cksum: (m, at) => in_cksum(m, at + 1),
  in_cksum_skip: (m, at) => in_cksum_skip(m, at + 2, at),
};

/** Unsafe routines that access only the first mbuf. */
const UNSAFE_FIRST: Record<string, (m: Mbuf) => unknown> = {
  mtod: (m) => mtod(m),
  in_cksum_hdr: (m) => in_cksum_hdr(m, 20),
  in_delayed_cksum: (m) => in_delayed_cksum(m),
};

/** Fails unless `call` panics with the name of the routine and reads no byte of the pages. */
function expectRefusal(name: string, call: () => unknown): void {
  let thrown: unknown = null;
  try {
    call();
  } catch (error) {
    thrown = error;
  }
  expect(thrown, `${name} returned`).to.be.instanceOf(Panic);
  // in_cksum_skip uses the code of in_cksum, so the panic names in_cksum.
  const by = name === 'in_cksum_skip' ? 'in_cksum' : name;
  expect((thrown as Panic).message).to.match(new RegExp(`^panic: ${by}: unmapped`));
  const read = payloadReasons.map((_, reason) => payloadBytesRead(reason));
  expect(read, 'bytes read').to.eql(payloadReasons.map(() => 0));
}

describe('unmapped data: each unsafe routine refuses, none returns garbage', () => {
  bootEach();
  afterEach(() => {
    bootKern(); // a panic leaks its mbufs
  });

  for (const [place, make] of Object.entries(PLACES)) {
    for (const [name, call] of Object.entries(UNSAFE))
      it(`${name}: ${place}`, () => {
        const { m, at } = make();
        expectRefusal(name, () => call(m, at));
        bootKern();
      });
    if (make === PLACES['unmapped mbuf after a header']) continue;
    for (const [name, call] of Object.entries(UNSAFE_FIRST))
      it(`${name}: ${place}`, () => {
        expectRefusal(name, () => call(make().m));
        bootKern();
      });
  }

  it('in_delayed_cksum: a UDP header that is not mapped', () => {
    const { m } = PLACES['unmapped mbuf after a header']!();
    m.m_len = 20;
    m.m_pkthdr.csum_flags = CSUM_UDP;
    expectRefusal('in_delayed_cksum', () => in_delayed_cksum(m));
    bootKern();
  });

  it('the routines work up to the first unmapped byte', () => {
    const { m } = PLACES['unmapped mbuf after a header']!();
    const bytes = chainBytes(m);
    expect(m_pullup(m, 100)).to.equal(m);
    m_copyback(m, 0, 0, kva(0x2000));
    expect(m_apply(m, 0, 100, (_, __, len) => len, null)).to.equal(100);
    expect(in_cksum(m, 100)).to.be.a('number');
    expect(m_print(m, 2)).to.equal('2: 45 45\n');
    const n = must(m_copyup(m, 100, 16));
    expectBytes(n, bytes);
    m_freem(n);
  });

  it('m_dup copies unmapped data and does not panic', () => {
    const { m } = PLACES['unmapped mbuf with a packet header, from m_split']!();
    const bytes = chainBytes(m);
    const n = must(m_dup(m, M_NOWAIT));
    m_freem(m);
    expectBytes(n, bytes);
    m_freem(m_copym(n, 0, M_COPYALL, M_NOWAIT));
    m_freem(n);
  });
});
