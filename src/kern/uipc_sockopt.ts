/**
 * Socket options, after sosetopt and sogetopt of sys/kern/uipc_socket.c. SOL_SOCKET options are
 * here; the protocol's pr_ctloutput handles other levels. Names and numbers are those of FreeBSD
 * 14. Option values are bytes in C's little-endian layout. Left out: accept filters, MAC labels,
 * FIBs other than 0.
 */

import { EDOM, EINVAL, ENOBUFS, ENOPROTOOPT, type Errno } from '../sys/errno.ts';
import { inPass } from '../sys/pass.ts';
import {
  $optval,
  intBytes,
  sooptcopyin,
  sooptcopyout,
  sooptInt,
  sooptPutInt,
  Sockopt,
  SOPT_GET,
  SOPT_SET,
  view,
} from './sockopt.ts';
import { soTakeRerror } from './uipc_dgram.ts';
import { SB_AUTOSIZE, type Sockbuf, sbreserve } from './uipc_sockbuf.ts';
import {
  SO_ACCEPTCONN,
  SO_BINTIME,
  SO_BROADCAST,
  SO_DEBUG,
  SO_DONTROUTE,
  SO_KEEPALIVE,
  SO_LINGER,
  SO_NO_OFFLOAD,
  SO_NOSIGPIPE,
  SO_OOBINLINE,
  SO_RERROR,
  SO_REUSEADDR,
  SO_REUSEPORT,
  SO_REUSEPORT_LB,
  SO_TIMESTAMP,
  SO_USELOOPBACK,
  type Socket,
  soTakeError,
} from './uipc_socket.ts';

/** The level of the options below. */
export const SOL_SOCKET = 0xffff;

export const SO_SNDBUF = 0x1001;
export const SO_RCVBUF = 0x1002;
export const SO_SNDLOWAT = 0x1003;
export const SO_RCVLOWAT = 0x1004;
export const SO_SNDTIMEO = 0x1005;
export const SO_RCVTIMEO = 0x1006;
export const SO_ERROR = 0x1007;
export const SO_TYPE = 0x1008;
export const SO_LISTENQLIMIT = 0x1011;
export const SO_LISTENQLEN = 0x1012;
export const SO_LISTENINCQLEN = 0x1013;
export const SO_SETFIB = 0x1014;
const SO_USER_COOKIE = 0x1015;
export const SO_PROTOCOL = 0x1016;
export const SO_TS_CLOCK = 0x1017;
const SO_MAX_PACING_RATE = 0x1018;
export const SO_DOMAIN = 0x1019;

/** struct linger: l_onoff and l_linger, seconds. */
const LINGER_SIZE = 8;
/** struct timeval: tv_sec and tv_usec, 64 bits each. */
const TIMEVAL_SIZE = 16;
const USHRT_MAX = 65535;

/** Boolean options that a program may set. */
const SWITCHES =
  SO_DEBUG |
  SO_KEEPALIVE |
  SO_DONTROUTE |
  SO_USELOOPBACK |
  SO_BROADCAST |
  SO_REUSEADDR |
  SO_REUSEPORT |
  SO_REUSEPORT_LB |
  SO_OOBINLINE |
  SO_TIMESTAMP |
  SO_BINTIME |
  SO_NOSIGPIPE |
  SO_NO_OFFLOAD |
  SO_RERROR;

/** Whether `name` is exactly one bit, and that bit is in `set`. */
function oneOf(name: number, set: number): boolean {
  return name !== 0 && (name & (name - 1)) === 0 && (name & set) !== 0;
}

/**
 * SO_SNDBUF, SO_RCVBUF and the low-water marks. Setting a size turns off autosizing of the buffer.
 * @see sockbuf(9) (sbsetopt)
 */
function sbsetopt(sb: Sockbuf, name: number, cc: number): Errno {
  if (name === SO_SNDLOWAT || name === SO_RCVLOWAT) {
    sb.sb_lowat = Math.min(cc, sb.sb_hiwat);
    return 0;
  }
  if (!sbreserve(sb, cc)) return ENOBUFS;
  sb.sb_flags &= ~SB_AUTOSIZE;
  return 0;
}

function setLinger(so: Socket, sopt: Sockopt): Errno {
  const error = sooptcopyin(sopt, LINGER_SIZE, LINGER_SIZE);
  if (error !== 0) return error;
  const v = view(sopt.sopt_val);
  const seconds = v.getInt32(4, true);
  if (seconds < 0 || seconds > USHRT_MAX) return EDOM;
  so.so_linger = seconds;
  if (v.getInt32(0, true) !== 0) so.so_options |= SO_LINGER;
  else so.so_options &= ~SO_LINGER;
  return 0;
}

function setTimeo(sb: Sockbuf, sopt: Sockopt): Errno {
  const error = sooptcopyin(sopt, TIMEVAL_SIZE, TIMEVAL_SIZE);
  if (error !== 0) return error;
  const v = view(sopt.sopt_val);
  const sec = Number(v.getBigInt64(0, true));
  const usec = Number(v.getBigInt64(8, true));
  if (sec < 0 || usec < 0 || usec >= 1e6) return EDOM;
  // More than 68 years means no timeout.
  sb.sb_timeo = sec > 0x7fffffff ? 0 : sec * 1e9 + usec * 1e3;
  return 0;
}

/** Sets an option whose value is an int. */
function setInt(so: Socket, name: number, v: number): Errno {
  switch (name) {
    case SO_SETFIB:
      return v === 0 ? 0 : EINVAL;
    case SO_USER_COOKIE:
      so.so_user_cookie = v >>> 0;
      return 0;
    case SO_SNDBUF:
    case SO_SNDLOWAT:
      return v < 1 ? EINVAL : sbsetopt(so.so_snd, name, v);
    case SO_RCVBUF:
    case SO_RCVLOWAT:
      return v < 1 ? EINVAL : sbsetopt(so.so_rcv, name, v);
    case SO_TS_CLOCK:
      if (v < 0 || v > 3) return EINVAL;
      so.so_ts_clock = v;
      return 0;
    case SO_MAX_PACING_RATE:
      so.so_max_pacing_rate = v >>> 0;
      return 0;
    default:
      if (!oneOf(name, SWITCHES)) return ENOPROTOOPT;
      if (v !== 0) so.so_options |= name;
      else so.so_options &= ~name;
      return 0;
  }
}

/** Whether `name` is a SOL_SOCKET option with an int value that may be set. */
function settable(name: number): boolean {
  switch (name) {
    case SO_SETFIB:
    case SO_USER_COOKIE:
    case SO_SNDBUF:
    case SO_SNDLOWAT:
    case SO_RCVBUF:
    case SO_RCVLOWAT:
    case SO_TS_CLOCK:
    case SO_MAX_PACING_RATE:
      return true;
    default:
      return oneOf(name, SWITCHES);
  }
}

/**
 * Sets an option. ENOPROTOOPT: no such option; EINVAL: the value is too short or not valid; EDOM: a
 * time out of range; ENOBUFS: a buffer size above kern.ipc.maxsockbuf; or the protocol's errno.
 * @see setsockopt(2), sosetopt(9)
 */
export function sosetopt(so: Socket, sopt: Sockopt): Errno {
  return inPass(setInPass, so, sopt);
}

function setInPass(so: Socket, sopt: Sockopt): Errno {
  const { sopt_level, sopt_name } = sopt;
  if (sopt_level !== SOL_SOCKET) return so.so_proto.pr_ctloutput?.(so, sopt) ?? ENOPROTOOPT;
  let error: Errno = 0;
  if (sopt_name === SO_LINGER) error = setLinger(so, sopt);
  else if (sopt_name === SO_SNDTIMEO) error = setTimeo(so.so_snd, sopt);
  else if (sopt_name === SO_RCVTIMEO) error = setTimeo(so.so_rcv, sopt);
  else if (!settable(sopt_name)) error = ENOPROTOOPT;
  else error = sooptInt(sopt) || setInt(so, sopt_name, $optval.v);
  // Let the protocol see the option too, and ignore its errno: it may not use the option.
  if (error === 0) so.so_proto.pr_ctloutput?.(so, sopt);
  return error;
}

function getTimeo(sb: Sockbuf, sopt: Sockopt): Errno {
  const bytes = new Uint8Array(TIMEVAL_SIZE);
  const v = view(bytes);
  v.setBigInt64(0, BigInt(Math.floor(sb.sb_timeo / 1e9)), true);
  v.setBigInt64(8, BigInt(Math.floor((sb.sb_timeo % 1e9) / 1e3)), true);
  return sooptcopyout(sopt, bytes);
}

function getLinger(so: Socket, sopt: Sockopt): Errno {
  const bytes = new Uint8Array(LINGER_SIZE);
  const v = view(bytes);
  v.setInt32(0, so.so_options & SO_LINGER, true);
  v.setInt32(4, so.so_linger, true);
  return sooptcopyout(sopt, bytes);
}

/**
 * Reads an option into sopt_val, truncated to its size, and sets sopt_valsize to the length.
 * SO_ERROR clears the pending error. ENOPROTOOPT: no such option; or the protocol's errno.
 * @see getsockopt(2), sogetopt(9)
 */
export function sogetopt(so: Socket, sopt: Sockopt): Errno {
  return inPass(getInPass, so, sopt);
}

function getInPass(so: Socket, sopt: Sockopt): Errno {
  const { sopt_level, sopt_name: name } = sopt;
  if (sopt_level !== SOL_SOCKET) return so.so_proto.pr_ctloutput?.(so, sopt) ?? ENOPROTOOPT;
  switch (name) {
    case SO_LINGER:
      return getLinger(so, sopt);
    case SO_SNDTIMEO:
      return getTimeo(so.so_snd, sopt);
    case SO_RCVTIMEO:
      return getTimeo(so.so_rcv, sopt);
    case SO_DOMAIN:
      return sooptPutInt(sopt, so.so_proto.pr_domain);
    case SO_TYPE:
      return sooptPutInt(sopt, so.so_type);
    case SO_PROTOCOL:
      return sooptPutInt(sopt, so.so_proto.pr_protocol);
    case SO_ERROR:
      return sooptPutInt(sopt, soTakeError(so) || soTakeRerror(so));
    case SO_SNDBUF:
      return sooptPutInt(sopt, so.so_snd.sb_hiwat);
    case SO_RCVBUF:
      return sooptPutInt(sopt, so.so_rcv.sb_hiwat);
    case SO_SNDLOWAT:
      return sooptPutInt(sopt, so.so_snd.sb_lowat);
    case SO_RCVLOWAT:
      return sooptPutInt(sopt, so.so_rcv.sb_lowat);
    case SO_LISTENQLIMIT:
      return sooptPutInt(sopt, so.sol_qlimit);
    case SO_LISTENQLEN:
      return sooptPutInt(sopt, so.sol_comp.length);
    case SO_LISTENINCQLEN:
      return sooptPutInt(sopt, so.sol_incomp.length);
    case SO_TS_CLOCK:
      return sooptPutInt(sopt, so.so_ts_clock);
    case SO_MAX_PACING_RATE:
      return sooptPutInt(sopt, so.so_max_pacing_rate);
    default:
      if (!oneOf(name, SWITCHES | SO_ACCEPTCONN)) return ENOPROTOOPT;
      return sooptPutInt(sopt, so.so_options & name);
  }
}

/** Sets an option whose value is an int. Errors as of sosetopt. */
export function soSetInt(so: Socket, level: number, name: number, v: number): Errno {
  return sosetopt(so, new Sockopt(SOPT_SET, level, name, intBytes(v)));
}

/** Reads an option whose value is an int into `$optval.v`. Errors as of sogetopt. */
export function soGetInt(so: Socket, level: number, name: number): Errno {
  const sopt = new Sockopt(SOPT_GET, level, name, new Uint8Array(4));
  const error = sogetopt(so, sopt);
  if (error === 0) $optval.v = view(sopt.sopt_val).getInt32(0, true);
  return error;
}
