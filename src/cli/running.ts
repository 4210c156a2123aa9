/** Selects a running instance for a command that can also bring up its own NIC. */

import type { Command } from 'commander';
import { type ClientOptions, findRunning, type Target } from './control_client.ts';
import { NoSuchNetns } from './control_path.ts';
import { isLive } from './peer.ts';
import { flagKey, NIC_FLAGS, type OwnTexts, type RawFlags } from './nic_flags.ts';

/** NIC options that select an instance. All others configure a new NIC. */
const PLACES = new Set(['control', 'tap', 'netns']);

/** Whether the options require a new NIC: --new, --config, or an option that configures a NIC. */
function wantsOwnNic(raw: RawFlags): boolean {
  return (
    raw['new'] === true ||
    raw['config'] !== undefined ||
    NIC_FLAGS.some(({ name }) => !PLACES.has(name) && raw[flagKey(name)] !== undefined)
  );
}

/** Adds --new. */
export function addNewOption(command: Command): Command {
  return command.option('--new', 'bring up a NIC even if an instance runs; so does any NIC option');
}

/**
 * Returns the running instance to use and the settings that `check` returns; null if the command
 * brings up its own NIC. Rejects with the errors of `check`, and with CliError if several instances
 * match.
 */
export async function runningInstance<T>(
  raw: RawFlags,
  check: () => T,
): Promise<{ instance: Target; settings: Awaited<T> } | null> {
  if (wantsOwnNic(raw)) return null;
  const settings = await check();
  const instance = await findTarget(raw);
  return instance === null ? null : { instance, settings };
}

async function findTarget(raw: RawFlags): Promise<Target | null> {
  const options: ClientOptions = {};
  for (const name of ['control', 'tap', 'netns'] as const) {
    const text = raw[name];
    if (typeof text === 'string') options[name] = text;
  }
  if (options.control !== undefined && !(await isLive(options.control))) return null;
  try {
    return await findRunning(options);
  } catch (e) {
    // The new NIC's namespace is created with it.
    if (e instanceof NoSuchNetns) return null;
    throw e;
  }
}

/** Returns the texts of the command's own options on the command line. */
export function ownTexts(raw: RawFlags, names: readonly string[]): OwnTexts {
  const own: OwnTexts = {};
  for (const name of names) {
    const text = raw[flagKey(name)];
    if (typeof text === 'string') own[name] = { text, where: `--${name}` };
  }
  return own;
}
