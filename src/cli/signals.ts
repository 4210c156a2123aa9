/** Handles SIGINT and SIGTERM: the first one stops in order, the second one ends the process. */

import { exitProcess } from '../host/exit.ts';

/** Returns a controller that the first signal aborts. */
export function stopOnSignal(): AbortController {
  const stopping = new AbortController();
  let signals = 0;
  const onSignal = (): void => {
    if (++signals > 1) exitProcess(1);
    stopping.abort();
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return stopping;
}
