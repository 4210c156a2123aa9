/**
 * Paths of control sockets. They are in /run/tapnic, or in a directory of the user in the temporary
 * directory if /run/tapnic is not writable. TAPNIC_RUNDIR overrides both.
 */

import { accessSync, constants, existsSync, lstatSync, mkdirSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { CliError } from './command.ts';

/** Maximum length of a Unix socket's path, without its NUL: unix(7). */
const SUN_PATH_MAX = 107;

/** The directories of control sockets, the preferred one first. */
export function controlDirs(): string[] {
  const own = process.env['TAPNIC_RUNDIR'];
  if (own !== undefined && own !== '') return [own];
  return ['/run/tapnic', join(tmpdir(), `tapnic-${process.getuid?.() ?? 0}`)];
}

/** `[<netns>.]<tap>.sock` */
export function controlName(tap: string, netns: string | null): string {
  return `${netns === null ? '' : `${netns}.`}${tap}.sock`;
}

/**
 * Creates `dir` if it is missing. Returns whether this user or root owns it, this user may write to
 * it, and group and others may not.
 */
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

/**
 * The default control socket of the instance of `tap`. Throws CliError if no directory is usable.
 */
export function defaultControlPath(tap: string, netns: string | null): string {
  const dir = controlDirs().find(usable);
  if (dir === undefined)
    throw new CliError(`no place for a control socket: ${controlDirs().join(', ')}: use --control`);
  return checkedPath(join(dir, controlName(tap, netns)));
}

/** Returns `path`. Throws CliError if it is too long for a socket. */
export function checkedPath(path: string): string {
  if (Buffer.byteLength(path) > SUN_PATH_MAX)
    throw new CliError(`${path}: longer than ${SUN_PATH_MAX} bytes: use a shorter --control`);
  return path;
}

/** The text of a bind error at `path`. libuv reports EACCES for a missing directory. */
export function bindError(path: string, e: unknown): string {
  const { code = String(e) } = e as NodeJS.ErrnoException;
  return code === 'EACCES' && !existsSync(dirname(path)) ? 'ENOENT: no such directory' : code;
}

/** Returns all control sockets, live or not. */
export function findSockets(): string[] {
  return controlDirs().flatMap((dir) => {
    try {
      return readdirSync(dir)
        .filter((name) => name.endsWith('.sock'))
        .sort()
        .map((name) => join(dir, name));
    } catch {
      return []; // the directory is missing or not readable
    }
  });
}

/** Returns the directories that this user may not read: they may contain sockets. */
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
