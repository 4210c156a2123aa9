/**
 * The SYN cache, after sys/netinet/tcp_syncache.c: each half-open connection of a listener is a
 * small entry instead of a socket. SYN-ACKs are retransmitted with back-off. The number of entries
 * is limited; SYN cookies replace entries that were dropped for lack of room. Fast
 * Open is in tcp_fastopen.ts. Left out: TOE.
 */

import { countSegment } from './tcp_capture.ts';
import { nextPktId } from '../sys/packet_id.ts';
import {
  count,
  R_TCP_BADACK,
  R_TCP_BADRST,
  R_TCP_CHALLENGE,
  R_TCP_CHALLENGE_LIMIT,
  R_TCP_HANDSHAKE,
  R_TCP_PAWS,
  R_TCP_SYNACK_REXMT,
  R_TCP_SYNCACHE_FULL,
} from '../sys/reason.ts';
import { type Kva, kva, type TcpSeq } from '../sys/types.ts';
import type { Task } from '../sys/clock.ts';
import { m_gethdr } from '../kern/kern_mbuf.ts';
import { Callout, callout_reset, callout_stop, nowNs } from '../kern/kern_timeout.ts';
import { max_linkhdr, M_NOWAIT, MT_DATA, mtod } from '../kern/mbuf.ts';
import { IPPROTO_TCP } from '../kern/protosw.ts';
import { sbspace } from '../kern/uipc_sockbuf.ts';
import { soisconnected, type Socket } from '../kern/uipc_socket.ts';
import { VNET_DEFINE } from '../kern/vnet.ts';
import { InConninfo, type InpAf, type Inpcb, inpaf } from './in_pcb.ts';
import { TCP_MAXWIN, Tcphdr, TH_ACK, TH_FIN, TH_SUM_OFF, TH_SYN } from './tcp.ts';
import {
  ecnRequested,
  tcp_ecn_syncache_add,
  tcp_ecn_syncache_respond,
  withoutAce,
} from './tcp_ecn.ts';
import { tcp_new_isn, tcp_new_ts_offset } from './tcp_isn.ts';
import {
  cookieSays,
  SYNCOOKIE_LIFETIME,
  syncookie_generate,
  syncookie_lookup,
} from './tcp_syncookie.ts';
import { putSynOptions, putTimestamp } from './tcp_options.ts';
import {
  SCF_NOOPT,
  SCF_SACK,
  SCF_TIMESTAMP,
  SCF_UNREACH,
  SCF_WINSCALE,
  Syncache,
  syncache_socket,
} from './tcp_syncache_entry.ts';
import {
  TCP_FASTOPEN_COOKIE_LEN,
  TFO_COOKIE,
  TFO_VALID,
  tfoAccepted,
  tfoListen,
  tfoResponse,
} from './tcp_fastopen.ts';
import { SEQ_GT, SEQ_LEQ, seqAdd, seqDiff, TSTMP_LT } from './tcp_seq.ts';
import { intotcpcb, tcp_mssopt, tcpWscale } from './tcp_subr.ts';
import { tcp_backoff, TCP_MAXRXTSHIFT } from './tcp_timer.ts';
import {
  type Tcpcb,
  type TcpSegment,
  tcpTicks,
  TCPTV_REXMTMAX,
  type TcpVnet,
  TF_NOOPT,
  TOF_MSS,
  TOF_SACKPERM,
  TOF_SCALE,
  TOF_TS,
  V_tcp,
  wantsScale,
  wantsTs,
} from './tcp_var.ts';

/** Number of buckets: net.inet.tcp.syncache.hashsize. */
export const SYNCACHE_HASHSIZE = 512;

class SyncacheVnet implements Task {
  readonly tcp: TcpVnet;
  readonly buckets: (Syncache | null)[] = Array.from({ length: SYNCACHE_HASHSIZE }, () => null);
  readonly lens = new Uint16Array(SYNCACHE_HASHSIZE);
  readonly heads: (Syncache | null)[] = Array.from({ length: TCP_MAXRXTSHIFT + 1 }, () => null);
  readonly tails: (Syncache | null)[] = Array.from({ length: TCP_MAXRXTSHIFT + 1 }, () => null);
  /** Entries in use. */
  count = 0;
  free: Syncache | null = null;
  /**
   * When an entry was last dropped for lack of room, ns. Cookies are accepted for a while after it.
   */
  overflowNs = -Infinity;
  /** Used instead of an entry with syncookies_only, and to rebuild an entry from a cookie. */
  readonly scratch = new Syncache();
  readonly seed: number;
  readonly callout = new Callout(this);

  constructor(tcp: TcpVnet) {
    this.tcp = tcp;
    this.seed = tcp.vnet.prng.next32() | 0;
  }

  /** The callout: retransmits the SYN-ACKs that are due. */
  run(): void {
    syncache_timer(this);
  }
}

const V_syncache = VNET_DEFINE((vnet) => new SyncacheVnet(V_tcp(vnet)));

function bucketOf(v: SyncacheVnet, af: InpAf, inc: InConninfo): number {
  let h = af.hash(inc) ^ Math.imul(((inc.inc_lport << 16) | inc.inc_fport) ^ v.seed, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 15), 0x735a2d97);
  return (h ^ (h >>> 16)) & (SYNCACHE_HASHSIZE - 1);
}

function lookup(v: SyncacheVnet, af: InpAf, inc: InConninfo): Syncache | null {
  let sc: Syncache | null = v.buckets[bucketOf(v, af, inc)]!;
  for (; sc !== null; sc = sc.bucketNext) {
    const i = sc.sc_inc;
    if (
      i.inc_fport === inc.inc_fport &&
      i.inc_lport === inc.inc_lport &&
      i.inc_family === inc.inc_family &&
      i.faddrEquals(inc) &&
      i.laddrEquals(inc)
    )
      return sc;
  }
  return null;
}

function unqueue(v: SyncacheVnet, sc: Syncache): void {
  if (sc.queue < 0) return;
  if (sc.qPrev === null) v.heads[sc.queue] = sc.qNext;
  else sc.qPrev.qNext = sc.qNext;
  if (sc.qNext === null) v.tails[sc.queue] = sc.qPrev;
  else sc.qNext.qPrev = sc.qPrev;
  sc.qPrev = null;
  sc.qNext = null;
  sc.queue = -1;
}

/**
 * Queues the entry for its next SYN-ACK, with exponential back-off.
 * @see sys/netinet/tcp_syncache.c
 */
function syncache_timeout(v: SyncacheVnet, sc: Syncache): void {
  unqueue(v, sc);
  const { rexmit_initial, rexmit_slop, rexmit_min } = v.tcp.params;
  const n = sc.sc_rxmits;
  const wait =
    n === 0
      ? rexmit_initial
      : Math.min(
          Math.max(rexmit_initial * tcp_backoff[n]! + rexmit_slop, rexmit_min),
          TCPTV_REXMTMAX,
        );
  sc.sc_rxttime = nowNs() + wait * 1e6;
  sc.queue = n;
  sc.qPrev = v.tails[n]!;
  if (sc.qPrev === null) v.heads[n] = sc;
  else sc.qPrev.qNext = sc;
  v.tails[n] = sc;
  sc.sc_rxmits = Math.min(n + 1, TCP_MAXRXTSHIFT);
  rearm(v);
}

function rearm(v: SyncacheVnet): void {
  let due = Infinity;
  for (let i = 0; i < v.heads.length; i++) {
    const sc = v.heads[i]!;
    if (sc !== null && sc.sc_rxttime < due) due = sc.sc_rxttime;
  }
  if (due === Infinity) callout_stop(v.callout);
  else callout_reset(v.callout, Math.max(due - nowNs(), 0));
}

/** Removes an entry and returns it to the free list. @see sys/netinet/tcp_syncache.c */
function syncache_drop(v: SyncacheVnet, sc: Syncache): void {
  unqueue(v, sc);
  const b = sc.bucket;
  if (v.buckets[b] === sc) {
    v.buckets[b] = sc.bucketNext;
  } else {
    let p = v.buckets[b]!;
    while (p.bucketNext !== sc) p = p.bucketNext!;
    p.bucketNext = sc.bucketNext;
  }
  v.lens[b]!--;
  v.count--;
  sc.bucketNext = v.free;
  v.free = sc;
  if (v.count === 0) callout_stop(v.callout);
}

/**
 * Retransmits the SYN-ACKs that are due; drops entries after syncache.rexmtlimit tries.
 * @see sys/netinet/tcp_syncache.c
 */
function syncache_timer(v: SyncacheVnet): void {
  const now = nowNs();
  const { stat, params } = v.tcp;
  for (let i = 0; i < v.heads.length; i++) {
    for (let n = v.count; n > 0; n--) {
      const sc = v.heads[i]!;
      if (sc === null || sc.sc_rxttime > now) break;
      if (sc.sc_rxmits > params.syncache_rexmtlimit) {
        stat.tcps_sc_stale++;
        count(R_TCP_HANDSHAKE);
        syncache_drop(v, sc);
        continue;
      }
      stat.tcps_sc_retransmitted++;
      count(R_TCP_SYNACK_REXMT);
      // RFC 3168, 6.1.1.1: a middlebox may drop SYN-ACKs with ECE. Retry without it.
      if (sc.sc_rxmits > params.ecn_maxretries) sc.ecnReply = 0;
      syncache_respond(v, sc);
      syncache_timeout(v, sc);
    }
  }
  rearm(v);
}

/** Writes the options of a segment of an entry at `at`. Returns their length in bytes. */
function addOptions(
  tcp: TcpVnet,
  sc: Syncache,
  at: Kva,
  syn: boolean,
  cookie: Uint8Array | null,
): number {
  if ((sc.sc_flags & SCF_NOOPT) !== 0) return 0;
  const ts = (sc.sc_flags & SCF_TIMESTAMP) !== 0;
  const tsval = (tcpTicks() + sc.sc_tsoff) | 0;
  if (!syn) return ts ? putTimestamp(at, tsval, sc.sc_tsreflect) : 0;
  return putSynOptions(
    at,
    tcp_mssopt(tcp, sc.sc_inc),
    (sc.sc_flags & SCF_WINSCALE) !== 0 ? sc.sc_requested_r_scale : -1,
    (sc.sc_flags & SCF_SACK) !== 0,
    ts,
    tsval,
    sc.sc_tsreflect,
    cookie,
    TCP_FASTOPEN_COOKIE_LEN,
  );
}

/**
 * Sends the SYN-ACK of an entry, or with `flags` TH_ACK a challenge ACK. A SYN-ACK may grant a Fast Open
 * `cookie`; its retransmission does not, in case something on the path drops the option. Without memory it sends
 * nothing: the timer or the peer's next SYN tries again.
 * @see sys/netinet/tcp_syncache.c
 */
function syncache_respond(
  v: SyncacheVnet,
  sc: Syncache,
  flags = TH_SYN | TH_ACK,
  cookie: Uint8Array | null = null,
): void {
  const { tcp } = v;
  const syn = (flags & TH_SYN) !== 0;
  const af = inpaf(tcp.vnet, sc.sc_inc.inc_family);
  const m = m_gethdr(M_NOWAIT, MT_DATA);
  if (m === null) return;
  m.m_data += max_linkhdr;
  const thAt = mtod(m) + af.hdrlen;
  const optlen = addOptions(tcp, sc, kva(thAt + Tcphdr.SIZE), syn, cookie);
  const len = af.hdrlen + Tcphdr.SIZE + optlen;
  const th = $th.at(kva(thAt));
  th.th_sport = sc.sc_inc.inc_lport;
  th.th_dport = sc.sc_inc.inc_fport;
  th.th_seq = syn ? sc.sc_iss : seqAdd(sc.sc_iss, 1);
  th.th_ack = seqAdd(sc.sc_irs, 1);
  th.th_off = (Tcphdr.SIZE + optlen) >> 2;
  th.th_flags = flags | (syn ? tcp_ecn_syncache_respond(sc.ecnReply) : 0);
  th.th_win = sc.sc_wnd;
  th.th_urp = 0;
  th.th_sum = af.pseudo(sc.sc_inc, Tcphdr.SIZE + optlen + IPPROTO_TCP);
  // An error about an earlier SYN-ACK may come from a router that cannot fragment it.
  const df = tcp.params.path_mtu_discovery && (sc.sc_flags & SCF_UNREACH) === 0;
  af.fill(mtod(m), sc.sc_inc, len, IPPROTO_TCP, sc.sc_ip_ttl, sc.sc_ip_tos, df);
  m.m_len = len;
  m.m_pkthdr.len = len;
  m.m_pkthdr.csum_flags = af.csumTcp;
  m.m_pkthdr.csum_data = TH_SUM_OFF;
  m.m_pkthdr.pktId = nextPktId();
  tcp.stat.tcps_sndtotal++;
  if (syn) tcp.stat.tcps_sndctrl++;
  else tcp.stat.tcps_sndacks++;
  // Ignore the errno: IP counts the drop, and the timer retransmits the SYN-ACK.
  af.output(m, null, tcp.vnet, sc.sc_ipopts);
}
const $th = new Tcphdr();

/**
 * Makes room for one entry in bucket `b`: drops the oldest entry of a full bucket and one that was
 * sent most often from a full cache.
 */
function makeRoom(v: SyncacheVnet, b: number): void {
  const { stat, params } = v.tcp;
  if (v.lens[b]! >= params.syncache_bucketlimit) {
    stat.tcps_sc_bucketoverflow++;
    count(R_TCP_SYNCACHE_FULL);
    v.overflowNs = nowNs();
    let last = v.buckets[b]!;
    while (last.bucketNext !== null) last = last.bucketNext;
    syncache_drop(v, last);
  }
  if (v.count < params.syncache_cachelimit) return;
  stat.tcps_sc_cacheoverflow++;
  count(R_TCP_SYNCACHE_FULL);
  v.overflowNs = nowNs();
  for (let i = v.heads.length - 1; i >= 0; i--) {
    const oldest = v.heads[i]!;
    if (oldest === null) continue;
    syncache_drop(v, oldest);
    return;
  }
}

/**
 * Processes a SYN for the listener `so`: adds an entry and sends the SYN-ACK. Data in the SYN is
 * discarded; the peer retransmits it. With a valid Fast Open cookie it creates the connection instead
 * and returns true: `expanded.so` is its socket, or null if none could be created, and the caller
 * processes the SYN with it.
 * @see sys/netinet/tcp_syncache.c
 */
export function syncache_add(tcp: TcpVnet, inc: InConninfo, seg: TcpSegment, so: Socket): boolean {
  const v = V_syncache(tcp.vnet);
  const af = inpaf(tcp.vnet, inc.inc_family);
  const { stat, params } = tcp;
  const old = lookup(v, af, inc);
  if (old !== null) {
    stat.tcps_sc_dupsyn++;
    // Answer any SYN with the first SYN-ACK, so that a forged SYN with another sequence number cannot
    // remove the entry. A peer that did restart answers with a RST, which removes it.
    if ((seg.to_flags & TOF_TS) !== 0) old.sc_tsreflect = seg.to_tsval;
    else old.sc_flags &= ~SCF_TIMESTAMP;
    // RFC 3168, 6.1.1.1: the peer no longer offers ECN.
    if (!ecnRequested(seg.flags)) old.ecnReply = 0;
    syncache_respond(v, old);
    old.sc_rxmits = 0;
    syncache_timeout(v, old);
    return false;
  }
  const ltp = intotcpcb(so.so_pcb as Inpcb);
  const tfo = tfoListen(inc, seg, ltp, so.sol_qlimit);
  if (tfo === TFO_VALID) {
    fillEntry(tcp, v.scratch, inc, seg, so);
    v.scratch.ecnReply = withoutAce(v.scratch.ecnReply);
    expandFastOpen(tcp, v.scratch, so, ltp);
    return true;
  }
  const cookie = tfo === TFO_COOKIE ? tfoResponse : null;
  if (params.syncookies && params.syncookies_only) {
    fillEntry(tcp, v.scratch, inc, seg, so);
    syncache_respond(v, v.scratch, TH_SYN | TH_ACK, cookie);
    return false;
  }
  const b = bucketOf(v, af, inc);
  makeRoom(v, b);
  const sc = v.free ?? new Syncache();
  v.free = sc.bucketNext;
  fillEntry(tcp, sc, inc, seg, so);
  sc.bucket = b;
  sc.bucketNext = v.buckets[b]!;
  v.buckets[b] = sc;
  v.lens[b]!++;
  v.count++;
  stat.tcps_sc_added++;
  syncache_respond(v, sc, TH_SYN | TH_ACK, cookie);
  syncache_timeout(v, sc);
  return false;
}

/** Creates the connection of a SYN with a valid Fast Open cookie; its SYN-ACK is sent later. */
function expandFastOpen(tcp: TcpVnet, sc: Syncache, lso: Socket, ltp: Tcpcb): void {
  const so = syncache_socket(tcp, sc, lso);
  expanded.so = so;
  if (so === null) {
    ltp.t_tfo!.pending!.n--;
    tcp.stat.tcps_sc_aborted++;
    return;
  }
  tfoAccepted(intotcpcb(so.so_pcb as Inpcb), ltp);
  tcp.stat.tcps_sc_completed++;
  soisconnected(so);
}

/**
 * Fills `sc` from the SYN in `seg` for the listener `so`, and chooses the options of the SYN-ACK.
 */
function fillEntry(tcp: TcpVnet, sc: Syncache, inc: InConninfo, seg: TcpSegment, so: Socket): void {
  const { stat, params } = tcp;
  sc.sc_inc.copyFrom(inc);
  sc.sc_irs = seg.seq;
  sc.sc_tsoff = tcp_new_ts_offset(tcp, inc);
  sc.sc_rxmits = 0;
  sc.sc_flags = 0;
  sc.ecnReply = 0;
  sc.sc_challenge_ack_cnt = 0;
  sc.sc_wnd = Math.min(Math.max(sbspace(so.so_rcv), 0), TCP_MAXWIN);
  sc.sc_peer_mss = (seg.to_flags & TOF_MSS) !== 0 ? seg.to_mss : 0;
  const linp = so.so_pcb as Inpcb;
  sc.sc_inc.inc_minmtu = linp.inp_inc.inc_minmtu;
  const af = inpaf(tcp.vnet, inc.inc_family);
  sc.sc_ip_ttl = af.ttlOf(linp);
  sc.sc_ip_tos = af.tosOf(linp);
  sc.sc_ipopts = af.sourceRoute();
  const noopt = (intotcpcb(linp).t_flags & TF_NOOPT) !== 0;
  if (noopt) {
    // TCP_NOOPT on the listener: ignore the options of the SYN.
    sc.sc_flags |= SCF_NOOPT;
    seg.to_flags = 0;
  }
  if (wantsTs(params) && (seg.to_flags & TOF_TS) !== 0) {
    sc.sc_flags |= SCF_TIMESTAMP;
    sc.sc_tsreflect = seg.to_tsval;
  }
  if (wantsScale(params) && (seg.to_flags & TOF_SCALE) !== 0) {
    sc.sc_flags |= SCF_WINSCALE;
    sc.sc_requested_s_scale = seg.to_wscale;
    sc.sc_requested_r_scale = tcpWscale();
  }
  if (params.sack_enable && (seg.to_flags & TOF_SACKPERM) !== 0) sc.sc_flags |= SCF_SACK;
  // A cookie cannot encode ECN. Do not accept ECN and then fail to echo marks.
  if (!(params.syncookies && params.syncookies_only)) {
    sc.ecnReply = tcp_ecn_syncache_add(tcp, seg);
    if (sc.ecnReply !== 0) stat.tcps_ecn_shs++;
  }
  if (!params.syncookies) {
    sc.sc_iss = tcp_new_isn(tcp, inc);
    return;
  }
  const wscale = (sc.sc_flags & SCF_WINSCALE) !== 0 ? seg.to_wscale : -1;
  const sack = (sc.sc_flags & SCF_SACK) !== 0;
  sc.sc_iss = syncookie_generate(tcp, inc, seg.seq, sc.sc_peer_mss, wscale, sack);
  stat.tcps_sc_sendcookie++;
}

/** Sends a challenge ACK for an entry, within the limit of RFC 5961, 7. */
function syncache_send_challenge_ack(v: SyncacheVnet, sc: Syncache): void {
  const { ack_war_cnt, ack_war_timewindow } = v.tcp.params;
  const now = tcpTicks();
  if (sc.sc_challenge_ack_cnt === 0 || ((now - sc.sc_challenge_ack_end) | 0) >= 0) {
    sc.sc_challenge_ack_end = (now + ack_war_timewindow) | 0;
    sc.sc_challenge_ack_cnt = 0;
  }
  if (ack_war_cnt > 0 && sc.sc_challenge_ack_cnt >= ack_war_cnt) {
    count(R_TCP_CHALLENGE_LIMIT);
    return;
  }
  count(R_TCP_CHALLENGE);
  sc.sc_challenge_ack_cnt++;
  v.tcp.stat.tcps_challengeack++;
  syncache_respond(v, sc, TH_ACK);
}

/**
 * Processes a RST for a listener: RFC 5961, 3.2. At the left edge of the window it removes the
 * entry. Elsewhere in the window it causes a challenge ACK, or with net.inet.tcp.insecure_rst removes
 * the entry as well. A RST that answers a SYN-ACK carries no ACK, SYN or FIN; others are ignored.
 * @see sys/netinet/tcp_syncache.c
 */
export function syncache_chkrst(tcp: TcpVnet, inc: InConninfo, seg: TcpSegment): void {
  const v = V_syncache(tcp.vnet);
  const plain = (seg.flags & (TH_ACK | TH_SYN | TH_FIN)) === 0;
  const sc = plain ? lookup(v, inpaf(tcp.vnet, inc.inc_family), inc) : null;
  const off = sc === null ? -1 : seqDiff(seg.seq, seqAdd(sc.sc_irs, 1));
  const inside = sc !== null && off > 0 && off < sc.sc_wnd;
  if (sc !== null && (off === 0 || (inside && tcp.params.insecure_rst))) {
    tcp.stat.tcps_sc_reset++;
    syncache_drop(v, sc);
    return;
  }
  countSegment(seg, R_TCP_BADRST);
  tcp.stat.tcps_badrst++;
  if (inside) syncache_send_challenge_ack(v, sc);
}

/**
 * Removes the entry of a segment that cannot belong to its handshake, such as a SYN-ACK. The caller
 * answers with a RST.
 * @see sys/netinet/tcp_syncache.c
 */
export function syncache_badack(tcp: TcpVnet, inc: InConninfo): void {
  const v = V_syncache(tcp.vnet);
  const sc = lookup(v, inpaf(tcp.vnet, inc.inc_family), inc);
  if (sc === null) return;
  tcp.stat.tcps_sc_badack++;
  syncache_drop(v, sc);
}

/**
 * Processes an ICMP unreachable error that quotes a SYN-ACK with sequence number `seq`. Drops the
 * entry only at the second such error or later, and only after the SYN-ACK was sent at least 4
 * times.
 * @see sys/netinet/tcp_syncache.c
 */
export function syncache_unreach(tcp: TcpVnet, af: InpAf, inc: InConninfo, seq: TcpSeq): void {
  const v = V_syncache(tcp.vnet);
  const sc = lookup(v, af, inc);
  if (sc === null || sc.sc_iss !== seq) return;
  if ((sc.sc_flags & SCF_UNREACH) === 0 || sc.sc_rxmits < 4) {
    sc.sc_flags |= SCF_UNREACH;
    return;
  }
  tcp.stat.tcps_sc_unreach++;
  syncache_drop(v, sc);
}

/** Results of syncache_expand. */
export const SYNCACHE_NONE = 0; // no matching entry or cookie: answer with RST
const SYNCACHE_IGNORE = 1; // not acceptable: drop the segment silently
export const SYNCACHE_OK = 2; // connection created: expanded.so is its socket

/** The socket that syncache_expand created; its connection is in SYN_RECEIVED. */
export const expanded: { so: Socket | null } = { so: null };

/**
 * Processes a segment with ACK and without SYN for the listener `lso`. If it acknowledges the
 * SYN-ACK of an entry or returns a valid cookie, creates the connection and stores its socket in
 * `expanded.so`; the caller then processes the segment on it. Returns a SYNCACHE_* constant.
 * @see sys/netinet/tcp_syncache.c
 */
export function syncache_expand(
  tcp: TcpVnet,
  inc: InConninfo,
  seg: TcpSegment,
  lso: Socket,
): number {
  const v = V_syncache(tcp.vnet);
  const { stat } = tcp;
  const sc = lookup(v, inpaf(tcp.vnet, inc.inc_family), inc);
  if (sc === null) return expandCookie(v, inc, seg, lso);
  // A segment with an old or missing timestamp says nothing about the entry, which stays.
  const ts = (seg.to_flags & TOF_TS) !== 0;
  const stale = ts ? TSTMP_LT(seg.to_tsval, sc.sc_tsreflect) : !tcp.params.tolerate_missing_ts;
  if ((sc.sc_flags & SCF_TIMESTAMP) !== 0 && stale) {
    countSegment(seg, R_TCP_PAWS);
    return SYNCACHE_IGNORE;
  }
  const edge = seqAdd(sc.sc_irs, Math.max(sc.sc_wnd, 1));
  if (seg.ack !== seqAdd(sc.sc_iss, 1) || SEQ_LEQ(seg.seq, sc.sc_irs) || SEQ_GT(seg.seq, edge)) {
    countSegment(seg, R_TCP_BADACK);
    stat.tcps_sc_badack++;
    syncache_drop(v, sc);
    return SYNCACHE_NONE;
  }
  // Ignore a timestamp that was not negotiated.
  if ((sc.sc_flags & SCF_TIMESTAMP) === 0) seg.to_flags &= ~TOF_TS;
  const so = syncache_socket(tcp, sc, lso);
  syncache_drop(v, sc);
  if (so === null) {
    stat.tcps_sc_aborted++;
    return tcp.params.syncache_rst_on_sock_fail ? SYNCACHE_NONE : SYNCACHE_IGNORE;
  }
  stat.tcps_sc_completed++;
  expanded.so = so;
  return SYNCACHE_OK;
}

/**
 * Whether to accept cookies: with syncookies_only always, else for SYNCOOKIE_LIFETIME after an
 * entry was dropped for lack of room.
 */
function cookiesOut(v: SyncacheVnet): boolean {
  const { syncookies, syncookies_only } = v.tcp.params;
  if (!syncookies) return false;
  return syncookies_only || nowNs() - v.overflowNs <= SYNCOOKIE_LIFETIME * 1e9;
}

/** syncache_expand without an entry: rebuilds the entry from the cookie that the ACK returns. */
function expandCookie(v: SyncacheVnet, inc: InConninfo, seg: TcpSegment, lso: Socket): number {
  const { tcp } = v;
  const { stat, params } = tcp;
  if (!cookiesOut(v)) {
    countSegment(seg, R_TCP_BADACK);
    return SYNCACHE_NONE;
  }
  const sc = v.scratch;
  sc.sc_irs = seqAdd(seg.seq, -1);
  sc.sc_iss = seqAdd(seg.ack, -1);
  if (!syncookie_lookup(tcp, inc, sc.sc_irs, sc.sc_iss)) {
    stat.tcps_sc_failcookie++;
    countSegment(seg, R_TCP_BADACK);
    return SYNCACHE_NONE;
  }
  sc.sc_inc.copyFrom(inc);
  sc.sc_flags = cookieSays.sack && params.sack_enable ? SCF_SACK : 0;
  sc.ecnReply = 0;
  sc.sc_peer_mss = cookieSays.mss;
  sc.sc_tsoff = tcp_new_ts_offset(tcp, inc);
  sc.sc_wnd = Math.min(Math.max(sbspace(lso.so_rcv), 0), TCP_MAXWIN);
  sc.sc_rxmits = 1;
  if (wantsScale(params) && cookieSays.wscale >= 0) {
    sc.sc_flags |= SCF_WINSCALE;
    sc.sc_requested_s_scale = cookieSays.wscale;
    sc.sc_requested_r_scale = tcpWscale();
  }
  const noopt = (intotcpcb(lso.so_pcb as Inpcb).t_flags & TF_NOOPT) !== 0;
  if (noopt) sc.sc_flags |= SCF_NOOPT;
  if (wantsTs(params) && !noopt && (seg.to_flags & TOF_TS) !== 0) {
    sc.sc_flags |= SCF_TIMESTAMP;
    sc.sc_tsreflect = seg.to_tsval;
  } else {
    seg.to_flags &= ~TOF_TS;
  }
  const so = syncache_socket(tcp, sc, lso);
  if (so === null) {
    stat.tcps_sc_aborted++;
    return params.syncache_rst_on_sock_fail ? SYNCACHE_NONE : SYNCACHE_IGNORE;
  }
  stat.tcps_sc_recvcookie++;
  expanded.so = so;
  return SYNCACHE_OK;
}

/** Number of entries in use. */
export function syncacheCount(tcp: TcpVnet): number {
  return V_syncache(tcp.vnet).count;
}

/** Addresses of the entries. netstat lists them as SYN_RCVD, as on FreeBSD. */
export function syncacheList(tcp: TcpVnet): InConninfo[] {
  const list: InConninfo[] = [];
  for (const chain of V_syncache(tcp.vnet).buckets)
    for (let sc = chain; sc !== null; sc = sc.bucketNext) list.push(sc.sc_inc);
  return list;
}

/** Drops all entries; the stack calls it when it stops. */
export function syncacheFlush(tcp: TcpVnet): void {
  const v = V_syncache(tcp.vnet);
  for (let b = 0; b < SYNCACHE_HASHSIZE; b++)
    for (let sc = v.buckets[b]!; sc !== null; sc = v.buckets[b]!) syncache_drop(v, sc);
}
