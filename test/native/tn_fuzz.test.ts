/**
 * Random calls of the native NIC's functions: any device, register, event, time, descriptor, and
 * parameters in and out of range, with captures by the monotonic clock. Every call returns a whole
 * number, and no byte outside RAM, on-board memory and capture ring changes. The seed is printed;
 * `FC_SEED` replays it.
 */

import { expect } from 'chai';
import { loadAddon } from '../../native-bindings/index.ts';
import { allocArena } from '../../src/host/arena.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { TN_CTRL, TN_CTRL_RST, TN_NSTATS } from '../../src/dev/tn/tnreg.ts';
import { full } from '../support/needs.ts';

const CALLS = full ? 1_000_000 : 30_000;
const SEED = Number(process.env['FC_SEED'] ?? 20_261_130);
const SIZE = 16 << 20;
const RAM = SIZE / 4;
const CAPTURE_OFF = SIZE / 2;
const CAPTURE = 65_536;
const MAC = Uint8Array.of(2, 0, 0, 0, 0, 1);

describe('native: random calls of the NIC tn', () => {
  it(`${CALLS} calls, seed ${SEED}`, () => {
    const addon = loadAddon();
    const arena = Buffer.from(allocArena(SIZE));
    for (let i = 0; i < RAM; i++) arena[i] = (i * 167 + (i >>> 12)) & 0xff;
    const prng = new SeededPrng(SEED);
    const below = (n: number): number => prng.next32() % n;
    const pick = <T>(from: readonly T[]): T => from[below(from.length)]!;
    const word = (): number =>
      pick([prng.next32(), below(256), below(RAM), 0, 0xffffffff, 0x80000000]);
    const fds = new Int32Array(4);
    for (const at of [0, 2]) expect(addon.socketPair(fds.subarray(at, at + 2), 0)).to.equal(0);
    const id = (): number => pick([0, 0, 0, 1, 2, 63, 64, 0xffffffff]);
    const stats = new Float64Array(Math.max(TN_NSTATS, 64));
    const capture = new Uint32Array(arena.buffer, CAPTURE_OFF, CAPTURE / 4);

    const open = (): number => {
      const p = Float64Array.of(below(2), below(2), 0, RAM, CAPTURE_OFF, CAPTURE, 7, 0, below(2));
      if (below(4) === 0) p[below(p.length)] = pick([-1, 0.5, Number.NaN, 2 ** 53, SIZE, word()]);
      // A bad capture ring or more RAM would be the caller's permission to write elsewhere.
      if (p[3]! > RAM || p[4] !== CAPTURE_OFF || p[5]! > CAPTURE) return addon.tnOpen(-1, MAC, p);
      return addon.tnOpen(pick([fds[0]!, fds[2]!, 0, -1]), MAC, p);
    };
    const calls: (() => number)[] = [
      open,
      () => (below(50) === 0 ? addon.tnClose(id()) : 0),
      () => addon.tnRewire(id(), pick([fds[0]!, fds[2]!, 0, 99_999])),
      () => addon.tnRead(id(), pick([4 * below(0x100), word()])),
      () => addon.tnRead(id(), 4 * below(0x100)),
      () => addon.tnWrite(id(), 4 * below(0x100), word()),
      () => addon.tnWrite(id(), 4 * below(0x40), word()),
      () => addon.tnWrite(id(), TN_CTRL, pick([TN_CTRL_RST, 0, 6, 0x7e, word()])),
      () => addon.tnEvent(id(), below(8)),
      () => addon.tnTime(id(), pick([below(2 ** 31) * 1000, 2 ** 53 - 1, 0])),
      () => addon.tnTimer(id()),
      () => addon.tnStats(id(), stats),
      () => addon.tnReasons(id(), stats),
      () => addon.fdWrite(pick([fds[1]!, fds[3]!]), arena.subarray(0, 1 + below(3000))),
      () => {
        // The host reads the records, or a hostile one writes over the ring's head.
        if (below(4) === 0) capture[below(24)] = word();
        else capture[1] = capture[0]!;
        return 0;
      },
    ];
    for (let i = 0; i < CALLS; i++) {
      const at = below(calls.length);
      const n = calls[at]!();
      if (!Number.isInteger(n)) expect.fail(`call ${i}, function ${at}: ${n}`);
    }
    for (const from of [RAM, CAPTURE_OFF + CAPTURE]) {
      const to = from === RAM ? CAPTURE_OFF : SIZE;
      const changed = arena.subarray(from, to).findIndex((byte) => byte !== 0);
      expect(changed, `a byte after 0x${from.toString(16)}`).to.equal(-1);
    }
    for (let n = 0; n < 64; n++) addon.tnClose(n);
    for (const fd of fds) expect(addon.fdClose(fd)).to.equal(0);
  }).timeout(full ? 600_000 : 60_000);
});
