/**
 * Multicast memberships of any address family, after struct in_multi, in_msource, in_mfilter and
 * ip_moptions of sys/netinet/in_var.h and the family-free half of in_mcast.c: the groups of an
 * interface, the source filters of sockets, and the filter of a group, which combines those of its
 * members (RFC 3376, 3.2; RFC 3810, 4.2). in_report.ts reports the changes. Unlike FreeBSD, a group
 * computes its filter again from its members after each change instead of counting per source.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { ENOSPC, type Errno } from '../sys/errno.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { if_addmulti, if_delmulti } from '../net/if.ts';
import { ETHER_ADDR_LEN, type Ifnet } from '../net/if_var.ts';

// Filter modes. @see sys/netinet/in.h
export const MCAST_UNDEFINED = 0;
export const MCAST_INCLUDE = 1;
export const MCAST_EXCLUDE = 2;

// Results of imo_multi_filter. @see sys/netinet/in_var.h
export const MCAST_PASS = 0;
export const MCAST_NOTGMEMBER = 1;
const MCAST_NOTSMEMBER = 2;
const MCAST_MUTED = 3;

function hash(a: AddrWords): number {
  return Math.imul(a.w0, 0x85ebca6b) ^ a.w1 ^ Math.imul(a.w2, 0xc2b2ae35) ^ a.w3;
}

/** A chained entry of an AddrTable. */
interface Chained<T> extends AddrWords {
  chainNext: T | null;
}

/** A table of entries by address, which may be changed while `list` is walked. */
class AddrTable<T extends Chained<T>> {
  readonly #chains = new Map<number, T>();
  size = 0;

  /** The entry of an address, or null. Allocates nothing. */
  find(a: AddrWords): T | null {
    let e = this.#chains.get(hash(a)) ?? null;
    while (e !== null && (e.w0 !== a.w0 || e.w1 !== a.w1 || e.w2 !== a.w2 || e.w3 !== a.w3))
      e = e.chainNext;
    return e;
  }

  /** Adds an entry. The table must not have its address. */
  insert(e: T): void {
    const key = hash(e);
    e.chainNext = this.#chains.get(key) ?? null;
    this.#chains.set(key, e);
    this.size++;
  }

  remove(a: AddrWords): void {
    const e = this.find(a);
    if (e === null) return;
    const key = hash(e);
    const first = this.#chains.get(key)!;
    if (first === e) {
      if (e.chainNext === null) this.#chains.delete(key);
      else this.#chains.set(key, e.chainNext);
    } else {
      let prev = first;
      while (prev.chainNext !== e) prev = prev.chainNext!;
      prev.chainNext = e.chainNext;
    }
    this.size--;
  }

  clear(): void {
    this.#chains.clear();
    this.size = 0;
  }

  /** The entries, in the order of their addresses' first hash. */
  list(): T[] {
    const list: T[] = [];
    for (const first of this.#chains.values())
      for (let e: T | null = first; e !== null; e = e.chainNext) list.push(e);
    return list;
  }
}

/** A source address of a filter. @see sys/netinet/in_var.h */
class InMsource extends NetAddr {
  chainNext: InMsource | null = null;
  /** Ours: how often a change of this source is still to be reported. */
  left = 0;

  constructor(addr: AddrWords) {
    super();
    this.setFrom(addr);
  }
}

/** A set of sources. */
class InMsources extends AddrTable<InMsource> {
  has(a: AddrWords): boolean {
    return this.find(a) !== null;
  }

  /** Adds an address, or returns the entry that exists. */
  add(a: AddrWords): InMsource {
    let e = this.find(a);
    if (e === null) this.insert((e = new InMsource(a)));
    return e;
  }
}

/** The filter of one socket for one group. @see sys/netinet/in_var.h */
export class InMfilter {
  readonly imf_inm: InMulti;
  /** MCAST_INCLUDE or MCAST_EXCLUDE. */
  imf_fmode: number;
  imf_sources = new InMsources();

  constructor(inm: InMulti, fmode: number) {
    this.imf_inm = inm;
    this.imf_fmode = fmode;
  }
}

/** The groups of one interface and family, with the protocol that reports them. */
export interface GroupLink {
  readonly ifp: Ifnet;
  readonly groups: AddrTable<InMulti>;
  /** net.inet.ip.mcast.maxgrpsrc: the most sources of a group's filter. */
  maxgrpsrc(): number;
  /**
   * Whether a membership with sources begins and ends with reports of its sources, not of a filter mode:
   * RFC 4604, 2.2. A group without members is then a list of 0 sources.
   */
  useAllow(): boolean;
  /** Writes the link-level address of a group to `ll_addr`, 6 bytes. */
  mapGroup(group: AddrWords, ll_addr: Uint8Array): void;
  /**
   * The filter of `inm` changed, or it got its first member (`first`), or has none any more
   * (`last`). `delay`: ticks until the first report; 0: as soon as possible. After `last`, the protocol removes it from `groups`, at once or after its reports.
   */
  changed(inm: InMulti, first: boolean, last: boolean, delay: number): void;
}

/** A group of an interface. @see sys/netinet/in_var.h */
export class InMulti extends NetAddr {
  chainNext: InMulti | null = null;
  readonly inm_link: GroupLink;
  /** The filters of the members, one per socket that joined; the kernel's own included. */
  readonly members: InMfilter[] = [];
  /** The filter mode that was reported last or is being reported. */
  fmode = MCAST_UNDEFINED;
  sources = new InMsources();
  // The state of the reports: see in_report.ts.
  inm_state = 0;
  /** Ticks until the answer to a query; 0: none is due. */
  inm_timer = 0;
  /** Ticks until the next report of a change; 0: none is due. */
  inm_sctimer = 0;
  /** How often a change of the filter mode is still to be reported. */
  inm_scrv = 0;
  /** Sources that were added or removed, until their reports are sent. */
  readonly changedSources = new InMsources();
  /** The sources of the pending group-and-source query. */
  readonly asked = new InMsources();
  /** When the last group-and-source query was accepted. */
  inm_lastgsrtv = -Infinity;

  constructor(link: GroupLink, group: AddrWords) {
    super();
    this.inm_link = link;
    this.setFrom(group);
  }
}

/** The groups of an interface. */
export class InMultis extends AddrTable<InMulti> {}

/** The multicast options of a socket. @see sys/netinet/ip_var.h (there ip_moptions) */
export class InMoptions {
  /** The outgoing interface; null: by the routing table. */
  imo_multicast_ifp: Ifnet | null = null;
  /** TTL or hop limit of multicasts. */
  imo_multicast_ttl = 1;
  /** Whether this host receives the multicasts of the socket too. */
  imo_multicast_loop = true;
  /** The memberships, newest first. */
  readonly imo_head: InMfilter[] = [];
}

/** The group `addr` that `link` receives, or null. @see sys/netinet/in_var.h */
export function inm_lookup(link: GroupLink, addr: AddrWords): InMulti | null {
  const inm = link.groups.find(addr);
  return inm === null || inm.members.length === 0 ? null : inm;
}

/**
 * Computes the filter of a group from its members: without an EXCLUDE member the union of all
 * sources, else those that all EXCLUDE members exclude and no INCLUDE member includes.
 */
function combine(members: readonly InMfilter[], to: InMsources): number {
  const excluding = members.filter(({ imf_fmode }) => imf_fmode === MCAST_EXCLUDE);
  const including = members.filter(({ imf_fmode }) => imf_fmode === MCAST_INCLUDE);
  if (excluding.length === 0) {
    for (const { imf_sources } of including) for (const a of imf_sources.list()) to.add(a);
    return members.length === 0 ? MCAST_UNDEFINED : MCAST_INCLUDE;
  }
  for (const a of excluding[0]!.imf_sources.list()) {
    if (!excluding.every(({ imf_sources }) => imf_sources.has(a))) continue;
    if (!including.some(({ imf_sources }) => imf_sources.has(a))) to.add(a);
  }
  return MCAST_EXCLUDE;
}

/**
 * Computes the filter of `inm` after a change of its members, and has the difference reported.
 * ENOSPC: it would have too many sources; nothing changed, and the caller restores the member.
 */
export function inmUpdate(inm: InMulti, first = false, delay = 0): Errno {
  const sources = new InMsources();
  const fmode = combine(inm.members, sources);
  if (sources.size > inm.inm_link.maxgrpsrc()) return ENOSPC;
  const last = inm.members.length === 0;
  const old = inm.sources;
  const lists = fmode !== MCAST_EXCLUDE && inm.fmode !== MCAST_EXCLUDE;
  if (fmode === inm.fmode || (lists && inm.inm_link.useAllow())) {
    for (const a of old.list()) if (!sources.has(a)) inm.changedSources.add(a).left = -1;
    for (const a of sources.list()) if (!old.has(a)) inm.changedSources.add(a).left = -1;
  } else {
    inm.inm_scrv = -1;
  }
  inm.fmode = fmode;
  inm.sources = sources;
  inm.inm_link.changed(inm, first, last, delay);
  return 0;
}

/** The result of in_joingroup. */
export const $joined: { imf: InMfilter | null } = { imf: null };

/**
 * Adds a member to `group` on `link`, with a filter of the mode `fmode` and the source `source`, if
 * not null; `$joined.imf` is the new filter. ENETDOWN: the interface has no multicast. ENOSPC: too
 * many sources. @see sys/netinet/in_mcast.c
 */
export function in_joingroup(
  link: GroupLink,
  group: AddrWords,
  fmode: number,
  source: AddrWords | null,
  delay = 0,
): Errno {
  let inm = link.groups.find(group);
  const first = inm === null || inm.members.length === 0;
  if (first) {
    const ll = new Uint8Array(ETHER_ADDR_LEN);
    link.mapGroup(group, ll);
    const error = if_addmulti(link.ifp, ll);
    if (error !== 0) return error;
  }
  const fresh = inm === null;
  if (inm === null) link.groups.insert((inm = new InMulti(link, group)));
  const imf = new InMfilter(inm, fmode);
  if (source !== null) imf.imf_sources.add(source);
  inm.members.push(imf);
  const error = inmUpdate(inm, first, delay);
  if (error !== 0) {
    inm.members.pop();
    if (first) release(inm);
    if (fresh) link.groups.remove(inm);
    return error;
  }
  $joined.imf = imf;
  return 0;
}

/** Removes the link-level address of a group without members. */
function release(inm: InMulti): void {
  const { inm_link: link } = inm;
  const ll = new Uint8Array(ETHER_ADDR_LEN);
  link.mapGroup(inm, ll);
  if_delmulti(link.ifp, ll);
}

/** Removes a member. The last one leaves the group. @see sys/netinet/in_mcast.c */
export function in_leavegroup(imf: InMfilter): void {
  const { imf_inm: inm } = imf;
  const at = inm.members.indexOf(imf);
  if (at < 0) return;
  inm.members.splice(at, 1);
  if (inm.members.length === 0) release(inm);
  inmUpdate(inm);
}

/** The socket's filter for `group` on `ifp`; null as `ifp`: on any. @see sys/netinet/in_mcast.c */
export function imo_match_group(
  imo: InMoptions,
  ifp: Ifnet | null,
  group: AddrWords,
): InMfilter | null {
  for (let i = 0; i < imo.imo_head.length; i++) {
    const imf = imo.imo_head[i]!;
    const inm = imf.imf_inm;
    if (inm.equals(group) && (ifp === null || inm.inm_link.ifp === ifp)) return imf;
  }
  return null;
}

/**
 * Whether the socket wants a packet to `group` from `source` that came in by `ifp`: MCAST_PASS, or
 * why not. @see sys/netinet/in_mcast.c
 */
export function imo_multi_filter(
  imo: InMoptions,
  ifp: Ifnet,
  group: AddrWords,
  source: AddrWords,
): number {
  const imf = imo_match_group(imo, ifp, group);
  if (imf === null) return MCAST_NOTGMEMBER;
  const listed = imf.imf_sources.has(source);
  if (imf.imf_fmode === MCAST_INCLUDE) return listed ? MCAST_PASS : MCAST_NOTSMEMBER;
  return listed ? MCAST_MUTED : MCAST_PASS;
}

/** The multicast options of all sockets of a stack. */
export const V_moptions = VNET_DEFINE(() => new Set<InMoptions>());

/** Ends all memberships of a socket. @see sys/netinet/in_mcast.c (there inp_freemoptions) */
export function imoFree(vnet: Vnet, imo: InMoptions): void {
  V_moptions(vnet).delete(imo);
  for (const imf of imo.imo_head.splice(0)) in_leavegroup(imf);
}

/** The interface `ifp` goes: no socket is a member of a group on it or sends multicasts by it. */
export function imoPurge(ifp: Ifnet): void {
  for (const imo of V_moptions(ifp.if_vnet)) {
    if (imo.imo_multicast_ifp === ifp) imo.imo_multicast_ifp = null;
    for (const imf of imo.imo_head.slice()) {
      if (imf.imf_inm.inm_link.ifp !== ifp) continue;
      imo.imo_head.splice(imo.imo_head.indexOf(imf), 1);
      in_leavegroup(imf);
    }
  }
}
