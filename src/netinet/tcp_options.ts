/**
 * Parsing and writing of TCP options, after tcp_dooptions and tcp_addoptions of FreeBSD. Supported
 * are MSS, window scale, timestamps (RFC 9293, RFC 7323), SACK (RFC 2018) and Fast Open (RFC 7413). Other options are
 * skipped by their length. Left out: MD5 signatures.
 */

import type { Kva } from '../sys/types.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  TCP_MAX_WINSHIFT,
  TCPOLEN_MAXSEG,
  TCPOLEN_SACK,
  TCPOLEN_SACK_PERMITTED,
  TCPOLEN_SACKHDR,
  TCPOLEN_TIMESTAMP,
  TCPOLEN_TSTAMP_APPA,
  TCPOLEN_WINDOW,
  TCPOLEN_FAST_OPEN_EMPTY,
  TCPOPT_EOL,
  TCPOPT_FAST_OPEN,
  TCPOPT_MAXSEG,
  TCPOPT_NOP,
  TCPOPT_SACK,
  TCPOPT_SACK_PERMITTED,
  TCPOPT_TIMESTAMP,
  TCPOPT_WINDOW,
} from './tcp.ts';
import {
  sackOptlen,
  type Tcpcb,
  type TcpSegment,
  TOF_FASTOPEN,
  TOF_MSS,
  TOF_SACK,
  TOF_SACKPERM,
  TOF_SCALE,
  TOF_TS,
} from './tcp_var.ts';

/** Two NOPs, kind 8, length 10: the usual form of the timestamp option (RFC 7323, appendix A). */
const TSTAMP_HDR =
  (TCPOPT_NOP << 24) | (TCPOPT_NOP << 16) | (TCPOPT_TIMESTAMP << 8) | TCPOLEN_TIMESTAMP;

/**
 * Parses `cnt` bytes of options at `cp` into `seg.to_*`. Ignores options of a wrong length, and
 * without `syn` options that are only valid in a SYN. A length below 2 or beyond the end stops the
 * parsing, because the next option cannot be found.
 * @see sys/netinet/tcp_input.c
 */
export function tcp_dooptions(seg: TcpSegment, cp: Kva, cnt: number, syn: boolean): void {
  seg.to_flags = 0;
  seg.to_nsacks = 0;
  if (cnt === TCPOLEN_TSTAMP_APPA && !syn && memView.getInt32(cp) === TSTAMP_HDR) {
    seg.to_flags = TOF_TS;
    seg.to_tsval = memView.getInt32(cp + 4);
    seg.to_tsecr = memView.getInt32(cp + 8);
    return;
  }
  const end = cp + cnt;
  for (let p: number = cp, optlen = 0; p < end; p += optlen) {
    const opt = mem[p]!;
    if (opt === TCPOPT_EOL) return;
    if (opt === TCPOPT_NOP) {
      optlen = 1;
      continue;
    }
    if (end - p < 2) return;
    optlen = mem[p + 1]!;
    if (optlen < 2 || optlen > end - p) return;
    switch (opt) {
      case TCPOPT_MAXSEG:
        if (optlen !== TCPOLEN_MAXSEG || !syn) break;
        seg.to_flags |= TOF_MSS;
        seg.to_mss = memView.getUint16(p + 2);
        break;
      case TCPOPT_WINDOW:
        if (optlen !== TCPOLEN_WINDOW || !syn) break;
        seg.to_flags |= TOF_SCALE;
        // RFC 7323, 2.3: a larger shift counts as 14.
        seg.to_wscale = Math.min(mem[p + 2]!, TCP_MAX_WINSHIFT);
        break;
      case TCPOPT_SACK_PERMITTED:
        if (optlen !== TCPOLEN_SACK_PERMITTED || !syn) break;
        seg.to_flags |= TOF_SACKPERM;
        break;
      case TCPOPT_SACK:
        if (optlen <= TCPOLEN_SACKHDR || (optlen - TCPOLEN_SACKHDR) % TCPOLEN_SACK !== 0) break;
        if (syn) break;
        seg.to_flags |= TOF_SACK;
        seg.to_sacks = p + TCPOLEN_SACKHDR;
        seg.to_nsacks = (optlen - TCPOLEN_SACKHDR) / TCPOLEN_SACK;
        break;
      case TCPOPT_TIMESTAMP:
        if (optlen !== TCPOLEN_TIMESTAMP) break;
        seg.to_flags |= TOF_TS;
        seg.to_tsval = memView.getInt32(p + 2);
        seg.to_tsecr = memView.getInt32(p + 6);
        break;
      case TCPOPT_FAST_OPEN:
        if (!syn) break;
        seg.to_flags |= TOF_FASTOPEN;
        seg.to_tfo_len = optlen - TCPOLEN_FAST_OPEN_EMPTY;
        seg.to_tfo_cookie = p + TCPOLEN_FAST_OPEN_EMPTY;
        break;
      default:
        break;
    }
  }
}

/** Writes the timestamp option with its padding at `p`; returns its length. */
export function putTimestamp(p: Kva, tsval: number, tsecr: number): number {
  memView.setInt32(p, TSTAMP_HDR);
  memView.setInt32(p + 4, tsval);
  memView.setInt32(p + 8, tsecr);
  return TCPOLEN_TSTAMP_APPA;
}

/**
 * Writes as many of the SACK blocks to report as fit, padded. Returns the option's length; 0 if
 * there are no blocks.
 */
export function putSack(p: Kva, tp: Tcpcb): number {
  const len = sackOptlen(tp);
  if (len === 0) return 0;
  const n = (len - 2 - TCPOLEN_SACKHDR) / TCPOLEN_SACK;
  mem[p] = TCPOPT_NOP;
  mem[p + 1] = TCPOPT_NOP;
  mem[p + 2] = TCPOPT_SACK;
  mem[p + 3] = TCPOLEN_SACKHDR + n * TCPOLEN_SACK;
  for (let i = 0; i < 2 * n; i++) memView.setInt32(p + 4 + 4 * i, tp.sackblks[i]!);
  tp.t_tcp.stat.tcps_sack_send_blocks++;
  return len;
}

/**
 * Writes the options of a SYN at `p`: MSS, window scale if `wscale >= 0`, SACK permitted if `sack`,
 * timestamp if `ts`, the first `cookieLen` bytes of a Fast Open `cookie` if it is not null; padded to 4
 * bytes. Returns their length.
 */
export function putSynOptions(
  p: Kva,
  mss: number,
  wscale: number,
  sack: boolean,
  ts: boolean,
  tsval: number,
  tsecr: number,
  cookie: Uint8Array | null = null,
  cookieLen = 0,
): number {
  mem[p] = TCPOPT_MAXSEG;
  mem[p + 1] = TCPOLEN_MAXSEG;
  memView.setUint16(p + 2, mss);
  let len = TCPOLEN_MAXSEG;
  if (wscale >= 0) {
    mem[p + len] = TCPOPT_NOP;
    mem[p + len + 1] = TCPOPT_WINDOW;
    mem[p + len + 2] = TCPOLEN_WINDOW;
    mem[p + len + 3] = wscale;
    len += 4;
  }
  if (sack) {
    // If there is a timestamp, this option takes the place of its padding.
    mem[p + len] = TCPOPT_SACK_PERMITTED;
    mem[p + len + 1] = TCPOLEN_SACK_PERMITTED;
    len += TCPOLEN_SACK_PERMITTED;
  }
  if (ts) {
    if (!sack) {
      mem[p + len] = TCPOPT_NOP;
      mem[p + len + 1] = TCPOPT_NOP;
      len += 2;
    }
    mem[p + len] = TCPOPT_TIMESTAMP;
    mem[p + len + 1] = TCPOLEN_TIMESTAMP;
    memView.setInt32(p + len + 2, tsval);
    memView.setInt32(p + len + 6, tsecr);
    len += TCPOLEN_TIMESTAMP;
  }
  if (cookie !== null) {
    mem[p + len] = TCPOPT_FAST_OPEN;
    mem[p + len + 1] = TCPOLEN_FAST_OPEN_EMPTY + cookieLen;
    for (let i = 0; i < cookieLen; i++) mem[p + len + 2 + i] = cookie[i]!;
    len += TCPOLEN_FAST_OPEN_EMPTY + cookieLen;
  }
  // FreeBSD ends options with EOL and fills with zeros.
  while (len % 4 !== 0) mem[p + len++] = TCPOPT_EOL;
  return len;
}
