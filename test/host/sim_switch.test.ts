import { expect } from 'chai';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { SimSwitch } from '../../src/host/sim_switch.ts';
import type { SimEnd } from '../../src/host/sim_wire.ts';

const BROADCAST = 0xff;

/** A frame from station `from` to station `to`, numbered by the last byte of their addresses. */
function frame(to: number, from: number): Uint8Array {
  const bytes = new Uint8Array(60);
  if (to === BROADCAST) bytes.fill(0xff, 0, 6);
  else bytes.set([2, 0, 0, 0, 0, to]);
  bytes.set([2, 0, 0, 0, 0, from], 6);
  return bytes;
}

function setUp(): { clock: ManualClock; wire: SimSwitch; ends: SimEnd[]; got: () => number[] } {
  const clock = new ManualClock();
  const wire = new SimSwitch({ arena: new ArrayBuffer(4096), clock, prng: new SeededPrng(1) });
  const ends = [0, 1, 2].map(() => wire.connect());
  const counts = [0, 0, 0];
  for (const [i, end] of ends.entries()) end.onFrame = () => counts[i]!++;
  const got = (): number[] => {
    clock.runUntilIdle(1e9);
    return counts.splice(0, 3, 0, 0, 0);
  };
  return { clock, wire, ends, got };
}

describe('host: a simulated switch', () => {
  it('floods group and unknown addresses, and forwards to the others only', () => {
    const { ends, got } = setUp();
    ends[0]!.inject(frame(BROADCAST, 0));
    expect(got()).to.deep.equal([0, 1, 1]);
    ends[1]!.inject(frame(2, 1));
    expect(got()).to.deep.equal([1, 0, 1]);
    ends[2]!.inject(frame(1, 2));
    expect(got()).to.deep.equal([0, 1, 0]);
    // To itself.
    ends[2]!.inject(frame(2, 2));
    expect(got()).to.deep.equal([0, 0, 0]);
    // Station 1 moved to another cable.
    ends[0]!.inject(frame(BROADCAST, 1));
    expect(got()).to.deep.equal([0, 1, 1]);
    ends[2]!.inject(frame(1, 2));
    expect(got()).to.deep.equal([1, 0, 0]);
  });

  it('impairs a frame once, and reports each', () => {
    const { clock, wire, ends, got } = setUp();
    const sent: string[] = [];
    wire.onSent = (station, bytes, lost) => sent.push(`${station} ${bytes.length} ${lost}`);
    wire.setImpair({ delayNs: 1000 });
    ends[0]!.inject(frame(BROADCAST, 0));
    clock.advance(999);
    expect(clock.scheduled).to.equal(1);
    expect(got()).to.deep.equal([0, 1, 1]);
    expect(clock.nowNs()).to.equal(1000);
    wire.setImpair({ loss: 1 });
    ends[1]!.inject(frame(BROADCAST, 1));
    expect(got()).to.deep.equal([0, 0, 0]);
    expect(sent).to.deep.equal(['0 60 false', '1 60 true']);
  });

  it('loses what arrives at a cable that is not connected', () => {
    const { wire, ends, got } = setUp();
    ends[1]!.inject(frame(BROADCAST, 1));
    got();
    wire.setUp(false, 1);
    ends[0]!.inject(frame(1, 0));
    ends[2]!.inject(frame(BROADCAST, 2));
    expect(got()).to.deep.equal([1, 0, 0]);
    wire.setUp(true);
    ends[0]!.inject(frame(1, 0));
    wire.setUp(false);
    expect(got()).to.deep.equal([0, 0, 0]);
  });
});
