/**
 * Paths of control sockets, and the checks of their directories. They are in /run/tapnic, or in a
 * directory of the user in the temporary directory if /run/tapnic is not writable. TAPNIC_RUNDIR
 * overrides both. A socket's name contains the inode of the network namespace of the instance's
 * interface: many namespaces have no name, and names differ between mount namespaces.
 */

import {
  accessSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  type Stats,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { CliError } from './command.ts';

/** Maximum length of a Unix socket's path, without its NUL: unix(7). */
const SUN_PATH_MAX = 107;
const OWN_NETNS = '/proc/self/ns/net';
/** The names of `ip netns` and `serve --netns`. */
const NAMED_NETNS = '/run/netns';
const STICKY = 0o1000;
const WRITABLE_BY_OTHERS = 0o022;

/** Returns the effective user of this process. */
export const ownUid = (): number => process.geteuid?.() ?? 0;

/** Whether `uid` is root or this user. Other users are not trusted. */
export const trustedUid = (uid: number): boolean => uid === 0 || uid === ownUid();

/** The directories of control sockets, the preferred one first. */
export function controlDirs(): string[] {
  const own = process.env['TAPNIC_RUNDIR'];
  if (own !== undefined && own !== '') return [own];
  return ['/run/tapnic', join(tmpdir(), `tapnic-${ownUid()}`)];
}

const codeOf = (e: unknown): string => (e as NodeJS.ErrnoException).code ?? String(e);

/** No network namespace has this name. */
export class NoSuchNetns extends CliError {
  constructor(name: string) {
    super(`no network namespace ${name}: \`ip netns list\` shows the existing ones`);
  }
}

/**
 * Returns the inode of the network namespace `name`; null means the namespace of this process.
 * Throws CliError if it does not exist or cannot be read.
 */
export function netnsInode(name: string | null): number {
  let own: Stats;
  try {
    own = statSync(OWN_NETNS);
  } catch (e) {
    throw new CliError(
      `${OWN_NETNS}: ${codeOf(e)}: cannot identify the network namespace: mount /proc, or use --control`,
    );
  }
  if (name === null) return own.ino;
  if (name === '' || name === '.' || name === '..' || name.includes('/') || name.includes('\0'))
    throw new CliError(`--netns: ${JSON.stringify(name)}: not a name of \`ip netns list\``);
  const path = join(NAMED_NETNS, name);
  let named: Stats;
  try {
    named = statSync(path);
  } catch (e) {
    if (codeOf(e) === 'ENOENT') throw new NoSuchNetns(name);
    throw new CliError(`${path}: ${codeOf(e)}`);
  }
  // All namespaces are on one file system. A file on another one is a mount point without a mount.
  if (named.dev !== own.dev)
    throw new CliError(
      `${path}: a leftover file, not a network namespace: remove it by \`ip netns delete ${name}\``,
    );
  return named.ino;
}

/** Returns the name of a network namespace in `ip netns list`, null if it has none. */
export function netnsName(inode: number): string | null {
  try {
    const { dev } = statSync(OWN_NETNS);
    const found = readdirSync(NAMED_NETNS).find((name) => {
      const at = statSync(join(NAMED_NETNS, name), { throwIfNoEntry: false });
      return at?.ino === inode && at.dev === dev;
    });
    return found ?? null;
  } catch {
    return null; // there are no named namespaces, or they are not readable
  }
}

/** `<inode of the network namespace>.<tap>.sock` */
export function controlName(tap: string, inode: number): string {
  return `${inode}.${tap}.sock`;
}

/**
 * Returns why another user could create sockets in `dir`, null if only root and this user can. Throws
 * Node's error if it is missing.
 */
export function dirProblem(dir: string): string | null {
  const at = lstatSync(dir);
  if (!at.isDirectory()) return 'it is not a directory';
  if (!trustedUid(at.uid)) return `it belongs to uid ${at.uid}`;
  if ((at.mode & WRITABLE_BY_OTHERS) !== 0) return 'other users may write it';
  // Without the sticky bit, another user could replace `dir` in a directory that all may write.
  const parent = statSync(dirname(dir));
  if ((parent.mode & WRITABLE_BY_OTHERS) !== 0 && (parent.mode & STICKY) === 0)
    return `other users may write ${dirname(dir)}`;
  return null;
}

/** Creates `dir` if it is missing. Returns why it is not usable for sockets, null if it is. */
function unusable(dir: string): string | null {
  try {
    mkdirSync(dir, { mode: 0o700 });
  } catch (e) {
    if (codeOf(e) !== 'EEXIST') return codeOf(e);
  }
  try {
    const problem = dirProblem(dir);
    if (problem !== null) return problem;
    accessSync(dir, constants.W_OK | constants.X_OK);
    return null;
  } catch (e) {
    return codeOf(e);
  }
}

/**
 * Returns the default control socket of the instance of `tap` in the network namespace with this
 * inode. Throws CliError if no directory is usable.
 */
export function defaultControlPath(tap: string, inode: number): string {
  const problems: string[] = [];
  for (const dir of controlDirs()) {
    const problem = unusable(dir);
    if (problem === null) return checkedPath(join(dir, controlName(tap, inode)));
    problems.push(`${dir}: ${problem}`);
  }
  throw new CliError(`no place for a control socket: ${problems.join('; ')}: use --control`);
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
  const missing = (code === 'EACCES' || code === 'ENOENT') && !existsSync(dirname(path));
  return missing ? 'ENOENT: no such directory' : code;
}

/** A control socket, live or not. */
export interface FoundSocket {
  readonly path: string;
  readonly inode: number;
  readonly tap: string;
}

/**
 * Returns the directory of control sockets that this user may not read and in which a process of this
 * network namespace listens; null: no such directory. The kernel lists the Unix sockets of the namespace.
 */
export function hiddenDir(): string | null {
  let lines: string[];
  try {
    lines = readFileSync('/proc/net/unix', 'utf8').split('\n');
  } catch {
    return null;
  }
  const used = (dir: string): boolean => lines.some((line) => line.includes(` ${dir}/`));
  return controlDirs().find((dir) => existsSync(dir) && !mayRead(dir) && used(dir)) ?? null;
}

function mayRead(dir: string): boolean {
  try {
    accessSync(dir, constants.R_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Returns all control sockets, and the directories that were not searched with the reason. */
export function findSockets(): { sockets: FoundSocket[]; refused: string[] } {
  const sockets: FoundSocket[] = [];
  const refused: string[] = [];
  for (const dir of controlDirs()) {
    try {
      const problem = dirProblem(dir);
      if (problem !== null) {
        refused.push(`${dir}: ${problem}`);
        continue;
      }
      for (const name of readdirSync(dir).sort()) {
        const parts = /^(\d+)\.(.+)\.sock$/.exec(name);
        const path = join(dir, name);
        if (parts === null || lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true)
          continue;
        sockets.push({ path, inode: Number(parts[1]), tap: parts[2]! });
      }
    } catch (e) {
      if (codeOf(e) !== 'ENOENT') refused.push(`${dir}: ${codeOf(e)}`);
    }
  }
  return { sockets, refused };
}
