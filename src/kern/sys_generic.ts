/**
 * read and write on a socket with a program's buffer, after sys/kern/sys_generic.c. src/api calls
 * these functions and does not import uio.
 */

import { EWOULDBLOCK, type Errno } from '../sys/errno.ts';
import { inPass } from '../sys/pass.ts';
import { Uio, UIO_READ, UIO_WRITE } from '../vm/uio.ts';
import type { Control } from './cmsg.ts';
import { MSG_MORETOCOME, MSG_TRUNC } from './protosw.ts';
import type { Sockaddr } from './sockaddr.ts';
import {
  type ControlRef,
  type ReceivedFrom,
  soReceivedFrom,
  soreceive_dgram,
} from './uipc_dgram.ts';
import { soreceive, sosend, sosend_dgram, type Socket } from './uipc_socket.ts';

// In use during one call, inside a pass.
const $uio = new Uio();

/** Bytes that the last call moved, on success and on error. Read it before the next call. */
export const ioResult = { n: 0 };

/**
 * Encodes an errno and a byte count as one number. A result record would not do: deferred work that
 * runs before `inPass` returns may overwrite it. Success, and an error without bytes, are small
 * integers.
 */
function outcome(error: Errno, n: number): number {
  if (error === 0) return n;
  return n === 0 ? -error : -error - n * 1024;
}

/** Decodes an `outcome`: sets ioResult and returns the errno. */
function settle(r: number): Errno {
  if (r >= 0) {
    ioResult.n = r;
    return 0;
  }
  ioResult.n = Math.floor(-r / 1024);
  return -r % 1024;
}

/**
 * Sends as much of `buf[off .. off + len)` as fits now; `ioResult.n` is the number of bytes.
 * EWOULDBLOCK: nothing fitted. `more`: more data follows, do not push yet. Other errnos: see
 * sosend.
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

/** Like `soWrite`, with flags of send(2): MSG_OOB, MSG_EOF, MSG_MORETOCOME. */
export function soSend(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  flags: number,
  nam: Sockaddr | null = null,
): Errno {
  return settle(inPass(sendInPass, so, buf, off, len, flags, nam));
}

function sendInPass(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  flags: number,
  nam: Sockaddr | null,
): number {
  const error = sosend(so, $uio.single(buf, off, len, UIO_WRITE), nam, flags);
  const n = len - $uio.uio_resid;
  return outcome(n > 0 && error === EWOULDBLOCK ? 0 : error, n);
}

/** Like `soRead`, with flags of recv(2): MSG_PEEK, MSG_OOB, MSG_DONTWAIT. */
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

/** Receives up to `len` bytes into `buf` at `off`. 0 bytes without an error means end of data. */
export function soRead(so: Socket, buf: Uint8Array, off: number, len: number): Errno {
  return soRecv(so, buf, off, len, 0);
}

/**
 * Sends `buf[off .. off + len)` as one packet to `nam` (null: to the connected peer), with the control
 * messages `control`.
 */
export function soSendDgram(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  nam: Sockaddr | null,
  control: Control = null,
): Errno {
  return inPass(sendDgramInPass, so, buf, off, len, nam, control);
}

function sendDgramInPass(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  nam: Sockaddr | null,
  control: Control,
): Errno {
  return sosend_dgram(so, $uio.single(buf, off, len, UIO_WRITE), nam, control);
}

/**
 * Receives one packet, at most `len` bytes of it, into `buf` at `off`. `ioResult.n` is the number
 * of bytes stored; with MSG_TRUNC in `flags` it is the full length of the packet. Sets `from` to
 * the sender, and `controlp` to the control data. Other flags and errnos: see soreceive_dgram.
 */
export function soRecvDgram(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  flags = 0,
  from = soReceivedFrom,
  controlp: ControlRef | null = null,
): Errno {
  return settle(inPass(recvDgramInPass, so, buf, off, len, flags, from, controlp));
}

function recvDgramInPass(
  so: Socket,
  buf: Uint8Array,
  off: number,
  len: number,
  flags: number,
  from: ReceivedFrom,
  controlp: ControlRef | null,
): number {
  const uio = $uio.single(buf, off, len, UIO_READ);
  const error = soreceive_dgram(so, uio, flags, from, controlp);
  return outcome(error, (flags & MSG_TRUNC) !== 0 ? from.len : len - $uio.uio_resid);
}
