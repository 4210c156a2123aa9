/** sysctl(8) on the two trees of an instance: that of the machine and that of its Vnet. */

import { EISDIR, ENOENT, EPERM, type Errno, errnoName } from '../sys/errno.ts';
import {
  machineSysctl,
  type SysctlOid,
  type SysctlType,
  type SysctlValue,
} from '../kern/kern_sysctl.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ControlFailure } from './protocol.ts';
import { strerror } from './strerror.ts';

/** A leaf in the output of `sysctl --json`. */
export interface SysctlLeaf {
  name: string;
  value: SysctlValue;
  /** The value before a write. */
  old?: SysctlValue;
  descr: string;
  writable: boolean;
  type: SysctlType;
  /** Smallest and largest accepted value; only for integers and booleans. */
  min?: number;
  max?: number;
}

function leafOf(oid: SysctlOid): SysctlLeaf {
  const { name, descr, type, min, max } = oid;
  const leaf = { name, value: oid.get(), descr, writable: oid.set !== null, type };
  return type === 'int' || type === 'bool' ? { ...leaf, min, max } : leaf;
}

/**
 * The leaves at or below `name`; for '' all leaves of both trees. Throws ControlFailure (ENOENT).
 */
export function readSysctl(vnet: Vnet, name: string): SysctlLeaf[] {
  const oids = [...machineSysctl.tree.list(name), ...vnet.sysctl.list(name)];
  if (oids.length === 0) throw new ControlFailure('ENOENT', `unknown oid '${name}'`);
  return oids.sort((a, b) => (a.name < b.name ? -1 : 1)).map(leafOf);
}

/** The message of `sysctl` for a failed write. */
export function sysctlErrorText(name: string, text: string, error: Errno): string {
  switch (error) {
    case ENOENT:
      return `unknown oid '${name}'`;
    case EISDIR:
      return `oid '${name}' isn't a leaf node`;
    case EPERM:
      return `oid '${name}' is read only`;
    default:
      return `${name}=${text}: ${strerror(error)}`;
  }
}

/**
 * Writes one leaf and returns it with its old value. Throws ControlFailure: ENOENT, EISDIR (a
 * node), EPERM (read only), EINVAL (not a value of its type and range), or the leaf's own errno.
 */
export function writeSysctl(vnet: Vnet, name: string, text: string): SysctlLeaf {
  // A node may exist in both trees, with different leaves in each.
  const tree =
    vnet.sysctl.find(name) === undefined && machineSysctl.tree.list(name).length > 0
      ? machineSysctl.tree
      : vnet.sysctl;
  const old = tree.find(name)?.get();
  const error = tree.write(name, text);
  if (error !== 0) throw new ControlFailure(errnoName(error), sysctlErrorText(name, text, error));
  const leaf = leafOf(tree.find(name)!);
  return old === undefined ? leaf : { ...leaf, old };
}

const valueText = (value: SysctlValue): string =>
  Array.isArray(value) ? value.join(' ') : String(value);

/** Output options of sysctl(8). Default: `name: value`, and `name: old -> new` after a write. */
export interface SysctlFormat {
  /** Print values only. */
  readonly n: boolean;
  /** Print the description instead of the value. */
  readonly d: boolean;
  /** Print the type instead of the value. */
  readonly t: boolean;
}

/** Type names of sysctl(8): booleans are bytes, arrays of counters are opaque. */
const TYPE_WORDS: Record<SysctlType, string> = {
  int: 'integer',
  bool: 'uint8_t',
  string: 'string',
  counters: 'opaque',
};

export function formatSysctl(leaves: readonly SysctlLeaf[], { n, d, t }: SysctlFormat): string {
  const text = (leaf: SysctlLeaf): string => {
    if (t) return TYPE_WORDS[leaf.type];
    if (d) return leaf.descr;
    const value = valueText(leaf.value);
    return leaf.old === undefined || n ? value : `${valueText(leaf.old)} -> ${value}`;
  };
  return leaves.map((leaf) => `${n ? '' : `${leaf.name}: `}${text(leaf)}\n`).join('');
}
