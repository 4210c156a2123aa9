/**
 * Stops an instance within two seconds, as the command line promises: send FIN on every connection,
 * send RST on those left after a second, discard TIME_WAIT, flush captures, remove the interface.
 * Resources that the machine still misses after that are leaks.
 */

import { setTimeout as sleep } from 'node:timers/promises';

/** Milliseconds that connections have to close normally. */
const FIN_MS = 1000;
/** Milliseconds after the start of the stop when missing resources count as leaked. */
const LEAK_MS = 1800;
const POLL_MS = 10;

/** The stop steps of an instance, in the order of the calls. */
interface Stoppable {
  /** Stops accepting and sends FIN on every connection. */
  finish(): void;
  /** Number of open connections, without those in TIME_WAIT. */
  connections(): number;
  /**
   * Resets every connection, discards those in TIME_WAIT and releases the address. Returns the
   * milliseconds that a peer needs to receive what was sent before the interface is removed.
   */
  reset(): number;
  /** Starts to flush captures, detaches the driver, removes the interface. */
  detach(): void;
  /** Whether the captures are written and closed. */
  flushed(): boolean;
  /** Drops what captures have not written. */
  abandon(): void;
  /** Number of missing items of each pool that is not complete. */
  leaked(): Record<string, number>;
}

async function until(done: () => boolean, deadline: number, pollMs = POLL_MS): Promise<boolean> {
  while (!done()) {
    if (performance.now() >= deadline) return false;
    await sleep(pollMs);
  }
  return true;
}

/** Waits until `done`, for at most `ms` milliseconds; returns whether it was. */
export function doneWithin(ms: number, done: () => boolean): Promise<boolean> {
  return until(done, performance.now() + ms, 1);
}

/** Stops the instance. Resolves with the leaks: pool names to counts. */
export async function stopInstance(target: Stoppable): Promise<Record<string, number>> {
  const start = performance.now();
  target.finish();
  await until(() => target.connections() === 0, start + FIN_MS);
  // Wait at least one turn of the loop, so that the work of the resets completes before the wire is
  // removed.
  await sleep(target.reset());
  target.detach();
  // A disk read in flight holds its pages until it completes. A capture may have a slow reader.
  await until(() => target.flushed() && Object.keys(target.leaked()).length === 0, start + LEAK_MS);
  target.abandon();
  return target.leaked();
}
