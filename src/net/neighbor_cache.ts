/**
 * What ARP and ND have in common: the table of an interface, limits on its entries and on held
 * packets, eviction, and sending what was held. The state machine is in the protocol.
 */

import { CAPTURE_IF, CAPTURE_OUT } from '../sys/capture.ts';
import { captureNotes } from '../sys/capture_notes.ts';
import { countDrop, noteDrop } from './capture_drop.ts';
import type { AddrWords } from '../sys/addr.ts';
import { count, type Reason } from '../sys/reason.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { etherSend } from './if_ethersubr.ts';
import { Llentry, LLE_STATIC, type LleTimer, Lltable, LLE_VALID } from './if_llatbl.ts';
import type { Ifnet } from './if_var.ts';

/**
 * Maximum number of entries per interface. Unlike FreeBSD: there is no limit there. A full table
 * evicts an entry, so that spoofed packets cannot make new neighbours unreachable.
 */
const ENTRIES_MAX = 16384;
/**
 * Up to this number, entries that wait for a reply are not evicted in favour of learned ones: a
 * flood of requests from spoofed neighbours must not end the resolution of a real one.
 */
const INCOMPLETE_RESERVE = ENTRIES_MAX / 4;
/**
 * Maximum number of packets held by all entries of an interface. Ours: FreeBSD limits only one
 * entry, so replies to many spoofed neighbours could use up the mbufs.
 */
const HELD_MAX = 1024;

/** The most entries that an eviction passes over because `mayEvict` protects them. */
const PROTECTED_MAX = 64;

/** The reasons under which a protocol counts dropped packets and evicted entries. */
interface CacheReasons {
  readonly timeout: Reason;
  readonly evicted: Reason;
  readonly holdFull: Reason;
}

/** The neighbours of one family on one interface. */
export abstract class NeighborCache implements LleTimer {
  abstract readonly ethertype: number;
  readonly table: Lltable;
  /** Packets held by all entries. */
  protected held = 0;
  readonly #reasons: CacheReasons;

  constructor(ifp: Ifnet, reasons: CacheReasons) {
    this.table = new Lltable(ifp);
    this.#reasons = reasons;
  }

  abstract lleTimeout(lle: Llentry): void;

  /** Called with the number of held packets that were dropped with or from an entry. */
  protected dropped(_packets: number): void {}

  /** Whether an entry may be evicted; false for one that the protocol depends on. */
  protected mayEvict(_lle: Llentry): boolean {
    return true;
  }

  /** Whether packets wait for the resolution of an address. */
  get holds(): boolean {
    return this.held > 0;
  }

  /** Whether the table has its maximum number of entries. */
  protected get full(): boolean {
    return this.table.size >= ENTRIES_MAX;
  }

  /** Creates an entry without a link-layer address; null if the table is full of static entries. */
  protected add(addr: AddrWords): Llentry | null {
    if (this.full && !this.#evict()) return null;
    const lle = new Llentry(this.table.llt_ifp, addr, this);
    this.table.insert(lle);
    this.table.incomplete.push(lle);
    return lle;
  }

  /** Makes an entry permanent. */
  keep(lle: Llentry, flags: number): void {
    lle.la_flags |= flags;
    lle.queue?.remove(lle);
  }

  /**
   * Removes the oldest entry without a reply, or the learned entry that was used longest ago.
   * Returns false if all entries are static.
   */
  #evict(): boolean {
    const { incomplete, resolved } = this.table;
    const asked = incomplete.length > INCOMPLETE_RESERVE || resolved.length === 0;
    const queue = asked ? incomplete : resolved;
    let lle = asked ? incomplete.head : resolved.leastRecent();
    if (lle === null) return false;
    for (let n = 0; n < PROTECTED_MAX && !this.mayEvict(lle); n++) {
      queue.push(lle);
      lle = asked ? incomplete.head! : resolved.leastRecent()!;
    }
    this.#evictEntry(lle);
    return true;
  }

  #evictEntry(lle: Llentry): void {
    this.remove(lle, this.#reasons.timeout);
    count(this.#reasons.evicted);
  }

  /**
   * Removes an entry and drops its held packets. Returns their number.
   * @param why counts them; null: not counted
   */
  remove(lle: Llentry, why: Reason | null = null): number {
    if (why !== null) this.countHeld(lle, why);
    const dropped = this.table.remove(lle);
    this.held -= dropped;
    this.dropped(dropped);
    return dropped;
  }

  /** Counts and records the packets that `lle` holds as dropped for `why`. */
  protected countHeld(lle: Llentry, why: Reason): void {
    if (lle.la_numheld > 0) count(why, lle.la_numheld);
    if (!captureNotes.on) return;
    for (let m = lle.la_hold; m !== null; m = m.m_nextpkt)
      noteDrop(m, why, CAPTURE_IF, CAPTURE_OUT, lle.lle_ifp);
  }

  /** Removes all entries; with `dynamicOnly` only those that are not static. */
  flush(dynamicOnly: boolean): void {
    for (const lle of this.table.list())
      if (!dynamicOnly || (lle.la_flags & LLE_STATIC) === 0) this.remove(lle);
  }

  /**
   * Holds `m`, which it takes, and at most `max` packets per entry. Makes room first, at the expense
   * of the oldest entry that waits, then of the oldest packet of `lle`. False: `m` was freed.
   */
  protected hold(lle: Llentry, m: Mbuf, max: number): boolean {
    const { head } = this.table.incomplete;
    if (this.held >= HELD_MAX && head !== null && head !== lle) this.#evictEntry(head);
    if (lle.la_numheld > 0 && (lle.la_numheld >= max || this.held >= HELD_MAX)) {
      const first = lle.unhold()!;
      countDrop(first, this.#reasons.holdFull, CAPTURE_IF, CAPTURE_OUT, lle.lle_ifp);
      m_freem(first);
      this.held--;
      this.dropped(1);
    }
    if (max > 0 && this.held < HELD_MAX) {
      lle.hold(m);
      this.held++;
      return true;
    }
    if (captureNotes.on) noteDrop(m, this.#reasons.holdFull, CAPTURE_IF, CAPTURE_OUT, lle.lle_ifp);
    m_freem(m);
    return false;
  }

  /** Sets the address of an entry to `lladdr` (6 bytes) and makes it valid. */
  protected resolveEntry(lle: Llentry, lladdr: Uint8Array): void {
    lle.setAddr(lladdr);
    // Packets that wait for it show that the entry is in use.
    if (lle.la_numheld > 0) lle.recent = true;
    if ((lle.la_flags & (LLE_VALID | LLE_STATIC)) === 0) this.table.resolved.push(lle);
    lle.la_flags |= LLE_VALID;
    lle.la_asked = 0;
  }

  /** Sends the packets that a valid entry holds. */
  protected sendHeld(lle: Llentry): void {
    this.held -= lle.la_numheld;
    for (let m = lle.unhold(); m !== null; m = lle.unhold())
      etherSend(lle.lle_ifp, m, lle.ll_addr, this.ethertype);
  }
}
