/**
 * The IPv6 addresses of a stack and the state of IPv6 on an interface, after sys/netinet6/in6_var.h,
 * in6.c and nd6.h. An interface's list contains the addresses of all families; the functions here
 * select those of AF_INET6. Addresses contain their zone: see scope6.ts. A library: not every flag has
 * a user yet.
 */

import type { AddrWords } from '../sys/addr.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { Ifaddr, type Ifnet } from '../net/if_var.ts';
import { type InMfilter, inm_lookup, type InMulti } from '../netinet/in_multi.ts';
import type { ReportLink } from '../netinet/in_report.ts';
import { IN6_IS_ADDR_LINKLOCAL, in6_matchlen } from './in6.ts';
import type { NdPrefix } from './nd6_rtr_var.ts';

// ia6_flags
export const IN6_IFF_ANYCAST = 0x01;
/** Duplicate address detection has not ended. */
export const IN6_IFF_TENTATIVE = 0x02;
export const IN6_IFF_DUPLICATED = 0x04;
export const IN6_IFF_DETACHED = 0x08;
export const IN6_IFF_DEPRECATED = 0x10;
/** Add the address without duplicate address detection. */
export const IN6_IFF_NODAD = 0x20;
/** The address comes from a router advertisement. */
export const IN6_IFF_AUTOCONF = 0x40;
export const IN6_IFF_TEMPORARY = 0x80;
export const IN6_IFF_PREFER_SOURCE = 0x0100;
/** No packets are sent from or delivered to an address with one of these flags. */
export const IN6_IFF_NOTREADY = IN6_IFF_TENTATIVE | IN6_IFF_DUPLICATED;

/** A lifetime in seconds without end. */
export const ND6_INFINITE_LIFETIME = 0xffffffff;

// NdIfinfo.flags
export const ND6_IFF_PERFORMNUD = 0x1;
export const ND6_IFF_ACCEPT_RTADV = 0x2;
export const ND6_IFF_PREFER_SOURCE = 0x4;
/** The interface neither sends nor accepts IPv6 packets. */
export const ND6_IFF_IFDISABLED = 0x8;
export const ND6_IFF_AUTO_LINKLOCAL = 0x20;
/** Ignore the routers of router advertisements, but not their prefixes. */
export const ND6_IFF_NO_RADR = 0x40;
/** Source address selection does not prefer the addresses of this interface. */
export const ND6_IFF_NO_PREFER_IFACE = 0x80;
export const ND6_IFF_NO_DAD = 0x100;
/** Identifiers of new addresses are those of RFC 7217. */
export const ND6_IFF_STABLEADDR = 0x800;

/** Lifetimes of an address, seconds from `updatedNs` on. @see sys/netinet6/in6_var.h */
export interface In6Addrlifetime {
  readonly vltime: number;
  readonly pltime: number;
}

const SEC = 1e9;

/** An IPv6 address of an interface. in6_update_ifa creates it. @see sys/netinet6/in6_var.h */
export class In6Ifaddr extends Ifaddr {
  readonly ia6_plen: number;
  /** IN6_IFF_*. */
  ia6_flags: number;
  /** Valid and preferred lifetime in seconds; ND6_INFINITE_LIFETIME: no end. */
  ia6_vltime = ND6_INFINITE_LIFETIME;
  ia6_pltime = ND6_INFINITE_LIFETIME;
  /** When the address was added, and when its lifetimes were set; ns since boot. */
  readonly ia6_createtime: number;
  ia6_updatetime: number;
  /** The prefix; null: its length is 128. nd6_prefix.ts sets it. */
  ia6_ndpr: NdPrefix | null = null;
  /** Temporary: how many identifiers before this one were duplicates, without another in between. */
  ia6_idgen = 0;
  /** The next address of the same hash. */
  ia6_hash: In6Ifaddr | null = null;

  constructor(ifp: Ifnet, addr: AddrWords, plen: number, flags: number) {
    super(ifp, AF_INET6, addr);
    this.ia6_plen = plen;
    this.ia6_flags = flags;
    this.ia6_createtime = this.ia6_updatetime = nowNs();
  }

  /** Sets the lifetimes, which start now. */
  setLifetime({ vltime, pltime }: In6Addrlifetime): void {
    this.ia6_vltime = vltime;
    this.ia6_pltime = pltime;
    this.ia6_updatetime = nowNs();
  }
}

/** Whether the valid lifetime of `ia` has passed. @see sys/netinet6/in6_var.h */
export function IFA6_IS_INVALID(ia: In6Ifaddr): boolean {
  return (
    ia.ia6_vltime !== ND6_INFINITE_LIFETIME && nowNs() - ia.ia6_updatetime >= ia.ia6_vltime * SEC
  );
}

/** Whether the preferred lifetime of `ia` has passed. @see sys/netinet6/in6_var.h */
export function IFA6_IS_DEPRECATED(ia: In6Ifaddr): boolean {
  return (
    ia.ia6_pltime !== ND6_INFINITE_LIFETIME && nowNs() - ia.ia6_updatetime >= ia.ia6_pltime * SEC
  );
}

/** Whether an interface address is an IPv6 address. */
export function isIn6Ifaddr(ifa: Ifaddr): ifa is In6Ifaddr {
  return ifa.ifa_family === AF_INET6;
}

/** A group that the kernel joined on an interface, which counts as one member. */
export interface KernelGroup {
  readonly imf: InMfilter;
  refcount: number;
}

/** Neighbour discovery on an interface; times in milliseconds. @see sys/netinet6/nd6.h */
export class NdIfinfo {
  /** The MTU of router advertisements, bytes; 0: none. */
  linkmtu = 0;
  /** Base of `reachable`, which is random and changes after some hours: nd6Reachable. */
  basereachable = 30_000;
  reachable = 30_000;
  /** When `reachable` was chosen, ns since boot. */
  recalctm = nowNs();
  /** Between retransmitted solicitations. */
  retrans = 1000;
  /** ND6_IFF_*. */
  flags: number;
  /** Current hop limit. */
  chlim: number;

  constructor(flags: number, chlim: number) {
    this.flags = flags;
    this.chlim = chlim;
  }
}

/** The state of IPv6 on one interface. @see sys/netinet6/in6_var.h (there in6_ifextra) */
export class In6Ifextra {
  readonly nd_ifinfo: NdIfinfo;
  /** Duplicates of addresses with stable identifiers that were found: RFC 7217, 6. */
  dadFailures = 0;
  /** MLD, with the groups of the interface; their addresses contain the zone. */
  readonly mld_ifinfo: ReportLink;
  /** The groups that the kernel joined: in6_joingroup. */
  readonly kernelGroups: KernelGroup[] = [];

  constructor(nd: NdIfinfo, mld: ReportLink) {
    this.nd_ifinfo = nd;
    this.mld_ifinfo = mld;
  }
}

const NHASH = 64;

function hashOf(w0: number, w1: number, w2: number, w3: number): number {
  const h = Math.imul(w3 ^ w2 ^ Math.imul(w1 ^ w0, 0x9e3779b1), 0x85ebca6b);
  return (h >>> 16) & (NHASH - 1);
}

/** The addresses and interfaces of a stack. */
class In6Vnet {
  /** In the order in which they were added. */
  readonly in6_ifaddrhead: In6Ifaddr[] = [];
  readonly hash: (In6Ifaddr | null)[] = Array.from({ length: NHASH }, () => null);
  /** By interface index. */
  readonly ifextra: (In6Ifextra | null)[] = [];

  insert(ia: In6Ifaddr): void {
    const { w0, w1, w2, w3 } = ia.ifa_addr;
    const b = hashOf(w0, w1, w2, w3);
    ia.ia6_hash = this.hash[b]!;
    this.hash[b] = ia;
    this.in6_ifaddrhead.push(ia);
  }

  remove(ia: In6Ifaddr): void {
    const { w0, w1, w2, w3 } = ia.ifa_addr;
    const b = hashOf(w0, w1, w2, w3);
    let prev: In6Ifaddr | null = null;
    let at = this.hash[b]!;
    while (at !== null && at !== ia) {
      prev = at;
      at = at.ia6_hash!;
    }
    if (at === null) return;
    if (prev === null) this.hash[b] = ia.ia6_hash;
    else prev.ia6_hash = ia.ia6_hash;
    this.in6_ifaddrhead.splice(this.in6_ifaddrhead.indexOf(ia), 1);
  }
}

export const V_in6 = VNET_DEFINE(() => new In6Vnet());

/** The addresses of a stack, in the order in which they were added. */
export function in6Ifaddrs(vnet: Vnet): readonly In6Ifaddr[] {
  return V_in6(vnet).in6_ifaddrhead;
}

/** The address of the stack with these words, or null. @see sys/netinet6/in6.c */
export function in6ifa_ifwithaddr(
  vnet: Vnet,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
): In6Ifaddr | null {
  let ia = V_in6(vnet).hash[hashOf(w0, w1, w2, w3)]!;
  for (; ia !== null; ia = ia.ia6_hash!) {
    const a = ia.ifa_addr;
    if (a.w3 === w3 && a.w0 === w0 && a.w1 === w1 && a.w2 === w2) return ia;
  }
  return null;
}

/** Whether `a` is an address of this host. @see sys/netinet6/in6.c */
export function in6_localip(vnet: Vnet, a: AddrWords): boolean {
  return in6ifa_ifwithaddr(vnet, a.w0, a.w1, a.w2, a.w3) !== null;
}

/** The address of `ifp` that is exactly `a`, or null. @see sys/netinet6/in6.c */
export function in6ifa_ifpwithaddr(ifp: Ifnet, a: AddrWords): In6Ifaddr | null {
  const ia = in6ifa_ifwithaddr(ifp.if_vnet, a.w0, a.w1, a.w2, a.w3);
  return ia !== null && ia.ifa_ifp === ifp ? ia : null;
}

/**
 * The first link-local address of `ifp` without any of `ignoreflags`, or null.
 * @see sys/netinet6/in6.c
 */
export function in6ifa_ifpforlinklocal(ifp: Ifnet, ignoreflags: number): In6Ifaddr | null {
  for (let i = 0; i < ifp.if_addrhead.length; i++) {
    const ia = ifp.if_addrhead[i]!;
    if (!isIn6Ifaddr(ia) || !IN6_IS_ADDR_LINKLOCAL(ia.ifa_addr)) continue;
    if ((ia.ia6_flags & ignoreflags) === 0) return ia;
  }
  return null;
}

/** The address of `ifp` whose prefix contains `a`, or null. */
export function in6IfaForPeer(ifp: Ifnet, a: AddrWords): In6Ifaddr | null {
  for (let i = 0; i < ifp.if_addrhead.length; i++) {
    const ia = ifp.if_addrhead[i]!;
    if (isIn6Ifaddr(ia) && in6_matchlen(ia.ifa_addr, a) >= ia.ia6_plen) return ia;
  }
  return null;
}

/** The state of IPv6 on `ifp`; null before IPv6 is attached to it and after it is detached. */
export function in6Ifextra(ifp: Ifnet): In6Ifextra | null {
  return V_in6(ifp.if_vnet).ifextra[ifp.if_index] ?? null;
}

/** Whether `ifp` accepts and sends IPv6 packets. */
export function in6Enabled(ifp: Ifnet): boolean {
  const ext = in6Ifextra(ifp);
  return ext !== null && (ext.nd_ifinfo.flags & ND6_IFF_IFDISABLED) === 0;
}

/** The group `a` of `ifp`, or null if it has not joined. @see sys/netinet6/in6_mcast.c */
export function in6m_lookup(ifp: Ifnet, a: AddrWords): InMulti | null {
  const ext = in6Ifextra(ifp);
  return ext === null ? null : inm_lookup(ext.mld_ifinfo, a);
}
