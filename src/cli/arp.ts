/** `arp -a`: prints the ARP table of a running instance. */

import type { Command } from 'commander';
import type { ArpLine } from '../ctl/arp.ts';
import { newCommand, print, printJson, UsageError } from './command.ts';
import { addClientOptions, ask, type ClientOptions } from './control_client.ts';

interface ArpOptions extends ClientOptions {
  a?: boolean;
  n?: boolean;
}

async function arp(options: ArpOptions): Promise<void> {
  if (options.a !== true) throw new UsageError('arp: -a lists the table');
  const lines = await ask<ArpLine[]>(options, 'arp', {});
  const { formatArp } = await import('../ctl/arp.ts');
  if (options.json === true) printJson(lines);
  else print(formatArp(lines));
}

export const arpCommand: Command = addClientOptions(
  newCommand('arp')
    .description('list the ARP table')
    .option('-a', 'all entries')
    .option('-n', 'numbers instead of names (always on)'),
).action(arp);
