/** Makes a fault from the values of a command line, a file, a request or a program. */

import { bpf_validate, BPF_MAXINSNS, bpfProgram, type BpfProgram } from '../sys/bpf_filter.ts';
import {
  FAULT_KINDS,
  FAULT_POINTS,
  type FaultKind,
  type FaultPoint,
  type FaultSpec,
} from './fault.ts';

/** Names of a fault's options, as `fault add` takes them. */
export const FAULT_OPTIONS = [
  'point',
  'rate',
  'every',
  'nth',
  'burst',
  'delay',
  'jitter',
  'bits',
  'match',
  'seed',
] as const;
export type FaultOption = (typeof FAULT_OPTIONS)[number];

/** A fault's options: `tapnic fault add --help`, times in milliseconds. */
export interface FaultOptions {
  readonly point?: FaultPoint | undefined;
  readonly rate?: number | undefined;
  readonly every?: number | undefined;
  readonly nth?: number | undefined;
  readonly burst?: number | undefined;
  readonly delay?: number | undefined;
  readonly jitter?: number | undefined;
  readonly bits?: number | undefined;
  /** In the language of pcap-filter(7). */
  readonly match?: string | undefined;
  readonly seed?: number | undefined;
}

/** The same before it is checked: the values may be anything. */
export type FaultValues = Partial<Record<FaultOption, unknown>>;

/** A checked fault without the program of its filter, which is compiled from `matchText`. */
export type FaultDraft = Omit<FaultSpec, 'match'>;

function fail(message: string): never {
  throw new Error(message);
}

function oneOf<T extends string>(word: unknown, what: string, words: readonly T[]): T {
  return (
    words.find((one) => one === word) ??
    fail(`${String(word) || "''"}: no ${what}: ${words.join(', ')}`)
  );
}

/** The number in option `name`, within bounds; null if it is not given. */
function numberIn(
  values: FaultValues,
  name: FaultOption,
  min: number,
  max: number,
  whole = true,
): number | null {
  const value = values[name];
  if (value === undefined) return null;
  const ok = typeof value === 'number' && value >= min && value <= max;
  if (!ok || (whole && !Number.isInteger(value)))
    fail(`${name}: ${value as string}: not a ${whole ? 'whole ' : ''}number from ${min} to ${max}`);
  return value;
}

const DAY_MS = 86_400_000;
const COUNT_MAX = 1e9;

/** Options that only some kinds have. */
const ONLY_OF: Partial<Record<FaultOption, readonly FaultKind[]>> = {
  delay: ['delay', 'reorder'],
  jitter: ['delay', 'reorder'],
  bits: ['corrupt', 'truncate'],
};

/** Throws Error for an option that `kind` does not use. */
function checkUsed(kind: FaultKind, values: FaultValues): void {
  for (const name of FAULT_OPTIONS) {
    const kinds = ONLY_OF[name] ?? FAULT_KINDS;
    if (values[name] !== undefined && !kinds.includes(kind))
      fail(`${name}: only of ${kinds.join(' and ')}, not of ${kind}`);
  }
}

/** A BPF program made from numbers, checked. Throws Error. */
export function checkedProgram(insns: readonly (readonly number[])[]): BpfProgram {
  const prog = bpfProgram(insns);
  if (insns.length === 0 || insns.length > BPF_MAXINSNS || !bpf_validate(prog))
    fail('match: not a BPF program');
  return prog;
}

/** Checks all of a fault but its filter. Throws Error with one line that says what is wrong. */
export function faultDraft(kind: unknown, values: FaultValues, defaultSeed: number): FaultDraft {
  const k: FaultKind = oneOf(kind, 'kind of fault', FAULT_KINDS);
  checkUsed(k, values);
  const { match = null } = values;
  if (match !== null && typeof match !== 'string') fail('match: not a text');
  const rate =
    k === 'rate' ? numberIn(values, 'rate', 1, 1e12) : numberIn(values, 'rate', 0, 1, false);
  if (k === 'rate' && rate === null) fail('rate: bits per second are needed');
  const delayMs = numberIn(values, 'delay', 0, DAY_MS, false);
  const jitterMs = numberIn(values, 'jitter', 0, DAY_MS, false);
  if (k === 'delay' && delayMs === null && jitterMs === null)
    fail('delay: milliseconds are needed: delay or jitter');
  const bits =
    k === 'truncate' ? numberIn(values, 'bits', 14, 65_549) : numberIn(values, 'bits', 1, 524_288);
  return {
    kind: k,
    point: oneOf(values.point ?? 'wire', 'point', FAULT_POINTS),
    rate,
    every: numberIn(values, 'every', 1, COUNT_MAX),
    nth: numberIn(values, 'nth', 1, COUNT_MAX),
    burst: numberIn(values, 'burst', 1, COUNT_MAX),
    delayMs,
    jitterMs,
    bits,
    matchText: match,
    seed: numberIn(values, 'seed', 0, 0xffffffff) ?? defaultSeed,
  };
}

/**
 * Completes a fault with the program of its filter, which is not used without a filter. Throws
 * Error if the program is missing.
 */
export function faultSpec(draft: FaultDraft, program: BpfProgram | null): FaultSpec {
  if (draft.matchText === null) return { ...draft, match: null };
  return { ...draft, match: program ?? fail('match: its program is missing') };
}

/** Options whose value is a text. */
const TEXT_OPTIONS: readonly FaultOption[] = ['point', 'match'];

/** The value that a text stands for; a text that is not a number stays one, for `faultSpec` to refuse. */
export function faultValue(name: FaultOption, text: string): number | string {
  const isNumber = !TEXT_OPTIONS.includes(name) && /^\d+(\.\d+)?(e[+-]?\d+)?$/i.test(text);
  return isNumber ? Number(text) : text;
}

/** `drop,rate=0.01,point=rx` taken apart; a comma in a filter is written twice. Throws Error. */
export function parseFault(text: string): { kind: string; values: FaultValues } {
  const [kind, ...rest] = text.replaceAll(',,', '\0').split(',');
  const values: FaultValues = {};
  for (const part of rest) {
    const eq = part.indexOf('=');
    if (eq < 0) fail(`${part || "''"}: NAME=VALUE is needed`);
    const name = oneOf(part.slice(0, eq), 'option of a fault', FAULT_OPTIONS);
    if (values[name] !== undefined) fail(`${part}: ${name} is given twice`);
    values[name] = faultValue(name, part.slice(eq + 1).replaceAll('\0', ','));
  }
  return { kind: kind!, values };
}
