/** A wait that its caller may stop: for the address of a NIC, by DHCP or by router advertisements. */

import type { TapnicError } from '../sys/errno.ts';

/** Ends a wait: the result, or the error. Later calls have no effect. */
export type EndWait = (result: boolean | TapnicError) => void;

/**
 * Runs `start`, which ends the wait by the function it gets, immediately or later. An abort of `stopping`
 * ends it with false; if it is aborted already, `start` does not run. `ended` runs once, at the end.
 */
export function untilStopped(
  stopping: AbortSignal | null,
  start: (end: EndWait) => void,
  ended: () => void,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    let waiting = true;
    const abort = (): void => end(false);
    const end: EndWait = (result) => {
      if (!waiting) return;
      waiting = false;
      stopping?.removeEventListener('abort', abort);
      ended();
      if (typeof result === 'boolean') resolve(result);
      else reject(result);
    };
    if (stopping?.aborted === true) return end(false);
    stopping?.addEventListener('abort', abort);
    start(end);
  });
}
