/**
 * Runs inside `tapnic serve`, before its program: `node --import write_probe.js`. Replaces `sendfile`
 * of its sockets by read(2) and write(2) of pieces of 64 KB, as a server without sendfile sends a
 * file. The rest of the server stays the same. The arm `write` of the bench `sendfile` uses it.
 */

import { readSync } from 'node:fs';
import { TapnicError } from '../../src/index.ts';
import { Socket, type SendfileOptions } from '../../src/api/socket.ts';
import type { File } from '../../src/api/file.ts';

const PIECE = 65536;

/** Resolves when the socket has copied `bytes`. */
async function written(socket: Socket, bytes: Uint8Array): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    socket.write(bytes, (error?: Error | null) => (error ? reject(error) : resolve()));
  });
}

async function readAndWrite(
  this: Socket,
  file: File,
  { offset = 0, nbytes = 0, hdtr }: SendfileOptions = {},
): Promise<number> {
  if (nbytes === 0 || (hdtr?.trailers ?? []).length > 0)
    throw new TapnicError('EOPNOTSUPP', 'sendfile', 'write_probe: not used by the server');
  const head = Buffer.concat(hdtr?.headers ?? []);
  const buf = Buffer.allocUnsafe(Math.max(PIECE, head.length));
  head.copy(buf);
  // The head and the first bytes of the file leave together.
  let at = head.length;
  let sent = 0;
  for (let left = nbytes; left > 0 || at > 0;) {
    const n = readSync(file.f_fd, buf, at, Math.min(left, buf.length - at), offset + nbytes - left);
    await written(this, buf.subarray(0, at + n));
    sent += at + n;
    left = n === 0 ? 0 : left - n;
    at = 0;
  }
  return sent;
}

Socket.prototype.sendfile = readAndWrite;
