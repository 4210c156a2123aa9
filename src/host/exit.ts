/** Ends the process without waiting for pending work. */

import { loadAddon } from '../../native-bindings/index.ts';
import { readsPending } from './pager.ts';
import { poolCallsPending } from './pool_gate.ts';

/**
 * Runs the 'exit' listeners and ends the process with `status` immediately. Node itself would wait
 * for a call on a disk in flight, however long it takes.
 */
export function exitProcess(status: number): never {
  if (readsPending() > 0 || poolCallsPending() > 0) {
    process.exitCode = status;
    process.emit('exit', status);
    loadAddon().exitNow(status);
  }
  process.exit(status);
}
