/**
 * A wire on a descriptor of the addon: the common part of a TAP and a socket pair. Each frame takes
 * one system call, which gathers from or scatters into the arena. libuv polls the descriptor.
 */

import { loadAddon, type NativeAddon } from '../../native-bindings/index.ts';
import { EIO } from '../sys/errno.ts';
import type { Wire, WireListener } from '../sys/wire.ts';
import { assertCurrentArena } from './arena.ts';
import { check, fromLinux, resultFromLinux } from './linux_errno.ts';
import { FdPoll, POLL_READABLE, POLL_WRITABLE, type PollHandler } from './poll.ts';

export class FdWire implements Wire, PollHandler {
  readonly vnetHdr: boolean;
  protected readonly addon: NativeAddon;
  /** The addon's descriptor; the native build of a NIC uses it directly. */
  readonly fd: number;
  protected listener: WireListener | null = null;
  protected closed = false;
  #poll: FdPoll | null = null;
  /** The inbox, which also has frames for this wire. */
  #inbox: { readonly fd: number; readonly poll: FdPoll } | null = null;
  #readable = false;
  #armed = false;
  readonly #ref: boolean;

  /**
   * Takes over the descriptor: `close` closes it.
   * @param arena the one `allocArena` returned last
   * @param ref whether the wire keeps the process alive while it waits for frames
   */
  constructor(arena: ArrayBuffer, fd: number, vnetHdr: boolean, ref = true) {
    assertCurrentArena(arena);
    this.addon = loadAddon();
    this.fd = fd;
    this.vnetHdr = vnetHdr;
    this.#ref = ref;
  }

  writev(iov: Uint32Array, iovcnt: number): number {
    return resultFromLinux(this.addon.frameWritev(this.fd, iov, iovcnt));
  }

  readv(iov: Uint32Array, iovcnt: number): number {
    const n = this.addon.frameReadv(this.fd, iov, iovcnt);
    // A result of 0 means that the other end of a socket pair was closed.
    return n === 0 ? -EIO : resultFromLinux(n);
  }

  /**
   * Joins the exchange `id` (exchange.ts) as `worker`: from now on the wire, a queue of a TAP, receives
   * the frames of this worker from all queues. Must be called before a device is plugged in. Throws
   * TapnicError (ENOENT, EBUSY).
   */
  joinExchange(id: number, worker: number): void {
    const joined = this.addon.exchangeJoin(id, worker, this.fd, this.vnetHdr ? 12 : 0);
    const fd = check(joined, 'exchangeJoin');
    const pollEvent = (): void => {
      if (this.#readable) this.listener?.wireReadable();
    };
    this.#inbox = { fd, poll: new FdPoll(fd, { pollEvent }, this.#ref) };
    this.#watch();
  }

  armWritable(): void {
    this.#armed = true;
    this.#watch();
  }

  setReadable(on: boolean): void {
    this.#readable = on;
    this.#watch();
  }

  setListener(listener: WireListener | null): void {
    this.listener = listener;
  }

  /** Called by poll.ts. */
  pollEvent(status: number, events: number): void {
    if (status < 0) {
      // libuv has stopped polling: the interface of the descriptor was deleted.
      this.#readable = false;
      this.#armed = false;
      this.listener?.wireState(false, fromLinux(-status));
      return;
    }
    if ((events & POLL_WRITABLE) !== 0 && this.#armed) {
      this.#armed = false;
      this.#watch();
      this.listener?.wireWritable();
    }
    if ((events & POLL_READABLE) !== 0 && this.#readable) this.listener?.wireReadable();
  }

  /**
   * Closes the descriptor; no listener call follows. A TAP interface created here is removed with
   * it.
   */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.listener = null;
    this.#poll?.close();
    if (this.#inbox !== null) {
      this.#inbox.poll.close();
      this.addon.fdClose(this.#inbox.fd);
      this.addon.exchangeLeave();
    }
    this.addon.fdClose(this.fd);
  }

  #watch(): void {
    if (this.closed) return;
    this.#inbox?.poll.watch(this.#readable ? POLL_READABLE : 0);
    const events = (this.#readable ? POLL_READABLE : 0) | (this.#armed ? POLL_WRITABLE : 0);
    if (this.#poll === null) {
      if (events === 0) return;
      this.#poll = new FdPoll(this.fd, this, this.#ref);
    }
    this.#poll.watch(events);
  }
}

/**
 * Creates both ends of a wire in this process. It behaves like a TAP and needs no privilege:
 * AF_UNIX SEQPACKET. Throws TapnicError (EMFILE).
 * @param bufBytes bytes that an end queues before `writev` returns -EAGAIN; 0 for the system's
 *   default
 */
export function socketPairWires(
  arena: ArrayBuffer,
  vnetHdr = false,
  bufBytes = 0,
): [FdWire, FdWire] {
  const fds = new Int32Array(2);
  check(loadAddon().socketPair(fds, bufBytes), 'socketpair');
  return [new FdWire(arena, fds[0]!, vnetHdr), new FdWire(arena, fds[1]!, vnetHdr)];
}
