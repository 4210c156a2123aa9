/** `serve`: a directory over HTTP/1.1 from the emulated host, until a signal. */

import { statSync } from 'node:fs';
import type { Command } from 'commander';
import { CliError, newCommand, print, printJson, UsageError } from './command.ts';
import { addNicFlags, type RawFlags } from './nic_flags.ts';

const DEFAULT_PORT = 80;

function checkDirectory(dir: string): void {
  let isDirectory = false;
  try {
    isDirectory = statSync(dir).isDirectory();
  } catch (e) {
    const code = (e as NodeJS.ErrnoException).code ?? String(e);
    throw new CliError(`${dir}: ${code}: give a directory that exists and can be read`);
  }
  if (!isDirectory) throw new CliError(`${dir}: ENOTDIR: not a directory`);
}

async function serve(dir: string, raw: RawFlags): Promise<void> {
  // Signals count from the beginning: a stop asked for while starting is carried out after it.
  let stopRequested: () => void = () => undefined;
  const stopping = new Promise<void>((resolve) => (stopRequested = resolve));
  let signals = 0;
  const onSignal = (): void => {
    if (++signals > 1) process.exit(1);
    stopRequested();
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);

  const [{ resolveNicOptions, wholeNumber }, { Instance, models }] = await Promise.all([
    import('./nic_options.ts'),
    import('./instance.ts'),
  ]);
  const settings = resolveNicOptions(raw, models, ['port']);
  let port = DEFAULT_PORT;
  try {
    port = wholeNumber(settings.own['port'] ?? String(DEFAULT_PORT), 1, 65535);
  } catch (e) {
    throw new UsageError(`--port: ${(e as Error).message}`);
  }
  checkDirectory(dir);

  const json = raw['json'] === true;
  const instance = await Instance.open(settings, json);
  try {
    const url = instance.serve(dir, port);
    const ready = { ...instance.ready(), url };
    if (json) printJson(ready);
    else
      print(
        `serving ${dir} at ${url} (${ready.tap} <-> ${ready.if}, seed ${ready.seed}, ` +
          `control ${ready.control})\n`,
      );
    await stopping;
  } catch (e) {
    await instance.stop();
    throw e;
  }
  const leaked = await instance.stop();
  const clean = Object.keys(leaked).length === 0;
  if (json) printJson({ event: 'exit', leaked });
  if (!clean) instance.log.error({ leaked }, 'leaked');
  // What is left on the loop, such as a slow read from a disk, is not waited for.
  process.exit(clean ? 0 : 1);
}

export const serveCommand: Command = addNicFlags(
  newCommand('serve')
    .description('serve a directory over HTTP from the emulated host')
    .argument('<dir>', 'directory to serve')
    .option('--port <n>', `TCP port (default: ${DEFAULT_PORT})`),
).action(serve);
