/** `serve`: serves a directory over HTTP/1.1 from the emulated host until a signal. */

import { accessSync, constants, existsSync, readdirSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import type { Command } from 'commander';
import { CliError, newCommand, print, printError, printJson } from './command.ts';
import { aborted, ownOption, runNicCommand } from './nic_command.ts';
import { addNicFlags, type RawFlags } from './nic_flags.ts';
import { wholeNumber } from './numbers.ts';

const DEFAULT_PORT = 80;

function checkDirectory(dir: string): void {
  let isDirectory = false;
  try {
    isDirectory = statSync(dir).isDirectory();
    if (isDirectory) accessSync(dir, constants.R_OK | constants.X_OK);
  } catch (e) {
    const code = (e as NodeJS.ErrnoException).code ?? String(e);
    throw new CliError(`${dir}: ${code}: give a directory that exists and can be read`);
  }
  if (!isDirectory) throw new CliError(`${dir}: ENOTDIR: not a directory`);
}

/**
 * Whether this process is the main process of a container. Container engines create these files,
 * and the main process, or the engine's init before it, has pid 1. A user with a shell in the
 * container needs no `docker exec`.
 */
const isContainer = (): boolean =>
  (process.pid === 1 || process.ppid === 1) &&
  (existsSync('/.dockerenv') || existsSync('/run/.containerenv'));

/**
 * Returns a command that fetches a served file. The URL is reachable only from the TAP's namespace.
 */
function fetchHint(dir: string, url: string, netns: string | null): string {
  const file = readdirSync(dir, { withFileTypes: true }).find((entry) => entry.isFile())?.name;
  const command = `curl -sSO ${url}${encodeURIComponent(file ?? '')}`;
  // The host name is the start of the container's id, which an engine accepts as its name.
  const prefix = isContainer()
    ? `docker exec ${hostname()} `
    : netns === null
      ? ''
      : `ip netns exec ${netns} `;
  return `fetch it: ${prefix}${command}\n`;
}

function serve(dir: string, raw: RawFlags): Promise<void> {
  let port = DEFAULT_PORT;
  return runNicCommand(raw, {
    own: ['port'],
    check(own) {
      port = ownOption(own, 'port', String(DEFAULT_PORT), (text) => wholeNumber(text, 1, 65535));
      checkDirectory(dir);
    },
    async run(instance, stopping) {
      const url = await instance.serve(dir, port);
      const ready = { ...instance.ready(), url };
      if (raw['json'] === true) printJson(ready);
      else {
        print(
          `serving ${dir} at ${url} (${ready.tap} <-> ${ready.if}, seed ${ready.seed}, ` +
            `control ${ready.control})\n`,
        );
        printError(fetchHint(dir, url, ready.netns));
      }
      await aborted(stopping);
      return 0;
    },
  });
}

export const serveCommand: Command = addNicFlags(
  newCommand('serve')
    .description('serve a directory over HTTP from the emulated host')
    .argument('<dir>', 'directory to serve')
    .option('--port <n>', `TCP port (default: ${DEFAULT_PORT})`),
).action(serve);
