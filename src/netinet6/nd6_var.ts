/**
 * The shared part of neighbour discovery, after sys/netinet6/nd6.h: states of entries, settings, log
 * lines.
 */

import { nowNs } from '../kern/kern_timeout.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { LOG_ND6, logAllowed } from '../net/log_limit.ts';
import type { In6Ifaddr, NdIfinfo } from './in6_var.ts';

// Llentry.ln_state
/** Address resolution has not started. */
export const ND6_LLINFO_NOSTATE = -2;
export const ND6_LLINFO_INCOMPLETE = 0;
export const ND6_LLINFO_REACHABLE = 1;
export const ND6_LLINFO_STALE = 2;
export const ND6_LLINFO_DELAY = 3;
export const ND6_LLINFO_PROBE = 4;

/** Settings under net.inet6.icmp6, with FreeBSD's defaults; times in seconds. */
class Nd6Params {
  /** The period of checks for expired lifetimes; at most 1: each ends exactly. */
  nd6_prune = 1;
  /** From the first packet to a stale neighbour until it is probed. */
  nd6_delay = 5;
  /** Probes of a neighbour without a reply before its entry is removed. */
  nd6_umaxtries = 3;
  /** Solicitations to the group without a reply before an entry is removed. */
  nd6_mmaxtries = 3;
  /** Add a route by lo0 to each new address. */
  nd6_useloopback = 1;
  /** How long an unused entry is kept; 0: until another entry needs its place. */
  nd6_gctimer = 24 * 60 * 60;
  /** Packets held per entry. */
  nd6_maxqueuelen = 16;
  /** Reachability hints of TCP that an entry accepts between two advertisements. */
  nd6_maxnudhint = 0;
  /** Options of a message that are read. */
  nd6_maxndopt = 10;
  nd6_debug = 0;
  /** Accept solicitations from addresses that are not neighbours by prefix or cache. */
  nd6_onlink_ns_rfc4861 = 0;
}

/** Neighbour discovery's state of one stack. */
class Nd6Vnet {
  readonly params = new Nd6Params();
  /** Called when an address turns out to be a duplicate; null: nothing to do. */
  dadFailed: ((ia: In6Ifaddr) => void) | null = null;
}

export const V_nd6 = VNET_DEFINE(() => new Nd6Vnet());

/**
 * Whether a line about a message of a neighbour may be logged: nd6_debug is set, and the limit of
 * lines allows it. @see sys/netinet6/nd6.h (there nd6log)
 */
export function nd6Logs(vnet: Vnet): boolean {
  return V_nd6(vnet).params.nd6_debug !== 0 && logAllowed(vnet, LOG_ND6);
}

/** A reachable time is chosen again after this time: RFC 4861, 6.3.4. */
const RECALC_REACHTM_NS = 2 * 60 * 60 * 1e9;

/** The reachable time of an interface in ms, chosen again if it is old. */
export function nd6CurrentReachable(vnet: Vnet, nd: NdIfinfo): number {
  if (nowNs() - nd.recalctm >= RECALC_REACHTM_NS) {
    nd.recalctm = nowNs();
    nd.reachable = nd6Reachable(vnet, nd.basereachable);
  }
  return nd.reachable;
}

/** A random reachable time from its base, both in ms: RFC 4861, 6.3.2. */
export function nd6Reachable(vnet: Vnet, basereachable: number): number {
  return Math.round(basereachable * (0.5 + vnet.prng.next32() / 2 ** 32));
}
