/**
 * The IP version of a script: `--ip_version` of packetdrill. The runner builds and reads packets of
 * IPv4; with `ipv6` they are translated here on the way to and from the stack, and the checksums of the
 * stack's packets are verified. With `ipv4-mapped-ipv6` only the sockets are of AF_INET6.
 */

import { toLinuxSockaddr } from '../../src/packetdrill/linux.ts';
import { inSockaddr, parseInAddr } from '../../src/netinet/in.ts';
import { in6Sockaddr, parseIn6 } from '../../src/netinet6/in6.ts';
import { port } from '../../src/sys/types.ts';
import { buildIp4, naiveSum } from '../support/frames.ts';
import { buildIcmp6, buildIp6, decode6, ip6, summed } from '../support/six.ts';
import type { IcmpSpec } from './parser.ts';
import { buildIcmpError, type Conn } from './segments.ts';

export const US = '192.168.0.1';
export const PEER = '192.0.2.1';
/** packetdrill's own addresses. */
export const US6 = 'fd3d:a0b:17d6::1';
const PEER6 = 'fd3d:fa7b:d17d::1';

const ICMP6 = 58;
const TCP = 6;
/** The offset of the checksum by protocol. */
const SUM_OFF: Readonly<Record<number, number>> = { 6: 16, 17: 6 };

const u16 = (n: number): number[] => [(n >>> 8) & 0xff, n & 0xff];
const u32 = (n: number): number[] => [...u16(n >>> 16), ...u16(n)];

/** What a version does with addresses and packets. */
export interface IpVersion {
  /** Linux's number of the family that `socket(...)` gets. */
  readonly domain: number;
  /** An address of this host, or else of the peer, in Linux's layout. */
  sockaddr(us: boolean, n: number): Uint8Array;
  /** The packet to inject for the IPv4 packet `packet`. */
  received(packet: Uint8Array): Uint8Array;
  /** The IPv4 packet of a sent one. Throws if an address or a checksum is wrong. */
  sent(packet: Uint8Array): Uint8Array;
  icmp(spec: IcmpSpec, conn: Conn): Uint8Array;
}

const same = (packet: Uint8Array): Uint8Array => packet;

const ipv4: IpVersion = {
  domain: 2,
  sockaddr: (us, n) => toLinuxSockaddr(inSockaddr(parseInAddr(us ? US : PEER)!, port(n))),
  received: same,
  sent: same,
  icmp: buildIcmpError,
};

const mapped: IpVersion = {
  ...ipv4,
  domain: 10,
  sockaddr: (us, n) => toLinuxSockaddr(in6Sockaddr(parseIn6(`::ffff:${us ? US : PEER}`)!, port(n))),
};

function toSix(packet: Uint8Array): Uint8Array {
  const hlen = (packet[0]! & 15) * 4;
  const proto = packet[9]!;
  const f = { src: PEER6, dst: US6, tclass: packet[1]!, hlim: packet[8]! };
  return buildIp6(f, proto, summed(f, proto, packet.subarray(hlen), SUM_OFF[proto]!));
}

/** The packet `packet` of IPv6 as one of IPv4 with checksums. */
function toFour(packet: Uint8Array): Uint8Array {
  const { src, dst, hlim, nxt, body } = decode6(
    Uint8Array.from([...Array.from({ length: 12 }, () => 0), 0x86, 0xdd, ...packet]),
  );
  const names = [src, dst].map((a) => Buffer.from(a).toString('hex'));
  const own = [US6, PEER6].map((text) => Buffer.from(ip6(text)).toString('hex'));
  if (names[0] !== own[0] || names[1] !== own[1])
    throw new Error(`sent from ${names.join(' to ')}`);
  const f = {
    src: US,
    dst: PEER,
    df: true,
    ttl: hlim,
    tos: ((packet[0]! << 4) | (packet[1]! >>> 4)) & 0xff,
  };
  if (nxt === ICMP6) return buildIp4(f, nxt, body);
  const addrs = [US, PEER].flatMap((text) => text.split('.').map(Number));
  const bytes = Uint8Array.from(body);
  bytes.fill(0, SUM_OFF[nxt], SUM_OFF[nxt]! + 2);
  const sum = naiveSum([...addrs, 0, nxt, ...u16(bytes.length), ...bytes]);
  bytes.set(u16(0xffff - sum), SUM_OFF[nxt]);
  return buildIp4(f, nxt, bytes);
}

const ipv6: IpVersion = {
  domain: 10,
  sockaddr: (us, n) => toLinuxSockaddr(in6Sockaddr(parseIn6(us ? US6 : PEER6)!, port(n))),
  received: toSix,
  sent: toFour,
  icmp(spec, conn) {
    const seq = ((conn.localIss ?? 0) + spec.seq) >>> 0;
    const l4 = [...u16(conn.lport), ...u16(conn.rport), ...u32(seq)];
    const quoted = buildIp6({ src: US6, dst: PEER6, plen: 20 + spec.len }, TCP, l4);
    const head = [spec.icmpType, spec.code, 0, 0, ...u32(spec.mtu)];
    return buildIcmp6({ src: PEER6, dst: US6 }, [...head, ...quoted]);
  },
};

/** The version that a script names. Throws for another word. */
export function ipVersionOf(word: string): IpVersion {
  const version = { ipv4, ipv6, 'ipv4-mapped-ipv6': mapped }[word];
  if (version === undefined) throw new Error(`--ip_version=${word}: not a version`);
  return version;
}
