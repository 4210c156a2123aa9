/**
 * Linux's numbers: errnos, socket options, flags, address families, and the layout of a socket
 * address. packetdrill on Linux uses them for every stack that it tests.
 */

import { type Errno, errnoName } from '../sys/errno.ts';
import { inAddr, port } from '../sys/types.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import { view } from '../kern/sockopt.ts';
import { inSockaddr } from '../netinet/in.ts';
import { in6Sockaddr } from '../netinet6/in6.ts';
import { in6AddrOf, in6AddrPut } from '../netinet6/ip6_pktopts.ts';

/** Linux's errnos by name. */
export const LINUX_ERRNO: Readonly<Record<string, number>> = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  EWOULDBLOCK: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  EPIPE: 32,
  EDOM: 33,
  ERANGE: 34,
  EDEADLK: 35,
  ENOSYS: 38,
  EPROTO: 71,
  ENOTSOCK: 88,
  EDESTADDRREQ: 89,
  EMSGSIZE: 90,
  EPROTOTYPE: 91,
  ENOPROTOOPT: 92,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ENETRESET: 102,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTDOWN: 112,
  EHOSTUNREACH: 113,
  EALREADY: 114,
  EINPROGRESS: 115,
};

/** Converts a FreeBSD errno to Linux's; EIO if Linux has no such errno. */
export function linuxErrno(error: Errno): number {
  return error === 0 ? 0 : (LINUX_ERRNO[errnoName(error)] ?? LINUX_ERRNO['EIO']!);
}

/** Converts a result: a negative one is a negated FreeBSD errno and becomes Linux's. */
export function linuxResult(n: number): number {
  return n < 0 ? -linuxErrno(-n) : n;
}

export const LINUX_AF_UNSPEC = 0;
export const LINUX_AF_INET = 2;
export const LINUX_AF_INET6 = 10;
export const LINUX_O_RDWR = 2;
export const LINUX_O_NONBLOCK = 0x800;
export const LINUX_F_GETFL = 3;
export const LINUX_F_SETFL = 4;
export const LINUX_FIONREAD = 0x541b;
export const LINUX_TIOCOUTQ = 0x5411;
export const LINUX_FIONBIO = 0x5421;
export const LINUX_SIOCATMARK = 0x8905;
export const LINUX_MSG_OOB = 1;
export const LINUX_MSG_PEEK = 2;
export const LINUX_MSG_DONTWAIT = 0x40;
export const LINUX_MSG_EOR = 0x80;
export const LINUX_MSG_WAITALL = 0x100;
export const LINUX_MSG_NOSIGNAL = 0x4000;
export const LINUX_MSG_MORE = 0x8000;
export const LINUX_POLLIN = 1;
export const LINUX_POLLPRI = 2;
export const LINUX_POLLOUT = 4;
export const LINUX_POLLERR = 8;
export const LINUX_POLLHUP = 0x10;
export const LINUX_POLLNVAL = 0x20;

/** Bytes of a `struct sockaddr_in` and a `struct sockaddr_in6`. */
const LINUX_SOCKADDR_IN = 16;
const LINUX_SOCKADDR_IN6 = 28;

/** The family of a Linux socket address; -1 if `sa` is shorter than two bytes. */
export function linuxFamily(sa: Uint8Array): number {
  return sa.length < 2 ? -1 : sa[0]! | (sa[1]! << 8);
}

/**
 * Parses Linux's `struct sockaddr_in` or `sockaddr_in6`. Returns null if it is too short or of another
 * family.
 */
export function fromLinuxSockaddr(sa: Uint8Array): Sockaddr | null {
  const family = linuxFamily(sa);
  if (family === LINUX_AF_INET6 && sa.length >= LINUX_SOCKADDR_IN6) {
    const v = view(sa);
    return in6Sockaddr(in6AddrOf(v, 8), port(v.getUint16(2)), v.getUint32(24, true));
  }
  if (family !== LINUX_AF_INET || sa.length < LINUX_SOCKADDR_IN) return null;
  const addr = inAddr((sa[4]! << 24) | (sa[5]! << 16) | (sa[6]! << 8) | sa[7]!);
  return inSockaddr(addr, port((sa[2]! << 8) | sa[3]!));
}

/** Encodes an address as Linux's socket address of its family; null becomes an empty array. */
export function toLinuxSockaddr(sa: Sockaddr | null): Uint8Array {
  if (sa === null) return new Uint8Array(0);
  const { w0: addr, port: n } = sa;
  if (sa.family === AF_INET6) {
    const six = new Uint8Array(LINUX_SOCKADDR_IN6);
    six.set([LINUX_AF_INET6, 0, n >>> 8, n & 0xff]);
    in6AddrPut(view(six), 8, sa);
    view(six).setUint32(24, sa.scope_id, true);
    return six;
  }
  const quad = [addr >>> 24, (addr >>> 16) & 0xff, (addr >>> 8) & 0xff, addr & 0xff];
  const bytes = new Uint8Array(LINUX_SOCKADDR_IN);
  bytes.set([LINUX_AF_INET, 0, n >>> 8, n & 0xff, ...quad]);
  return bytes;
}
