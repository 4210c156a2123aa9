/**
 * IPv6 reassembly, after sys/netinet6/frag6.c (RFC 8200, 4.5; RFC 5722; RFC 6946): with limits on
 * packets, on packets per hash bucket, on fragments per packet, on all fragments, and on time. The
 * headers of the first fragment stay in the bytes in front of its data. An overlap discards the whole
 * packet.
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import { countDrop, noteDrop, pullupInput } from '../net/capture_drop.ts';
import { NetAddr } from '../sys/addr.ts';
import { R_IP6_FRAGMENT, R_IP6_NOBUFS } from '../sys/reason.ts';
import { kva } from '../sys/types.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { type Mbuf, mtod } from '../kern/mbuf.ts';
import { m_adj } from '../kern/uipc_mbuf.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { FRAG_NHASH, FragQueue, FragTable } from '../netinet/frag_queue.ts';
import { IPTOS_ECN_MASK } from '../netinet/ip.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  ICMP6_PARAM_PROB,
  ICMP6_PARAMPROB_HEADER,
  ICMP6_TIME_EXCEEDED,
  ICMP6_TIME_EXCEED_REASSEMBLY,
} from './icmp6.ts';
import { icmp6_error } from './icmp6_error.ts';
import { in6Get } from './in6.ts';
import {
  Ip6,
  IP6F_MORE_FRAG,
  IP6F_OFF_MASK,
  IP6_DST_OFF,
  IP6_FRAG_SIZE,
  IP6_PLEN_OFF,
  IP6_SRC_OFF,
  IPPROTO_DONE,
  IPV6_MAXPACKET,
} from './ip6.ts';
import { ip6Input, M_FRAGMENTED, type Ip6Proto, ip6stat, type Ip6stat } from './ip6_var.ts';

/** Seconds after which an incomplete packet is dropped: RFC 8200, 4.5. */
const IPV6_FRAGTTL = 60;

const $ip6 = new Ip6();

/** The reassembly queue of one packet. */
class Ip6q extends FragQueue<Ip6q> {
  readonly ip6q_src = new NetAddr();
  readonly ip6q_dst = new NetAddr();
  ip6q_ident = 0;
  /** The protocol of the payload; valid with `hlen`. */
  ip6q_nxt = 0;
  /** Offset of the last next-header byte in front of the fragment header. */
  nxtOff = 0;
}

/** The reassembly queues of a stack, with the settings and gauges under net.inet6.ip6. */
class Frag6 extends FragTable<Ip6q> {
  /** Limit of packets per hash bucket. */
  maxfragbucketsize: number;
  readonly vnet: Vnet;
  readonly stat: Ip6stat;
  readonly #counts = new Uint32Array(FRAG_NHASH);

  constructor(vnet: Vnet) {
    super(vnet, R_IP6_FRAGMENT);
    this.vnet = vnet;
    this.maxfragbucketsize = Math.max(Math.floor(this.maxfragpackets / (FRAG_NHASH / 2)), 1);
    this.stat = ip6stat(vnet);
  }

  /** The bucket of the packet `$src`, `$dst`, `id`. */
  #hash(id: number): number {
    let h = Math.imul(this.seed ^ $src.w0 ^ Math.imul($src.w1, 0x9e3779b1), 0x85ebca6b);
    h = Math.imul(h ^ $src.w2 ^ (h >>> 15), 0xc2b2ae35) ^ $src.w3;
    h = Math.imul(h ^ $dst.w0 ^ (h >>> 13), 0x9e3779b1) ^ $dst.w1;
    h = Math.imul(h ^ $dst.w2 ^ (h >>> 15), 0x85ebca6b) ^ $dst.w3;
    h = Math.imul(h ^ id ^ (h >>> 13), 0xc2b2ae35);
    h = Math.imul(h ^ (h >>> 15), 0x9e3779b1);
    return (h ^ (h >>> 16)) & (FRAG_NHASH - 1);
  }

  /** The queue of the packet, created if necessary. Null: a limit forbids it. */
  queue(id: number): Ip6q | null {
    const b = this.#hash(id);
    for (let q = this.buckets[b]!; q !== null; q = q.nextHash!)
      if (q.ip6q_ident === id && q.ip6q_src.equals($src) && q.ip6q_dst.equals($dst)) return q;
    if (this.maxfragpackets >= 0 && this.fragpackets >= this.maxfragpackets) return null;
    if (this.#counts[b]! >= this.maxfragbucketsize) return null;
    const q = this.add(b, IPV6_FRAGTTL);
    q.ip6q_src.setFrom($src);
    q.ip6q_dst.setFrom($dst);
    q.ip6q_ident = id;
    this.#counts[b]!++;
    return q;
  }

  override remove(q: Ip6q): void {
    super.remove(q);
    this.#counts[q.bucket]!--;
  }

  protected make(): Ip6q {
    return new Ip6q();
  }

  protected countDropped(fragments: number): void {
    this.stat.ip6s_fragdropped += fragments;
  }

  /** Drops a queue whose time-out has passed; reports the first fragment, if it has arrived. */
  protected expire(q: Ip6q): void {
    this.stat.ip6s_fragtimeout += q.nfrags;
    const { hlen, frags: first } = q;
    if (hlen === 0 || first === null) return this.freeQueue(q, first);
    const rest = first.m_nextpkt;
    first.m_nextpkt = null;
    noteDrop(first, R_IP6_FRAGMENT, CAPTURE_IP, CAPTURE_IN);
    this.freeQueue(q, rest);
    first.m_data -= hlen;
    first.m_len += hlen;
    first.m_pkthdr.len += hlen;
    icmp6_error(first, ICMP6_TIME_EXCEEDED, ICMP6_TIME_EXCEED_REASSEMBLY, 0, this.vnet);
  }
}

const $src = new NetAddr();
const $dst = new NetAddr();

export const V_frag6 = VNET_DEFINE((vnet) => new Frag6(vnet));

function discard(m: Mbuf, stat: Ip6stat): number {
  stat.ip6s_fragdropped++;
  countDrop(m, R_IP6_FRAGMENT, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
  return IPPROTO_DONE;
}

/** Reports a malformed fragment with a pointer to the bad field. Takes `m`. */
function problem(m: Mbuf, pointer: number, f: Frag6): number {
  f.stat.ip6s_fragdropped++;
  countDrop(m, R_IP6_FRAGMENT, CAPTURE_IP, CAPTURE_IN);
  icmp6_error(m, ICMP6_PARAM_PROB, ICMP6_PARAMPROB_HEADER, pointer, f.vnet);
  return IPPROTO_DONE;
}

// Results of `insert`.
const KEPT = 0;
const DUPLICATE = 1;
const OVERLAP = 2;

/** Inserts `m`, the payload from offset m_pkthdr.csum_data on, unless it overlaps. */
function insert(q: Ip6q, m: Mbuf): number {
  const off = m.m_pkthdr.csum_data;
  const end = off + m.m_pkthdr.len;
  let prev: Mbuf | null = null;
  let next = q.frags;
  while (next !== null && next.m_pkthdr.csum_data < off) {
    prev = next;
    next = next.m_nextpkt;
  }
  if (next !== null && next.m_pkthdr.csum_data === off && next.m_pkthdr.len === m.m_pkthdr.len)
    return DUPLICATE;
  if (prev !== null && prev.m_pkthdr.csum_data + prev.m_pkthdr.len > off) return OVERLAP;
  if (next !== null && next.m_pkthdr.csum_data < end) return OVERLAP;
  m.m_nextpkt = next;
  if (prev === null) q.frags = m;
  else prev.m_nextpkt = m;
  q.nfrags++;
  return KEPT;
}

/** Joins the fragments of a complete queue, removes it, and sets `ip6Input`. Returns the next header. */
function join(q: Ip6q, f: Frag6): number {
  const { hlen, nxtOff, ip6q_nxt, ecn } = q;
  const m = f.join(q);
  // Remove the fragment header: move the headers before it.
  const unfrag = hlen - IP6_FRAG_SIZE;
  const p = m.m_data - hlen;
  mem.copyWithin(p + IP6_FRAG_SIZE, p, p + unfrag);
  m.m_data -= unfrag;
  m.m_len += unfrag;
  m.m_pkthdr.len += unfrag;
  const top = mtod(m);
  $ip6.at(top).ip6_plen = m.m_pkthdr.len - Ip6.SIZE;
  $ip6.ip6_flow = ($ip6.ip6_flow & ~(IPTOS_ECN_MASK << 20)) | (ecn << 20);
  mem[top + nxtOff] = ip6q_nxt;
  m.m_flags |= M_FRAGMENTED;
  ip6Input.m = m;
  ip6Input.off = unfrag;
  ip6Input.next = nxtOff;
  f.stat.ip6s_reassembled++;
  return ip6q_nxt;
}

/**
 * Whether the end of the fragment agrees with what the queue knows, and the whole packet fits into
 * IPv6's length field. `hlen`: bytes before the data.
 */
function tooLong(q: Ip6q, end: number, hlen: number): boolean {
  const unfrag = (q.hlen !== 0 ? q.hlen : hlen) - IP6_FRAG_SIZE - Ip6.SIZE;
  return unfrag + end > IPV6_MAXPACKET;
}

/** Adds a checked fragment, whose data starts at `hlen`, to its queue. Takes `m`. */
function enqueue(m: Mbuf, hlen: number, offlg: number, f: Frag6): number {
  const p = mtod(m);
  const fh = p + hlen - IP6_FRAG_SIZE;
  const fragoff = offlg & IP6F_OFF_MASK;
  const more = (offlg & IP6F_MORE_FRAG) !== 0;
  const end = fragoff + m.m_pkthdr.len - hlen;
  const q = f.queue(memView.getInt32(fh + 4));
  if (q === null) return discard(m, f.stat);
  if (tooLong(q, end, hlen)) return refuse(q, m, hlen - IP6_FRAG_SIZE + 2, f);
  const past = q.total >= 0 && (more ? end >= q.total : end !== q.total);
  if (past || !f.ecnMerge(q, $ip6.at(p).ip6_tclass & IPTOS_ECN_MASK)) return discard(m, f.stat);
  const nxt = mem[fh]!;
  m_adj(m, hlen);
  m.m_pkthdr.csum_data = fragoff;
  const result = insert(q, m);
  if (result !== KEPT) {
    // RFC 8200, 4.5: an exact duplicate may be ignored; an overlap ends the reassembly.
    if (result === OVERLAP) f.dropQueue(q);
    return discard(m, f.stat);
  }
  f.frags++;
  if (!more) q.total = end;
  if (fragoff === 0) {
    q.hlen = hlen;
    q.ip6q_nxt = nxt;
    q.nxtOff = ip6Input.nxtOff;
  }
  if (f.isComplete(q)) {
    // The first fragment may have come last, with headers that make the packet too long.
    if (!tooLong(q, q.total, q.hlen)) return join(q, f);
    f.dropQueue(q);
    return IPPROTO_DONE;
  }
  // As with IPv4, one fragment above the limit is accepted if it completes the packet.
  if (q.nfrags > Math.max(f.maxfragsperpacket, 1)) f.dropQueue(q);
  return IPPROTO_DONE;
}

/** Refuses a fragment that makes the packet too long; removes a queue that is still empty. */
function refuse(q: Ip6q, m: Mbuf, pointer: number, f: Frag6): number {
  if (q.nfrags === 0) f.remove(q);
  return problem(m, pointer, f);
}

/** Input of a fragment header. @see sys/netinet6/frag6.c */
function frag6_input(m0: Mbuf, off: number, vnet: Vnet): number {
  const f = V_frag6(vnet);
  const { stat } = f;
  ip6Input.m = null;
  const hlen = off + IP6_FRAG_SIZE;
  if (m0.m_pkthdr.len < hlen) {
    stat.ip6s_tooshort++;
    return discard(m0, stat);
  }
  const m = m0.m_len < hlen ? pullupInput(m0, hlen, R_IP6_NOBUFS) : m0;
  if (m === null) return IPPROTO_DONE;
  const p = mtod(m);
  const fh = kva(p + off);
  const offlg = memView.getUint16(fh + 2) & (IP6F_OFF_MASK | IP6F_MORE_FRAG);
  const len = m.m_pkthdr.len - hlen;
  stat.ip6s_fragments++;
  if (offlg === 0) {
    // RFC 6946: an atomic fragment is the whole packet, whatever is in the queues.
    stat.ip6s_atomicfrags++;
    m.m_flags |= M_FRAGMENTED;
    ip6Input.m = m;
    ip6Input.off = hlen;
    return mem[fh]!;
  }
  // RFC 8200, 4.5: every fragment but the last has a multiple of 8 bytes.
  if (len === 0 || ((offlg & IP6F_MORE_FRAG) !== 0 && (len & 7) !== 0))
    return problem(m, IP6_PLEN_OFF, f);
  if (f.maxfragpackets === 0 || f.maxfragsperpacket <= 0) return discard(m, stat);
  if (f.maxfrags >= 0 && f.frags >= f.maxfrags) return discard(m, stat);
  in6Get(p + IP6_SRC_OFF, $src);
  in6Get(p + IP6_DST_OFF, $dst);
  return enqueue(m, hlen, offlg, f);
}

/** The fragment header in IPv6's protocol table. */
export const frag6Proto: Ip6Proto = { input: frag6_input, ctlinput(): void {} };
