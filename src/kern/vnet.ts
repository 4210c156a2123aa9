/**
 * Vnet, after vnet(9): one network stack of the machine. Subsystems define their per-stack state
 * with VNET_DEFINE, FreeBSD's V_ variables, and read it back typed; nothing registers itself by
 * being imported. Left out: moving interfaces between stacks, jails.
 */

import type { Prng } from '../sys/prng.ts';
import { SysctlTree } from './kern_sysctl.ts';
import type { Protosw } from './protosw.ts';

let nextSlot = 0;

/** A network stack. Made by `vnet_alloc`. @see vnet(9) */
export class Vnet {
  /** Randomness of this stack: initial sequence numbers, ports, IP ids. */
  readonly prng: Prng;
  /** `net.*` of this stack. */
  readonly sysctl = new SysctlTree();
  /** Protocols that sockets can be made of; filled by the domains when the Vnet is created. */
  readonly protosw: Protosw[] = [];
  /** Per-subsystem state by VNET_DEFINE's index. */
  readonly vnet_data: object[] = [];

  constructor(prng: Prng) {
    this.prng = prng;
  }
}

/**
 * Defines a per-Vnet variable: returns the accessor FreeBSD spells V_name. `init` runs once per
 * Vnet, at the first use, and may use other variables.
 * @see vnet(9)
 */
export function VNET_DEFINE<T extends object>(init: (vnet: Vnet) => T): (vnet: Vnet) => T {
  const slot = nextSlot++;
  return (vnet) => (vnet.vnet_data[slot] ?? (vnet.vnet_data[slot] = init(vnet))) as T;
}

/** Creates a stack without interfaces or protocols. @see vnet(9) */
export function vnet_alloc(prng: Prng): Vnet {
  return new Vnet(prng);
}
