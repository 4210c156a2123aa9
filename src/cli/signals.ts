/**
 * Handles SIGINT, SIGTERM and SIGHUP (the terminal was closed): the first one stops in order, the
 * second one ends the process.
 */

import { exitProcess } from '../host/exit.ts';

/** Returns a controller that the first signal aborts. */
export function stopOnSignal(): AbortController {
  const stopping = new AbortController();
  let signals = 0;
  const onSignal = (): void => {
    if (++signals > 1) exitProcess(1);
    stopping.abort();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  return stopping;
}
