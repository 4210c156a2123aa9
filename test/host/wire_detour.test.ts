/** The detour for a device that needs a descriptor, between two socket pairs. */

import { setTimeout } from 'node:timers/promises';
import { expect } from 'chai';
import { allocArena } from '../../src/host/arena.ts';
import { type FdWire, socketPairWires } from '../../src/host/fd_wire.ts';
import { WireDetour } from '../../src/host/wire_detour.ts';
import { EAGAIN } from '../../src/sys/errno.ts';
import type { WireListener } from '../../src/sys/wire.ts';

const FRAME = 4096;
const SEND = 0;
const RECV = FRAME;
const ROOM = 2 * FRAME;

describe('host: wire detour', () => {
  let arena: ArrayBuffer;
  let detour: WireDetour;
  let inner: FdWire;
  let outer: FdWire;
  let states: unknown[];

  beforeEach(() => {
    arena = allocArena(16 << 20);
    [inner, outer] = socketPairWires(arena, false, 4096);
    detour = new WireDetour(arena, false);
    states = [];
    const device = { wireState: (...state: unknown[]) => states.push(state) };
    detour.lead(inner, device as unknown as WireListener, { off: ROOM, bytes: FRAME });
  });
  afterEach(() => {
    detour.close();
    inner.close();
    outer.close();
  });

  /** Sends numbered frames while there is room, at most `most`; returns how many. */
  function send(wire: FdWire, from: number, most: number): number {
    let n = 0;
    for (; n < most; n++) {
      const length = 60 + ((from + n) % 1400);
      new DataView(arena).setUint32(SEND, from + n);
      const sent = wire.writev(Uint32Array.of(SEND, length), 1);
      if (sent === -EAGAIN) break;
      expect(sent).to.equal(length);
    }
    return n;
  }

  /**
   * Reads all frames that wait, checks that they are numbered from `from`, and returns how many.
   */
  function take(wire: FdWire, from: number): number {
    for (let n = 0; ; n++) {
      const length = wire.readv(Uint32Array.of(RECV, FRAME), 1);
      if (length === -EAGAIN) return n;
      expect(length).to.equal(60 + ((from + n) % 1400));
      expect(new DataView(arena).getUint32(RECV)).to.equal(from + n);
    }
  }

  it('loses no frame and keeps the order in both directions, however full either end is', async () => {
    for (const [from, to] of [
      [detour.end, outer],
      [outer, detour.end],
    ] as const) {
      let sent = 0;
      let got = 0;
      // Without a reader all queues fill up.
      for (let idle = 0; idle < 5;) {
        const n = send(from, sent, 5000);
        sent += n;
        idle = n === 0 ? idle + 1 : 0;
        await setTimeout(1);
      }
      for (let i = 0; i < 2000 && (sent < 3000 || got < sent); i++) {
        got += take(to, got);
        if (sent < 3000) sent += send(from, sent, 100);
        await setTimeout(0);
      }
      expect(got).to.equal(sent);
      expect(sent).to.be.at.least(3000);
    }
  });

  it('drops frames that the wire refuses, and continues', async () => {
    outer.close();
    expect(send(detour.end, 0, 3)).to.equal(3);
    await setTimeout(10);
    expect(detour.end.readv(Uint32Array.of(RECV, FRAME), 1)).to.equal(-EAGAIN);
    expect(send(detour.end, 3, 1)).to.equal(1);
  });
});
