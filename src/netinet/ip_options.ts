/**
 * IPv4 options, after sys/netinet/ip_options.c (RFC 791, 3.1; RFC 1122, 3.2.1.8): processing on
 * input, insertion on output, and the options of a socket (IP_OPTIONS). Left out: stealth mode.
 */

import { EINVAL, type Errno } from '../sys/errno.ts';
import type { InAddr, Kva } from '../sys/types.ts';
import { m_freem, m_gethdr } from '../kern/kern_mbuf.ts';
import { machineClock } from '../kern/kern_timeout.ts';
import { type Mbuf, M_LEADINGSPACE, M_NOWAIT, max_linkhdr, MT_DATA, mtod } from '../kern/mbuf.ts';
import { m_move_pkthdr } from '../kern/m_pkthdr.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifConsole } from '../net/if.ts';
import type { Ifnet } from '../net/if_var.ts';
import { LOG_SOURCE_ROUTE, logAllowed } from '../net/log_limit.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  ICMP_PARAMPROB,
  ICMP_UNREACH,
  ICMP_UNREACH_FILTER_PROHIB,
  ICMP_UNREACH_HOST,
  ICMP_UNREACH_SRCFAIL,
} from './icmp.ts';
import { inAddrOf, inet_ntoa } from './in.ts';
import { fib4_lookup } from './in_fib.ts';
import { ifaOnLink, inIfaddrFor } from './in_var.ts';
import {
  Ip,
  IP_DST_OFF,
  IP_MAXPACKET,
  IP_SRC_OFF,
  IPOPT_EOL,
  IPOPT_LSRR,
  IPOPT_NOP,
  IPOPT_RA,
  IPOPT_RR,
  IPOPT_SECURITY,
  IPOPT_SSRR,
  IPOPT_TS,
  IPOPT_TS_PRESPEC,
  IPOPT_TS_TSANDADDR,
  IPOPT_TS_TSONLY,
} from './ip.ts';
import { in_localip, V_ip } from './ip_var.ts';

/** The most bytes of options that a header holds. */
const MAX_IPOPTLEN = 40;
/** Bytes of an address in an option. */
const ADDR = 4;
// Offsets in an option, and the smallest pointer of a route, which counts from 1.
const OLEN = 1;
const OFFSET = 2;
const MINOFF = 4;

const $ip = new Ip();

/**
 * Options to insert into the header of a packet. `dst` is the first hop of a source route; 0: the
 * packet's own destination.
 */
export class IpOptions {
  dst: InAddr = 0 as InAddr;
  len = 0;
  readonly bytes = new Uint8Array(MAX_IPOPTLEN);

  clear(): this {
    this.dst = 0 as InAddr;
    this.len = 0;
    return this;
  }
}

/** Milliseconds since midnight UT: RFC 792's time stamp. @see sys/netinet/ip_icmp.c */
export function iptime(): number {
  const clock = machineClock();
  return Math.floor(((clock.bootSec % 86400) * 1e3 + clock.nowNs() / 1e6) % 86_400_000);
}

/** The source route of the packet under way: the LSRR or SSRR option as it arrived. */
const srcrt = { nhops: 0, src: 0 as InAddr, opt: new Uint8Array(MAX_IPOPTLEN) };

/** The ICMP error that a packet with wrong options gets. `word`: as in icmp_error. */
export const optionsError = { type: 0, code: 0, word: 0 };

/** Results of ip_dooptions. */
export const IPOPTS_OK = 0;
/** The options are wrong: send optionsError. */
const IPOPTS_ERROR = 1;
/** Drop the packet without an answer. */
export const IPOPTS_DROP = 2;

/** The byte at offset `at` of the header is wrong. */
function wrongByte(at: number): number {
  optionsError.type = ICMP_PARAMPROB;
  optionsError.code = 0;
  optionsError.word = at * 0x1000000;
  return IPOPTS_ERROR;
}

function unreachable(code: number): number {
  optionsError.type = ICMP_UNREACH;
  optionsError.code = code;
  optionsError.word = 0;
  return IPOPTS_ERROR;
}

/** Refuses a source route, with a line in the log. */
function noSourceRouting(p: number, vnet: Vnet): number {
  if (!logAllowed(vnet, LOG_SOURCE_ROUTE)) return unreachable(ICMP_UNREACH_SRCFAIL);
  const src = inet_ntoa(memView.getInt32(p + IP_SRC_OFF) as InAddr);
  const dst = inet_ntoa(memView.getInt32(p + IP_DST_OFF) as InAddr);
  ifConsole.log?.(`attempted source route from ${src} to ${dst}`);
  return unreachable(ICMP_UNREACH_SRCFAIL);
}

/** Stores the route of the option at `p + at` for ip_srcroute. */
function save_rte(p: number, at: number, len: number): void {
  srcrt.src = memView.getInt32(p + IP_SRC_OFF) as InAddr;
  srcrt.nhops = Math.floor((len - OFFSET - 1) / ADDR);
  for (let i = 0; i < len; i++) srcrt.opt[i] = mem[p + at + i]!;
}

/** Processes the LSRR or SSRR option of `len` bytes at `p + at`. */
function sourceRoute(p: number, at: number, len: number, vnet: Vnet): number {
  const { params } = V_ip(vnet);
  if (len < OFFSET + 1) return wrongByte(at + OLEN);
  const off = mem[p + at + OFFSET]! - 1;
  if (off < MINOFF - 1) return wrongByte(at + OFFSET);
  const strict = mem[p + at] === IPOPT_SSRR;
  if (!in_localip(vnet, memView.getInt32(p + IP_DST_OFF) as InAddr)) {
    if (strict) return unreachable(ICMP_UNREACH_SRCFAIL);
    return params.sourceroute ? IPOPTS_OK : noSourceRouting(p, vnet);
  }
  if (off > len - ADDR) {
    // The end of the route: the packet is for this host.
    if (!params.accept_sourceroute) return noSourceRouting(p, vnet);
    save_rte(p, at, len);
    return IPOPTS_OK;
  }
  // A host that is no router drops it silently.
  if (!params.sourceroute) return params.forwarding ? noSourceRouting(p, vnet) : IPOPTS_DROP;
  const next = memView.getInt32(p + at + off) as InAddr;
  const ia = strict ? ifaOnLink(vnet, next) : (fib4_lookup(vnet, next)?.nh_ifa ?? null);
  if (ia === null) return unreachable(ICMP_UNREACH_SRCFAIL);
  memView.setInt32(p + IP_DST_OFF, next);
  memView.setInt32(p + at + off, inAddrOf(ia.ifa_addr));
  mem[p + at + OFFSET] = off + 1 + ADDR;
  return IPOPTS_OK;
}

/** Adds the address of this host to the RR option of `len` bytes at `p + at`, if there is room. */
function recordRoute(p: number, at: number, len: number, vnet: Vnet): number {
  if (len < OFFSET + 1) return wrongByte(at + OFFSET);
  const off = mem[p + at + OFFSET]! - 1;
  if (off < MINOFF - 1) return wrongByte(at + OFFSET);
  if (off > len - ADDR) return IPOPTS_OK;
  const dst = memView.getInt32(p + IP_DST_OFF) as InAddr;
  let own = dst;
  if (!in_localip(vnet, dst)) {
    const nh = fib4_lookup(vnet, dst);
    if (nh === null) return unreachable(ICMP_UNREACH_HOST);
    own = inAddrOf(nh.nh_ifa.ifa_addr);
  }
  memView.setInt32(p + at + off, own);
  mem[p + at + OFFSET] = off + 1 + ADDR;
  return IPOPTS_OK;
}

/** Adds the time to the TS option of `len` bytes at `p + at`, or counts an overflow. */
function timeStamp(p: number, at: number, len: number, m: Mbuf, vnet: Vnet, dst: InAddr): number {
  if (len < 4) return wrongByte(at + OLEN);
  const ptr = mem[p + at + OFFSET]!;
  // FreeBSD reports the length byte here too.
  if (ptr < 5) return wrongByte(at + OLEN);
  const flagAt = p + at + OFFSET + 1;
  // As in FreeBSD, an option of times alone counts an overflow in place of its last time.
  if (ptr > len - ADDR) {
    mem[flagAt] = (mem[flagAt]! + 0x10) & 0xff;
    return (mem[flagAt] & 0xf0) === 0 ? wrongByte(at + OFFSET) : IPOPTS_OK;
  }
  let off = ptr - 1;
  switch (mem[flagAt]! & 0xf) {
    case IPOPT_TS_TSONLY:
      break;
    case IPOPT_TS_TSANDADDR: {
      if (off + 2 * ADDR > len) return wrongByte(at + OFFSET);
      const ia = inIfaddrFor(m.m_pkthdr.rcvif as Ifnet, dst);
      if (ia === null) return IPOPTS_OK;
      memView.setInt32(p + at + off, ia.ia_addr);
      off += ADDR;
      break;
    }
    case IPOPT_TS_PRESPEC:
      if (off + 2 * ADDR > len) return wrongByte(at + OFFSET);
      // The time of another host's turn.
      if (!in_localip(vnet, memView.getInt32(p + at + off) as InAddr)) return IPOPTS_OK;
      off += ADDR;
      break;
    default:
      return wrongByte(at + OFFSET + 1);
  }
  memView.setUint32(p + at + off, iptime());
  mem[p + at + OFFSET] = off + 1 + ADDR;
  return IPOPTS_OK;
}

/**
 * Bytes of the option at offset `off` of the header at `p`: 1 for NOP, 0 for EOL, -1 if its length
 * is wrong.
 */
function optionLength(p: number, off: number, hlen: number): number {
  const opt = mem[p + off]!;
  if (opt === IPOPT_EOL) return 0;
  if (opt === IPOPT_NOP) return 1;
  if (off + OLEN >= hlen) return -1;
  const len = mem[p + off + OLEN]!;
  return len < OLEN + 1 || off + len > hlen ? -1 : len;
}

/**
 * Processes the options of the received packet `m`, whose header is contiguous and may be written.
 * Records the route and the time in it, and changes its destination if it is a hop of a source
 * route. Returns IPOPTS_*; the caller keeps `m`.
 * @see sys/netinet/ip_options.c (there it also sends the error)
 */
export function ip_dooptions(m: Mbuf, vnet: Vnet): number {
  srcrt.nhops = 0;
  const { process_options } = V_ip(vnet).params;
  if (process_options === 0) return IPOPTS_OK;
  if (process_options === 2) return unreachable(ICMP_UNREACH_FILTER_PROHIB);
  const p = mtod(m);
  const hlen = $ip.at(p).ip_hl << 2;
  const dst = $ip.ip_dst;
  for (let off = Ip.SIZE; off < hlen;) {
    const len = optionLength(p, off, hlen);
    if (len < 0) return wrongByte(off + OLEN);
    if (len === 0) break;
    let result = IPOPTS_OK;
    const opt = mem[p + off]!;
    if (opt === IPOPT_LSRR || opt === IPOPT_SSRR) result = sourceRoute(p, off, len, vnet);
    else if (opt === IPOPT_RR) result = recordRoute(p, off, len, vnet);
    else if (opt === IPOPT_TS) result = timeStamp(p, off, len, m, vnet, dst);
    if (result !== IPOPTS_OK) return result;
    off += len;
  }
  return IPOPTS_OK;
}

/**
 * Whether the header of `hlen` bytes at `p` has the router alert option, RFC 2113.
 * @see sys/netinet/ip_options.c
 */
export function ip_checkrouteralert(p: Kva, hlen: number): boolean {
  for (let off = Ip.SIZE; off < hlen;) {
    const len = optionLength(p, off, hlen);
    if (len <= 0) return false;
    if (mem[p + off] === IPOPT_RA) return len === 4 && memView.getUint16(p + off + 2) === 0;
    off += len;
  }
  return false;
}

/** A packet without options came in: no source route is stored. */
export function ipNoOptions(): void {
  srcrt.nhops = 0;
}

/**
 * Stores the way back of the source route of the packet under way in `to`, and forgets it. Returns
 * whether the packet had one. @see sys/netinet/ip_options.c (there it returns an mbuf)
 */
export function ip_srcroute(to: IpOptions): boolean {
  const { nhops, opt } = srcrt;
  if (nhops === 0) return false;
  srcrt.nhops = 0;
  const hop = (i: number): number => OFFSET + 1 + i * ADDR;
  to.clear();
  const view = new DataView(opt.buffer);
  to.dst = view.getInt32(hop(nhops - 1)) as InAddr;
  // A NOP aligns the addresses.
  to.bytes[0] = IPOPT_NOP;
  to.bytes.set(opt.subarray(0, OFFSET), 1);
  to.bytes[1 + OFFSET] = MINOFF;
  let at = 1 + OFFSET + 1;
  const out = new DataView(to.bytes.buffer);
  for (let i = nhops - 2; i >= 0; i--, at += ADDR) out.setInt32(at, view.getInt32(hop(i)));
  out.setInt32(at, srcrt.src);
  to.len = at + ADDR;
  return true;
}

/** `ip_srcroute` in a new object, for a connection; null if the packet had no source route. */
export function ipSourceRoute(): IpOptions | null {
  if (srcrt.nhops === 0) return null;
  const to = new IpOptions();
  ip_srcroute(to);
  return to;
}

/** Appends the options of the header at `p` that a reply repeats: RR, TS and security. Pads. */
export function ipReplyOptions(p: Kva, hlen: number, to: IpOptions): void {
  for (let off = Ip.SIZE; off < hlen;) {
    const len = optionLength(p, off, hlen);
    if (len <= 0) break;
    const opt = mem[p + off]!;
    const repeat = opt === IPOPT_RR || opt === IPOPT_TS || opt === IPOPT_SECURITY;
    if (repeat && to.len + len <= MAX_IPOPTLEN) {
      for (let i = 0; i < len; i++) to.bytes[to.len + i] = mem[p + off + i]!;
      to.len += len;
    }
    off += len;
  }
  while ((to.len & 3) !== 0) to.bytes[to.len++] = IPOPT_EOL;
}

/** Removes the options from the header of `m`, which is contiguous. @see sys/netinet/ip_options.c */
export function ip_stripoptions(m: Mbuf): void {
  const p = mtod(m);
  const extra = ($ip.at(p).ip_hl << 2) - Ip.SIZE;
  if (extra === 0) return;
  mem.copyWithin(p + extra, p, p + Ip.SIZE);
  m.m_data += extra;
  m.m_len -= extra;
  m.m_pkthdr.len -= extra;
  $ip.at(mtod(m));
  $ip.ip_vhl = 0x45;
  $ip.ip_len -= extra;
}

/**
 * Inserts `opt` behind the header of `m`, which has no options yet, and returns the packet. Takes
 * `m`. Null: no memory, `m` is freed. Inserts nothing if the packet would become too long.
 * @see sys/netinet/ip_options.c
 */
export function ip_insertoptions(m: Mbuf, opt: IpOptions): Mbuf | null {
  const { len } = opt;
  const p = mtod(m);
  if ($ip.at(p).ip_len + len > IP_MAXPACKET) return m;
  let top = m;
  if (M_LEADINGSPACE(m) >= len) {
    m.m_data -= len;
    m.m_len += len;
  } else {
    const n = m_gethdr(M_NOWAIT, MT_DATA);
    if (n === null) {
      m_freem(m);
      return null;
    }
    m_move_pkthdr(n, m);
    n.m_data += max_linkhdr;
    n.m_len = Ip.SIZE + len;
    n.m_next = m;
    m.m_data += Ip.SIZE;
    m.m_len -= Ip.SIZE;
    top = n;
  }
  top.m_pkthdr.len += len;
  const q = mtod(top);
  mem.copyWithin(q, p, p + Ip.SIZE);
  for (let i = 0; i < len; i++) mem[q + Ip.SIZE + i] = opt.bytes[i]!;
  $ip.at(q);
  $ip.ip_vhl = 0x40 | ((Ip.SIZE + len) >>> 2);
  $ip.ip_len += len;
  if (opt.dst !== 0) $ip.ip_dst = opt.dst;
  return top;
}

/**
 * Copies the options with the copied flag (RFC 791, 3.1) and the NOPs from the header at `src` of
 * `hlen` bytes to the header at `dst`, padded. Returns the length of the new header.
 * @see sys/netinet/ip_options.c
 */
export function ip_optcopy(src: number, hlen: number, dst: number): number {
  let from = Ip.SIZE;
  let to = Ip.SIZE;
  while (from < hlen) {
    // The header was checked when it was built or received. A wrong length ends the options.
    const len = optionLength(src, from, hlen);
    if (len <= 0) break;
    const opt = mem[src + from]!;
    if ((opt & 0x80) !== 0 || opt === IPOPT_NOP) {
      mem.copyWithin(dst + to, src + from, src + from + len);
      to += len;
    }
    from += len;
  }
  while ((to & 3) !== 0) mem[dst + to++] = IPOPT_EOL;
  return to;
}

/**
 * Checks the options `val` that a program set with IP_OPTIONS and stores them in `to`. The first hop
 * of a source route moves to `to.dst`. EINVAL: a length is wrong. @see sys/netinet/ip_options.c
 */
export function ip_pcbopts(val: Uint8Array, to: IpOptions): Errno {
  to.clear();
  if (val.length % 4 !== 0 || val.length > MAX_IPOPTLEN + ADDR) return EINVAL;
  let bytes = Uint8Array.from(val);
  for (let off = 0; off < bytes.length;) {
    const opt = bytes[off]!;
    if (opt === IPOPT_EOL) break;
    let len = opt === IPOPT_NOP ? 1 : (bytes[off + OLEN] ?? 0);
    if (opt !== IPOPT_NOP && (len < OLEN + 1 || off + len > bytes.length)) return EINVAL;
    if (opt === IPOPT_LSRR || opt === IPOPT_SSRR) {
      if (len < MINOFF - 1 + ADDR) return EINVAL;
      const hop = off + OFFSET + 1;
      to.dst = new DataView(bytes.buffer).getInt32(hop) as InAddr;
      bytes = Uint8Array.from([...bytes.subarray(0, hop), ...bytes.subarray(hop + ADDR)]);
      len -= ADDR;
      bytes[off + OLEN] = len;
    }
    off += len;
  }
  if (bytes.length > MAX_IPOPTLEN) return EINVAL;
  to.bytes.set(bytes);
  to.len = bytes.length;
  return 0;
}

/** What IP_OPTIONS returns of `opt`: the first hop of a source route comes first, as in FreeBSD. */
export function optionsValue(opt: IpOptions): Uint8Array {
  const hop = new Uint8Array(ADDR);
  new DataView(hop.buffer).setInt32(0, opt.dst);
  return Uint8Array.from([...hop, ...opt.bytes.subarray(0, opt.len)]);
}
