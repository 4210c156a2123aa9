/**
 * IPv6 reassembly, after sys/netinet6/frag6.c (RFC 8200, 4.5; RFC 5722; RFC 6946): with limits on
 * packets, on packets per hash bucket, on fragments per packet, on all fragments, and on time. The queue
 * stores the payload of a fragment; its offset is in m_pkthdr.csum_data. The headers of the first fragment
 * stay in the bytes in front of its data. An overlap discards the whole packet.
 */

import { NetAddr } from '../sys/addr.ts';
import type { Task } from '../sys/clock.ts';
import { count, R_IP6_FRAGMENT, R_IP6_NOBUFS } from '../sys/reason.ts';
import { kva } from '../sys/types.ts';
import { m_freem, mbufZones } from '../kern/kern_mbuf.ts';
import {
  Callout,
  callout_pending,
  callout_reset,
  callout_stop,
  nowNs,
} from '../kern/kern_timeout.ts';
import { type Mbuf, M_PKTHDR, mtod } from '../kern/mbuf.ts';
import { m_adj, m_cat, m_last, m_pullup } from '../kern/uipc_mbuf.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
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
import { ip6Input, type Ip6Proto, ip6stat, type Ip6stat } from './ip6_var.ts';

const IP6REASS_NHASH = 1024;
const SEC = 1e9;
/** Seconds after which an incomplete packet is dropped: RFC 8200, 4.5. */
const IPV6_FRAGTTL = 60;
const ECN_MASK = 3;
const ECN_CE = 3;
const ECN_NOTECT = 0;

const $ip6 = new Ip6();

/** The reassembly queue of one packet. */
class Ip6q {
  readonly ip6q_src = new NetAddr();
  readonly ip6q_dst = new NetAddr();
  ip6q_ident = 0;
  ip6q_ecn = ECN_NOTECT;
  /** Fragments ordered by offset, linked by m_nextpkt. */
  ip6q_frags: Mbuf | null = null;
  ip6q_nfrag = 0;
  /** The protocol of the payload; valid with `hlen`. */
  ip6q_nxt = 0;
  /** Bytes of the first fragment up to its data; 0 until it has arrived. */
  hlen = 0;
  /** Offset of the last next-header byte in front of the fragment header. */
  nxtOff = 0;
  /** Payload bytes of the whole packet; -1 until the last fragment has arrived. */
  total = -1;
  /** Time-out of the queue, ns since boot. */
  expiresNs = 0;
  bucket = 0;
  nextHash: Ip6q | null = null;
  older: Ip6q | null = null;
  younger: Ip6q | null = null;
}

/** The reassembly queues of a stack, with the settings and gauges under net.inet6.ip6. */
class Frag6 implements Task {
  /** Limit of packets in reassembly; 0: accept no fragments; -1: no limit. */
  maxfragpackets: number;
  /** Limit of all queued fragments; 0: accept no fragments; -1: no limit. */
  maxfrags: number;
  /** Limit of packets per hash bucket. */
  maxfragbucketsize: number;
  maxfragsperpacket = 64;
  fragpackets = 0;
  frags = 0;
  readonly vnet: Vnet;
  readonly stat: Ip6stat;
  readonly #buckets: (Ip6q | null)[] = Array.from({ length: IP6REASS_NHASH }, () => null);
  readonly #counts = new Uint32Array(IP6REASS_NHASH);
  readonly #free: Ip6q[] = [];
  readonly #callout = new Callout(this);
  readonly #seed: number;
  #oldest: Ip6q | null = null;
  #youngest: Ip6q | null = null;

  constructor(vnet: Vnet) {
    const limit = Math.max(Math.floor(mbufZones().clust.max / 32), 1);
    this.vnet = vnet;
    this.maxfragpackets = limit;
    this.maxfrags = limit;
    this.maxfragbucketsize = Math.max(Math.floor(limit / (IP6REASS_NHASH / 2)), 1);
    this.#seed = vnet.prng.next32();
    this.stat = ip6stat(vnet);
  }

  /** The bucket of the packet `$src`, `$dst`, `id`. */
  #hash(id: number): number {
    let h = Math.imul(this.#seed ^ $src.w0 ^ Math.imul($src.w1, 0x9e3779b1), 0x85ebca6b);
    h = Math.imul(h ^ $src.w2 ^ (h >>> 15), 0xc2b2ae35) ^ $src.w3;
    h = Math.imul(h ^ $dst.w0 ^ (h >>> 13), 0x9e3779b1) ^ $dst.w1;
    h = Math.imul(h ^ $dst.w2 ^ (h >>> 15), 0x85ebca6b) ^ $dst.w3;
    h = Math.imul(h ^ id ^ (h >>> 13), 0xc2b2ae35);
    h = Math.imul(h ^ (h >>> 15), 0x9e3779b1);
    return (h ^ (h >>> 16)) & (IP6REASS_NHASH - 1);
  }

  /** The queue of the packet, created if necessary. Null: a limit forbids it. */
  queue(id: number): Ip6q | null {
    const b = this.#hash(id);
    for (let q = this.#buckets[b]!; q !== null; q = q.nextHash!)
      if (q.ip6q_ident === id && q.ip6q_src.equals($src) && q.ip6q_dst.equals($dst)) return q;
    if (this.maxfragpackets >= 0 && this.fragpackets >= this.maxfragpackets) return null;
    if (this.#counts[b]! >= this.maxfragbucketsize) return null;
    return this.#create(id, b);
  }

  #create(id: number, b: number): Ip6q {
    const q = this.#free.pop() ?? new Ip6q();
    q.ip6q_src.setFrom($src);
    q.ip6q_dst.setFrom($dst);
    q.ip6q_ident = id;
    q.ip6q_frags = null;
    q.ip6q_nfrag = 0;
    q.hlen = 0;
    q.total = -1;
    q.expiresNs = nowNs() + IPV6_FRAGTTL * SEC;
    q.bucket = b;
    q.nextHash = this.#buckets[b]!;
    this.#buckets[b] = q;
    this.#counts[b]!++;
    q.older = this.#youngest;
    q.younger = null;
    if (this.#youngest === null) this.#oldest = q;
    else this.#youngest.younger = q;
    this.#youngest = q;
    this.fragpackets++;
    if (!callout_pending(this.#callout)) callout_reset(this.#callout, IPV6_FRAGTTL * SEC);
    return q;
  }

  /** Removes a queue and returns it to the pool. The caller owns its fragments. */
  remove(q: Ip6q): void {
    let at = this.#buckets[q.bucket]!;
    if (at === q) {
      this.#buckets[q.bucket] = q.nextHash;
    } else {
      while (at.nextHash !== q) at = at.nextHash!;
      at.nextHash = q.nextHash;
    }
    this.#counts[q.bucket]!--;
    if (q.older === null) this.#oldest = q.younger;
    else q.older.younger = q.younger;
    if (q.younger === null) this.#youngest = q.older;
    else q.younger.older = q.older;
    q.nextHash = null;
    q.older = null;
    q.younger = null;
    q.ip6q_frags = null;
    this.fragpackets--;
    this.frags -= q.ip6q_nfrag;
    this.#free.push(q);
    if (this.fragpackets === 0) callout_stop(this.#callout);
  }

  /** Frees a queue with its fragments, and counts them as dropped. */
  dropQueue(q: Ip6q): void {
    this.stat.ip6s_fragdropped += q.ip6q_nfrag;
    this.#freeFrags(q.ip6q_frags, q);
  }

  #freeFrags(m: Mbuf | null, q: Ip6q): void {
    if (q.ip6q_nfrag > 0) count(R_IP6_FRAGMENT, q.ip6q_nfrag);
    this.remove(q);
    while (m !== null) {
      const next: Mbuf | null = m.m_nextpkt;
      m_freem(m);
      m = next;
    }
  }

  /** Drops a queue whose time-out has passed; reports the first fragment, if it has arrived. */
  #expire(q: Ip6q): void {
    this.stat.ip6s_fragtimeout += q.ip6q_nfrag;
    const { hlen, ip6q_frags: first } = q;
    if (hlen === 0 || first === null) return this.#freeFrags(first, q);
    const rest = first.m_nextpkt;
    first.m_nextpkt = null;
    this.#freeFrags(rest, q);
    first.m_data -= hlen;
    first.m_len += hlen;
    first.m_pkthdr.len += hlen;
    icmp6_error(first, ICMP6_TIME_EXCEEDED, ICMP6_TIME_EXCEED_REASSEMBLY, 0, this.vnet);
  }

  /** Timer: drops the queues whose time-out has passed. */
  run(): void {
    const now = nowNs();
    while (this.#oldest !== null && this.#oldest.expiresNs <= now) this.#expire(this.#oldest);
    const next = this.#oldest;
    if (next !== null) callout_reset(this.#callout, Math.max(next.expiresNs - now, 0));
  }

  /** Drops all queues. Called when the stack is destroyed. */
  drain(): void {
    while (this.#oldest !== null) this.dropQueue(this.#oldest);
  }
}
const $src = new NetAddr();
const $dst = new NetAddr();

export const V_frag6 = VNET_DEFINE((vnet) => new Frag6(vnet));

function discard(m: Mbuf, stat: Ip6stat): number {
  stat.ip6s_fragdropped++;
  count(R_IP6_FRAGMENT);
  m_freem(m);
  return IPPROTO_DONE;
}

/** Reports a malformed fragment with a pointer to the bad field. Takes `m`. */
function problem(m: Mbuf, pointer: number, f: Frag6): number {
  f.stat.ip6s_fragdropped++;
  count(R_IP6_FRAGMENT);
  icmp6_error(m, ICMP6_PARAM_PROB, ICMP6_PARAMPROB_HEADER, pointer, f.vnet);
  return IPPROTO_DONE;
}

/** Merges the ECN bits of a fragment into the queue's (RFC 3168, 5.3). False: drop the fragment. */
function ecnMerge(q: Ip6q, ecn: number): boolean {
  if (q.ip6q_nfrag === 0) q.ip6q_ecn = ecn;
  if (ecn === q.ip6q_ecn) return true;
  if (ecn === ECN_NOTECT) return false;
  if (ecn !== ECN_CE) return true;
  if (q.ip6q_ecn === ECN_NOTECT) return false;
  q.ip6q_ecn = ECN_CE;
  return true;
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
  let next = q.ip6q_frags;
  while (next !== null && next.m_pkthdr.csum_data < off) {
    prev = next;
    next = next.m_nextpkt;
  }
  if (next !== null && next.m_pkthdr.csum_data === off && next.m_pkthdr.len === m.m_pkthdr.len)
    return DUPLICATE;
  if (prev !== null && prev.m_pkthdr.csum_data + prev.m_pkthdr.len > off) return OVERLAP;
  if (next !== null && next.m_pkthdr.csum_data < end) return OVERLAP;
  m.m_nextpkt = next;
  if (prev === null) q.ip6q_frags = m;
  else prev.m_nextpkt = m;
  q.ip6q_nfrag++;
  return KEPT;
}

/** Whether all bytes of the packet have arrived. */
function isComplete(q: Ip6q): boolean {
  if (q.total < 0 || q.hlen === 0) return false;
  let off = 0;
  for (let m = q.ip6q_frags; m !== null; m = m.m_nextpkt) {
    if (m.m_pkthdr.csum_data !== off) return false;
    off += m.m_pkthdr.len;
  }
  return off === q.total;
}

/** Joins the fragments of a complete queue, removes it, and sets `ip6Input`. Returns the next header. */
function join(q: Ip6q, f: Frag6): number {
  const m = q.ip6q_frags!;
  const { hlen, total, nxtOff, ip6q_nxt, ip6q_ecn } = q;
  f.remove(q);
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
  // Remove the fragment header: move the headers before it.
  const unfrag = hlen - IP6_FRAG_SIZE;
  const p = m.m_data - hlen;
  mem.copyWithin(p + IP6_FRAG_SIZE, p, p + unfrag);
  m.m_data -= unfrag;
  m.m_len += unfrag;
  const ph = m.m_pkthdr;
  ph.len = total + unfrag;
  // The checksum of the whole packet has not been verified.
  ph.csum_flags = 0;
  ph.csum_data = 0;
  const top = mtod(m);
  $ip6.at(top).ip6_plen = ph.len - Ip6.SIZE;
  $ip6.ip6_flow = ($ip6.ip6_flow & ~(ECN_MASK << 20)) | (ip6q_ecn << 20);
  mem[top + nxtOff] = ip6q_nxt;
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
  if (past || !ecnMerge(q, $ip6.at(p).ip6_tclass & ECN_MASK)) return discard(m, f.stat);
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
  if (isComplete(q)) {
    // The first fragment may have come last, with headers that make the packet too long.
    if (!tooLong(q, q.total, q.hlen)) return join(q, f);
    f.dropQueue(q);
    return IPPROTO_DONE;
  }
  // As with IPv4, one fragment above the limit is accepted if it completes the packet.
  if (q.ip6q_nfrag > Math.max(f.maxfragsperpacket, 1)) f.dropQueue(q);
  return IPPROTO_DONE;
}

/** Refuses a fragment that makes the packet too long; removes a queue that is still empty. */
function refuse(q: Ip6q, m: Mbuf, pointer: number, f: Frag6): number {
  if (q.ip6q_nfrag === 0) f.remove(q);
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
  const m = m0.m_len < hlen ? m_pullup(m0, hlen) : m0;
  if (m === null) {
    count(R_IP6_NOBUFS);
    return IPPROTO_DONE;
  }
  const p = mtod(m);
  const fh = kva(p + off);
  const offlg = memView.getUint16(fh + 2) & (IP6F_OFF_MASK | IP6F_MORE_FRAG);
  const len = m.m_pkthdr.len - hlen;
  stat.ip6s_fragments++;
  if (offlg === 0) {
    // RFC 6946: an atomic fragment is the whole packet, whatever is in the queues.
    stat.ip6s_atomicfrags++;
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
