/**
 * Interfaces that are made by name, after sys/net/if_clone.c: `ifconfig vlan100 create`. A cloner
 * knows which names are its own. Left out: parameters in a user's memory (they are an object here),
 * moving between stacks, events.
 */

import { EEXIST, EINVAL, ENOSPC, ENXIO, type Errno } from '../sys/errno.ts';
import { inPass } from '../sys/pass.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { ifnetList, ifunit } from './if.ts';
import type { Ifnet } from './if_var.ts';

/** Bytes of a name with its NUL. */
const IFNAMSIZ = 16;
const IF_MAXUNIT = 0x7fff;

/** One kind of interface. @see if_clone(9) */
export interface IfClone {
  /** `vlan` makes vlan0, vlan1 and so on. */
  readonly ifc_name: string;
  /** Whether `name` is one of this kind's. */
  match(vnet: Vnet, name: string): boolean;
  /** Makes and attaches it, with `params` of its own kind or null. */
  create(vnet: Vnet, name: string, params: object | null): Errno;
  /** Takes it away; called for what `create` made. */
  destroy(ifp: Ifnet): void;
}

class CloneVnet {
  readonly cloners: IfClone[] = [];
  readonly made = new Map<Ifnet, IfClone>();
}

const V_if_cloners = VNET_DEFINE(() => new CloneVnet());

/** Whether `name` is `prefix` and a unit number without leading zeros. @see if_clone(9) */
export function ifc_simple_match(prefix: string, name: string): boolean {
  if (!name.startsWith(prefix)) return false;
  const unit = name.slice(prefix.length);
  return /^(0|[1-9]\d*)$/.test(unit) && Number(unit) <= IF_MAXUNIT;
}

/** Makes a kind known to a stack. @see if_clone(9) */
export function if_clone_attach(vnet: Vnet, ifc: IfClone): void {
  V_if_cloners(vnet).cloners.push(ifc);
}

/** The full name for one of a kind: `vlan` becomes the first that is free; null if all are taken. */
function wildcard(vnet: Vnet, name: string): string | null {
  for (let unit = 0; unit <= IF_MAXUNIT; unit++)
    if (ifunit(vnet, `${name}${unit}`) === null) return `${name}${unit}`;
  return null;
}

/** The interface that `if_clone_create` made last. */
export const ifCloned: { ifp: Ifnet | null } = { ifp: null };

/**
 * Makes the interface `name`, or with a kind's bare name the first that is free; `ifCloned.ifp` is
 * it. EEXIST: there is one; EINVAL: no kind has such names; ENOSPC: all are taken; else the kind's
 * errno.
 * @see if_clone(9), ifconfig(8)
 */
export function if_clone_create(vnet: Vnet, name: string, params: object | null): Errno {
  const ifp = inPass(createInPass, vnet, name, params);
  ifCloned.ifp = typeof ifp === 'number' ? null : ifp;
  return typeof ifp === 'number' ? ifp : 0;
}

function createInPass(vnet: Vnet, name: string, params: object | null): Ifnet | Errno {
  const v = V_if_cloners(vnet);
  if (ifunit(vnet, name) !== null) return EEXIST;
  let ifc = v.cloners.find((c) => c.match(vnet, name));
  let full: string | null = name;
  if (ifc === undefined) {
    ifc = v.cloners.find((c) => c.ifc_name === name);
    if (ifc === undefined) return EINVAL;
    full = wildcard(vnet, name);
    if (full === null) return ENOSPC;
  }
  if (full.length >= IFNAMSIZ) return EINVAL;
  const error = ifc.create(vnet, full, params);
  if (error !== 0) return error;
  const ifp = ifunit(vnet, full);
  if (ifp === null) return ENXIO;
  ifp.if_groups = [ifc.ifc_name];
  v.made.set(ifp, ifc);
  return ifp;
}

/** Takes an interface away that was made so; EINVAL for any other. @see if_clone(9), ifconfig(8) */
export function if_clone_destroy(ifp: Ifnet): Errno {
  return inPass(destroyInPass, ifp);
}

function destroyInPass(ifp: Ifnet): Errno {
  const v = V_if_cloners(ifp.if_vnet);
  const ifc = v.made.get(ifp);
  if (ifc === undefined) return EINVAL;
  v.made.delete(ifp);
  ifc.destroy(ifp);
  return 0;
}

/** Takes away all that were made, the newest first: for a stack that ends, before its NICs go. */
export function ifCloneDestroyAll(vnet: Vnet): void {
  inPass(() => {
    for (const ifp of ifnetList(vnet).toReversed()) if_clone_destroy(ifp);
  });
}
