/** The NIC `tl`, through registers and memory as docs/tl-datasheet.md describes it, then fuzzed. */

import { expect } from 'chai';
import * as fc from 'fast-check';
import { EIO } from '../../src/sys/errno.ts';
import { mem, PAGE_SIZE } from '../../src/vm/arena.ts';
import { TlDevice } from '../../src/dev/tl/tl.ts';
import * as tl from '../../src/dev/tl/tlreg.ts';
import { full } from '../support/needs.ts';
import {
  DmaBench,
  expectReached,
  frame,
  fuzzParams,
  patternRam,
  RUNS,
  SIZE,
  word,
} from './dma_bench.ts';
import { judge, makePacket } from './judge.ts';

/** RAM ends at 4 GiB: an address past its end wraps to a low address outside RAM. */
const BASE = 2 ** 32 - SIZE;
const TX_RING = 0x4000;
const RX_RING = 0x8000;
const TX_DATA = 0x20000;
const RX_DATA = 0x500000;
const N = 32;
const { TL_CMD_DONE: DONE, TL_CMD_ERR: ERR, TL_CMD_INT: INT } = tl;

type Bench = DmaBench<TlDevice>;
const bench = (): Bench => new DmaBench((slot) => new TlDevice(slot));

/** Writes a transmit block whose fragments are given as [offset, length]. */
function block(b: Bench, slot: number, frags: [number, number][], cmd = 0, sum = 0): void {
  const at = TX_RING + slot * tl.TL_BLOCK_SIZE;
  b.put(at, cmd | frags.length, sum, 0, 0);
  // The block has room for six fragments, but the device accepts at most four.
  frags.slice(0, 6).forEach(([off, len], i) => b.put(at + tl.TL_B_FRAG + 8 * i, BASE + off, len));
}

const cmdOf = (b: Bench, slot: number): number => b.get(TX_RING + slot * tl.TL_BLOCK_SIZE);
const rxOf = (b: Bench, slot: number): { status: number; len: number } => ({
  len: b.get(RX_RING + slot * tl.TL_RXD_SIZE + tl.TL_R_LEN),
  status: b.get(RX_RING + slot * tl.TL_RXD_SIZE + tl.TL_R_STATUS),
});

function start(b: Bench, ctrl = 0): Bench {
  for (let i = 0; i < N; i++)
    b.put(RX_RING + i * tl.TL_RXD_SIZE, BASE + RX_DATA + i * 2048, 0, 0, 0);
  b.w(tl.TL_TXBASE, BASE + TX_RING);
  b.w(tl.TL_TXSIZE, N);
  b.w(tl.TL_RXBASE, BASE + RX_RING);
  b.w(tl.TL_RXSIZE, N);
  b.w(tl.TL_INTEN, tl.TL_INT_MASK);
  b.w(tl.TL_CTRL, tl.TL_CTRL_TXE | tl.TL_CTRL_RXE | ctrl);
  b.w(tl.TL_RXPUT, N - 1);
  return b;
}

const stat = (b: Bench, n: number): number => b.r(tl.TL_STATS + 4 * n);

describe('tl', () => {
  before(() => patternRam(BASE));

  it('implements its registers, and counts reads and writes that they do not allow', () => {
    const b = bench();
    expect(b.r(tl.TL_ID)).to.equal(0x544c0001);
    expect([b.r(tl.TL_ADDR0), b.r(tl.TL_ADDR1), b.r(tl.TL_STATUS)]).to.deep.equal([2, 0x100, 1]);
    const bad = (access: () => unknown): boolean => {
      const before = stat(b, tl.TL_ST_BAD_REG);
      access();
      return stat(b, tl.TL_ST_BAD_REG) === before + 1;
    };
    for (const off of [tl.TL_INTSET, 0x88, 0xfc, 0x100, 1, 6])
      expect(
        bad(() => expect(b.r(off)).to.equal(0xffffffff)),
        `read ${off}`,
      ).to.equal(true);
    for (const [off, value] of [
      [tl.TL_ID, 1],
      [tl.TL_STATUS, 1],
      [tl.TL_TXGET, 1],
      [tl.TL_TXPUT, 0],
      [tl.TL_RXPUT, 0],
      [tl.TL_STATS, 1],
      [tl.TL_INTEN, 0x40],
      [tl.TL_CTRL, 0x40],
      [3, 0],
    ] as const)
      expect(
        bad(() => b.w(off, value)),
        `write ${off} ${value}`,
      ).to.equal(true);
    start(b);
    for (const [off, value] of [
      [tl.TL_TXBASE, 0],
      [tl.TL_RXSIZE, 8],
      [tl.TL_TXPUT, N],
      [tl.TL_RXPUT, 0xffffffff],
    ] as const)
      expect(
        bad(() => b.w(off, value)),
        `write ${off} while enabled`,
      ).to.equal(true);
    b.w(tl.TL_CTRL, tl.TL_CTRL_RST);
    expect([b.r(tl.TL_CTRL), b.r(tl.TL_TXBASE), b.r(tl.TL_RXSIZE)]).to.deep.equal([0, 0, 0]);
    b.dev.close();
  });

  it('stops transmission with TXHALT and TXERR when the ring is invalid', () => {
    for (const [base, size] of [
      [BASE + 0x4020, N],
      [BASE + 0x4000, 4],
      [BASE + 0x4000, 24],
      [BASE + 0x4000, 512],
      [0, N],
      [BASE + SIZE - 64, N],
    ] as const) {
      const b = bench();
      b.w(tl.TL_TXBASE, base);
      b.w(tl.TL_TXSIZE, size);
      b.w(tl.TL_CTRL, tl.TL_CTRL_TXE);
      b.w(tl.TL_TXPUT, 1);
      expect(b.r(tl.TL_STATUS), `${base} ${size}`).to.equal(
        tl.TL_STATUS_LINK | tl.TL_STATUS_TXHALT,
      );
      expect(b.r(tl.TL_INTR)).to.equal(tl.TL_INT_TXERR);
      b.dev.close();
    }
  });

  it('gathers fragments, writes the checksum at the given offset, pads, and leaves source memory unchanged', () => {
    const b = start(bench());
    const bytes = makePacket({ payload: 1001, cksum: 'pseudo', v6: true, udp: true });
    mem.set(bytes, TX_DATA);
    const cuts: [number, number][] = [
      [TX_DATA, 54],
      [TX_DATA + 54, 511],
      [TX_DATA + 565, 1],
      [TX_DATA + 566, bytes.length - 566],
    ];
    block(b, 0, cuts, tl.TL_CMD_SUM | tl.TL_CMD_UDP | INT, 54 | (60 << 16));
    block(b, 1, [[TX_DATA, 20]]);
    b.w(tl.TL_TXPUT, 2);
    expect([...judge(b.wire.sent[0]!).payload]).to.deep.equal([...bytes.subarray(62)]);
    expect([...b.wire.sent[1]!]).to.deep.equal([
      ...bytes.subarray(0, 20),
      ...Array.from({ length: 40 }, () => 0),
    ]);
    expect([...mem.subarray(TX_DATA, TX_DATA + bytes.length)]).to.deep.equal([...bytes]);
    expect([cmdOf(b, 0), cmdOf(b, 1), b.r(tl.TL_TXGET)]).to.deep.equal([DONE, DONE, 2]);
    expect([b.r(tl.TL_INTR), b.raised]).to.deep.equal([tl.TL_INT_TX, 1]);
    b.dev.close();
  });

  it('sends a computed UDP checksum of 0 as 0xffff, and leaves 0 for other protocols', () => {
    for (const [flag, want] of [
      [tl.TL_CMD_UDP, 0xffff],
      [0, 0],
    ] as const) {
      const b = start(bench());
      mem.fill(0, TX_DATA, TX_DATA + 100);
      mem.fill(0xff, TX_DATA + 34, TX_DATA + 36);
      block(b, 0, [[TX_DATA, 100]], tl.TL_CMD_SUM | flag, 34 | (40 << 16));
      b.w(tl.TL_TXPUT, 1);
      const sent = b.wire.sent[0]!;
      expect(sent[40]! * 256 + sent[41]!).to.equal(want);
      b.dev.close();
    }
  });

  it('drops a bad block, and sends the next block', () => {
    const ok: [number, number] = [TX_DATA, 512];
    const bad: [[number, number][], number, number][] = [
      [[], 0, 0],
      [[ok, ok, [TX_DATA, 495]], 0, 0],
      [[[TX_DATA, 513]], 0, 0],
      [[ok, [TX_DATA, 0]], 0, 0],
      [[[TX_DATA, 13]], 0, 0],
      [[[0x2fff0, 17]], 0, 0],
      [[[0, 60]], 0, 0],
      [[[SIZE - 10, 60]], 0, 0],
      [[ok, ok, ok, ok, ok], 0, 0],
      [Array.from({ length: 5 }, () => [TX_DATA, 60]), 0, 0],
      [[ok], tl.TL_CMD_SUM, 13 | (15 << 16)],
      [[ok], tl.TL_CMD_SUM, 34 | (33 << 16)],
      [[ok], tl.TL_CMD_SUM, 34 | (41 << 16)],
      [[ok], tl.TL_CMD_SUM, 34 | (512 << 16)],
      [[[TX_DATA, 60]], tl.TL_CMD_SUM, 35 | (59 << 16)],
    ];
    bad.forEach(([frags, cmd, sum], i) => {
      const b = start(bench());
      block(b, 0, frags, cmd | INT, sum);
      block(b, 1, [ok]);
      b.w(tl.TL_TXPUT, 2);
      expect(cmdOf(b, 0), `case ${i}`).to.equal((DONE | ERR) >>> 0);
      expect([stat(b, tl.TL_ST_TX_BAD), b.wire.sent.length]).to.deep.equal([1, 1]);
      expect(b.r(tl.TL_INTR)).to.equal(tl.TL_INT_TXERR | tl.TL_INT_TX);
      b.dev.close();
    });
    // Blocks exactly at the limits are accepted.
    const b = start(bench());
    block(b, 0, [ok, ok, [TX_DATA, 494]]);
    block(b, 1, [[0x2fff0, 16]]);
    block(b, 2, [[TX_DATA, 60]], tl.TL_CMD_SUM, 34 | (58 << 16));
    b.w(tl.TL_TXPUT, 3);
    expect(b.wire.sent.map((f) => f.length)).to.deep.equal([1518, 60, 60]);
    b.dev.close();
  });

  it('keeps a frame while the wire is full, and drops it when the link goes down', () => {
    const b = start(bench());
    b.wire.room = 0;
    block(b, 0, [[TX_DATA, 100]], INT);
    block(b, 1, [[TX_DATA, 200]], INT);
    b.w(tl.TL_TXPUT, 2);
    expect([b.r(tl.TL_TXGET), b.wire.armed, stat(b, tl.TL_ST_TX_WIRE_FULL)]).to.deep.equal([
      0, 1, 1,
    ]);
    b.wire.drain(1);
    expect([b.r(tl.TL_TXGET), b.wire.sent.length]).to.deep.equal([1, 1]);
    b.dev.wireState(false, EIO);
    expect([b.r(tl.TL_TXGET), stat(b, tl.TL_ST_TX_NO_LINK)]).to.deep.equal([2, 1]);
    expect(b.r(tl.TL_STATUS)).to.equal(0);
    b.dev.close();
  });

  it('reports checksum verdicts, stalls without posted buffers, and resumes when buffers are posted', () => {
    const b = start(bench(), tl.TL_CTRL_RXSUM);
    const good = makePacket({ payload: 1460, cksum: 'full' });
    b.wire.inject(
      good,
      makePacket({ payload: 700, cksum: 'full', spoil: 1 }),
      makePacket({ payload: 3, cksum: 'full', v6: true }),
      makePacket({ payload: 3, cksum: 'full', vlan: 4 }),
    );
    const { TL_RXS_IP4: IP4, TL_RXS_L4: L4, TL_RXS_L4BAD: L4BAD } = tl;
    expect([0, 1, 2, 3].map((i) => rxOf(b, i).status)).to.deep.equal(
      [IP4 | L4, IP4 | L4 | L4BAD, L4, 0].map((s) => (DONE | s) >>> 0),
    );
    expect([...mem.subarray(RX_DATA, RX_DATA + rxOf(b, 0).len)]).to.deep.equal([...good]);
    expect(stat(b, tl.TL_ST_RX_L4_ERROR)).to.equal(1);
    for (let i = 0; i < N; i++) b.wire.inject(good);
    expect([b.r(tl.TL_RXGET), b.wire.waiting, b.wire.readable]).to.deep.equal([N - 1, 5, false]);
    expect(b.r(tl.TL_INTR) & tl.TL_INT_RXEMPTY).to.not.equal(0);
    b.w(tl.TL_RXPUT, 10);
    expect([b.r(tl.TL_RXGET), b.wire.waiting]).to.deep.equal([4, 0]);
    b.dev.close();
  });

  it('returns bad buffers with ERR, and drops runts, oversized frames and frames for other addresses', () => {
    for (const off of [0x50f801, SIZE - 100, 100]) {
      const b = start(bench());
      b.put(RX_RING, BASE + off);
      b.wire.inject(makePacket({ payload: 100, cksum: 'full' }));
      expect(rxOf(b, 0)).to.deep.equal({ len: 0, status: (DONE | ERR) >>> 0 });
      expect([stat(b, tl.TL_ST_RX_BAD), stat(b, tl.TL_ST_RX_FRAMES)]).to.deep.equal([1, 1]);
      b.dev.close();
    }
    const b = start(bench());
    const group = makePacket({ payload: 9, dst: [1, 0, 0x5e, 0, 0, 1], cksum: 'full' });
    const other = makePacket({ payload: 9, dst: [2, 0, 0, 0, 0, 9], cksum: 'full' });
    b.wire.inject(new Uint8Array(13), makePacket({ payload: 1465, cksum: 'full' }), other, group);
    const of = (...n: number[]): number[] => n.map((i) => stat(b, i));
    expect(
      of(tl.TL_ST_RX_RUNT, tl.TL_ST_RX_OVERSIZE, tl.TL_ST_RX_FILTERED, tl.TL_ST_RX_FRAMES),
    ).to.deep.equal([1, 1, 2, 0]);
    b.w(tl.TL_CTRL, b.r(tl.TL_CTRL) | tl.TL_CTRL_MULTI);
    b.wire.inject(group, other);
    expect(stat(b, tl.TL_ST_RX_FRAMES)).to.equal(1);
    b.w(tl.TL_CTRL, b.r(tl.TL_CTRL) | tl.TL_CTRL_PROMISC);
    b.wire.inject(other);
    expect(stat(b, tl.TL_ST_RX_FRAMES)).to.equal(2);
    b.dev.close();
  });
});

describe('tl: fuzzing', function () {
  this.timeout(full ? 1_200_000 : 120_000);
  let reached = new Float64Array(tl.TL_NSTATS);

  before(() => patternRam(BASE));
  beforeEach(() => (reached = new Float64Array(tl.TL_NSTATS)));

  it(`${RUNS} random sequences of register accesses write only to RAM and device memory`, () => {
    const op = fc.oneof(
      fc.record({
        reg: fc.oneof(
          fc.nat(0x40).map((n) => n & ~3),
          fc.nat(0x140),
        ),
        value: fc.oneof(
          word,
          fc.nat(64),
          fc.nat(SIZE).map((n) => BASE + n - (n % 64)),
        ),
      }),
      fc.record({ frame }),
      fc.record({ room: fc.nat(3) }),
      fc.record({ link: fc.boolean() }),
      fc.record({
        ring: fc.nat(SIZE / 64).map((n) => n * 64),
        size: fc.oneof(fc.constantFrom(8, 32, 256), fc.nat(300)),
        put: fc.nat(256),
      }),
    );
    fc.assert(
      fc.property(fc.array(op, { maxLength: 60 }), (ops) => {
        const b = bench();
        for (const o of ops) {
          if ('reg' in o) {
            b.w(o.reg, o.value);
            const read = b.r(o.reg);
            expect(read >= 0 && read <= 0xffffffff && Number.isInteger(read)).to.equal(true);
          } else if ('frame' in o) b.wire.inject(o.frame);
          else if ('room' in o) b.wire.room = o.room;
          else if ('link' in o) b.dev.wireState(o.link, 0);
          else {
            b.w(tl.TL_CTRL, 0);
            for (const first of [tl.TL_TXBASE, tl.TL_RXBASE]) {
              b.w(first, BASE + o.ring);
              b.w(first + 4, o.size);
            }
            b.w(tl.TL_CTRL, tl.TL_CTRL_MASK);
            b.w(tl.TL_RXPUT, o.put);
            b.w(tl.TL_TXPUT, o.put);
          }
        }
        b.finish(reached);
        b.allowRam();
        b.expectUntouched(tl.TL_SRAM_SIZE);
      }),
      fuzzParams,
    );
    expectReached(reached, tl.tlStatNames, tl.TL_ST_BAD_REG, tl.TL_ST_TX_BAD, tl.TL_ST_RX_BAD);
  });

  it(`${RUNS} random rings make it write only to posted buffers`, () => {
    const addr = fc.oneof(
      { weight: 8, arbitrary: fc.nat(SIZE - 0x30000).map((n) => BASE + 0x20000 + n) },
      fc.constantFrom(0, BASE, BASE + 4095, BASE + SIZE - 1, BASE + SIZE - 2048, 0xffff_0000),
      word,
    );
    const frag = fc.tuple(
      addr,
      fc.oneof({ weight: 6, arbitrary: fc.nat(512) }, fc.constantFrom(0, 513, 0xffffffff)),
    );
    const tx = fc.record({
      cmd: fc.oneof(fc.constantFrom(1, 2, 3, 4, 0x12, 0x14, 0x33, 0x74), {
        weight: 1,
        arbitrary: word,
      }),
      sum: fc.oneof(fc.constantFrom(34 | (40 << 16), 34 | (50 << 16), 14 | (14 << 16)), word),
      frags: fc.array(frag, { minLength: 4, maxLength: 4 }),
    });
    fc.assert(
      fc.property(
        fc.array(tx, { minLength: N, maxLength: N }),
        fc.array(addr, { minLength: N, maxLength: N }),
        fc.array(frame, { maxLength: 20 }),
        fc.nat(7).map((n) => n * 8),
        fc.array(fc.nat(N + 1), { maxLength: 5 }),
        (txs, rxs, frames, ctrl, puts) => {
          const b = bench();
          start(b, ctrl);
          txs.forEach(({ cmd, sum, frags }, i) =>
            b.put(TX_RING + i * tl.TL_BLOCK_SIZE, cmd, sum, i, 0, ...frags.flat()),
          );
          rxs.forEach((a, i) => b.put(RX_RING + i * tl.TL_RXD_SIZE, a, 0, 0, 0));
          b.wire.room = 5;
          b.wire.inject(...frames);
          for (const put of puts) b.w(tl.TL_TXPUT, put);
          b.finish(reached);
          b.allow(TX_RING, N * tl.TL_BLOCK_SIZE);
          b.allow(RX_RING, N * tl.TL_RXD_SIZE);
          for (const a of rxs) {
            const off = (a >>> 0) - BASE;
            if (off >= PAGE_SIZE && off + 2048 <= SIZE) b.allow(off, 2048);
          }
          b.expectUntouched(tl.TL_SRAM_SIZE);
        },
      ),
      fuzzParams,
    );
    expectReached(
      reached,
      tl.tlStatNames,
      tl.TL_ST_TX_FRAMES,
      tl.TL_ST_TX_BAD,
      tl.TL_ST_TX_WIRE_FULL,
      tl.TL_ST_RX_FRAMES,
      tl.TL_ST_RX_BAD,
      tl.TL_ST_RX_FILTERED,
      tl.TL_ST_RX_OVERSIZE,
      tl.TL_ST_RX_L4_ERROR,
      tl.TL_ST_DMA_FAULTS,
    );
  });
});
