/** Trains of TCP segments for receive coalescing, with everything that can interrupt them. */

import * as fc from 'fast-check';
import { TN_CTRL, TN_CTRL_RXE, TN_CTRL_TXE, TN_DESC_SIZE, TN_RDT } from '../../src/dev/tn/tnreg.ts';
import { segment, type SegmentOptions } from '../dev/segments.ts';
import type { Setup, Step } from './bench.ts';
import { addrWords, between, bringUp, driver, frame, RX_DATA, RX_RING, sendOf } from './gen.ts';

/** Changes to one segment; most segments have none. */
const twist: fc.Arbitrary<Partial<SegmentOptions> & { skip?: number }> = fc.oneof(
  { weight: 30, arbitrary: fc.constant({}) },
  { weight: 3, arbitrary: fc.constant({ flags: 0x18 }) },
  fc.nat(0xff).map((flags) => ({ flags })),
  fc.constantFrom(1, -1, -100, 1000, 0x80000000).map((skip) => ({ skip })),
  fc.nat(0xffffffff).map((ack) => ({ ack })),
  fc.tuple(fc.nat(0xffffffff), fc.nat(0xffffffff)).map((ts) => ({ ts })),
  fc.constantFrom(0, 4, 12, 16, 40).map((nops) => ({ nops })),
  fc.constantFrom(4, 40).map((ipOptions) => ({ ipOptions })),
  fc.constant({ vlan: 0x6001 }),
  fc.constant({ spoil: 1 }),
  fc.constantFrom(1, 6, 20).map((pad) => ({ pad })),
  fc.constantFrom(0, 1, 1448, 4000).map((payload) => ({ payload })),
  fc.boolean().map((v6) => ({ v6 })),
  fc.constant<Partial<SegmentOptions>>({ dst: [2, 0, 0, 0, 0, 9] }),
  fc.constant<Partial<SegmentOptions>>({ dst: [255, 255, 255, 255, 255, 255] }),
  // Any byte of the headers, set before the checksums are computed: lengths and protocols too.
  fc.tuple(fc.nat(39), fc.nat(255)).map((byte) => ({ ip: [byte] })),
  fc.tuple(fc.nat(31), fc.nat(255)).map((byte) => ({ tcp: [byte] })),
  fc.tuple(fc.integer({ min: 6, max: 13 }), fc.nat(255)).map((byte) => ({ ether: [byte] })),
);

/** A segment, and an optional byte that changes after the checksums are computed. */
interface Part {
  twist: Partial<SegmentOptions> & { skip?: number };
  /** Added to the acknowledgement and the time stamp. */
  step: number;
  poke: [number, number] | null;
}

const part: fc.Arbitrary<Part> = fc.record({
  twist,
  step: fc.constantFrom(0, 0, 1, 1000),
  poke: fc.oneof(
    { weight: 30, arbitrary: fc.constant(null) },
    fc.tuple(fc.integer({ min: 14, max: 80 }), fc.nat(255)),
  ),
});

interface Train {
  v6: boolean;
  payload: number;
  seq: number;
  ack: number;
  stamps: boolean;
  parts: Part[];
}

const train: fc.Arbitrary<Train> = fc.record({
  v6: fc.boolean(),
  payload: fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(0, 0, 1, 7, 8, 536, 1000, 1432) },
    fc.constantFrom(2000, 4000, 8948),
  ),
  seq: fc.constantFrom(1, 0xfffffc00, 0x7ffffc00),
  ack: fc.constantFrom(1, 0xffffffff, 0x7fffffff),
  stamps: fc.boolean(),
  parts: fc.array(part, { minLength: 1, maxLength: 24 }),
});

function framesOf({ v6, payload, seq, ack, stamps, parts }: Train): Uint8Array[] {
  let at = seq;
  let now = ack;
  return parts.map(({ twist: { skip, ...t }, step, poke }) => {
    now += step;
    const o: SegmentOptions = {
      v6,
      payload,
      ack: now >>> 0,
      win: now & 0xffff,
      ...(stamps ? { ts: [now >>> 0, step] as [number, number] } : {}),
      ...t,
      seq: (at + (skip ?? 0)) >>> 0,
    };
    const bytes = segment(o);
    at += o.payload;
    if (poke !== null) bytes[poke[0] % bytes.length] = poke[1];
    return bytes;
  });
}

/** A driver that usually enables coalescing, and posts buffers irregularly. */
export const trainScript: fc.Arbitrary<{ setup: Setup; steps: Step[] }> = fc
  .record({
    setup: fc.record({
      vnet: fc.constantFrom(false, false, false, false, false, false, false, true),
      timer: fc.boolean(),
      room: fc.constantFrom(0, 0, 40_000),
    }),
    driver,
    ctrl: fc.constantFrom(0x1c0, 0x1c0, 0x1c0, 0x1c0, 0x1e0, 0x1c8, 0x140, 0x80, 0xc0, 0x180),
    frameMax: fc.constantFrom(1518, 1518, 4096, 9018, 9018, 9216),
    nrx: fc.constantFrom(8, 16, 64, 64, 128),
    // Bytes from one buffer to the next: side by side, overlapping, or all the same.
    spacing: fc.constantFrom(4096, 4096, 4096, 4096, 4096, 4096, 2048, 1000, 1, 0),
    bad: fc.oneof({ weight: 4, arbitrary: fc.constant(-1) }, fc.nat(63)),
    rounds: fc.array(
      fc.record({
        trains: fc.array(train, { minLength: 1, maxLength: 3 }),
        strangers: fc.array(frame, { maxLength: 2 }),
        between: fc.array(between, { maxLength: 1 }),
        repost: fc.boolean(),
        mix: fc.constantFrom(false, false, true),
      }),
      { minLength: 1, maxLength: 4 },
    ),
  })
  .map(({ setup, driver: d, ctrl, frameMax, nrx, spacing, bad, rounds }) => {
    const steps = bringUp({ ...d, ctrl, frameMax, nrx });
    const aim = (): void => {
      for (let i = 0; i < nrx; i++) {
        const [lo, hi] = i === bad ? [0, 0] : addrWords(RX_DATA + i * spacing);
        steps.push({ do: 'words', at: RX_RING + i * TN_DESC_SIZE, words: [lo, hi, 0, 0] });
      }
    };
    aim();
    const hdr = Array.from({ length: 12 }, () => 0);
    rounds.forEach(({ trains, strangers, between: others, repost, mix }, i) => {
      let frames = trains.flatMap((t) => framesOf(t));
      if (mix) {
        // Alternate between the first and the second half.
        const half = Math.ceil(frames.length / 2);
        frames = frames.map((_, k) => frames[(k >> 1) + (k % 2) * half] ?? frames[half - 1]!);
      }
      frames.forEach((bytes, k) => {
        steps.push(sendOf(setup.vnet, { bytes, hdr }));
        if (k === 5) for (const f of strangers) steps.push(sendOf(setup.vnet, f));
      });
      steps.push({ do: 'poll' }, { do: 'turn' }, ...others);
      if (i > 0) continueAs(steps, ctrl);
      steps.push({ do: 'drain' });
      if (!repost) return;
      // With captures the device has replaced addresses with ids.
      aim();
      for (const value of [nrx >> 1, nrx - 1, (nrx >> 1) - 1])
        steps.push({ do: 'write', reg: TN_RDT, value }, { do: 'poll' });
    });
    return { setup, steps };
  });

/** Turns the engines on again: a step before may have turned them off. */
function continueAs(steps: Step[], ctrl: number): void {
  steps.push({ do: 'write', reg: TN_CTRL, value: TN_CTRL_TXE | TN_CTRL_RXE | ctrl });
}
