/**
 * Link-layer address tables, after sys/net/if_llatbl.c: who is where on an interface's link, with the
 * packets that wait for an answer. The protocol (ARP, ND) decides what happens when; this keeps the
 * entries. Left out: proxy entries, prepared link headers of other media.
 */

import type { Task } from '../sys/clock.ts';
import type { InAddr } from '../sys/types.ts';
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
  /** For IPv4. */
  readonly r_l3addr: InAddr;
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

  constructor(ifp: Ifnet, addr: InAddr, owner: LleTimer) {
    this.lle_ifp = ifp;
    this.r_l3addr = addr;
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

/** The neighbours on one interface by IPv4 address. */
export class Lltable {
  readonly llt_ifp: Ifnet;
  // Keyed by the address `| 0`: a small integer where the address itself may not be.
  readonly #entries = new Map<number, Llentry>();

  constructor(ifp: Ifnet) {
    this.llt_ifp = ifp;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The neighbour at `addr`, or null. Takes `addr | 0` as well, which costs no allocation. */
  find(addr: InAddr): Llentry | null {
    return this.#entries.get(addr | 0) ?? null;
  }

  insert(lle: Llentry): void {
    this.#entries.set(lle.r_l3addr | 0, lle);
  }

  /** Takes an entry out, stops its timer and frees what waits; returns how many packets that were. */
  remove(lle: Llentry): number {
    this.#entries.delete(lle.r_l3addr | 0);
    lle.la_flags = (lle.la_flags & ~LLE_VALID) | LLE_DELETED;
    callout_stop(lle.lle_timer);
    let dropped = 0;
    for (let m = lle.unhold(); m !== null; m = lle.unhold()) {
      m_freem(m);
      dropped++;
    }
    return dropped;
  }

  /** The entries in the order they came, for `arp -a`. */
  list(): Llentry[] {
    return [...this.#entries.values()];
  }
}
