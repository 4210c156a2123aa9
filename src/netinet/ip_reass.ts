/**
 * IPv4 reassembly, after sys/netinet/ip_reass.c and RFC 791: with limits on packets, on fragments
 * per packet, on all fragments, and on time. The queue stores the payload of a fragment; its offset
 * is in m_pkthdr.csum_data. The IP header of the first fragment stays in the bytes in front of its
 * data. Of overlapping fragments, the front of the new one and the front of those behind it are
 * trimmed.
 */

import type { Task } from '../sys/clock.ts';
import { count, R_IP_FRAGMENT } from '../sys/reason.ts';
import { inAddr, type InAddr } from '../sys/types.ts';
import { m_freem, mbufZones } from '../kern/kern_mbuf.ts';
import {
  Callout,
  callout_pending,
  callout_reset,
  callout_stop,
  nowNs,
} from '../kern/kern_timeout.ts';
import { type Mbuf, M_PKTHDR, mtod } from '../kern/mbuf.ts';
import { m_adj, m_cat, m_last } from '../kern/uipc_mbuf.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import {
  Ip,
  IP_MAXPACKET,
  IP_MF,
  IP_OFFMASK,
  IPTOS_ECN_CE,
  IPTOS_ECN_MASK,
  IPTOS_ECN_NOTECT,
} from './ip.ts';
import { ipstat, type Ipstat } from './ip_var.ts';

const IPREASS_NHASH = 1024;
const SEC = 1e9;

const $ip = new Ip();

/** The reassembly queue of one packet. */
class Ipq {
  ipq_src: InAddr = inAddr(0);
  ipq_dst: InAddr = inAddr(0);
  ipq_id = 0;
  ipq_p = 0;
  ipq_ecn = IPTOS_ECN_NOTECT;
  /** Fragments ordered by offset, linked by m_nextpkt. */
  ipq_frags: Mbuf | null = null;
  ipq_nfrags = 0;
  /** Payload bytes of the whole packet; -1 until the last fragment has arrived. */
  total = -1;
  /** Whether the queue holds the last fragment. */
  hasLast = false;
  /** Header bytes of the first fragment; 0 until it has arrived. */
  hlen = 0;
  /** Time-out of the queue, ns since boot. */
  expiresNs = 0;
  bucket = 0;
  nextHash: Ipq | null = null;
  older: Ipq | null = null;
  younger: Ipq | null = null;
}

/** The reassembly queues of a stack, with the settings and gauges under net.inet.ip. */
class IpReass implements Task {
  /** Limit of packets in reassembly; 0: accept no fragments; -1: no limit. */
  maxfragpackets: number;
  /** Limit of all queued fragments; 0: accept no fragments; -1: no limit. */
  maxfrags: number;
  /**
   * Limit of fragments of one packet. Unlike FreeBSD's 16, this is 64, because the largest IP
   * packet needs 45 fragments over Ethernet. One more passes if it completes the packet.
   */
  maxfragsperpacket = 64;
  /** Seconds after which an incomplete packet is dropped. */
  fragttl = 30;
  fragpackets = 0;
  curfrags = 0;
  readonly #buckets: (Ipq | null)[] = Array.from({ length: IPREASS_NHASH }, () => null);
  readonly #free: Ipq[] = [];
  readonly #callout = new Callout(this);
  readonly #seed: number;
  readonly #stat: Ipstat;
  #oldest: Ipq | null = null;
  #youngest: Ipq | null = null;

  constructor(vnet: Vnet) {
    const limit = Math.max(Math.floor(mbufZones().clust.max / 32), 1);
    this.maxfragpackets = limit;
    this.maxfrags = limit;
    this.#seed = vnet.prng.next32();
    this.#stat = ipstat(vnet);
  }

  #hash(src: InAddr, dst: InAddr, id: number, p: number): number {
    let h = Math.imul(src ^ this.#seed, 0x9e3779b1) ^ dst;
    h = Math.imul(h ^ (h >>> 15), 0x85ebca6b) ^ ((id << 8) | p);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return (h ^ (h >>> 16)) & (IPREASS_NHASH - 1);
  }

  find(src: InAddr, dst: InAddr, id: number, p: number): Ipq | null {
    let q = this.#buckets[this.#hash(src, dst, id, p)]!;
    for (; q !== null; q = q.nextHash!)
      if (q.ipq_id === id && q.ipq_src === src && q.ipq_dst === dst && q.ipq_p === p) return q;
    return null;
  }

  /** Creates a queue. At the limit of packets, drops the oldest queue first. */
  create(src: InAddr, dst: InAddr, id: number, p: number): Ipq {
    if (this.maxfragpackets >= 0 && this.fragpackets >= this.maxfragpackets) {
      const old = this.#oldest;
      if (old !== null) this.dropQueue(old);
    }
    const q = this.#free.pop() ?? new Ipq();
    q.ipq_src = src;
    q.ipq_dst = dst;
    q.ipq_id = id;
    q.ipq_p = p;
    q.ipq_frags = null;
    q.ipq_nfrags = 0;
    q.total = -1;
    q.hasLast = false;
    q.hlen = 0;
    q.expiresNs = nowNs() + this.fragttl * SEC;
    q.bucket = this.#hash(src, dst, id, p);
    q.nextHash = this.#buckets[q.bucket]!;
    this.#buckets[q.bucket] = q;
    q.older = this.#youngest;
    q.younger = null;
    if (this.#youngest === null) this.#oldest = q;
    else this.#youngest.younger = q;
    this.#youngest = q;
    this.fragpackets++;
    if (!callout_pending(this.#callout)) callout_reset(this.#callout, this.fragttl * SEC);
    return q;
  }

  /** Removes a queue and returns it to the pool. The caller owns its fragments. */
  remove(q: Ipq): void {
    let at = this.#buckets[q.bucket]!;
    if (at === q) {
      this.#buckets[q.bucket] = q.nextHash;
    } else {
      while (at !== null && at.nextHash !== q) at = at.nextHash!;
      if (at !== null) at.nextHash = q.nextHash;
    }
    if (q.older === null) this.#oldest = q.younger;
    else q.older.younger = q.younger;
    if (q.younger === null) this.#youngest = q.older;
    else q.younger.older = q.older;
    q.nextHash = null;
    q.older = null;
    q.younger = null;
    q.ipq_frags = null;
    this.fragpackets--;
    this.curfrags -= q.ipq_nfrags;
    this.#free.push(q);
    if (this.fragpackets === 0) callout_stop(this.#callout);
  }

  /** Frees a queue with its fragments and counts them as dropped. */
  dropQueue(q: Ipq): void {
    this.#stat.ips_fragdropped += q.ipq_nfrags;
    this.#freeQueue(q);
  }

  #freeQueue(q: Ipq): void {
    if (q.ipq_nfrags > 0) count(R_IP_FRAGMENT, q.ipq_nfrags);
    let m = q.ipq_frags;
    this.remove(q);
    while (m !== null) {
      const next: Mbuf | null = m.m_nextpkt;
      m_freem(m);
      m = next;
    }
  }

  /** Timer: drops the queues whose time-out has passed. */
  run(): void {
    const now = nowNs();
    while (this.#oldest !== null && this.#oldest.expiresNs <= now) {
      this.#stat.ips_fragtimeout += this.#oldest.ipq_nfrags;
      this.#freeQueue(this.#oldest);
    }
    const next = this.#oldest;
    if (next !== null) callout_reset(this.#callout, Math.max(next.expiresNs - now, 0));
  }

  /** Drops all queues. Called when the stack is destroyed. */
  drain(): void {
    while (this.#oldest !== null) this.dropQueue(this.#oldest);
  }
}

export const V_ipreass = VNET_DEFINE((vnet) => new IpReass(vnet));

function discard(m: Mbuf, stat: Ipstat): null {
  stat.ips_fragdropped++;
  count(R_IP_FRAGMENT);
  m_freem(m);
  return null;
}

/**
 * Merges the ECN bits of a fragment into the queue's (RFC 3168, 5.3). False: drop the fragment,
 * because one of the two is not-ECT.
 */
function ecnMerge(q: Ipq, ecn: number): boolean {
  if (q.ipq_nfrags === 0) q.ipq_ecn = ecn;
  if (ecn === q.ipq_ecn) return true;
  if (ecn === IPTOS_ECN_NOTECT) return false;
  if (ecn !== IPTOS_ECN_CE) return true;
  if (q.ipq_ecn === IPTOS_ECN_NOTECT) return false;
  q.ipq_ecn = IPTOS_ECN_CE;
  return true;
}

/**
 * Inserts the payload `m` into the queue. Takes `m`; returns whether any of it was kept. Trims the
 * front of `m` where an earlier fragment overlaps it, and the front of later fragments that `m`
 * overlaps.
 */
function insert(q: Ipq, m: Mbuf, reass: IpReass, stat: Ipstat): boolean {
  let prev: Mbuf | null = null;
  let next = q.ipq_frags;
  while (next !== null && next.m_pkthdr.csum_data <= m.m_pkthdr.csum_data) {
    prev = next;
    next = next.m_nextpkt;
  }
  if (prev !== null) {
    const over = prev.m_pkthdr.csum_data + prev.m_pkthdr.len - m.m_pkthdr.csum_data;
    if (over >= m.m_pkthdr.len) {
      discard(m, stat);
      return false;
    }
    if (over > 0) {
      m_adj(m, over);
      m.m_pkthdr.csum_data += over;
    }
  }
  const end = m.m_pkthdr.csum_data + m.m_pkthdr.len;
  while (next !== null && next.m_pkthdr.csum_data < end) {
    const over = end - next.m_pkthdr.csum_data;
    if (over < next.m_pkthdr.len) {
      m_adj(next, over);
      next.m_pkthdr.csum_data += over;
      break;
    }
    const gone = next;
    next = gone.m_nextpkt;
    gone.m_nextpkt = null;
    q.ipq_nfrags--;
    reass.curfrags--;
    discard(gone, stat);
  }
  m.m_nextpkt = next;
  if (prev === null) q.ipq_frags = m;
  else prev.m_nextpkt = m;
  q.ipq_nfrags++;
  reass.curfrags++;
  return true;
}

/** Whether all bytes of the packet have arrived. */
function isComplete(q: Ipq): boolean {
  if (!q.hasLast || q.hlen === 0) return false;
  let off = 0;
  for (let m = q.ipq_frags; m !== null; m = m.m_nextpkt) {
    if (m.m_pkthdr.csum_data !== off) return false;
    off += m.m_pkthdr.len;
  }
  return off === q.total;
}

/** Joins the fragments of a complete queue into one packet and removes the queue. */
function join(q: Ipq, reass: IpReass): Mbuf {
  const m = q.ipq_frags!;
  const { hlen, total, ipq_ecn } = q;
  reass.remove(q);
  let next = m.m_nextpkt;
  m.m_nextpkt = null;
  let tail = m_last(m);
  while (next !== null) {
    const frag: Mbuf = next;
    next = frag.m_nextpkt;
    frag.m_nextpkt = null;
    frag.m_flags &= ~M_PKTHDR;
    m_cat(tail, frag);
    tail = m_last(tail);
  }
  m.m_data -= hlen;
  m.m_len += hlen;
  const ph = m.m_pkthdr;
  ph.len = total + hlen;
  // The checksum of the whole packet has not been verified.
  ph.csum_flags = 0;
  ph.csum_data = 0;
  $ip.at(mtod(m));
  $ip.ip_len = total + hlen;
  $ip.ip_off &= ~(IP_MF | IP_OFFMASK);
  $ip.ip_tos = ($ip.ip_tos & ~IPTOS_ECN_MASK) | ipq_ecn;
  return m;
}

/**
 * Processes a received fragment. `m` starts with its IP header, which is contiguous and validated.
 * Takes `m`. Returns the whole packet, which the caller owns, if it is complete now, else null.
 * @see sys/netinet/ip_reass.c
 */
export function ip_reass(m: Mbuf, vnet: Vnet): Mbuf | null {
  const reass = V_ipreass(vnet);
  const stat = ipstat(vnet);
  const ip = $ip.at(mtod(m));
  const hlen = ip.ip_hl << 2;
  const len = ip.ip_len - hlen;
  const off = (ip.ip_off & IP_OFFMASK) << 3;
  const more = (ip.ip_off & IP_MF) !== 0;
  stat.ips_fragments++;
  if (reass.maxfragpackets === 0 || reass.maxfragsperpacket <= 0) return discard(m, stat);
  if (reass.maxfrags >= 0 && reass.curfrags >= reass.maxfrags) return discard(m, stat);
  if (len === 0 || (more && (len & 7) !== 0)) {
    stat.ips_toosmall++;
    return discard(m, stat);
  }
  if (off + len + hlen > IP_MAXPACKET) {
    stat.ips_toolong++;
    return discard(m, stat);
  }
  const { ip_src, ip_dst, ip_id, ip_p } = ip;
  const q = reass.find(ip_src, ip_dst, ip_id, ip_p) ?? reass.create(ip_src, ip_dst, ip_id, ip_p);
  // A fragment that contradicts the end that the last one gave is dropped; the queue stays.
  const end = off + len;
  if (q.total >= 0) {
    if (more ? end >= q.total : end !== q.total) return discard(m, stat);
  } else if (!more) {
    q.total = end;
  }
  if (!ecnMerge(q, ip.ip_tos & IPTOS_ECN_MASK)) return discard(m, stat);
  m_adj(m, hlen);
  m.m_pkthdr.csum_data = off;
  if (insert(q, m, reass, stat)) {
    if (!more) q.hasLast = true;
    if (off === 0 && q.hlen === 0) q.hlen = hlen;
  }
  if (!isComplete(q)) {
    // As in FreeBSD, one fragment above the limit is accepted if it completes the packet.
    if (q.ipq_nfrags > Math.max(reass.maxfragsperpacket, 1)) reass.dropQueue(q);
    return null;
  }
  stat.ips_reassembled++;
  return join(q, reass);
}
