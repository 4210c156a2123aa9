/**
 * Reassembly queues, for IPv4 and IPv6: a hash table with limits, time-outs in the order of arrival,
 * the check for the last missing fragment, and joining. A queue stores the payload of a fragment; its
 * offset is in m_pkthdr.csum_data. Overlaps, and what an ICMP error needs, differ by family.
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import { captureNotes } from '../sys/capture_notes.ts';
import { noteDrop } from '../net/capture_drop.ts';
import type { Task } from '../sys/clock.ts';
import { count, type Reason } from '../sys/reason.ts';
import { m_freemp, mbufZones } from '../kern/kern_mbuf.ts';
import {
  Callout,
  callout_pending,
  callout_reset,
  callout_stop,
  nowNs,
} from '../kern/kern_timeout.ts';
import { type Mbuf, M_PKTHDR } from '../kern/mbuf.ts';
import { m_cat, m_last } from '../kern/uipc_mbuf.ts';
import type { Vnet } from '../kern/vnet.ts';
import { IPTOS_ECN_CE, IPTOS_ECN_NOTECT } from './ip.ts';

export const FRAG_NHASH = 1024;
const SEC = 1e9;

/** The reassembly queue of one packet; `Q` is the family's class, which adds the key. */
export class FragQueue<Q> {
  /** Fragments ordered by offset, linked by m_nextpkt. */
  frags: Mbuf | null = null;
  nfrags = 0;
  ecn = IPTOS_ECN_NOTECT;
  /** Payload bytes of the whole packet; -1 until the last fragment has arrived. */
  total = -1;
  /** Bytes of the first fragment up to its data; 0 until it has arrived. */
  hlen = 0;
  /** Time-out of the queue, ns since boot. */
  expiresNs = 0;
  bucket = 0;
  nextHash: Q | null = null;
  older: Q | null = null;
  younger: Q | null = null;
}

/** The reassembly queues of a family in a stack, with their limits and gauges. */
export abstract class FragTable<Q extends FragQueue<Q>> implements Task {
  /** Limit of packets in reassembly; 0: accept no fragments; -1: no limit. */
  maxfragpackets: number;
  /** Limit of all queued fragments; 0: accept no fragments; -1: no limit. */
  maxfrags: number;
  /** Limit of fragments of one packet. One more passes if it completes the packet. */
  maxfragsperpacket = 64;
  fragpackets = 0;
  /** Fragments in all queues. */
  frags = 0;
  protected readonly buckets: (Q | null)[] = Array.from({ length: FRAG_NHASH }, () => null);
  protected readonly seed: number;
  protected oldest: Q | null = null;
  readonly #reason: Reason;
  readonly #free: Q[] = [];
  readonly #callout = new Callout(this);
  #youngest: Q | null = null;

  /** @param reason counts dropped fragments */
  constructor(vnet: Vnet, reason: Reason) {
    const limit = Math.max(Math.floor(mbufZones().clust.max / 32), 1);
    this.maxfragpackets = limit;
    this.maxfrags = limit;
    this.seed = vnet.prng.next32();
    this.#reason = reason;
  }

  /** A new queue, for the pool. */
  protected abstract make(): Q;
  /** Adds to the statistics of dropped fragments. */
  protected abstract countDropped(fragments: number): void;
  /** Frees a queue whose time-out has passed. */
  protected abstract expire(q: Q): void;

  /** Creates an empty queue in a bucket, with a time-out of `ttl` seconds. The caller sets its key. */
  protected add(bucket: number, ttl: number): Q {
    const q = this.#free.pop() ?? this.make();
    q.frags = null;
    q.nfrags = 0;
    q.total = -1;
    q.hlen = 0;
    q.expiresNs = nowNs() + ttl * SEC;
    q.bucket = bucket;
    q.nextHash = this.buckets[bucket]!;
    this.buckets[bucket] = q;
    q.older = this.#youngest;
    q.younger = null;
    if (this.#youngest === null) this.oldest = q;
    else this.#youngest.younger = q;
    this.#youngest = q;
    this.fragpackets++;
    if (!callout_pending(this.#callout)) callout_reset(this.#callout, ttl * SEC);
    return q;
  }

  /** Removes a queue and returns it to the pool. The caller owns its fragments. */
  remove(q: Q): void {
    let at = this.buckets[q.bucket]!;
    if (at === q) {
      this.buckets[q.bucket] = q.nextHash;
    } else {
      while (at.nextHash !== q) at = at.nextHash!;
      at.nextHash = q.nextHash;
    }
    if (q.older === null) this.oldest = q.younger;
    else q.older.younger = q.younger;
    if (q.younger === null) this.#youngest = q.older;
    else q.younger.older = q.older;
    q.nextHash = null;
    q.older = null;
    q.younger = null;
    q.frags = null;
    this.fragpackets--;
    this.frags -= q.nfrags;
    this.#free.push(q);
    if (this.fragpackets === 0) callout_stop(this.#callout);
  }

  /** Frees a queue with its fragments, and counts them as dropped. */
  dropQueue(q: Q): void {
    this.countDropped(q.nfrags);
    this.freeQueue(q, q.frags);
  }

  /** Frees a queue and the fragments from `m` on. Counts all of its fragments under the reason. */
  protected freeQueue(q: Q, m: Mbuf | null): void {
    if (q.nfrags > 0) count(this.#reason, q.nfrags);
    if (captureNotes.on)
      for (let n = m; n !== null; n = n.m_nextpkt)
        noteDrop(n, this.#reason, CAPTURE_IP, CAPTURE_IN);
    this.remove(q);
    m_freemp(m);
  }

  /** Timer: drops the queues whose time-out has passed. */
  run(): void {
    const now = nowNs();
    while (this.oldest !== null && this.oldest.expiresNs <= now) this.expire(this.oldest);
    const next = this.oldest;
    if (next !== null) callout_reset(this.#callout, Math.max(next.expiresNs - now, 0));
  }

  /** Drops all queues. Called when the stack is destroyed. */
  drain(): void {
    while (this.oldest !== null) this.dropQueue(this.oldest);
  }

  /**
   * Merges the ECN bits of a fragment into the queue's (RFC 3168, 5.3). False: drop the fragment,
   * because one of the two is not-ECT.
   */
  ecnMerge(q: Q, ecn: number): boolean {
    if (q.nfrags === 0) q.ecn = ecn;
    if (ecn === q.ecn) return true;
    if (ecn === IPTOS_ECN_NOTECT) return false;
    if (ecn !== IPTOS_ECN_CE) return true;
    if (q.ecn === IPTOS_ECN_NOTECT) return false;
    q.ecn = IPTOS_ECN_CE;
    return true;
  }

  /** Whether the fragments of a queue are `total` bytes without a gap, the first one included. */
  isComplete(q: Q): boolean {
    if (q.hlen === 0) return false;
    let off = 0;
    for (let m = q.frags; m !== null; m = m.m_nextpkt) {
      if (m.m_pkthdr.csum_data !== off) return false;
      off += m.m_pkthdr.len;
    }
    return off === q.total;
  }

  /** Removes a complete queue. Returns its fragments as one packet, without headers. */
  join(q: Q): Mbuf {
    const m = q.frags!;
    const { total } = q;
    this.remove(q);
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
    const ph = m.m_pkthdr;
    ph.len = total;
    // The checksum of the whole packet has not been verified.
    ph.csum_flags = 0;
    ph.csum_data = 0;
    return m;
  }
}
