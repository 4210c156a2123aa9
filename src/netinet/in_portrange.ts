/**
 * The ranges of automatically chosen local ports and their sysctls, after sys/netinet/in_pcb.c. All
 * families use them.
 */

import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';

/** net.inet.ip.portrange.*: the ranges of automatically chosen local ports. @see ip(4) */
class Portrange {
  /** IP_PORTRANGE_LOW (descending), the default range, and IP_PORTRANGE_HIGH. */
  lowfirst = 1023;
  lowlast = 600;
  first = 10000;
  last = 65535;
  hifirst = 49152;
  hilast = 65535;
  randomized = true;
}
export const V_portrange = VNET_DEFINE(() => new Portrange());

/** Adds net.inet.ip.portrange.*. The inet domain calls it when the Vnet is created. */
export function in_pcbSysctls(vnet: Vnet): void {
  const r = V_portrange(vnet);
  const tree = vnet.sysctl;
  const name = 'net.inet.ip.portrange';
  for (const leaf of ['lowfirst', 'lowlast', 'first', 'last', 'hifirst', 'hilast'] as const)
    tree.intField(`${name}.${leaf}`, `${leaf} port of the range`, r, leaf, 1, 65535);
  tree.boolField(`${name}.randomized`, 'Enable random port allocation', r, 'randomized');
}
