/** `sysctl`: prints and sets sysctls of a running instance. */

import type { Command } from 'commander';
import type { SysctlLeaf } from '../ctl/sysctl.ts';
import { newCommand, print, printJson, UsageError } from './command.ts';
import { addClientOptions, ask, type ClientOptions } from './control_client.ts';
import { escapeLayout } from './escape.ts';

interface SysctlOptions extends ClientOptions {
  a?: boolean;
  n?: boolean;
  d?: boolean;
  t?: boolean;
}

async function sysctl(words: string[], options: SysctlOptions): Promise<void> {
  const { a = false, n = false, d = false, t = false } = options;
  if (!a && words.length === 0) throw new UsageError('sysctl: -a, or names of leaves or nodes');
  const leaves: SysctlLeaf[] = [];
  for (const word of a ? [''] : words) {
    const eq = word.indexOf('=');
    const args = eq < 0 ? { name: word } : { name: word.slice(0, eq), value: word.slice(eq + 1) };
    // Some values have lines, such as net.inet.tcp.hostcache.list.
    leaves.push(...(await ask<SysctlLeaf[]>(options, 'sysctl', args, escapeLayout)));
  }
  const { formatSysctl } = await import('../ctl/sysctl.ts');
  if (options.json === true) printJson(leaves);
  else print(formatSysctl(leaves, { n, d, t }));
}

export const sysctlCommand: Command = addClientOptions(
  newCommand('sysctl')
    .description('show or set values: sysctl -a, sysctl NAME ..., sysctl NAME=VALUE ...')
    .argument('[names...]', 'leaves, nodes, or NAME=VALUE')
    .option('-a', 'everything')
    .option('-n', 'values without their names')
    .option('-d', 'descriptions in place of values')
    .option('-t', 'types in place of values'),
).action(sysctl);
