/** The end of the process when something in it may not want to end. */

import { loadAddon } from '../../native-bindings/index.ts';
import { readsPending } from './pager.ts';

/**
 * Ends the process with `status`, after its 'exit' listeners, at once: where a read from a disk is
 * under way, Node would wait for it, however long it takes.
 */
export function exitProcess(status: number): never {
  if (readsPending() > 0) {
    process.exitCode = status;
    process.emit('exit', status);
    loadAddon().exitNow(status);
  }
  process.exit(status);
}
