/**
 * The client of the control socket: finds the instance, sends requests, adds the shared options.
 */

import { connect } from 'node:net';
import { join } from 'node:path';
import type { Command } from 'commander';
import { parseResponse, RESPONSE_MAX } from '../ctl/protocol.ts';
import { CliError } from './command.ts';
import { closedDirs, controlDirs, controlName, findSockets } from './control_path.ts';
import { LineSplitter } from './lines.ts';

const ANSWER_TIMEOUT_MS = 10_000;
const PROBE_TIMEOUT_MS = 1000;
const DEFAULT_TAP = 'nic0';

/** Options that select the instance and the output format. */
export interface ClientOptions {
  control?: string;
  tap?: string;
  netns?: string;
  json?: boolean;
}

/** Adds the options of a command that sends requests to a running instance. */
export function addClientOptions(command: Command): Command {
  return command
    .option('--control <path>', 'control socket of the instance')
    .option('--tap <name>', 'the instance of this interface')
    .option('--netns <name>', 'the instance in this network namespace')
    .option('--json', 'print JSON');
}

/** Whether an instance listens at `path`. A socket that this user may not connect to counts. */
export function isLive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    const end = (live: boolean): void => {
      socket.destroy();
      resolve(live);
    };
    socket.setTimeout(PROBE_TIMEOUT_MS, () => end(true));
    socket.once('connect', () => end(true));
    socket.once('error', (e: NodeJS.ErrnoException) => end(e.code === 'EACCES'));
  });
}

/** Returns the live sockets of `paths`. */
async function livePaths(paths: readonly string[]): Promise<string[]> {
  const live = await Promise.all(paths.map(isLive));
  return paths.filter((_path, i) => live[i]);
}

/** A text for messages that names the directories that this user may not read; empty if none. */
function hidden(): string {
  const dirs = closedDirs();
  return dirs.length === 0 ? '' : ` that this user may access (${dirs.join(', ')}: EACCES)`;
}

/**
 * Returns the control socket that `options` select. Throws CliError if no instance or several
 * match.
 */
export async function findInstance(options: ClientOptions): Promise<string> {
  if (options.control !== undefined) return options.control;
  if (options.tap !== undefined || options.netns !== undefined) {
    const name = controlName(options.tap ?? DEFAULT_TAP, options.netns ?? null);
    const [path] = await livePaths(controlDirs().map((dir) => join(dir, name)));
    if (path !== undefined) return path;
    const looked = controlDirs().join(' and ');
    throw new CliError(
      `no running instance ${name.slice(0, -'.sock'.length)}${hidden()} (${looked})`,
    );
  }
  const live = await livePaths(findSockets());
  if (live.length === 1) return live[0]!;
  if (live.length === 0)
    throw new CliError(
      `no running instance${hidden()}: start one with \`tapnic serve DIR\`, or use --control`,
    );
  throw new CliError(`${live.length} running instances, choose by --control: ${live.join(' ')}`);
}

/**
 * Sends one request to the instance at `path`; resolves with the data of its answer. Rejects with
 * CliError.
 */
export function request(path: string, cmd: string, args: object): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    const lines = new LineSplitter(RESPONSE_MAX);
    const fail = (message: string): void => {
      socket.destroy();
      reject(new CliError(message));
    };
    socket.setTimeout(ANSWER_TIMEOUT_MS, () => fail(`${path}: no answer`));
    socket.once('error', (e: NodeJS.ErrnoException) =>
      fail(
        e.code === 'ENOENT' || e.code === 'ECONNREFUSED'
          ? `${path}: no instance listens there`
          : `${path}: ${e.code ?? e.message}`,
      ),
    );
    socket.once('close', () => fail(`${path}: closed without an answer`));
    socket.on('data', (chunk) => {
      const [line] = lines.push(chunk) ?? ['{}'];
      if (line === undefined) return;
      socket.destroy();
      try {
        const answer = parseResponse(line);
        if (answer.ok) resolve(answer.data);
        else reject(new CliError(answer.err.message));
      } catch (e) {
        reject(new CliError(`${path}: ${e instanceof Error ? e.message : String(e)}`));
      }
    });
    socket.write(`${JSON.stringify({ id: 1, cmd, args })}\n`);
  });
}

/**
 * Sends a request to the instance that `options` select. Does not check the type of the answer's
 * data.
 */
export async function ask<T>(options: ClientOptions, cmd: string, args: object): Promise<T> {
  return (await request(await findInstance(options), cmd, args)) as T;
}
