/**
 * Probes by ARP whether another host has an address: RFC 5227, 2.1. Configured addresses (in_acd.ts)
 * and the DHCP client use it; they differ in the times.
 */

import type { Task } from '../sys/clock.ts';
import type { Prng } from '../sys/prng.ts';
import type { InAddr } from '../sys/types.ts';
import { Callout, callout_reset, callout_stop } from '../kern/kern_timeout.ts';

/** When probes are sent; times in ns. */
export interface ProbeTiming {
  /** The longest random delay before the first probe: PROBE_WAIT. */
  readonly waitNs: number;
  /** PROBE_NUM */
  readonly num: number;
  /** The random time between two probes: PROBE_MIN, PROBE_MAX. */
  readonly minNs: number;
  readonly maxNs: number;
  /** The time after the last probe: ANNOUNCE_WAIT. */
  readonly announceWaitNs: number;
}

/** The interface of a probe. */
export interface ProbeLink {
  /** Sends one probe; false: the link cannot send now. */
  send(addr: InAddr): boolean;
  /** The end, in a turn of its own, at most once. The address is free, or another host has it. */
  done(conflict: boolean): void;
}

/** A configured address that is probed, or is a duplicate: in_acd.ts. */
export interface PendingAddr {
  readonly addr: InAddr;
  readonly netmask: InAddr;
  readonly broadcast: InAddr;
  /** Another host has the address. */
  readonly duplicated: boolean;
  /** Starts the probes if the interface is up, else stops them. */
  restart(): void;
  /** Ends the probes; the address is removed. */
  stop(): void;
}

const LINK_RETRY_NS = 1e9;

/** A probe of one address. */
export class ArpProbe implements Task {
  readonly addr: InAddr;
  readonly #link: ProbeLink;
  readonly #prng: Prng;
  readonly #timing: ProbeTiming;
  readonly #callout = new Callout(this);
  #sent = 0;
  #conflict = false;
  #active = false;

  constructor(addr: InAddr, link: ProbeLink, timing: ProbeTiming, prng: Prng) {
    this.addr = addr;
    this.#link = link;
    this.#timing = timing;
    this.#prng = prng;
  }

  /** Starts, or starts again, after `delayNs`. */
  start(delayNs = 0): void {
    this.#sent = 0;
    this.#conflict = false;
    this.#active = true;
    callout_reset(this.#callout, delayNs + this.#random(0, this.#timing.waitNs));
  }

  /** Ends the probe without a result. */
  stop(): void {
    this.#active = false;
    callout_stop(this.#callout);
  }

  /** Timer: sends the next probe, or ends. */
  run(): void {
    const { num, minNs, maxNs, announceWaitNs } = this.#timing;
    if (this.#conflict || this.#sent >= num) {
      this.#active = false;
      this.#link.done(this.#conflict);
      return;
    }
    if (!this.#link.send(this.addr)) {
      // The link was away: other hosts may not have seen the probes before.
      this.#sent = 0;
      callout_reset(this.#callout, LINK_RETRY_NS);
      return;
    }
    this.#sent++;
    const last = this.#sent === num;
    callout_reset(this.#callout, last ? announceWaitNs : this.#random(minNs, maxNs));
  }

  /**
   * An ARP packet of another host: of the address, or a probe for it, is a conflict. RFC 5227, 2.1.1.
   * Returns whether it is one.
   */
  seen(request: boolean, spa: InAddr, tpa: InAddr): boolean {
    if (!this.#active) return false;
    if (spa !== this.addr && !(request && spa === 0 && tpa === this.addr)) return false;
    if (!this.#conflict) callout_reset(this.#callout, 0);
    this.#conflict = true;
    return true;
  }

  #random(min: number, max: number): number {
    if (min >= max) return min;
    return min + Math.floor((this.#prng.next32() / 2 ** 32) * (max - min));
  }
}
