/**
 * Link-layer address tables, after sys/net/if_llatbl.c: the neighbours of an interface, their
 * Ethernet addresses and the packets held until an address is resolved. The state machine is in the
 * protocol (ARP, ND). Left out: prepared link headers of other media.
 */

import type { Task } from '../sys/clock.ts';
import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { Callout, callout_stop } from '../kern/kern_timeout.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { ETHER_ADDR_LEN, type Ifnet, type LinkAddr } from './if_var.ts';

// la_flags
const LLE_DELETED = 0x0001;
export const LLE_STATIC = 0x0002;
/** One of our own addresses. */
export const LLE_IFADDR = 0x0004;
/** ll_addr is valid. */
export const LLE_VALID = 0x0008;
/** Requests of others for the address are answered: proxy ARP. */
export const LLE_PUB = 0x0020;

/** The owner of a table: handles the timers of its entries. */
export interface LleTimer {
  lleTimeout(lle: Llentry): void;
}

/** The entry of one neighbour. */
export class Llentry implements LinkAddr, Task {
  readonly lle_ifp: Ifnet;
  readonly r_l3addr: AddrWords;
  /** The next entry of the table whose address has the same hash. */
  lle_next: Llentry | null = null;
  readonly ll_addr = new Uint8Array(ETHER_ADDR_LEN);
  la_flags = 0;
  /** The state, defined by the protocol. */
  ln_state = 0;
  /** Held packets, linked by m_nextpkt, oldest first. */
  la_hold: Mbuf | null = null;
  #holdTail: Mbuf | null = null;
  la_numheld = 0;
  /** Requests sent since the last reply. */
  la_asked = 0;
  /** Requests that may still be sent before an entry in use expires. */
  la_preempt = 0;
  /**
   * Valid entry: when it expires. Incomplete entry: when the last request was sent. ns since boot.
   */
  la_expire = 0;
  /** Whether a packet was sent with this entry since it entered its state. */
  used = false;
  /** IPv6: whether the neighbour is a router. */
  ln_router = false;
  /** IPv6: reachability hints since the last advertisement. */
  ln_byhint = 0;
  /** Ours: whether a packet was sent with this entry since its queue was last searched. */
  recent = false;
  // The queue of the table that contains the entry, null for a static one, and its links.
  queue: LleQueue | null = null;
  qPrev: Llentry | null = null;
  qNext: Llentry | null = null;
  readonly lle_timer = new Callout(this);
  readonly #owner: LleTimer;

  constructor(ifp: Ifnet, addr: AddrWords, owner: LleTimer) {
    this.lle_ifp = ifp;
    const l3addr = new NetAddr();
    l3addr.setFrom(addr);
    this.r_l3addr = l3addr;
    this.#owner = owner;
  }

  /** Runs when the timer expires. */
  run(): void {
    this.#owner.lleTimeout(this);
  }

  /** Queues `m` until the address is resolved. Takes `m`. */
  hold(m: Mbuf): void {
    m.m_nextpkt = null;
    if (this.#holdTail === null) this.la_hold = m;
    else this.#holdTail.m_nextpkt = m;
    this.#holdTail = m;
    this.la_numheld++;
  }

  /** Removes and returns the oldest held packet, or null. The caller owns it. */
  unhold(): Mbuf | null {
    const m = this.la_hold;
    if (m === null) return null;
    this.la_hold = m.m_nextpkt;
    if (this.la_hold === null) this.#holdTail = null;
    m.m_nextpkt = null;
    this.la_numheld--;
    return m;
  }

  setAddr(lladdr: Uint8Array): void {
    this.ll_addr.set(lladdr.subarray(0, ETHER_ADDR_LEN));
  }
}

/** Entries of a table that may be evicted, in the order in which they were queued. */
class LleQueue {
  head: Llentry | null = null;
  #tail: Llentry | null = null;
  length = 0;

  /** Moves `lle` to the end of this queue. */
  push(lle: Llentry): void {
    lle.queue?.remove(lle);
    lle.queue = this;
    lle.qPrev = this.#tail;
    if (this.#tail === null) this.head = lle;
    else this.#tail.qNext = lle;
    this.#tail = lle;
    this.length++;
  }

  remove(lle: Llentry): void {
    if (lle.qPrev === null) this.head = lle.qNext;
    else lle.qPrev.qNext = lle.qNext;
    if (lle.qNext === null) this.#tail = lle.qPrev;
    else lle.qNext.qPrev = lle.qPrev;
    lle.qPrev = null;
    lle.qNext = null;
    lle.queue = null;
    this.length--;
  }

  /**
   * The entry that was used longest ago, by second chance: an entry in use moves to the end, and is
   * found only if it was not used again since. Null: the queue is empty.
   */
  leastRecent(): Llentry | null {
    for (let n = this.length; n > 0 && this.head!.recent; n--) {
      const lle = this.head!;
      lle.recent = false;
      this.push(lle);
    }
    return this.head;
  }
}

/** A 32-bit hash of an address. Different IPv4 addresses have different hashes. */
function hash(w0: number, w1: number, w2: number, w3: number): number {
  return w0 ^ Math.imul(w1, 0x9e3779b1) ^ Math.imul(w2, 0x85ebca6b) ^ Math.imul(w3, 0xc2b2ae35);
}

/** Whether `lle` is the entry of this address. */
function isOf(lle: Llentry, w0: number, w1: number, w2: number, w3: number): boolean {
  const a = lle.r_l3addr;
  return a.w0 === w0 && a.w1 === w1 && a.w2 === w2 && a.w3 === w3;
}

/** The neighbours of one family on one interface. The key is the address: all four words. */
export class Lltable {
  readonly llt_ifp: Ifnet;
  /** Entries without a link-layer address, and those with one; static ones are in neither. */
  readonly incomplete = new LleQueue();
  readonly resolved = new LleQueue();
  // The first entry of each hash; the others follow by lle_next.
  readonly #chains = new Map<number, Llentry>();
  /** The entry found last, so that a run of packets to one neighbour needs no hash. */
  #last: Llentry | null = null;
  #size = 0;

  constructor(ifp: Ifnet) {
    this.llt_ifp = ifp;
  }

  get size(): number {
    return this.#size;
  }

  /** The entry of `addr`, or null. */
  find(addr: AddrWords): Llentry | null {
    return this.lookup(addr.w0, addr.w1, addr.w2, addr.w3);
  }

  /** Like `find`, with the words of the address. */
  lookup(w0: number, w1: number, w2: number, w3: number): Llentry | null {
    let lle = this.#last;
    if (lle !== null && isOf(lle, w0, w1, w2, w3)) return lle;
    lle = this.#chains.get(hash(w0, w1, w2, w3)) ?? null;
    while (lle !== null && !isOf(lle, w0, w1, w2, w3)) lle = lle.lle_next;
    if (lle !== null) this.#last = lle;
    return lle;
  }

  /** Adds an entry. The table must not contain its address. */
  insert(lle: Llentry): void {
    const { w0, w1, w2, w3 } = lle.r_l3addr;
    const key = hash(w0, w1, w2, w3);
    lle.lle_next = this.#chains.get(key) ?? null;
    this.#chains.set(key, lle);
    this.#size++;
  }

  /** Removes an entry from its chain; does nothing if it is not in the table. */
  #unlink(lle: Llentry): void {
    const { w0, w1, w2, w3 } = lle.r_l3addr;
    const key = hash(w0, w1, w2, w3);
    let prev: Llentry | null = null;
    let at = this.#chains.get(key) ?? null;
    while (at !== null && at !== lle) {
      prev = at;
      at = at.lle_next;
    }
    if (at === null) return;
    if (this.#last === lle) this.#last = null;
    if (prev !== null) prev.lle_next = lle.lle_next;
    else if (lle.lle_next === null) this.#chains.delete(key);
    else this.#chains.set(key, lle.lle_next);
    lle.lle_next = null;
    this.#size--;
  }

  /** Removes an entry, stops its timer and frees its held packets. Returns their number. */
  remove(lle: Llentry): number {
    this.#unlink(lle);
    lle.queue?.remove(lle);
    lle.la_flags = (lle.la_flags & ~LLE_VALID) | LLE_DELETED;
    callout_stop(lle.lle_timer);
    let dropped = 0;
    for (let m = lle.unhold(); m !== null; m = lle.unhold()) {
      m_freem(m);
      dropped++;
    }
    return dropped;
  }

  /** The entries, for `arp -a`; those of IPv4 in the order in which they were added. */
  list(): Llentry[] {
    const list: Llentry[] = [];
    for (const first of this.#chains.values())
      for (let lle: Llentry | null = first; lle !== null; lle = lle.lle_next) list.push(lle);
    return list;
  }
}
