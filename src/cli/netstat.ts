/** `netstat`: memory, sockets, statistics, interfaces and routes of a running instance. */

import type { Command } from 'commander';
import type { InterfaceInfo } from '../ctl/ifconfig.ts';
import type { NetstatM } from '../ctl/netstat_m.ts';
import type { NetstatS } from '../ctl/netstat_s.ts';
import type { SocketLine } from '../ctl/netstat_an.ts';
import type { RouteLine, RouteShow } from '../ctl/route.ts';
import { newCommand, print, printJson, UsageError } from './command.ts';
import { addClientOptions, ask, type ClientOptions } from './control_client.ts';

interface NetstatOptions extends ClientOptions {
  m?: boolean;
  i?: boolean;
  r?: boolean;
  /** -f: a family, with -r. */
  f?: string;
  4?: boolean;
  6?: boolean;
  a?: boolean;
  n?: boolean;
  /** How often -s was given. */
  s: number;
}

async function netstat(options: NetstatOptions): Promise<void> {
  const { json = false, m = false, i = false, r = false, a = false, s } = options;
  if ([m, i, r, s > 0].filter(Boolean).length > 1)
    throw new UsageError('netstat: one of -m, -i, -s, -r at a time');
  const family = familyOf(options);
  if (r) return routes(options, family);
  if (family !== null) throw new UsageError('netstat: a family only with -r');
  const report = m ? 'm' : s > 0 ? 's' : i ? 'i' : 'an';
  const data = await ask<unknown>(options, 'netstat', { report, all: a });
  if (json) printJson(data);
  else print(await formatted(report, data, a, s > 1));
}

/** The family that -f, -4 or -6 names; null: all. */
function familyOf({ f, 4: four = false, 6: six = false }: NetstatOptions): string | null {
  const named = [
    ...(f === undefined ? [] : [f]),
    ...(four ? ['inet'] : []),
    ...(six ? ['inet6'] : []),
  ];
  if (named.some((one) => one !== named[0])) throw new UsageError('netstat: one family at a time');
  return named[0] ?? null;
}

/** The routing tables: their JSON is a flat list, the text has one table per family. */
async function routes(options: NetstatOptions, family: string | null): Promise<void> {
  if (options.json === true) {
    const lines = await ask<RouteLine[]>(options, 'netstat', { report: 'r' });
    printJson(lines.filter((line) => family === null || line.family === family));
    return;
  }
  const words = family === null ? ['show'] : [`-${family}`, 'show'];
  const { formatRoute } = await import('../ctl/route.ts');
  print(formatRoute(await ask<RouteShow>(options, 'route', { words })));
}

/**
 * Formats a report as text. It assumes an instance of the same version, so the data is not checked.
 */
async function formatted(
  report: 'm' | 's' | 'i' | 'an',
  data: unknown,
  all: boolean,
  hideZeros: boolean,
): Promise<string> {
  switch (report) {
    case 'm': {
      const { formatNetstatM } = await import('../ctl/netstat_m.ts');
      return formatNetstatM(data as NetstatM);
    }
    case 's': {
      const { formatNetstatS } = await import('../ctl/netstat_s.ts');
      return formatNetstatS(data as NetstatS, hideZeros);
    }
    case 'i': {
      const { formatNetstatI } = await import('../ctl/netstat_i.ts');
      return formatNetstatI(data as InterfaceInfo[]);
    }
    case 'an': {
      const { formatNetstatAn } = await import('../ctl/netstat_an.ts');
      return formatNetstatAn(data as SocketLine[], all);
    }
  }
}

export const netstatCommand: Command = addClientOptions(
  newCommand('netstat')
    .description(
      'show the network: sockets, or with -m memory, -s statistics, -i interfaces, -r routes',
    )
    .option('-m', 'memory: mbufs, clusters, sendfile')
    .option('-i', 'interfaces')
    .option('-r', 'routing tables')
    .option('-f <family>', 'with -r: only this address family, such as inet')
    .option('-4', 'the same as -f inet')
    .option('-6', 'the same as -f inet6')
    .option('-s', 'statistics by protocol; twice: without zeros', (_v, n: number) => n + 1, 0)
    .option('-a', 'listening sockets too')
    .option('-n', 'numbers instead of names (always on)'),
).action(netstat);
