/** Converts addresses between text and bytes. Used for set-up only, not per packet. */

import { isIPv4, isIPv6 } from 'node:net';
import { TapnicError } from '../sys/errno.ts';

/** An address with its prefix length, e.g. of `192.0.2.1/24`. */
interface Cidr {
  /** 4 or 16 bytes, network order. */
  readonly bytes: Uint8Array;
  readonly prefixLen: number;
}

/**
 * Returns the 4 bytes of an IPv4 or the 16 bytes of an IPv6 address, or null if `text` is invalid
 * or has a zone name.
 */
function parseAddr(text: string): Uint8Array | null {
  if (isIPv4(text)) return Uint8Array.from(text.split('.'), Number);
  if (!isIPv6(text) || text.includes('%')) return null;
  const v4 = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  let plain = text;
  if (v4 !== null) {
    const [a, b, c, d] = v4[2]!.split('.').map(Number) as [number, number, number, number];
    plain = `${v4[1]!}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  }
  const [head, tail] = plain.split('::') as [string, string | undefined];
  const groups = (part: string) => (part === '' ? [] : part.split(':'));
  const left = groups(head);
  const right = groups(tail ?? '');
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => '0');
  const all = [...left, ...zeros, ...right].map((g) => Number.parseInt(g, 16));
  return Uint8Array.from(all.flatMap((g) => [g >>> 8, g & 0xff]));
}

/** Parses `address/length`. Throws TapnicError (EINVAL). */
export function parseCidr(text: string): Cidr {
  const match = /^([^/]+)\/(\d{1,3})$/.exec(text);
  const bytes = match === null ? null : parseAddr(match[1]!);
  const prefixLen = Number(match?.[2]);
  if (bytes === null || prefixLen > bytes.length * 8)
    throw new TapnicError(
      'EINVAL',
      text,
      'an address is written as 192.0.2.1/24 or 2001:db8::1/64',
    );
  return { bytes, prefixLen };
}

/** Parses `02:00:5e:00:53:01`, colons or hyphens. Throws TapnicError (EINVAL). */
export function parseMac(text: string): Uint8Array {
  if (!/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(text))
    throw new TapnicError('EINVAL', text, 'a MAC address is written as 02:00:5e:00:53:01');
  return Uint8Array.from(text.split(/[:-]/), (b) => Number.parseInt(b, 16));
}

/** A 48-bit number in colon form. */
export function macText(mac: number): string {
  const hex = mac.toString(16).padStart(12, '0');
  return hex.match(/../g)!.join(':');
}

/** The text of 4 or 16 bytes in network order; IPv6 in the form of RFC 5952. */
export function addrText(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, i) =>
    ((bytes[2 * i]! << 8) | bytes[2 * i + 1]!).toString(16),
  );
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}
