/**
 * Connects a device that accepts only a descriptor to a wire written in TypeScript. The device gets
 * one end of a socket pair; this code moves frames between the other end and the wire. A frame
 * costs two copies and two system calls more than without the detour.
 */

import { EAGAIN } from '../sys/errno.ts';
import { count, R_FAULT_WIRE_ERROR } from '../sys/reason.ts';
import type { Wire, WireListener } from '../sys/wire.ts';
import { type FdWire, socketPairWires } from './fd_wire.ts';

/** Frames moved in one call. */
const BUDGET = 64;

/**
 * One direction. A frame that the destination cannot take waits, and later frames wait behind it.
 */
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

  /** Continues after the destination was full. */
  resume(): void {
    if (!this.#put()) return;
    this.#from.setReadable(true);
    this.run();
  }

  /** Moves available frames, at most `BUDGET`. */
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

  /**
   * Writes the waiting frame, if any. Returns false if the destination is full. On any other error
   * the frame is dropped and counted.
   */
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
   * Connects to `wire`, which the caller still owns and closes.
   * @param device its `wireState` is called when the state of `wire` changes
   * @param off offset of 2 × `bytes` arena bytes; `bytes` must hold the longest frame
   */
  lead(wire: Wire, device: WireListener, { off, bytes }: { off: number; bytes: number }): void {
    const out = new Lane(this.#far, wire, off, bytes);
    const back = new Lane(wire, this.#far, off + bytes, bytes);
    this.#wire = wire;
    this.#far.setListener({
      wireReadable: () => out.run(),
      wireWritable: () => back.resume(),
      wireState: () => undefined, // both ends belong to this object
    });
    wire.setListener({
      wireReadable: () => back.run(),
      wireWritable: () => out.resume(),
      wireState: (up, error) => device.wireState(up, error),
    });
    this.#far.setReadable(true);
    wire.setReadable(true);
  }

  /** Closes both ends of the socket pair; frames in them are lost. */
  close(): void {
    this.#wire?.setListener(null);
    this.#far.close();
    this.end.close();
  }
}
