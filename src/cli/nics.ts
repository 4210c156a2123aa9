/** `nics`: the NIC models there are. */

import type { Command } from 'commander';
import { newCommand, print, printJson } from './command.ts';

export const nicsCommand: Command = newCommand('nics')
  .description('list the NIC models')
  .option('--json', 'print JSON')
  .action(async ({ json }: { json?: boolean }) => {
    const { nicModels } = await import('../machine/nic_models.ts');
    if (json === true) {
      printJson(nicModels);
      return;
    }
    for (const { name, description, capabilities, modes, builds, mtuMax } of nicModels) {
      print(`${name}\t${description}\n\tcapabilities: ${capabilities.join(' ')}\n`);
      print(`\tmode: ${modes.join(' ')}  engine: ${builds.join(' ')}  mtu: up to ${mtuMax}\n`);
    }
  });
