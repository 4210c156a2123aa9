/**
 * The end of an instance, as the command line promises it: FIN to every connection, RST to those
 * that are left after a second, TIME_WAIT discarded, captures flushed, the interface removed, all
 * within two seconds; then whatever the machine has not got back is a leak.
 */

import { setTimeout as sleep } from 'node:timers/promises';

/** Milliseconds for connections to end by themselves. */
const FIN_MS = 1000;
/** Milliseconds after the start of the stop at which what is still out counts as leaked. */
const LEAK_MS = 1800;
const POLL_MS = 10;

/** What is stopped, from the top down. */
export interface Stoppable {
  /** Stops accepting and sends FIN on every connection. */
  finish(): void;
  /** Connections that are not over; those in TIME_WAIT are. */
  connections(): number;
  /** Resets every connection and forgets those in TIME_WAIT. */
  reset(): void;
  /** Flushes captures, detaches the driver, removes the interface. */
  detach(): void;
  /** Pools that are not back. */
  leaked(): Record<string, number>;
}

async function until(done: () => boolean, deadline: number): Promise<boolean> {
  while (!done()) {
    if (performance.now() >= deadline) return false;
    await sleep(POLL_MS);
  }
  return true;
}

/** Carries the stop out. Resolves with what leaked, pool names to counts. */
export async function stopInstance(target: Stoppable): Promise<Record<string, number>> {
  const start = performance.now();
  target.finish();
  await until(() => target.connections() === 0, start + FIN_MS);
  target.reset();
  // The loop turns once more, so that what a reset started is done before the wire goes.
  await sleep(0);
  target.detach();
  // A read from the disk that was under way holds its pages until it ends.
  await until(() => Object.keys(target.leaked()).length === 0, start + LEAK_MS);
  return target.leaked();
}
