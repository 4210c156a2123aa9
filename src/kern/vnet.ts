/**
 * Vnet, after vnet(9): one network stack of the machine. Subsystems define their per-stack state
 * with VNET_DEFINE (FreeBSD's V_ variables), which returns a typed accessor. Importing a module
 * registers nothing. Left out: moving interfaces between stacks, jails.
 */

import type { Prng } from '../sys/prng.ts';
import { SysctlTree } from './kern_sysctl.ts';
import type { Protosw } from './protosw.ts';

let nextSlot = 0;

/** Addresses and ports of a connection: the fields of InConninfo. */
export interface FlowKey {
  readonly inc_family: number;
  readonly inc_l0: number;
  readonly inc_l1: number;
  readonly inc_l2: number;
  readonly inc_l3: number;
  readonly inc_f0: number;
  readonly inc_f1: number;
  readonly inc_f2: number;
  readonly inc_f3: number;
  readonly inc_lport: number;
  readonly inc_fport: number;
}

/**
 * The place of a stack among several that share its addresses (src/net/flow_owner.ts). Not in FreeBSD,
 * where one stack runs on all cores.
 */
export interface AddressShare {
  /**
   * Whether this stack is the one that answers for the addresses: ARP, neighbour discovery with its
   * detection of duplicates, and reports of group memberships.
   */
  readonly answers: boolean;
  /** Whether the TCP connection with these addresses and ports is one of this stack. */
  ownsTcp(inc: FlowKey): boolean;
}

/** A network stack. `vnet_alloc` creates it. @see vnet(9) */
export class Vnet {
  /** Random numbers of this stack: initial sequence numbers, ports, IP ids. */
  readonly prng: Prng;
  /** The `net.*` variables of this stack. */
  readonly sysctl = new SysctlTree();
  /** Protocols for which sockets can be created; the domains fill it when the Vnet is created. */
  readonly protosw: Protosw[] = [];
  /** State of each subsystem, indexed by the slot that VNET_DEFINE assigned. */
  readonly vnet_data: object[] = [];
  /** The interface number of capture records whose interface is not known yet; 0: any. Ours. */
  capunit = 0;
  /** Null: no other stack has the addresses of this one. */
  share: AddressShare | null = null;

  constructor(prng: Prng) {
    this.prng = prng;
  }
}

/**
 * Defines a per-Vnet variable and returns its accessor (V_name in FreeBSD). `init` runs once for
 * each Vnet, at the first use, and may use other variables.
 * @see vnet(9)
 */
export function VNET_DEFINE<T extends object>(init: (vnet: Vnet) => T): (vnet: Vnet) => T {
  const slot = nextSlot++;
  return (vnet) => (vnet.vnet_data[slot] ?? (vnet.vnet_data[slot] = init(vnet))) as T;
}

/** Whether this stack answers for its addresses. False for all but one of several that share them. */
export function answersForAddresses(vnet: Vnet): boolean {
  return vnet.share === null || vnet.share.answers;
}

/** Creates a stack without interfaces or protocols. @see vnet(9) */
export function vnet_alloc(prng: Prng): Vnet {
  return new Vnet(prng);
}
