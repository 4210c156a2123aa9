/** Code that the clients of a running instance share: options, search, requests. */

import { setTimeout as sleep } from 'node:timers/promises';
import { statSync } from 'node:fs';
import type { Command } from 'commander';
import { CliError } from './command.ts';
import { STARTING } from '../ctl/protocol.ts';
import { ControlChannel } from './control_channel.ts';
import { type FoundSocket, findSockets, hiddenDir, netnsInode, netnsName } from './control_path.ts';
import { escapeData, escapeField } from './escape.ts';
import { isLive } from './peer.ts';

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
    .option('--netns <name>', 'the instance in this network namespace (default: the current one)')
    .option('--json', 'print JSON');
}

/** A control socket and the namespace that its instance must be in. */
export interface Target {
  readonly path: string;
  /** Inode of the network namespace, from the socket's name; null for --control. */
  readonly inode: number | null;
}

async function liveOf(sockets: readonly FoundSocket[]): Promise<FoundSocket[]> {
  const live = await Promise.all(sockets.map(({ path }) => isLive(path)));
  return sockets.filter((_socket, i) => live[i]);
}

/** Returns the options that select an instance in another network namespace. */
function elsewhere({ path, inode }: FoundSocket): string {
  const name = netnsName(inode);
  return name === null ? `--control ${path}` : `--netns ${name} (${path})`;
}

/** Returns the message for a search without result, with the remedy and the instances elsewhere. */
function noneText(
  { tap, netns }: ClientOptions,
  others: readonly FoundSocket[],
  refused: readonly string[],
): string {
  const which = tap === undefined ? '' : ` ${tap}`;
  const where =
    netns !== undefined
      ? ` in network namespace ${netns}`
      : tap !== undefined || others.length > 0
        ? ' in this network namespace'
        : '';
  const found = others.length === 0 ? '' : `; there is ${others.map(elsewhere).join(', ')}`;
  const left = refused.length === 0 ? '' : `; not searched: ${refused.join(', ')}`;
  return `no running instance${which}${where}: start one with \`tapnic serve DIR\`, or use --control${found}${left}`;
}

/**
 * Returns the control socket that `options` select: --control, or the only live one of the namespace
 * and --tap. Returns the result of `onNone` if no instance matches. Throws CliError if several match.
 */
export async function findRunning(
  options: ClientOptions,
  onNone: (text: string) => Target | null = () => null,
): Promise<Target | null> {
  if (options.control !== undefined) return { path: options.control, inode: null };
  const inode = netnsInode(options.netns ?? null);
  const { sockets, refused } = findSockets();
  const { tap } = options;
  const fits = (one: FoundSocket): boolean =>
    one.inode === inode && (tap === undefined || one.tap === tap);
  const live = await liveOf(sockets.filter(fits));
  if (live.length === 1) return live[0]!;
  if (live.length > 1)
    throw new CliError(
      `${live.length} running instances, choose by --tap or --control: ` +
        live.map((one) => `${one.tap} (${one.path})`).join(', '),
    );
  const hidden = options.netns === undefined ? hiddenDir() : null;
  if (hidden !== null) {
    const { uid } = statSync(hidden);
    const owner = uid === 0 ? 'root' : `uid ${uid}`;
    throw new CliError(
      `${hidden}: EACCES: an instance of ${owner} runs in this network namespace: run this command as ` +
        `${owner} (sudo -u '#${uid}' tapnic ...), or bring up an own NIC with --new`,
    );
  }
  const others = await liveOf(sockets.filter((one) => one.inode !== inode));
  return onNone(noneText(options, others, refused));
}

/** Returns the control socket that `options` select. Throws CliError if none or several match. */
export async function findInstance(options: ClientOptions): Promise<Target> {
  const none = (text: string): never => {
    throw new CliError(text);
  };
  return (await findRunning(options, none))!;
}

/** How long a client waits for an instance that starts, ms: its addresses take a second or more. */
const STARTING_MS = 10_000;

/** The `ready` line of an instance. Waits while the instance starts. */
async function infoOf(channel: ControlChannel): Promise<unknown> {
  const end = performance.now() + STARTING_MS;
  for (;;) {
    try {
      return await channel.request('info', {});
    } catch (e) {
      const starting = e instanceof Error && e.message === STARTING;
      if (!starting || performance.now() > end) throw e;
      await sleep(50);
    }
  }
}

/**
 * Connects to an instance. The kernel reuses inodes, so the instance must also report the namespace
 * that the socket's name contains. Rejects with CliError.
 */
export async function openChannel({ path, inode }: Target): Promise<ControlChannel> {
  const channel = await ControlChannel.open(path);
  try {
    const info = (await infoOf(channel)) as { netnsInode?: unknown } | null;
    if (inode !== null && info?.netnsInode !== inode)
      throw new CliError(
        `${path}: the instance is in network namespace ${String(info?.netnsInode)}, not ${inode}: use --control`,
      );
    return channel;
  } catch (e) {
    channel.close();
    throw e;
  }
}

/** Sends one request to the instance at `path`. Resolves with the data of its answer. */
export async function request(path: string, cmd: string, args: object): Promise<unknown> {
  const channel = await ControlChannel.open(path);
  try {
    return await channel.request(cmd, args);
  } finally {
    channel.close();
  }
}

/**
 * Sends a request to the instance that `options` select. Does not check the type of the answer's
 * data. Without --json, `escape` is applied to all strings of the data.
 */
export async function ask<T>(
  options: ClientOptions,
  cmd: string,
  args: object,
  escape: (text: string) => string = escapeField,
): Promise<T> {
  const channel = await openChannel(await findInstance(options));
  try {
    const data = await channel.request(cmd, args);
    return (options.json === true ? data : escapeData(data, escape)) as T;
  } finally {
    channel.close();
  }
}
