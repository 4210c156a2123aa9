/**
 * FreeBSD's error numbers (errno(2)). The data path returns them; 0 is success. src/host
 * converts Linux's numbers. Both systems share the symbolic names in `code`.
 */

export const EPERM = 1;
export const ENOENT = 2;
export const ESRCH = 3;
export const EINTR = 4;
export const EIO = 5;
export const ENXIO = 6;
const E2BIG = 7;
export const EBADF = 9;
export const ENOMEM = 12;
export const EACCES = 13;
export const EFAULT = 14;
export const EBUSY = 16;
export const EEXIST = 17;
const ENODEV = 19;
const ENOTDIR = 20;
export const EISDIR = 21;
export const EINVAL = 22;
const ENFILE = 23;
export const EMFILE = 24;
export const ENOTTY = 25;
export const EFBIG = 27;
export const ENOSPC = 28;
export const EPIPE = 32;
export const EDOM = 33;
const ERANGE = 34;
export const EAGAIN = 35;
export const EWOULDBLOCK = EAGAIN;
export const EINPROGRESS = 36;
export const EALREADY = 37;
const ENOTSOCK = 38;
export const EDESTADDRREQ = 39;
export const EMSGSIZE = 40;
export const EPROTOTYPE = 41;
export const ENOPROTOOPT = 42;
export const EPROTONOSUPPORT = 43;
export const EOPNOTSUPP = 45;
export const EAFNOSUPPORT = 47;
export const EADDRINUSE = 48;
export const EADDRNOTAVAIL = 49;
export const ENETDOWN = 50;
export const ENETUNREACH = 51;
export const ECONNABORTED = 53;
export const ECONNRESET = 54;
export const ENOBUFS = 55;
export const EISCONN = 56;
export const ENOTCONN = 57;
const ESHUTDOWN = 58;
export const ETIMEDOUT = 60;
export const ECONNREFUSED = 61;
const ELOOP = 62;
const ENAMETOOLONG = 63;
export const EHOSTDOWN = 64;
export const EHOSTUNREACH = 65;
const ENOTEMPTY = 66;
const EOVERFLOW = 84;
export const ECANCELED = 85;

/** A FreeBSD errno; 0 is success. */
export type Errno = number;

const names = new Map<number, string>([
  [EPERM, 'EPERM'],
  [ENOENT, 'ENOENT'],
  [ESRCH, 'ESRCH'],
  [EINTR, 'EINTR'],
  [EIO, 'EIO'],
  [ENXIO, 'ENXIO'],
  [E2BIG, 'E2BIG'],
  [EBADF, 'EBADF'],
  [ENOMEM, 'ENOMEM'],
  [EACCES, 'EACCES'],
  [EFAULT, 'EFAULT'],
  [EBUSY, 'EBUSY'],
  [EEXIST, 'EEXIST'],
  [ENODEV, 'ENODEV'],
  [ENOTTY, 'ENOTTY'],
  [ENOTDIR, 'ENOTDIR'],
  [EISDIR, 'EISDIR'],
  [EINVAL, 'EINVAL'],
  [ENFILE, 'ENFILE'],
  [EMFILE, 'EMFILE'],
  [EFBIG, 'EFBIG'],
  [ENOSPC, 'ENOSPC'],
  [EPIPE, 'EPIPE'],
  [EDOM, 'EDOM'],
  [ERANGE, 'ERANGE'],
  [EAGAIN, 'EAGAIN'],
  [EINPROGRESS, 'EINPROGRESS'],
  [EALREADY, 'EALREADY'],
  [ENOTSOCK, 'ENOTSOCK'],
  [EDESTADDRREQ, 'EDESTADDRREQ'],
  [EMSGSIZE, 'EMSGSIZE'],
  [EPROTOTYPE, 'EPROTOTYPE'],
  [ENOPROTOOPT, 'ENOPROTOOPT'],
  [EPROTONOSUPPORT, 'EPROTONOSUPPORT'],
  [EOPNOTSUPP, 'EOPNOTSUPP'],
  [EAFNOSUPPORT, 'EAFNOSUPPORT'],
  [EADDRINUSE, 'EADDRINUSE'],
  [EADDRNOTAVAIL, 'EADDRNOTAVAIL'],
  [ENETDOWN, 'ENETDOWN'],
  [ENETUNREACH, 'ENETUNREACH'],
  [ECONNABORTED, 'ECONNABORTED'],
  [ECONNRESET, 'ECONNRESET'],
  [ENOBUFS, 'ENOBUFS'],
  [EISCONN, 'EISCONN'],
  [ENOTCONN, 'ENOTCONN'],
  [ESHUTDOWN, 'ESHUTDOWN'],
  [ETIMEDOUT, 'ETIMEDOUT'],
  [ECONNREFUSED, 'ECONNREFUSED'],
  [ELOOP, 'ELOOP'],
  [ENAMETOOLONG, 'ENAMETOOLONG'],
  [EHOSTDOWN, 'EHOSTDOWN'],
  [EHOSTUNREACH, 'EHOSTUNREACH'],
  [ENOTEMPTY, 'ENOTEMPTY'],
  [EOVERFLOW, 'EOVERFLOW'],
  [ECANCELED, 'ECANCELED'],
]);
const numbers = new Map([...names].map(([n, name]) => [name, n]));

/** The symbolic name, e.g. `EAGAIN` for 35; `E<n>` for a number without a name in this file. */
export function errnoName(error: Errno): string {
  return names.get(error) ?? `E${error}`;
}

/** The FreeBSD number of a symbolic name, as in Node's errors; EIO for an unknown name. */
export function errnoOf(code: string | undefined): Errno {
  return (code === undefined ? undefined : numbers.get(code)) ?? EIO;
}

/**
 * The error class of the public API: `code` and `syscall` as in Node's errors, one-line message.
 */
export class TapnicError extends Error {
  override readonly name = 'TapnicError';
  readonly code: string;
  readonly syscall: string;

  /**
   * @param hint what the user can do, e.g. `run as root`
   * @param message the whole message, where another form is customary
   */
  constructor(
    code: string,
    syscall: string,
    hint = '',
    message = `${syscall}: ${code}${hint === '' ? '' : `: ${hint}`}`,
  ) {
    super(message);
    this.code = code;
    this.syscall = syscall;
  }
}

/** Converts a data-path errno to the error of the public API. */
export function errnoError(error: Errno, syscall: string, hint = ''): TapnicError {
  return new TapnicError(errnoName(error), syscall, hint);
}
