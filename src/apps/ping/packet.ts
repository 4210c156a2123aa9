/** ICMP messages as ping sends and reads them, RFC 792: network byte order, in Buffers. */

import { IPPROTO_ICMP } from '../../sys/protocols.ts';
import { ICMP6_ECHO_REQUEST } from './packet6.ts';

const ECHOREPLY = 0;
const UNREACH = 3;
const REDIRECT = 5;
const ECHO = 8;
const TIMXCEED = 11;
const PARAMPROB = 12;
/** Bytes of an ICMP header, and of the shortest IP header. */
const ICMP_HDR = 8;
const IP_HDR = 20;

/** An ICMP error about one of our requests. */
export interface IcmpError {
  readonly from: string;
  /** Bytes of the ICMP message. */
  readonly bytes: number;
  readonly type: number;
  readonly code: number;
  /** Sequence number of the request. */
  readonly seq: number;
  readonly text: string;
}

/** The Internet checksum of `bytes`, RFC 1071. */
export function icmpSum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** The data byte at `i` of every request. */
const patternByte = (i: number): number => i & 0xff;

/**
 * An echo request with `size` bytes of data. The checksum of ICMPv6 contains the addresses: the socket
 * computes it.
 */
export function makeEcho(family: 4 | 6, ident: number, seq: number, size: number): Buffer {
  const b = Buffer.alloc(ICMP_HDR + size);
  b[0] = family === 6 ? ICMP6_ECHO_REQUEST : ECHO;
  b.writeUInt16BE(ident, 4);
  b.writeUInt16BE(seq, 6);
  for (let i = 0; i < size; i++) b[ICMP_HDR + i] = patternByte(i);
  if (family === 4) b.writeUInt16BE(icmpSum(b), 2);
  return b;
}

/** The first of the `size` data bytes that differs from the request; null if all are equal. */
export function patternMismatch(
  data: Uint8Array,
  size: number,
): { at: number; sent: number; got: number } | null {
  for (let i = 0; i < Math.min(size, data.length); i++)
    if (data[i] !== patternByte(i)) return { at: i, sent: patternByte(i), got: data[i]! };
  return null;
}

/** The symbolic errno of an error that a socket threw. */
export function errorCode(e: unknown): string {
  return (e as NodeJS.ErrnoException).code ?? String(e);
}

const unreachable = [
  'Destination Net Unreachable',
  'Destination Host Unreachable',
  'Destination Protocol Unreachable',
  'Destination Port Unreachable',
  'frag needed and DF set',
  'Source Route Failed',
  'Destination Net Unknown',
  'Destination Host Unknown',
  'Source Host Isolated',
  'Destination Net Administratively Prohibited',
  'Destination Host Administratively Prohibited',
  'Destination Net Unreachable for TOS',
  'Destination Host Unreachable for TOS',
  'Communication prohibited by filter',
];

/** The text of an error as sbin/ping prints it; `word` is the 32-bit word after the checksum. */
function errorText(type: number, code: number, word: number): string {
  switch (type) {
    case UNREACH: {
      const text = unreachable[code] ?? `Dest Unreachable, Bad Code: ${code}`;
      return code === 4 && (word & 0xffff) !== 0 ? `${text} (MTU ${word & 0xffff})` : text;
    }
    case TIMXCEED:
      return code === 0 ? 'Time to live exceeded' : 'Frag reassembly time exceeded';
    case REDIRECT:
      return 'Redirect';
    case PARAMPROB:
      return `Parameter problem: pointer = 0x${(word >>> 24).toString(16).padStart(2, '0')}`;
    default:
      return `Bad ICMP type: ${type}`;
  }
}

/** A received IP packet with an ICMP message in it. */
export class IcmpPacket {
  readonly #icmp: Buffer;
  readonly ttl: number;

  private constructor(icmp: Buffer, ttl: number) {
    this.#icmp = icmp;
    this.ttl = ttl;
  }

  /** Null for a packet that is too short, or not ICMP. */
  static parse(packet: Buffer): IcmpPacket | null {
    if (packet.length < IP_HDR + ICMP_HDR) return null;
    const hlen = (packet[0]! & 0xf) << 2;
    if (packet[9] !== IPPROTO_ICMP || packet.length < hlen + ICMP_HDR) return null;
    return new IcmpPacket(packet.subarray(hlen), packet[8]!);
  }

  get bytes(): number {
    return this.#icmp.length;
  }

  get seq(): number {
    return this.#icmp.readUInt16BE(6);
  }

  get data(): Uint8Array {
    return this.#icmp.subarray(ICMP_HDR);
  }

  /** Whether it is an echo reply to a request with this identifier. */
  isReplyTo(ident: number): boolean {
    return this.#icmp[0] === ECHOREPLY && this.#icmp.readUInt16BE(4) === ident;
  }

  /** The ICMP error about a request with this identifier to `host`; null if it is anything else. */
  errorAbout(ident: number, host: string, from: string): IcmpError | null {
    const b = this.#icmp;
    const type = b[0]!;
    if (![UNREACH, REDIRECT, TIMXCEED, PARAMPROB].includes(type)) return null;
    if (b.length < ICMP_HDR + IP_HDR + ICMP_HDR) return null;
    const quoted = b.subarray(ICMP_HDR);
    const inner = quoted.subarray((quoted[0]! & 0xf) << 2);
    const dst = quoted.subarray(16, 20).join('.');
    if (quoted[9] !== IPPROTO_ICMP || dst !== host || inner.length < ICMP_HDR) return null;
    if (inner[0] !== ECHO || inner.readUInt16BE(4) !== ident) return null;
    const code = b[1]!;
    const text = errorText(type, code, b.readUInt32BE(4));
    return { from, bytes: b.length, type, code, seq: inner.readUInt16BE(6), text };
  }
}
