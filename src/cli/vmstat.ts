/** `vmstat -z`: the memory zones of a running instance. */

import type { Command } from 'commander';
import type { ZoneLine } from '../ctl/vmstat.ts';
import { newCommand, print, printJson, UsageError } from './command.ts';
import { addClientOptions, ask, type ClientOptions } from './control_client.ts';

interface VmstatOptions extends ClientOptions {
  z?: boolean;
}

async function vmstat(options: VmstatOptions): Promise<void> {
  if (options.z !== true) throw new UsageError('vmstat: use -z, the only report');
  const zones = await ask<ZoneLine[]>(options, 'vmstat', { report: 'z' });
  const { formatZones } = await import('../ctl/vmstat.ts');
  if (options.json === true) printJson(zones);
  else print(formatZones(zones));
}

export const vmstatCommand: Command = addClientOptions(
  newCommand('vmstat').description('show memory: -z, the zones of mbufs').option('-z', 'zones'),
).action(vmstat);
