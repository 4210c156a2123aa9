/**
 * Several stacks on one TAP, one per thread: each has a queue of the interface, and hands the frames
 * of others over through their inboxes (native-bindings/src/exchange.cpp). src/net/flow_owner.ts
 * says which stack a frame belongs to.
 */

import { loadAddon } from '../../native-bindings/index.ts';
import { count, R_DEV_HANDOVER_FULL } from '../sys/reason.ts';
import { FdWire } from './fd_wire.ts';
import { check } from './linux_errno.ts';

/**
 * Opens an exchange for the process and returns its id; the parameters are those of FlowRule. Throws
 * TapnicError (EMFILE).
 */
export function openExchange(workers: number, port: number, seed: number): number {
  return check(loadAddon().exchangeOpen(workers, port, seed), 'exchangeOpen');
}

/** The frames that a stack exchanged with others. */
interface ExchangeStats {
  /** Frames of other stacks that this one handed over. */
  handedOver: number;
  /** Frames of other stacks that were lost, because their inbox was full. */
  handoverFull: number;
  /** Frames that other stacks handed over to this one. */
  received: number;
}

const $stats = new Float64Array(3);
let fullCounted = 0;

/** The counts of this thread's stack; null if it is on no exchange. Counts the reason of the losses. */
export function exchangeStats(): ExchangeStats | null {
  if (loadAddon().exchangeStats($stats) < 0) return null;
  const [handedOver = 0, handoverFull = 0, received = 0] = $stats;
  count(R_DEV_HANDOVER_FULL, handoverFull - fullCounted);
  fullCounted = handoverFull;
  return { handedOver, handoverFull, received };
}

/** What a thread needs to use a queue that TapWire.openQueue opened. */
export interface QueueHandle {
  readonly fd: number;
  /** Linux's name of the interface. */
  readonly name: string;
  readonly vnetHdr: boolean;
  readonly napi: 'off' | 'thread';
  readonly ipv6: boolean;
}

/** A further queue of a TAP as the wire of another stack. The first queue configures the interface. */
export class QueueWire extends FdWire {
  readonly name: string;
  readonly created = false;
  readonly napi: 'off' | 'thread';
  readonly warnings: readonly string[] = [];
  readonly ipv6: boolean;
  onGone: ((why: string) => void) | null = null;

  /** Takes over the descriptor. Throws TapnicError (EBADF, EINVAL). */
  constructor(arena: ArrayBuffer, { fd, name, vnetHdr, napi, ipv6 }: QueueHandle) {
    super(arena, check(loadAddon().tapAdopt(fd), 'tapAdopt'), vnetHdr);
    this.name = name;
    this.napi = napi;
    this.ipv6 = ipv6;
  }

  /** The interface was set up or down. */
  linkChanged(up: boolean): void {
    if (!this.closed) this.listener?.wireState(up, 0);
  }
}
