/** `serve`: serves a directory over HTTP/1.1 from the emulated host until a signal. */

import {
  accessSync,
  constants,
  existsSync,
  opendirSync,
  readFileSync,
  realpathSync,
  statSync,
} from 'node:fs';
import { hostname } from 'node:os';
import type { Command } from 'commander';
import { DEFAULT_LIMITS, type Limits } from '../apps/http/limits.ts';
import { percentEncoded } from '../apps/http/url_path.ts';
import { CliError, newCommand, print, printError, printJson, UsageError } from './command.ts';
import { aborted, ownOption, runNicCommand } from './nic_command.ts';
import type { ServeJob } from './serve_app.ts';
import { addNicFlags, type OwnTexts, type RawFlags } from './nic_flags.ts';
import { decimalNumber, wholeNumber } from './numbers.ts';

const DEFAULT_PORT = 80;
/** The largest number of workers: the addon's. Linux allows 256 queues. */
const WORKERS_MAX = 64;

function checkDirectory(dir: string): void {
  if (dir === '') throw new UsageError("'': the name of a directory is needed");
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

/** The absolute path of `dir`. Throws CliError: a relative path needs the current directory. */
function realPath(dir: string): string {
  try {
    return realpathSync(dir);
  } catch (e) {
    const code = (e as NodeJS.ErrnoException).code ?? String(e);
    throw new CliError(`${dir}: ${code}: the current directory was removed: give an absolute path`);
  }
}

/**
 * Returns the words that run a command in this container, null if this process is not the main process
 * of a container with a known name. Container engines create these files,
 * and the main process, or the engine's init before it, has pid 1. A user with a shell in the
 * container needs no `docker exec`.
 */
function containerPrefix(): string | null {
  // The host name is the start of the container's id, which an engine accepts as its name, unless the
  // container was started with another host name.
  const id = hostname();
  if (!/^[0-9a-f]{12}$/.test(id)) return null;
  if (process.pid !== 1 && !(process.ppid === 1 && ENGINE_INITS.has(initName()))) return null;
  if (existsSync('/run/.containerenv')) return `podman exec ${id} `;
  return existsSync('/.dockerenv') ? `docker exec ${id} ` : null;
}

/** The inits that container engines put in front of a container's main process. */
const ENGINE_INITS = new Set(['docker-init', 'tini', 'catatonit', 'dumb-init']);

function initName(): string {
  try {
    return readFileSync('/proc/1/comm', 'utf8').trim();
  } catch {
    return '';
  }
}

/** Number of directory entries searched for an example. */
const EXAMPLE_MAX = 200;

function readable(dir: string, name: string): boolean {
  try {
    accessSync(
      Buffer.concat([Buffer.from(`${dir}/`), Buffer.from(name, 'latin1')]),
      constants.R_OK,
    );
    return true;
  } catch {
    return false;
  }
}

/**
 * The name of a regular file in `dir`, one character for each byte; '' if the first entries have none.
 */
function exampleIn(dir: string): string {
  const entries = opendirSync(dir, { encoding: 'latin1' });
  try {
    for (let i = 0; i < EXAMPLE_MAX; i++) {
      const entry = entries.readSync();
      if (entry === null) break;
      if (entry.isFile() && readable(dir, entry.name)) return entry.name;
    }
    return '';
  } finally {
    entries.closeSync();
  }
}

/**
 * Returns a command that fetches a served file. The URL is reachable only from the TAP's namespace.
 */
function fetchHint(
  file: string,
  url: string,
  netns: string | null,
  container: string | null,
): string {
  // No character of the URL has a meaning for a shell.
  const path = percentEncoded(file).replace(/[!'()*~]/g, hexEncoded);
  const command = `curl ${file === '' ? '-sS' : '-sSO'} ${url}${path}`;
  const prefix = container ?? (netns === null ? '' : `ip netns exec ${shellWord(netns)} `);
  return `fetch it: ${prefix}${command}\n`;
}

const hexEncoded = (c: string): string => `%${c.charCodeAt(0).toString(16).toUpperCase()}`;

/** Quotes a word for a shell, if necessary. */
function shellWord(text: string): string {
  return /^[\w.,:@%+=/-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** Milliseconds of an option in seconds. */
function timeout(own: OwnTexts, name: string, fallbackMs: number): number {
  const seconds = ownOption(own, name, String(fallbackMs / 1000), (text) =>
    decimalNumber(text, 0.1, 86400),
  );
  return Math.round(seconds * 1000);
}

/** How much longer than a request's head its body may take, ms. */
const BODY_MS = DEFAULT_LIMITS.requestMs - DEFAULT_LIMITS.headMs;

function limitsOf(own: OwnTexts): Limits {
  const { connections, headMs, idleMs, stallMs } = DEFAULT_LIMITS;
  const head = timeout(own, 'header-timeout', headMs);
  return {
    connections: ownOption(own, 'max-connections', String(connections), (text) =>
      wholeNumber(text, 1, 65535),
    ),
    headMs: head,
    requestMs: head + BODY_MS,
    idleMs: timeout(own, 'idle-timeout', idleMs),
    stallMs: timeout(own, 'send-timeout', stallMs),
  };
}

function serve(dir: string, raw: RawFlags): Promise<void> {
  let job: ServeJob = { dir, port: DEFAULT_PORT, limits: DEFAULT_LIMITS };
  let workers = 1;
  let example = '';
  let container: string | null = null;
  return runNicCommand(raw, {
    own: ['port', 'workers', 'max-connections', 'header-timeout', 'idle-timeout', 'send-timeout'],
    // Synchronous file system calls run here, before the host is up.
    check(own) {
      const port = ownOption(own, 'port', String(DEFAULT_PORT), (text) =>
        wholeNumber(text, 1, 65535),
      );
      workers = ownOption(own, 'workers', '1', (text) => wholeNumber(text, 1, WORKERS_MAX));
      const limits = limitsOf(own);
      checkDirectory(dir);
      const real = realPath(dir);
      job = { dir: real, port, limits };
      example = exampleIn(real);
      container = containerPrefix();
    },
    workers: () => (workers === 1 ? null : { workers, serve: job }),
    async run(instance, stopping) {
      const { url, url6 } = await instance.serve(job);
      const ready = { ...instance.ready(), url, url6 };
      const urls = [url, url6].filter((text) => text !== null);
      if (raw['json'] === true) printJson(ready);
      else {
        print(
          `serving ${dir} at ${urls.join(' and ') || 'no address'} (${ready.tap} <-> ${ready.if}${workers === 1 ? '' : `, ${workers} workers`}, seed ${ready.seed}, ` +
            `control ${ready.control})\n`,
        );
        if (urls.length > 0) printError(fetchHint(example, urls[0]!, ready.netns, container));
      }
      await aborted(stopping);
      return 0;
    },
  });
}

const seconds = (ms: number): string => `${ms / 1000} s`;

export const serveCommand: Command = addNicFlags(
  newCommand('serve')
    .description('serve a directory over HTTP from the emulated host')
    .argument('<dir>', 'directory to serve')
    .option('--port <n>', `TCP port (default: ${DEFAULT_PORT})`)
    .option(
      '--workers <n>',
      `stacks that share the connections, each in a thread with its part of --memory, at least 16M (default: 1)`,
    )
    .option(
      '--max-connections <n>',
      `connections at a time (default: ${DEFAULT_LIMITS.connections})`,
    )
    .option(
      '--header-timeout <s>',
      `to the end of a request's header (default: ${seconds(DEFAULT_LIMITS.headMs)})`,
    )
    .option(
      '--idle-timeout <s>',
      `to the next request (default: ${seconds(DEFAULT_LIMITS.idleMs)})`,
    )
    .option(
      '--send-timeout <s>',
      `without progress of a response (default: ${seconds(DEFAULT_LIMITS.stallMs)})`,
    ),
).action(serve);
