/**
 * read and write on a socket from a program's own buffer, after sys/kern/sys_generic.c: what
 * src/api calls, so that uio stays below it.
 */

import { EWOULDBLOCK, type Errno } from '../sys/errno.ts';
import { inPass } from '../sys/pass.ts';
import { Uio, UIO_READ, UIO_WRITE } from '../vm/uio.ts';
import { MSG_MORETOCOME, MSG_TRUNC } from './protosw.ts';
import type { Sockaddr } from './sockaddr.ts';
import { type ReceivedFrom, soReceivedFrom, soreceive_dgram } from './uipc_dgram.ts';
import { soreceive, sosend, type Socket } from './uipc_socket.ts';

// Borrowed until the call returns, inside a pass.
const $uio = new Uio();

/** Bytes that the last call below moved, on success and on error alike. Read it before the next call. */
export const ioResult = { n: 0 };

/**
 * An errno and a count as one number, because upcalls that run before `inPass` returns may make
 * calls of their own, and a result record would be theirs then. No error is a small integer, and so
 * is an error without bytes.
 */
function outcome(error: Errno, n: number): number {
  if (error === 0) return n;
  return n === 0 ? -error : -error - n * 1024;
}

/** Sets ioResult from an `outcome`; returns the errno. */
function settle(r: number): Errno {
  if (r >= 0) {
    ioResult.n = r;
    return 0;
  }
  ioResult.n = Math.floor(-r / 1024);
  return -r % 1024;
}

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
  return settle(inPass(sendInPass, so, buf, off, len, flags));
}

function sendInPass(so: Socket, buf: Uint8Array, off: number, len: number, flags: number): number {
  const error = sosend(so, $uio.single(buf, off, len, UIO_WRITE), null, flags);
  const n = len - $uio.uio_resid;
  return outcome(n > 0 && error === EWOULDBLOCK ? 0 : error, n);
}

/** `soRead` with flags of recv(2): MSG_PEEK, MSG_OOB, MSG_DONTWAIT. */
export function soRecv(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  flags: number,
): Errno {
  return settle(inPass(recvInPass, so, buf, off, len, flags));
}

function recvInPass(so: Socket, buf: Uint8Array, off: number, len: number, flags: number): number {
  const error = soreceive(so, $uio.single(buf, off, len, UIO_READ), flags);
  return outcome(error, len - $uio.uio_resid);
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
  return inPass(sendDgramInPass, so, buf, off, len, nam);
}

function sendDgramInPass(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  nam: Sockaddr | null,
): Errno {
  return sosend(so, $uio.single(buf, off, len, UIO_WRITE), nam, 0);
}

/**
 * Receives one packet, at most `len` bytes of it, into `buf` at `off`; `ioResult.n` is its length
 * there, or, with MSG_TRUNC in `flags`, what it was on the wire; `from` is filled with its sender.
 * Other flags and errors are soreceive_dgram's.
 */
export function soRecvDgram(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  flags = 0,
  from = soReceivedFrom,
): Errno {
  return settle(inPass(recvDgramInPass, so, buf, off, len, flags, from));
}

function recvDgramInPass(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  flags: number,
  from: ReceivedFrom,
): number {
  const error = soreceive_dgram(so, $uio.single(buf, off, len, UIO_READ), flags, from);
  return outcome(error, (flags & MSG_TRUNC) !== 0 ? from.len : len - $uio.uio_resid);
}
