/**
 * The SYN cache, after sys/netinet/tcp_syncache.c: each half-open connection of a listener is a
 * small entry instead of a socket. SYN-ACKs are retransmitted with back-off. The number of entries
 * is limited; SYN cookies replace entries that were dropped for lack of room. Left out: Fast Open,
 * TOE.
 */

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
import { kva, tcpSeq, type TcpSeq } from '../sys/types.ts';
import type { Task } from '../sys/clock.ts';
import { m_gethdr } from '../kern/kern_mbuf.ts';
import { Callout, callout_reset, callout_stop, nowNs } from '../kern/kern_timeout.ts';
import { max_linkhdr, M_NOWAIT, MT_DATA, mtod } from '../kern/mbuf.ts';
import { IPPROTO_TCP } from '../kern/protosw.ts';
import { SB_AUTOSIZE, sbspace } from '../kern/uipc_sockbuf.ts';
import { type Socket, sonewconn } from '../kern/uipc_socket.ts';
import { VNET_DEFINE } from '../kern/vnet.ts';
import {
  InConninfo,
  INP_DONTFRAG,
  pcbSetConn,
  type InpAf,
  type Inpcb,
  inpaf,
  nextPktId,
} from './in_pcb.ts';
import { TCP_MAXWIN, Tcphdr, TH_ACK, TH_ECE, TH_SUM_OFF, TH_SYN } from './tcp.ts';
import { ecnWanted } from './tcp_ecn.ts';
import { tcp_state_change, TCPS_SYN_RECEIVED } from './tcp_fsm.ts';
import { tcp_new_isn, tcp_new_ts_offset } from './tcp_isn.ts';
import {
  cookieSays,
  SYNCOOKIE_LIFETIME,
  syncookie_generate,
  syncookie_lookup,
} from './tcp_syncookie.ts';
import { putSynOptions } from './tcp_options.ts';
import { SEQ_GT, SEQ_LEQ, seqAdd, seqDiff, TSTMP_LT } from './tcp_seq.ts';
import { intotcpcb, tcp_mss, tcp_mssopt, tcp_respond, tcpWscale } from './tcp_subr.ts';
import { tcp_backoff, TCP_MAXRXTSHIFT, tcp_timer_activate } from './tcp_timer.ts';
import {
  type Tcpcb,
  type TcpSegment,
  tcpTicks,
  TCPTV_REXMTMAX,
  type TcpVnet,
  TF_NODELAY,
  TF_NOOPT,
  TF_NOPUSH,
  TF_RCVD_SCALE,
  TF_RCVD_TSTMP,
  TF_REQ_SCALE,
  TF_REQ_TSTMP,
  TF_SACK_PERMIT,
  TF2_ECN_PERMIT,
  TOF_MSS,
  TOF_SACKPERM,
  TOF_SCALE,
  TOF_TS,
  TP_KEEPINIT,
  TT_KEEP,
  V_tcp,
  wantsScale,
  wantsTs,
} from './tcp_var.ts';

/** Number of buckets: net.inet.tcp.syncache.hashsize. */
export const SYNCACHE_HASHSIZE = 512;

// sc_flags
const SCF_NOOPT = 0x01;
const SCF_WINSCALE = 0x02;
const SCF_TIMESTAMP = 0x04;
const SCF_SACK = 0x08;
const SCF_ECN = 0x10;
const SCF_UNREACH = 0x20;

/** One half-open connection. Pooled. @see sys/netinet/tcp_syncache.h */
class Syncache {
  readonly sc_inc = new InConninfo();
  sc_flags = 0;
  sc_iss: TcpSeq = tcpSeq(0);
  sc_irs: TcpSeq = tcpSeq(0);
  /** Window that our SYN-ACK announces, bytes. */
  sc_wnd = 0;
  /** The peer's MSS option (0: absent), the peer's window scale, and the scale we announce. */
  sc_peer_mss = 0;
  sc_requested_s_scale = 0;
  sc_requested_r_scale = 0;
  /** The peer's timestamp to echo, and the offset of our timestamps. */
  sc_tsreflect = 0;
  sc_tsoff = 0;
  /** Copied from the listener's IP_TTL and IP_TOS. */
  sc_ip_ttl = 64;
  sc_ip_tos = 0;
  /** How often the SYN-ACK was sent. */
  sc_rxmits = 0;
  /** When the SYN-ACK is sent next, ns. */
  sc_rxttime = 0;
  /** Challenge ACKs in the current interval of the rate limit, and its end in ticks. */
  sc_challenge_ack_cnt = 0;
  sc_challenge_ack_end = 0;
  bucket = 0;
  bucketNext: Syncache | null = null;
  // Index and links of the retransmission queue. All entries of a queue were sent equally often and
  // wait equally long, so each queue is sorted by sc_rxttime. -1: not queued.
  queue = -1;
  qPrev: Syncache | null = null;
  qNext: Syncache | null = null;
}

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
      if (sc.sc_rxmits > params.ecn_maxretries) sc.sc_flags &= ~SCF_ECN;
      syncache_respond(v, sc);
      syncache_timeout(v, sc);
    }
  }
  rearm(v);
}

/** Sends the SYN-ACK. If no mbuf is free, the timer or the peer's next SYN tries again. */
function syncache_respond(v: SyncacheVnet, sc: Syncache): void {
  const { tcp } = v;
  const af = inpaf(tcp.vnet, sc.sc_inc.inc_family);
  const m = m_gethdr(M_NOWAIT, MT_DATA);
  if (m === null) return;
  m.m_data += max_linkhdr;
  const thAt = mtod(m) + af.hdrlen;
  const optlen =
    (sc.sc_flags & SCF_NOOPT) !== 0
      ? 0
      : putSynOptions(
          kva(thAt + Tcphdr.SIZE),
          tcp_mssopt(tcp, sc.sc_inc),
          (sc.sc_flags & SCF_WINSCALE) !== 0 ? sc.sc_requested_r_scale : -1,
          (sc.sc_flags & SCF_SACK) !== 0,
          (sc.sc_flags & SCF_TIMESTAMP) !== 0,
          (tcpTicks() + sc.sc_tsoff) | 0,
          sc.sc_tsreflect,
        );
  const len = af.hdrlen + Tcphdr.SIZE + optlen;
  const th = $th.at(kva(thAt));
  th.th_sport = sc.sc_inc.inc_lport;
  th.th_dport = sc.sc_inc.inc_fport;
  th.th_seq = sc.sc_iss;
  th.th_ack = seqAdd(sc.sc_irs, 1);
  th.th_off = (Tcphdr.SIZE + optlen) >> 2;
  th.th_flags = TH_SYN | TH_ACK | ((sc.sc_flags & SCF_ECN) !== 0 ? TH_ECE : 0);
  th.th_win = sc.sc_wnd;
  th.th_urp = 0;
  th.th_sum = af.pseudo(sc.sc_inc, Tcphdr.SIZE + optlen + IPPROTO_TCP);
  const df = tcp.params.path_mtu_discovery;
  af.fill(mtod(m), sc.sc_inc, len, IPPROTO_TCP, sc.sc_ip_ttl, sc.sc_ip_tos, df);
  m.m_len = len;
  m.m_pkthdr.len = len;
  m.m_pkthdr.csum_flags = af.csumTcp;
  m.m_pkthdr.csum_data = TH_SUM_OFF;
  m.m_pkthdr.pktId = nextPktId();
  tcp.stat.tcps_sndtotal++;
  tcp.stat.tcps_sndctrl++;
  // Ignore the errno: IP counts the drop, and the timer retransmits the SYN-ACK.
  af.output(m, null, tcp.vnet);
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
 * discarded; the peer retransmits it.
 * @see sys/netinet/tcp_syncache.c
 */
export function syncache_add(tcp: TcpVnet, inc: InConninfo, seg: TcpSegment, so: Socket): void {
  const v = V_syncache(tcp.vnet);
  const af = inpaf(tcp.vnet, inc.inc_family);
  const { stat, params } = tcp;
  const old = lookup(v, af, inc);
  if (old !== null) {
    stat.tcps_sc_dupsyn++;
    if (old.sc_irs === seg.seq) {
      if ((seg.to_flags & TOF_TS) !== 0) old.sc_tsreflect = seg.to_tsval;
      // RFC 3168, 6.1.1.1: the peer retransmitted its SYN without ECN.
      if (!ecnWanted(tcp, seg.flags)) old.sc_flags &= ~SCF_ECN;
      syncache_respond(v, old);
      return;
    }
    // A new initial sequence number: the peer started over. Discard the old entry.
    syncache_drop(v, old);
  }
  if (params.syncookies && params.syncookies_only) {
    fillEntry(tcp, v.scratch, inc, seg, so);
    syncache_respond(v, v.scratch);
    return;
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
  syncache_respond(v, sc);
  syncache_timeout(v, sc);
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
  sc.sc_challenge_ack_cnt = 0;
  sc.sc_wnd = Math.min(Math.max(sbspace(so.so_rcv), 0), TCP_MAXWIN);
  sc.sc_peer_mss = (seg.to_flags & TOF_MSS) !== 0 ? seg.to_mss : 0;
  const linp = so.so_pcb as Inpcb;
  sc.sc_ip_ttl = linp.inp_ip_ttl;
  sc.sc_ip_tos = linp.inp_ip_tos;
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
  if (ecnWanted(tcp, seg.flags) && !(params.syncookies && params.syncookies_only)) {
    sc.sc_flags |= SCF_ECN;
    stat.tcps_ecn_shs++;
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

/** Sends a challenge ACK for an entry, with the rate limit of connections: RFC 5961, 7. */
function syncache_send_challenge_ack(tcp: TcpVnet, sc: Syncache): void {
  const { ack_war_cnt, ack_war_timewindow } = tcp.params;
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
  tcp.stat.tcps_challengeack++;
  tcp_respond(tcp, null, sc.sc_inc, seqAdd(sc.sc_iss, 1), seqAdd(sc.sc_irs, 1), TH_ACK);
}

/**
 * Processes a RST for a listener: drops the entry if the sequence number is exactly the expected
 * one.
 * @see sys/netinet/tcp_syncache.c
 */
export function syncache_chkrst(tcp: TcpVnet, inc: InConninfo, seg: TcpSegment): void {
  const v = V_syncache(tcp.vnet);
  const sc = lookup(v, inpaf(tcp.vnet, inc.inc_family), inc);
  const off = sc === null ? -1 : seqDiff(seg.seq, seqAdd(sc.sc_irs, 1));
  if (sc === null || off !== 0) {
    count(R_TCP_BADRST);
    tcp.stat.tcps_badrst++;
    // RFC 5961, 3.2: in the window, but not at its left edge.
    if (sc !== null && off > 0 && off < sc.sc_wnd) syncache_send_challenge_ack(tcp, sc);
    return;
  }
  tcp.stat.tcps_sc_reset++;
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

/** Copies the listener's options, timers and congestion control to the new connection. */
function inherit(tp: Tcpcb, linp: Inpcb): void {
  const ltp = intotcpcb(linp);
  const inp = tp.t_inpcb;
  inp.inp_ip_ttl = linp.inp_ip_ttl;
  inp.inp_ip_tos = linp.inp_ip_tos;
  inp.inp_ip_minttl = linp.inp_ip_minttl;
  inp.inp_flags |= linp.inp_flags & INP_DONTFRAG;
  tp.t_flags |= ltp.t_flags & (TF_NOPUSH | TF_NODELAY);
  tp.t_cc = ltp.t_cc;
  tp.t_keepinit = ltp.t_keepinit;
  tp.t_keepidle = ltp.t_keepidle;
  tp.t_keepintvl = ltp.t_keepintvl;
  tp.t_keepcnt = ltp.t_keepcnt;
  tp.t_maxunacktime = ltp.t_maxunacktime;
}

/** Creates the connection of an entry in SYN_RECEIVED. Null if sonewconn fails. */
function syncache_socket(v: SyncacheVnet, sc: Syncache, lso: Socket): Socket | null {
  const so = sonewconn(lso, 0);
  if (so === null) {
    v.tcp.stat.tcps_listendrop++;
    return null;
  }
  const inp = so.so_pcb as Inpcb;
  const tp = intotcpcb(inp);
  // Inherit fixed buffer sizes: SO_SNDBUF or SO_RCVBUF on the listener turned autotuning off.
  so.so_snd.sb_flags &= lso.so_snd.sb_flags | ~SB_AUTOSIZE;
  so.so_rcv.sb_flags &= lso.so_rcv.sb_flags | ~SB_AUTOSIZE;
  pcbSetConn(inp, sc.sc_inc);
  inherit(tp, lso.so_pcb as Inpcb);
  if ((sc.sc_flags & SCF_NOOPT) !== 0) tp.t_flags |= TF_NOOPT;
  tcp_state_change(tp, TCPS_SYN_RECEIVED);
  tp.iss = sc.sc_iss;
  tp.irs = sc.sc_irs;
  tp.rcv_nxt = seqAdd(sc.sc_irs, 1);
  tp.rcv_up = tp.rcv_nxt;
  tp.rcv_adv = seqAdd(tp.rcv_nxt, sc.sc_wnd);
  tp.last_ack_sent = tp.rcv_nxt;
  tp.snd_wl1 = sc.sc_irs;
  tp.snd_una = sc.sc_iss;
  tp.snd_recover = sc.sc_iss;
  tp.snd_up = sc.sc_iss;
  tp.snd_nxt = seqAdd(sc.sc_iss, 1);
  tp.snd_max = tp.snd_nxt;
  tp.ts_offset = sc.sc_tsoff;
  if ((sc.sc_flags & SCF_WINSCALE) !== 0) {
    tp.t_flags |= TF_REQ_SCALE | TF_RCVD_SCALE;
    tp.snd_scale = sc.sc_requested_s_scale;
    tp.request_r_scale = sc.sc_requested_r_scale;
  } else {
    tp.t_flags &= ~TF_REQ_SCALE;
  }
  if ((sc.sc_flags & SCF_TIMESTAMP) !== 0) {
    tp.t_flags |= TF_REQ_TSTMP | TF_RCVD_TSTMP;
    tp.ts_recent = sc.sc_tsreflect;
    tp.ts_recent_age = tcpTicks();
  } else {
    tp.t_flags &= ~TF_REQ_TSTMP;
  }
  if ((sc.sc_flags & SCF_SACK) === 0) tp.t_flags &= ~TF_SACK_PERMIT;
  if ((sc.sc_flags & SCF_ECN) !== 0) tp.t_flags2 |= TF2_ECN_PERMIT;
  tp.snd_fack = tp.snd_una;
  tcp_mss(tp, sc.sc_peer_mss);
  // RFC 5681, 3.1: after a SYN-ACK retransmission the initial window is one segment.
  tp.t_rxtshift = sc.sc_rxmits > 1 ? 1 : 0;
  tcp_timer_activate(tp, TT_KEEP, TP_KEEPINIT(tp));
  v.tcp.stat.tcps_accepts++;
  return so;
}

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
  if (seg.ack !== seqAdd(sc.sc_iss, 1)) {
    stat.tcps_sc_badack++;
    count(R_TCP_BADACK);
    return SYNCACHE_NONE;
  }
  if (SEQ_LEQ(seg.seq, sc.sc_irs) || SEQ_GT(seg.seq, seqAdd(sc.sc_irs, Math.max(sc.sc_wnd, 1)))) {
    count(R_TCP_BADACK);
    return SYNCACHE_IGNORE;
  }
  const ts = (seg.to_flags & TOF_TS) !== 0;
  const stale = ts ? TSTMP_LT(seg.to_tsval, sc.sc_tsreflect) : !tcp.params.tolerate_missing_ts;
  if ((sc.sc_flags & SCF_TIMESTAMP) !== 0 && stale) {
    count(R_TCP_PAWS);
    return SYNCACHE_IGNORE;
  }
  // Ignore a timestamp that was not negotiated.
  if ((sc.sc_flags & SCF_TIMESTAMP) === 0) seg.to_flags &= ~TOF_TS;
  const so = syncache_socket(v, sc, lso);
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
    count(R_TCP_BADACK);
    return SYNCACHE_NONE;
  }
  const sc = v.scratch;
  sc.sc_irs = seqAdd(seg.seq, -1);
  sc.sc_iss = seqAdd(seg.ack, -1);
  if (!syncookie_lookup(tcp, inc, sc.sc_irs, sc.sc_iss)) {
    stat.tcps_sc_failcookie++;
    count(R_TCP_BADACK);
    return SYNCACHE_NONE;
  }
  sc.sc_inc.copyFrom(inc);
  sc.sc_flags = cookieSays.sack && params.sack_enable ? SCF_SACK : 0;
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
  const so = syncache_socket(v, sc, lso);
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
