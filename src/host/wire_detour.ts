/**
 * A detour for a device that wants a descriptor and nothing else: a socket pair whose far end is read
 * and written here, so that what the device sends and gets goes through a wire of TypeScript's. Two
 * copies and two system calls a frame more than without.
 */

import { EAGAIN } from '../sys/errno.ts';
import { count, R_FAULT_WIRE_ERROR } from '../sys/reason.ts';
import type { Wire, WireListener } from '../sys/wire.ts';
import { type FdWire, socketPairWires } from './fd_wire.ts';

/** Frames at once, before others have their turn. */
const BUDGET = 64;

/** One direction: a frame that its destination had no room for waits, and nothing overtakes it. */
class Lane {
  readonly #from: Wire;
  readonly #to: Wire;
  /** Arena bytes for a frame. */
  readonly #room: Uint32Array;
  readonly #frame: Uint32Array;

  constructor(from: Wire, to: Wire, off: number, bytes: number) {
    this.#from = from;
    this.#to = to;
    this.#room = Uint32Array.of(off, bytes);
    this.#frame = Uint32Array.of(off, 0);
  }

  /** Goes on where the destination was full. */
  resume(): void {
    if (!this.#put()) return;
    this.#from.setReadable(true);
    this.run();
  }

  /** Moves what is there. */
  run(): void {
    if (this.#frame[1] !== 0) return;
    for (let n = 0; n < BUDGET; n++) {
      const length = this.#from.readv(this.#room, 1);
      if (length <= 0) return;
      this.#frame[1] = length;
      if (!this.#put()) {
        this.#from.setReadable(false);
        return;
      }
    }
  }

  /** Writes the frame that waits, if any; false: there is no room. What is refused is lost. */
  #put(): boolean {
    if (this.#frame[1] === 0) return true;
    const sent = this.#to.writev(this.#frame, 1);
    if (sent === -EAGAIN) {
      this.#to.armWritable();
      return false;
    }
    if (sent < 0) count(R_FAULT_WIRE_ERROR);
    this.#frame[1] = 0;
    return true;
  }
}

export class WireDetour {
  /** The device's end. */
  readonly end: FdWire;
  readonly #far: FdWire;
  #wire: Wire | null = null;

  /** Throws TapnicError (EMFILE). */
  constructor(arena: ArrayBuffer, vnetHdr: boolean) {
    [this.end, this.#far] = socketPairWires(arena, vnetHdr);
  }

  /**
   * Leads to `wire`, which stays the caller's.
   * @param device told of the state of `wire`
   * @param off two times `bytes` of the arena, each for the longest frame
   */
  lead(wire: Wire, device: WireListener, { off, bytes }: { off: number; bytes: number }): void {
    const out = new Lane(this.#far, wire, off, bytes);
    const back = new Lane(wire, this.#far, off + bytes, bytes);
    this.#wire = wire;
    this.#far.setListener({
      wireReadable: () => out.run(),
      wireWritable: () => back.resume(),
      wireState: () => undefined, // both ends are ours
    });
    wire.setListener({
      wireReadable: () => back.run(),
      wireWritable: () => out.resume(),
      wireState: (up, error) => device.wireState(up, error),
    });
    this.#far.setReadable(true);
    wire.setReadable(true);
  }

  /** Lets go of both ends; what is in them is lost. */
  close(): void {
    this.#wire?.setListener(null);
    this.#far.close();
    this.end.close();
  }
}
