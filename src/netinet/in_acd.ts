/**
 * Address conflict detection of configured addresses, RFC 5227: an address is probed before it is
 * used. Ours: FreeBSD announces an address without probes, and so does this stack unless
 * net.link.ether.inet.acd is set. Until the probes have passed the address is kept here and not in the
 * list of the interface, so no packet can use it; a duplicate stays here.
 */

import { EADDRNOTAVAIL, EEXIST, EINVAL, type Errno, errnoName } from '../sys/errno.ts';
import type { InAddr } from '../sys/types.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { answersForAddresses, type Vnet } from '../kern/vnet.ts';
import { ether_ntoa } from '../net/ethernet.ts';
import { ifBringUp, ifConsole, ifnetList } from '../net/if.ts';
import {
  IFF_BROADCAST,
  IFF_DRV_RUNNING,
  IFF_NOARP,
  IFF_UP,
  type Ifnet,
  LINK_STATE_DOWN,
} from '../net/if_var.ts';
import { ArpProbe, type PendingAddr, type ProbeLink, type ProbeTiming } from './arp_probe.ts';
import { IN_EXPERIMENTAL, IN_MULTICAST, inet_ntoa, in_nullhost, prefixMask } from './in.ts';
import { arpAnnounceAgain, arpProbe, type ArpTable, arpTable, V_arp } from './if_ether.ts';
import { in_aifaddr } from './in_ifaddr.ts';
import { in_localip } from './ip_var.ts';

const SEC = 1e9;
/** The values of RFC 5227, 1.1. */
const RFC5227: ProbeTiming = {
  waitNs: 1 * SEC,
  num: 3,
  minNs: 1 * SEC,
  maxNs: 2 * SEC,
  announceWaitNs: 2 * SEC,
};
const MAX_CONFLICTS = 10;
const RATE_LIMIT_INTERVAL_NS = 60 * SEC;

/** A configured address that is probed, or is a duplicate. */
class InPending implements ProbeLink, PendingAddr {
  readonly ifp: Ifnet;
  readonly addr: InAddr;
  readonly prefixlen: number;
  /** Another host has the address. */
  duplicated = false;
  readonly probe: ArpProbe;
  readonly #arp: ArpTable;
  /** Called when the address is one of the interface. */
  readonly #ready: (() => void) | null;

  constructor(arp: ArpTable, addr: InAddr, prefixlen: number, ready: (() => void) | null) {
    this.#arp = arp;
    this.ifp = arp.table.llt_ifp;
    this.addr = addr;
    this.prefixlen = prefixlen;
    this.#ready = ready;
    this.probe = new ArpProbe(addr, this, RFC5227, this.ifp.if_vnet.prng);
    arp.probes.add(this.probe);
    this.restart();
  }

  get netmask(): InAddr {
    return prefixMask(this.prefixlen);
  }

  get broadcast(): InAddr {
    const has = (this.ifp.if_flags & IFF_BROADCAST) !== 0 && this.prefixlen < 31;
    return (has ? this.addr | ~this.netmask : 0) as InAddr;
  }

  /** Starts the probes if the interface is up, else stops them. A duplicate is probed again. */
  restart(): void {
    this.probe.stop();
    this.duplicated = false;
    if ((this.ifp.if_flags & IFF_UP) === 0) return;
    const arp = this.#arp;
    const now = nowNs();
    const from =
      arp.conflicts < MAX_CONFLICTS ? now : Math.max(now, arp.attemptNs + RATE_LIMIT_INTERVAL_NS);
    arp.attemptNs = from;
    this.probe.start(from - now);
  }

  /** Ends the probes; the address is removed. */
  stop(): void {
    this.probe.stop();
    this.#arp.probes.delete(this.probe);
    this.#arp.pending.delete(this.addr);
  }

  send(addr: InAddr): boolean {
    const { ifp } = this;
    if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0 || ifp.if_link_state === LINK_STATE_DOWN)
      return false;
    arpProbe(ifp, addr);
    return true;
  }

  done(conflict: boolean): void {
    const { ifp, addr } = this;
    if (conflict) {
      this.duplicated = true;
      this.#arp.conflicts++;
      const who = ether_ntoa(this.#arp.conflictWith);
      ifConsole.log?.(
        `arp: ${inet_ntoa(addr)} on ${ifp.if_xname} is a duplicate: ${who} has it; the address is not used`,
      );
      return;
    }
    this.stop();
    const error = in_aifaddr(ifp, addr, this.prefixlen);
    if (error === 0) {
      arpAnnounceAgain(ifp, addr);
      this.#ready?.();
    } else
      ifConsole.log?.(
        `arp: ${inet_ntoa(addr)} cannot be added to ${ifp.if_xname}: ${errnoName(error)}`,
      );
  }
}

/** The addresses of `ifp` that are not usable: probed now, or duplicates. */
export function inPendings(ifp: Ifnet): PendingAddr[] {
  return [...(arpTable(ifp)?.pending.values() ?? [])];
}

/** Whether `addr` is such an address of any interface. */
function isPending(vnet: Vnet, addr: InAddr): boolean {
  return ifnetList(vnet).some((ifp) => arpTable(ifp)?.pending.has(addr) === true);
}

/** Whether an address of `ifp` is probed before it is used. */
function probes(ifp: Ifnet): boolean {
  const { acd } = V_arp(ifp.if_vnet).params;
  return acd && (ifp.if_flags & IFF_NOARP) === 0 && answersForAddresses(ifp.if_vnet);
}

/**
 * Adds an address like in_aifaddr, whose errnos it returns; with net.link.ether.inet.acd it only begins
 * to probe the address. `ready` is called when the address is usable, maybe before the function returns.
 */
export function inConfigure(
  ifp: Ifnet,
  addr: InAddr,
  prefixlen: number,
  ready: (() => void) | null = null,
): Errno {
  const arp = arpTable(ifp);
  if (isPending(ifp.if_vnet, addr)) return EEXIST;
  if (arp === null || !probes(ifp)) {
    const error = in_aifaddr(ifp, addr, prefixlen);
    if (error === 0) ready?.();
    return error;
  }
  if (!(prefixlen >= 0 && prefixlen <= 32) || !Number.isInteger(prefixlen)) return EINVAL;
  if (in_nullhost(addr) || IN_MULTICAST(addr) || IN_EXPERIMENTAL(addr)) return EADDRNOTAVAIL;
  if (in_localip(ifp.if_vnet, addr)) return EEXIST;
  const error = ifBringUp(ifp);
  if (error !== 0) return error;
  arp.pending.set(addr, new InPending(arp, addr, prefixlen, ready));
  return 0;
}
