/** Messages of neighbour discovery, built without code of src. */

import { mac } from '../support/frames.ts';
import { buildIcmp6, ip6 } from '../support/six.ts';

export const SOLICIT = 135;
export const ADVERT = 136;
export const REDIRECT = 137;
export const SLLA = 1;
export const TLLA = 2;
export const NONCE = 14;

// Flags of advertisements, in the first byte.
export const R = 0x80;
export const S = 0x40;
export const O = 0x20;

/** A link-layer address option. */
export const lla = (type: number, addr: string): number[] => [type, 1, ...mac(addr)];

/** The solicited-node group of an address whose last group has 4 digits or fewer. */
export function solicitedNode(target: string): string {
  const [a, b, c] = ip6(target).slice(13) as [number, number, number];
  return `ff02::1:ff${a.toString(16).padStart(2, '0')}:${((b << 8) | c).toString(16)}`;
}

interface Ends {
  src: string;
  dst: string;
  hlim?: number;
}

export function solicit(ends: Ends, target: string, options: number[] = []): Uint8Array {
  const body = [SOLICIT, 0, 0, 0, 0, 0, 0, 0, ...ip6(target), ...options];
  return buildIcmp6({ hlim: 255, ...ends }, body);
}

export function advert(
  ends: Ends,
  target: string,
  flags: number,
  options: number[] = [],
): Uint8Array {
  const body = [ADVERT, 0, 0, 0, flags, 0, 0, 0, ...ip6(target), ...options];
  return buildIcmp6({ hlim: 255, ...ends }, body);
}

export function redirect(
  ends: Ends,
  target: string,
  dst: string,
  options: number[] = [],
): Uint8Array {
  const body = [REDIRECT, 0, 0, 0, 0, 0, 0, 0, ...ip6(target), ...ip6(dst), ...options];
  return buildIcmp6({ hlim: 255, ...ends }, body);
}
