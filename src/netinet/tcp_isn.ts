/**
 * Initial sequence numbers (RFC 6528) and timestamp offsets (RFC 7323, 5.4). Both are a keyed hash
 * of the connection's addresses and ports; an initial sequence number also adds a clock that ticks
 * every 4 microseconds. The hash is SipHash-2-4 (Aumasson and Bernstein, 2012), computed on 32-bit
 * halves.
 */

import { tcpSeq, type TcpSeq } from '../sys/types.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { type InConninfo, inpaf } from './in_pcb.ts';
import type { TcpVnet } from './tcp_var.ts';

// State: four 64-bit words as (low, high) pairs.
const v = new Uint32Array(8);

function add(a: number, b: number): void {
  const lo = v[a]! + v[b]!;
  v[a] = lo;
  v[a + 1] = v[a + 1]! + v[b + 1]! + (lo > 0xffffffff ? 1 : 0);
}

/** Rotates word `a` left by `n` bits (n < 32), then xors word `b` into it. */
function rotXor(a: number, n: number, b: number): void {
  const lo = v[a]!;
  const hi = v[a + 1]!;
  v[a] = ((lo << n) | (hi >>> (32 - n))) ^ v[b]!;
  v[a + 1] = ((hi << n) | (lo >>> (32 - n))) ^ v[b + 1]!;
}

function rot32(a: number): void {
  const lo = v[a]!;
  v[a] = v[a + 1]!;
  v[a + 1] = lo;
}

function sipRound(): void {
  add(0, 2);
  rotXor(2, 13, 0);
  rot32(0);
  add(4, 6);
  rotXor(6, 16, 4);
  add(0, 6);
  rotXor(6, 21, 0);
  add(4, 2);
  rotXor(2, 17, 4);
  rot32(4);
}

function absorb(lo: number, hi: number): void {
  v[6]! ^= lo;
  v[7]! ^= hi;
  sipRound();
  sipRound();
  v[0]! ^= lo;
  v[1]! ^= hi;
}

/**
 * SipHash-2-4 of `data[0 .. len)` under a key of four 32-bit words, least significant first.
 * Returns the low half; the high half is `siphashHigh()`. @see siphash(9)
 */
export function siphash24(key: Uint32Array, data: Uint8Array, len: number): number {
  v[0] = key[0]! ^ 0x70736575;
  v[1] = key[1]! ^ 0x736f6d65;
  v[2] = key[2]! ^ 0x6e646f6d;
  v[3] = key[3]! ^ 0x646f7261;
  v[4] = key[0]! ^ 0x6e657261;
  v[5] = key[1]! ^ 0x6c796765;
  v[6] = key[2]! ^ 0x79746573;
  v[7] = key[3]! ^ 0x74656462;
  const whole = len & ~7;
  for (let i = 0; i < whole; i += 8) absorb(word(data, i, i + 4), word(data, i + 4, i + 8));
  // The last block: the remaining bytes, zero padding, and the length modulo 256 in the top byte.
  absorb(
    word(data, whole, Math.min(whole + 4, len)),
    word(data, whole + 4, Math.max(whole + 4, len)) | ((len & 0xff) << 24),
  );
  v[4] ^= 0xff;
  for (let i = 0; i < 4; i++) sipRound();
  return (v[0] ^ v[2] ^ v[4] ^ v[6]) >>> 0;
}

/** The high half of the last siphash24. */
export function siphashHigh(): number {
  return (v[1]! ^ v[3]! ^ v[5]! ^ v[7]!) >>> 0;
}

function word(data: Uint8Array, from: number, to: number): number {
  let w = 0;
  for (let i = from; i < to; i++) w |= data[i]! << (8 * (i - from));
  return w;
}

const input = new Uint8Array(44);
const view = new DataView(input.buffer);

/**
 * Writes the ports and addresses of a connection to `input`, local side first; an address has
 * `words` 32-bit words. Returns the number of bytes.
 */
function layConn(inc: InConninfo, words: number): number {
  view.setUint16(0, inc.inc_lport);
  view.setUint16(2, inc.inc_fport);
  view.setInt32(4, inc.inc_l0);
  if (words === 1) {
    view.setInt32(8, inc.inc_f0);
    return 12;
  }
  view.setInt32(8, inc.inc_l1);
  view.setInt32(12, inc.inc_l2);
  view.setInt32(16, inc.inc_l3);
  view.setInt32(20, inc.inc_f0);
  view.setInt32(24, inc.inc_f1);
  view.setInt32(28, inc.inc_f2);
  view.setInt32(32, inc.inc_f3);
  return 36;
}

/** Hashes the addresses and, if `ports`, the ports of a connection. */
function hashConn(tcp: TcpVnet, key: Uint32Array, inc: InConninfo, ports = true): number {
  const len = layConn(inc, inpaf(tcp.vnet, inc.inc_family).addrWords);
  if (!ports) view.setUint32(0, 0);
  return siphash24(key, input, len);
}

/** Hashes the addresses and ports of a connection and the words `a` and `b`, for a SYN cookie. */
export function hashCookie(
  tcp: TcpVnet,
  key: Uint32Array,
  inc: InConninfo,
  a: number,
  b: number,
): number {
  const len = layConn(inc, inpaf(tcp.vnet, inc.inc_family).addrWords);
  view.setInt32(len, a | 0);
  view.setInt32(len + 4, b | 0);
  return siphash24(key, input, len + 8);
}

/**
 * The initial sequence number of a new connection. The secret is replaced every
 * net.inet.tcp.isn_reseed_interval seconds (0: never). After that, old duplicates may fall into the
 * window of a new connection: RFC 6528, 3.
 * @see sys/netinet/tcp_subr.c
 */
export function tcp_new_isn(tcp: TcpVnet, inc: InConninfo): TcpSeq {
  const { isn_reseed_interval } = tcp.params;
  if (isn_reseed_interval > 0 && nowNs() - tcp.isnLastReseed >= isn_reseed_interval * 1e9) {
    tcp.isnLastReseed = nowNs();
    for (let i = 0; i < 4; i++) tcp.isn_secret[i] = tcp.vnet.prng.next32();
  }
  return tcpSeq(Math.floor(nowNs() / 4000) + hashConn(tcp, tcp.isn_secret, inc));
}

/**
 * The offset that a connection adds to the clock in its timestamps. With
 * net.inet.tcp.ts_offset_per_conn off, all connections between two hosts have the same offset.
 * @see sys/netinet/tcp_subr.c
 */
export function tcp_new_ts_offset(tcp: TcpVnet, inc: InConninfo): number {
  return hashConn(tcp, tcp.ts_offset_secret, inc, tcp.params.ts_offset_per_conn) | 0;
}
