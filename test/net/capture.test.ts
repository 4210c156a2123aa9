import { captureNotes } from '../../src/sys/capture_notes.ts';
import { META_LINK_FRAGMENT } from '../../src/sys/capture_meta.ts';
import { m_freem, m_gethdr } from '../../src/kern/kern_mbuf.ts';
import { M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import { countDrop } from '../../src/net/capture_drop.ts';
import { fragmentId } from '../../src/net/capture_fragment.ts';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { ManualClock } from '../../src/host/manual_clock.ts';
import {
  captureClose,
  captureOpen,
  captureRing,
  captureTap,
  captureUnit,
} from '../../src/net/capture.ts';
import {
  CAPTURE_EVENT,
  CAPTURE_IDS_ALL,
  CAPTURE_IF,
  CAPTURE_IN,
  CAPTURE_IP,
  CAPTURE_OUT,
  CAPTURE_WIRE,
  type CaptureRecord,
  CaptureRing,
  type CaptureSink,
} from '../../src/sys/capture.ts';
import { counted, R_CAPTURE_FULL, R_NETISR_FULL, resetReasons } from '../../src/sys/reason.ts';
import { bpfProgram } from '../../src/sys/bpf_filter.ts';
import { mem } from '../../src/vm/arena.ts';
import { payloadBytesRead, READ_BPF } from '../../src/vm/payload.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { OUR_MAC, PEER, PEER_MAC, Rig, US } from '../netinet/rig.ts';
import { buildEther, buildIcmp, buildIp4 } from '../support/frames.ts';

interface Rec {
  point: number;
  flags: number;
  sec: number;
  nsec: number;
  unit: number;
  pktId: number;
  bytes: Uint8Array;
  wirelen: number;
}

class Book implements CaptureSink {
  readonly recs: Rec[] = [];
  readonly #mem: () => Uint8Array;
  constructor(memory: () => Uint8Array) {
    this.#mem = memory;
  }
  captureRecord({
    point,
    flags,
    sec,
    nsec,
    unit,
    pktId,
    off,
    caplen,
    wirelen,
  }: CaptureRecord): void {
    const bytes = this.#mem().slice(off, off + caplen);
    this.recs.push({ point, flags, sec, nsec, unit, pktId, bytes, wirelen });
  }
}

const RING = 64 * 1024;
const OFF = 4096;

describe('capture ring', () => {
  let clock: ManualClock;
  let memory: Uint8Array;
  let ring: CaptureRing;
  let book: Book;
  beforeEach(() => {
    resetReasons();
    clock = new ManualClock({ bootSec: 1000.75 });
    memory = new Uint8Array(OFF + RING + CAPTURE_IDS_ALL + OFF).fill(0xa5);
    ring = new CaptureRing(memory, new DataView(memory.buffer), OFF, RING, clock);
    book = new Book(() => memory);
  });
  afterEach(() => {
    // Verify that no byte outside the region changed.
    for (let i = 0; i < OFF; i++) if (memory[i] !== 0xa5) throw new Error(`byte ${i}`);
    for (let i = OFF + RING + CAPTURE_IDS_ALL; i < memory.length; i++)
      if (memory[i] !== 0xa5) throw new Error(`byte ${i}`);
  });

  it('records packets in order, with the time of capture', () => {
    ring.setPoint(CAPTURE_WIRE, 65535);
    const tap = ring.tap(7);
    clock.advance(300_000_001);
    memory.set([1, 2, 3, 4, 5, 6], 100);
    tap.capture(CAPTURE_WIRE, CAPTURE_OUT, 42, Uint32Array.of(0, 9, 100, 2, 102, 4, 0, 9), 1, 2, 6);
    expect(ring.drain(book)).to.equal(1);
    expect(ring.drain(book)).to.equal(0);
    const [r] = book.recs;
    expect([r!.sec, r!.nsec]).to.deep.equal([1001, 50_000_001]);
    expect([...r!.bytes]).to.deep.equal([1, 2, 3, 4, 5, 6]);
    expect(r).to.include({
      point: CAPTURE_WIRE,
      flags: CAPTURE_OUT,
      unit: 7,
      pktId: 42,
      wirelen: 6,
    });
    memory.fill(0xa5, 0, OFF);
  });

  it('records nothing before a snap length is set, and cuts records to it', () => {
    const iov = Uint32Array.of(0, 1000, 1000, 500);
    const tap = ring.tap(1);
    tap.capture(CAPTURE_WIRE, 0, 0, iov, 0, 2, 1500);
    expect(ring.empty).to.equal(true);
    ring.setPoint(CAPTURE_WIRE, 1100);
    expect([tap.wants(CAPTURE_WIRE), tap.wants(CAPTURE_IF)]).to.deep.equal([true, false]);
    tap.capture(CAPTURE_WIRE, 0, 0, iov, 0, 2, 1500);
    ring.setPoint(CAPTURE_WIRE, 0);
    tap.capture(CAPTURE_WIRE, 0, 0, iov, 0, 2, 1500);
    ring.drain(book);
    expect(book.recs.map((r) => [r.bytes.length, r.wirelen])).to.deep.equal([[1100, 1500]]);
  });

  it('drops and counts a record without room instead of blocking', () => {
    ring.setPoint(CAPTURE_WIRE, 65535);
    const iov = Uint32Array.of(0, 1500);
    for (let i = 0; i < 100; i++) ring.tap(1).capture(CAPTURE_WIRE, 0, i, iov, 0, 1, 1500);
    const n = ring.drain(book);
    expect(n).to.be.within(41, 43);
    expect(ring.lost).to.equal(100 - n);
    expect(counted(R_CAPTURE_FULL)).to.equal(100 - n);
    expect(book.recs.map((r) => r.pktId)).to.deep.equal([...Array(n).keys()]);
  });

  it('runs its task at once when it is half full, and in a turn of the loop otherwise', () => {
    ring.setPoint(CAPTURE_WIRE, 65535);
    const runs: number[] = [];
    ring.setDrainTask({ run: () => void runs.push(ring.drain(book)) });
    const iov = Uint32Array.of(0, 1500);
    for (let i = 0; i < 100; i++) ring.tap(1).capture(CAPTURE_WIRE, 0, i, iov, 0, 1, 1500);
    expect(runs.length).to.be.within(4, 5);
    clock.runPosted();
    expect(ring.empty).to.equal(true);
    expect(ring.lost).to.equal(0);
    expect(book.recs.map((r) => r.pktId)).to.deep.equal([...Array(100).keys()]);
    ring.tap(1).capture(CAPTURE_WIRE, 0, 100, iov, 0, 1, 1500);
    expect(ring.empty).to.equal(false);
    clock.runPosted();
    expect(ring.empty).to.equal(true);
  });

  it('loses and mixes up no records, for random sizes and drains', () => {
    ring.setPoint(CAPTURE_WIRE, 65535);
    let id = 0;
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom(0, 1, 7, 8, 60, 1514, 20000, 65000), fc.boolean()), {
          maxLength: 60,
        }),
        (steps) => {
          const want: number[] = [];
          book.recs.length = 0;
          for (const [len, drain] of steps) {
            const before = ring.lost;
            const at = ring.reserve(CAPTURE_WIRE, 0, 1, ++id, len);
            if (at >= 0) {
              expect(at + len).to.be.at.most(OFF + RING);
              memory.fill(id & 255, at, at + len);
              ring.commit();
              want.push(id);
            } else {
              expect(ring.lost).to.equal(before + 1);
            }
            if (drain) ring.drain(book);
          }
          ring.drain(book);
          expect(ring.empty).to.equal(true);
          expect(book.recs.map((r) => r.pktId)).to.deep.equal(want);
          for (const r of book.recs) {
            expect(r.bytes.length).to.equal(r.wirelen);
            expect(r.bytes.every((b) => b === (r.pktId & 255))).to.equal(true);
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('tells full from empty when a record ends exactly at the oldest record or at the end of the ring', () => {
    ring.setPoint(CAPTURE_WIRE, 65535);
    const put = (size: number): boolean => {
      const at = ring.reserve(CAPTURE_WIRE, 0, 1, size, size - 40);
      if (at >= 0) ring.commit();
      return at >= 0;
    };
    const room = RING - 64;
    // A record that fills the ring would make it look empty.
    expect(put(room)).to.equal(false);
    expect(put(room - 8)).to.equal(true);
    ring.drain(book);
    // Only 8 bytes are left behind it. The next record wraps and must not reach the old start.
    expect(put(room - 8)).to.equal(false);
    expect(put(room - 16)).to.equal(true);
    ring.drain(book);
    expect(put(48)).to.equal(true); // at the start of the ring again
    // The record may end 8 bytes before the oldest record, but not at it.
    expect(put(room - 16 - 48)).to.equal(false);
    expect(put(room - 16 - 48 - 8)).to.equal(true);
    ring.drain(book);
    expect(book.recs.map((r) => r.pktId)).to.deep.equal([room - 8, room - 16, 48, room - 72]);
  });

  it('posts its drain task once per batch', () => {
    let runs = 0;
    ring.setDrainTask({ run: () => void (runs++, ring.drain(book)) });
    ring.setPoint(CAPTURE_WIRE, 64);
    for (let i = 0; i < 5; i++)
      ring.tap(1).capture(CAPTURE_WIRE, 0, 0, Uint32Array.of(0, 64), 0, 1, 64);
    expect(runs).to.equal(0);
    clock.runPosted();
    expect([runs, book.recs.length]).to.deep.equal([1, 5]);
    ring.tap(1).capture(CAPTURE_WIRE, 0, 0, Uint32Array.of(0, 64), 0, 1, 64);
    clock.runPosted();
    expect([runs, book.recs.length]).to.deep.equal([2, 6]);
  });

  it('allocates no garbage', () => {
    ring.setPoint(CAPTURE_WIRE, 64);
    const tap = ring.tap(1);
    const iov = Uint32Array.of(0, 64);
    const nobody: CaptureSink = { captureRecord(): void {} };
    const bytes = bytesPerCall(() => {
      tap.capture(CAPTURE_WIRE, CAPTURE_IN, 0, iov, 0, 1, 64);
      ring.drain(nobody);
    });
    expect(bytes).to.be.below(8);
  }).timeout(60_000);
});

describe('captures of an interface', () => {
  let rig: Rig;
  beforeEach(() => (rig = new Rig()));
  afterEach(() => rig.close());
  const echo = (n: number): Uint8Array =>
    buildEther(
      { dst: OUR_MAC, src: PEER_MAC },
      0x800,
      buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 8, payload: new Uint8Array(n) })),
    );

  it('record both directions at point `if` until they are closed', () => {
    const book = new Book(() => mem);
    const c = captureOpen([{ point: CAPTURE_IF, ifp: rig.ifp }], {}, book);
    rig.inject(echo(3));
    rig.clock.runPosted();
    const sent = rig.sent.splice(0)[0]!;
    expect(book.recs.map((r) => [r.flags, r.wirelen])).to.deep.equal([
      [CAPTURE_IN, 45],
      [CAPTURE_OUT, 45],
    ]);
    expect([...book.recs[0]!.bytes]).to.deep.equal([...echo(3)]);
    expect([...book.recs[1]!.bytes]).to.deep.equal([...sent]);
    expect(payloadBytesRead(READ_BPF), 'file bytes read by bpf').to.equal(0);
    rig.inject(echo(4));
    captureClose(c);
    expect([c.packets, c.drops]).to.deep.equal([4, 0]);
    expect(rig.ifp.if_bpf!.listeners).to.equal(0);
    rig.inject(echo(5));
    rig.clock.runPosted();
    expect(book.recs.length).to.equal(4);
    captureClose(c);
    rig.sent.length = 0;
  });

  it('run side by side with different snap lengths, points and devices', () => {
    const [a, b, w] = [new Book(() => mem), new Book(() => mem), new Book(() => mem)];
    rig.ifp.if_capunit = captureUnit();
    const long = captureOpen([{ point: CAPTURE_IF, ifp: rig.ifp }], {}, a);
    const short = captureOpen([{ point: CAPTURE_IF, ifp: rig.ifp }], { snaplen: 20 }, b);
    const wire = captureOpen([{ point: CAPTURE_WIRE, ifp: rig.ifp }], {}, w);
    rig.inject(echo(100));
    captureTap(rig.ifp.if_capunit).capture(
      CAPTURE_WIRE,
      CAPTURE_OUT,
      1,
      Uint32Array.of(0, 60),
      0,
      1,
      60,
    );
    captureTap(captureUnit()).capture(
      CAPTURE_WIRE,
      CAPTURE_OUT,
      2,
      Uint32Array.of(0, 60),
      0,
      1,
      60,
    );
    captureClose(short);
    rig.inject(echo(100));
    captureClose(long);
    captureClose(wire);
    expect(a.recs.map((r) => r.bytes.length)).to.deep.equal([142, 142, 142, 142]);
    expect(b.recs.map((r) => [r.bytes.length, r.wirelen])).to.deep.equal([
      [20, 142],
      [20, 142],
    ]);
    expect(w.recs.map((r) => r.pktId)).to.deep.equal([1]);
    expect(captureRing().wants(CAPTURE_IF)).to.equal(false);
    rig.sent.length = 0;
  });

  it('with metadata get drops of packets with an id as events, others do not', () => {
    const metas: string[] = [];
    const [with_, without] = [new Book(() => mem), new Book(() => mem)];
    const sink: CaptureSink = {
      captureRecord: (rec) => {
        with_.captureRecord(rec);
        metas.push(Buffer.from(mem.buffer, rec.metaOff, rec.metaLen).toString('hex'));
      },
    };
    const place = { point: CAPTURE_IF, ifp: rig.ifp };
    const m = m_gethdr(M_NOWAIT, MT_DATA)!;
    m.m_pkthdr.pktId = 0x1234;
    m.m_pkthdr.len = 99;
    countDrop(m, R_NETISR_FULL, CAPTURE_IP, CAPTURE_IN);
    const c = captureOpen([place], { meta: true }, sink);
    const plain = captureOpen([place], {}, without);
    countDrop(m, R_NETISR_FULL, CAPTURE_IP, CAPTURE_IN);
    m.m_pkthdr.pktId = 0;
    countDrop(m, R_NETISR_FULL, CAPTURE_IP, CAPTURE_IN);
    m_freem(m);
    captureClose(c);
    captureClose(plain);
    expect(without.recs).to.deep.equal([]);
    expect(with_.recs.map((r) => [r.point, r.flags, r.pktId, r.wirelen])).to.deep.equal([
      [CAPTURE_EVENT, CAPTURE_IN, 0x1234, 0],
    ]);
    const why = Buffer.alloc(2);
    why.writeUInt16LE(R_NETISR_FULL);
    expect(metas).to.deep.equal([
      `01000c00341200000102000000000000050008000300${why.toString('hex')}63000000`,
    ]);
  });

  it('with a filter record events only of packets that the filter accepted', () => {
    const book = new Book(() => mem);
    const place = { point: CAPTURE_IF, ifp: rig.ifp };
    // Accepts frames of 42 bytes: ld #len; jeq.
    const filter = bpfProgram([
      [0x80, 0, 0, 0],
      [0x15, 0, 1, 42],
      [0x06, 0, 0, 65535],
      [0x06, 0, 0, 0],
    ]);
    const c = captureOpen([place], { meta: true, filter }, book);
    const m = m_gethdr(M_NOWAIT, MT_DATA)!;
    for (const [id, len] of [
      [0x11, 42],
      [0x22, 43],
    ] as const) {
      const at = captureRing().reserve(CAPTURE_IF, CAPTURE_OUT, rig.ifp.if_capunit, id, len);
      expect(at).to.be.greaterThan(0);
      captureRing().commit();
      m.m_pkthdr.pktId = id;
      countDrop(m, R_NETISR_FULL, CAPTURE_IP, CAPTURE_IN);
    }
    m.m_pkthdr.pktId = 0x33;
    countDrop(m, R_NETISR_FULL, CAPTURE_IP, CAPTURE_IN);
    m_freem(m);
    captureClose(c);
    expect(book.recs.map((r) => [r.point, r.pktId])).to.deep.equal([
      [CAPTURE_IF, 0x11],
      [CAPTURE_EVENT, 0x11],
    ]);
  });

  it('with metadata link fragments, which then have ids of their own, to their datagram', () => {
    expect(fragmentId(77, 3)).to.equal(77);
    const c = captureOpen(
      [{ point: CAPTURE_IF, ifp: rig.ifp }],
      { meta: true },
      new Book(() => mem),
    );
    const id = fragmentId(77, 3);
    expect(id).not.to.equal(77);
    expect(fragmentId(0, 3)).to.equal(0);
    const links: number[][] = [];
    captureNotes.write(id, true, {
      link: (...link) => void links.push(link),
      why: () => expect.fail('a reason'),
    });
    expect(links).to.deep.equal([[META_LINK_FRAGMENT, 3, 77]]);
    captureClose(c);
  });
});
