/** `ifconfig`: shows, changes, creates and destroys interfaces of a running instance. */

import type { Command } from 'commander';
import type { InterfaceFormat, InterfaceInfo } from '../ctl/ifconfig.ts';
import { newCommand, print, printJson, UsageError } from './command.ts';
import { addClientOptions, ask, type ClientOptions } from './control_client.ts';

/** Flags of ifconfig(8); -k and -v have nothing to add here. */
const FLAGS = ['a', 'l', 'm', 'L', 'u', 'd', 'k', 'v'];

/** A family that limits the output. */
type Family = NonNullable<InterfaceFormat['family']>;
const FAMILIES = new Map<string, Family>([
  ['inet', 'inet'],
  ['inet6', 'inet6'],
  ['ether', 'ether'],
  ['link', 'ether'],
  ['lladdr', 'ether'],
]);

interface Parsed {
  /** Null: all interfaces. */
  readonly name: string | null;
  readonly flags: ReadonlySet<string>;
  readonly family: Family | null;
  readonly changes: string[];
}

/** Parses the words as ifconfig(8) does: flags, the interface, then a family or changes. */
function parseWords(words: readonly string[]): Parsed {
  const flags = new Set<string>();
  let at = 0;
  for (; words[at]?.startsWith('-') === true; at++)
    for (const flag of words[at]!.slice(1)) {
      if (!FLAGS.includes(flag))
        throw new UsageError(`ifconfig: unknown option -${flag}: use -a, -l, -m, -L, -u, -d`);
      flags.add(flag);
    }
  const rest = words.slice(at);
  const first = FAMILIES.get(rest[0] ?? '');
  // `ifconfig inet6`, `ifconfig -a inet6`: all interfaces.
  if (rest.length === 1 && first !== undefined)
    return { name: null, flags, family: first, changes: [] };
  const [name = null, ...changes] = flags.has('a') ? [] : rest;
  const only = changes.length === 1 ? FAMILIES.get(changes[0]!) : undefined;
  return only === undefined
    ? { name, flags, family: null, changes }
    : { name, flags, family: only, changes: [] };
}

/** Whether -u (only interfaces that are up) and -d (down) leave the interface in the list. */
function listed({ flags_names }: InterfaceInfo, flags: ReadonlySet<string>): boolean {
  const up = flags_names.includes('UP');
  return !(flags.has('u') && !up) && !(flags.has('d') && up);
}

async function ifconfig(words: string[], options: ClientOptions): Promise<void> {
  const { name, flags, family, changes } = parseWords(words);
  const { formatInterface } = await import('../ctl/ifconfig.ts');
  const format = { m: flags.has('m'), L: flags.has('L'), family };
  if (name === null) {
    const every = await ask<InterfaceInfo[]>(options, 'ifconfig', {});
    const all = every.filter((i) => listed(i, flags));
    if (options.json === true) printJson(all);
    else if (flags.has('l')) print(`${all.map((i) => i.name).join(' ')}\n`);
    else print(all.map((i) => formatInterface(i, format)).join(''));
    return;
  }
  const one = await ask<InterfaceInfo | null>(options, 'ifconfig', { if: name, words: changes });
  if (options.json === true) printJson(one);
  else if (one !== null && changes.length === 0) print(formatInterface(one, format));
  // `ifconfig vlan create`: print the name of the new interface.
  else if (one !== null && one.name !== name) print(`${one.name}\n`);
}

// A leading minus switches a capability off, so commander must not read short options: parseWords
// reads all words, its flags included.
export const ifconfigCommand: Command = addClientOptions(
  newCommand('ifconfig')
    .description(
      'show and change interfaces: ifconfig [-a] [-l] [-m] [-L] [-u] [-d] [IF] [FAMILY] [WORD ...]',
    )
    .argument(
      '[words...]',
      'an interface and the changes to make, such as: tn0 -txcsum, ' +
        'vlan100 create vlan 100 vlandev tn0, vlan100 inet 192.0.2.130/25, vlan100 destroy, ' +
        'tn0 inet6 2001:db8::9/64, tn0 inet6 2001:db8::9 delete',
    )
    .helpOption('--help', 'display help for command')
    .allowUnknownOption(),
).action(ifconfig);
