/**
 * The frames that a stack sent and received, at the point `wire` of its first NIC, in memory. The log reads the capture
 * ring when it is asked, so it has every frame that was sent before the question. Limits: LOG_BYTES and LOG_FRAMES; what
 * does not fit is an error of `frames`.
 */

import { type Capture, captureClose, captureOpen, drainCaptureRing } from '../net/capture.ts';
import { LinkStack } from '../machine/link_stack.ts';
import type { NicStack } from '../machine/nic_stack.ts';
import { hostOf, type Stack } from '../machine/stack.ts';
import { CAPTURE_OUT, CAPTURE_WIRE, type CaptureRecord } from '../sys/capture.ts';
import { TapnicError } from '../sys/errno.ts';
import { reasonCounts } from '../sys/reason.ts';
import { mem } from '../vm/arena.ts';
import { Conversations } from './conversations.ts';
import { decodeFrame } from './decode.ts';
import { type Frame, FRAMES, type FrameSource } from './frame.ts';

const LOG_BYTES = 64 << 20;
const LOG_FRAMES = 200_000;

function dropsNow(): Map<string, number> {
  return new Map(reasonCounts().map((r) => [`${r.layer}.${r.reason}`, r.count]));
}

/** The log of one stack. */
export class FrameLog implements FrameSource {
  readonly name: string;
  readonly onLink: boolean;
  readonly #capture: Capture;
  readonly #frames: Frame[] = [];
  readonly #numbers = new Conversations();
  readonly #before = dropsNow();
  #bytes = 0;
  #left = 0;
  /** When the first frame passed. */
  #start: { sec: number; nsec: number } | null = null;
  #closed = false;
  #dropsAtEnd = 0;
  /** Frames that expectFrames has compared, and when the last one of them passed. */
  compared = 0;
  comparedMs = 0;

  constructor(host: NicStack, name: string) {
    this.name = name;
    this.onLink = host instanceof LinkStack;
    const { ifp } = host.nic;
    this.#capture = captureOpen([{ point: CAPTURE_WIRE, ifp }], {}, this);
  }

  captureRecord(rec: CaptureRecord): void {
    const { sec, nsec, off, caplen, flags } = rec;
    if (this.#frames.length >= LOG_FRAMES || this.#bytes + caplen > LOG_BYTES) {
      this.#left++;
      return;
    }
    this.#bytes += caplen;
    this.#start ??= { sec, nsec };
    const timeMs = (sec - this.#start.sec) * 1e3 + (nsec - this.#start.nsec) / 1e6;
    const direction = flags === CAPTURE_OUT ? 'out' : 'in';
    const bytes = mem.slice(off, off + caplen);
    this.#frames.push(decodeFrame(bytes, direction, timeMs, this.#numbers));
  }

  frames(): readonly Frame[] {
    if (!this.#closed) drainCaptureRing();
    const lost = this.#left + this.#ringDrops;
    if (lost > 0)
      throw new TapnicError(
        'ENOBUFS',
        'frames',
        `${lost} frames of ${this.name} are not in the log: compare frames before the bulk of the traffic`,
      );
    return this.#frames;
  }

  drops(): ReadonlyMap<string, number> {
    const counts = [...dropsNow()];
    return new Map(counts.map(([name, n]) => [name, n - (this.#before.get(name) ?? 0)]));
  }

  /** Records that the ring had no room for; after the end, until the end. */
  get #ringDrops(): number {
    return this.#closed ? this.#dropsAtEnd : this.#capture.drops;
  }

  /** Ends the log. Its frames stay. */
  close(): void {
    if (this.#closed) return;
    captureClose(this.#capture);
    this.#dropsAtEnd = this.#capture.drops;
    this.#closed = true;
  }
}

/**
 * Begins the log of a stack, which the fixtures do for theirs. Returns the log of a stack that has one. Its end is that
 * of the stack. Throws TapnicError EBADF: the stack is closed.
 */
export function openLog(stack: Stack, name: string): FrameLog {
  const there = Reflect.get(stack, FRAMES) as FrameLog | undefined;
  if (there !== undefined) return there;
  // Throws EBADF if the stack is closed.
  stack.faults();
  const log = new FrameLog(hostOf(stack), name);
  Object.defineProperty(stack, FRAMES, { value: log });
  return log;
}

/** The log of a stack. Throws TapnicError EINVAL, with the name of `call`, if it has none. */
export function logOf(call: string, stack: Stack): FrameLog {
  const log: unknown = typeof stack === 'object' && stack !== null ? Reflect.get(stack, FRAMES) : 0;
  if (log instanceof FrameLog) return log;
  throw new TapnicError(
    'EINVAL',
    call,
    'this is no stack with a log of frames: pass a stack of withStack or withLink, or call watchFrames(stack) first',
  );
}
