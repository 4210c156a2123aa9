/**
 * Ethernet, ARP, IPv4, IPv6, ICMP, ICMPv6, UDP and TCP headers of a frame as data. Accepts any bytes: a header that
 * is cut short leaves the frame as what was decoded before it. Left out: checksums, extension headers of IPv6 but
 * hop-by-hop options and fragments.
 */

import { addrText } from '../host/addr_text.ts';
import { absoluteNumbers, type SeqNumbers } from './conversations.ts';
import type { Frame } from './frame.ts';
import { optionTexts } from './option_text.ts';

const ETHER_HEADER = 14;
const ETHERTYPE_IP = 0x0800;
const ETHERTYPE_ARP = 0x0806;
const ETHERTYPE_VLAN = 0x8100;
const ETHERTYPE_IPV6 = 0x86dd;
const PROTO_HOPOPTS = 0;
const PROTO_ICMP = 1;
const PROTO_IGMP = 2;
const PROTO_TCP = 6;
const PROTO_UDP = 17;
const PROTO_FRAGMENT = 44;
const PROTO_ICMP6 = 58;
/** Neighbour solicitation and advertisement, and redirect: a target follows the header. */
const ND_TARGET_TYPES = [135, 136, 137];
const TCP_FLAGS = 'FSRP.UEWe';

const u16 = (b: Uint8Array, at: number): number => (b[at]! << 8) | b[at + 1]!;
const u32 = (b: Uint8Array, at: number): number => u16(b, at) * 65536 + u16(b, at + 2);
const macText = (b: Uint8Array, at: number): string =>
  Array.from(b.subarray(at, at + 6), (x) => x.toString(16).padStart(2, '0')).join(':');
const ip4Text = (b: Uint8Array, at: number): string => b.subarray(at, at + 4).join('.');

const ip6Text = (b: Uint8Array, at: number): string => addrText(b.subarray(at, at + 16));

type Draft = { -readonly [K in keyof Frame]: Frame[K] };

function decodeTcp(f: Draft, b: Uint8Array, numbers: SeqNumbers): void {
  const headers = b.length < 20 ? 0 : (b[12]! >> 4) * 4;
  if (headers < 20 || headers > b.length) return;
  const [sport, dport] = [u16(b, 0), u16(b, 2)];
  const bits = b[13]! | ((b[12]! & 1) << 8);
  const flags = Array.from(TCP_FLAGS)
    .filter((_, i) => (bits & (1 << i)) !== 0)
    .join('');
  const [from, to] = [`${f.src}.${sport}`, `${f.dst}.${dport}`];
  const seq = numbers.seq(from, to, u32(b, 4), flags.includes('S'));
  const acked = (ack: number): number => numbers.ack(from, to, ack);
  const ack = flags.includes('.') ? acked(u32(b, 8)) : 0;
  const options = optionTexts(b.subarray(20, headers), acked);
  Object.assign(f, { protocol: 'tcp', sport, dport, payload: b.subarray(headers) });
  f.tcp = { flags, seq, ack, win: u16(b, 14), urg: u16(b, 18), options };
}

function decodeIcmp(f: Draft, b: Uint8Array, six: boolean): void {
  if (b.length < 8) return;
  const type = b[0]!;
  const nd = six && ND_TARGET_TYPES.includes(type) && b.length >= 24;
  f.protocol = six ? 'icmp6' : 'icmp';
  f.payload = b.subarray(8);
  const target = nd ? ip6Text(b, 8) : '';
  f.icmp = { type, code: b[1]!, id: u16(b, 4), seq: u16(b, 6), target };
}

function decodeTransport(f: Draft, b: Uint8Array, numbers: SeqNumbers): void {
  f.payload = b;
  if (f.fragment > 0) return;
  if (f.type === PROTO_TCP) decodeTcp(f, b, numbers);
  else if (f.type === PROTO_UDP && b.length >= 8) {
    f.protocol = 'udp';
    Object.assign(f, { sport: u16(b, 0), dport: u16(b, 2), payload: b.subarray(8) });
  } else if (f.type === PROTO_ICMP) decodeIcmp(f, b, false);
  else if (f.type === PROTO_ICMP6) decodeIcmp(f, b, true);
  else if (f.type === PROTO_IGMP) f.protocol = 'igmp';
}

function decodeIp4(f: Draft, b: Uint8Array, numbers: SeqNumbers): void {
  const headers = b.length < 20 ? 0 : (b[0]! & 15) * 4;
  if (headers < 20 || headers > b.length) return;
  const length = Math.min(b.length, Math.max(headers, u16(b, 2)));
  const offset = u16(b, 6);
  f.fragment = (offset & 0x3fff) === 0 ? -1 : (offset & 0x1fff) * 8;
  Object.assign(f, { protocol: 'ip', src: ip4Text(b, 12), dst: ip4Text(b, 16) });
  Object.assign(f, { ttl: b[8]!, type: b[9]! });
  decodeTransport(f, b.subarray(headers, length), numbers);
}

function decodeIp6(f: Draft, b: Uint8Array, numbers: SeqNumbers): void {
  if (b.length < 40) return;
  const end = Math.min(b.length, 40 + u16(b, 4));
  Object.assign(f, { protocol: 'ip6', src: ip6Text(b, 8), dst: ip6Text(b, 24) });
  Object.assign(f, { ttl: b[7]!, type: b[6]! });
  let at = 40;
  while ((f.type === PROTO_HOPOPTS || f.type === PROTO_FRAGMENT) && at + 8 <= end) {
    const fragment = f.type === PROTO_FRAGMENT;
    if (fragment) f.fragment = u16(b, at + 2) & 0xfff8;
    f.type = b[at]!;
    at += fragment ? 8 : 8 + b[at + 1]! * 8;
  }
  decodeTransport(f, b.subarray(Math.min(at, end), end), numbers);
}

function decodeArp(f: Draft, b: Uint8Array): void {
  if (b.length < 28) return;
  f.protocol = 'arp';
  f.arp = {
    op: u16(b, 6),
    senderMac: macText(b, 8),
    sender: ip4Text(b, 14),
    target: ip4Text(b, 24),
  };
  Object.assign(f, { src: f.arp.sender, dst: f.arp.target, payload: b.subarray(28, 28) });
}

/** Decodes a frame. Its `bytes` and `payload` are views of `bytes`. */
export function decodeFrame(
  bytes: Uint8Array,
  direction: 'out' | 'in',
  timeMs: number,
  numbers: SeqNumbers = absoluteNumbers,
): Frame {
  const f: Draft = {
    direction,
    timeMs,
    bytes,
    protocol: 'ether',
    src: macText(bytes, 6),
    dst: macText(bytes, 0),
    sport: -1,
    dport: -1,
    ttl: 0,
    payload: bytes.subarray(ETHER_HEADER),
    tcp: null,
    icmp: null,
    arp: null,
    type: bytes.length < ETHER_HEADER ? 0 : u16(bytes, 12),
    vlan: null,
    fragment: -1,
  };
  let at = ETHER_HEADER;
  if (f.type === ETHERTYPE_VLAN && bytes.length >= at + 4) {
    f.vlan = u16(bytes, at) & 0xfff;
    f.type = u16(bytes, at + 2);
    at += 4;
    f.payload = bytes.subarray(at);
  }
  const body = bytes.subarray(at);
  if (f.type === ETHERTYPE_IP) decodeIp4(f, body, numbers);
  else if (f.type === ETHERTYPE_IPV6) decodeIp6(f, body, numbers);
  else if (f.type === ETHERTYPE_ARP) decodeArp(f, body);
  return f;
}
