/**
 * Parsers of option texts, for front ends that accept texts. A text that cannot be parsed is
 * returned unchanged; the check of the option then rejects it with its own message.
 */

import { type FaultValues, parseFault } from '../fault/fault_spec.ts';
import { OptionError } from './option_error.ts';

const SCALE: Readonly<Record<string, number>> = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 };

const RATE: Readonly<Record<string, number>> = { '': 1, K: 1e3, M: 1e6, G: 1e9 };

/** A decimal number without sign, point or exponent. */
export function numberOf(text: string): number | string {
  return /^\d+$/.test(text) ? Number(text) : text;
}

/** A size in bytes: `256M`, `64KiB`, `1048576`. */
export function sizeOf(text: string): number | string {
  const match = /^(\d+)([KMG]?)(?:i?B)?$/i.exec(text);
  return match === null ? text : Number(match[1]) * SCALE[match[2]!.toUpperCase()]!;
}

/** Bits per second: `10M` is ten million. */
export function rateOf(text: string): number | string {
  const match = /^(\d+(?:\.\d+)?)([kMG]?)$/i.exec(text);
  return match === null ? text : Number(match[1]) * RATE[match[2]!.toUpperCase()]!;
}

/** An address, decimal or hexadecimal after `0x`. */
export function addressOf(text: string): number | string {
  return /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : text;
}

/** `wire`, or `if,wire@nic1` for several points, also of other interfaces. */
export function capturePlacesOf(text: string): { point: string; at: string | null }[] {
  return text.split(',').map((place) => {
    const [point = '', at = null] = place.split('@', 2);
    return { point, at };
  });
}

/** `drop,rate=0.01,point=rx`. Throws OptionError without a path. */
export function faultOf(text: string): FaultValues & { kind: string } {
  try {
    const { kind, values } = parseFault(text);
    return { kind, ...values };
  } catch (e) {
    throw new OptionError({ path: [], problem: (e as Error).message });
  }
}
