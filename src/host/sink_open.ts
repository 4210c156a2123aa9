/**
 * Opens the destination of a FileSink without blocking the event loop. A FIFO that has no reader
 * is reported as such; the caller tries again.
 */

import { type BigIntStats, close, constants, fstat, ftruncate, open, stat } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { getSystemErrorMap } from 'node:util';
import { TapnicError } from '../sys/errno.ts';
import { poolCall } from './pool_gate.ts';
import { FileTarget, PipeTarget, type SinkTarget } from './sink_target.ts';

// Node adds O_CLOEXEC. O_NONBLOCK keeps open() from waiting for the reader of a FIFO, and write()
// from waiting for a terminal. Symbolic links are followed, as tcpdump -w does.
const { O_WRONLY, O_CREAT, O_NONBLOCK, O_NOCTTY } = constants;
const FLAGS = O_WRONLY | O_NONBLOCK | O_NOCTTY;

/** Milliseconds that a start waits for files on a disk that does not answer. */
const OPEN_MS = 1000;

/** A file that is being opened. */
interface Opening {
  readonly opened: Promise<void>;
  /** The start does not wait for `opened` any more. */
  openLate(): void;
}

/**
 * Resolves when all `files` are open or wait for a reader, or after a second. Rejects with the
 * first error.
 */
export async function openedInTime(files: readonly Opening[]): Promise<void> {
  if (files.length === 0) return;
  const patience = new AbortController();
  try {
    await Promise.race([
      Promise.all(files.map(({ opened }) => opened)),
      sleep(OPEN_MS, undefined, { signal: patience.signal }).catch(() => undefined),
    ]);
    for (const file of files) file.openLate();
  } finally {
    patience.abort();
  }
}

/** Receives the one result of `openTarget`. */
interface OpenResult {
  opened(target: SinkTarget): void;
  /** A FIFO that no process has open for reading. */
  noReader(): void;
  failed(error: TapnicError): void;
}

/**
 * Reserves a file, by its `id`, for the caller; false: it is in use, and stays as it is.
 * @param fd absent for a FIFO without a reader
 */
type Claim = (id: string, fd?: number) => boolean;

/** Equal for two names of one file; null for a character device, which any number may write. */
function idOf(st: BigIntStats): string | null {
  return st.isFile() || st.isFIFO() || st.isBlockDevice() ? `${st.dev}:${st.ino}` : null;
}

/** What an error of a file call means, in words. */
export function whyNot(e: NodeJS.ErrnoException): string {
  return getSystemErrorMap().get(e.errno ?? 0)?.[1] ?? '';
}

/**
 * Opens `path` for writing and empties a regular file.
 * @param create whether a missing file is made
 */
export function openTarget(path: string, create: boolean, claim: Claim, result: OpenResult): void {
  const disk = dirname(resolve(path));
  const fail = (e: NodeJS.ErrnoException): void =>
    result.failed(
      new TapnicError(e.code ?? 'EIO', `open ${path}`, 'choose a path that can be written'),
    );
  poolCall(disk, (done) => {
    open(path, create ? FLAGS | O_CREAT : FLAGS, 0o666, (e, fd) => {
      done();
      if (e === null) inspect(path, disk, fd, claim, result);
      else if (e.code !== 'ENXIO') fail(e);
      // ENXIO: a FIFO without a reader, a socket, or a device without a driver.
      else
        poolCall(disk, (statDone) => {
          stat(path, { bigint: true }, (statError, st) => {
            statDone();
            if (statError !== null) fail(statError);
            else if (!st.isFIFO()) fail(e);
            else if (!claim(idOf(st)!)) result.failed(inUse(path));
            else result.noReader();
          });
        });
    });
  });
}

function inUse(path: string): TapnicError {
  return new TapnicError('EBUSY', `open ${path}`, 'another capture writes to this file');
}

/** Makes a target of the open file `fd`, or closes it. */
function inspect(path: string, disk: string, fd: number, claim: Claim, result: OpenResult): void {
  const fail = (error: TapnicError): void => {
    poolCall(disk, (done) => close(fd, done));
    result.failed(error);
  };
  poolCall(disk, (done) => {
    fstat(fd, { bigint: true }, (e, st) => {
      done();
      if (e !== null) return fail(new TapnicError(e.code ?? 'EIO', `stat ${path}`));
      const id = idOf(st);
      if (id !== null && !claim(id, fd)) return fail(inUse(path));
      if (st.isFIFO()) return result.opened(new PipeTarget(fd));
      const target = new FileTarget(fd, `disk ${st.dev}`, st.isFile() && st.nlink > 0n);
      if (!st.isFile() || st.size === 0n) return result.opened(target);
      poolCall(disk, (cut) => {
        ftruncate(fd, 0, (error) => {
          cut();
          if (error !== null) fail(new TapnicError(error.code ?? 'EIO', `truncate ${path}`));
          else result.opened(target);
        });
      });
    });
  });
}
