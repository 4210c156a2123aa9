/** `netstat`: memory, sockets, statistics and interfaces of a running instance. */

import type { Command } from 'commander';
import type { InterfaceInfo } from '../ctl/ifconfig.ts';
import type { NetstatM } from '../ctl/netstat_m.ts';
import type { NetstatS } from '../ctl/netstat_s.ts';
import type { SocketLine } from '../ctl/netstat_an.ts';
import { newCommand, print, printJson, UsageError } from './command.ts';
import { addClientOptions, ask, type ClientOptions } from './control_client.ts';

interface NetstatOptions extends ClientOptions {
  m?: boolean;
  i?: boolean;
  a?: boolean;
  n?: boolean;
  /** How often -s was given. */
  s: number;
}

async function netstat(options: NetstatOptions): Promise<void> {
  const { json = false, m = false, i = false, a = false, s } = options;
  if ([m, i, s > 0].filter(Boolean).length > 1)
    throw new UsageError('netstat: one of -m, -i, -s at a time');
  const report = m ? 'm' : s > 0 ? 's' : i ? 'i' : 'an';
  const data = await ask<unknown>(options, 'netstat', { report, all: a });
  if (json) printJson(data);
  else print(await formatted(report, data, a, s > 1));
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
    .description('show the network: sockets, or with -m memory, -s statistics, -i interfaces')
    .option('-m', 'memory: mbufs, clusters, sendfile')
    .option('-i', 'interfaces')
    .option('-s', 'statistics by protocol; twice: without zeros', (_v, n: number) => n + 1, 0)
    .option('-a', 'listening sockets too')
    .option('-n', 'numbers instead of names (always on)'),
).action(netstat);
