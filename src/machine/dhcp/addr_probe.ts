/**
 * Probes by ARP whether another host has an address, before the DHCP client takes it: RFC 2131,
 * section 4.4.1. Shorter than RFC 5227's probing, which takes up to seven seconds.
 */

import type { InAddr } from '../../sys/types.ts';
import type { Ifnet } from '../../net/if_var.ts';
import { ArpProbe, type ProbeLink, type ProbeTiming } from '../../netinet/arp_probe.ts';
import { arpProbe, arpTable } from '../../netinet/if_ether.ts';

/** Three probes, each followed by 0.2 s. */
const TIMING: ProbeTiming = {
  waitNs: 0,
  num: 3,
  minNs: 200e6,
  maxNs: 200e6,
  announceWaitNs: 200e6,
};

/** Sends the probes and calls `done` once. */
export class DhcpProbe implements ProbeLink {
  readonly #ifp: Ifnet;
  readonly #probe: ArpProbe;
  readonly #done: (conflict: boolean) => void;

  constructor(ifp: Ifnet, addr: InAddr, done: (conflict: boolean) => void) {
    this.#ifp = ifp;
    this.#done = done;
    this.#probe = new ArpProbe(addr, this, TIMING, ifp.if_vnet.prng);
    arpTable(ifp)?.probes.add(this.#probe);
    this.#probe.start();
  }

  send(addr: InAddr): boolean {
    arpProbe(this.#ifp, addr);
    return true;
  }

  done(conflict: boolean): void {
    this.cancel();
    this.#done(conflict);
  }

  /** Ends the probe without a result. */
  cancel(): void {
    this.#probe.stop();
    arpTable(this.#ifp)?.probes.delete(this.#probe);
  }
}
