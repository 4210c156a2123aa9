/**
 * A link of two descriptors (AF_UNIX SEQPACKET: one frame per write, EAGAIN when full). The near
 * end is for a NIC of the native build, the far end for the test. Virtual time has no event loop:
 * `pump` does the work of a poll.
 */

import { loadAddon } from '../../native-bindings/index.ts';
import { FdWire } from '../../src/host/fd_wire.ts';
import { check } from '../../src/host/linux_errno.ts';
import { NIC_SLOTS, NIC_SRAM_BYTES } from '../../src/machine/nic_model.ts';
import type { WireListener } from '../../src/sys/wire.ts';
import { deviceSramOff, mem } from '../../src/vm/arena.ts';

/** Limit of the rounds of `pump`, against endless loops. */
const PUMP_MAX = 100_000;
/** The far end copies its frames through the on-board memory of slots that no test uses. */
const SCRATCH_SLOTS = 4;

/** A wire without an event loop; `PairLink.pump` polls it. */
class PumpedWire extends FdWire {
  wantsReadable = false;
  armed = false;

  override setReadable(on: boolean): void {
    this.wantsReadable = on;
  }

  override armWritable(): void {
    this.armed = true;
  }

  get heardBy(): WireListener | null {
    return this.closed ? null : this.listener;
  }
}

/** The far end, with the interface that a ReaderPort needs. */
class FarEnd {
  readonly vnetHdr: boolean;
  onFrame: ((frame: Uint8Array) => void) | null = null;
  readonly #wire: FdWire;
  readonly #iov = new Uint32Array(2);
  readonly #off = deviceSramOff() + (NIC_SLOTS - SCRATCH_SLOTS) * NIC_SRAM_BYTES;
  /** Frames that the socket had no room for. */
  readonly #waiting: Uint8Array[] = [];

  constructor(wire: FdWire) {
    this.#wire = wire;
    this.vnetHdr = wire.vnetHdr;
  }

  /** Sends a frame, with a virtio-net header if `vnetHdr`, as soon as the socket has room. */
  inject(frame: Uint8Array): void {
    this.#waiting.push(frame.slice());
    this.flush();
  }

  /** Sends waiting frames. Returns whether any was sent. */
  flush(): boolean {
    let sent = false;
    for (;;) {
      const [frame] = this.#waiting;
      if (frame === undefined) return sent;
      mem.set(frame, this.#off);
      this.#iov[0] = this.#off;
      this.#iov[1] = frame.length;
      if (this.#wire.writev(this.#iov, 1) < 0) return sent;
      this.#waiting.shift();
      sent = true;
    }
  }

  /** Reads the frames that have arrived. Returns whether there was any. */
  drain(): boolean {
    for (let n = 0; ; n++) {
      this.#iov[0] = this.#off;
      this.#iov[1] = SCRATCH_SLOTS * NIC_SRAM_BYTES;
      const length = this.#wire.readv(this.#iov, 1);
      if (length <= 0) return n > 0;
      this.onFrame?.(mem.slice(this.#off, this.#off + length));
    }
  }
}

export class PairLink {
  readonly a: PumpedWire;
  readonly b: FarEnd;
  readonly #far: FdWire;

  /** @param arena the arena that `allocArena` returned last and that the machine was booted with */
  constructor(arena: ArrayBuffer, vnetHdr: boolean) {
    const fds = new Int32Array(2);
    check(loadAddon().socketPair(fds, 0), 'socketpair');
    this.a = new PumpedWire(arena, fds[0]!, vnetHdr);
    this.#far = new FdWire(arena, fds[1]!, vnetHdr);
    this.b = new FarEnd(this.#far);
  }

  /** Moves frames both ways until none is left. Returns whether any moved. */
  pump(): boolean {
    for (let n = 0; n < PUMP_MAX; n++) {
      let moved = this.b.drain();
      if (moved && this.a.armed) {
        this.a.armed = false;
        this.a.heardBy?.wireWritable();
      }
      if (this.b.flush()) moved = true;
      if (this.a.wantsReadable) this.a.heardBy?.wireReadable();
      if (!moved) return n > 0;
    }
    throw new Error('PairLink: frames still move after the last round');
  }

  close(): void {
    this.a.close();
    this.#far.close();
  }
}
