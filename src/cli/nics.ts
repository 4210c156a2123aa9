/** `nics`: lists the NIC models. */

import type { Command } from 'commander';
import type { PciIdentity } from '../machine/nic_model.ts';
import { newCommand, print, printJson } from './command.ts';

const hex = (n: number, digits: number): string => `0x${n.toString(16).padStart(digits, '0')}`;

/** Formats an identity as `pciconf -l` does. */
function pciText(pci: PciIdentity): string {
  const ids = ['vendor', 'device', 'subvendor', 'subdevice'] as const;
  const named = ids.map((id) => `${id}=${hex(pci[id], 4)}`).join(' ');
  return `class=${hex(pci.class, 6)} rev=${hex(pci.revision, 2)} ${named}`;
}

export const nicsCommand: Command = newCommand('nics')
  .description('list the NIC models')
  .option('--json', 'print JSON')
  .action(async ({ json }: { json?: boolean }) => {
    const { nicModels } = await import('../machine/nic_models.ts');
    if (json === true) {
      printJson(nicModels);
      return;
    }
    for (const model of nicModels) {
      const { name, ifname, description, pci, capabilities, modes, builds, mtuMax } = model;
      print(`${name}\t${description}\n\tcapabilities: ${capabilities.join(' ')}\n`);
      print(`\tmode: ${modes.join(' ')}  engine: ${builds.join(' ')}  mtu: up to ${mtuMax}\n`);
      print(`\tinterface: ${ifname}0  pci: ${pciText(pci)}\n`);
    }
  });
