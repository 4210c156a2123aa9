/** `withFault`: a fault on a stack's wire for a part of a test. */

import type { FaultKind } from '../fault/fault.ts';
import type { AddedFault, FaultOptions, Stack } from '../machine/stack.ts';
import { TapnicError } from '../sys/errno.ts';

/** Removes the fault, unless the test has removed it or closed the stack. */
function removeLeft(stack: Stack, id: number): void {
  try {
    stack.removeFault(id);
  } catch (e) {
    if (!(e instanceof TapnicError && ['ENOENT', 'EBADF'].includes(e.code))) throw e;
  }
}

/**
 * Adds a fault, waits until it applies, runs `body` and removes the fault. Resolves with the result of `body`. Rejects
 * with its error, and as `stack.addFault` does.
 */
export async function withFault<T>(
  stack: Stack,
  kind: FaultKind,
  options: FaultOptions,
  body: (fault: AddedFault) => T | PromiseLike<T>,
): Promise<T> {
  if (typeof body !== 'function')
    throw new TapnicError('EINVAL', 'withFault', 'a function that runs under the fault is needed');
  const fault = stack.addFault(kind, options);
  await fault.ready;
  try {
    return await body(fault);
  } finally {
    removeLeft(stack, fault.id);
  }
}
