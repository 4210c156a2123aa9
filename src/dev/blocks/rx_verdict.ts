/**
 * The receive checksum unit: verifies the IPv4 header checksum and the TCP or UDP checksum of a
 * frame in receive buffers. VerdictNumbers gives a model's status bits, statistics and limits. Left
 * out: more than one VLAN tag, and IPv6 headers other than hop-by-hop options, routing and
 * destination options.
 */

import { type CksumKernel, fold16 } from '../../sys/cksum.ts';
import {
  ETHER_HDR_LEN,
  ETHER_VLAN_ENCAP_LEN,
  ETHERTYPE_IP,
  ETHERTYPE_IPV6,
  ETHERTYPE_VLAN,
  IPPROTO_DSTOPTS,
  IPPROTO_HOPOPTS,
  IPPROTO_ROUTING,
  IPPROTO_TCP,
  IPPROTO_UDP,
} from '../../sys/protocols.ts';

/** A model's status bits, the numbers of its statistics, and its limits. */
export interface VerdictNumbers {
  /** IPv4, and its header checksum was verified. */
  readonly ip4: number;
  /** The IPv4 header checksum is wrong. */
  readonly ip4Bad: number;
  /** The TCP or UDP checksum was verified. */
  readonly l4: number;
  /** The TCP or UDP checksum is wrong. */
  readonly l4Bad: number;
  /** Statistics: wrong checksums of either kind. */
  readonly ipErrors: number;
  readonly l4Errors: number;
  /** Whether the unit verifies frames with a VLAN tag. */
  readonly vlan: boolean;
  /** Maximum number of IPv6 extension headers that the unit parses. */
  readonly extHeaders: number;
  /** Maximum number of bytes of the IPv6 header and its extension headers. */
  readonly l3Max: number;
}

/** Whether the unit skips extension header `proto`, number `n` of its chain. */
function isSkipped(proto: number, n: number): boolean {
  if (proto === IPPROTO_HOPOPTS) return n === 0; // valid only directly after the IPv6 header
  return proto === IPPROTO_ROUTING || proto === IPPROTO_DSTOPTS;
}

/** The members of the device that the unit uses. */
interface VerdictCore {
  readonly view: DataView;
  readonly cksum: CksumKernel;
  readonly stats: Float64Array;
}

/** The checksum unit of one device. */
export class RxVerdict {
  readonly #core: VerdictCore;
  readonly #numbers: VerdictNumbers;
  readonly #bufs: Uint32Array;

  /**
   * @param bufs (offset, length) pairs: the buffers that hold each frame, starting with the first
   */
  constructor(core: VerdictCore, bufs: Uint32Array, numbers: VerdictNumbers) {
    this.#core = core;
    this.#bufs = bufs;
    this.#numbers = numbers;
  }

  /**
   * Verifies the checksums of a frame of `len` bytes in buffers of `bufSize` bytes. The headers are
   * in the first buffer. Returns the model's status bits, 0 for an IP version that is not wanted.
   * With `trusted`, the TCP or UDP checksum is reported as correct without computing it.
   */
  verdict(len: number, bufSize: number, trusted: boolean, want4: boolean, want6: boolean): number {
    const { view } = this.#core;
    const { vlan } = this.#numbers;
    const frame = this.#bufs[0]!;
    let l2 = ETHER_HDR_LEN;
    let type = view.getUint16(frame + 12);
    if (vlan && type === ETHERTYPE_VLAN && len >= ETHER_HDR_LEN + ETHER_VLAN_ENCAP_LEN) {
      type = view.getUint16(frame + 16);
      l2 += ETHER_VLAN_ENCAP_LEN;
    }
    if (type === ETHERTYPE_IP && want4) return this.#ip4(len, bufSize, l2, trusted);
    if (type === ETHERTYPE_IPV6 && want6) return this.#ip6(len, bufSize, l2, trusted);
    return 0;
  }

  /** @param l2 offset of the IPv4 header in the frame */
  #ip4(len: number, bufSize: number, l2: number, trusted: boolean): number {
    const { view, cksum, stats } = this.#core;
    const { ip4, ip4Bad, ipErrors } = this.#numbers;
    const ip = this.#bufs[0]! + l2;
    if (len < l2 + 20) return 0;
    const hlen = (view.getUint8(ip) & 0xf) * 4;
    if (view.getUint8(ip) >>> 4 !== 4 || hlen < 20 || len < l2 + hlen) return 0;
    if (cksum.sum(ip, hlen, 0) !== 0xffff) {
      stats[ipErrors]! += 1;
      return ip4 | ip4Bad;
    }
    // A fragment's TCP or UDP checksum cannot be verified: it covers the whole datagram.
    if ((view.getUint16(ip + 6) & 0x3fff) !== 0) return ip4;
    const payload = view.getUint16(ip + 2) - hlen;
    const proto = view.getUint8(ip + 9);
    const addrs = cksum.sum(ip + 12, 8, 0);
    return ip4 | this.#l4(len, bufSize, l2 + hlen, payload, proto, addrs, trusted);
  }

  /**
   * Skips extension headers, RFC 8200, section 4. A chain past the limits or with an unknown header
   * gets no verdict, nor does a fragment: its TCP or UDP checksum covers the whole datagram.
   * @param l2 offset of the IPv6 header in the frame
   */
  #ip6(len: number, bufSize: number, l2: number, trusted: boolean): number {
    const { view, cksum } = this.#core;
    const { extHeaders, l3Max } = this.#numbers;
    const ip = this.#bufs[0]! + l2;
    if (len < l2 + 40 || view.getUint8(ip) >>> 4 !== 6) return 0;
    const total = 40 + view.getUint16(ip + 4);
    let proto = view.getUint8(ip + 6);
    let l3 = 40;
    for (let n = 0; isSkipped(proto, n); n++) {
      const at = ip + l3;
      if (n === extHeaders || l3 + 8 > Math.min(total, len - l2)) return 0;
      // With segments left, the pseudo-header has another destination than the IPv6 header.
      if (proto === IPPROTO_ROUTING && view.getUint8(at + 3) !== 0) return 0;
      proto = view.getUint8(at);
      l3 += (view.getUint8(at + 1) + 1) * 8;
      if (l3 > l3Max) return 0;
    }
    const addrs = cksum.sum(ip + 8, 32, 0);
    return this.#l4(len, bufSize, l2 + l3, total - l3, proto, addrs, trusted);
  }

  /**
   * @param at offset of the TCP or UDP header in the frame
   * @param l4Len bytes of that header and its data, from the IP header
   */
  #l4(
    len: number,
    bufSize: number,
    at: number,
    l4Len: number,
    proto: number,
    addrSum: number,
    trusted: boolean,
  ): number {
    const { view, stats } = this.#core;
    const { l4, l4Bad, l4Errors } = this.#numbers;
    const udp = proto === IPPROTO_UDP;
    if (!udp && proto !== IPPROTO_TCP) return 0;
    if (l4Len < (udp ? 8 : 20) || at + l4Len > len) return 0;
    const header = this.#bufs[0]! + at;
    if (udp && view.getUint16(header + 4) !== l4Len) return 0;
    if (udp && view.getUint16(header + 6) === 0) return 0; // RFC 768, RFC 8200: none was computed
    if (trusted) return l4;
    if (this.sum(at, l4Len, bufSize, fold16(addrSum + proto + l4Len)) === 0xffff) return l4;
    stats[l4Errors]! += 1;
    return l4 | l4Bad;
  }

  /** Adds `len` bytes of the frame, starting at byte `off`, to `sum`. Returns the folded sum. */
  sum(off: number, len: number, bufSize: number, sum: number): number {
    const { cksum } = this.#core;
    let odd = false;
    for (let i = Math.floor(off / bufSize); len > 0; i++) {
      const skip = off % bufSize;
      const n = Math.min(bufSize - skip, len);
      const s = cksum.sum(this.#bufs[2 * i]! + skip, n, 0);
      sum += odd ? ((s & 0xff) << 8) | (s >>> 8) : s;
      if ((n & 1) === 1) odd = !odd;
      off += n;
      len -= n;
    }
    return fold16(sum);
  }
}
