/** `route`: shows and changes the routing tables of a running instance. */

import type { Command } from 'commander';
import type { RouteAnswer } from '../ctl/route.ts';
import { newCommand, print, printJson, UsageError } from './command.ts';
import { addClientOptions, ask, type ClientOptions } from './control_client.ts';

const OPERATIONS = ['add', 'delete', 'del', 'change', 'get', 'show', 'flush'];

async function route(words: string[], options: ClientOptions): Promise<void> {
  // The instance reads the words: only it has the address families.
  const operation = words.find((word) => !word.startsWith('-'));
  if (operation === undefined || !OPERATIONS.includes(operation)) {
    const what = operation === undefined ? '' : `${operation}: not an operation: `;
    throw new UsageError(`route: ${what}use add, delete, change, get, show or flush`);
  }
  const answer = await ask<RouteAnswer>(options, 'route', { words });
  const { formatRoute } = await import('../ctl/route.ts');
  if (options.json === true)
    printJson(answer.op === 'show' ? answer.tables.flatMap((t) => t.routes) : answer);
  // -q: no output of a change.
  else if (!words.includes('-q') || answer.op === 'get' || answer.op === 'show')
    print(formatRoute(answer));
}

// Options such as -net are words that the instance reads.
export const routeCommand: Command = addClientOptions(
  newCommand('route')
    .description('show and change routes: route [-n] [-4|-6] OPERATION [WORD ...]')
    .argument(
      '[words...]',
      'such as: add -net 10.0.0.0/8 192.0.2.1, add default 192.0.2.1, ' +
        'add -host 10.0.0.1 -interface tn0, change default 192.0.2.9, delete -net 10.0.0.0/8, ' +
        'get 10.1.2.3, show, flush',
    )
    .helpOption('--help', 'display help for command')
    .allowUnknownOption(),
).action(route);
