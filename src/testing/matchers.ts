/**
 * Matchers of vitest and jest, and a plugin of chai. `expect.extend(matchers)`, `chai.use(tapnicChai)`. Also compiled as
 * CommonJS.
 */

import { inspect } from 'node:util';
import { TapnicError } from '../sys/errno.ts';
import { type Frame, FRAMES, type FrameSource } from './frame.ts';
import { frameText } from './frame_text.ts';
import { differenceOf, type FrameLike, patternOf, patternText } from './pattern.ts';

export type { Frame } from './frame.ts';
export type { FrameLike, FramePattern } from './pattern.ts';

/** The result of a matcher. */
export interface MatcherResult {
  readonly pass: boolean;
  readonly message: () => string;
}

/** The matchers as methods of `expect(…)`, for declarations: see docs/testing-kit.md. */
export interface TapnicMatchers {
  /** The stack has sent such a frame since its fixture began. */
  toHaveSentFrame(frame: FrameLike): void;
  /** The stack has dropped for that reason, at least once or `times` times; `LAYER.NAME` or NAME. */
  toHaveDropped(reason: string, times?: number): void;
  /** Closes a stack or link and finds no leak; or: the result of a `close` is empty. */
  toBeLeakFree(): Promise<void>;
}

/** Frames that a message shows. */
const SHOWN_MAX = 50;

function sourceOf(matcher: string, received: unknown): FrameSource {
  const source: unknown =
    typeof received === 'object' && received !== null ? Reflect.get(received, FRAMES) : undefined;
  if (source !== undefined) return source as FrameSource;
  throw new TapnicError(
    'EINVAL',
    matcher,
    'expect(…) needs a stack of withStack or withLink, or call watchFrames(stack) first',
  );
}

function listOf(frames: readonly Frame[]): string {
  const shown = frames.slice(-SHOWN_MAX).map((f) => `  ${f.timeMs.toFixed(3)} ${frameText(f)}`);
  const left = frames.length - shown.length;
  if (left > 0) shown.unshift(`  (${left} frames before)`);
  return shown.length === 0 ? '  (none)' : shown.join('\n');
}

function toHaveSentFrame(received: unknown, like: FrameLike): MatcherResult {
  const source = sourceOf('toHaveSentFrame', received);
  const pattern = patternOf('toHaveSentFrame', like);
  if (pattern.direction === 'in')
    throw new TapnicError('EINVAL', 'toHaveSentFrame', 'a frame that was sent begins with `>`');
  if (pattern.afterMs !== undefined)
    throw new TapnicError('EINVAL', 'toHaveSentFrame', 'only expectFrames compares times');
  const sent = source.frames().filter(({ direction }) => direction === 'out');
  const pass = sent.some((frame) => differenceOf(frame, pattern) === null);
  return {
    pass,
    message: () =>
      `${source.name} ${pass ? 'has' : 'has not'} sent: ${patternText(pattern)}\n` +
      `It sent:\n${listOf(sent)}`,
  };
}

/** The full name of a reason. */
function reasonOf(drops: ReadonlyMap<string, number>, reason: string): string {
  if (drops.has(reason)) return reason;
  const names = [...drops.keys()];
  const found = names.filter((name) => name.endsWith(`.${reason}`));
  if (found.length === 1) return found[0]!;
  const hint =
    found.length > 1
      ? `${reason}: which of ${found.join(', ')}?`
      : `${inspect(reason)}: no reason of \`netstat -s\`: ${names.join(', ')}`;
  throw new TapnicError('EINVAL', 'toHaveDropped', hint);
}

function toHaveDropped(received: unknown, reason: string, times?: number): MatcherResult {
  const source = sourceOf('toHaveDropped', received);
  const drops = source.drops();
  const name = reasonOf(drops, reason);
  if (times !== undefined && !(Number.isInteger(times) && times >= 0))
    throw new TapnicError('EINVAL', 'toHaveDropped', `${times}: a number of times is needed`);
  const n = drops.get(name)!;
  const pass = times === undefined ? n > 0 : n === times;
  const counted = [...drops].filter(([, count]) => count > 0).map(([key, k]) => `  ${k} ${key}`);
  const wanted = times === undefined ? '' : `, not ${times}`;
  return {
    pass,
    message: () =>
      `${source.name} counted ${name} ${n} times${pass ? '' : wanted}\n` +
      `It counted:\n${counted.join('\n') || '  (nothing)'}`,
  };
}

/** An object that can be closed and then gives its leaks. */
interface Closable {
  close(): Promise<Record<string, number>>;
}

function leakResult(leaked: Record<string, number>): MatcherResult {
  const items = Object.entries(leaked).map(([pool, n]) => `${n} ${pool}`);
  const pass = items.length === 0;
  return { pass, message: () => (pass ? 'nothing leaked' : `leaked: ${items.join(', ')}`) };
}

function toBeLeakFree(received: unknown): MatcherResult | Promise<MatcherResult> {
  if (typeof received !== 'object' || received === null)
    throw new TapnicError('EINVAL', 'toBeLeakFree', 'expect(…) needs a stack, a link or its leaks');
  const source = Reflect.get(received, FRAMES) as FrameSource | undefined;
  if (source?.onLink === true)
    throw new TapnicError('EINVAL', 'toBeLeakFree', "leaks are the link's: use expect(link)");
  if (typeof Reflect.get(received, 'close') === 'function')
    return (received as Closable).close().then(leakResult);
  return leakResult(received as Record<string, number>);
}

/** For `expect.extend`. */
export const matchers = { toHaveSentFrame, toHaveDropped, toBeLeakFree };

/** What the plugin uses of chai. */
interface ChaiStatic {
  readonly Assertion: {
    addMethod(name: string, method: (this: ChaiAssertion, ...args: never[]) => unknown): void;
  };
}

interface ChaiAssertion {
  readonly _obj: unknown;
  assert(pass: boolean, message: string, negated: string): void;
}

/** For `chai.use`: the same matchers, as methods of an assertion. */
export function tapnicChai(chai: ChaiStatic): void {
  for (const [name, matcher] of Object.entries(matchers)) {
    const check = (assertion: ChaiAssertion, { pass, message }: MatcherResult): void =>
      // chai replaces #{this} and others.
      assertion.assert(pass, message().replaceAll('#{', '# {'), message().replaceAll('#{', '# {'));
    chai.Assertion.addMethod(name, function (this: ChaiAssertion, ...args: never[]) {
      const result = (matcher as (received: unknown, ...rest: never[]) => unknown)(
        this._obj,
        ...args,
      );
      if (result instanceof Promise)
        return result.then((settled: MatcherResult) => check(this, settled));
      return check(this, result as MatcherResult);
    });
  }
}
