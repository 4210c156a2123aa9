/** `arp`: shows and changes the ARP table of a running instance, with the syntax of arp(8). */

import type { Command } from 'commander';
import type { ArpLine } from '../ctl/arp.ts';
import { newCommand, print, printJson, UsageError } from './command.ts';
import { addClientOptions, ask, type ClientOptions } from './control_client.ts';

interface ArpOptions extends ClientOptions {
  a?: boolean;
  d?: boolean;
  i?: string;
  n?: boolean;
  s?: boolean;
  S?: boolean;
}

const USAGE = 'use arp [-i IF] -a | HOST, -s|-S HOST ETHER [temp] [pub], -d HOST, -d [-i IF] -a';

async function list({ i, ...options }: ArpOptions): Promise<ArpLine[]> {
  const lines = await ask<ArpLine[]>(options, 'arp', {});
  return i === undefined ? lines : lines.filter(({ if: name }) => name === i);
}

async function show(lines: readonly ArpLine[], options: ArpOptions): Promise<void> {
  const { formatArp } = await import('../ctl/arp.ts');
  if (options.json === true) printJson(lines);
  else print(formatArp(lines));
}

/** `arp -s`, `arp -S`. */
async function set(words: readonly string[], options: ArpOptions): Promise<void> {
  const [addr, ether, ...flags] = words;
  const known = flags.every((flag) => flag === 'temp' || flag === 'pub');
  if (addr === undefined || ether === undefined || !known) throw new UsageError(`arp: ${USAGE}`);
  await ask(options, 'arp', {
    op: 'set',
    addr,
    ether,
    temp: flags.includes('temp'),
    pub: flags.includes('pub'),
    replace: options.S === true,
  });
}

/** `arp -d`, of one host or with `-a` of all that are not the stack's own addresses. */
async function remove(words: readonly string[], options: ArpOptions): Promise<void> {
  const [addr, ...flags] = words;
  if (options.a === true && addr === undefined) {
    for (const { addr: each } of await list(options)) {
      // The stack's own addresses cannot be deleted.
      const ok = await ask(options, 'arp', { op: 'delete', addr: each }).then(
        () => true,
        () => false,
      );
      if (ok) print(`${each} (${each}) deleted\n`);
    }
    return;
  }
  if (addr === undefined || flags.some((flag) => flag !== 'pub'))
    throw new UsageError(`arp: ${USAGE}`);
  await ask(options, 'arp', { op: 'delete', addr });
  print(`${addr} (${addr}) deleted\n`);
}

async function arp(words: string[], options: ArpOptions): Promise<void> {
  if (options.s === true || options.S === true) return set(words, options);
  if (options.d === true) return remove(words, options);
  if (options.a === true && words.length === 0) return show(await list(options), options);
  const [addr, ...rest] = words;
  if (addr === undefined || rest.length > 0 || options.a === true)
    throw new UsageError(`arp: ${USAGE}`);
  const found = (await list(options)).filter((line) => line.addr === addr);
  if (found.length === 0) {
    print(`${addr} (${addr}) -- no entry\n`);
    process.exitCode = 1;
    return;
  }
  return show(found, options);
}

export const arpCommand: Command = addClientOptions(
  newCommand('arp')
    .description('show and change the ARP table')
    .argument('[words...]', 'HOST, or for -s: HOST ETHER|auto [temp] [pub]')
    .option('-a', 'all entries')
    .option('-d', 'delete an entry, or with -a all')
    .option('-i <if>', 'only entries of this interface')
    .option('-n', 'numbers instead of names (always on)')
    .option('-s', 'set an entry')
    .option('-S', 'set an entry, after deleting the old one'),
).action(arp);
