/**
 * Stateless address autoconfiguration, after sys/netinet6/nd6_rtr.c (RFC 4862, 5.5; RFC 8981): addresses
 * from advertised prefixes, their lifetimes, temporary addresses.
 *
 * Unlike FreeBSD: a temporary address is replaced TEMPADDR_REGEN_ADVANCE before it becomes deprecated
 * (RFC 8981, 3.4), not after.
 */

import { addrMasked, type AddrWords } from '../sys/addr.ts';
import { EEXIST, EINVAL, type Errno, errnoName } from '../sys/errno.ts';
import { count, R_ND6_PREFIXES_FULL } from '../sys/reason.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifConsole } from '../net/if.ts';
import { type Ifnet, IFT_ETHER } from '../net/if_var.ts';
import { LOG_ND6, logAllowed } from '../net/log_limit.ts';
import { IN6_ADDR_BITS, in6Ntop } from './in6.ts';
import { in6_get_ifid, in6_get_tmpifid, in6StableIfid } from './in6_ifid.ts';
import { in6_purgeaddr, in6SetLifetime, in6_update_ifa } from './in6_ifaddr.ts';
import {
  IFA6_IS_DEPRECATED,
  IN6_IFF_ANYCAST,
  IN6_IFF_AUTOCONF,
  IN6_IFF_DEPRECATED,
  IN6_IFF_DUPLICATED,
  IN6_IFF_TEMPORARY,
  type In6Addrlifetime,
  In6Ifaddr,
  in6Ifextra,
  in6ifa_ifpforlinklocal,
  in6ifa_ifpwithaddr,
  in6_localip,
  isIn6Ifaddr,
  ND6_IFF_STABLEADDR,
  ND6_INFINITE_LIFETIME,
} from './in6_var.ts';
import { V_ip6 } from './ip6_var.ts';
import {
  nd6_prefix_lookup,
  nd6_prefix_onlink,
  nd6_prelist_add,
  pfxlist_onlink_check,
} from './nd6_prefix.ts';
import {
  type NdDefrouter,
  NDPRF_ONLINK,
  type NdPrefix,
  nd6TimerAt,
  V_nd6rtr,
} from './nd6_rtr_var.ts';

const SEC = 1e9;
/** Seconds of the rule of RFC 4862, 5.5.3 e. */
const TWOHOUR = 7200;
/** Bits of an identifier: RFC 2464, 4. */
const IFID_BITS = 64;
/** Seconds: RFC 8981, 3.8; FreeBSD's values. */
export const TEMPADDR_REGEN_ADVANCE = 5;
const MAX_TEMP_DESYNC_FACTOR = 600;
/** Attempts to find an identifier that is not in use on this host. */
const TMPIFID_TRIES = 3;
/** Identifiers that are tried after duplicates: TEMP_IDGEN_RETRIES of RFC 8981, 3.8. */
const TEMP_IDGEN_RETRIES = 3;
/**
 * Prefixes that routers may add to an interface. Unlike FreeBSD, which has no limit; NetBSD has this one
 * (net.inet6.ip6.maxifprefixes).
 */
const IF_PREFIXES_MAX = 16;

/** A Prefix Information option: RFC 4861, 4.6.2. @see sys/netinet6/nd6.h */
interface NdPrefixctl extends In6Addrlifetime {
  readonly ndpr_ifp: Ifnet;
  readonly ndpr_prefix: AddrWords;
  readonly ndpr_plen: number;
  readonly ndpr_raf_onlink: boolean;
  readonly ndpr_raf_auto: boolean;
}

/** Writes a line of router discovery to the log, limited in number. */
export function nd6Log(ifp: Ifnet, text: string): void {
  if (logAllowed(ifp.if_vnet, LOG_ND6)) ifConsole.log?.(`${ifp.if_xname}: ${text}`);
}

/** The desynchronisation of the temporary addresses of this host, seconds. */
export function desyncFactor(vnet: Vnet): number {
  const { params } = V_ip6(vnet);
  if (params.desync_factor < 0) params.desync_factor = vnet.prng.next32() % MAX_TEMP_DESYNC_FACTOR;
  return params.desync_factor;
}

/** Adds or updates the prefix of an option; null: it is not stored. */
function listed(pc: NdPrefixctl): NdPrefix | null {
  const { ndpr_ifp: ifp, ndpr_prefix: prefix, ndpr_plen: plen, ndpr_raf_onlink: onlink } = pc;
  let pr = nd6_prefix_lookup(ifp, prefix, plen);
  if (pr === null) {
    if (pc.vltime === 0 || (!onlink && !pc.ndpr_raf_auto)) return null;
    const { nd_prefix } = V_nd6rtr(ifp.if_vnet);
    if (nd_prefix.filter((one) => one.ndpr_ifp === ifp && one.learned).length >= IF_PREFIXES_MAX) {
      count(R_ND6_PREFIXES_FULL);
      return null;
    }
    // One that is not on the link is kept only as long as addresses refer to it.
    const lifetime = onlink ? pc : { vltime: 0, pltime: 0 };
    pr = nd6_prelist_add(ifp, prefix, plen, lifetime, onlink);
  } else if (onlink) {
    pr.setLifetime(pc);
    pr.ndpr_raf_onlink = true;
    nd6TimerAt(ifp.if_vnet, pr.expireNs);
    if ((pr.ndpr_stateflags & NDPRF_ONLINK) === 0 && pc.vltime > 0) nd6_prefix_onlink(pr);
  }
  pr.learned = true;
  if (pc.ndpr_raf_auto) pr.ndpr_raf_auto = true;
  return pr;
}

/**
 * Processes a prefix of a router advertisement: RFC 4861, 6.3.4, and RFC 4862, 5.5.3. `dr`: the router;
 * null: it is not a default router. `updateflags`: those of in6_update_ifa for a new address.
 * @see sys/netinet6/nd6_rtr.c
 */
export function prelist_update(pc: NdPrefixctl, dr: NdDefrouter | null, updateflags: number): void {
  const { ndpr_ifp: ifp } = pc;
  const pr = listed(pc);
  if (pr === null) return;
  if (dr !== null && !pr.ndpr_advrtrs.includes(dr)) {
    pr.ndpr_advrtrs.push(dr);
    pfxlist_onlink_check(ifp.if_vnet);
  }
  if (!pc.ndpr_raf_auto || pc.pltime > pc.vltime) return;
  const own = ifp.if_addrhead.filter(
    (ia): ia is In6Ifaddr =>
      isIn6Ifaddr(ia) &&
      ia.ia6_ndpr === pr &&
      (ia.ia6_flags & (IN6_IFF_AUTOCONF | IN6_IFF_ANYCAST)) === IN6_IFF_AUTOCONF,
  );
  for (const ia of own) renew(ia, pc);
  if (own.length === 0 && pc.vltime > 0) add(pc, updateflags);
}

/** Seconds that are left of a lifetime in seconds from `sinceNs` on. */
function left(lifetime: number, sinceNs: number): number {
  if (lifetime === ND6_INFINITE_LIFETIME) return lifetime;
  return Math.max(0, lifetime - Math.floor((nowNs() - sinceNs) / SEC));
}

/** Sets the lifetimes of an address of an advertised prefix: RFC 4862, 5.5.3 e. */
function renew(ia: In6Ifaddr, pc: In6Addrlifetime): void {
  const remaining = left(ia.ia6_vltime, ia.ia6_updatetime);
  let vltime = remaining;
  if (pc.vltime > TWOHOUR || pc.vltime > remaining) vltime = pc.vltime;
  else if (remaining > TWOHOUR) vltime = TWOHOUR;
  let { pltime } = pc;
  if ((ia.ia6_flags & IN6_IFF_TEMPORARY) !== 0) {
    // RFC 8981, 3.4: counted from the creation of the address on.
    const { temp_valid_lifetime, temp_preferred_lifetime } = V_ip6(ia.ifa_ifp.if_vnet).params;
    const age = Math.floor((nowNs() - ia.ia6_createtime) / SEC) + desyncFactor(ia.ifa_ifp.if_vnet);
    vltime = Math.min(vltime, Math.max(0, temp_valid_lifetime - age));
    pltime = Math.min(pltime, Math.max(0, temp_preferred_lifetime - age));
  }
  in6SetLifetime(ia, { vltime, pltime });
}

/** Adds an address with an advertised prefix, and a temporary one if that is enabled. */
function add(pc: NdPrefixctl, updateflags: number): void {
  const { ndpr_ifp: ifp, ndpr_plen: plen } = pc;
  if (ifp.if_type !== IFT_ETHER || plen + IFID_BITS !== IN6_ADDR_BITS)
    return nd6Log(
      ifp,
      `prefix ${in6Ntop(pc.ndpr_prefix)}/${plen} ignored: its length must be ${IN6_ADDR_BITS - IFID_BITS} for an address`,
    );
  const ia = in6_ifadd(pc, updateflags);
  if (ia === null) return;
  if (V_ip6(ifp.if_vnet).params.use_tempaddr) temporary(ia, updateflags);
  pfxlist_onlink_check(ifp.if_vnet);
}

function temporary(ia: In6Ifaddr, updateflags: number, idgen = 0): void {
  const error = in6_tmpifadd(ia, updateflags, idgen);
  if (error !== 0) nd6Log(ia.ifa_ifp, `no temporary address: ${errnoName(error)}`);
}

/** Adds the address of an advertised prefix; null: that failed. @see sys/netinet6/nd6_rtr.c */
function in6_ifadd(pc: NdPrefixctl, updateflags: number): In6Ifaddr | null {
  const { ndpr_ifp: ifp, ndpr_plen: plen } = pc;
  const ll = in6ifa_ifpforlinklocal(ifp, 0);
  // A user who removes the link-local address prevents autoconfiguration.
  if (ll === null || ll.ia6_plen !== plen) return null;
  const a = addrMasked(pc.ndpr_prefix, plen);
  const flags = in6Ifextra(ifp)!.nd_ifinfo.flags;
  if ((flags & ND6_IFF_STABLEADDR) !== 0) {
    in6_get_ifid(ifp, a);
  } else {
    a.w2 = ll.ifa_addr.w2;
    a.w3 = ll.ifa_addr.w3;
  }
  if (in6ifa_ifpwithaddr(ifp, a) !== null) {
    nd6Log(ifp, `${in6Ntop(a)} is already configured`);
    return null;
  }
  const error = in6_update_ifa(ifp, a, plen, IN6_IFF_AUTOCONF, pc, updateflags);
  if (error !== 0) nd6Log(ifp, `cannot add ${in6Ntop(a)}: ${errnoName(error)}`);
  return error === 0 ? in6ifa_ifpwithaddr(ifp, a) : null;
}

/**
 * Adds a temporary address to the public address `ia0`, unless its preferred lifetime would be too short.
 * `idgen`: duplicates before it. EEXIST: no free identifier was found. Else errnos of in6_update_ifa. @see sys/netinet6/nd6_rtr.c
 */
function in6_tmpifadd(ia0: In6Ifaddr, updateflags: number, idgen: number): Errno {
  const ifp = ia0.ifa_ifp;
  const { temp_valid_lifetime, temp_preferred_lifetime } = V_ip6(ifp.if_vnet).params;
  const vltime = Math.min(left(ia0.ia6_vltime, ia0.ia6_updatetime), temp_valid_lifetime);
  const pltime = Math.min(
    left(ia0.ia6_pltime, ia0.ia6_updatetime),
    temp_preferred_lifetime - desyncFactor(ifp.if_vnet),
  );
  if (pltime <= TEMPADDR_REGEN_ADVANCE) return 0;
  if (ia0.ia6_plen + IFID_BITS !== IN6_ADDR_BITS) return EINVAL;
  const a = addrMasked(ia0.ifa_addr, ia0.ia6_plen);
  let tries = 0;
  do {
    if (++tries > TMPIFID_TRIES) return EEXIST;
    in6_get_tmpifid(ifp, a);
  } while (in6_localip(ifp.if_vnet, a));
  const flags = IN6_IFF_AUTOCONF | IN6_IFF_TEMPORARY;
  const error = in6_update_ifa(ifp, a, ia0.ia6_plen, flags, { vltime, pltime }, updateflags);
  if (error !== 0) return error;
  in6ifa_ifpwithaddr(ifp, a)!.ia6_idgen = idgen;
  pfxlist_onlink_check(ifp.if_vnet);
  return 0;
}

/** When the temporary address `ia` must be replaced, ns since boot; Infinity: never. */
export function tmpRegenNs(ia: In6Ifaddr): number {
  if (ia.ia6_pltime === ND6_INFINITE_LIFETIME) return Infinity;
  return ia.ia6_updatetime + (ia.ia6_pltime - TEMPADDR_REGEN_ADVANCE) * SEC;
}

/**
 * Adds a temporary address in place of `ia6`, which becomes deprecated, unless its prefix has another one
 * that is preferred for longer, or no public address that is preferred. @see sys/netinet6/nd6.c
 */
export function regen_tmpaddr(ia6: In6Ifaddr): void {
  const { ifa_ifp: ifp, ia6_ndpr } = ia6;
  let home: In6Ifaddr | null = null;
  for (const ia of ifp.if_addrhead) {
    if (!isIn6Ifaddr(ia) || ia === ia6 || ia.ia6_ndpr !== ia6_ndpr) continue;
    if ((ia.ia6_flags & IN6_IFF_AUTOCONF) === 0 || IFA6_IS_DEPRECATED(ia)) continue;
    if ((ia.ia6_flags & IN6_IFF_TEMPORARY) === 0) home = ia;
    else if (tmpRegenNs(ia) > nowNs()) return;
  }
  if (home !== null) temporary(home, 0);
}

/** The preferred public address of the prefix of `ia`; null: none. */
function publicOf(ia6: In6Ifaddr): In6Ifaddr | null {
  for (const ia of ia6.ifa_ifp.if_addrhead) {
    if (!isIn6Ifaddr(ia) || ia.ia6_ndpr !== ia6.ia6_ndpr || IFA6_IS_DEPRECATED(ia)) continue;
    if ((ia.ia6_flags & (IN6_IFF_AUTOCONF | IN6_IFF_TEMPORARY)) === IN6_IFF_AUTOCONF) return ia;
  }
  return null;
}

/**
 * Another node has the temporary address `ia`: replaces it by one with another identifier, up to
 * TEMP_IDGEN_RETRIES times in a row (RFC 8981, 3.4). Returns whether it was removed.
 */
function tmpDadFailed(ia: In6Ifaddr): boolean {
  const home = publicOf(ia);
  if (home === null) return false;
  if (ia.ia6_idgen >= TEMP_IDGEN_RETRIES) {
    nd6Log(ia.ifa_ifp, `no temporary address: ${TEMP_IDGEN_RETRIES + 1} identifiers are in use`);
    return false;
  }
  in6_purgeaddr(ia);
  temporary(home, 0, ia.ia6_idgen + 1);
  return true;
}

/**
 * Duplicate address detection found that another node has `ia`, which is marked. Replaces a temporary
 * address by another one, see above. With stable identifiers, replaces it by one with another identifier,
 * up to net.inet6.ip6.stableaddr_maxretries times per interface: RFC 7217, 6. Returns whether `ia` was
 * replaced, and so removed.
 */
export function in6DadFailed(ia: In6Ifaddr): boolean {
  if ((ia.ia6_flags & IN6_IFF_TEMPORARY) !== 0) return tmpDadFailed(ia);
  const { ifa_ifp: ifp, ifa_addr: addr, ia6_plen: plen } = ia;
  const ext = in6Ifextra(ifp);
  if (ext === null || (ext.nd_ifinfo.flags & ND6_IFF_STABLEADDR) === 0) return false;
  if (plen !== IFID_BITS || !in6StableIfid(ifp, addr)) return false;
  if (ext.dadFailures >= V_ip6(ifp.if_vnet).params.stableaddr_maxretries) return false;
  const a = addrMasked(addr, IFID_BITS);
  ext.dadFailures++;
  in6_get_ifid(ifp, a);
  const flags = ia.ia6_flags & ~(IN6_IFF_DUPLICATED | IN6_IFF_DEPRECATED);
  const vltime = left(ia.ia6_vltime, ia.ia6_updatetime);
  const pltime = left(ia.ia6_pltime, ia.ia6_updatetime);
  in6_purgeaddr(ia);
  const error = in6_update_ifa(ifp, a, plen, flags, { vltime, pltime });
  if (error !== 0) nd6Log(ifp, `cannot add ${in6Ntop(a)}: ${errnoName(error)}`);
  return true;
}
