/**
 * Datagrams that a UDP socket could not send because no mbuf was free or the interface's queue was full
 * (ENOBUFS). As with node:dgram they are sent later, in order. Their number has no limit, as there: the
 * program can read it, and wait for the callbacks.
 */

import type { Task } from '../sys/clock.ts';
import { ECANCELED, ENOBUFS, type Errno } from '../sys/errno.ts';
import { Callout, callout_reset, callout_stop } from '../kern/kern_timeout.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import { later } from './turns.ts';

/** Datagrams that one turn of the event loop sends. */
const TURN_DATAGRAMS = 32;
/** How long the queue waits if there is still no room: one tick of FreeBSD's default kern.hz. */
const WAIT_NS = 1e6;

/** Called when a queued datagram was sent (0) or discarded, with its number of bytes. */
export type SendDone = (error: Errno, bytes: number) => void;

/** A datagram to `nam`; null: to the connected peer. */
interface Datagram {
  readonly data: Uint8Array;
  readonly nam: Sockaddr | null;
  readonly done: SendDone | null;
}

export class SendQueue implements Task {
  readonly #transmit: (datagram: Datagram) => Errno;
  readonly #queued = new Set<Datagram>();
  readonly #retry = new Callout(this);
  #bytes = 0;

  /** @param transmit sends a datagram; the queue never gets one that was not queued */
  constructor(transmit: (datagram: Datagram) => Errno) {
    this.#transmit = transmit;
  }

  /** Number of datagrams. */
  get count(): number {
    return this.#queued.size;
  }

  /** Bytes of data. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Queues a copy of the datagram. */
  push(datagram: Datagram): void {
    const first = this.#queued.size === 0;
    this.#queued.add({ ...datagram, data: Uint8Array.from(datagram.data) });
    this.#bytes += datagram.data.length;
    if (first) callout_reset(this.#retry, WAIT_NS);
  }

  #remove(datagram: Datagram, error: Errno): void {
    const { done, data } = datagram;
    this.#queued.delete(datagram);
    this.#bytes -= data.length;
    if (done !== null) later(() => done(error, data.length));
  }

  /** Sends what there is room for. The next datagrams have a turn of their own. */
  run(): void {
    let left = TURN_DATAGRAMS;
    for (const datagram of this.#queued) {
      if (left-- === 0) {
        later(() => this.run());
        return;
      }
      const error = this.#transmit(datagram);
      if (error === ENOBUFS) {
        callout_reset(this.#retry, WAIT_NS);
        return;
      }
      this.#remove(datagram, error);
    }
  }

  /** Removes all datagrams, when the socket is closed. Their callbacks get ECANCELED. */
  cancel(): void {
    callout_stop(this.#retry);
    for (const datagram of this.#queued) this.#remove(datagram, ECANCELED);
  }
}
