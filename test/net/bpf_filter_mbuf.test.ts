import { expect } from 'chai';
import * as fc from 'fast-check';
import { m_freem, m_get, mb_alloc_ext_pgs } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import { bpfFilterMbuf } from '../../src/net/bpf_filter_mbuf.ts';
import {
  bpf_filter,
  bpf_validate,
  type BpfPacket,
  bpfProgram,
  bpfRun,
} from '../../src/sys/bpf_filter.ts';
import { mem, PAGE_SIZE } from '../../src/vm/arena.ts';
import { payloadBytesRead, payloadReason, READ_BPF } from '../../src/vm/payload.ts';
import { sfstatBufs } from '../../src/vm/sf_buf.ts';
import { VM_PAGE_TO_PHYS } from '../../src/vm/vm_page.ts';
import { bootEach } from '../kern/boot.ts';
import { Chain, chainArb, freePages, must, newPage, pgsMbuf } from '../kern/chains.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { insnArb } from '../sys/bpf_insns.ts';
import { assemble, bpfVectors } from '../sys/bpf_vectors.ts';

/** A mapped mbuf with `bytes`. */
function plain(bytes: Uint8Array): Mbuf {
  const m = must(m_get(M_NOWAIT, MT_DATA));
  mem.set(bytes, m.m_data);
  m.m_len = bytes.length;
  return m;
}

/** An unmapped mbuf with `bytes`, across the border of two pages if there is more than one byte. */
function unmapped(bytes: Uint8Array): Mbuf {
  const m = must(mb_alloc_ext_pgs(M_NOWAIT, false, freePages));
  const p = must(m.m_ext.ext_pgs);
  const pages = bytes.length > 1 ? [newPage(), newPage()] : [newPage()];
  const cut = bytes.length > 1 ? bytes.length >> 1 : bytes.length;
  p.first_pg_off = PAGE_SIZE - cut;
  p.last_pg_len = bytes.length > 1 ? bytes.length - cut : cut;
  pages.forEach((page, i) => {
    p.pa[p.pa0 + p.npgs++] = VM_PAGE_TO_PHYS(page);
    if (i === 0) mem.set(bytes.subarray(0, cut), page * PAGE_SIZE + p.first_pg_off);
    else mem.set(bytes.subarray(cut), page * PAGE_SIZE);
  });
  m.m_ext.ext_size = pages.length * PAGE_SIZE;
  m.m_len = bytes.length;
  return m;
}

/** Chains of one packet: whole, one byte for each mbuf, and mixed; mapped and unmapped. */
const SHAPES: Record<string, (b: Uint8Array) => Mbuf[]> = {
  'one mbuf': (b) => [plain(b)],
  'one unmapped mbuf': (b) => [unmapped(b)],
  'single bytes': (b) => [...b].map((_, i) => plain(b.subarray(i, i + 1))),
  'single bytes, each second unmapped': (b) =>
    [...b].map((_, i) => (i % 2 === 0 ? plain : unmapped)(b.subarray(i, i + 1))),
  'empty mbufs between': (b) => [
    plain(b.subarray(0, 0)),
    unmapped(b.subarray(0, 1)),
    plain(b.subarray(0, 0)),
    plain(b.subarray(1)),
  ],
};

function link(ms: Mbuf[]): Mbuf {
  ms.forEach((m, i) => (m.m_next = ms[i + 1] ?? null));
  return ms[0]!;
}

/** A packet in one piece whose offsets wrap at 2^32. */
class Wrapped implements BpfPacket {
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  load(off: number, size: number): number {
    const at = off >>> 0;
    if (at + size > this.bytes.length) return -1;
    return Buffer.from(this.bytes.buffer, this.bytes.byteOffset).readUIntBE(at, size);
  }
}

describe('bpf_filter on mbuf chains', () => {
  bootEach();

  for (const [shape, build] of Object.entries(SHAPES)) {
    it(`returns the results of the vectors: ${shape}`, () => {
      for (const [i, [program, packet, wirelen, buflen, result]] of bpfVectors.entries()) {
        if (result === -1) continue;
        const bytes = Uint8Array.from(Buffer.from(packet, 'hex'));
        const m = buflen === 0 ? null : link(build(bytes));
        // In chain form the sum of X and k wraps at 2^32, so 56 to 61 read the packet.
        const wraps = i >= 55 && i <= 60;
        const expected = wraps ? bpfRun(assemble(program), new Wrapped(bytes), wirelen) : result;
        const got = bpfFilterMbuf(assemble(program), m, wirelen);
        expect(got, `vector ${i + 1}`).to.equal(expected);
        if (m !== null) m_freem(m);
      }
    });
  }

  it('wraps the sum of X and k, as the chain form of FreeBSD does', () => {
    const m = plain(Uint8Array.from([1, 0x23, 0x45, 0x67, 0x89, 0xab]));
    expect(bpfFilterMbuf(assemble('01 1; 40 ffffffff; 16 0'), m, 6)).to.equal(0x1234567);
    m_freem(m);
  });

  it('agrees with the machine on contiguous bytes, for any chain and program', () => {
    const programArb = fc.array(insnArb, { maxLength: 16 });
    let kept = 0;
    fc.assert(
      fc.property(chainArb(), programArb, (segs, insns) => {
        const prog = bpfProgram([...insns, [0x16, 0, 0, 0]]);
        if (!bpf_validate(prog)) return;
        const chain = new Chain(segs);
        const wrapped = bpfRun(prog, new Wrapped(chain.bytes), chain.bytes.length);
        expect(bpfFilterMbuf(prog, chain.m, chain.bytes.length)).to.equal(wrapped);
        if (wrapped !== 0) kept++;
        m_freem(chain.m);
        chain.done();
      }),
      { numRuns: 2000, seed: 3 },
    );
    expect(kept).to.be.above(100);
  });

  it('reads a few bytes of unmapped mbufs, counted as bpf, and maps none', () => {
    const m = link([plain(new Uint8Array(54)), pgsMbuf({ npgs: 3 })]);
    const maps = sfstatBufs.total;
    const before = payloadBytesRead(READ_BPF);
    const reason = payloadReason(READ_BPF);
    // The first word of the payload is compared with itself; one byte is far behind.
    const prog = assemble('20 36; 30 1036; 28 23; 06 ffff');
    expect(bpfFilterMbuf(prog, m, 54 + 3 * PAGE_SIZE)).to.equal(0xffff);
    payloadReason(reason);
    expect(payloadBytesRead(READ_BPF) - before).to.equal(5);
    expect(sfstatBufs.total).to.equal(maps);
    m_freem(m);
  });

  it('runs without allocation', () => {
    const m = link([plain(new Uint8Array(20)), pgsMbuf({ npgs: 1 }), plain(new Uint8Array(20))]);
    const prog = assemble('20 12; 28 14; b1 e; 50 20; 06 60');
    const run = (): void => void bpfFilterMbuf(prog, m, 4136);
    expect(bytesPerCall(run)).to.be.below(1);
    const bytes = new Uint8Array(4136);
    expect(bytesPerCall(() => void bpf_filter(prog, bytes, 0, 4136, 4136))).to.be.below(1);
    m_freem(m);
  });
});
