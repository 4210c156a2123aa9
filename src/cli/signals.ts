/** SIGINT and SIGTERM: the first one asks for an orderly end, the second one ends the process. */

import { exitProcess } from '../host/exit.ts';

/** A controller whose signal is aborted by the first of them. */
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
