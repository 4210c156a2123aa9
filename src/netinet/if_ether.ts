/**
 * ARP, after sys/netinet/if_ether.c and RFC 826: resolution with held packets, answers, refreshing
 * of entries in use, announcements and conflicts. Left out: proxy ARP, carp, bridge members,
 * rate-limited logging.
 *
 * An entry's life: INCOMPLETE (asked at most once a second, only while something is sent) -> REACHABLE
 * -> VERIFY (in the last seconds: asked again if it was used) -> gone.
 */

import { EEXIST, EHOSTDOWN, EHOSTUNREACH, EINVAL, ENOBUFS, ENOENT } from '../sys/errno.ts';
import { type Errno, EWOULDBLOCK } from '../sys/errno.ts';
import {
  count,
  R_ARP_BAD,
  R_ARP_DUPLICATE,
  R_ARP_HOLD_FULL,
  R_ARP_TIMEOUT,
  type Reason,
} from '../sys/reason.ts';
import type { InAddr, Kva } from '../sys/types.ts';
import { m_freem, m_gethdr } from '../kern/kern_mbuf.ts';
import { callout_reset, callout_stop, nowNs } from '../kern/kern_timeout.ts';
import { M_ALIGN, M_BCAST, type Mbuf, M_MCAST, M_NOWAIT, MT_DATA, mtod } from '../kern/mbuf.ts';
import { AF_INET } from '../kern/protosw.ts';
import { m_pullup } from '../kern/uipc_mbuf.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { etherbroadcastaddr, ETHERTYPE_ARP, ETHERTYPE_IP, ether_ntoa } from '../net/ethernet.ts';
import { ifConsole, ifnetList } from '../net/if.ts';
import { etherSend } from '../net/if_ethersubr.ts';
import {
  Llentry,
  LLE_IFADDR,
  LLE_STATIC,
  type LleTimer,
  Lltable,
  LLE_VALID,
} from '../net/if_llatbl.ts';
import {
  ETHER_ADDR_LEN,
  IFF_DRV_RUNNING,
  IFF_NOARP,
  IFF_STATICARP,
  IFF_UP,
  type Ifnet,
  type LinkAddr,
  type LinkResolver,
  type OutputDst,
} from '../net/if_var.ts';
import { mem, memView } from '../vm/arena.ts';
import { IN_MULTICAST, INADDR_ANY, inAddrOf, inet_ntoa, inNetAddr, in_nullhost } from './in.ts';
import { ifaForPeer, inIfaddrOn, inPrimary } from './in_var.ts';
import { IP_DST_OFF } from './ip.ts';

const ARPHRD_ETHER = 1;
const ARPOP_REQUEST = 1;
const ARPOP_REPLY = 2;
const ARP_LEN = 28; // of Ethernet and IPv4
// Offsets: hardware type 0, protocol 2, lengths 4 and 5, operation 6, then
const AR_SHA = 8;
const AR_SPA = 14;
const AR_THA = 18;
const AR_TPA = 24;

export const ARP_LLINFO_INCOMPLETE = 0;
export const ARP_LLINFO_REACHABLE = 1;
export const ARP_LLINFO_VERIFY = 2;

const SEC = 1e9;
/** Seconds between questions. */
const ARPT_REXMIT = 1;
/** Entries an interface keeps; FreeBSD has no limit. A neighbour beyond it cannot be reached. */
export const ARP_ENTRIES_MAX = 16384;

/** ARP statistics, with FreeBSD's names. @see sys/net/if_arp.h */
export class Arpstat {
  txrequests = 0;
  txreplies = 0;
  rxrequests = 0;
  rxreplies = 0;
  received = 0;
  txerrors = 0;
  dropped = 0;
  timeouts = 0;
  dupips = 0;
}

/** Settings under net.link.ether.inet, with FreeBSD's defaults; times in seconds. */
export class ArpParams {
  max_age = 1200;
  wait = 20;
  maxtries = 5;
  maxhold = 16;
  log_arp_movements = true;
  log_arp_permanent_modify = true;
}

class ArpVnet {
  readonly stat = new Arpstat();
  readonly params = new ArpParams();
}

export const V_arp = VNET_DEFINE(() => new ArpVnet());

/** ARP statistics of a stack, for `netstat -s`. */
export function arpstat(vnet: Vnet): Arpstat {
  return V_arp(vnet).stat;
}

/** A line of `arp -a`. */
export interface ArpEntry {
  readonly ifp: Ifnet;
  readonly addr: InAddr;
  /** 6 bytes, borrowed; null while it is being asked for. */
  readonly lladdr: Uint8Array | null;
  /** Seconds until it expires; null for a permanent one. */
  readonly expires: number | null;
}

// The link-level sender of the ARP packet under way.
const sender = new Uint8Array(ETHER_ADDR_LEN);
// The Ethernet address of an IPv4 group, RFC 1112, 6.4.
const group: LinkAddr = { ll_addr: Uint8Array.from([0x01, 0x00, 0x5e, 0, 0, 0]) };

/** Writes the Ethernet address of IPv4 group `addr` to `ll_addr`. @see sys/net/ethernet.h */
export function ETHER_MAP_IP_MULTICAST(addr: InAddr, ll_addr: Uint8Array): void {
  ll_addr[0] = 0x01;
  ll_addr[1] = 0x00;
  ll_addr[2] = 0x5e;
  ll_addr[3] = (addr >>> 16) & 0x7f;
  ll_addr[4] = (addr >>> 8) & 0xff;
  ll_addr[5] = addr & 0xff;
}

/** ARP on one interface. */
export class ArpTable implements LinkResolver, LleTimer {
  readonly ethertype = ETHERTYPE_IP;
  readonly table: Lltable;
  resolved: LinkAddr = group;
  readonly #v: ArpVnet;

  constructor(ifp: Ifnet) {
    this.table = new Lltable(ifp);
    this.#v = V_arp(ifp.if_vnet);
  }

  /** The neighbour at `addr`, or null. */
  find(addr: InAddr): Llentry | null {
    return this.table.lookup(addr, 0, 0, 0);
  }

  /** A new entry; null: not a neighbour on this link, or the table is full. */
  create(addr: InAddr): Llentry | null {
    const ifp = this.table.llt_ifp;
    if (this.table.size >= ARP_ENTRIES_MAX || ifaForPeer(ifp, addr) === null) return null;
    const lle = new Llentry(ifp, inNetAddr(addr), this);
    this.table.insert(lle);
    return lle;
  }

  /** The hook of ether_output; errnos as LinkResolver says. @see sys/netinet/if_ether.c */
  resolve(ifp: Ifnet, m: Mbuf, dst: OutputDst): Errno {
    if ((m.m_flags & M_MCAST) !== 0) {
      ETHER_MAP_IP_MULTICAST(inAddrOf(dst), group.ll_addr);
      this.resolved = group;
      return 0;
    }
    const lle = this.table.find(dst);
    if (lle !== null && (lle.la_flags & LLE_VALID) !== 0) {
      lle.used = true;
      this.resolved = lle;
      return 0;
    }
    return this.#ask(ifp, m, inAddrOf(dst), lle);
  }

  /** Holds `m` and asks for its next hop, at most once a second. Takes `m`. */
  #ask(ifp: Ifnet, m: Mbuf, addr: InAddr, found: Llentry | null): Errno {
    const { stat, params } = this.#v;
    const lle =
      found ?? ((ifp.if_flags & (IFF_NOARP | IFF_STATICARP)) === 0 ? this.create(addr) : null);
    if (lle === null) {
      m_freem(m);
      stat.dropped++;
      count(R_ARP_TIMEOUT);
      return this.table.size >= ARP_ENTRIES_MAX ? ENOBUFS : EINVAL;
    }
    if (lle.la_numheld >= params.maxhold) {
      m_freem(lle.unhold());
      stat.dropped++;
      count(R_ARP_HOLD_FULL);
    }
    const isGateway = memView.getInt32(mtod(m) + IP_DST_OFF) !== addr;
    if (params.maxhold > 0) lle.hold(m);
    else m_freem(m);
    const error =
      lle.la_asked < params.maxtries ? EWOULDBLOCK : isGateway ? EHOSTUNREACH : EHOSTDOWN;
    const now = nowNs();
    if (lle.la_asked === 0 || now - lle.la_expire >= ARPT_REXMIT * SEC) {
      lle.la_asked++;
      lle.la_expire = now;
      callout_reset(lle.lle_timer, params.wait * SEC);
      arprequest(ifp, INADDR_ANY, addr);
    }
    return error;
  }

  /** A neighbour said it is at `lladdr` (6 bytes): what waited leaves. */
  learned(lle: Llentry, lladdr: Uint8Array): void {
    lle.setAddr(lladdr);
    lle.la_flags |= LLE_VALID;
    lle.la_asked = 0;
    lle.la_preempt = this.#v.params.maxtries;
    if ((lle.la_flags & LLE_STATIC) === 0) this.#reachable(lle);
    else callout_stop(lle.lle_timer);
    for (let m = lle.unhold(); m !== null; m = lle.unhold())
      etherSend(lle.lle_ifp, m, lle.ll_addr, ETHERTYPE_IP);
  }

  #reachable(lle: Llentry): void {
    const { params } = this.#v;
    lle.ln_state = ARP_LLINFO_REACHABLE;
    lle.used = false;
    lle.la_expire = nowNs() + params.max_age * SEC;
    const early = params.max_age - params.maxtries * ARPT_REXMIT;
    callout_reset(lle.lle_timer, (early > 0 ? early : params.max_age) * SEC);
  }

  /** The entry's timer: nearly expired, expired, or never answered. */
  lleTimeout(lle: Llentry): void {
    const { stat } = this.#v;
    if ((lle.la_flags & LLE_STATIC) !== 0) return;
    if (lle.ln_state === ARP_LLINFO_REACHABLE) {
      lle.ln_state = ARP_LLINFO_VERIFY;
      lle.used = false;
      callout_reset(lle.lle_timer, ARPT_REXMIT * SEC);
      return;
    }
    if (lle.ln_state === ARP_LLINFO_VERIFY && nowNs() < lle.la_expire) {
      if (lle.used && lle.la_preempt > 0) {
        lle.la_preempt--;
        arprequest(lle.lle_ifp, INADDR_ANY, inAddrOf(lle.r_l3addr));
      }
      callout_reset(lle.lle_timer, ARPT_REXMIT * SEC);
      return;
    }
    const dropped = this.table.remove(lle);
    stat.dropped += dropped;
    stat.timeouts++;
    if (dropped > 0) count(R_ARP_TIMEOUT, dropped);
  }

  /** Forgets every entry, or with `dynamicOnly` those that were learned. */
  flush(dynamicOnly: boolean): void {
    for (const lle of this.table.list())
      if (!dynamicOnly || (lle.la_flags & LLE_STATIC) === 0)
        this.#v.stat.dropped += this.table.remove(lle);
  }
}

/** ARP's table of an interface; null on one without ARP. */
export function arpTable(ifp: Ifnet): ArpTable | null {
  const resolver = ifp.if_afdata[AF_INET]!;
  return resolver instanceof ArpTable ? resolver : null;
}

/** Writes an ARP packet for Ethernet and IPv4 at `p`; hardware addresses are the caller's to fill. */
function putHeader(p: Kva, op: number, spa: InAddr, tpa: InAddr): void {
  memView.setUint16(p, ARPHRD_ETHER);
  memView.setUint16(p + 2, ETHERTYPE_IP);
  mem[p + 4] = ETHER_ADDR_LEN;
  mem[p + 5] = 4;
  memView.setUint16(p + 6, op);
  memView.setInt32(p + AR_SPA, spa);
  memView.setInt32(p + AR_TPA, tpa);
}

function putLladdr(p: number, addr: Uint8Array): void {
  for (let i = 0; i < ETHER_ADDR_LEN; i++) mem[p + i] = addr[i]!;
}

/**
 * Asks everyone who has `tip`, on behalf of `sip` (0.0.0.0: our address on the network of `tip`).
 * With both the same it is an announcement. @see sys/netinet/if_ether.c
 */
export function arprequest(ifp: Ifnet, sip: InAddr, tip: InAddr): void {
  const { stat } = V_arp(ifp.if_vnet);
  const spa = in_nullhost(sip) ? ifaForPeer(ifp, tip)?.ia_addr : sip;
  const m = spa === undefined ? null : m_gethdr(M_NOWAIT, MT_DATA);
  if (spa === undefined || m === null) {
    stat.txerrors++;
    return;
  }
  M_ALIGN(m, ARP_LEN);
  m.m_len = m.m_pkthdr.len = ARP_LEN;
  m.m_flags |= M_BCAST;
  const p = mtod(m);
  putHeader(p, ARPOP_REQUEST, spa, tip);
  putLladdr(p + AR_SHA, ifp.if_lladdr);
  mem.fill(0, p + AR_THA, p + AR_THA + ETHER_ADDR_LEN);
  stat.txrequests++;
  if (etherSend(ifp, m, etherbroadcastaddr, ETHERTYPE_ARP) !== 0) stat.txerrors++;
}

/** Tells the link that `addr` is ours: RFC 5227's announcement. @see sys/netinet/if_ether.c */
export function arp_announce(ifp: Ifnet, addr: InAddr): void {
  if ((ifp.if_flags & (IFF_UP | IFF_NOARP)) !== IFF_UP) return;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0) arprequest(ifp, addr, addr);
}

/** An address was put on `ifp`: lists it as ours and announces it. @see sys/netinet/if_ether.c */
export function arp_ifinit(ifp: Ifnet, addr: InAddr): void {
  const arp = arpTable(ifp);
  if (arp === null) return;
  const old = arp.find(addr);
  if (old !== null) arp.table.remove(old);
  const lle = arp.create(addr);
  if (lle !== null) {
    lle.setAddr(ifp.if_lladdr);
    lle.la_flags |= LLE_VALID | LLE_STATIC | LLE_IFADDR;
  }
  arp_announce(ifp, addr);
}

function bad(m: Mbuf, vnet: Vnet, why: Reason = R_ARP_BAD): void {
  V_arp(vnet).stat.dropped++;
  count(why);
  m_freem(m);
}

/** An ARP packet came in. Takes `m`, which starts at the ARP header. @see sys/netinet/if_ether.c */
export function arpintr(m0: Mbuf, vnet: Vnet): void {
  const { stat } = V_arp(vnet);
  stat.received++;
  if (m0.m_pkthdr.len < ARP_LEN) return bad(m0, vnet);
  const m = m0.m_len < ARP_LEN ? m_pullup(m0, ARP_LEN) : m0;
  if (m === null) return count(R_ARP_BAD);
  const p = mtod(m);
  if (
    memView.getUint16(p) !== ARPHRD_ETHER ||
    memView.getUint16(p + 2) !== ETHERTYPE_IP ||
    mem[p + 4] !== ETHER_ADDR_LEN ||
    mem[p + 5] !== 4
  )
    return bad(m, vnet);
  const ifp = m.m_pkthdr.rcvif as Ifnet;
  if ((ifp.if_flags & IFF_NOARP) !== 0) return m_freem(m);
  in_arpinput(ifp, m, p, vnet);
}

function lladdrIs(p: number, addr: Uint8Array): boolean {
  for (let i = 0; i < ETHER_ADDR_LEN; i++) if (mem[p + i] !== addr[i]) return false;
  return true;
}

/** RFC 826's reception, on a packet whose form is right. Takes `m`. */
function in_arpinput(ifp: Ifnet, m: Mbuf, p: Kva, vnet: Vnet): void {
  const { stat } = V_arp(vnet);
  const op = memView.getUint16(p + 6);
  const isaddr = memView.getInt32(p + AR_SPA) as InAddr;
  let itaddr = memView.getInt32(p + AR_TPA) as InAddr;
  if (op === ARPOP_REQUEST) stat.rxrequests++;
  else if (op === ARPOP_REPLY) stat.rxreplies++;
  if (IN_MULTICAST(isaddr) || (mem[p + AR_SHA]! & 1) !== 0) return bad(m, vnet);
  const ia = inIfaddrOn(ifp, itaddr) ?? inIfaddrOn(ifp, isaddr) ?? inPrimary(ifp);
  if (ia === null) return bad(m, vnet);
  const myaddr = ia.ia_addr;
  // It is from ourselves: a loop, not a conflict.
  if (lladdrIs(p + AR_SHA, ifp.if_lladdr)) return m_freem(m);
  if (isaddr === myaddr && !in_nullhost(isaddr)) {
    stat.dupips++;
    count(R_ARP_DUPLICATE);
    ifConsole.log?.(
      `arp: ${ether_ntoa(mem.subarray(p + AR_SHA, p + AR_SHA + ETHER_ADDR_LEN))} is using my IP address ${inet_ntoa(isaddr)} on ${ifp.if_xname}!`,
    );
    // Defended by answering as if it had asked.
    itaddr = myaddr;
  } else if (!in_nullhost(isaddr) && (ifp.if_flags & IFF_STATICARP) === 0) {
    learn(ifp, isaddr, p + AR_SHA, itaddr === myaddr);
  }
  if (op !== ARPOP_REQUEST || itaddr !== myaddr) return m_freem(m);
  reply(ifp, m, p, myaddr, isaddr, vnet);
}

/** Refreshes the sender's entry; makes one only if it spoke to us. */
function learn(ifp: Ifnet, isaddr: InAddr, sha: number, toUs: boolean): void {
  const arp = arpTable(ifp);
  if (arp === null) return;
  const lle = arp.find(isaddr) ?? (toUs ? arp.create(isaddr) : null);
  if (lle === null) return;
  const { params } = V_arp(ifp.if_vnet);
  if ((lle.la_flags & LLE_VALID) !== 0 && !lladdrIs(sha, lle.ll_addr)) {
    const now = ether_ntoa(mem.subarray(sha, sha + ETHER_ADDR_LEN));
    if ((lle.la_flags & LLE_STATIC) !== 0) {
      if (params.log_arp_permanent_modify)
        ifConsole.log?.(
          `arp: ${now} attempts to modify permanent entry for ${inet_ntoa(isaddr)} on ${ifp.if_xname}`,
        );
      return;
    }
    if (params.log_arp_movements)
      ifConsole.log?.(
        `arp: ${inet_ntoa(isaddr)} moved from ${ether_ntoa(lle.ll_addr)} to ${now} on ${ifp.if_xname}`,
      );
  }
  if ((lle.la_flags & LLE_STATIC) !== 0) return;
  for (let i = 0; i < ETHER_ADDR_LEN; i++) sender[i] = mem[sha + i]!;
  arp.learned(lle, sender);
}

/** Turns the request in `m` into the answer. Takes `m`. */
function reply(ifp: Ifnet, m: Mbuf, p: Kva, myaddr: InAddr, to: InAddr, vnet: Vnet): void {
  const { stat } = V_arp(vnet);
  for (let i = 0; i < ETHER_ADDR_LEN; i++) sender[i] = mem[p + AR_SHA + i]!;
  putHeader(p, ARPOP_REPLY, myaddr, to);
  putLladdr(p + AR_THA, sender);
  putLladdr(p + AR_SHA, ifp.if_lladdr);
  m.m_flags &= ~(M_BCAST | M_MCAST);
  // What was behind the request is the padding of its frame.
  m_freem(m.m_next);
  m.m_next = null;
  m.m_len = m.m_pkthdr.len = ARP_LEN;
  m.m_pkthdr.rcvif = null;
  m.m_pkthdr.csum_flags = 0;
  stat.txreplies++;
  if (etherSend(ifp, m, sender, ETHERTYPE_ARP) !== 0) stat.txerrors++;
}

/** The ARP entries of a stack, for `arp -a`. @see arp(8) */
export function arpEntries(vnet: Vnet): ArpEntry[] {
  const now = nowNs();
  return ifnetList(vnet).flatMap((ifp) =>
    (arpTable(ifp)?.table.list() ?? []).map((lle) => {
      const valid = (lle.la_flags & LLE_VALID) !== 0;
      const fixed = (lle.la_flags & LLE_STATIC) !== 0;
      const { wait } = V_arp(vnet).params;
      const endNs = valid ? lle.la_expire : lle.la_expire + wait * SEC;
      return {
        ifp,
        addr: inAddrOf(lle.r_l3addr),
        lladdr: valid ? lle.ll_addr : null,
        expires: fixed ? null : Math.max(0, Math.ceil((endNs - now) / SEC)),
      };
    }),
  );
}

/**
 * Makes a permanent entry, as `arp -s`. EINVAL: not on this link; EEXIST: one of our own addresses.
 * @see arp(8)
 */
export function arpSet(ifp: Ifnet, addr: InAddr, lladdr: Uint8Array): Errno {
  const arp = arpTable(ifp);
  const lle = arp === null ? null : (arp.find(addr) ?? arp.create(addr));
  if (arp === null || lle === null) return EINVAL;
  if ((lle.la_flags & LLE_IFADDR) !== 0) return EEXIST;
  lle.la_flags |= LLE_STATIC;
  arp.learned(lle, lladdr);
  return 0;
}

/** Removes an entry, as `arp -d`; ENOENT without one, EINVAL for our own address. @see arp(8) */
export function arpDelete(ifp: Ifnet, addr: InAddr): Errno {
  const arp = arpTable(ifp);
  const lle = arp === null ? null : arp.find(addr);
  if (arp === null || lle === null) return ENOENT;
  if ((lle.la_flags & LLE_IFADDR) !== 0) return EINVAL;
  V_arp(ifp.if_vnet).stat.dropped += arp.table.remove(lle);
  return 0;
}
