/**
 * The host's half of the group membership protocols, the same for IGMP (RFC 1112, 2236, 3376) and
 * MLD (RFC 2710, 3810): when a report is due and what it contains. After the state machine of
 * sys/netinet/igmp.c, which mld6.c repeats. The protocols supply the packets (ReportWire).
 *
 * Timers count ticks of 200 ms, FreeBSD's PR_FASTHZ; they run only while something is due. Unlike
 * FreeBSD, a report of a change contains the filter as it is when it is sent, and each source is
 * counted on its own (RFC 3376, 5.1), and a member whose report was suppressed answers the next
 * query.
 */

import type { AddrWords } from '../sys/addr.ts';
import type { Task } from '../sys/clock.ts';
import {
  Callout,
  callout_pending,
  callout_reset,
  callout_stop,
  nowNs,
} from '../kern/kern_timeout.ts';
import type { Vnet } from '../kern/vnet.ts';
import { IFF_LOOPBACK, IFF_MULTICAST, type Ifnet } from '../net/if_var.ts';
import {
  type GroupLink,
  InMulti,
  InMultis,
  MCAST_EXCLUDE,
  MCAST_INCLUDE,
  MCAST_UNDEFINED,
} from './in_multi.ts';

/** Ticks of the timers per second. @see sys/sys/protosw.h of 13 */
export const PR_FASTHZ = 5;
const TICK_NS = 1e9 / PR_FASTHZ;

// inm_state. FreeBSD's names begin with IGMP_ or MLD_.
/** The group is never reported: all-hosts, or an interface without multicast. */
const SILENT_MEMBER = 1;
/** Old version: a report is due. New version: the group is reported. */
const REPORTING_MEMBER = 2;
/** Old version: this host sent the last report. */
const IDLE_MEMBER = 3;
/** Old version: another host sent the last report. */
const LAZY_MEMBER = 4;
const G_QUERY_PENDING_MEMBER = 7;
const SG_QUERY_PENDING_MEMBER = 8;
/** The group has no member; reports of its end are due. */
const LEAVING_MEMBER = 9;

// Types of records, the same in both protocols: RFC 3376, 4.2.12; RFC 3810, 5.2.12.
const MODE_IS_INCLUDE = 1;
export const MODE_IS_EXCLUDE = 2;
const CHANGE_TO_INCLUDE_MODE = 3;
export const CHANGE_TO_EXCLUDE_MODE = 4;
const ALLOW_NEW_SOURCES = 5;
const BLOCK_OLD_SOURCES = 6;

// Initial values of a link: sys/netinet/igmp_var.h.
const RV_INIT = 2;
const QI_INIT = 125;
const QRI_INIT = 10;
const URI_INIT = 3;

/** A record of a report. */
export interface GroupRecord {
  readonly type: number;
  readonly group: AddrWords;
  readonly sources: readonly AddrWords[];
}

/** The packets of a protocol. */
export interface ReportWire {
  /** The version that knows sources: IGMPv3, MLDv2. */
  readonly newest: number;
  /** The version of a new link, and of one whose older querier is gone. */
  defaultVersion(): number;
  /** Whether a query of this version is obeyed. */
  enabled(version: number): boolean;
  /** Whether memberships of `group` are reported at all. */
  reported(group: AddrWords): boolean;
  maxgrpsrc(): number;
  /** Seconds between two group-and-source queries of a group that are answered. */
  gsrdelay(): number;
  /** Whether a membership with sources is reported by its sources alone: GroupLink.useAllow. */
  useAllow(): boolean;
  mapGroup(group: AddrWords, ll_addr: Uint8Array): void;
  /** Sends a report of an old version. */
  sendReport(ifp: Ifnet, version: number, group: AddrWords): void;
  /** Sends the message of version 2 (MLDv1) that ends a membership. */
  sendLeave(ifp: Ifnet, version: number, group: AddrWords): void;
  /** Sends the records in as many packets as they need. */
  sendRecords(ifp: Ifnet, records: readonly GroupRecord[]): void;
}

/** The links of one family of one stack, and their timer. */
export class Reporter implements Task {
  readonly vnet: Vnet;
  readonly wire: ReportWire;
  readonly links = new Map<Ifnet, ReportLink>();
  readonly #callout = new Callout(this);

  constructor(vnet: Vnet, wire: ReportWire) {
    this.vnet = vnet;
    this.wire = wire;
  }

  attach(ifp: Ifnet): ReportLink {
    const link = new ReportLink(this, ifp);
    this.links.set(ifp, link);
    return link;
  }

  /** Forgets a link. Its members have left before. */
  detach(ifp: Ifnet): void {
    this.links.delete(ifp);
  }

  /** Starts the timer. */
  wake(): void {
    if (!callout_pending(this.#callout)) callout_reset(this.#callout, TICK_NS);
  }

  /** One tick. */
  run(): void {
    let pending = false;
    for (const link of this.links.values()) pending = link.tick() || pending;
    if (pending) this.wake();
  }

  stop(): void {
    callout_stop(this.#callout);
  }

  /** A random delay of 1 to `ticks` ticks. */
  delay(ticks: number): number {
    return 1 + (this.vnet.prng.next32() % Math.max(1, ticks));
  }
}

/** One interface: struct igmp_ifsoftc, mld_ifsoftc. */
export class ReportLink implements GroupLink {
  readonly ifp: Ifnet;
  readonly groups = new InMultis();
  readonly #owner: Reporter;
  #version: number;
  /** While an older querier is present: until when. */
  #olderUntilNs = 0;
  /** Robustness variable, query interval and query response interval (s), from the querier. */
  rv = RV_INIT;
  qi = QI_INIT;
  qri = QRI_INIT;
  /** Ticks until the answer to a general query; 0: none is due. */
  #generalTimer = 0;

  constructor(owner: Reporter, ifp: Ifnet) {
    this.#owner = owner;
    this.ifp = ifp;
    this.#version = owner.wire.defaultVersion();
  }

  maxgrpsrc(): number {
    return this.#owner.wire.maxgrpsrc();
  }

  useAllow(): boolean {
    return this.#owner.wire.useAllow();
  }

  mapGroup(group: AddrWords, ll_addr: Uint8Array): void {
    this.#owner.wire.mapGroup(group, ll_addr);
  }

  /** The version that this host speaks on the link: RFC 3376, 7.2.1. */
  get version(): number {
    const { wire } = this.#owner;
    if (this.#olderUntilNs === 0) return this.#version;
    if (nowNs() < this.#olderUntilNs && wire.enabled(this.#version)) return this.#version;
    this.#olderUntilNs = 0;
    this.#version = wire.defaultVersion();
    return this.#version;
  }

  get #modern(): boolean {
    return this.version === this.#owner.wire.newest;
  }

  changed(inm: InMulti, first: boolean, last: boolean, delay: number): void {
    if (last) this.#left(inm);
    else if (first) this.#joined(inm, delay);
    else if (inm.inm_state === SILENT_MEMBER || !this.#modern) settle(inm);
    else this.#scheduleChange(inm);
  }

  /** `delay`: ticks until the first report; 0: as soon as possible. */
  #joined(inm: InMulti, delay: number): void {
    const { wire } = this.#owner;
    const silent =
      (this.ifp.if_flags & (IFF_LOOPBACK | IFF_MULTICAST)) !== IFF_MULTICAST || !wire.reported(inm);
    inm.inm_timer = 0;
    inm.asked.clear();
    if (silent) {
      inm.inm_state = SILENT_MEMBER;
      settle(inm);
    } else if (this.#modern) {
      inm.inm_state = REPORTING_MEMBER;
      if (this.#scheduleChange(inm) && delay > 0) inm.inm_sctimer = delay;
    } else if (delay > 0) {
      inm.inm_state = REPORTING_MEMBER;
      settle(inm);
      inm.inm_timer = delay;
      this.#owner.wake();
    } else {
      inm.inm_state = IDLE_MEMBER;
      settle(inm);
      wire.sendReport(this.ifp, this.version, inm);
    }
  }

  #left(inm: InMulti): void {
    const { wire } = this.#owner;
    const state = inm.inm_state;
    inm.inm_timer = 0;
    inm.asked.clear();
    if (state !== SILENT_MEMBER && this.#modern) {
      inm.inm_state = LEAVING_MEMBER;
      // A change of the mode contains the changes of the sources too.
      if (inm.inm_scrv !== 0) inm.changedSources.clear();
      if (!this.#scheduleChange(inm)) this.groups.remove(inm);
      return;
    }
    this.groups.remove(inm);
    // A host that did not send the last report need not announce its end: RFC 2236, 3.
    if (state !== SILENT_MEMBER && state !== LAZY_MEMBER)
      wire.sendLeave(this.ifp, this.version, inm);
  }

  /**
   * Has the changes that inmUpdate marked reported, beginning with the next tick. Returns whether there
   * is one.
   */
  #scheduleChange(inm: InMulti): boolean {
    if (inm.inm_scrv < 0) inm.inm_scrv = this.rv;
    let any = inm.inm_scrv > 0;
    for (const a of inm.changedSources.list()) {
      if (a.left < 0) a.left = this.rv;
      any = true;
    }
    if (!any) return false;
    inm.inm_sctimer = 1;
    this.#owner.wake();
    return true;
  }

  /** One tick. Returns whether more is due. */
  tick(): boolean {
    const modern = this.#modern;
    const records: GroupRecord[] = [];
    let pending = false;
    if (this.#generalTimer > 0) {
      if (--this.#generalTimer > 0) pending = true;
      else if (modern) this.#answerGeneral(records);
    }
    for (const inm of this.groups.list()) {
      if (inm.inm_timer > 0) {
        if (--inm.inm_timer > 0) pending = true;
        else if (modern) answerGroup(inm, records);
        else this.#reportOld(inm);
      }
      if (modern && inm.inm_sctimer > 0) {
        if (--inm.inm_sctimer === 0) this.#reportChange(inm, records);
        if (inm.inm_sctimer > 0) pending = true;
      }
    }
    if (records.length > 0) this.#owner.wire.sendRecords(this.ifp, records);
    return pending;
  }

  /** The answer to a general query: the filters of all groups. */
  #answerGeneral(records: GroupRecord[]): void {
    for (const inm of this.groups.list()) {
      if (inm.inm_state === SILENT_MEMBER || inm.inm_state === LEAVING_MEMBER) continue;
      if (inm.inm_state === IDLE_MEMBER || inm.inm_state === LAZY_MEMBER)
        inm.inm_state = REPORTING_MEMBER;
      currentState(inm, records);
    }
  }

  #reportOld(inm: InMulti): void {
    if (inm.inm_state !== REPORTING_MEMBER) return;
    inm.inm_state = IDLE_MEMBER;
    this.#owner.wire.sendReport(this.ifp, this.version, inm);
  }

  /** Adds the records of what changed, and schedules their repetition. RFC 3376, 5.1. */
  #reportChange(inm: InMulti, records: GroupRecord[]): void {
    if (inm.inm_scrv > 0) {
      inm.inm_scrv--;
      records.push({
        type: inm.fmode === MCAST_EXCLUDE ? CHANGE_TO_EXCLUDE_MODE : CHANGE_TO_INCLUDE_MODE,
        group: inm,
        sources: inm.sources.list(),
      });
      // A record of the mode contains the changes of the sources too.
      countDown(inm);
    } else {
      const changed = inm.changedSources.list();
      const allowed = changed.filter((a) => inm.sources.has(a) === (inm.fmode !== MCAST_EXCLUDE));
      const blocked = changed.filter((a) => !allowed.includes(a));
      countDown(inm);
      if (allowed.length > 0)
        records.push({ type: ALLOW_NEW_SOURCES, group: inm, sources: allowed });
      if (blocked.length > 0)
        records.push({ type: BLOCK_OLD_SOURCES, group: inm, sources: blocked });
    }
    if (inm.inm_scrv > 0 || inm.changedSources.size > 0)
      inm.inm_sctimer = this.#owner.delay(URI_INIT * PR_FASTHZ);
    else if (inm.inm_state === LEAVING_MEMBER) this.groups.remove(inm);
  }

  /**
   * A query of an old version: this host speaks it until the querier is silent for a while. Version
   * 1 takes precedence over 2. Returns whether the query is to be answered.
   */
  olderQuerier(version: number): boolean {
    const now = this.version;
    if (version > now) return false;
    this.#olderUntilNs = nowNs() + (this.rv * this.qi + this.qri) * 1e9;
    if (version === now) return true;
    if (now === this.#owner.wire.newest) this.#cancelModern();
    this.#version = version;
    return true;
  }

  resetRobustness(): void {
    this.rv = RV_INIT;
  }

  /** Ends all that is due in the newest version. */
  #cancelModern(): void {
    this.#generalTimer = 0;
    for (const inm of this.groups.list()) {
      inm.inm_timer = 0;
      inm.asked.clear();
      settle(inm);
      if (inm.inm_state === LEAVING_MEMBER) this.groups.remove(inm);
      else if (inm.inm_state !== SILENT_MEMBER) inm.inm_state = REPORTING_MEMBER;
    }
  }

  /** A query of an old version for `inm`: a report within `ticks`. */
  oldQuery(inm: InMulti, ticks: number): void {
    if (inm.inm_state === SILENT_MEMBER || inm.inm_state === LEAVING_MEMBER) return;
    const running = inm.inm_state === REPORTING_MEMBER && inm.inm_timer > 0;
    if (running && inm.inm_timer <= ticks) return;
    inm.inm_state = REPORTING_MEMBER;
    inm.inm_timer = this.#owner.delay(ticks);
    this.#owner.wake();
  }

  /** A general query of the newest version, to be answered within `ticks`. */
  generalQuery(ticks: number): void {
    if (this.#generalTimer !== 0 && this.#generalTimer < ticks) return;
    this.#generalTimer = this.#owner.delay(ticks);
    this.#owner.wake();
  }

  /** Whether an answer that is due before `ticks` makes an answer to a group query unnecessary. */
  answersBefore(ticks: number): boolean {
    return this.#generalTimer !== 0 && this.#generalTimer < ticks;
  }

  /** A query for a group, to be answered within `ticks`. */
  groupQuery(inm: InMulti, ticks: number): void {
    if (!queried(inm)) return;
    let limit = ticks;
    if (inm.inm_state !== REPORTING_MEMBER && inm.inm_timer > 0)
      limit = Math.min(inm.inm_timer, ticks);
    inm.asked.clear();
    inm.inm_state = G_QUERY_PENDING_MEMBER;
    inm.inm_timer = this.#owner.delay(limit);
    this.#owner.wake();
  }

  /**
   * Whether a query for sources of a group is within the limit of one per `gsrdelay` seconds.
   */
  mayAsk(inm: InMulti): boolean {
    const now = nowNs();
    if (now - inm.inm_lastgsrtv < this.#owner.wire.gsrdelay() * 1e9) return false;
    inm.inm_lastgsrtv = now;
    return true;
  }

  /**
   * A query for sources of a group. `source(i)` returns the i-th of `n`; the value is borrowed. A
   * source is stored only if the answer may contain it, and at most `maxgrpsrc` are.
   */
  sourceQuery(inm: InMulti, ticks: number, n: number, source: (i: number) => AddrWords): void {
    if (!queried(inm)) return;
    const pending = inm.inm_state === G_QUERY_PENDING_MEMBER;
    if (!pending) {
      for (let i = 0; i < n && inm.asked.size < this.maxgrpsrc(); i++) {
        const a = source(i);
        if (inm.sources.has(a) === (inm.fmode === MCAST_INCLUDE)) inm.asked.add(a);
      }
      if (inm.asked.size === 0) return;
      inm.inm_state = SG_QUERY_PENDING_MEMBER;
    }
    const limit = inm.inm_timer > 0 ? Math.min(inm.inm_timer, ticks) : ticks;
    inm.inm_timer = this.#owner.delay(limit);
    this.#owner.wake();
  }

  /** Another host reported `inm` with an old version. `suppressNew`: that ends our answer too. */
  otherReport(inm: InMulti, suppressNew: boolean): void {
    if (inm.inm_state === SILENT_MEMBER || inm.inm_state === LEAVING_MEMBER) return;
    if (this.#modern) {
      if (!suppressNew || !answering(inm)) return;
      inm.asked.clear();
      inm.inm_state = REPORTING_MEMBER;
      inm.inm_timer = 0;
      return;
    }
    inm.inm_timer = 0;
    inm.inm_state = LAZY_MEMBER;
  }
}

function answering(inm: InMulti): boolean {
  return inm.inm_state === G_QUERY_PENDING_MEMBER || inm.inm_state === SG_QUERY_PENDING_MEMBER;
}

/** Whether queries of the newest version for the group are answered. */
function queried(inm: InMulti): boolean {
  return inm.inm_state !== SILENT_MEMBER && inm.inm_state !== LEAVING_MEMBER;
}

/** Forgets changes that need no report. */
function settle(inm: InMulti): void {
  inm.inm_scrv = 0;
  inm.inm_sctimer = 0;
  inm.changedSources.clear();
}

/** Counts one report of each changed source; forgets those that were reported often enough. */
function countDown(inm: InMulti): void {
  for (const a of inm.changedSources.list()) if (--a.left <= 0) inm.changedSources.remove(a);
}

function currentState(inm: InMulti, records: GroupRecord[]): void {
  if (inm.fmode === MCAST_UNDEFINED) return;
  const exclude = inm.fmode === MCAST_EXCLUDE;
  // INCLUDE without a source is the state of a host that is not a member.
  if (!exclude && inm.sources.size === 0) return;
  records.push({
    type: exclude ? MODE_IS_EXCLUDE : MODE_IS_INCLUDE,
    group: inm,
    sources: inm.sources.list(),
  });
}

/** The answer to a query for a group, or for sources of it: RFC 3376, 5.2. */
function answerGroup(inm: InMulti, records: GroupRecord[]): void {
  if (!answering(inm)) return;
  if (inm.inm_state === G_QUERY_PENDING_MEMBER) {
    currentState(inm, records);
  } else {
    const wanted = inm.fmode === MCAST_INCLUDE;
    const sources = inm.asked.list().filter((a) => inm.sources.has(a) === wanted);
    if (sources.length > 0) records.push({ type: MODE_IS_INCLUDE, group: inm, sources });
  }
  inm.asked.clear();
  inm.inm_state = REPORTING_MEMBER;
}
