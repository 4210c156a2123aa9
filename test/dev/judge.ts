/**
 * Judges frames with code written from RFC 791, 793/9293, 768, 8200 and 1071. It works byte by byte
 * and shares no code with the stack and the devices. Also makes frames to send.
 */

import { expect } from 'chai';

/** The Internet checksum of some bytes on top of `sum`, not complemented. */
export function sum1071(bytes: Uint8Array, sum = 0): number {
  bytes.forEach((byte, i) => (sum += i % 2 === 0 ? byte * 256 : byte));
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return sum;
}

/** IPv6 extension headers: hop-by-hop options, routing, fragment, destination options. */
export const HOPOPTS = 0;
export const ROUTING = 43;
export const FRAGMENT = 44;
export const DSTOPTS = 60;

const be16 = (b: Uint8Array, off: number): number => b[off]! * 256 + b[off + 1]!;
const be32 = (b: Uint8Array, off: number): number => be16(b, off) * 65536 + be16(b, off + 2);
const put16 = (b: Uint8Array, off: number, v: number): void => {
  b[off] = (v >>> 8) & 0xff;
  b[off + 1] = v & 0xff;
};

export interface Judged {
  /** 802.1Q tag, -1 if the frame has none. */
  vtag: number;
  v6: boolean;
  proto: number;
  ipLen: number;
  ipId: number;
  seq: number;
  thFlags: number;
  payload: Uint8Array;
}

/** Protocol and length of the IP header at the beginning of `ip`, IPv6 extension headers included. */
function ipHeader(ip: Uint8Array, v6: boolean): { proto: number; hlen: number } {
  if (!v6) return { proto: ip[9]!, hlen: (ip[0]! & 15) * 4 };
  let proto = ip[6]!;
  let hlen = 40;
  while ([HOPOPTS, ROUTING, DSTOPTS].includes(proto)) {
    proto = ip[hlen]!;
    hlen += 8 * (ip[hlen + 1]! + 1);
  }
  return { proto, hlen };
}

/** Checks every length and checksum of a TCP or UDP frame over IPv4 or IPv6; throws on an error. */
export function judge(frame: Uint8Array): Judged {
  expect(frame.length, 'minimum frame').to.be.at.least(60);
  let l2 = 14;
  let type = be16(frame, 12);
  let vtag = -1;
  if (type === 0x8100) {
    vtag = be16(frame, 14);
    type = be16(frame, 16);
    l2 = 18;
  }
  const ip = frame.subarray(l2);
  const v6 = type === 0x86dd;
  expect(type, 'ethertype').to.equal(v6 ? 0x86dd : 0x0800);
  expect(ip[0]! >>> 4, 'IP version').to.equal(v6 ? 6 : 4);
  const { proto, hlen } = ipHeader(ip, v6);
  const ipLen = v6 ? be16(ip, 4) + 40 : be16(ip, 2);
  expect(ipLen, 'IP length').to.be.at.most(ip.length);
  if (ip.length > ipLen) expect(frame.length, 'padding').to.equal(60);
  if (!v6) expect(sum1071(ip.subarray(0, hlen)), 'IP header checksum').to.equal(0xffff);
  const l4 = ip.subarray(hlen, ipLen);
  const addresses = v6 ? ip.subarray(8, 40) : ip.subarray(12, 20);
  const pseudo = sum1071(addresses, proto + l4.length);
  expect(sum1071(l4, pseudo), 'TCP or UDP checksum').to.equal(0xffff);
  const udp = proto === 17;
  if (udp) expect(be16(l4, 4), 'UDP length').to.equal(l4.length);
  if (udp) expect(be16(l4, 6), 'UDP checksum present').to.not.equal(0);
  return {
    vtag,
    v6,
    proto,
    ipLen,
    ipId: v6 ? 0 : be16(ip, 4),
    seq: udp ? 0 : be32(l4, 4),
    thFlags: udp ? 0 : l4[13]!,
    payload: l4.subarray(udp ? 8 : (l4[12]! >>> 4) * 4),
  };
}

/** An IPv6 extension header of 8 * (units + 1) bytes. */
export interface ExtHeader {
  type: number;
  /** The header's length field; 0 unless given. */
  units?: number;
  /** Byte 3: segments left of a routing header. */
  left?: number;
}

/** Bytes of extension headers. */
export const extLen = (exts: readonly ExtHeader[] = []): number =>
  exts.reduce((n, { units = 0 }) => n + 8 * (units + 1), 0);

/** Writes extension headers in front of protocol `proto`. Returns the first header's number. */
function putExts(to: Uint8Array, exts: readonly ExtHeader[], proto: number): number {
  let at = 0;
  exts.forEach(({ type, units = 0, left = 0 }, i) => {
    to[at] = exts[i + 1]?.type ?? proto;
    to[at + 1] = units;
    const size = 8 * (units + 1);
    if (type === ROUTING) {
      to[at + 3] = left;
    } else if (type !== FRAGMENT) {
      // PadN of at most 257 bytes; a byte left over is Pad1.
      for (let off = 2; off + 2 <= size; off += 257) {
        to[at + off] = 1;
        to[at + off + 1] = Math.min(size - off - 2, 255);
      }
    }
    at += size;
  });
  return exts[0]?.type ?? proto;
}

export interface PacketOptions {
  v6?: boolean;
  udp?: boolean;
  payload: number;
  seq?: number;
  thFlags?: number;
  ipId?: number;
  /** Bytes of TCP options, a multiple of 4. */
  tcpOptions?: number;
  ipOptions?: number;
  /** IPv6 extension headers, in order. */
  exts?: readonly ExtHeader[];
  dst?: number[];
  vlan?: number;
  /**
   * `full`: all checksums are right. `pseudo`, `tso`: the TCP or UDP field holds the pseudo-header
   * sum that a stack leaves for checksum offload, or for TSO (without the length).
   */
  cksum: 'full' | 'pseudo' | 'tso';
  /** Added to the TCP or UDP checksum to make it wrong. */
  spoil?: number;
}

/** Deterministic payload bytes. */
export function payloadBytes(n: number): Uint8Array {
  return Uint8Array.from({ length: n }, (_, i) => (i * 31 + (i >>> 8) * 7 + 1) & 0xff);
}

/** A frame to 02:00:00:00:00:01 from 02:00:00:00:00:02 with IP and TCP or UDP headers. */
export function makePacket(o: PacketOptions): Uint8Array {
  const l2 = o.vlan === undefined ? 14 : 18;
  const l3 = o.v6 === true ? 40 + extLen(o.exts) : 20 + (o.ipOptions ?? 0);
  const l4 = o.udp === true ? 8 : 20 + (o.tcpOptions ?? 0);
  const proto = o.udp === true ? 17 : 6;
  const f = new Uint8Array(l2 + l3 + l4 + o.payload);
  f.set(o.dst ?? [2, 0, 0, 0, 0, 1], 0);
  f.set([2, 0, 0, 0, 0, 2], 6);
  if (o.vlan !== undefined) {
    put16(f, 12, 0x8100);
    put16(f, 14, o.vlan);
  }
  put16(f, l2 - 2, o.v6 === true ? 0x86dd : 0x0800);
  const ip = f.subarray(l2);
  if (o.v6 === true) {
    ip[0] = 0x60;
    put16(ip, 4, l3 - 40 + l4 + o.payload);
    ip[6] = putExts(ip.subarray(40), o.exts ?? [], proto);
    ip[7] = 64;
    ip.set([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], 8);
    ip.set([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 24);
  } else {
    ip[0] = 0x40 + l3 / 4;
    put16(ip, 2, l3 + l4 + o.payload);
    put16(ip, 4, o.ipId ?? 0x1234);
    ip[8] = 64;
    ip[9] = proto;
    ip.set([192, 0, 2, 2], 12);
    ip.set([192, 0, 2, 1], 16);
    ip.fill(1, 20, l3); // NOPs
    if (o.cksum === 'full') put16(ip, 10, ~sum1071(ip.subarray(0, l3)));
  }
  const t = ip.subarray(l3);
  put16(t, 0, 80);
  put16(t, 2, 40000);
  if (o.udp === true) {
    put16(t, 4, 8 + o.payload);
  } else {
    put16(t, 4, Math.floor((o.seq ?? 1) / 65536));
    put16(t, 6, (o.seq ?? 1) % 65536);
    t[12] = (l4 / 4) << 4;
    t[13] = o.thFlags ?? 0x10;
    put16(t, 14, 65535);
    t.fill(1, 20, l4); // NOPs
  }
  t.set(payloadBytes(o.payload), l4);
  const addresses = o.v6 === true ? ip.subarray(8, 40) : ip.subarray(12, 20);
  const field = o.udp === true ? 6 : 16;
  const pseudo = sum1071(addresses, proto + (o.cksum === 'tso' ? 0 : l4 + o.payload));
  let sum = pseudo;
  if (o.cksum === 'full') sum = ~sum1071(t, pseudo) & 0xffff;
  if (o.cksum === 'full' && o.udp === true && sum === 0) sum = 0xffff;
  put16(t, field, sum + (o.spoil ?? 0));
  return f;
}
