/**
 * Socket options at level IPPROTO_TCP, and TCP_INFO, after tcp_ctloutput and tcp_fill_info of
 * sys/netinet/tcp_usrreq.c. Names, values and layouts are those of FreeBSD 14. Left out: MD5
 * signatures, logging, statistics, TLS, options of other TCP stacks.
 */

import { ECONNRESET, EINVAL, ENOENT, ENOPROTOOPT, EPERM, type Errno } from '../sys/errno.ts';
import { IPPROTO_TCP } from '../kern/protosw.ts';
import {
  $optval,
  sooptcopyin,
  sooptcopyout,
  sooptInt,
  sooptPutInt,
  type Sockopt,
  SOPT_GET,
  view,
} from '../kern/sockopt.ts';
import type { Socket } from '../kern/uipc_socket.ts';
import { INP_DROPPED, type Inpcb } from './in_pcb.ts';
import { socketAf } from './in_mapped.ts';
import { tcp_set_cc_mod } from './cc.ts';
import {
  TCP_FASTOPEN_PSK_LEN,
  tfoClientEnabled,
  tfoListener,
  tfoServerEnabled,
  tfoSetPsk,
} from './tcp_fastopen.ts';
import {
  TCPS_CLOSED,
  TCPS_CLOSING,
  TCPS_FIN_WAIT_2,
  TCPS_HAVEESTABLISHED,
  TCPS_LISTEN,
  TCPS_SYN_RECEIVED,
  TCPS_SYN_SENT,
  TCPS_TIME_WAIT,
} from './tcp_fsm.ts';
import { intotcpcb } from './tcp_subr.ts';
import { tcp_timer_activate } from './tcp_timer.ts';
import {
  TCP_RTT_SHIFT,
  TCP_RTTVAR_SHIFT,
  type Tcpcb,
  tcpTicks,
  TF_FASTOPEN,
  TF_NODELAY,
  TF_NOOPT,
  TF_NOPUSH,
  TF_RCVD_SCALE,
  TF_RCVD_TSTMP,
  TF_REQ_SCALE,
  TF_REQ_TSTMP,
  TF_SACK_PERMIT,
  TF2_ACE_PERMIT,
  TF2_ECN_PERMIT,
  TP_KEEPCNT,
  TP_KEEPIDLE,
  TP_KEEPINIT,
  TP_KEEPINTVL,
  TP_MAXIDLE,
  TT_2MSL,
  TT_KEEP,
} from './tcp_var.ts';

// Option names, sys/netinet/tcp.h.
export const TCP_NODELAY = 1;
export const TCP_MAXSEG = 2;
export const TCP_NOPUSH = 4;
export const TCP_NOOPT = 8;
export const TCP_INFO = 32;
export const TCP_CONGESTION = 64;
export const TCP_MAXUNACKTIME = 68;
export const TCP_KEEPINIT = 128;
export const TCP_KEEPIDLE = 256;
export const TCP_KEEPINTVL = 512;
export const TCP_KEEPCNT = 1024;
export const TCP_FASTOPEN = 1025;
export const TCP_FUNCTION_BLK = 8192;
const TCP_FUNCTION_ALIAS = 8193;

/** Bytes of the longest algorithm name and of the longest stack name, NUL included. */
const TCP_CA_NAME_MAX = 16;
const TCP_FUNCTION_NAME_LEN_MAX = 32;

// tcpi_options
const TCPI_OPT_TIMESTAMPS = 0x01;
const TCPI_OPT_SACK = 0x02;
const TCPI_OPT_WSCALE = 0x04;
const TCPI_OPT_ECN = 0x08;
const TCPI_OPT_TFO = 0x20;
const TCPI_OPT_ACE = 0x40;

/** Bytes of struct tcp_fastopen. */
const TCP_FASTOPEN_SIZE = 4 + TCP_FASTOPEN_PSK_LEN;

/** Bytes of struct tcp_info in FreeBSD 14. */
export const TCP_INFO_SIZE = 240;

/**
 * struct tcp_info, the value of TCP_INFO. Times are in microseconds, windows and sizes in bytes;
 * tcpi_state is a TCPS_* value.
 * @see tcp(4)
 */
export interface TcpInfo {
  readonly tcpi_state: number;
  readonly tcpi_options: number;
  readonly tcpi_snd_wscale: number;
  readonly tcpi_rcv_wscale: number;
  readonly tcpi_rto: number;
  readonly tcpi_snd_mss: number;
  readonly tcpi_rcv_mss: number;
  readonly tcpi_last_data_recv: number;
  readonly tcpi_rtt: number;
  readonly tcpi_rttvar: number;
  readonly tcpi_snd_ssthresh: number;
  readonly tcpi_snd_cwnd: number;
  readonly tcpi_rcv_space: number;
  readonly tcpi_snd_wnd: number;
  readonly tcpi_snd_nxt: number;
  readonly tcpi_rcv_nxt: number;
  readonly tcpi_snd_rexmitpack: number;
  readonly tcpi_rcv_ooopack: number;
  readonly tcpi_snd_zerowin: number;
  readonly tcpi_snd_una: number;
  readonly tcpi_snd_max: number;
  readonly tcpi_rcv_numsacks: number;
  readonly tcpi_rcv_adv: number;
  readonly tcpi_dupacks: number;
}

// Byte offsets of the 32-bit fields. Byte 0 is the state, 5 the options, 6 both window scales, 4
// bits each.
const INFO_U32: readonly (readonly [keyof TcpInfo, number])[] = [
  ['tcpi_rto', 8],
  ['tcpi_snd_mss', 16],
  ['tcpi_rcv_mss', 20],
  ['tcpi_last_data_recv', 52],
  ['tcpi_rtt', 68],
  ['tcpi_rttvar', 72],
  ['tcpi_snd_ssthresh', 76],
  ['tcpi_snd_cwnd', 80],
  ['tcpi_rcv_space', 96],
  ['tcpi_snd_wnd', 100],
  ['tcpi_snd_nxt', 108],
  ['tcpi_rcv_nxt', 112],
  ['tcpi_snd_rexmitpack', 120],
  ['tcpi_rcv_ooopack', 124],
  ['tcpi_snd_zerowin', 128],
  ['tcpi_snd_una', 176],
  ['tcpi_snd_max', 180],
  ['tcpi_rcv_numsacks', 184],
  ['tcpi_rcv_adv', 188],
  ['tcpi_dupacks', 192],
];

/** @see sys/netinet/tcp_usrreq.c */
export function tcp_fill_info(tp: Tcpcb): TcpInfo {
  const f = tp.t_flags;
  const both = (mask: number): boolean => (f & mask) === mask;
  const scaled = both(TF_REQ_SCALE | TF_RCVD_SCALE);
  return {
    tcpi_state: tp.t_state,
    tcpi_options:
      (both(TF_REQ_TSTMP | TF_RCVD_TSTMP) ? TCPI_OPT_TIMESTAMPS : 0) |
      ((f & TF_SACK_PERMIT) !== 0 ? TCPI_OPT_SACK : 0) |
      (scaled ? TCPI_OPT_WSCALE : 0) |
      ((tp.t_flags2 & TF2_ACE_PERMIT) !== 0
        ? TCPI_OPT_ACE
        : (tp.t_flags2 & TF2_ECN_PERMIT) !== 0
          ? TCPI_OPT_ECN
          : 0) |
      ((f & TF_FASTOPEN) !== 0 ? TCPI_OPT_TFO : 0),
    tcpi_snd_wscale: scaled ? tp.snd_scale : 0,
    tcpi_rcv_wscale: scaled ? tp.rcv_scale : 0,
    tcpi_rto: tp.t_rxtcur * 1000,
    tcpi_snd_mss: tp.t_maxseg,
    tcpi_rcv_mss: tp.t_maxseg,
    tcpi_last_data_recv: ((tcpTicks() - tp.t_rcvtime) | 0) * 1000,
    tcpi_rtt: Math.floor((tp.t_srtt * 1000) / (1 << TCP_RTT_SHIFT)),
    tcpi_rttvar: Math.floor((tp.t_rttvar * 1000) / (1 << TCP_RTTVAR_SHIFT)),
    tcpi_snd_ssthresh: tp.snd_ssthresh,
    tcpi_snd_cwnd: tp.snd_cwnd,
    tcpi_rcv_space: tp.rcv_wnd,
    tcpi_snd_wnd: tp.snd_wnd,
    tcpi_snd_nxt: tp.snd_nxt >>> 0,
    tcpi_rcv_nxt: tp.rcv_nxt >>> 0,
    tcpi_snd_rexmitpack: tp.t_sndrexmitpack,
    tcpi_rcv_ooopack: tp.t_rcvoopack,
    tcpi_snd_zerowin: tp.t_sndzerowin,
    tcpi_snd_una: tp.snd_una >>> 0,
    tcpi_snd_max: tp.snd_max >>> 0,
    tcpi_rcv_numsacks: tp.rcv_numsacks,
    tcpi_rcv_adv: tp.rcv_adv >>> 0,
    tcpi_dupacks: tp.t_dupacks,
  };
}

/** Encodes `info` as struct tcp_info. */
function tcpInfoBytes(info: TcpInfo): Uint8Array {
  const bytes = new Uint8Array(TCP_INFO_SIZE);
  const v = view(bytes);
  v.setUint8(0, info.tcpi_state);
  v.setUint8(5, info.tcpi_options);
  v.setUint8(6, info.tcpi_snd_wscale | (info.tcpi_rcv_wscale << 4));
  for (const [name, at] of INFO_U32) v.setUint32(at, info[name], true);
  return bytes;
}

/** Decodes struct tcp_info; fields beyond the end of `bytes` are 0. */
export function tcpInfoOf(bytes: Uint8Array): TcpInfo {
  const whole = new Uint8Array(TCP_INFO_SIZE);
  whole.set(bytes.subarray(0, TCP_INFO_SIZE));
  const v = view(whole);
  return {
    tcpi_state: v.getUint8(0),
    tcpi_options: v.getUint8(5),
    tcpi_snd_wscale: v.getUint8(6) & 15,
    tcpi_rcv_wscale: v.getUint8(6) >> 4,
    ...Object.fromEntries(INFO_U32.map(([name, at]) => [name, v.getUint32(at, true)])),
  } as unknown as TcpInfo;
}

/** The option's value as a string: up to its NUL, at most `max - 1` bytes. */
function text(sopt: Sockopt, max: number): string {
  const bytes = sopt.sopt_val.subarray(0, Math.min(sopt.sopt_valsize, max - 1));
  const end = bytes.indexOf(0);
  return String.fromCharCode(...(end < 0 ? bytes : bytes.subarray(0, end)));
}

function putText(bytes: Uint8Array, s: string): Uint8Array {
  for (let i = 0; i < s.length; i++) bytes[i] = s.charCodeAt(i);
  return bytes;
}

function flag(tp: Tcpcb, bit: number, on: boolean): void {
  if (on) tp.t_flags |= bit;
  else tp.t_flags &= ~bit;
}

/** Sends data that TCP_NODELAY off or TCP_NOPUSH held back. Returns the errno of tcp_output. */
function push(tp: Tcpcb): Errno {
  return TCPS_HAVEESTABLISHED(tp.t_state) && tp.t_state !== TCPS_TIME_WAIT
    ? tp.t_fb.tfb_tcp_output(tp)
    : 0;
}

/**
 * Sets a keepalive option or the user timeout, in seconds, and restarts the timer that depends on
 * it. EINVAL: the value in ms does not fit in 32 bits.
 */
function setTime(tp: Tcpcb, name: number, seconds: number): Errno {
  seconds >>>= 0;
  if (seconds > Math.floor(0xffffffff / 1000)) return EINVAL;
  const ms = seconds * 1000;
  const live = tp.t_state > TCPS_LISTEN && tp.t_state <= TCPS_CLOSING;
  switch (name) {
    case TCP_KEEPINIT:
      tp.t_keepinit = ms;
      if (tp.t_state === TCPS_SYN_SENT || tp.t_state === TCPS_SYN_RECEIVED)
        tcp_timer_activate(tp, TT_KEEP, TP_KEEPINIT(tp));
      return 0;
    case TCP_KEEPIDLE:
      tp.t_keepidle = ms;
      if (live) tcp_timer_activate(tp, TT_KEEP, TP_KEEPIDLE(tp));
      return 0;
    case TCP_KEEPINTVL:
      tp.t_keepintvl = ms;
      if (tp.t_state === TCPS_FIN_WAIT_2) tcp_timer_activate(tp, TT_2MSL, TP_MAXIDLE(tp));
      return 0;
    default:
      tp.t_maxunacktime = ms;
      return 0;
  }
}

function setCongestion(tp: Tcpcb, sopt: Sockopt): Errno {
  const error = sooptcopyin(sopt, TCP_CA_NAME_MAX - 1, 1);
  if (error !== 0) return error;
  return tcp_set_cc_mod(tp, text(sopt, TCP_CA_NAME_MAX));
}

/** Sets the TCP stack. Only one exists: ENOENT for every other name. */
function setFunctions(tp: Tcpcb, sopt: Sockopt): Errno {
  const size = TCP_FUNCTION_NAME_LEN_MAX + 4;
  const error = sooptcopyin(sopt, size, size);
  if (error !== 0) return error;
  return text(sopt, TCP_FUNCTION_NAME_LEN_MAX) === tp.t_fb.tfb_tcp_block_name ? 0 : ENOENT;
}

function setInt(tp: Tcpcb, name: number, v: number): Errno {
  switch (name) {
    case TCP_NODELAY:
      flag(tp, TF_NODELAY, v !== 0);
      // Unlike FreeBSD, which sends the held-back data only with the next ACK.
      return v === 0 ? 0 : push(tp);
    case TCP_NOOPT:
      flag(tp, TF_NOOPT, v !== 0);
      return 0;
    case TCP_NOPUSH: {
      const was = (tp.t_flags & TF_NOPUSH) !== 0;
      flag(tp, TF_NOPUSH, v !== 0);
      return was && v === 0 ? push(tp) : 0;
    }
    case TCP_MAXSEG:
      if (v <= 0 || v > tp.t_maxseg || v + 40 < tp.t_tcp.params.minmss) return EINVAL;
      tp.t_maxseg = v;
      return 0;
    case TCP_KEEPCNT:
      tp.t_keepcnt = v >>> 0;
      if (tp.t_state === TCPS_FIN_WAIT_2) tcp_timer_activate(tp, TT_2MSL, TP_MAXIDLE(tp));
      return 0;
    default:
      return setTime(tp, name, v);
  }
}

/**
 * TCP_FASTOPEN: an int, or struct tcp_fastopen, an int and a pre-shared key of 16 bytes. EPERM: Fast
 * Open is off for this side; EINVAL: the socket is connecting or connected.
 */
function setFastOpen(tp: Tcpcb, sopt: Sockopt): Errno {
  const vnet = tp.t_inpcb.inp_vnet;
  if (!tfoClientEnabled(vnet) && !tfoServerEnabled(vnet)) return EPERM;
  const error = sooptcopyin(sopt, TCP_FASTOPEN_SIZE, 4);
  if (error !== 0) return error;
  if (tp.t_state !== TCPS_CLOSED && tp.t_state !== TCPS_LISTEN) return EINVAL;
  const { sopt_val: bytes, sopt_valsize: size } = sopt;
  if (view(bytes).getInt32(0, true) === 0) {
    tp.t_flags &= ~TF_FASTOPEN;
    return 0;
  }
  if (tp.t_state === TCPS_LISTEN) {
    if (!tfoServerEnabled(vnet)) return EPERM;
    tfoListener(tp);
  } else {
    tfoSetPsk(tp, size >= TCP_FASTOPEN_SIZE ? bytes.subarray(4, TCP_FASTOPEN_SIZE) : null);
  }
  tp.t_flags |= TF_FASTOPEN;
  return 0;
}

function setsockopt(tp: Tcpcb, sopt: Sockopt): Errno {
  switch (sopt.sopt_name) {
    case TCP_CONGESTION:
      return setCongestion(tp, sopt);
    case TCP_FUNCTION_BLK:
      return setFunctions(tp, sopt);
    case TCP_INFO:
      return EINVAL;
    case TCP_FASTOPEN:
      return setFastOpen(tp, sopt);
    case TCP_NODELAY:
    case TCP_NOOPT:
    case TCP_NOPUSH:
    case TCP_MAXSEG:
    case TCP_KEEPCNT:
    case TCP_KEEPINIT:
    case TCP_KEEPIDLE:
    case TCP_KEEPINTVL:
    case TCP_MAXUNACKTIME:
      return sooptInt(sopt) || setInt(tp, sopt.sopt_name, $optval.v);
    default:
      return ENOPROTOOPT;
  }
}

function getFunctions(tp: Tcpcb, sopt: Sockopt): Errno {
  const bytes = new Uint8Array(TCP_FUNCTION_NAME_LEN_MAX + 4);
  view(bytes).setUint32(TCP_FUNCTION_NAME_LEN_MAX, tp.t_tcp.tcbinfo.ipi_count, true);
  return sooptcopyout(sopt, putText(bytes, tp.t_fb.tfb_tcp_block_name));
}

function getsockopt(tp: Tcpcb, sopt: Sockopt): Errno {
  const seconds = (ms: number): Errno => sooptPutInt(sopt, Math.floor(ms / 1000));
  switch (sopt.sopt_name) {
    case TCP_NODELAY:
      return sooptPutInt(sopt, tp.t_flags & TF_NODELAY);
    case TCP_NOOPT:
      return sooptPutInt(sopt, tp.t_flags & TF_NOOPT);
    case TCP_NOPUSH:
      return sooptPutInt(sopt, tp.t_flags & TF_NOPUSH);
    case TCP_MAXSEG:
      return sooptPutInt(sopt, tp.t_maxseg);
    case TCP_INFO:
      return sooptcopyout(sopt, tcpInfoBytes(tcp_fill_info(tp)));
    case TCP_CONGESTION:
      return sooptcopyout(sopt, putText(new Uint8Array(tp.t_cc.name.length + 1), tp.t_cc.name));
    case TCP_KEEPINIT:
      return seconds(TP_KEEPINIT(tp));
    case TCP_KEEPIDLE:
      return seconds(TP_KEEPIDLE(tp));
    case TCP_KEEPINTVL:
      return seconds(TP_KEEPINTVL(tp));
    case TCP_KEEPCNT:
      return sooptPutInt(sopt, TP_KEEPCNT(tp));
    case TCP_MAXUNACKTIME:
      return seconds(tp.t_maxunacktime);
    case TCP_FASTOPEN:
      // Unlike FreeBSD, whose bit is the sign of the int.
      return sooptPutInt(sopt, (tp.t_flags & TF_FASTOPEN) !== 0 ? 1 : 0);
    case TCP_FUNCTION_BLK:
    case TCP_FUNCTION_ALIAS:
      return getFunctions(tp, sopt);
    default:
      return ENOPROTOOPT;
  }
}

/**
 * Reads or sets an option of a TCP socket; the family handles options at other levels. ECONNRESET:
 * the connection was dropped. ENOPROTOOPT: unknown option. EINVAL: bad size or value. EPERM:
 * TCP_FASTOPEN. ESRCH: unknown congestion control. ENOENT: unknown TCP stack.
 * @see tcp(4), sys/netinet/tcp_usrreq.c
 */
export function tcp_ctloutput(so: Socket, sopt: Sockopt): Errno {
  const inp = so.so_pcb as Inpcb | null;
  if (inp === null) return ECONNRESET;
  if (sopt.sopt_level !== IPPROTO_TCP) return socketAf(inp).ctloutput(so, sopt);
  if ((inp.inp_flags & INP_DROPPED) !== 0) return ECONNRESET;
  const tp = intotcpcb(inp);
  return sopt.sopt_dir === SOPT_GET ? getsockopt(tp, sopt) : setsockopt(tp, sopt);
}
