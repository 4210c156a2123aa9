/**
 * Interfaces that are created by name, after sys/net/if_clone.c: `ifconfig vlan100 create`. A
 * cloner matches the names of its kind. Left out: parameters in user memory (here they are an
 * object), moving between stacks, events.
 */

import { EEXIST, EINVAL, ENOSPC, ENXIO, type Errno } from '../sys/errno.ts';
import { inPass } from '../sys/pass.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { ifnetList, ifunit } from './if.ts';
import type { Ifnet } from './if_var.ts';

/** Maximum length of a name, its NUL included. */
const IFNAMSIZ = 16;
const IF_MAXUNIT = 0x7fff;

/** One kind of interface. @see if_clone(9) */
export interface IfClone {
  /** Name without unit number: `vlan` for vlan0, vlan1 and so on. */
  readonly ifc_name: string;
  /** Whether `name` is a name of this kind. */
  match(vnet: Vnet, name: string): boolean;
  /** Creates and attaches the interface; `params` are of this kind, or null. */
  create(vnet: Vnet, name: string, params: object | null): Errno;
  /** Detaches and destroys an interface that `create` made. */
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

/** Registers a kind with a stack. @see if_clone(9) */
export function if_clone_attach(vnet: Vnet, ifc: IfClone): void {
  V_if_cloners(vnet).cloners.push(ifc);
}

/** Returns `name` with the lowest free unit number, or null if all are taken. */
function wildcard(vnet: Vnet, name: string): string | null {
  for (let unit = 0; unit <= IF_MAXUNIT; unit++)
    if (ifunit(vnet, `${name}${unit}`) === null) return `${name}${unit}`;
  return null;
}

/** The interface that `if_clone_create` made last; null after an error. */
export const ifCloned: { ifp: Ifnet | null } = { ifp: null };

/**
 * Creates the interface `name` and stores it in `ifCloned.ifp`. A name without a unit number gets
 * the lowest free one. EEXIST: the name is taken; EINVAL: no kind matches, or the name is too long;
 * ENOSPC: all units are taken; otherwise the errno of the kind's `create`.
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

/**
 * Destroys an interface that if_clone_create made. EINVAL for other interfaces.
 * @see if_clone(9), ifconfig(8)
 */
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

/**
 * Destroys all cloned interfaces of a stack, the newest first. Call it before the stack's NICs are
 * unplugged.
 */
export function ifCloneDestroyAll(vnet: Vnet): void {
  inPass(() => {
    for (const ifp of ifnetList(vnet).toReversed()) if_clone_destroy(ifp);
  });
}
