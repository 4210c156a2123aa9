/**
 * Link-layer address tables, after sys/net/if_llatbl.c: who is where on an interface's link, with the
 * packets that wait for an answer. The protocol (ARP, ND) decides what happens when; this keeps the
 * entries. Left out: proxy entries, prepared link headers of other media.
 */

import type { Task } from '../sys/clock.ts';
import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { Callout, callout_stop } from '../kern/kern_timeout.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { ETHER_ADDR_LEN, type Ifnet, type LinkAddr } from './if_var.ts';

// la_flags
export const LLE_DELETED = 0x0001;
export const LLE_STATIC = 0x0002;
/** One of our own addresses. */
export const LLE_IFADDR = 0x0004;
/** ll_addr is valid. */
export const LLE_VALID = 0x0008;

/** What an entry's timer calls. */
export interface LleTimer {
  lleTimeout(lle: Llentry): void;
}

/** One neighbour. */
export class Llentry implements LinkAddr, Task {
  readonly lle_ifp: Ifnet;
  readonly r_l3addr: AddrWords;
  /** The next entry of the table whose address has the same hash. */
  lle_next: Llentry | null = null;
  readonly ll_addr = new Uint8Array(ETHER_ADDR_LEN);
  la_flags = 0;
  /** The protocol's state machine. */
  ln_state = 0;
  /** Packets waiting, linked by m_nextpkt, the oldest first. */
  la_hold: Mbuf | null = null;
  #holdTail: Mbuf | null = null;
  la_numheld = 0;
  /** Questions asked since the last answer. */
  la_asked = 0;
  /** Questions left to ask before a used entry expires. */
  la_preempt = 0;
  /** When the entry expires, or the last question was asked: ns since boot. */
  la_expire = 0;
  /** Whether a packet was sent by this entry since its state was entered. */
  used = false;
  readonly lle_timer = new Callout(this);
  readonly #owner: LleTimer;

  constructor(ifp: Ifnet, addr: AddrWords, owner: LleTimer) {
    this.lle_ifp = ifp;
    const l3addr = new NetAddr();
    l3addr.setFrom(addr);
    this.r_l3addr = l3addr;
    this.#owner = owner;
  }

  /** The timer ran out. */
  run(): void {
    this.#owner.lleTimeout(this);
  }

  /** Queues `m` until the address is known. Takes it. */
  hold(m: Mbuf): void {
    m.m_nextpkt = null;
    if (this.#holdTail === null) this.la_hold = m;
    else this.#holdTail.m_nextpkt = m;
    this.#holdTail = m;
    this.la_numheld++;
  }

  /** Takes the oldest waiting packet out; null if there is none. The caller owns it. */
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

/** 32 bits of an address. Two IPv4 addresses never have the same. */
function hash(w0: number, w1: number, w2: number, w3: number): number {
  return w0 ^ Math.imul(w1, 0x9e3779b1) ^ Math.imul(w2, 0x85ebca6b) ^ Math.imul(w3, 0xc2b2ae35);
}

/** The neighbours of one family on one interface. Keys are whole addresses: all four words. */
export class Lltable {
  readonly llt_ifp: Ifnet;
  // The first entry of each hash; the others follow by lle_next.
  readonly #chains = new Map<number, Llentry>();
  #size = 0;

  constructor(ifp: Ifnet) {
    this.llt_ifp = ifp;
  }

  get size(): number {
    return this.#size;
  }

  /** The neighbour at `addr`, or null. */
  find(addr: AddrWords): Llentry | null {
    return this.lookup(addr.w0, addr.w1, addr.w2, addr.w3);
  }

  /** `find` by words. */
  lookup(w0: number, w1: number, w2: number, w3: number): Llentry | null {
    let lle = this.#chains.get(hash(w0, w1, w2, w3)) ?? null;
    for (; lle !== null; lle = lle.lle_next) {
      const a = lle.r_l3addr;
      if (a.w0 === w0 && a.w1 === w1 && a.w2 === w2 && a.w3 === w3) break;
    }
    return lle;
  }

  /** Adds an entry. The table must not have one of the same address. */
  insert(lle: Llentry): void {
    const { w0, w1, w2, w3 } = lle.r_l3addr;
    const key = hash(w0, w1, w2, w3);
    lle.lle_next = this.#chains.get(key) ?? null;
    this.#chains.set(key, lle);
    this.#size++;
  }

  /** Takes an entry out of its chain; does nothing if it is not there. */
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
    if (prev !== null) prev.lle_next = lle.lle_next;
    else if (lle.lle_next === null) this.#chains.delete(key);
    else this.#chains.set(key, lle.lle_next);
    lle.lle_next = null;
    this.#size--;
  }

  /** Takes an entry out, stops its timer and frees what waits; returns how many packets that were. */
  remove(lle: Llentry): number {
    this.#unlink(lle);
    lle.la_flags = (lle.la_flags & ~LLE_VALID) | LLE_DELETED;
    callout_stop(lle.lle_timer);
    let dropped = 0;
    for (let m = lle.unhold(); m !== null; m = lle.unhold()) {
      m_freem(m);
      dropped++;
    }
    return dropped;
  }

  /** The entries, for `arp -a`; IPv4's in the order they came. */
  list(): Llentry[] {
    const list: Llentry[] = [];
    for (const first of this.#chains.values())
      for (let lle: Llentry | null = first; lle !== null; lle = lle.lle_next) list.push(lle);
    return list;
  }
}
