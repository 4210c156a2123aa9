/**
 * IPv6 for the readers of `reader.ts`, which speak IPv4: translates their frames, as a NAT64 does, and
 * verifies the checksums of the host under test. Also builds packets for tests, without code of src.
 */

import { buildEther, buildIp4, naiveSum } from './frames.ts';
import { HOST_ADDR, HOST_MAC, READER_ADDR, READER_MAC } from './reader_addrs.ts';

export const ETHERTYPE_IPV6 = 0x86dd;
export const READER_ADDR6 = '2001:db8::1';
export const HOST_ADDR6 = '2001:db8::2';

const be16 = (n: number): number[] => [(n >>> 8) & 0xff, n & 0xff];
const be32 = (n: number): number[] => [...be16(n >>> 16), ...be16(n)];
const get16 = (b: ArrayLike<number>, off: number): number => b[off]! * 256 + b[off + 1]!;

/** The 16 bytes of an address; without a zone and without a dotted quad. */
export function ip6(text: string): number[] {
  const [head, tail] = text.split('::').map((half) => (half === '' ? [] : half.split(':'))) as [
    string[],
    string[]?,
  ];
  const zeros = 8 - head.length - (tail?.length ?? 0);
  const groups = [...head, ...Array.from({ length: zeros }, () => '0'), ...(tail ?? [])];
  return groups.flatMap((group) => be16(Number.parseInt(group, 16)));
}

export interface Ip6Fields {
  src: string;
  dst: string;
  hlim?: number;
  tclass?: number;
  /** Default: the bytes that follow the header. */
  plen?: number;
}

/** A packet with the next header `nxt`. */
export function buildIp6(f: Ip6Fields, nxt: number, payload: ArrayLike<number>): Uint8Array {
  const body = Array.from(payload);
  const first = [0x60 | ((f.tclass ?? 0) >>> 4), ((f.tclass ?? 0) << 4) & 0xff, 0, 0];
  const rest = [...be16(f.plen ?? body.length), nxt, f.hlim ?? 64, ...ip6(f.src), ...ip6(f.dst)];
  return Uint8Array.from([...first, ...rest, ...body]);
}

/** The sum of the pseudo-header: RFC 8200, 8.1. */
export function pseudo6(
  src: ArrayLike<number>,
  dst: ArrayLike<number>,
  nxt: number,
  len: number,
): number {
  return naiveSum([...Array.from(src), ...Array.from(dst), ...be32(len), 0, 0, 0, nxt]);
}

/** The sum of `bytes`, added to `sum`. */
const addSum = (sum: number, bytes: ArrayLike<number>): number => {
  const both = sum + naiveSum(bytes);
  return both > 0xffff ? both - 0xffff : both;
};

/** `body` with its checksum, at offset `at`, filled in. */
export function summed(f: Ip6Fields, nxt: number, body: ArrayLike<number>, at: number): number[] {
  const bytes = Array.from(body);
  bytes.splice(at, 2, 0, 0);
  const sum = addSum(pseudo6(ip6(f.src), ip6(f.dst), nxt, bytes.length), bytes);
  bytes.splice(at, 2, ...be16(0xffff - sum));
  return bytes;
}

/** An ICMPv6 message in a packet. */
export function buildIcmp6(f: Ip6Fields, body: ArrayLike<number>): Uint8Array {
  return buildIp6(f, 58, summed(f, 58, body, 2));
}

/** A datagram in a packet. */
export function buildUdp6(
  f: Ip6Fields,
  sport: number,
  dport: number,
  data: ArrayLike<number>,
): Uint8Array {
  const head = [...be16(sport), ...be16(dport), ...be16(8 + data.length), 0, 0];
  return buildIp6(f, 17, summed(f, 17, [...head, ...Array.from(data)], 6));
}

/** A packet of the host, its transport checksum verified unless `whole` is false. */
export interface Packet6 {
  src: number[];
  dst: number[];
  hlim: number;
  nxt: number;
  /** What follows the IPv6 header. */
  body: Uint8Array;
}

/** Decodes the packet of an Ethernet frame of IPv6, and verifies lengths and checksums. */
export function decode6(frame: Uint8Array, whole = true): Packet6 {
  const p = frame.subarray(14);
  if (get16(frame, 12) !== ETHERTYPE_IPV6 || p[0]! >>> 4 !== 6) throw new Error('not IPv6');
  const body = p.subarray(40);
  if (get16(p, 4) !== body.length) throw new Error(`payload length ${get16(p, 4)}`);
  const [src, dst] = [Array.from(p.subarray(8, 24)), Array.from(p.subarray(24, 40))];
  const nxt = p[6]!;
  if (whole && [6, 17, 58].includes(nxt)) {
    const sum = addSum(pseudo6(src, dst, nxt, body.length), body);
    if (sum !== 0xffff) throw new Error(`next header ${nxt}: bad checksum`);
  }
  return { src, dst, hlim: p[7]!, nxt, body };
}

/** Whether an Ethernet frame without a tag contains IPv6. */
export const isSix = (frame: Uint8Array): boolean => get16(frame, 12) === ETHERTYPE_IPV6;

/** Whether an IPv6 frame is a message of MLD: a router alert option, then ICMPv6. */
export const isMld = (frame: Uint8Array): boolean =>
  frame[20] === 0 && frame[54] === 58 && [130, 131, 132, 143].includes(frame[62]!);

/** The reader's answer to a neighbour solicitation for its address; null: another frame. */
export function advertisementFor(frame: Uint8Array): Uint8Array | null {
  const p = frame.subarray(14);
  if (p[6] !== 58 || p[40] !== 135) return null;
  if (!ip6(READER_ADDR6).every((byte, i) => p[48 + i] === byte)) return null;
  const mac = READER_MAC.split(':').map((part) => Number.parseInt(part, 16));
  const body = [136, 0, 0, 0, 0x60, 0, 0, 0, ...ip6(READER_ADDR6), 2, 1, ...mac];
  const na = buildIcmp6({ src: READER_ADDR6, dst: HOST_ADDR6, hlim: 255 }, body);
  return buildEther({ dst: HOST_MAC, src: READER_MAC }, ETHERTYPE_IPV6, na);
}

/** A TCP segment of a reader over IPv4, as a frame over IPv6. */
export function toSix(frame: Uint8Array): Uint8Array {
  const ip = frame.subarray(14);
  const tcp = ip.subarray((ip[0]! & 15) * 4, get16(ip, 2));
  const f = { src: READER_ADDR6, dst: HOST_ADDR6, tclass: ip[1]! };
  return buildEther(
    { dst: HOST_MAC, src: READER_MAC },
    ETHERTYPE_IPV6,
    buildIp6(f, 6, summed(f, 6, tcp, 16)),
  );
}

/** A TCP segment of the host over IPv6, as a frame over IPv4 with checksums; null: another frame. */
export function toFour(frame: Uint8Array, whole: boolean): Uint8Array | null {
  const { nxt, body } = decode6(frame, whole);
  if (nxt !== 6) return null;
  const f = { src: HOST_ADDR, dst: READER_ADDR, df: true };
  const addrs = [HOST_ADDR, READER_ADDR].flatMap((text) => text.split('.').map(Number));
  const bytes = Uint8Array.from(body);
  bytes[16] = bytes[17] = 0;
  const sum = addSum(naiveSum([...addrs, 0, 6, ...be16(bytes.length)]), bytes);
  bytes.set(be16(0xffff - sum), 16);
  return buildEther({ dst: READER_MAC, src: HOST_MAC }, 0x0800, buildIp4(f, 6, bytes));
}
