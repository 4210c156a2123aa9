/** `tapnic/testing`: fixtures, expectations and matchers for test suites. */

import type { Stack } from '../machine/stack.ts';
import type { Frame } from './frame.ts';
import { logOf, openLog } from './frame_log.ts';

export type { FilterName, Ignore } from './chatter.ts';
export { expectFrames, type ExpectFramesOptions, FrameMismatch } from './expect_frames.ts';
export type { FixtureOptions, TestFunction } from './fixture.ts';
export type { ArpFields, Frame, IcmpFields, Protocol, TcpFields } from './frame.ts';
export { frameText } from './frame_text.ts';
export { expectCapture, type ExpectCaptureOptions } from './golden.ts';
export { type MatcherResult, matchers, tapnicChai, type TapnicMatchers } from './matchers.ts';
export type { FrameLike, FramePattern } from './pattern.ts';
export { withFault } from './with_fault.ts';
export { type LinkTest, withLink, type WithLinkOptions } from './with_link.ts';
export { type StackTest, withStack, type WithStackOptions } from './with_stack.ts';

/**
 * Begins the log of frames of a stack that no fixture created, which expectFrames and the matchers read. Throws
 * TapnicError EBADF: the stack is closed.
 */
export function watchFrames(stack: Stack, name = 'stack'): void {
  openLog(stack, name);
}

/** The frames of a stack since its fixture began. Throws TapnicError EINVAL: it has no log; ENOBUFS: frames are missing. */
export function framesOf(stack: Stack): readonly Frame[] {
  return logOf('framesOf', stack).frames();
}
