/**
 * Waits until an address of a NIC is usable: until duplicate address detection (IPv6) or the probes of
 * RFC 5227 have ended, and before, with `addr6` `auto`, until a router has advertised a prefix; that
 * for at most 30 seconds of the machine's clock.
 */

import type { Task } from '../sys/clock.ts';
import { TapnicError } from '../sys/errno.ts';
import { Callout, callout_reset, callout_stop, nowNs } from '../kern/kern_timeout.ts';
import { type Ifnet, LINK_STATE_DOWN } from '../net/if_var.ts';
import { type EndWait, untilStopped } from './until_stopped.ts';

const SEC = 1e9;
/** Limit of the wait for an advertisement and for the detection after it. */
const AUTO_S = 30;
/** Time between two looks at the address. */
const LOOK_NS = 20e6;

/** The state of an address: NicIpv4, NicIpv6. */
interface AwaitedAddr {
  /** The address comes from the network. */
  readonly auto: boolean;
  /** Nothing is left to wait for. */
  readonly settled: boolean;
  readonly addr: string | null;
}

export class AddrWait implements Task {
  readonly #of: AwaitedAddr;
  readonly #tap: string;
  readonly #ifp: Ifnet;
  readonly #fixedS: number;
  readonly #callout = new Callout(this);
  #deadline = 0;
  #end: EndWait | null = null;

  /**
   * @param tap Linux's interface, for the message
   * @param fixedS limit for a fixed address, which stays tentative without an error if the link is not usable
   */
  constructor(of: AwaitedAddr, tap: string, ifp: Ifnet, fixedS: number) {
    this.#of = of;
    this.#tap = tap;
    this.#ifp = ifp;
    this.#fixedS = fixedS;
  }

  /** Resolves with true. False: `stopping` was aborted. Rejects with ETIMEDOUT if `auto` found none. */
  wait(stopping: AbortSignal | null): Promise<boolean> {
    this.#deadline = nowNs() + (this.#of.auto ? AUTO_S : this.#fixedS) * SEC;
    return untilStopped(
      stopping,
      (end) => {
        this.#end = end;
        this.run();
      },
      () => {
        this.#end = null;
        callout_stop(this.#callout);
      },
    );
  }

  /** Timer: looks at the address. */
  run(): void {
    if (this.#end === null) return;
    const { settled, auto } = this.#of;
    // Without a link the detection of a fixed address does not begin.
    const idle = !auto && this.#ifp.if_link_state === LINK_STATE_DOWN;
    if (settled || idle) return this.#end(true);
    if (nowNs() < this.#deadline) callout_reset(this.#callout, LOOK_NS);
    else this.#end(auto && this.#of.addr === null ? this.#noRouter() : true);
  }

  #noRouter(): TapnicError {
    return new TapnicError(
      'ETIMEDOUT',
      'slaac',
      `${this.#ifp.if_xname} has no IPv6 address after ${AUTO_S} s: no router on ${this.#tap} advertises ` +
        `a prefix: connect ${this.#tap} to a network with a router, or choose a fixed address (addr6)`,
    );
  }
}
