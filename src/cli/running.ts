/** Whether a command that can bring up a NIC of its own uses a running instance instead. */

import type { Command } from 'commander';
import { type ClientOptions, findRunning, type Target } from './control_client.ts';
import { NoSuchNetns } from './control_path.ts';
import { isLive } from './peer.ts';
import { flagKey, NIC_FLAGS, type OwnTexts, type RawFlags } from './nic_flags.ts';

/** Options that say where an instance is; all others of a NIC say what a new one is like. */
const PLACES = new Set(['control', 'tap', 'netns']);

/** Whether the options ask for a NIC of their own: --new, --config, or what a new NIC is like. */
function wantsOwnNic(raw: RawFlags): boolean {
  return (
    raw['new'] === true ||
    raw['config'] !== undefined ||
    NIC_FLAGS.some(({ name }) => !PLACES.has(name) && raw[flagKey(name)] !== undefined)
  );
}

/** Adds the option that asks for a NIC of one's own. */
export function addNewOption(command: Command): Command {
  return command.option('--new', 'bring up a NIC even if an instance runs; so does any NIC option');
}

/**
 * The running instance that the command is to use, and its settings, which `check` reads; null if it
 * brings up a NIC of its own. Rejects with the errors of `check`, and with CliError if several
 * instances match.
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
    // A namespace that does not exist yet is made for a NIC of one's own.
    if (e instanceof NoSuchNetns) return null;
    throw e;
  }
}

/** The texts of a command's own options, as the command line has them. */
export function ownTexts(raw: RawFlags, names: readonly string[]): OwnTexts {
  const own: OwnTexts = {};
  for (const name of names) {
    const text = raw[flagKey(name)];
    if (typeof text === 'string') own[name] = { text, where: `--${name}` };
  }
  return own;
}
