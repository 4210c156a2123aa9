/** `fault`: adds, lists and removes faults on the wire of a running instance. */

import { type Command, Option } from 'commander';
import type { FaultLine } from '../ctl/fault.ts';
import { newCommand, print, printJson, UsageError } from './command.ts';
import { addClientOptions, ask, type ClientOptions } from './control_client.ts';

interface AddOptions extends ClientOptions {
  if?: string;
  point?: string;
  match?: string;
  [name: string]: string | boolean | undefined;
}

const KINDS = 'drop, duplicate, reorder, delay, corrupt, truncate, rate';

async function add(kind: string, options: AddOptions): Promise<void> {
  const [{ compileFilterInsns }, { checkedProgram, FAULT_OPTIONS, faultDraft, faultValue }] =
    await Promise.all([import('../host/pcap_filter.ts'), import('../fault/fault_spec.ts')]);
  const values: Record<string, unknown> = {};
  for (const name of FAULT_OPTIONS) {
    const text = options[name];
    if (typeof text === 'string') values[name] = faultValue(name, text);
  }
  const { json, if: on } = options;
  const args: Record<string, unknown> = { ...values, op: 'add', kind };
  if (on !== undefined) args['if'] = on;
  try {
    // Check here so that a wrong value is a usage error, even without an instance. The instance
    // checks again.
    const { matchText } = faultDraft(kind, values, 0);
    if (matchText !== null) {
      const insns = await compileFilterInsns(matchText);
      checkedProgram(insns);
      args['program'] = insns;
    }
  } catch (e) {
    throw new UsageError(`fault add: ${(e as Error).message}`);
  }
  const line = await ask<FaultLine>(options, 'fault', args);
  if (json === true) printJson(line);
  else print(`${line.id}\n`);
}

async function list(options: ClientOptions): Promise<void> {
  const lines = await ask<FaultLine[]>(options, 'fault', { op: 'list' });
  const { formatFaults } = await import('../ctl/fault.ts');
  if (options.json === true) printJson(lines);
  else print(formatFaults(lines));
}

async function remove(id: string, options: ClientOptions & { if?: string }): Promise<void> {
  // The instance rejects a text that is not an id.
  const args = {
    op: 'remove',
    id: /^\d+$/.test(id) ? Number(id) : id,
    ...(options.if === undefined ? {} : { if: options.if }),
  };
  const answer = await ask<{ removed: number }>(options, 'fault', args);
  if (options.json === true) printJson(answer);
}

const ofInterface = (): Option =>
  new Option('--if <name>', 'the interface, such as tn0 (default: the first)');

export const faultCommand: Command = newCommand('fault')
  .description('lose, delay or damage frames on the wire of a running instance')
  .addCommand(
    addClientOptions(
      newCommand('add')
        .description('add a fault and print its id')
        .argument('<kind>', KINDS)
        .addOption(ofInterface())
        .option('--point <point>', 'wire: both directions, rx, tx (default: wire)')
        .option('--rate <p>', 'probability per frame, 0 to 1; for kind rate: bits per second')
        .option('--every <n>', 'every n-th frame')
        .option('--nth <n>', 'the n-th frame')
        .option('--burst <n>', 'frames in a row; for kind rate: frames in the queue')
        .option('--delay <ms>', 'delay of the frame')
        .option('--jitter <ms>', 'additional random delay, at most this')
        .option('--bits <n>', 'bits to flip; for kind truncate: bytes to keep')
        .option('--match <filter>', 'only frames that match this pcap-filter(7) expression')
        .option('--seed <n>', "seed of the random choices (default: the fault's id)"),
    ).action(add),
  )
  .addCommand(
    addClientOptions(
      newCommand('list').description('list faults and how often each was applied'),
    ).action(list),
  )
  .addCommand(
    addClientOptions(
      newCommand('remove')
        .description('remove a fault, or all')
        .argument('<id>', 'the id that `fault add` printed, or all')
        .addOption(ofInterface()),
    ).action(remove),
  );
