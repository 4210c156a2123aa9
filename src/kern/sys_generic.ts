/**
 * read and write on a socket from a program's own buffer, after sys/kern/sys_generic.c: what
 * src/api calls, so that uio stays below it.
 */

import { EWOULDBLOCK, type Errno } from '../sys/errno.ts';
import { passEnter, passLeave } from '../sys/pass.ts';
import { Uio, UIO_READ, UIO_WRITE } from '../vm/uio.ts';
import { MSG_MORETOCOME, MSG_TRUNC, type Sockaddr } from './protosw.ts';
import { soReceivedFrom, soreceive_dgram } from './uipc_dgram.ts';
import { soreceive, sosend, type Socket } from './uipc_socket.ts';

// Borrowed until the pass ends: what runs then may come here again.
const $uio = new Uio();

/** Bytes that the last `soRead` or `soWrite` moved, on success and on error alike. */
export const ioResult = { n: 0 };

/**
 * Sends from `buf[off .. off + len)` what fits now; `ioResult.n` tells how much. EWOULDBLOCK when
 * nothing did. `more`: do not push yet. Other errors are sosend's.
 */
export function soWrite(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  more: boolean,
): Errno {
  return soSend(so, buf, off, len, more ? MSG_MORETOCOME : 0);
}

/** `soWrite` with flags of send(2): MSG_OOB, MSG_EOF, MSG_MORETOCOME. */
export function soSend(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  flags: number,
): Errno {
  passEnter();
  const error = sosend(so, $uio.single(buf, off, len, UIO_WRITE), null, flags);
  const n = len - $uio.uio_resid;
  passLeave();
  ioResult.n = n;
  return n > 0 && error === EWOULDBLOCK ? 0 : error;
}

/** `soRead` with flags of recv(2): MSG_PEEK, MSG_OOB, MSG_DONTWAIT. */
export function soRecv(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  flags: number,
): Errno {
  passEnter();
  const error = soreceive(so, $uio.single(buf, off, len, UIO_READ), flags);
  const n = len - $uio.uio_resid;
  passLeave();
  ioResult.n = n;
  return error;
}

/** Receives up to `len` bytes into `buf` at `off`. 0 bytes without an error is end of data. */
export function soRead(so: Socket, buf: Uint8Array, off: number, len: number): Errno {
  return soRecv(so, buf, off, len, 0);
}

/** Sends `buf[off .. off + len)` as one packet to `nam`, or to the peer of a connected socket. */
export function soSendDgram(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  nam: Sockaddr | null,
): Errno {
  passEnter();
  const error = sosend(so, $uio.single(buf, off, len, UIO_WRITE), nam, 0);
  passLeave();
  return error;
}

/**
 * Receives one packet, at most `len` bytes of it, into `buf` at `off`; `ioResult.n` is its length
 * there, or, with MSG_TRUNC in `flags`, what it was on the wire; `soReceivedFrom` its sender. Other
 * flags and errors are soreceive_dgram's.
 */
export function soRecvDgram(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  flags = 0,
): Errno {
  passEnter();
  const error = soreceive_dgram(so, $uio.single(buf, off, len, UIO_READ), flags);
  const n = (flags & MSG_TRUNC) !== 0 ? soReceivedFrom.len : len - $uio.uio_resid;
  passLeave();
  ioResult.n = n;
  return error;
}
