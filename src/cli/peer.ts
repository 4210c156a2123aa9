/** The process that listens at a Unix socket: whether there is one, and whether it is trusted. */

import { lstatSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { linuxErrnoName, loadAddon, type NativeAddon } from '../../native-bindings/index.ts';
import { CliError } from './command.ts';
import { dirProblem, ownUid, trustedUid } from './control_path.ts';

const PROBE_TIMEOUT_MS = 1000;

/**
 * Whether a process listens at `path`. Only ECONNREFUSED and ENOENT mean that none does: EAGAIN
 * means a full backlog, EACCES a socket of another user.
 */
export function isLive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    const end = (live: boolean): void => {
      socket.destroy();
      resolve(live);
    };
    socket.setTimeout(PROBE_TIMEOUT_MS, () => end(true));
    socket.once('connect', () => end(true));
    socket.once('error', ({ code }: NodeJS.ErrnoException) =>
      end(code !== 'ECONNREFUSED' && code !== 'ENOENT'),
    );
  });
}

function addonOrNull(): NativeAddon | null {
  try {
    return loadAddon();
  } catch {
    return null;
  }
}

/** Returns the user of the process that listens at the other end of `socket`. Throws CliError. */
function peerUid(socket: Socket, path: string): number {
  const addon = addonOrNull();
  // Node has no public property for the descriptor.
  const fd = (socket as unknown as { _handle: { fd?: number } | null })._handle?.fd;
  if (addon === null || fd === undefined) {
    // Without the addon use the file's owner. It is reliable if no other user can create files there.
    const problem = dirProblem(dirname(path));
    if (problem !== null)
      throw new CliError(`${path}: refused: ${dirname(path)}: ${problem}: build the addon`);
    return lstatSync(path).uid;
  }
  const cred = new Uint32Array(3);
  const error = addon.peerCred(fd, cred);
  if (error !== 0) throw new CliError(`${path}: SO_PEERCRED: ${linuxErrnoName(-error)}`);
  return cred[1]!;
}

/**
 * Throws CliError unless the process at the other end of `socket` runs as root or as this user.
 */
export function checkPeer(socket: Socket, path: string): void {
  const uid = peerUid(socket, path);
  if (trustedUid(uid)) return;
  const own = ownUid();
  throw new CliError(
    `${path}: refused: a process of uid ${uid} listens there, not of ${own === 0 ? 'root' : `uid ${own} or root`}: ` +
      `if that instance is meant, run this command as uid ${uid} (sudo -u '#${uid}' tapnic ...)`,
  );
}
