/** Patterns of frames: what a frame must have. Fields that a pattern does not name may have any value. */

import { inspect } from 'node:util';
import { TapnicError } from '../sys/errno.ts';
import type { Frame, Protocol } from './frame.ts';
import { parseFrameLine } from './frame_line.ts';

/** What a frame must have. */
export interface FramePattern {
  readonly direction?: 'out' | 'in';
  readonly protocol?: Protocol;
  readonly src?: string;
  readonly dst?: string;
  readonly sport?: number;
  readonly dport?: number;
  /** Either port. */
  readonly port?: number;
  readonly ttl?: number;
  /** Bytes of the payload. */
  readonly length?: number;
  /** The whole payload, or what it must match as UTF-8. */
  readonly payload?: string | Uint8Array | RegExp;
  /** tcpdump's letters, in any order; `''`: no flag. */
  readonly flags?: string;
  /** Relative to the connection's first number, as packetdrill counts: 0 is the SYN, 1 the first byte. */
  readonly seq?: number;
  readonly ack?: number;
  /** As in the header, not scaled. */
  readonly win?: number;
  readonly urg?: number;
  /** All options in order, as tcpdump prints them; `*` in one matches any number. */
  readonly options?: readonly string[];
  /** Type and code of ICMP and ICMPv6. */
  readonly icmpType?: number;
  readonly icmpCode?: number;
  /** 1: request, 2: reply. */
  readonly arpOp?: number;
  /** The address that ARP or neighbour discovery asks for. */
  readonly target?: string;
  /** Milliseconds since the frame before; only in the virtual time of a link. */
  readonly afterMs?: number;
  /** Anything else. */
  readonly test?: (frame: Frame) => boolean;
}

/** A packetdrill line, or an object. */
export type FrameLike = string | FramePattern;

/** Times of a link agree if they differ by less, ms. */
const TIME_TOLERANCE_MS = 0.5;
const LETTERS = 'FSRP.UEWe';

const NUMBERS = ['sport', 'dport', 'port', 'ttl', 'length', 'seq', 'ack', 'win', 'urg'] as const;
const MORE_NUMBERS = ['icmpType', 'icmpCode', 'arpOp', 'afterMs'] as const;
const TEXTS = ['direction', 'protocol', 'src', 'dst', 'flags', 'target'] as const;
const OTHERS = ['payload', 'options', 'test'] as const;
const KEYS: readonly string[] = [...TEXTS, ...NUMBERS, ...MORE_NUMBERS, ...OTHERS];
const PROTOCOLS = ['tcp', 'udp', 'icmp', 'icmp6', 'igmp', 'arp', 'ip', 'ip6', 'ether'];

function wrong(call: string, hint: string): never {
  throw new TapnicError('EINVAL', call, hint);
}

/** Letters in tcpdump's order. */
function flagsInOrder(flags: string): string {
  return Array.from(LETTERS)
    .filter((letter) => flags.includes(letter))
    .join('');
}

function checkValue(call: string, key: string, value: unknown): void {
  const bad = (need: string): never => wrong(call, `${key}: ${inspect(value)}: ${need} is needed`);
  const numbers: readonly string[] = [...NUMBERS, ...MORE_NUMBERS];
  if (numbers.includes(key) && !(typeof value === 'number' && value >= 0)) bad('a number from 0');
  if ((TEXTS as readonly string[]).includes(key) && typeof value !== 'string') bad('a text');
  if (key === 'direction' && value !== 'out' && value !== 'in') bad("'out' or 'in'");
  if (key === 'protocol' && !PROTOCOLS.includes(value as string)) bad(PROTOCOLS.join(', '));
  if (key === 'flags' && flagsInOrder(value as string).length !== (value as string).length)
    bad(`each of ${LETTERS} at most once`);
  if (key === 'options' && !(Array.isArray(value) && value.every((o) => typeof o === 'string')))
    bad('an array of texts');
  if (key === 'test' && typeof value !== 'function') bad('a function');
  const payload = typeof value === 'string' || value instanceof Uint8Array;
  if (key === 'payload' && !payload && !(value instanceof RegExp))
    bad('a text, a Uint8Array or a regular expression');
}

/** The pattern of a line or an object. Throws TapnicError EINVAL with the name of `call`. */
export function patternOf(call: string, like: FrameLike): FramePattern {
  if (typeof like === 'string') return parseFrameLine(call, like);
  if (typeof like !== 'object' || like === null || Array.isArray(like))
    wrong(
      call,
      `${inspect(like)}: a packetdrill line or an object with fields of a frame is needed`,
    );
  const stranger = Object.keys(like).find((key) => !KEYS.includes(key));
  if (stranger !== undefined) wrong(call, `${stranger}: none of ${KEYS.join(', ')}`);
  const given = Object.entries(like).filter(([, value]) => value !== undefined);
  for (const [key, value] of given) checkValue(call, key, value);
  return Object.fromEntries(given);
}

function payloadMatches(payload: Uint8Array, wanted: string | Uint8Array | RegExp): boolean {
  if (wanted instanceof RegExp) {
    wanted.lastIndex = 0;
    return wanted.test(Buffer.from(payload).toString());
  }
  return Buffer.from(payload).equals(Buffer.from(wanted as string));
}

/** `*` in `wanted` matches a number. */
function optionMatches(option: string, wanted: string): boolean {
  const words = wanted.split(' ');
  const has = option.split(' ');
  return words.length === has.length && words.every((word, i) => word === '*' || word === has[i]);
}

function optionsMatch(options: readonly string[], wanted: readonly string[]): boolean {
  return options.length === wanted.length && options.every((o, i) => optionMatches(o, wanted[i]!));
}

/** Values of a frame by the keys of a pattern that are compared with ===. */
function valuesOf(f: Frame): Partial<Record<string, string | number | undefined>> {
  return {
    direction: f.direction,
    protocol: f.protocol,
    src: f.src,
    dst: f.dst,
    sport: f.sport,
    dport: f.dport,
    ttl: f.ttl,
    length: f.payload.length,
    flags: f.tcp?.flags,
    seq: f.tcp?.seq,
    ack: f.tcp?.ack,
    win: f.tcp?.win,
    urg: f.tcp?.urg,
    icmpType: f.icmp?.type,
    icmpCode: f.icmp?.code,
    arpOp: f.arp?.op,
    target: f.arp?.target ?? f.icmp?.target,
  };
}

/** What of `f` is not as `pattern` says, in a few words; null: nothing. */
export function differenceOf(f: Frame, pattern: FramePattern): string | null {
  const values = valuesOf(f);
  for (const [key, wanted] of Object.entries(pattern)) {
    const plain = key === 'flags' ? flagsInOrder(wanted as string) : (wanted as unknown);
    if (key in values && values[key] !== plain)
      return `${key} is ${values[key] ?? 'absent'}, not ${String(plain)}`;
  }
  const { port, options, payload, test } = pattern;
  if (port !== undefined && port !== f.sport && port !== f.dport) return `neither port is ${port}`;
  if (options !== undefined && !optionsMatch(f.tcp?.options ?? [], options))
    return `options are [${f.tcp?.options.join(',') ?? ''}], not [${options.join(',')}]`;
  if (payload !== undefined && !payloadMatches(f.payload, payload))
    return 'the payload is another one';
  if (test !== undefined && !test(f)) return 'test returns false';
  return null;
}

/** Why the time of `f` after the frame before is not that of `pattern`; null: it is. */
export function timeDifferenceOf(pattern: FramePattern, gapMs: number): string | null {
  const { afterMs } = pattern;
  if (afterMs === undefined || Math.abs(afterMs - gapMs) < TIME_TOLERANCE_MS) return null;
  return `it passed ${gapMs.toFixed(3)} ms after the frame before, not ${afterMs}`;
}

function payloadText(payload: string | Uint8Array | RegExp): string {
  if (payload instanceof RegExp) return String(payload);
  return JSON.stringify(
    Buffer.from(payload as string)
      .toString()
      .slice(0, 40),
  );
}

/** A pattern as tcpdump would print a frame, without the fields that may have any value. */
export function patternText(p: FramePattern): string {
  const parts: string[] = [];
  const end = (addr?: string, port?: number): string =>
    [addr ?? '*', ...(port === undefined ? [] : [port])].join('.');
  if (p.src !== undefined || p.dst !== undefined || p.sport !== undefined || p.dport !== undefined)
    parts.push(`${end(p.src, p.sport)} > ${end(p.dst, p.dport)}`);
  if (p.port !== undefined) parts.push(`port ${p.port}`);
  if (p.flags !== undefined) parts.push(`Flags [${flagsInOrder(p.flags) || 'none'}]`);
  else if (p.protocol !== undefined) parts.push(p.protocol.toUpperCase());
  if (p.arpOp !== undefined) parts.push(['', 'Request', 'Reply'][p.arpOp] ?? `op ${p.arpOp}`);
  if (p.icmpType !== undefined) parts.push(`type ${p.icmpType}`);
  if (p.icmpCode !== undefined) parts.push(`code ${p.icmpCode}`);
  if (p.target !== undefined) parts.push(`target ${p.target}`);
  if (p.seq !== undefined)
    parts.push(`seq ${p.seq}${(p.length ?? 0) > 0 ? `:${p.seq + p.length!}` : ''}`);
  if (p.ack !== undefined) parts.push(`ack ${p.ack}`);
  if (p.win !== undefined) parts.push(`win ${p.win}`);
  if (p.urg !== undefined) parts.push(`urg ${p.urg}`);
  if (p.options !== undefined) parts.push(`options [${p.options.join(',')}]`);
  if (p.ttl !== undefined) parts.push(`ttl ${p.ttl}`);
  if (p.length !== undefined) parts.push(`length ${p.length}`);
  if (p.payload !== undefined) parts.push(`payload ${payloadText(p.payload)}`);
  if (p.afterMs !== undefined) parts.push(`after ${p.afterMs} ms`);
  if (p.test !== undefined) parts.push(`test ${p.test.name || 'function'}`);
  return parts.length === 0 ? 'any frame' : parts.join(', ');
}
