/**
 * Probes by ARP whether another host has an address, before the DHCP client takes it: RFC 2131,
 * section 4.4.1. Shorter than RFC 5227's probing, which takes up to nine seconds.
 */

import type { Task } from '../../sys/clock.ts';
import type { InAddr } from '../../sys/types.ts';
import { Callout, callout_reset, callout_stop } from '../../kern/kern_timeout.ts';
import type { ArpSeen, DhcpPort } from './dhcp_port.ts';

/** Number of probes, and the time after each, ns. */
const PROBES = 3;
const INTERVAL_NS = 200e6;

/** A probe of one address. The DHCP client uses only this interface. */
export interface AddrProbe {
  /** Passes a received ARP packet to the probe. */
  seen(arp: ArpSeen): void;
  /** Ends the probe without a result. */
  cancel(): void;
}

/** Sends the probes and calls `done` once. */
export class ArpProbe implements AddrProbe, Task {
  readonly #port: DhcpPort;
  readonly #addr: InAddr;
  readonly #ours: Uint8Array;
  readonly #callout = new Callout(this);
  #done: ((conflict: boolean) => void) | null;
  #sent = 0;

  /** @param ours our Ethernet address */
  constructor(port: DhcpPort, addr: InAddr, ours: Uint8Array, done: (conflict: boolean) => void) {
    this.#port = port;
    this.#addr = addr;
    this.#ours = ours;
    this.#done = done;
    this.run();
  }

  /** Timer: sends the next probe, or ends without a conflict. */
  run(): void {
    if (this.#sent >= PROBES) {
      this.#end(false);
      return;
    }
    this.#sent++;
    this.#port.arpProbe(this.#addr);
    callout_reset(this.#callout, INTERVAL_NS);
  }

  /** A conflict is a packet from the address, or another host's probe for it: RFC 5227, 2.1.1. */
  seen({ spa, tpa, sha, request }: ArpSeen): void {
    if (sha.every((byte, i) => byte === this.#ours[i])) return;
    const probes = request && spa === 0 && tpa === this.#addr;
    if (spa === this.#addr || probes) this.#end(true);
  }

  cancel(): void {
    this.#done = null;
    callout_stop(this.#callout);
  }

  #end(conflict: boolean): void {
    const done = this.#done;
    this.cancel();
    done?.(conflict);
  }
}
