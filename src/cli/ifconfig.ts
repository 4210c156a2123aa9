/** `ifconfig`: shows, changes, creates and destroys interfaces of a running instance. */

import type { Command } from 'commander';
import type { InterfaceInfo } from '../ctl/ifconfig.ts';
import { newCommand, print, printJson, UsageError } from './command.ts';
import { addClientOptions, ask, type ClientOptions } from './control_client.ts';

/** Parses the words as ifconfig(8) does: flags, the interface, then changes. */
function parseWords(words: readonly string[]): {
  name: string | null;
  m: boolean;
  l: boolean;
  changes: string[];
} {
  let m = false;
  let l = false;
  let at = 0;
  for (; words[at]?.startsWith('-') === true; at++) {
    const flag = words[at]!;
    if (flag === '-m') m = true;
    else if (flag === '-l') l = true;
    else if (flag !== '-a')
      throw new UsageError(`ifconfig: unknown option ${flag}: use -a, -l, -m`);
  }
  return { name: words[at] ?? null, m, l, changes: words.slice(at + 1) };
}

async function ifconfig(words: string[], options: ClientOptions): Promise<void> {
  const { name, m, l, changes } = parseWords(words);
  const { formatInterface } = await import('../ctl/ifconfig.ts');
  if (name === null) {
    const all = await ask<InterfaceInfo[]>(options, 'ifconfig', {});
    if (options.json === true) printJson(all);
    else if (l) print(`${all.map((i) => i.name).join(' ')}\n`);
    else print(all.map((i) => formatInterface(i, m)).join(''));
    return;
  }
  const one = await ask<InterfaceInfo | null>(options, 'ifconfig', { if: name, words: changes });
  if (options.json === true) printJson(one);
  else if (one !== null && changes.length === 0) print(formatInterface(one, m));
  // `ifconfig vlan create`: print the name of the new interface.
  else if (one !== null && one.name !== name) print(`${one.name}\n`);
}

// A leading minus switches a capability off, so commander must not read short options: parseWords
// reads all words, -a, -l and -m included.
export const ifconfigCommand: Command = addClientOptions(
  newCommand('ifconfig')
    .description('show and change interfaces: ifconfig [-a] [-l] [-m] [IF [WORD ...]]')
    .argument(
      '[words...]',
      'an interface and the changes to make, such as: tn0 -txcsum, ' +
        'vlan100 create vlan 100 vlandev tn0, vlan100 inet 192.0.2.130/25, vlan100 destroy',
    )
    .helpOption('--help', 'display help for command')
    .allowUnknownOption(),
).action(ifconfig);
