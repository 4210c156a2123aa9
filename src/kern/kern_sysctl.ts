/**
 * sysctl(9): a tree of named values with types, ranges and read-only ones. The machine has one tree
 * (`kern.*`, `vm.*`, `hw.*`), every Vnet another (`net.*`). Left out: numeric OIDs, opaque types
 * other than arrays of counters.
 */

import { EINVAL, EISDIR, ENOENT, EPERM, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { inPass } from '../sys/pass.ts';

export type SysctlType = 'int' | 'bool' | 'string' | 'counters';
export type SysctlValue = number | string | number[];

/** One leaf. */
export interface SysctlOid {
  readonly name: string;
  readonly type: SysctlType;
  readonly descr: string;
  /** Smallest and largest value taken; for 'int'. */
  readonly min: number;
  readonly max: number;
  readonly get: () => SysctlValue;
  /** Takes a checked value; absent on a read-only leaf. Returns an errno. */
  readonly set: ((value: number) => Errno) | null;
  /** The same of a 'string' leaf, whose `set` is null. */
  readonly setText?: (value: string) => Errno;
}

/** A set of leaves by full name. */
export class SysctlTree {
  readonly #oids = new Map<string, SysctlOid>();

  add(oid: SysctlOid): void {
    KASSERT(!this.#oids.has(oid.name), 'sysctl: name taken');
    this.#oids.set(oid.name, oid);
  }

  /** A read-write integer in [min, max] (default: any 32-bit signed). @see sysctl(9) */
  int(
    name: string,
    descr: string,
    get: () => number,
    set: ((v: number) => Errno | void) | null,
    min = -0x80000000,
    max = 0x7fffffff,
  ): void {
    const wrapped = set === null ? null : (v: number): Errno => set(v) ?? 0;
    this.add({ name, type: 'int', descr, min, max, get, set: wrapped });
  }

  /** A read-write boolean, printed as 0 or 1. @see sysctl(9) */
  bool(name: string, descr: string, get: () => boolean, set: ((v: boolean) => void) | null): void {
    this.add({
      name,
      type: 'bool',
      descr,
      min: 0,
      max: 1,
      get: () => (get() ? 1 : 0),
      set:
        set === null
          ? null
          : (v): Errno => {
              set(v !== 0);
              return 0;
            },
    });
  }

  /** A read-write integer in [min, max] that lives in `params[key]`. @see sysctl(9), SYSCTL_INT */
  intField<K extends string>(
    name: string,
    descr: string,
    params: Record<K, number>,
    key: K,
    min?: number,
    max?: number,
  ): void {
    const set = (v: number): void => {
      params[key] = v;
    };
    this.int(name, descr, () => params[key], set, min, max);
  }

  /** A read-write boolean that lives in `params[key]`. @see sysctl(9), SYSCTL_BOOL */
  boolField<K extends string>(
    name: string,
    descr: string,
    params: Record<K, boolean>,
    key: K,
  ): void {
    const set = (v: boolean): void => {
      params[key] = v;
    };
    this.bool(name, descr, () => params[key], set);
  }

  /** A text; read-only without `set`, which gets what is written and returns an errno. */
  string(name: string, descr: string, get: () => string, set?: (v: string) => Errno): void {
    const oid = { name, type: 'string', descr, min: 0, max: 0, get, set: null } as const;
    this.add(set === undefined ? oid : { ...oid, setText: set });
  }

  /** Counters; writing anything resets them if `reset` is given. */
  counters(name: string, descr: string, get: () => number[], reset: (() => void) | null): void {
    this.add({
      name,
      type: 'counters',
      descr,
      min: 0,
      max: Number.MAX_SAFE_INTEGER,
      get,
      set:
        reset === null
          ? null
          : (): Errno => {
              reset();
              return 0;
            },
    });
  }

  find(name: string): SysctlOid | undefined {
    return this.#oids.get(name);
  }

  /** Leaves at or below `prefix` (all if empty), by name. */
  list(prefix = ''): SysctlOid[] {
    const below = `${prefix}.`;
    return [...this.#oids.values()]
      .filter((o) => prefix === '' || o.name === prefix || o.name.startsWith(below))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /**
   * Writes `text` to a leaf. ENOENT: no such name; EISDIR: a node; EPERM: read-only; EINVAL: not a
   * number of the leaf's type and range; or the leaf's own errno.
   */
  write(name: string, text: string): Errno {
    const oid = this.#oids.get(name);
    if (oid === undefined) return this.list(name).length > 0 ? EISDIR : ENOENT;
    if (oid.setText !== undefined) return inPass(oid.setText, text);
    if (oid.set === null) return EPERM;
    if (!/^-?(0x[0-9a-f]+|\d+)$/i.test(text)) return EINVAL;
    const v = text.startsWith('-') ? -Number(text.slice(1)) : Number(text);
    if (!Number.isSafeInteger(v) || v < oid.min || v > oid.max) return EINVAL;
    return inPass(oid.set, v);
  }
}

/** The machine's tree. Emptied at boot. */
export const machineSysctl = { tree: new SysctlTree() };
