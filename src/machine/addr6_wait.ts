/**
 * Waits until the IPv6 address of a NIC is usable: until duplicate address detection has ended, and
 * before, with `addr6` `auto`, until a router has advertised a prefix; that for at most 30 seconds of
 * the machine's clock.
 */

import type { Task } from '../sys/clock.ts';
import { TapnicError } from '../sys/errno.ts';
import { Callout, callout_reset, callout_stop, nowNs } from '../kern/kern_timeout.ts';
import { type Ifnet, LINK_STATE_DOWN } from '../net/if_var.ts';
import type { NicIpv6 } from './nic_ipv6.ts';
import { type EndWait, untilStopped } from './until_stopped.ts';

const SEC = 1e9;
/** Limit of the wait for an advertisement and for the detection after it. */
const AUTO_S = 30;
/** Limit for a fixed address. It stays tentative if the link is not usable; that is no error. */
const FIXED_S = 5;
/** Time between two looks at the address. */
const LOOK_NS = 20e6;

export class Addr6Wait implements Task {
  readonly #ipv6: NicIpv6;
  readonly #tap: string;
  readonly #ifp: Ifnet;
  readonly #callout = new Callout(this);
  #deadline = 0;
  #end: EndWait | null = null;

  /** @param tap Linux's interface, for the message */
  constructor(ipv6: NicIpv6, tap: string, ifp: Ifnet) {
    this.#ipv6 = ipv6;
    this.#tap = tap;
    this.#ifp = ifp;
  }

  /** Resolves with true. False: `stopping` was aborted. Rejects with ETIMEDOUT if `auto` found none. */
  wait(stopping: AbortSignal | null): Promise<boolean> {
    this.#deadline = nowNs() + (this.#ipv6.auto ? AUTO_S : FIXED_S) * SEC;
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
    const { settled, auto } = this.#ipv6;
    // Without a link the detection of a fixed address does not begin.
    const idle = !auto && this.#ifp.if_link_state === LINK_STATE_DOWN;
    if (settled || idle) return this.#end(true);
    if (nowNs() < this.#deadline) callout_reset(this.#callout, LOOK_NS);
    else this.#end(auto && this.#ipv6.addr === null ? this.#noRouter() : true);
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
