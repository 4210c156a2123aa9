/** Receive coalescing (LRO), checked by the general frame judge and against the injected bytes. */

import { expect } from 'chai';
import { CAPTURE_WIRE } from '../../src/sys/capture.ts';
import {
  TN_CTRL_LRO,
  TN_CTRL_RXCSUM,
  TN_CTRL_RXCSUM6,
  TN_CTRL_VLSTRIP,
  TN_FEAT_LRO,
  TN_FEATURES,
  TN_MAXFRM,
  TN_RDT,
  TN_RX_BUDGET,
  TN_RXS_DD,
  TN_RXS_EOP,
  TN_RXS_ERR,
  TN_RXS_IPCS,
  TN_RXS_L4CS,
  TN_RXS_SEGS_SHIFT,
  TN_ST_RX_BYTES,
  TN_ST_RX_FRAMES,
  TN_ST_RX_LRO,
  TN_ST_RX_LRO_SEGMENTS,
  TN_ST_RX_NODESC,
} from '../../src/dev/tn/tnreg.ts';
import { FakeTap } from './fake_tap.ts';
import { type Judged, judge } from './judge.ts';
import { segment, type SegmentOptions } from './segments.ts';
import { Rig, type RigOptions, RX_DATA } from './tn_rig.ts';

const LRO = TN_CTRL_LRO | TN_CTRL_RXCSUM | TN_CTRL_RXCSUM6;
const MSS = 1448;

interface Got {
  bytes: Uint8Array;
  status: number;
  segs: number;
}

const newRig = (ctrl = LRO, options: RigOptions = {}, frameMax = 1518): Rig => {
  const rig = new Rig(options);
  rig.w(TN_MAXFRM, frameMax);
  rig.start(ctrl).postAll();
  return rig;
};

/** Takes the frames written back since the last call, and posts their buffers again. */
function collect(rig: Rig): Got[] {
  const got: Got[] = [];
  let bytes: number[] = [];
  for (let n = 0; n < rig.nrx; n++) {
    const slot = rig.rxNext;
    const { status, len } = rig.rx(slot);
    if ((status & TN_RXS_DD) === 0) break;
    bytes.push(...rig.rxBytes(slot, len));
    rig.rxNext = (slot + 1) % rig.nrx;
    rig.post(slot, RX_DATA + slot * 2048);
    if ((status & TN_RXS_EOP) === 0) continue;
    const segs = (status >>> TN_RXS_SEGS_SHIFT) & 0xff;
    got.push({ bytes: Uint8Array.from(bytes), status: status & 0x3f, segs });
    bytes = [];
  }
  return got;
}

/** Injects frames so that one drain of the wire reads them all. */
function burst(rig: Rig, frames: Uint8Array[]): void {
  const { readable } = rig.wire;
  rig.wire.readable = false;
  rig.wire.inject(...frames);
  rig.wire.readable = readable;
  rig.wire.notify();
}

/** `n` segments in order. */
function train(n: number, o: Partial<SegmentOptions> = {}): SegmentOptions[] {
  const payload = o.payload ?? MSS;
  const seq = o.seq ?? 1000;
  return Array.from({ length: n }, (_, i) => ({ ...o, payload, seq: seq + i * payload }));
}

const concat = (parts: Uint8Array[]): Uint8Array =>
  Uint8Array.from(parts.flatMap((part) => [...part]));

/** Checks a merged frame against the frames that went into it. */
function expectMerged(got: Got, frames: Uint8Array[]): Judged {
  const merged = judge(got.bytes);
  const parts = frames.map((frame) => judge(frame));
  expect(merged.payload).to.deep.equal(concat(parts.map(({ payload }) => payload)));
  expect(merged.seq).to.equal(parts[0]!.seq);
  expect(merged.ipLen + 14, 'no padding').to.equal(got.bytes.length);
  expect(got.segs).to.equal(frames.length);
  expect(got.status).to.equal(TN_RXS_EOP | TN_RXS_L4CS | (merged.v6 ? 0 : TN_RXS_IPCS));
  return merged;
}

describe('tn: receive coalescing', () => {
  for (const v6 of [false, true])
    for (const ts of [undefined, true])
      for (const payload of [1, 7, 999, MSS - 40])
        it(`merges 20 segments of ${payload} bytes into one frame, IPv${v6 ? 6 : 4}${ts ? ', time stamps' : ''}`, () => {
          const options = train(20, { v6, payload, seq: 0xffffff00 }).map((o, i) => ({
            ...o,
            ack: 0xfffffffe + i,
            win: 1000 + i,
            flags: i === 19 ? 0x18 : 0x10,
            ...(ts ? { ts: [0x7ffffffe + i, i] as [number, number] } : {}),
          }));
          const frames = options.map((o) => segment(o));
          const rig = newRig();
          // Some frames are shorter than 60 bytes: this test checks only the arithmetic of the
          // merge.
          burst(rig, frames);
          const [got, ...more] = collect(rig);
          expect(more).to.deep.equal([]);
          const bytes = got!.bytes;
          const merged = expectMergedShort(got!, frames, payload);
          const th = 14 + (v6 ? 40 : 20);
          const view = new DataView(bytes.buffer);
          expect(view.getUint32(th + 8), 'acknowledgement').to.equal((0xfffffffe + 19) % 2 ** 32);
          expect(view.getUint16(th + 14), 'window').to.equal(1019);
          if (ts) {
            expect(view.getUint32(th + 24)).to.equal(0x7ffffffe + 19);
            expect(view.getUint32(th + 28)).to.equal(19);
          }
          expect(merged.thFlags).to.equal(0x18);
          const { stats } = rig.dev;
          expect(stats[TN_ST_RX_LRO]).to.equal(1);
          expect(stats[TN_ST_RX_LRO_SEGMENTS]).to.equal(20);
          expect(stats[TN_ST_RX_FRAMES]).to.equal(1);
          expect(stats[TN_ST_RX_BYTES]).to.equal(bytes.length);
        });

  /** Like expectMerged, but accepts frames shorter than 60 bytes. */
  function expectMergedShort(got: Got, frames: Uint8Array[], payload: number): Judged {
    if (frames[0]!.length >= 60) return expectMerged(got, frames);
    const parts = frames.map((frame) => frame.subarray(frame.length - payload));
    const merged = judge(got.bytes);
    expect(merged.payload).to.deep.equal(concat(parts));
    expect(got.segs).to.equal(frames.length);
    return merged;
  }

  describe('ends a merged frame', () => {
    const base: SegmentOptions = { payload: 100, seq: 1000, ack: 500, ts: [50, 40] };
    const second: SegmentOptions = { ...base, seq: 1100 };
    /** The second of two segments: each differs in one way from `second`, which would merge. */
    const breaks: Record<string, SegmentOptions> = {
      'at a gap': { ...second, seq: 1101 },
      'at a segment that overlaps by one byte': { ...second, seq: 1099 },
      'at a retransmission': { ...second, seq: 1000 },
      'at an older acknowledgement': { ...second, ack: 499 },
      'at an older time stamp': { ...second, ts: [49, 40] },
      'at FIN': { ...second, flags: 0x11 },
      'at SYN': { ...second, flags: 0x12 },
      'at RST': { ...second, flags: 0x14 },
      'at URG': { ...second, flags: 0x30 },
      'at ECE': { ...second, flags: 0x50 },
      'at CWR': { ...second, flags: 0x90 },
      'at a segment without ACK': { ...second, flags: 0 },
      'at a reserved bit': { ...second, tcp: [[12, 0x81]] },
      'at a segment without data': { ...second, payload: 0 },
      'at a segment without time stamps': { payload: 100, seq: 1100, ack: 500 },
      'at other TCP options of the same length': { payload: 100, seq: 1100, ack: 500, nops: 12 },
      'at longer TCP options': { payload: 100, seq: 1100, ack: 500, nops: 16 },
      'at another source port': { ...second, tcp: [[0, 9]] },
      'at another destination port': { ...second, tcp: [[3, 9]] },
      'at another source': { ...second, ip: [[15, 9]] },
      'at another destination': { ...second, ip: [[19, 9]] },
      'at another type of service': { ...second, ip: [[1, 3]] },
      'at another TTL': { ...second, ip: [[8, 63]] },
      'at DF': { ...second, ip: [[6, 0x40]] },
      'at the reserved flag': { ...second, ip: [[6, 0x80]] },
      'at a fragment': { ...second, ip: [[6, 0x20]] },
      'at a fragment with an offset': { ...second, ip: [[7, 1]] },
      'at IP options': { ...second, ipOptions: 4 },
      'at a VLAN tag': { ...second, vlan: 5 },
      'at padding': { ...second, pad: 3 },
      'at another sender': { ...second, ether: [[11, 9]] },
      'at another receiver': { ...second, dst: [255, 255, 255, 255, 255, 255] },
      'at a wrong checksum': { ...second, spoil: 1 },
      'at a change to IPv6': { ...second, v6: true },
    };
    for (const [name, twist] of Object.entries(breaks))
      it(name, () => {
        const rig = newRig();
        const sent = [base, twist].map((o) => segment(o));
        burst(rig, sent);
        const got = collect(rig);
        expect(got.map(({ bytes }) => bytes)).to.deep.equal(sent);
        expect(got.map(({ segs }) => segs)).to.deep.equal([0, 0]);
        expect(rig.dev.stats[TN_ST_RX_LRO]).to.equal(0);
      });

    it('and merges two segments without such a difference', () => {
      const rig = newRig();
      const sent = [base, second].map((o) => segment(o));
      burst(rig, sent);
      const got = collect(rig);
      expect(got.length).to.equal(1);
      expectMerged(got[0]!, sent);
    });

    for (const [name, ip] of [
      ['traffic class', [1, 0x10]],
      ['flow label', [3, 1]],
      ['hop limit', [7, 63]],
      ['source', [23, 9]],
      ['destination', [39, 9]],
    ] as [string, [number, number]][])
      it(`at another ${name} of IPv6`, () => {
        const rig = newRig();
        const sent = [
          segment({ ...base, v6: true }),
          segment({ ...second, v6: true, ip: [ip] }),
          segment({ ...second, v6: true, seq: 1200, ip: [ip] }),
        ];
        burst(rig, sent);
        const got = collect(rig);
        expect(got.map(({ segs }) => segs)).to.deep.equal([0, 2]);
        expect(got[0]!.bytes).to.deep.equal(sent[0]);
        expectMerged(got[1]!, sent.slice(1));
      });

    it('after a segment with PSH', () => {
      const rig = newRig();
      const sent = train(5, { payload: 200 }).map((o, i) =>
        segment({ ...o, flags: i === 0 || i === 2 ? 0x18 : 0x10 }),
      );
      burst(rig, sent);
      const got = collect(rig);
      expect(got.map(({ segs }) => segs)).to.deep.equal([0, 2, 2]);
      expect(got[0]!.bytes).to.deep.equal(sent[0]);
      expect(expectMerged(got[1]!, sent.slice(1, 3)).thFlags).to.equal(0x18);
      expect(expectMerged(got[2]!, sent.slice(3)).thFlags).to.equal(0x10);
    });

    it('at the end of a drain', () => {
      const rig = newRig();
      const sent = train(4).map((o) => segment(o));
      burst(rig, sent.slice(0, 2));
      burst(rig, sent.slice(2));
      expect(collect(rig).map(({ segs }) => segs)).to.deep.equal([2, 2]);
    });

    it('when a drain has used its budget', () => {
      const rig = newRig(LRO, { nrx: 512 });
      const sent = train(TN_RX_BUDGET + 2, { payload: 100 }).map((o) => segment(o));
      burst(rig, sent);
      expect(collect(rig).map(({ segs }) => segs)).to.deep.equal([TN_RX_BUDGET]);
      rig.clock.runPosted();
      expect(collect(rig).map(({ segs }) => segs)).to.deep.equal([2]);
    });

    it('before its IP length would exceed 65535', () => {
      const rig = newRig(LRO, { nrx: 128 }, 9018);
      const sent = train(9, { payload: 8000 }).map((o) => segment(o));
      burst(rig, sent);
      const got = collect(rig);
      expect(got.map(({ segs }) => segs)).to.deep.equal([8, 0]);
      expectMerged(got[0]!, sent.slice(0, 8));
      expect(got[1]!.bytes).to.deep.equal(sent[8]);
      // The exact limit: 65535 bytes, of which 40 are headers.
      const last = 65535 - 40 - 8 * 8000;
      for (const n of [last, last + 1]) {
        burst(rig, [...sent.slice(0, 8), segment({ payload: n, seq: 1000 + 8 * 8000 })]);
        rig.w(TN_RDT, (rig.rxNext + 127) % 128);
        const segs = collect(rig).map((frame) => frame.segs);
        expect(segs).to.deep.equal(n === last ? [9] : [8, 0]);
        rig.w(TN_RDT, (rig.rxNext + 127) % 128);
      }
    });
  });

  describe('of acknowledgments without data', () => {
    const ack = (n: number, o: Partial<SegmentOptions> = {}): SegmentOptions => ({
      payload: 0,
      seq: 1000,
      ack: n,
      ts: [50 + n, 40],
      ...o,
    });

    for (const v6 of [false, true])
      for (const ts of [undefined, true])
        it(`makes one of 20, IPv${v6 ? 6 : 4}${ts ? ', time stamps' : ''}`, () => {
          const sent = Array.from({ length: 20 }, (_, i) =>
            segment({
              payload: 0,
              v6,
              seq: 1000,
              ack: (0xfffffff0 + 8 * i) >>> 0,
              win: 1000 + i,
              ...(ts ? { ts: [0x7ffffff8 + i, i] as [number, number] } : {}),
            }),
          );
          const rig = newRig();
          burst(rig, sent);
          const got = collect(rig);
          expect(got.map(({ segs }) => segs)).to.deep.equal([20]);
          // All have the same IP header.
          expect(got[0]!.bytes).to.deep.equal(sent[19]);
          expect(rig.dev.stats[TN_ST_RX_LRO_SEGMENTS]).to.equal(20);
        });

    const apart: Record<string, [SegmentOptions, SegmentOptions]> = {
      'a duplicate': [ack(500), ack(500)],
      'a window update': [ack(500), ack(500, { win: 9 })],
      'an older one': [ack(500), ack(499, { ts: [550, 40] })],
      'another sequence number': [ack(500), ack(501, { seq: 1001 })],
      'data behind it': [ack(500), ack(501, { payload: 100 })],
      'one behind data': [ack(500, { payload: 100 }), ack(501, { seq: 1100 })],
      'PSH in the first': [ack(500, { flags: 0x18 }), ack(501)],
      'other options, as of SACK': [ack(500), ack(501, { nops: 24 })],
      padding: [ack(500), ack(501, { pad: 2 })],
    };
    for (const [name, options] of Object.entries(apart))
      it(`leaves two apart: ${name}`, () => {
        const rig = newRig();
        const sent = options.map((o) =>
          segment(o.nops === undefined ? o : { payload: 0, seq: o.seq, ack: o.ack!, nops: o.nops }),
        );
        burst(rig, sent);
        const got = collect(rig);
        expect(got.map(({ bytes }) => bytes)).to.deep.equal(sent);
        expect(got.map(({ segs }) => segs)).to.deep.equal([0, 0]);
      });
  });

  it('keeps the arrival order of two interleaved connections', () => {
    const rig = newRig();
    const a = train(4, { payload: 500 }).map((o) => segment(o));
    const b = train(4, { payload: 500, tcp: [[0, 9]] }).map((o) => segment(o));
    const sent = [a[0]!, a[1]!, b[0]!, b[1]!, a[2]!, b[2]!, b[3]!, a[3]!];
    burst(rig, sent);
    const got = collect(rig);
    expect(got.map(({ segs }) => segs)).to.deep.equal([2, 2, 0, 2, 0]);
    expectMerged(got[0]!, sent.slice(0, 2));
    expectMerged(got[1]!, sent.slice(2, 4));
    expect(got[2]!.bytes).to.deep.equal(sent[4]);
    expectMerged(got[3]!, sent.slice(5, 7));
    expect(got[4]!.bytes).to.deep.equal(sent[7]);
  });

  it('merges across a frame for another address, but not across a stripped VLAN tag', () => {
    const rig = newRig(LRO | TN_CTRL_VLSTRIP);
    const [x, y, z] = train(3, { payload: 300 }).map((o) => segment(o));
    const other = segment({ payload: 300, seq: 1300, dst: [2, 0, 0, 0, 0, 9] });
    const tagged = segment({ payload: 300, seq: 1600, vlan: 5 });
    burst(rig, [x!, other, y!, tagged, z!]);
    const got = collect(rig);
    expect(got.map(({ segs }) => segs)).to.deep.equal([2, 0, 0]);
    expectMerged(got[0]!, [x!, y!]);
    expect(got[1]!.bytes).to.deep.equal(segment({ payload: 300, seq: 1600 }));
    expect(got[2]!.bytes).to.deep.equal(z);
  });

  it('merges only with TN_CTRL_LRO and the checksums of its family verified, in mode wire', () => {
    for (const v6 of [false, true]) {
      const sent = train(3, { v6, payload: 1000 }).map((o) => segment(o));
      const own = v6 ? TN_CTRL_RXCSUM6 : TN_CTRL_RXCSUM;
      const other = v6 ? TN_CTRL_RXCSUM : TN_CTRL_RXCSUM6;
      for (const ctrl of [own, TN_CTRL_LRO, TN_CTRL_LRO | other, TN_CTRL_LRO | own, LRO]) {
        for (const mode of ['wire', 'vnet'] as const) {
          const rig = newRig(ctrl, { mode });
          burst(rig, sent);
          const got = collect(rig).map(({ segs }) => segs);
          const merges = (ctrl & TN_CTRL_LRO) !== 0 && (ctrl & own) !== 0 && mode === 'wire';
          expect(got).to.deep.equal(merges ? [3] : [0, 0, 0]);
          expect(rig.r(TN_FEATURES) & TN_FEAT_LRO).to.equal(mode === 'wire' ? TN_FEAT_LRO : 0);
        }
      }
    }
  });

  it('loses no frame when buffers run short: it stops reading until enough are posted', () => {
    for (const frameMax of [1518, 9018]) {
      const rig = newRig(LRO, { nrx: 16 }, frameMax);
      const sent = train(200, { payload: MSS }).map((o) => segment(o));
      burst(rig, sent);
      const parts: Uint8Array[] = [];
      for (let turn = 0; turn < 100 && parts.length < 200; turn++) {
        for (const { bytes } of collect(rig)) parts.push(judge(bytes).payload);
        rig.w(TN_RDT, (rig.rxNext + 15) % 16);
        rig.clock.runPosted();
      }
      expect(concat(parts)).to.deep.equal(concat(sent.map((frame) => judge(frame).payload)));
      expect(rig.wire.waiting).to.equal(0);
      expect(rig.dev.stats[TN_ST_RX_NODESC]).to.be.greaterThan(0);
      // Each drain merged all frames it read, so a few merged frames carry the 200 segments.
      expect(parts.length).to.be.lessThan(30);
    }
  });

  it('delivers the merged frame in progress before it returns a bad buffer', () => {
    const rig = new Rig({ nrx: 8 }).start(LRO);
    for (let i = 0; i < 8; i++) rig.post(i, RX_DATA + i * 2048);
    rig.post(2, (16 << 20) - 2047); // ends past RAM
    const sent = train(4, { payload: MSS }).map((o) => segment(o));
    rig.wire.inject(...sent);
    rig.w(TN_RDT, 7);
    // Two segments fill slots 0 and 1. The device finds slot 2 bad when the third needs it.
    expect(rig.rx(1).status >>> TN_RXS_SEGS_SHIFT).to.equal((TN_RXS_DD >>> TN_RXS_SEGS_SHIFT) | 2);
    expect(rig.rx(2).status).to.equal((TN_RXS_DD | TN_RXS_ERR) >>> 0);
    expect(rig.rx(4).status >>> TN_RXS_SEGS_SHIFT).to.equal((TN_RXS_DD >>> TN_RXS_SEGS_SHIFT) | 2);
  });

  it('passes frames to captures as received, before the merge', () => {
    const lens: number[] = [];
    const tap = new FakeTap(
      CAPTURE_WIRE,
      (_point, _flags, _id, _iov, _first, _n, len) => void lens.push(len),
    );
    const rig = newRig(LRO, { capture: tap });
    burst(
      rig,
      train(3, { payload: 700 }).map((o) => segment(o)),
    );
    expect(lens).to.deep.equal([754, 754, 754]);
    expect(collect(rig).map(({ segs }) => segs)).to.deep.equal([3]);
  });
});
