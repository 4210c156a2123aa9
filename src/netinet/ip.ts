/** The IPv4 header, after sys/netinet/ip.h: RFC 791, network byte order. */

import type { InAddr, Kva } from '../sys/types.ts';
import { mem, memView } from '../vm/arena.ts';

export const IPVERSION = 4;
export const IP_MAXPACKET = 65535;
/** Default TTL of packets that this host originates. */
export const IPDEFTTL = 64;

// ip_off
export const IP_DF = 0x4000;
export const IP_MF = 0x2000;
export const IP_OFFMASK = 0x1fff;

// ip_tos
export const IPTOS_ECN_NOTECT = 0x00;
export const IPTOS_ECN_CE = 0x03;
export const IPTOS_ECN_MASK = 0x03;

// options
export const IPOPT_EOL = 0;
export const IPOPT_NOP = 1;
export const IPOPT_RR = 7;
export const IPOPT_TS = 68;
export const IPOPT_SECURITY = 130;
export const IPOPT_LSRR = 131;
export const IPOPT_SSRR = 137;
/** Router alert, RFC 2113. */
export const IPOPT_RA = 148;
// Flags of IPOPT_TS.
export const IPOPT_TS_TSONLY = 0;
export const IPOPT_TS_TSANDADDR = 1;
export const IPOPT_TS_PRESPEC = 3;

// Offsets of header fields, for code that accesses them without an Ip view.
export const IP_SRC_OFF = 12;
export const IP_DST_OFF = 16;

/**
 * A view of an IPv4 header. `at` sets its address and copies nothing. The caller has checked that
 * 20 contiguous bytes exist there.
 */
export class Ip {
  static readonly SIZE = 20;
  #off = 0;

  at(p: Kva): this {
    this.#off = p;
    return this;
  }

  /** The first byte: version and header length. 0x45 for a header without options. */
  get ip_vhl(): number {
    return mem[this.#off]!;
  }
  set ip_vhl(v: number) {
    mem[this.#off] = v;
  }
  get ip_v(): number {
    return mem[this.#off]! >>> 4;
  }
  /** Header length in 32-bit words. */
  get ip_hl(): number {
    return mem[this.#off]! & 0xf;
  }
  get ip_tos(): number {
    return mem[this.#off + 1]!;
  }
  set ip_tos(v: number) {
    mem[this.#off + 1] = v;
  }
  /** Bytes of the packet, this header included. */
  get ip_len(): number {
    return memView.getUint16(this.#off + 2);
  }
  set ip_len(v: number) {
    memView.setUint16(this.#off + 2, v);
  }
  get ip_id(): number {
    return memView.getUint16(this.#off + 4);
  }
  set ip_id(v: number) {
    memView.setUint16(this.#off + 4, v);
  }
  /** The flags IP_RF, IP_DF and IP_MF; IP_OFFMASK is the fragment offset in units of 8 bytes. */
  get ip_off(): number {
    return memView.getUint16(this.#off + 6);
  }
  set ip_off(v: number) {
    memView.setUint16(this.#off + 6, v);
  }
  get ip_ttl(): number {
    return mem[this.#off + 8]!;
  }
  set ip_ttl(v: number) {
    mem[this.#off + 8] = v;
  }
  get ip_p(): number {
    return mem[this.#off + 9]!;
  }
  set ip_p(v: number) {
    mem[this.#off + 9] = v;
  }
  get ip_sum(): number {
    return memView.getUint16(this.#off + 10);
  }
  set ip_sum(v: number) {
    memView.setUint16(this.#off + 10, v);
  }
  get ip_src(): InAddr {
    return memView.getInt32(this.#off + 12) as InAddr;
  }
  set ip_src(v: InAddr) {
    memView.setInt32(this.#off + 12, v);
  }
  get ip_dst(): InAddr {
    return memView.getInt32(this.#off + 16) as InAddr;
  }
  set ip_dst(v: InAddr) {
    memView.setInt32(this.#off + 16, v);
  }
}
