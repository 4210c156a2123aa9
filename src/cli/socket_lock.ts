/**
 * A lock on the path of a Unix socket: of several processes that start at once over a dead socket,
 * exactly one replaces it. It is a lock file with flock(2), which the kernel releases when the holder
 * dies.
 */

import { closeSync, constants, fstatSync, lstatSync, openSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { linuxErrnoName, loadAddon } from '../../native-bindings/index.ts';
import { CliError } from './command.ts';

const WAIT_MS = 5000;
const RETRY_MS = 10;
const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;

/** Whether the open file is still the one with this name. */
function isCurrent(fd: number, file: string): boolean {
  return lstatSync(file, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino;
}

/** Returns an open descriptor with the lock, null if another process holds it. Throws Node's errors. */
function tryLock(file: string): number | null {
  const fd = openSync(file, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
  const error = loadAddon().fileLock(fd);
  // The last holder may have removed the file between open and lock. Such a lock has no effect.
  if (error === 0 && isCurrent(fd, file)) return fd;
  closeSync(fd);
  const code = linuxErrnoName(-error);
  if (error !== 0 && code !== 'EAGAIN')
    throw Object.assign(new Error(`${file}: ${code}`), { code });
  return null;
}

/**
 * Runs `body` with the lock of `path`. Rejects with the errors of `body` and of opening the lock file,
 * and with CliError if another process keeps the lock.
 */
export async function withSocketLock<T>(path: string, body: () => Promise<T>): Promise<T> {
  const file = join(dirname(path), `.${basename(path)}.lock`);
  const end = performance.now() + WAIT_MS;
  let fd = tryLock(file);
  while (fd === null) {
    if (performance.now() > end)
      throw new CliError(`${file}: another process has held the lock for ${WAIT_MS / 1000} s`);
    await sleep(RETRY_MS);
    fd = tryLock(file);
  }
  try {
    return await body();
  } finally {
    try {
      rmSync(file, { force: true });
    } catch {
      // The file of another user stays, without a lock.
    }
    closeSync(fd);
  }
}
