/**
 * A wire whose other end is the test: it keeps the frames sent and delivers the frames injected.
 */

import { EAGAIN } from '../../src/sys/errno.ts';
import type { Wire, WireListener } from '../../src/sys/wire.ts';
import { mem } from '../../src/vm/arena.ts';

const VNET_HDR = 12;

export class FakeWire implements Wire {
  readonly vnetHdr: boolean;
  /** Frames as written, with their virtio-net header if there is one. */
  readonly sent: Uint8Array[] = [];
  /** Number of iovec entries of each frame sent. */
  readonly pieces: number[] = [];
  /** Frames that writev accepts before it returns -EAGAIN. */
  room = Infinity;
  /** If not 0, writev returns this negated FreeBSD errno and does not take the frame. */
  error = 0;
  readError = 0;
  readable = false;
  armed = 0;
  reads = 0;
  listener: WireListener | null = null;
  /** Whether to keep the frames sent; a long run turns it off to save memory. */
  keep = true;
  nsent = 0;
  readonly #queue: Uint8Array[] = [];

  constructor(vnetHdr = false) {
    this.vnetHdr = vnetHdr;
  }

  writev(iov: Uint32Array, iovcnt: number): number {
    if (this.error !== 0) return this.error;
    if (this.room <= 0) return -EAGAIN;
    this.room--;
    this.nsent++;
    let len = 0;
    for (let i = 0; i < iovcnt; i++) len += iov[2 * i + 1]!;
    if (!this.keep) return len;
    const frame = new Uint8Array(len);
    let at = 0;
    for (let i = 0; i < iovcnt; i++) {
      const off = iov[2 * i]!;
      const n = iov[2 * i + 1]!;
      if (off + n > mem.length) throw new Error('fake wire: outside the arena');
      frame.set(mem.subarray(off, off + n), at);
      at += n;
    }
    this.sent.push(frame);
    this.pieces.push(iovcnt);
    return len;
  }

  readv(iov: Uint32Array, iovcnt: number): number {
    this.reads++;
    if (this.readError !== 0) return this.readError;
    const frame = this.#queue.shift();
    if (frame === undefined) return -EAGAIN;
    let at = 0;
    for (let i = 0; i < iovcnt && at < frame.length; i++) {
      const off = iov[2 * i]!;
      const n = Math.min(iov[2 * i + 1]!, frame.length - at);
      mem.set(frame.subarray(at, at + n), off);
      at += n;
    }
    return at;
  }

  armWritable(): void {
    this.armed++;
  }

  setReadable(on: boolean): void {
    this.readable = on;
  }

  setListener(listener: WireListener | null): void {
    this.listener = listener;
  }

  close(): void {}

  /** Frames injected but not read yet. */
  get waiting(): number {
    return this.#queue.length;
  }

  /**
   * Injects frames, after an empty virtio-net header if the wire has them, and notifies the
   * listener.
   */
  inject(...frames: Uint8Array[]): void {
    for (const frame of frames) {
      if (!this.vnetHdr) this.#queue.push(frame);
      else this.#queue.push(new Uint8Array([...new Uint8Array(VNET_HDR), ...frame]));
    }
    this.notify();
  }

  /** Injects one frame as it is, virtio-net header included, and notifies the listener. */
  injectRaw(frame: Uint8Array): void {
    this.#queue.push(frame);
    this.notify();
  }

  notify(): void {
    if (this.readable) this.listener?.wireReadable();
  }

  /** Makes room for `n` frames, and calls wireWritable if the device armed it. */
  drain(n: number): void {
    this.room = n;
    if (this.armed === 0) return;
    this.armed = 0;
    this.listener?.wireWritable();
  }
}
