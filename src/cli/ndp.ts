/** `ndp`: shows and changes neighbour discovery of a running instance, with the syntax of ndp(8). */

import type { Command } from 'commander';
import type { NdpAnswer } from '../ctl/ndp.ts';
import { newCommand, print, printJson, UsageError } from './command.ts';
import { addClientOptions, ask, type ClientOptions } from './control_client.ts';

/** The data of an answer for --json. */
function jsonOf(answer: NdpAnswer): unknown {
  switch (answer.op) {
    case 'neighbors':
    case 'prefixes':
    case 'routers':
      return answer.lines;
    case 'ifinfo':
      return answer.info;
    case 'defif':
    case 'deleted':
    case 'done':
      return answer;
  }
}

async function ndp(words: string[], options: ClientOptions): Promise<void> {
  if (words.length === 0)
    throw new UsageError(
      'ndp: use -a, -c, -p, -r, -i IF, -I [IF], -s HOST ETHER, -d HOST, or HOST',
    );
  // The instance reads the words.
  const answer = await ask<NdpAnswer>(options, 'ndp', { words });
  const { formatNdp } = await import('../ctl/ndp_text.ts');
  if (options.json === true) printJson(jsonOf(answer));
  else print(formatNdp(answer));
}

export const ndpCommand: Command = addClientOptions(
  newCommand('ndp')
    .description('show and change neighbours, prefixes, routers and interfaces of IPv6')
    .argument(
      '[words...]',
      'such as: -a, HOST, -p (prefixes), -r (routers), -i tn0 [-nud], -s HOST ETHER [temp] [proxy], ' +
        '-d HOST, -c (delete all), -I [IF|delete], -P, -R',
    )
    .helpOption('--help', 'display help for command')
    .allowUnknownOption(),
).action(ndp);
