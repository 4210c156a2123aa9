/** ICMPv6 messages as ping sends and reads them, RFC 4443: network byte order, in Buffers. */

import type { IcmpError } from './packet.ts';

// Next headers.
const IPPROTO_FRAGMENT = 44;
const IPPROTO_ICMPV6 = 58;

export const ICMP6_ECHO_REQUEST = 128;
const ECHO_REPLY = 129;
const UNREACH = 1;
const TOO_BIG = 2;
const TIME_EXCEEDED = 3;
const PARAM_PROB = 4;
/** Bytes of an ICMPv6 header, an IPv6 header and a fragment header. */
const ICMP6_HDR = 8;
const IP6_HDR = 40;
const FRAG_HDR = 8;

const unreachable = [
  'No Route to Destination',
  'Destination Administratively Unreachable',
  'Destination Unreachable Beyond Scope',
  'Destination Host Unreachable',
  'Destination Port Unreachable',
];

/** The text of an error as sbin/ping prints it; `word` is the 32-bit word after the checksum. */
function errorText(type: number, code: number, word: number): string {
  switch (type) {
    case UNREACH:
      return unreachable[code] ?? `Destination Unreachable, Bad Code: ${code}`;
    case TOO_BIG:
      return `Packet too big mtu = ${word}`;
    case TIME_EXCEEDED:
      return code === 0 ? 'Time to live exceeded' : 'Frag reassembly time exceeded';
    default:
      return `Parameter problem: pointer = 0x${word.toString(16).padStart(2, '0')}`;
  }
}

/** Where the ICMPv6 header is behind the quoted IPv6 header; 0: it is not quoted. */
function quotedAt(quoted: Buffer): number {
  const next = quoted[6];
  if (next === IPPROTO_ICMPV6) return IP6_HDR;
  // Only the first fragment has the ICMPv6 header.
  if (next !== IPPROTO_FRAGMENT || quoted.length < IP6_HDR + FRAG_HDR) return 0;
  const first = (quoted.readUInt16BE(IP6_HDR + 2) & 0xfff8) === 0;
  return first && quoted[IP6_HDR] === IPPROTO_ICMPV6 ? IP6_HDR + FRAG_HDR : 0;
}

/** A received ICMPv6 message, without the IPv6 header. */
export class Icmp6Message {
  readonly #icmp: Buffer;
  /** The hop limit; 0 if it is unknown. */
  readonly ttl: number;

  private constructor(icmp: Buffer, ttl: number) {
    this.#icmp = icmp;
    this.ttl = ttl;
  }

  /** Null for a message that is too short. */
  static parse(icmp: Buffer, hops: number | null): Icmp6Message | null {
    return icmp.length < ICMP6_HDR ? null : new Icmp6Message(icmp, hops ?? 0);
  }

  get bytes(): number {
    return this.#icmp.length;
  }

  get seq(): number {
    return this.#icmp.readUInt16BE(6);
  }

  get data(): Uint8Array {
    return this.#icmp.subarray(ICMP6_HDR);
  }

  /** Whether it is an echo reply to a request with this identifier. */
  isReplyTo(ident: number): boolean {
    return this.#icmp[0] === ECHO_REPLY && this.#icmp.readUInt16BE(4) === ident;
  }

  /** The error about a request with this identifier; null if it is anything else. */
  errorAbout(ident: number, _host: string, from: string): IcmpError | null {
    const b = this.#icmp;
    const type = b[0]!;
    if (![UNREACH, TOO_BIG, TIME_EXCEEDED, PARAM_PROB].includes(type)) return null;
    const quoted = b.subarray(ICMP6_HDR);
    const at = quoted.length < IP6_HDR ? 0 : quotedAt(quoted);
    const inner = quoted.subarray(at);
    if (at === 0 || inner.length < ICMP6_HDR) return null;
    if (inner[0] !== ICMP6_ECHO_REQUEST || inner.readUInt16BE(4) !== ident) return null;
    const code = b[1]!;
    const text = errorText(type, code, b.readUInt32BE(4));
    return { from, bytes: b.length, type, code, seq: inner.readUInt16BE(6), text };
  }
}
