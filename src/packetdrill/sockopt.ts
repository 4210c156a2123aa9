/**
 * Translation of Linux's socket options (level, name, value) to FreeBSD's. At IPPROTO_TCP, two
 * options that Linux lacks are accepted by their FreeBSD numbers, such as TCP_KEEPINIT. Left out:
 * options without a counterpart in FreeBSD.
 */

import { EINVAL, ENOPROTOOPT, type Errno } from '../sys/errno.ts';
import { Sockopt, SOPT_GET, SOPT_SET } from '../kern/sockopt.ts';
import { IPPROTO_IP, IPPROTO_TCP } from '../kern/protosw.ts';
import { sbavail, sbspace } from '../kern/uipc_sockbuf.ts';
import {
  SO_ERROR,
  SO_RCVBUF,
  SO_RCVLOWAT,
  SO_RCVTIMEO,
  SO_SNDBUF,
  SO_SNDLOWAT,
  SO_SNDTIMEO,
  SO_TYPE,
  sogetopt,
  SOL_SOCKET,
  sosetopt,
} from '../kern/uipc_sockopt.ts';
import {
  SO_ACCEPTCONN,
  SO_BROADCAST,
  SO_KEEPALIVE,
  SO_LINGER,
  SO_OOBINLINE,
  SO_REUSEADDR,
  SO_REUSEPORT,
  type Socket,
} from '../kern/uipc_socket.ts';
import { INP_DROPPED, type Inpcb } from '../netinet/in_pcb.ts';
import { IP_DONTFRAG, IP_MINTTL, IP_TOS, IP_TTL } from '../netinet/ip_ctloutput.ts';
import { IPPROTO_IPV6 } from '../netinet6/ip6.ts';
import {
  IPV6_AUTOFLOWLABEL,
  IPV6_PATHMTU,
  IPV6_RECVDSTOPTS,
  IPV6_RECVHOPLIMIT,
  IPV6_RECVHOPOPTS,
  IPV6_RECVPATHMTU,
  IPV6_RECVPKTINFO,
  IPV6_RECVRTHDR,
  IPV6_RECVTCLASS,
  IPV6_UNICAST_HOPS,
  IPV6_V6ONLY,
} from '../netinet6/ip6_ctloutput.ts';
import {
  IPV6_DONTFRAG,
  IPV6_DSTOPTS,
  IPV6_HOPOPTS,
  IPV6_PKTINFO,
  IPV6_RTHDR,
  IPV6_RTHDRDSTOPTS,
  IPV6_TCLASS,
  IPV6_USE_MIN_MTU,
} from '../netinet6/ip6_pktopts.ts';
import {
  TCP_CONGESTION,
  TCP_FASTOPEN,
  tcp_fill_info,
  TCP_KEEPCNT,
  TCP_KEEPIDLE,
  TCP_KEEPINIT,
  TCP_KEEPINTVL,
  TCP_MAXSEG,
  TCP_MAXUNACKTIME,
  TCP_NODELAY,
  TCP_NOOPT,
  TCP_NOPUSH,
} from '../netinet/tcp_sockopt.ts';
import { intotcpcb } from '../netinet/tcp_subr.ts';
import { linuxErrno } from './linux.ts';

const LINUX_SOL_SOCKET = 1;
const LINUX_SO_MEMINFO = 55;
const LINUX_TCP_INFO = 11;
const LINUX_TCP_USER_TIMEOUT = 18;
const LINUX_TCP_CC_INFO = 26;
const LINUX_TCP_INFO_SIZE = 280;
const LINUX_IP_MTU_DISCOVER = 10;
const LINUX_IP_PMTUDISC_DONT = 0;
const LINUX_IP_PMTUDISC_DO = 2;

/** FreeBSD's option names by Linux's, one map per level. */
const SOCKET_NAMES = new Map<number, number>([
  [2, SO_REUSEADDR],
  [3, SO_TYPE],
  [4, SO_ERROR],
  [6, SO_BROADCAST],
  [7, SO_SNDBUF],
  [8, SO_RCVBUF],
  [9, SO_KEEPALIVE],
  [10, SO_OOBINLINE],
  [13, SO_LINGER],
  [15, SO_REUSEPORT],
  [18, SO_RCVLOWAT],
  [19, SO_SNDLOWAT],
  [20, SO_RCVTIMEO],
  [21, SO_SNDTIMEO],
  [30, SO_ACCEPTCONN],
]);
const TCP_NAMES = new Map<number, number>([
  [1, TCP_NODELAY],
  [2, TCP_MAXSEG],
  [3, TCP_NOPUSH],
  [4, TCP_KEEPIDLE],
  [5, TCP_KEEPINTVL],
  [6, TCP_KEEPCNT],
  [13, TCP_CONGESTION],
  [23, TCP_FASTOPEN],
  // Options that only FreeBSD has; scripts give their numbers.
  [TCP_NOOPT, TCP_NOOPT],
  [TCP_KEEPINIT, TCP_KEEPINIT],
]);
const IP_NAMES = new Map<number, number>([
  [1, IP_TOS],
  [2, IP_TTL],
  [21, IP_MINTTL],
]);

/** Boolean options: for `on` FreeBSD returns the option's bit, Linux returns 1. */
const SWITCHES: ReadonlySet<number> = new Set([
  SO_REUSEADDR,
  SO_BROADCAST,
  SO_KEEPALIVE,
  SO_OOBINLINE,
  SO_LINGER,
  SO_REUSEPORT,
  SO_ACCEPTCONN,
]);

const view = (b: Uint8Array): DataView => new DataView(b.buffer, b.byteOffset, b.byteLength);

const IP6_NAMES = new Map<number, number>([
  [16, IPV6_UNICAST_HOPS],
  [26, IPV6_V6ONLY],
  [49, IPV6_RECVPKTINFO],
  [50, IPV6_PKTINFO],
  [51, IPV6_RECVHOPLIMIT],
  [53, IPV6_RECVHOPOPTS],
  [54, IPV6_HOPOPTS],
  [55, IPV6_RTHDRDSTOPTS],
  [56, IPV6_RECVRTHDR],
  [57, IPV6_RTHDR],
  [58, IPV6_RECVDSTOPTS],
  [59, IPV6_DSTOPTS],
  [60, IPV6_RECVPATHMTU],
  [61, IPV6_PATHMTU],
  [62, IPV6_DONTFRAG],
  [66, IPV6_RECVTCLASS],
  [67, IPV6_TCLASS],
  [70, IPV6_AUTOFLOWLABEL],
  // Only FreeBSD has it; scripts give its number.
  [IPV6_USE_MIN_MTU, IPV6_USE_MIN_MTU],
]);

interface Name {
  readonly level: number;
  readonly name: number;
}

function translate(level: number, name: number): Name | null {
  const [to, names] =
    level === LINUX_SOL_SOCKET
      ? ([SOL_SOCKET, SOCKET_NAMES] as const)
      : level === IPPROTO_TCP
        ? ([IPPROTO_TCP, TCP_NAMES] as const)
        : level === IPPROTO_IPV6
          ? ([IPPROTO_IPV6, IP6_NAMES] as const)
          : ([IPPROTO_IP, IP_NAMES] as const);
  const found = names.get(name);
  if (found === undefined || (level !== to && to !== SOL_SOCKET)) return null;
  return { level: to, name: found };
}

function setBytes(so: Socket, { level, name }: Name, value: Uint8Array): Errno {
  return sosetopt(so, new Sockopt(SOPT_SET, level, name, Uint8Array.from(value)));
}

function intBytes(v: number): Uint8Array {
  const bytes = new Uint8Array(4);
  view(bytes).setInt32(0, v, true);
  return bytes;
}

/** Sets an option. Returns FreeBSD's errno. */
export function linuxSetsockopt(so: Socket, level: number, name: number, value: Uint8Array): Errno {
  const int = value.length >= 4 ? view(value).getInt32(0, true) : 0;
  if (level === IPPROTO_TCP && name === LINUX_TCP_USER_TIMEOUT) {
    // Linux's value is in milliseconds, FreeBSD's in seconds.
    if (value.length < 4 || int < 0) return EINVAL;
    const seconds = Math.ceil(int / 1000);
    return setBytes(so, { level: IPPROTO_TCP, name: TCP_MAXUNACKTIME }, intBytes(seconds));
  }
  if (level === IPPROTO_IP && name === LINUX_IP_MTU_DISCOVER) {
    if (int !== LINUX_IP_PMTUDISC_DONT && int !== LINUX_IP_PMTUDISC_DO) return EINVAL;
    const df = intBytes(int === LINUX_IP_PMTUDISC_DO ? 1 : 0);
    return setBytes(so, { level: IPPROTO_IP, name: IP_DONTFRAG }, df);
  }
  const to = translate(level, name);
  return to === null ? ENOPROTOOPT : setBytes(so, to, value);
}

// Linux's state numbers, indexed by TCPS_*.
const LINUX_STATES: readonly number[] = [7, 10, 2, 3, 1, 8, 4, 11, 9, 5, 6];

/** Linux's `struct tcp_info`, filled from FreeBSD's. */
function linuxTcpInfo(so: Socket): Uint8Array {
  const bytes = new Uint8Array(LINUX_TCP_INFO_SIZE);
  const inp = so.so_pcb as Inpcb | null;
  const v = view(bytes);
  if (inp === null || (inp.inp_flags & INP_DROPPED) !== 0) {
    v.setUint8(0, LINUX_STATES[0]!);
    return bytes;
  }
  const tp = intotcpcb(inp);
  const info = tcp_fill_info(tp);
  const mss = Math.max(info.tcpi_snd_mss, 1);
  v.setUint8(0, LINUX_STATES[info.tcpi_state]!);
  v.setUint8(2, tp.t_rxtshift);
  v.setUint8(5, info.tcpi_options);
  v.setUint8(6, info.tcpi_snd_wscale | (info.tcpi_rcv_wscale << 4));
  const u32: [number, number][] = [
    [8, info.tcpi_rto],
    [16, info.tcpi_snd_mss],
    [20, info.tcpi_rcv_mss],
    // Linux counts segments, FreeBSD bytes.
    [24, Math.ceil(((info.tcpi_snd_max - info.tcpi_snd_una) >>> 0) / mss)],
    [28, Math.ceil(tp.sacked_bytes / mss)],
    [52, Math.floor(info.tcpi_last_data_recv / 1000)],
    [68, info.tcpi_rtt],
    [72, info.tcpi_rttvar],
    [76, Math.floor(info.tcpi_snd_ssthresh / mss)],
    [80, Math.floor(info.tcpi_snd_cwnd / mss)],
    [96, info.tcpi_rcv_space],
    [100, info.tcpi_snd_rexmitpack],
    [224, info.tcpi_rcv_ooopack],
    [228, info.tcpi_snd_wnd],
    [232, info.tcpi_rcv_space],
  ];
  for (const [at, n] of u32) v.setUint32(at, Math.min(n, 0xffffffff), true);
  return bytes;
}

/** `SO_MEMINFO`: nine byte counts. Counts without a counterpart in FreeBSD are 0. */
function linuxMeminfo(so: Socket): Uint8Array {
  const bytes = new Uint8Array(36);
  const { so_rcv: rcv, so_snd: snd } = so;
  [sbavail(rcv), rcv.sb_hiwat, snd.sb_hiwat - sbspace(snd), snd.sb_hiwat].forEach((n, i) =>
    view(bytes).setUint32(4 * i, Math.max(n, 0), true),
  );
  return bytes;
}

/** Reads an option into `value`. Returns its length in bytes, or a negated FreeBSD errno. */
export function linuxGetsockopt(
  so: Socket,
  level: number,
  name: number,
  value: Uint8Array,
): number {
  const copy = (from: Uint8Array): number => {
    const n = Math.min(from.length, value.length);
    value.set(from.subarray(0, n));
    return n;
  };
  if (level === IPPROTO_TCP && name === LINUX_TCP_INFO) return copy(linuxTcpInfo(so));
  if (level === IPPROTO_TCP && name === LINUX_TCP_CC_INFO) return 0;
  if (level === LINUX_SOL_SOCKET && name === LINUX_SO_MEMINFO) return copy(linuxMeminfo(so));
  const timeout = level === IPPROTO_TCP && name === LINUX_TCP_USER_TIMEOUT;
  const to = timeout ? { level: IPPROTO_TCP, name: TCP_MAXUNACKTIME } : translate(level, name);
  if (to === null) return -ENOPROTOOPT;
  const sopt = new Sockopt(SOPT_GET, to.level, to.name, value);
  const error = sogetopt(so, sopt);
  if (error !== 0) return -error;
  if (sopt.sopt_valsize < 4) return sopt.sopt_valsize;
  const v = view(value);
  const int = v.getInt32(0, true);
  if (timeout) v.setInt32(0, int * 1000, true);
  else if (to.level === SOL_SOCKET && to.name === SO_ERROR) v.setInt32(0, linuxErrno(int), true);
  else if (to.level === SOL_SOCKET && SWITCHES.has(to.name)) v.setInt32(0, int !== 0 ? 1 : 0, true);
  else if (
    to.level === IPPROTO_TCP &&
    [TCP_NODELAY, TCP_NOPUSH, TCP_NOOPT, TCP_FASTOPEN].includes(to.name)
  )
    v.setInt32(0, int !== 0 ? 1 : 0, true);
  return sopt.sopt_valsize;
}
