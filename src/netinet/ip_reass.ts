/**
 * IPv4 reassembly, after sys/netinet/ip_reass.c and RFC 791: with limits on packets, on fragments
 * per packet, on all fragments, and on time. The IP header of the first fragment stays in the bytes
 * in front of its data. Of overlapping fragments, the front of the new one and the front of those
 * behind it are trimmed.
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import { countDrop } from '../net/capture_drop.ts';
import { R_IP_FRAGMENT } from '../sys/reason.ts';
import { inAddr, type InAddr } from '../sys/types.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { type Mbuf, mtod } from '../kern/mbuf.ts';
import { m_adj } from '../kern/uipc_mbuf.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { FRAG_NHASH, FragQueue, FragTable } from './frag_queue.ts';
import { Ip, IP_MAXPACKET, IP_MF, IP_OFFMASK, IPTOS_ECN_MASK } from './ip.ts';
import { ipstat, type Ipstat } from './ip_var.ts';

const $ip = new Ip();

/** The reassembly queue of one packet. */
class Ipq extends FragQueue<Ipq> {
  ipq_src: InAddr = inAddr(0);
  ipq_dst: InAddr = inAddr(0);
  ipq_id = 0;
  ipq_p = 0;
  /** Whether the queue holds the last fragment. */
  hasLast = false;
}

/**
 * The reassembly queues of a stack, with the settings and gauges under net.inet.ip. Unlike FreeBSD's
 * 16, maxfragsperpacket is 64, because the largest IP packet needs 45 fragments over Ethernet.
 */
class IpReass extends FragTable<Ipq> {
  /** Seconds after which an incomplete packet is dropped. */
  fragttl = 30;
  readonly #stat: Ipstat;

  constructor(vnet: Vnet) {
    super(vnet, R_IP_FRAGMENT);
    this.#stat = ipstat(vnet);
  }

  #hash(src: InAddr, dst: InAddr, id: number, p: number): number {
    let h = Math.imul(src ^ this.seed, 0x9e3779b1) ^ dst;
    h = Math.imul(h ^ (h >>> 15), 0x85ebca6b) ^ ((id << 8) | p);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return (h ^ (h >>> 16)) & (FRAG_NHASH - 1);
  }

  find(src: InAddr, dst: InAddr, id: number, p: number): Ipq | null {
    let q = this.buckets[this.#hash(src, dst, id, p)]!;
    for (; q !== null; q = q.nextHash!)
      if (q.ipq_id === id && q.ipq_src === src && q.ipq_dst === dst && q.ipq_p === p) return q;
    return null;
  }

  /** Creates a queue. At the limit of packets, drops the oldest queue first. */
  create(src: InAddr, dst: InAddr, id: number, p: number): Ipq {
    if (this.maxfragpackets >= 0 && this.fragpackets >= this.maxfragpackets) {
      const old = this.oldest;
      if (old !== null) this.dropQueue(old);
    }
    const q = this.add(this.#hash(src, dst, id, p), this.fragttl);
    q.ipq_src = src;
    q.ipq_dst = dst;
    q.ipq_id = id;
    q.ipq_p = p;
    q.hasLast = false;
    return q;
  }

  protected make(): Ipq {
    return new Ipq();
  }

  protected countDropped(fragments: number): void {
    this.#stat.ips_fragdropped += fragments;
  }

  protected expire(q: Ipq): void {
    this.#stat.ips_fragtimeout += q.nfrags;
    this.freeQueue(q, q.frags);
  }
}

export const V_ipreass = VNET_DEFINE((vnet) => new IpReass(vnet));

function discard(m: Mbuf, stat: Ipstat): null {
  stat.ips_fragdropped++;
  countDrop(m, R_IP_FRAGMENT, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
  return null;
}

/**
 * Inserts the payload `m` into the queue. Takes `m`; returns whether any of it was kept. Trims the
 * front of `m` where an earlier fragment overlaps it, and the front of later fragments that `m`
 * overlaps.
 */
function insert(q: Ipq, m: Mbuf, reass: IpReass, stat: Ipstat): boolean {
  let prev: Mbuf | null = null;
  let next = q.frags;
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
    q.nfrags--;
    reass.frags--;
    discard(gone, stat);
  }
  m.m_nextpkt = next;
  if (prev === null) q.frags = m;
  else prev.m_nextpkt = m;
  q.nfrags++;
  reass.frags++;
  return true;
}

/** Joins the fragments of a complete queue into one packet and removes the queue. */
function join(q: Ipq, reass: IpReass): Mbuf {
  const { hlen, total, ecn } = q;
  const m = reass.join(q);
  m.m_data -= hlen;
  m.m_len += hlen;
  m.m_pkthdr.len += hlen;
  $ip.at(mtod(m));
  $ip.ip_len = total + hlen;
  $ip.ip_off &= ~(IP_MF | IP_OFFMASK);
  $ip.ip_tos = ($ip.ip_tos & ~IPTOS_ECN_MASK) | ecn;
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
  if (reass.maxfrags >= 0 && reass.frags >= reass.maxfrags) return discard(m, stat);
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
  if (!reass.ecnMerge(q, ip.ip_tos & IPTOS_ECN_MASK)) return discard(m, stat);
  m_adj(m, hlen);
  m.m_pkthdr.csum_data = off;
  if (insert(q, m, reass, stat)) {
    if (!more) q.hasLast = true;
    if (off === 0 && q.hlen === 0) q.hlen = hlen;
  }
  if (!q.hasLast || !reass.isComplete(q)) {
    // As in FreeBSD, one fragment above the limit is accepted if it completes the packet.
    if (q.nfrags > Math.max(reass.maxfragsperpacket, 1)) reass.dropQueue(q);
    return null;
  }
  stat.ips_reassembled++;
  return join(q, reass);
}
