/** Ends the process without waiting for pending work. */

import { loadAddon } from '../../native-bindings/index.ts';
import { readsPending } from './pager.ts';
import { poolCallsPending } from './pool_gate.ts';

/** Whether other threads of this process run stacks. */
let threads = false;

/** From now on `exitProcess` does not wait for other threads. */
export function leaveThreads(): void {
  threads = true;
}

/**
 * Runs the 'exit' listeners and ends the process with `status` immediately. Node itself would wait
 * for a call on a disk in flight, however long it takes.
 */
export function exitProcess(status: number): never {
  if (threads || readsPending() > 0 || poolCallsPending() > 0) {
    process.exitCode = status;
    process.emit('exit', status);
    loadAddon().exitNow(status);
  }
  process.exit(status);
}
