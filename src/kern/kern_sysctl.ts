/**
 * sysctl(9): a tree of named values with types and ranges; some are read-only. The machine has one
 * tree (`kern.*`, `vm.*`, `hw.*`), and each Vnet has its own (`net.*`). Left out: numeric OIDs,
 * opaque types other than arrays of counters.
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
  /** Smallest and largest value that a write accepts; for 'int'. */
  readonly min: number;
  readonly max: number;
  readonly get: () => SysctlValue;
  /**
   * Sets the value, which `write` has checked. Returns an errno. Null on a read-only or 'string'
   * leaf.
   */
  readonly set: ((value: number) => Errno) | null;
  /** Sets the text of a 'string' leaf; returns an errno. Absent on a read-only leaf. */
  readonly setText?: (value: string) => Errno;
}

/** A set of leaves by full name. */
export class SysctlTree {
  readonly #oids = new Map<string, SysctlOid>();

  add(oid: SysctlOid): void {
    KASSERT(!this.#oids.has(oid.name), 'sysctl: name taken');
    this.#oids.set(oid.name, oid);
  }

  /**
   * Adds an integer in [min, max] (default: any 32-bit signed); read-only if `set` is null.
   * @see sysctl(9)
   */
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

  /** Adds a boolean, printed as 0 or 1; read-only if `set` is null. @see sysctl(9) */
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

  /**
   * Adds a read-write integer in [min, max], stored in `params[key]`.
   * @see sysctl(9), SYSCTL_INT
   */
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

  /** Adds a read-write boolean, stored in `params[key]`. @see sysctl(9), SYSCTL_BOOL */
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

  /** Adds a text; read-only without `set`. `set` takes the written text and returns an errno. */
  string(name: string, descr: string, get: () => string, set?: (v: string) => Errno): void {
    const oid = { name, type: 'string', descr, min: 0, max: 0, get, set: null } as const;
    this.add(set === undefined ? oid : { ...oid, setText: set });
  }

  /** Adds an array of counters. Writing any number calls `reset`; read-only if `reset` is null. */
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

  /** Returns the leaves at or below `prefix`, or all if it is empty, sorted by name. */
  list(prefix = ''): SysctlOid[] {
    const below = `${prefix}.`;
    return [...this.#oids.values()]
      .filter((o) => prefix === '' || o.name === prefix || o.name.startsWith(below))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /**
   * Writes `text` to a leaf. ENOENT: no such name; EISDIR: a node, not a leaf; EPERM: read-only;
   * EINVAL: not a number, or out of range; or the errno of the leaf's `set`.
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

/** The machine's tree. Boot replaces it with an empty one. */
export const machineSysctl = { tree: new SysctlTree() };
