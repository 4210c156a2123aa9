/** `expectFrames`: exactly these frames in this order, then silence. */

import { inspect } from 'node:util';
import { realTimers } from '../host/real_timers.ts';
import type { Link } from '../machine/link.ts';
import type { Stack } from '../machine/stack.ts';
import { TapnicError } from '../sys/errno.ts';
import { filterOf, type Ignore } from './chatter.ts';
import type { Frame } from './frame.ts';
import { type FrameLog, logOf } from './frame_log.ts';
import { frameText } from './frame_text.ts';
import {
  differenceOf,
  type FrameLike,
  type FramePattern,
  patternOf,
  patternText,
  timeDifferenceOf,
} from './pattern.ts';
import { sideBySide } from './side_by_side.ts';

/** Options of expectFrames. */
export interface ExpectFramesOptions {
  /** Frames that do not count. An expected frame always counts. Default `chatter`. */
  readonly ignore?: Ignore;
  /**
   * On a link: virtual time that passes before the frames are compared; default: until the network is quiet. In real
   * time: how long to wait for the frames; default 2000.
   */
  readonly withinMs?: number;
  /** In real time: how long no other frame may follow. Default 50. */
  readonly quietMs?: number;
}

/** Frames are not the expected ones. The message shows both. */
export class FrameMismatch extends Error {
  override readonly name = 'FrameMismatch';
  readonly code = 'ERR_ASSERTION';
}

/** The links of stacks whose time is virtual. */
export const virtualLinks = new WeakMap<Stack, Link>();

const CALL = 'expectFrames';
const WITHIN_MS = 2000;
const QUIET_MS = 50;
const POLL_MS = 5;

const ARROWS = { out: '>', in: '<' } as const;

/** The frames of a comparison. */
interface Compared {
  readonly counted: readonly Frame[];
  /** Numbers of ignored frames by the filter's name. */
  readonly ignored: ReadonlyMap<string, number>;
  /** Frames of the log that were looked at. */
  readonly until: number;
}

/** Selects the frames that count, from those that no call has compared. */
class Selection {
  readonly #log: FrameLog;
  readonly #patterns: readonly FramePattern[];
  readonly #filter: (frame: Frame) => string | null;
  readonly #directions: ReadonlySet<string>;

  constructor(log: FrameLog, patterns: readonly FramePattern[], ignore: Ignore) {
    this.#log = log;
    this.#patterns = patterns;
    this.#filter = filterOf(CALL, ignore);
    const named = patterns.map(({ direction }) => direction);
    const all = named.length === 0 || named.includes(undefined);
    this.#directions = new Set(all ? ['in', 'out'] : (named as string[]));
  }

  /** Whether a pattern of the frame's protocol matches it. */
  #expected(frame: Frame): boolean {
    return this.#patterns.some(
      (pattern) => pattern.protocol === frame.protocol && differenceOf(frame, pattern) === null,
    );
  }

  now(): Compared {
    const frames = this.#log.frames();
    const ignored = new Map<string, number>();
    const counted = frames.slice(this.#log.compared).filter((frame) => {
      if (!this.#directions.has(frame.direction)) return false;
      const by = this.#filter(frame);
      if (by === null || this.#expected(frame)) return true;
      ignored.set(by, (ignored.get(by) ?? 0) + 1);
      return false;
    });
    return { counted, ignored, until: frames.length };
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => realTimers.setTimeout(resolve, ms));
}

/** Waits in real time until `wanted` frames have passed and none follows. */
async function waitReal(
  selection: Selection,
  wanted: number,
  withinMs: number,
  quietMs: number,
): Promise<void> {
  const start = realTimers.now();
  let n = selection.now().counted.length;
  let changed = start;
  for (;;) {
    const now = realTimers.now();
    if (n > wanted || (n === wanted && now - changed >= quietMs)) return;
    if (n < wanted && now - start >= withinMs) return;
    await sleep(POLL_MS);
    const { counted } = selection.now();
    if (counted.length !== n) changed = realTimers.now();
    n = counted.length;
  }
}

/** How a frame differs from its pattern; null: it does not. */
function difference(
  frames: readonly Frame[],
  i: number,
  pattern: FramePattern,
  startMs: number,
): string | null {
  const frame = frames[i]!;
  const before = i === 0 ? startMs : frames[i - 1]!.timeMs;
  return differenceOf(frame, pattern) ?? timeDifferenceOf(pattern, frame.timeMs - before);
}

/** The first difference in words; null: the frames are those of the patterns. */
function firstDifference(
  { counted }: Compared,
  patterns: readonly FramePattern[],
  startMs: number,
): string | null {
  for (const [i, pattern] of patterns.entries()) {
    if (i >= counted.length) return `frame ${i + 1} is missing`;
    const found = difference(counted, i, pattern, startMs);
    if (found !== null) return `frame ${i + 1}: ${found}`;
  }
  if (counted.length === patterns.length) return null;
  return `frame ${patterns.length + 1} is one too many`;
}

function framesText(n: number): string {
  return `${n} frame${n === 1 ? '' : 's'}`;
}

function mismatch(
  name: string,
  why: string,
  { counted, ignored }: Compared,
  patterns: readonly FramePattern[],
  lines: readonly FrameLike[],
): FrameMismatch {
  const expected = patterns.map((pattern, i) => {
    const arrow = pattern.direction === undefined ? '*' : ARROWS[pattern.direction];
    const line = lines[i]!;
    return `${arrow} ${patternText(pattern)}${typeof line === 'string' ? '' : ' (object)'}`;
  });
  const actual = counted.map(
    (frame) => `${ARROWS[frame.direction]} ${frame.timeMs.toFixed(3)} ${frameText(frame)}`,
  );
  const equal = (i: number, j: number): boolean => differenceOf(counted[j]!, patterns[i]!) === null;
  const left = [...ignored].map(([by, n]) => `${n} ${by}`).join(', ');
  return new FrameMismatch(
    [
      `${name}: ${framesText(patterns.length)} expected, ${counted.length} passed: ${why}`,
      sideBySide(expected, actual, equal),
      ...(left === '' ? [] : [`ignored: ${left}`]),
    ].join('\n'),
  );
}

function checkTimes(options: ExpectFramesOptions): void {
  for (const key of ['withinMs', 'quietMs'] as const) {
    const value: unknown = options[key];
    if (value !== undefined && !(typeof value === 'number' && value >= 0))
      throw new TapnicError('EINVAL', CALL, `${key}: ${inspect(value)}: milliseconds are needed`);
  }
}

/**
 * Checks that the stack sent and received exactly `expected` since the fixture began, or since the last call, at its point
 * `wire`, and nothing after. If all lines have one direction, frames of the other do not count. Rejects with FrameMismatch,
 * whose message has expected and actual frames side by side, and with TapnicError EINVAL: a line or an option is wrong, or
 * the stack has no log of frames.
 */
export async function expectFrames(
  stack: Stack,
  expected: readonly FrameLike[],
  options: ExpectFramesOptions = {},
): Promise<void> {
  const log = logOf(CALL, stack);
  if (!Array.isArray(expected))
    throw new TapnicError('EINVAL', CALL, 'an array of lines and objects is needed');
  const patterns = (expected as readonly FrameLike[]).map((like) => patternOf(CALL, like));
  checkTimes(options);
  const link = virtualLinks.get(stack) ?? null;
  if (link === null && patterns.some(({ afterMs }) => afterMs !== undefined))
    throw new TapnicError('EINVAL', CALL, 'times of frames need the virtual time of withLink');
  const selection = new Selection(log, patterns, options.ignore ?? 'chatter');
  const { withinMs, quietMs = QUIET_MS } = options;
  if (link === null) await waitReal(selection, patterns.length, withinMs ?? WITHIN_MS, quietMs);
  else if (withinMs === undefined) await link.settle();
  else await link.advance(withinMs);
  const compared = selection.now();
  const why = firstDifference(compared, patterns, log.comparedMs);
  if (why !== null) throw mismatch(log.name, why, compared, patterns, expected);
  log.compared = compared.until;
  log.comparedMs = compared.counted.at(-1)?.timeMs ?? log.comparedMs;
}
