/**
 * TCP's control block and per-stack state, after sys/netinet/tcp_var.h, with FreeBSD's names of
 * fields, flags and statistics. Times are 32-bit ticks of 1 ms (hz=1000). Left out: MD5,
 * logging, TOE, hpts.
 */

import type { WorkRecord } from '../sys/pass.ts';
import type { Errno } from '../sys/errno.ts';
import { tcpSeq, type TcpSeq } from '../sys/types.ts';
import { type AnyCallout, nowNs } from '../kern/kern_timeout.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { type Vnet, VNET_DEFINE } from '../kern/vnet.ts';
import { type CcAlgo, CcVar } from './cc_var.ts';
import { type InConninfo, type InpAf, type Inpcb, Inpcbinfo, type TcpMss } from './in_pcb.ts';
import {
  TCP_MAXOLEN,
  TCP_MAXWIN,
  TCP_MSS,
  TCPOLEN_SACK,
  TCPOLEN_SACKHDR,
  TCPOLEN_TSTAMP_APPA,
} from './tcp.ts';
import { TCP_NSTATES, TCPS_CLOSED, type TcpState } from './tcp_fsm.ts';
import { TcpcbBase } from './tcpcb_cold.ts';

// t_flags
export const TF_ACKNOW = 0x00000001;
export const TF_DELACK = 0x00000002;
export const TF_NODELAY = 0x00000004;
export const TF_NOOPT = 0x00000008;
export const TF_SENTFIN = 0x00000010;
export const TF_REQ_SCALE = 0x00000020;
export const TF_RCVD_SCALE = 0x00000040;
export const TF_REQ_TSTMP = 0x00000080;
export const TF_RCVD_TSTMP = 0x00000100;
export const TF_SACK_PERMIT = 0x00000200;
export const TF_NEEDFIN = 0x00000800;
export const TF_NOPUSH = 0x00001000;
/** snd_cwnd_prev and the other *_prev fields are valid. */
export const TF_PREVVALID = 0x00002000;
export const TF_MORETOCOME = 0x00010000;
export const TF_LASTIDLE = 0x00040000;
export const TF_RXWIN0SENT = 0x00080000;
export const TF_FASTRECOVERY = 0x00100000;
export const TF_WASFRECOVERY = 0x00200000;
export const TF_FORCEDATA = 0x00800000;
export const TF_TSO = 0x01000000;
export const TF_CONGRECOVERY = 0x10000000;
export const TF_WASCRECOVERY = 0x20000000;
export const TF_FASTOPEN = 0x80000000;

// t_flags2
export const TF2_PLPMTU_BLACKHOLE = 0x00000001;
export const TF2_PLPMTU_MAXSEGSNT = 0x00000004;
export const TF2_ECN_PERMIT = 0x00000020;
export const TF2_ECN_SND_CWR = 0x00000040;
export const TF2_ECN_SND_ECE = 0x00000080;
/** Accurate ECN. With it, TF2_ECN_PERMIT is set when the handshake is complete. */
export const TF2_ACE_PERMIT = 0x00000100;
/** Ours: an ACK is due at the end of the pass. */
export const TF2_PASSACK = 0x01000000;
/** Ours: tcp_output is due at the end of the pass, or in the turn of the connection after it. */
export const TF2_PASSOUT = 0x02000000;

/** Limit of packets per tcp_output call. It only stops an endless loop: the window is smaller. */
export const PACKETS_MAX = 1 << 20;
/** The limit of the next tcp_output call, and the packets that the last one sent. */
export const outputQuota = { packets: PACKETS_MAX, sent: 0 };

// t_oobflags: the urgent byte is in t_iobc, has been read, or (ours) is announced but missing.
export const TCPOOB_HAVEDATA = 0x01;
export const TCPOOB_HADDATA = 0x02;
export const TCPOOB_EXPECT = 0x04;

// Timers of a connection.
export const TT_REXMT = 0;
export const TT_PERSIST = 1;
export const TT_KEEP = 2;
export const TT_2MSL = 3;
export const TT_DELACK = 4;
export const TT_N = 5;

/** t_srtt is in 1/32 ms, t_rttvar in 1/16 ms. */
export const TCP_RTT_SHIFT = 5;
export const TCP_RTTVAR_SHIFT = 4;
export const TCP_DELTA_SHIFT = 2;

/** Milliseconds of the machine's clock, modulo 2^32, as a signed 32-bit integer. */
export function tcpTicks(): number {
  return Math.floor(nowNs() / 1e6) | 0;
}

/** Counts of bytes in Tcpstat. */
const BYTE_COUNTS = [
  'tcps_sndbyte',
  'tcps_sndrexmitbyte',
  'tcps_rcvbyte',
  'tcps_rcvdupbyte',
  'tcps_rcvpartdupbyte',
  'tcps_rcvoobyte',
  'tcps_rcvbyteafterwin',
  'tcps_rcvackbyte',
  'tcps_sack_rexmit_bytes',
  'tcps_dsack_bytes',
] as const;

/** TCP statistics, with FreeBSD's names. @see sys/netinet/tcp_var.h */
export class Tcpstat {
  tcps_connattempt = 0;
  tcps_accepts = 0;
  tcps_connects = 0;
  tcps_drops = 0;
  tcps_conndrops = 0;
  tcps_closed = 0;
  tcps_segstimed = 0;
  tcps_rttupdated = 0;
  tcps_delack = 0;
  tcps_timeoutdrop = 0;
  tcps_rexmttimeo = 0;
  tcps_persisttimeo = 0;
  tcps_keeptimeo = 0;
  tcps_keepprobe = 0;
  tcps_keepdrops = 0;
  tcps_progdrops = 0;
  tcps_finwait2_drops = 0;
  tcps_persistdrop = 0;
  tcps_sndtotal = 0;
  tcps_sndpack = 0;
  tcps_sndbyte = 0;
  tcps_sndrexmitpack = 0;
  tcps_sndrexmitbyte = 0;
  tcps_sndacks = 0;
  tcps_sndprobe = 0;
  tcps_sndurg = 0;
  tcps_sndwinup = 0;
  tcps_sndctrl = 0;
  tcps_rcvtotal = 0;
  tcps_rcvpack = 0;
  tcps_rcvbyte = 0;
  tcps_rcvbadsum = 0;
  tcps_rcvbadoff = 0;
  tcps_rcvreassfull = 0;
  tcps_rcvshort = 0;
  tcps_rcvduppack = 0;
  tcps_rcvdupbyte = 0;
  tcps_rcvpartduppack = 0;
  tcps_rcvpartdupbyte = 0;
  tcps_rcvoopack = 0;
  tcps_rcvoobyte = 0;
  tcps_rcvpackafterwin = 0;
  tcps_rcvbyteafterwin = 0;
  tcps_rcvafterclose = 0;
  tcps_rcvwinprobe = 0;
  tcps_rcvdupack = 0;
  tcps_rcvacktoomuch = 0;
  tcps_rcvackpack = 0;
  tcps_rcvackbyte = 0;
  tcps_rcvwinupd = 0;
  tcps_pawsdrop = 0;
  tcps_predack = 0;
  tcps_preddat = 0;
  tcps_persistprobe = 0;
  tcps_usedrtt = 0;
  tcps_usedrttvar = 0;
  tcps_usedssthresh = 0;
  tcps_listendrop = 0;
  tcps_badsyn = 0;
  tcps_badrst = 0;
  tcps_mturesent = 0;
  tcps_pmtud_blackhole_activated = 0;
  tcps_pmtud_blackhole_activated_min_mss = 0;
  tcps_pmtud_blackhole_failed = 0;
  tcps_sc_added = 0;
  tcps_sc_retransmitted = 0;
  tcps_sc_dupsyn = 0;
  tcps_sc_dropped = 0;
  tcps_sc_completed = 0;
  tcps_sc_bucketoverflow = 0;
  tcps_sc_cacheoverflow = 0;
  tcps_sc_reset = 0;
  tcps_sc_stale = 0;
  tcps_sc_aborted = 0;
  tcps_sc_badack = 0;
  tcps_sc_unreach = 0;
  tcps_sc_zonefail = 0;
  tcps_sc_sendcookie = 0;
  tcps_sc_recvcookie = 0;
  tcps_sc_failcookie = 0;
  tcps_sndrexmitbad = 0;
  tcps_sack_recovery_episode = 0;
  tcps_sack_rexmits = 0;
  tcps_sack_rexmit_bytes = 0;
  tcps_sack_lostrexmits = 0;
  tcps_sack_rcv_blocks = 0;
  tcps_sack_send_blocks = 0;
  tcps_sack_sboverflow = 0;
  tcps_dsack_count = 0;
  tcps_dsack_bytes = 0;
  /** CE marks that the peer reported. CE marks on received packets are tcps_ecn_rcvce. */
  tcps_ecn_ce = 0;
  tcps_ecn_ect0 = 0;
  tcps_ecn_ect1 = 0;
  tcps_ecn_shs = 0;
  tcps_ecn_rcwnd = 0;
  tcps_ecn_rcvce = 0;
  tcps_sndrexmitfast = 0; // ours: retransmissions started by duplicate ACKs
  tcps_limitedtransmit = 0; // ours: segments of RFC 3042
  tcps_challengeack = 0; // ours: RFC 5961, sent
  tcps_tfo_active = 0; // ours: SYNs whose data was acknowledged by the SYN-ACK
  tcps_tfo_passive = 0; // ours: connections created by a SYN with a valid cookie
  tcps_tfo_disabled = 0; // ours: failures that disabled Fast Open on a path

  /**
   * Makes the counts of bytes doubles. V8 keeps a field as an integer of 32 bits until a value does not
   * fit, and then discards all compiled code that uses the object: TCP would become several times as
   * slow for a while after 2 GB.
   */
  constructor() {
    for (const name of BYTE_COUNTS) {
      this[name] = 0.5;
      this[name] = 0;
    }
  }
}

/** Settings under net.inet.tcp, with FreeBSD 14's defaults; times in ms. @see tcp(4) */
export class TcpParams {
  mssdflt = TCP_MSS;
  minmss = 216;
  /** 0 neither, 1 window scaling and timestamps, 2 the former, 3 the latter. */
  rfc1323 = 1;
  rfc3042 = true;
  rfc3390 = true;
  rfc3465 = true;
  abc_l_var = 2;
  initcwnd_segments = 10;
  // HyStart++, RFC 9406; thresholds in microseconds.
  hystart_minrtt_thresh = 4000;
  hystart_maxrtt_thresh = 16000;
  hystart_n_rttsamples = 8;
  hystart_css_growth_div = 4;
  hystart_css_rounds = 5;
  sendspace = 32768;
  recvspace = 65536;
  sendbuf_auto = true;
  sendbuf_inc = 8192;
  sendbuf_max = 2 * 1024 * 1024;
  sendbuf_auto_lowat = false;
  recvbuf_auto = true;
  recvbuf_max = 2 * 1024 * 1024;
  delayed_ack = true;
  delacktime = 40;
  sack_enable = true;
  sack_maxholes = 128;
  sack_globalmaxholes = 65536;
  sack_lrd = true;
  sack_revised = true;
  do_prr = true;
  ecn_enable = 2;
  ecn_maxretries = 1;
  msl = 30000;
  keepinit = 75000;
  keepidle = 7200000;
  keepintvl = 75000;
  keepcnt = 8;
  /** 0: no limit. */
  maxunacktime = 0;
  always_keepalive = true;
  persmin = 5000;
  persmax = 60000;
  finwait2_timeout = 60000;
  fast_finwait2_recycle = false;
  rexmit_initial = 1000;
  rexmit_min = 30;
  rexmit_slop = 200;
  retries = 12;
  tso = true;
  path_mtu_discovery = true;
  /** 0 off, 1 both families, 2 IPv4, 3 IPv6. */
  pmtud_blackhole_detection = 0;
  pmtud_blackhole_mss = 1200;
  drop_synfin = false;
  blackhole = 0;
  blackhole_local = false;
  insecure_rst = false;
  insecure_syn = false;
  insecure_ack = false;
  tolerate_missing_ts = true;
  rexmit_drop_options = false;
  log_in_vain = 0;
  log_debug = false;
  nolocaltimewait = true;
  /** Seconds, 0: never. */
  isn_reseed_interval = 0;
  ts_offset_per_conn = true;
  /** Percent of the window that NewReno keeps after a loss; with `abe`, after an ECN mark. */
  newreno_beta = 50;
  newreno_beta_ecn = 80;
  abe = false;
  abe_frlossreduce = false;
  icmp_may_rst = true;
  ack_war_timewindow = 1000;
  ack_war_cnt = 5;
  reass_maxqueuelen = 100;
  /** nmbclusters / 16 in FreeBSD; set at init. */
  reass_maxsegments = 0;
  syncache_rexmtlimit = 3;
  syncache_cachelimit = 15360;
  syncache_bucketlimit = 30;
  syncache_rst_on_sock_fail = true;
  syncookies = true;
  syncookies_only = false;
}

/** Whether window scaling is requested and accepted: net.inet.tcp.rfc1323. */
export const wantsScale = (p: TcpParams): boolean => p.rfc1323 === 1 || p.rfc1323 === 2;
/** Whether timestamps are requested and accepted: net.inet.tcp.rfc1323. */
export const wantsTs = (p: TcpParams): boolean => p.rfc1323 === 1 || p.rfc1323 === 3;

/** Upper bound of the RTO, ms: RFC 6298 requires at least 60 s. */
export const TCPTV_REXMTMAX = 64000;
/** Idle time after which ts_recent is invalid, ms: RFC 7323, 5.5. */
export const TCP_PAWS_IDLE = 24 * 24 * 60 * 60 * 1000;
export const tcprexmtthresh = 3;

/**
 * One TCP implementation, after struct tcp_function_block: the interface for an alternative one.
 */
export interface TcpFunctionBlock {
  readonly tfb_tcp_block_name: string;
  /** Sends all that may be sent now. Returns an errno, or -1 if it dropped the connection. */
  tfb_tcp_output(tp: Tcpcb): Errno;
  /** Processes the segment `seg`. Takes its mbuf. */
  tfb_tcp_do_segment(tp: Tcpcb, seg: TcpSegment): void;
  /** The connection's callout expired. */
  tfb_tcp_timer(tp: Tcpcb): void;
}

/** A range of bytes that the peer is missing. Pooled. @see sys/netinet/tcp_var.h */
export class Sackhole {
  start: TcpSeq = tcpSeq(0);
  end: TcpSeq = tcpSeq(0);
  /** The end of the part that was retransmitted; equals `start` if none was. */
  rxmit: TcpSeq = tcpSeq(0);
  /** snd_max at the last retransmission. SACK beyond it shows that the retransmission was lost. */
  sentAt: TcpSeq = tcpSeq(0);
  prev: Sackhole | null = null;
  next: Sackhole | null = null;
}

/** A segment in the reassembly queue. Pooled. @see sys/netinet/tcp_var.h */
export class TsegQent {
  tqe_start: TcpSeq = tcpSeq(0);
  tqe_len = 0;
  /** TH_FIN or 0. */
  tqe_flags = 0;
  /** Segments whose payload it has. */
  tqe_segs = 1;
  /** The mbuf chain of its payload, and the last mbuf of the chain. */
  tqe_m: Mbuf | null = null;
  tqe_last: Mbuf | null = null;
  tqe_next: TsegQent | null = null;
}

/** TCP's state of one stack. */
export class TcpVnet {
  readonly vnet: Vnet;
  readonly stat = new Tcpstat();
  readonly params = new TcpParams();
  readonly tcbinfo: Inpcbinfo;
  /** Connections by state, as netstat -s counts them. */
  readonly states = new Int32Array(TCP_NSTATES);
  /** SipHash keys of the initial sequence numbers (RFC 6528) and of the timestamp offsets. */
  readonly isn_secret = new Uint32Array(4);
  readonly ts_offset_secret = new Uint32Array(4);
  /** When isn_secret was generated, ns. */
  isnLastReseed = 0;
  /** Connections in TIME_WAIT without a socket, the oldest first. */
  readonly timeWait = new Set<Tcpcb>();
  /** Number of segments in all reassembly queues, and the free list of entries. */
  reassSegments = 0;
  reassFree: TsegQent | null = null;
  /** Number of holes in all scoreboards, and the free list of holes. */
  sackHoles = 0;
  sackFree: Sackhole | null = null;
  /** The congestion control of new connections. */
  ccAlgo: CcAlgo | null = null;
  /** The implementation of new connections; null until tcp_init. */
  functions: TcpFunctionBlock | null = null;
  /** Called when the peer of a connection acknowledges new data: it is reachable. Null: not needed. */
  nudHint: ((inc: InConninfo) => void) | null = null;
  /** Whether the local address of `inc` may not get new connections. Null: all may. */
  deprecated: ((inc: InConninfo) => boolean) | null = null;

  constructor(vnet: Vnet) {
    this.vnet = vnet;
    this.tcbinfo = new Inpcbinfo(vnet);
    for (let i = 0; i < 4; i++) {
      this.isn_secret[i] = vnet.prng.next32();
      this.ts_offset_secret[i] = vnet.prng.next32();
    }
  }
}

export const V_tcp = VNET_DEFINE((vnet) => new TcpVnet(vnet));

/** The default and minimum segment sizes of a family. */
export function mssDefaults(tcp: TcpVnet, af: InpAf): TcpMss {
  return af.tcpMss(tcp.vnet) ?? tcp.params;
}

/** TCP statistics of a stack, for `netstat -s`. */
export function tcpstat(vnet: Vnet): Tcpstat {
  return V_tcp(vnet).stat;
}

// Tcpcb.hystartUs: `ccv` gets no HyStart++; it gets one without a sample so far.
const HYSTART_OFF = -2;
export const HYSTART_NO_SAMPLE = -1;

/** TSO limits of an interface: bytes of a packet, segments, and bytes of a segment. */
export interface TsoLimits {
  readonly max: number;
  readonly maxsegcount: number;
  readonly maxsegsize: number;
}

const noTso: TsoLimits = { max: 0, maxsegcount: 0, maxsegsize: 0 };

/**
 * A connection. Sequence variables are RFC 9293's (3.3.1), byte counts are bytes, times ticks.
 * @see sys/netinet/tcp_var.h
 */
export class Tcpcb extends TcpcbBase {
  readonly t_inpcb: Inpcb;
  /** The stack's TCP state, and the implementation of this connection. */
  readonly t_tcp: TcpVnet;
  readonly t_fb: TcpFunctionBlock;
  t_state: TcpState = TCPS_CLOSED;
  t_flags = 0;
  t_flags2 = 0;

  // Send sequence space.
  snd_una: TcpSeq = tcpSeq(0);
  snd_nxt: TcpSeq = tcpSeq(0);
  snd_max: TcpSeq = tcpSeq(0);
  snd_up: TcpSeq = tcpSeq(0);
  snd_wl1: TcpSeq = tcpSeq(0);
  snd_wl2: TcpSeq = tcpSeq(0);
  iss: TcpSeq = tcpSeq(0);
  snd_recover: TcpSeq = tcpSeq(0);
  snd_wnd = 0;
  /** Largest window that the peer announced so far. */
  max_sndwnd = 0;
  snd_cwnd = TCP_MAXWIN << 14;
  snd_ssthresh = TCP_MAXWIN << 14;
  snd_scale = 0;
  request_r_scale = 0;

  // Receive sequence space.
  rcv_nxt: TcpSeq = tcpSeq(0);
  /** The right edge of the window that was announced to the peer. */
  rcv_adv: TcpSeq = tcpSeq(0);
  irs: TcpSeq = tcpSeq(0);
  /** The byte after the peer's urgent data; advances with rcv_nxt while none is announced. */
  rcv_up: TcpSeq = tcpSeq(0);
  last_ack_sent: TcpSeq = tcpSeq(0);
  rcv_wnd = 0;
  rcv_scale = 0;

  /** Largest segment to send: payload and TCP options. */
  t_maxseg = TCP_MSS;
  t_rxtshift = 0;
  t_rxtcur = 0;
  t_srtt = 0;
  t_rttvar = 0;
  t_rttmin = 0;
  /** When the segment that is being timed was sent (0: no measurement), and its first byte. */
  t_rtttime = 0;
  t_rtseq: TcpSeq = tcpSeq(0);
  t_rttupdated = 0;
  /** Bytes acknowledged in congestion avoidance since the window last grew: RFC 3465. */
  t_bytes_acked = 0;

  /** The congestion control algorithm and its state. */
  t_cc: CcAlgo;
  /** Made at first use, see `t_ccv`: an idle connection has none. */
  ccv: CcVar | null = null;
  /** The first RTT sample for HyStart++ while there is no `ccv`, µs, or a HYSTART_* constant. */
  hystartUs: number = HYSTART_OFF;

  /** The byte after the highest that the peer has. The SACK scoreboard is in TcpcbCold. */
  snd_fack: TcpSeq = tcpSeq(0);
  // Timestamps, RFC 7323.
  ts_recent = 0;
  ts_recent_age = 0;
  ts_offset = 0;

  /** Ticks: creation, last received segment, last ACK of new data or first data in flight. */
  t_starttime = 0;
  t_rcvtime = 0;
  t_acktime = 0;
  // Receive buffer autotuning: bytes received since rfbuf_ts.
  rfbuf_cnt = 0;
  rfbuf_ts = 0;

  /** The outgoing interface's TSO limits, valid with TF_TSO. Shared and read-only. */
  t_tso: TsoLimits = noTso;

  /**
   * Deadlines in ns, indexed by TT_*; Infinity: off. One callout serves all of them. An array of
   * doubles takes 90 bytes, a Float64Array 240.
   */
  readonly t_timers = [Infinity, Infinity, Infinity, Infinity, Infinity];

  constructor(inp: Inpcb, tcp: TcpVnet, fb: TcpFunctionBlock) {
    super();
    this.t_inpcb = inp;
    this.t_tcp = tcp;
    this.t_fb = fb;
    this.t_cc = tcp.ccAlgo!;
  }

  get t_ccv(): CcVar {
    if (this.ccv !== null) return this.ccv;
    const v = new CcVar(this.hystartUs !== HYSTART_OFF);
    if (this.hystartUs >= 0) v.hystart?.sample(this.hystartUs);
    this.ccv = v;
    return v;
  }

  /** Discards the congestion control state; the next use makes a new one. */
  ccReset(useHystart: boolean): void {
    this.ccv = null;
    this.hystartUs = useHystart ? HYSTART_NO_SAMPLE : HYSTART_OFF;
  }

  get t_tsomax(): number {
    return this.t_tso.max;
  }

  get t_tsomaxsegcount(): number {
    return this.t_tso.maxsegcount;
  }

  get t_tsomaxsegsize(): number {
    return this.t_tso.maxsegsize;
  }

  /** The callout: the control block itself. */
  get t_callout(): AnyCallout {
    return this;
  }

  override c_run(): void {
    this.t_fb.tfb_tcp_timer(this);
  }
}

/** Time limit of the handshake, ms. @see sys/netinet/tcp_timer.h */
export function TP_KEEPINIT(tp: Tcpcb): number {
  return tp.t_keepinit || tp.t_tcp.params.keepinit;
}

/** Idle time before the first keepalive probe, ms. @see sys/netinet/tcp_timer.h */
export function TP_KEEPIDLE(tp: Tcpcb): number {
  return tp.t_keepidle || tp.t_tcp.params.keepidle;
}

/** Time between keepalive probes, ms. @see sys/netinet/tcp_timer.h */
export function TP_KEEPINTVL(tp: Tcpcb): number {
  return tp.t_keepintvl || tp.t_tcp.params.keepintvl;
}

/** Unanswered keepalive probes before the connection is dropped. @see sys/netinet/tcp_timer.h */
export function TP_KEEPCNT(tp: Tcpcb): number {
  return tp.t_keepcnt || tp.t_tcp.params.keepcnt;
}

/** Time from the first keepalive probe to the drop, ms. @see sys/netinet/tcp_timer.h */
export function TP_MAXIDLE(tp: Tcpcb): number {
  return TP_KEEPCNT(tp) * TP_KEEPINTVL(tp);
}

/** FIN_WAIT_2 time-out if the program reads no more, ms. @see sys/netinet/tcp_timer.c */
export function finwait2Ms(tp: Tcpcb): number {
  const { fast_finwait2_recycle, finwait2_timeout } = tp.t_tcp.params;
  return fast_finwait2_recycle ? finwait2_timeout : TP_MAXIDLE(tp);
}

/** The user timeout, ms; 0: no limit. RFC 5482. @see sys/netinet/tcp_timer.h */
export function TP_MAXUNACKTIME(tp: Tcpcb): number {
  return tp.t_maxunacktime || tp.t_tcp.params.maxunacktime;
}

/**
 * Payload of a full segment: t_maxseg less the TCP and IP options.
 * @see sys/netinet/tcp_subr.c (there without the IP options)
 */
export function tcp_maxseg(tp: Tcpcb): number {
  let optlen = (tp.t_flags & TF_RCVD_TSTMP) !== 0 ? TCPOLEN_TSTAMP_APPA : 0;
  if (tp.rcv_numsacks > 0) optlen += sackOptlen(tp);
  const { t_inpcb: inp } = tp;
  optlen += inp.inp_af.optlenOf(inp);
  // A send buffer of a few bytes makes t_maxseg smaller than the options.
  return Math.max(tp.t_maxseg - optlen, 1);
}

/** Bytes of the SACK option, padding included, with as many blocks as fit beside a timestamp. */
export function sackOptlen(tp: Tcpcb): number {
  const room = TCP_MAXOLEN - ((tp.t_flags & TF_RCVD_TSTMP) !== 0 ? TCPOLEN_TSTAMP_APPA : 0);
  const n = Math.min(tp.rcv_numsacks, Math.floor((room - TCPOLEN_SACKHDR - 2) / TCPOLEN_SACK));
  return n === 0 ? 0 : 2 + TCPOLEN_SACKHDR + n * TCPOLEN_SACK;
}

/**
 * The segment being processed: RFC 9293's SEG variables, and its mbuf. `$seg` is the only instance
 * and is refilled for each segment.
 */
export class TcpSegment implements WorkRecord {
  entered = false;
  m: Mbuf | null = null;
  seq: TcpSeq = tcpSeq(0);
  ack: TcpSeq = tcpSeq(0);
  /** TH_*. */
  flags = 0;
  /** The window field. tcp_do_segment scales it to bytes. */
  wnd = 0;
  /** Bytes of payload. */
  tlen = 0;
  /** Segments that the NIC coalesced into it; 1 for an ordinary one. */
  nsegs = 1;
  /** Bytes of the IP and TCP headers before the payload in `m`; 0 after they were removed. */
  hdrlen = 0;
  /** Urgent pointer. */
  urp = 0;
  // Options, set by tcp_dooptions.
  to_flags = 0;
  to_mss = 0;
  to_wscale = 0;
  to_tsval = 0;
  to_tsecr = 0;
  /** SACK blocks: their address in the arena and their number. */
  to_sacks = 0;
  to_nsacks = 0;
  /** Fast Open cookie: its length, 0 for a request, and its address in memory. */
  to_tfo_len = 0;
  to_tfo_cookie = 0;
  /** The IP header's ECN bits. */
  ecn = 0;
  /** Send a rate-limited challenge ACK after the segment was processed. */
  challenge = false;
}

// TcpSegment.to_flags
export const TOF_MSS = 0x0001;
export const TOF_SCALE = 0x0002;
export const TOF_SACKPERM = 0x0004;
export const TOF_TS = 0x0010;
export const TOF_SACK = 0x0080;
export const TOF_FASTOPEN = 0x0100;

/** The only segment record. tcp_input fills it; it is valid until tcp_input returns. */
export const $seg = new TcpSegment();
