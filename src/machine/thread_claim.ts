/** One machine exists per thread, because it is module state: who has it. */

import { readsPending } from '../host/pager.ts';
import { TapnicError } from '../sys/errno.ts';

let claimed = false;

/**
 * Claims the thread for a machine. Returns a function that releases it, which may be called again.
 * Throws TapnicError EBUSY: it has a machine already, or disk reads of the last one are pending.
 * @param call for the message: `createStack`, `createLink`
 */
export function claimThread(call: string): () => void {
  if (claimed)
    throw new TapnicError(
      'EBUSY',
      call,
      'a stack or a link is open in this thread: close it first, or use a worker for another one',
    );
  // Pending reads write to the memory of the previous machine.
  if (readsPending() > 0)
    throw new TapnicError(
      'EBUSY',
      call,
      'disk reads of the last stack are still pending: try again later',
    );
  claimed = true;
  let mine = true;
  return () => {
    if (mine) claimed = false;
    mine = false;
  };
}
