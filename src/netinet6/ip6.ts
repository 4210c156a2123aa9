/**
 * The IPv6 header and extension headers, after sys/netinet/ip6.h: RFC 8200, network byte order. A library
 * of constants.
 */

import type { Kva } from '../sys/types.ts';
import { mem, memView } from '../vm/arena.ts';

export const IPV6_VERSION = 0x60;
export const IPV6_VERSION_MASK = 0xf0;
export const IPV6_FLOWLABEL_MASK = 0x000fffff;
/** Bytes of the largest packet without a jumbo payload, header included. */
export const IPV6_MAXPACKET = 65535;
/** Bytes of the smallest MTU of a link: RFC 8200, 5. */
export const IPV6_MMTU = 1280;
/** Default and largest hop limit. */
export const IPV6_DEFHLIM = 64;
export const IPV6_MAXHLIM = 255;

export { IPPROTO_DSTOPTS, IPPROTO_HOPOPTS, IPPROTO_ROUTING } from '../sys/protocols.ts';

// Further next headers
/** IPv6 in IP; also the level of IPv6's socket options. */
export const IPPROTO_IPV6 = 41;
export const IPPROTO_FRAGMENT = 44;
export const IPPROTO_ICMPV6 = 58;
export const IPPROTO_NONE = 59;
/** The result of an input function that took the packet. */
export const IPPROTO_DONE = 257;

// Offsets of header fields, for code that accesses them without an Ip6 view.
export const IP6_PLEN_OFF = 4;
export const IP6_NXT_OFF = 6;
export const IP6_HLIM_OFF = 7;
export const IP6_SRC_OFF = 8;
export const IP6_DST_OFF = 24;

// Options of hop-by-hop and destination options headers.
export const IP6OPT_PAD1 = 0x00;
export const IP6OPT_PADN = 0x01;
export const IP6OPT_ROUTER_ALERT = 0x05;
/** The value of the router alert of MLD messages: RFC 2711, 2.1. */
export const IP6OPT_RTALERT_MLD = 0;
export const IP6OPT_JUMBO = 0xc2;
/** The action bits of an unknown option. */
export const IP6OPT_TYPE_SKIP = 0x00;
export const IP6OPT_TYPE_DISCARD = 0x40;
export const IP6OPT_TYPE_FORCEICMP = 0x80;
export const IP6OPT_TYPE_ICMP = 0xc0;

// The fragment header: next header 0, reserved 1, offset and flags 2, identification 4.
export const IP6_FRAG_SIZE = 8;
export const IP6F_OFF_MASK = 0xfff8;
export const IP6F_MORE_FRAG = 0x0001;

/**
 * A view of an IPv6 header. `at` sets its address and copies nothing. The caller has checked that
 * 40 contiguous bytes exist there.
 */
export class Ip6 {
  static readonly SIZE = 40;
  #off = 0;

  at(p: Kva): this {
    this.#off = p;
    return this;
  }

  /** Version, traffic class and flow label. */
  get ip6_flow(): number {
    return memView.getInt32(this.#off);
  }
  set ip6_flow(v: number) {
    memView.setInt32(this.#off, v);
  }
  /** The first byte: the version in its upper half. */
  get ip6_vfc(): number {
    return mem[this.#off]!;
  }
  /** The traffic class. */
  get ip6_tclass(): number {
    return (memView.getUint16(this.#off) >>> 4) & 0xff;
  }
  /** Bytes after this header, extension headers included. */
  get ip6_plen(): number {
    return memView.getUint16(this.#off + IP6_PLEN_OFF);
  }
  set ip6_plen(v: number) {
    memView.setUint16(this.#off + IP6_PLEN_OFF, v);
  }
  get ip6_nxt(): number {
    return mem[this.#off + IP6_NXT_OFF]!;
  }
  set ip6_nxt(v: number) {
    mem[this.#off + IP6_NXT_OFF] = v;
  }
  get ip6_hlim(): number {
    return mem[this.#off + IP6_HLIM_OFF]!;
  }
  set ip6_hlim(v: number) {
    mem[this.#off + IP6_HLIM_OFF] = v;
  }
}
