import { expect } from 'chai';
import * as fc from 'fast-check';
import { LinkReader, PAYLOAD_MAX, replyFrame } from '../../src/packetdrill/frames.ts';

/** A request as the shared object writes it: native-bindings/packetdrill/link.h. */
function request(id: number, op: number, nowUs: number, payload: Uint8Array): Buffer {
  const frame = Buffer.alloc(40 + payload.length);
  frame.writeUInt32LE(frame.length, 0);
  frame.writeUInt32LE(id, 4);
  frame.writeUInt32LE(op, 8);
  frame.writeInt32LE(-7, 12);
  frame.writeBigInt64LE(BigInt(nowUs), 16);
  frame.writeInt32LE(-1, 24);
  frame.writeInt32LE(2, 28);
  frame.writeInt32LE(3, 32);
  frame.set(payload, 40);
  return frame;
}

describe("frames of packetdrill's shared object", () => {
  it('are the same however the stream is cut', () => {
    const one = fc.record({
      id: fc.nat(0xffffffff),
      op: fc.nat(255),
      nowUs: fc.nat(1e9),
      payload: fc.uint8Array({ maxLength: 100 }),
    });
    fc.assert(
      fc.property(fc.array(one, { maxLength: 8 }), fc.array(fc.nat(60)), (list, cuts) => {
        const all = Buffer.concat(list.map((r) => request(r.id, r.op, r.nowUs, r.payload)));
        const reader = new LinkReader();
        const got = [];
        for (let at = 0, i = 0; at < all.length; i++) {
          const n = cuts.length === 0 ? all.length : 1 + cuts[i % cuts.length]!;
          got.push(...reader.push(all.subarray(at, at + n))!);
          at += n;
        }
        expect(reader.partial).to.equal(false);
        expect(got.map(({ id, op, nowUs }) => ({ id, op, nowUs }))).to.deep.equal(
          list.map(({ id, op, nowUs }) => ({ id, op, nowUs })),
        );
        got.forEach((q, i) => {
          expect([q.fd, q.a, q.b, q.c]).to.deep.equal([-7, -1, 2, 3]);
          expect([...q.payload]).to.deep.equal([...list[i]!.payload]);
        });
      }),
    );
  });

  it('are bounded, and know when half of one is there', () => {
    const size = (n: number): Buffer => {
      const bytes = Buffer.alloc(40);
      bytes.writeUInt32LE(n, 0);
      return bytes;
    };
    expect(new LinkReader().push(size(39))).to.equal(null);
    expect(new LinkReader().push(size(40 + PAYLOAD_MAX + 1))).to.equal(null);
    const reader = new LinkReader();
    expect(reader.push(size(40 + PAYLOAD_MAX))).to.deep.equal([]);
    expect(reader.partial).to.equal(true);
    // A clock that runs into the past, or beyond what can be counted, is none.
    expect(new LinkReader().push(request(1, 2, -5, new Uint8Array(0)))![0]!.nowUs).to.equal(0);
    expect(new LinkReader().push(request(1, 2, 2 ** 52, new Uint8Array(0)))![0]!.nowUs).to.equal(0);
  });

  it('have replies with a header of 32 bytes', () => {
    const payload = Uint8Array.of(1, 2, 3);
    const frame = replyFrame({ id: 5, result: -11, late: true, nowUs: 1.5e15, a: 9, payload });
    expect(frame.length).to.equal(35);
    expect(frame.readUInt32LE(0)).to.equal(35);
    expect([frame.readUInt32LE(4), frame.readInt32LE(8), frame.readUInt32LE(12)]).to.deep.equal([
      5, -11, 1,
    ]);
    expect(Number(frame.readBigInt64LE(16))).to.equal(1.5e15);
    expect([frame.readInt32LE(24), frame.readUInt32LE(28)]).to.deep.equal([9, 0]);
    expect([...frame.subarray(32)]).to.deep.equal([1, 2, 3]);
  });
});
