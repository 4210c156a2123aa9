/** Makes a fault from the texts of a command line, a file or a program. */

import { bpf_validate, BPF_MAXINSNS, bpfProgram, type BpfProgram } from '../sys/bpf_filter.ts';
import { FAULT_KINDS, FAULT_POINTS, type FaultKind, type FaultSpec } from './fault.ts';

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
export type FaultTexts = Partial<Record<FaultOption, string>>;

/** Compiles a filter expression; throws Error with one line. */
export type CompileFilter = (expression: string) => BpfProgram;

function fail(message: string): never {
  throw new Error(message);
}

function oneOf<T extends string>(word: string, what: string, words: readonly T[]): T {
  return words.find((one) => one === word) ?? fail(`${word}: no ${what}: ${words.join(', ')}`);
}

/** The number in option `name`, within bounds; null if it is not given. */
function numberIn(
  texts: FaultTexts,
  name: FaultOption,
  min: number,
  max: number,
  whole = true,
): number | null {
  const text = texts[name];
  if (text === undefined) return null;
  const value = /^\d+(\.\d+)?(e[+-]?\d+)?$/i.test(text) ? Number(text) : NaN;
  if (!(value >= min && value <= max) || (whole && !Number.isInteger(value)))
    fail(`${name}: ${text}: not a ${whole ? 'whole ' : ''}number from ${min} to ${max}`);
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
function heeded(kind: FaultKind, texts: FaultTexts): void {
  for (const name of FAULT_OPTIONS) {
    const kinds = ONLY_OF[name] ?? FAULT_KINDS;
    if (texts[name] !== undefined && !kinds.includes(kind))
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

/**
 * Makes a fault from its texts. Throws Error with one line that says what is wrong.
 * @param compile compiles `match`, or is its compiled program
 */
export function faultSpec(
  kind: string,
  texts: FaultTexts,
  defaultSeed: number,
  compile: CompileFilter | BpfProgram,
): FaultSpec {
  const k: FaultKind = oneOf(kind, 'kind of fault', FAULT_KINDS);
  heeded(k, texts);
  const { match } = texts;
  const rate =
    k === 'rate' ? numberIn(texts, 'rate', 1, 1e12) : numberIn(texts, 'rate', 0, 1, false);
  if (k === 'rate' && rate === null) fail('rate: bits per second are needed');
  const delayMs = numberIn(texts, 'delay', 0, DAY_MS, false);
  const jitterMs = numberIn(texts, 'jitter', 0, DAY_MS, false);
  if (k === 'delay' && delayMs === null && jitterMs === null)
    fail('delay: milliseconds are needed: delay or jitter');
  const bits =
    k === 'truncate' ? numberIn(texts, 'bits', 14, 65_549) : numberIn(texts, 'bits', 1, 524_288);
  return {
    kind: k,
    point: oneOf(texts.point ?? 'wire', 'point', FAULT_POINTS),
    rate,
    every: numberIn(texts, 'every', 1, COUNT_MAX),
    nth: numberIn(texts, 'nth', 1, COUNT_MAX),
    burst: numberIn(texts, 'burst', 1, COUNT_MAX),
    delayMs,
    jitterMs,
    bits,
    match: match === undefined ? null : compile instanceof Uint32Array ? compile : compile(match),
    matchText: match ?? null,
    seed: numberIn(texts, 'seed', 0, 0xffffffff) ?? defaultSeed,
  };
}

/** `drop,rate=0.01,point=rx` as kind and texts; a comma in a filter is written twice. Throws Error. */
export function faultTexts(text: string): { kind: string; texts: FaultTexts } {
  const [kind, ...rest] = text.replaceAll(',,', '\0').split(',');
  const texts: FaultTexts = {};
  for (const part of rest) {
    const eq = part.indexOf('=');
    if (eq < 0) fail(`${part}: NAME=VALUE is needed`);
    const name = oneOf(part.slice(0, eq), 'option of a fault', FAULT_OPTIONS);
    if (texts[name] !== undefined) fail(`${part}: ${name} is given twice`);
    texts[name] = part.slice(eq + 1).replaceAll('\0', ',');
  }
  return { kind: kind!, texts };
}
