/**
 * ARP, after sys/netinet/if_ether.c and RFC 826: resolution with held packets, replies, refresh of
 * entries in use, announcements, duplicate addresses (probes: in_acd.ts), proxy ARP of published entries. Left out:
 * carp, bridge members, blackhole and reject entries.
 *
 * States of an entry: INCOMPLETE (a request at most once per second, only while packets are sent)
 * -> REACHABLE -> VERIFY (in the last seconds of its lifetime: a request if it was used) ->
 * removed.
 */

import { nextPktId } from '../sys/packet_id.ts';
import { CAPTURE_IF, CAPTURE_IN, CAPTURE_OUT } from '../sys/capture.ts';
import { countDrop, pullupInput } from '../net/capture_drop.ts';
import type { Task } from '../sys/clock.ts';
import { EEXIST, EHOSTDOWN, EHOSTUNREACH, EINVAL, ENOBUFS, ENOENT } from '../sys/errno.ts';
import { type Errno, EWOULDBLOCK } from '../sys/errno.ts';
import {
  count,
  R_ARP_BAD,
  R_ARP_DUPLICATE,
  R_ARP_EVICTED,
  R_ARP_HOLD_FULL,
  R_ARP_TIMEOUT,
  R_ARP_UNDEFENDED,
  type Reason,
} from '../sys/reason.ts';
import type { InAddr, Kva } from '../sys/types.ts';
import { m_freem, m_gethdr } from '../kern/kern_mbuf.ts';
import { Callout, callout_reset, callout_stop, nowNs } from '../kern/kern_timeout.ts';
import { M_ALIGN, M_BCAST, type Mbuf, M_MCAST, M_NOWAIT, MT_DATA, mtod } from '../kern/mbuf.ts';
import { AF_INET } from '../kern/protosw.ts';
import { answersForAddresses, VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { etherbroadcastaddr, ETHERTYPE_ARP, ETHERTYPE_IP, ether_ntoa } from '../net/ethernet.ts';
import { ifConsole, ifnetList } from '../net/if.ts';
import { etherSend } from '../net/if_ethersubr.ts';
import { Llentry, LLE_IFADDR, LLE_PUB, LLE_STATIC, LLE_VALID } from '../net/if_llatbl.ts';
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
import { NeighborCache } from '../net/neighbor_cache.ts';
import { RTF_GATEWAY } from '../net/route.ts';
import { mem, memView } from '../vm/arena.ts';
import { IN_MULTICAST, INADDR_ANY, inAddrOf, inet_ntoa, inNetAddr, in_nullhost } from './in.ts';
import { fib4_lookup } from './in_fib.ts';
import type { ArpProbe, PendingAddr } from './arp_probe.ts';
import { ifaForPeer, type InIfaddr, inIfaddrFor, inIfaddrOn, inPrimary } from './in_var.ts';
import { IP_DST_OFF } from './ip.ts';

const ARPHRD_ETHER = 1;
const ARPOP_REQUEST = 1;
const ARPOP_REPLY = 2;
const ARP_LEN = 28; // of Ethernet and IPv4
// Offsets: hardware type 0, protocol type 2, address lengths 4 and 5, operation 6, then
const AR_SHA = 8;
const AR_SPA = 14;
const AR_THA = 18;
const AR_TPA = 24;

const ARP_LLINFO_REACHABLE = 1;
const ARP_LLINFO_VERIFY = 2;

const SEC = 1e9;
/** Seconds between requests. */
const ARPT_REXMIT = 1;
/** RFC 5227, 1.1. */
const ANNOUNCE_INTERVAL_NS = 2 * SEC;
const DEFEND_INTERVAL_NS = 10 * SEC;
/** ARP statistics, with FreeBSD's names. @see sys/net/if_arp.h */
class Arpstat {
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
class ArpParams {
  max_age = 1200;
  wait = 20;
  maxtries = 5;
  maxhold = 16;
  log_arp_movements = true;
  log_arp_permanent_modify = true;
  /** Lines per second that packets may cause; negative: no limit. */
  max_log_per_second = 1;
  /** How often an announcement is repeated, after 1, 2, 4, ... seconds. */
  garp_rexmit_count = 0;
  /** Ours: probe configured addresses, and defend them as RFC 5227 says. */
  acd = false;
}

class ArpVnet {
  readonly stat = new Arpstat();
  readonly params = new ArpParams();
  #windowNs = -SEC;
  #lines = 0;

  /** Whether a packet may cause one more line in the log in this second. */
  mayLog(): boolean {
    const { max_log_per_second: max } = this.params;
    const now = nowNs();
    if (now - this.#windowNs >= SEC) {
      this.#windowNs = now;
      this.#lines = 0;
    }
    return max < 0 || ++this.#lines <= max;
  }
}

export const V_arp = VNET_DEFINE(() => new ArpVnet());

/** ARP statistics of a stack, for `netstat -s`. */
export function arpstat(vnet: Vnet): Arpstat {
  return V_arp(vnet).stat;
}

/** A line of `arp -a`. */
interface ArpEntry {
  readonly ifp: Ifnet;
  readonly addr: InAddr;
  /** 6 bytes, borrowed; null while the entry is incomplete. */
  readonly lladdr: Uint8Array | null;
  /** Seconds until the entry expires; null: permanent. */
  readonly expires: number | null;
  /** Requests of others for the address are answered. */
  readonly published: boolean;
}

// The Ethernet address of the sender of the ARP packet being processed.
const sender = new Uint8Array(ETHER_ADDR_LEN);
// The Ethernet address of the IPv4 group being resolved, RFC 1112, 6.4.
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

/** Whether a route, such as `route add -host ADDR -interface IF`, puts `addr` on the link of `ifp`. */
function routedOnLink(ifp: Ifnet, addr: InAddr): boolean {
  const nh = fib4_lookup(ifp.if_vnet, addr);
  return nh !== null && nh.nh_ifp === ifp && (nh.nh_flags & RTF_GATEWAY) === 0;
}

const REASONS = { timeout: R_ARP_TIMEOUT, evicted: R_ARP_EVICTED, holdFull: R_ARP_HOLD_FULL };

/** The ARP table of one interface. */
export class ArpTable extends NeighborCache implements LinkResolver {
  readonly ethertype = ETHERTYPE_IP;
  /** Announcements that are repeated, by address. */
  readonly garps = new Map<InAddr, Garp>();
  /** The probes that run, each of one address. */
  readonly probes = new Set<ArpProbe>();
  /** The configured addresses that are not usable: in_acd.ts. */
  readonly pending = new Map<InAddr, PendingAddr>();
  /** Of configured addresses: conflicts that probes found, and the time of the last attempt, ns. */
  conflicts = 0;
  attemptNs = 0;
  /** The Ethernet address of the host that caused the last conflict of a probe. */
  readonly conflictWith = new Uint8Array(ETHER_ADDR_LEN);
  resolved: LinkAddr = group;
  readonly #v: ArpVnet;

  constructor(ifp: Ifnet) {
    super(ifp, REASONS);
    this.#v = V_arp(ifp.if_vnet);
  }

  /** The entry of `addr`, or null. */
  find(addr: InAddr): Llentry | null {
    return this.table.lookup(addr, 0, 0, 0);
  }

  /**
   * Creates an entry; null if `addr` is on no network of the interface and no route says that it is
   * on the link, or the table is full of static entries.
   */
  create(addr: InAddr): Llentry | null {
    const ifp = this.table.llt_ifp;
    if (ifaForPeer(ifp, addr) === null && !routedOnLink(ifp, addr)) return null;
    return this.add(inNetAddr(addr));
  }

  protected override dropped(packets: number): void {
    this.#v.stat.dropped += packets;
  }

  /** Resolves a next hop for ether_output; errnos: see LinkResolver. @see sys/netinet/if_ether.c */
  resolve(ifp: Ifnet, m: Mbuf, dst: OutputDst): Errno {
    if ((m.m_flags & M_MCAST) !== 0) {
      ETHER_MAP_IP_MULTICAST(inAddrOf(dst), group.ll_addr);
      this.resolved = group;
      return 0;
    }
    const lle = this.table.find(dst);
    if (lle !== null && (lle.la_flags & LLE_VALID) !== 0) {
      lle.used = true;
      lle.recent = true;
      this.resolved = lle;
      return 0;
    }
    return this.#ask(ifp, m, inAddrOf(dst), lle);
  }

  /**
   * Holds `m` and sends an ARP request for its next hop, at most once per second. Takes `m`.
   * EWOULDBLOCK: held. After maxtries requests EHOSTUNREACH (gateway) or EHOSTDOWN. EINVAL or
   * ENOBUFS: no entry.
   */
  #ask(ifp: Ifnet, m: Mbuf, addr: InAddr, found: Llentry | null): Errno {
    const { stat, params } = this.#v;
    const lle =
      found ?? ((ifp.if_flags & (IFF_NOARP | IFF_STATICARP)) === 0 ? this.create(addr) : null);
    if (lle === null) {
      countDrop(m, R_ARP_TIMEOUT, CAPTURE_IF, CAPTURE_OUT, ifp);
      m_freem(m);
      stat.dropped++;
      return this.full ? ENOBUFS : EINVAL;
    }
    const isGateway = memView.getInt32(mtod(m) + IP_DST_OFF) !== addr;
    this.hold(lle, m, params.maxhold);
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

  /** Sets the address of an entry to `lladdr` (6 bytes) and sends the held packets. */
  learned(lle: Llentry, lladdr: Uint8Array): void {
    this.resolveEntry(lle, lladdr);
    lle.la_preempt = this.#v.params.maxtries;
    if ((lle.la_flags & LLE_STATIC) === 0) this.#reachable(lle);
    else callout_stop(lle.lle_timer);
    this.sendHeld(lle);
  }

  /** Enters REACHABLE and starts the timer that ends it shortly before the entry expires. */
  #reachable(lle: Llentry): void {
    const { params } = this.#v;
    lle.ln_state = ARP_LLINFO_REACHABLE;
    lle.used = false;
    lle.la_expire = nowNs() + params.max_age * SEC;
    const early = params.max_age - params.maxtries * ARPT_REXMIT;
    callout_reset(lle.lle_timer, (early > 0 ? early : params.max_age) * SEC);
  }

  /**
   * The entry's timer: enters VERIFY, sends a request in VERIFY if the entry is in use, or removes
   * an expired or unanswered entry.
   */
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
    this.remove(lle, R_ARP_TIMEOUT);
    stat.timeouts++;
  }
}

/** The ARP table of an interface; null if it does not use ARP. */
export function arpTable(ifp: Ifnet): ArpTable | null {
  const resolver = ifp.if_afdata[AF_INET]!;
  return resolver instanceof ArpTable ? resolver : null;
}

/** Writes an ARP packet for Ethernet and IPv4 at `p`, without the hardware addresses. */
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
 * Broadcasts an ARP request for `tip` with the sender `sip` (0.0.0.0: our address on the network of
 * `tip`, or else the first). If both are equal it is an announcement. @see sys/netinet/if_ether.c
 */
function arprequest(ifp: Ifnet, sip: InAddr, tip: InAddr): void {
  const spa = in_nullhost(sip) ? inIfaddrFor(ifp, tip)?.ia_addr : sip;
  if (spa === undefined) V_arp(ifp.if_vnet).stat.txerrors++;
  else sendRequest(ifp, spa, tip);
}

/** Broadcasts a probe for `addr`: a request with the sender 0.0.0.0, RFC 5227, 2.1.1. */
export function arpProbe(ifp: Ifnet, addr: InAddr): void {
  sendRequest(ifp, INADDR_ANY, addr);
}

function sendRequest(ifp: Ifnet, spa: InAddr, tip: InAddr): void {
  const { stat } = V_arp(ifp.if_vnet);
  const m = m_gethdr(M_NOWAIT, MT_DATA);
  if (m === null) {
    stat.txerrors++;
    return;
  }
  M_ALIGN(m, ARP_LEN);
  m.m_len = m.m_pkthdr.len = ARP_LEN;
  m.m_pkthdr.pktId = nextPktId();
  m.m_flags |= M_BCAST;
  const p = mtod(m);
  putHeader(p, ARPOP_REQUEST, spa, tip);
  putLladdr(p + AR_SHA, ifp.if_lladdr);
  mem.fill(0, p + AR_THA, p + AR_THA + ETHER_ADDR_LEN);
  stat.txrequests++;
  if (etherSend(ifp, m, etherbroadcastaddr, ETHERTYPE_ARP) !== 0) stat.txerrors++;
}

/**
 * Repeats the announcement of one address: net.link.ether.inet.garp_rexmit_count times, or, after
 * probes, once after ANNOUNCE_INTERVAL if that is more. RFC 5227, 2.3.
 */
class Garp implements Task {
  readonly #ifp: Ifnet;
  readonly #addr: InAddr;
  readonly #callout = new Callout(this);
  readonly #probed: boolean;
  #count = 0;

  constructor(ifp: Ifnet, addr: InAddr, probed: boolean) {
    this.#ifp = ifp;
    this.#addr = addr;
    this.#probed = probed;
    callout_reset(this.#callout, probed ? ANNOUNCE_INTERVAL_NS : SEC);
  }

  run(): void {
    if (inIfaddrOn(this.#ifp, this.#addr) === null) return;
    const { garp_rexmit_count } = V_arp(this.#ifp.if_vnet).params;
    const times = this.#probed ? Math.max(1, garp_rexmit_count) : garp_rexmit_count;
    if (this.#count >= times) return;
    arp_announce(this.#ifp, this.#addr);
    this.#count++;
    const intervalNs = this.#probed ? ANNOUNCE_INTERVAL_NS : SEC * 2 ** this.#count;
    if (this.#count < times) callout_reset(this.#callout, intervalNs);
  }

  stop(): void {
    callout_stop(this.#callout);
  }
}

/** Announces `addr` if the interface is running: RFC 5227. @see sys/netinet/if_ether.c */
export function arp_announce(ifp: Ifnet, addr: InAddr): void {
  if ((ifp.if_flags & (IFF_UP | IFF_NOARP)) !== IFF_UP) return;
  if (!answersForAddresses(ifp.if_vnet)) return;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0) arprequest(ifp, addr, addr);
}

/**
 * Adds a static entry for the new address `addr` of `ifp` and announces it.
 * @see sys/netinet/if_ether.c
 */
export function arp_ifinit(ifp: Ifnet, addr: InAddr): void {
  const arp = arpTable(ifp);
  if (arp === null) return;
  const old = arp.find(addr);
  if (old !== null) arp.remove(old);
  const lle = arp.create(addr);
  if (lle !== null) {
    lle.setAddr(ifp.if_lladdr);
    arp.keep(lle, LLE_VALID | LLE_STATIC | LLE_IFADDR);
  }
  arp_announce(ifp, addr);
  if (V_arp(ifp.if_vnet).params.garp_rexmit_count > 0) {
    arp.garps.get(addr)?.stop();
    arp.garps.set(addr, new Garp(ifp, addr, false));
  }
}

/** Announces the new address `addr` again, after probes: ANNOUNCE_NUM is 2. RFC 5227, 2.3. */
export function arpAnnounceAgain(ifp: Ifnet, addr: InAddr): void {
  const arp = arpTable(ifp);
  arp?.garps.get(addr)?.stop();
  arp?.garps.set(addr, new Garp(ifp, addr, true));
}

/** The address `addr` of `ifp` goes: ends its announcements. @see sys/netinet/if_ether.c */
export function arp_ifscrub(ifp: Ifnet, addr: InAddr): void {
  const garps = arpTable(ifp)?.garps;
  garps?.get(addr)?.stop();
  garps?.delete(addr);
}

function bad(m: Mbuf, vnet: Vnet, why: Reason = R_ARP_BAD): void {
  V_arp(vnet).stat.dropped++;
  countDrop(m, why, CAPTURE_IF, CAPTURE_IN);
  m_freem(m);
}

/**
 * Input of an ARP packet. Takes `m0`, which starts at the ARP header.
 * @see sys/netinet/if_ether.c
 */
export function arpintr(m0: Mbuf, vnet: Vnet): void {
  const { stat } = V_arp(vnet);
  stat.received++;
  if (m0.m_pkthdr.len < ARP_LEN) return bad(m0, vnet);
  const m = m0.m_len < ARP_LEN ? pullupInput(m0, ARP_LEN, R_ARP_BAD, CAPTURE_IF) : m0;
  if (m === null) return;
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

/** Processes a well-formed ARP packet: RFC 826, packet reception. Takes `m`. */
function in_arpinput(ifp: Ifnet, m: Mbuf, p: Kva, vnet: Vnet): void {
  const { stat } = V_arp(vnet);
  const op = memView.getUint16(p + 6);
  const isaddr = memView.getInt32(p + AR_SPA) as InAddr;
  let itaddr = memView.getInt32(p + AR_TPA) as InAddr;
  if (op === ARPOP_REQUEST) stat.rxrequests++;
  else if (op === ARPOP_REPLY) stat.rxreplies++;
  if (IN_MULTICAST(isaddr) || (mem[p + AR_SHA]! & 1) !== 0) return bad(m, vnet);
  const own = lladdrIs(p + AR_SHA, ifp.if_lladdr);
  const probed = !own && passToProbes(ifp, p, op === ARPOP_REQUEST, isaddr, itaddr);
  const ia = inIfaddrOn(ifp, itaddr) ?? inIfaddrOn(ifp, isaddr) ?? inPrimary(ifp);
  if (ia === null) return probed ? m_freem(m) : bad(m, vnet);
  const myaddr = ia.ia_addr;
  // Our own packet was looped back: not a conflict.
  if (own) return m_freem(m);
  if (isaddr === myaddr && !in_nullhost(isaddr)) {
    if (!answersForAddresses(vnet)) return m_freem(m);
    conflict(ifp, ia, p, vnet);
    if (V_arp(vnet).params.acd) return m_freem(m);
    // Defend the address: reply as to a request for it.
    itaddr = myaddr;
  } else if (!in_nullhost(isaddr) && (ifp.if_flags & IFF_STATICARP) === 0) {
    learn(ifp, isaddr, p + AR_SHA, itaddr === myaddr);
  }
  if (op !== ARPOP_REQUEST || !answersForAddresses(vnet)) return m_freem(m);
  if (itaddr === myaddr) return reply(ifp, m, p, myaddr, ifp.if_lladdr, isaddr, vnet);
  const lle = arpTable(ifp)?.find(itaddr) ?? null;
  const published = LLE_PUB | LLE_VALID;
  if (lle === null || (lle.la_flags & published) !== published) return m_freem(m);
  reply(ifp, m, p, itaddr, lle.ll_addr, isaddr, vnet);
}

/** Passes a packet of another host to the probes of `ifp`. Returns whether it is a conflict of one. */
function passToProbes(ifp: Ifnet, p: Kva, req: boolean, spa: InAddr, tpa: InAddr): boolean {
  const arp = arpTable(ifp);
  if (arp === null || arp.probes.size === 0) return false;
  let found = false;
  for (const probe of arp.probes) if (probe.seen(req, spa, tpa)) found = true;
  if (!found) return false;
  for (let i = 0; i < ETHER_ADDR_LEN; i++) arp.conflictWith[i] = mem[p + AR_SHA + i]!;
  V_arp(ifp.if_vnet).stat.dupips++;
  count(R_ARP_DUPLICATE);
  return true;
}

/**
 * Another host uses our address `ia`. With acd the address is defended by one announcement in
 * DEFEND_INTERVAL, and kept: RFC 5227, 2.4 (c).
 */
function conflict(ifp: Ifnet, ia: InIfaddr, p: Kva, vnet: Vnet): void {
  const { stat, params } = V_arp(vnet);
  stat.dupips++;
  count(R_ARP_DUPLICATE);
  if (V_arp(vnet).mayLog())
    ifConsole.log?.(
      `arp: ${ether_ntoa(mem.subarray(p + AR_SHA, p + AR_SHA + ETHER_ADDR_LEN))} is using my IP address ${inet_ntoa(ia.ia_addr)} on ${ifp.if_xname}!`,
    );
  if (!params.acd) return;
  const now = nowNs();
  if (now - ia.defendedNs < DEFEND_INTERVAL_NS) return count(R_ARP_UNDEFENDED);
  ia.defendedNs = now;
  arp_announce(ifp, ia.ia_addr);
}

/** Updates the sender's entry. Creates one only if the packet was for our address (`toUs`). */
function learn(ifp: Ifnet, isaddr: InAddr, sha: number, toUs: boolean): void {
  const arp = arpTable(ifp);
  if (arp === null) return;
  const lle = arp.find(isaddr) ?? (toUs ? arp.create(isaddr) : null);
  if (lle === null) return;
  const { params } = V_arp(ifp.if_vnet);
  if ((lle.la_flags & LLE_VALID) !== 0 && !lladdrIs(sha, lle.ll_addr)) {
    const now = ether_ntoa(mem.subarray(sha, sha + ETHER_ADDR_LEN));
    if ((lle.la_flags & LLE_STATIC) !== 0) {
      if (params.log_arp_permanent_modify && V_arp(ifp.if_vnet).mayLog())
        ifConsole.log?.(
          `arp: ${now} attempts to modify permanent entry for ${inet_ntoa(isaddr)} on ${ifp.if_xname}`,
        );
      return;
    }
    if (params.log_arp_movements && V_arp(ifp.if_vnet).mayLog())
      ifConsole.log?.(
        `arp: ${inet_ntoa(isaddr)} moved from ${ether_ntoa(lle.ll_addr)} to ${now} on ${ifp.if_xname}`,
      );
  }
  if ((lle.la_flags & LLE_STATIC) !== 0) return;
  for (let i = 0; i < ETHER_ADDR_LEN; i++) sender[i] = mem[sha + i]!;
  arp.learned(lle, sender);
}

/** Turns the request in `m` into the reply that `who` is at `lladdr`, and sends it. Takes `m`. */
function reply(
  ifp: Ifnet,
  m: Mbuf,
  p: Kva,
  who: InAddr,
  lladdr: Uint8Array,
  to: InAddr,
  vnet: Vnet,
): void {
  const { stat } = V_arp(vnet);
  for (let i = 0; i < ETHER_ADDR_LEN; i++) sender[i] = mem[p + AR_SHA + i]!;
  putHeader(p, ARPOP_REPLY, who, to);
  putLladdr(p + AR_THA, sender);
  putLladdr(p + AR_SHA, lladdr);
  m.m_flags &= ~(M_BCAST | M_MCAST);
  // Cut the padding of the received frame.
  m_freem(m.m_next);
  m.m_next = null;
  m.m_len = m.m_pkthdr.len = ARP_LEN;
  m.m_pkthdr.rcvif = null;
  m.m_pkthdr.csum_flags = 0;
  m.m_pkthdr.pktId = nextPktId();
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
        published: (lle.la_flags & LLE_PUB) !== 0,
      };
    }),
  );
}

/**
 * Adds an entry, as `arp -s` does: permanent, or with `temp` one that expires; with `pub` requests for
 * it are answered. EINVAL: `addr` is on no network of the interface, or the table is full of permanent
 * ones. EEXIST: `addr` is our own address.
 * @see arp(8)
 */
export function arpSet(
  ifp: Ifnet,
  addr: InAddr,
  lladdr: Uint8Array,
  { temp = false, pub = false } = {},
): Errno {
  const arp = arpTable(ifp);
  const old = arp?.find(addr) ?? null;
  if (old !== null && (old.la_flags & LLE_IFADDR) !== 0) return EEXIST;
  // A permanent entry that becomes temporary needs a timer and a place in the queues.
  if (old !== null && temp) arp!.remove(old);
  const lle = arp === null ? null : (arp.find(addr) ?? arp.create(addr));
  if (arp === null || lle === null) return EINVAL;
  if (!temp) arp.keep(lle, LLE_STATIC);
  lle.la_flags = pub ? lle.la_flags | LLE_PUB : lle.la_flags & ~LLE_PUB;
  arp.learned(lle, lladdr);
  return 0;
}

/** Removes an entry, as `arp -d` does. ENOENT: no entry. EINVAL: our own address. @see arp(8) */
export function arpDelete(ifp: Ifnet, addr: InAddr): Errno {
  const arp = arpTable(ifp);
  const lle = arp === null ? null : arp.find(addr);
  if (arp === null || lle === null) return ENOENT;
  if ((lle.la_flags & LLE_IFADDR) !== 0) return EINVAL;
  arp.remove(lle);
  return 0;
}
