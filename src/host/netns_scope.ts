/**
 * The namespace of --netns: created if it is missing, and removed by its creator if nothing else
 * uses it. Several processes may start and stop at once. A lock on the folder of the names, which
 * ip(8) takes too, protects each creation and each removal. A shared lock on the namespace itself
 * marks a user from its start on, also before it has an interface there. The kernel releases both
 * when a process dies.
 */

import { closeSync, fstatSync, mkdirSync, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { loadAddon } from '../../native-bindings/index.ts';
import { TapnicError } from '../sys/errno.ts';
import { atExit } from './at_exit.ts';
import {
  createNetns,
  loopbackUp,
  netnsInterfaces,
  netnsUsers,
  openNetns,
  removeNetns,
  withNetns,
} from './netns.ts';

const NAMES = '/run/netns';
/** Others hold the lock for the milliseconds of a creation. */
const LOCK_MS = 3000;
/** The end of the process does not wait longer. */
const EXIT_LOCK_MS = 1000;
const RETRY_MS = 5;
const $sleep = new Int32Array(new SharedArrayBuffer(4));

/** Returns a descriptor with the lock of all names, null without access to their folder. */
function lockNames(waitMs: number): number | null {
  let fd: number;
  try {
    mkdirSync(NAMES, { recursive: true, mode: 0o755 });
    fd = openSync(NAMES, 'r');
  } catch {
    return null; // the next call on a namespace reports the error
  }
  const end = performance.now() + waitMs;
  while (loadAddon().fileLock(fd) !== 0) {
    if (performance.now() > end) {
      closeSync(fd);
      throw new TapnicError(
        'EBUSY',
        `lock ${NAMES}`,
        'another process changes namespaces: try again',
      );
    }
    Atomics.wait($sleep, 0, 0, RETRY_MS);
  }
  return fd;
}

/**
 * Runs `body` while no other process of tapnic or ip(8) creates or removes a name. Throws
 * TapnicError (EBUSY) after `waitMs`.
 */
function withNames<T>(body: () => T, waitMs = LOCK_MS): T {
  const fd = lockNames(waitMs);
  try {
    return body();
  } finally {
    if (fd !== null) closeSync(fd);
  }
}

/** Creates the namespace with `lo` up. Returns false if it was created by another process. */
function create(name: string): boolean {
  try {
    createNetns(name);
  } catch (e) {
    if (e instanceof TapnicError && e.code === 'EEXIST') return false;
    throw e;
  }
  try {
    withNetns(name, loopbackUp);
  } catch (e) {
    removeNetns(name);
    throw e;
  }
  return true;
}

export class NetnsScope {
  readonly name: string;
  /** Whether this object created the namespace. */
  readonly created: boolean;
  /** The namespace with the lock of a user; null after `close`. */
  #fd: number | null;
  readonly #stay: () => void;

  /** Throws TapnicError: EPERM without the privilege; EBUSY. */
  constructor(name: string) {
    this.name = name;
    [this.created, this.#fd] = withNames(() => {
      const before = openNetns(name);
      const created = before === null && create(name);
      const fd = before ?? openNetns(name);
      if (fd !== null) loadAddon().fileShare(fd);
      return [created, fd];
    });
    this.#stay = atExit(() => this.close(EXIT_LOCK_MS));
  }

  /**
   * Removes the namespace if this object created it and nothing else uses it. Throws TapnicError
   * (EBUSY) if other processes change namespaces for longer than `waitMs`.
   */
  close(waitMs = LOCK_MS): void {
    const fd = this.#fd;
    if (fd === null) return;
    this.#fd = null;
    this.#stay();
    const { name } = this;
    try {
      if (this.created) withNames(() => this.#unused(fd) && removeNetns(name), waitMs);
    } finally {
      loadAddon().fdClose(fd);
    }
  }

  /**
   * Whether the name still is that of the namespace, and no other user, process or interface is in
   * the namespace.
   */
  #unused(fd: number): boolean {
    const { name } = this;
    return (
      statSync(join(NAMES, name), { throwIfNoEntry: false })?.ino === fstatSync(fd).ino &&
      loadAddon().fileLock(fd) === 0 &&
      netnsUsers(name).length === 0 &&
      netnsInterfaces(name).length === 0
    );
  }
}
