/**
 * Where control sockets are: /run/tapnic, or a directory of the user's own below the temporary one
 * where that cannot be written. TAPNIC_RUNDIR names another place.
 */

import { accessSync, constants, existsSync, lstatSync, mkdirSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { CliError } from './command.ts';

/** Bytes of a Unix socket's path, without the zero behind it: unix(7). */
const SUN_PATH_MAX = 107;

/** The directories in which instances are looked for, the preferred one first. */
export function controlDirs(): string[] {
  const own = process.env['TAPNIC_RUNDIR'];
  if (own !== undefined && own !== '') return [own];
  return ['/run/tapnic', join(tmpdir(), `tapnic-${process.getuid?.() ?? 0}`)];
}

/** `[<netns>.]<tap>.sock` */
export function controlName(tap: string, netns: string | null): string {
  return `${netns === null ? '' : `${netns}.`}${tap}.sock`;
}

/** Makes `dir` if it is missing. True if this user owns it and no other user may write it. */
function usable(dir: string): boolean {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const { mode, uid } = lstatSync(dir);
    accessSync(dir, constants.W_OK | constants.X_OK);
    return (uid === process.getuid?.() || uid === 0) && (mode & 0o022) === 0;
  } catch {
    return false;
  }
}

/** The control socket of the instance of `tap`, without --control. Throws CliError. */
export function defaultControlPath(tap: string, netns: string | null): string {
  const dir = controlDirs().find(usable);
  if (dir === undefined)
    throw new CliError(`no place for a control socket: ${controlDirs().join(', ')}: use --control`);
  return checkedPath(join(dir, controlName(tap, netns)));
}

/** Throws CliError for a path that is too long for a socket; else returns it. */
export function checkedPath(path: string): string {
  if (Buffer.byteLength(path) > SUN_PATH_MAX)
    throw new CliError(`${path}: longer than ${SUN_PATH_MAX} bytes: use a shorter --control`);
  return path;
}

/** Why nothing could be bound at `path`: libuv says EACCES where the directory is missing. */
export function bindError(path: string, e: unknown): string {
  const { code = String(e) } = e as NodeJS.ErrnoException;
  return code === 'EACCES' && !existsSync(dirname(path)) ? 'ENOENT: no such directory' : code;
}

/** Every control socket there is, live or not. */
export function findSockets(): string[] {
  return controlDirs().flatMap((dir) => {
    try {
      return readdirSync(dir)
        .filter((name) => name.endsWith('.sock'))
        .sort()
        .map((name) => join(dir, name));
    } catch {
      return []; // no such directory, or not ours to read
    }
  });
}

/** Where there may be sockets, but this user cannot see. */
export function closedDirs(): string[] {
  return controlDirs().filter((dir) => {
    try {
      accessSync(dir, constants.R_OK | constants.X_OK);
      return false;
    } catch (e) {
      return (e as NodeJS.ErrnoException).code === 'EACCES';
    }
  });
}
