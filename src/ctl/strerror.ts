/** Error texts of FreeBSD's strerror(3), as FreeBSD's commands print them. */

import { type Errno, errnoName } from '../sys/errno.ts';

const words = new Map<string, string>([
  ['EADDRINUSE', 'Address already in use'],
  ['EADDRNOTAVAIL', "Can't assign requested address"],
  ['EAGAIN', 'Resource temporarily unavailable'],
  ['EBUSY', 'Device busy'],
  ['EEXIST', 'File exists'],
  ['EINVAL', 'Invalid argument'],
  ['ENETUNREACH', 'Network is unreachable'],
  ['ENOBUFS', 'No buffer space available'],
  ['ENOENT', 'No such file or directory'],
  ['ENOMEM', 'Cannot allocate memory'],
  ['ENOSPC', 'No space left on device'],
  ['ENXIO', 'Device not configured'],
  ['EOPNOTSUPP', 'Operation not supported'],
  ['EPROTONOSUPPORT', 'Protocol not supported'],
  ['ESRCH', 'No such process'],
]);

/** The text of an errno; its name if no command here can return it. @see strerror(3) */
export function strerror(error: Errno): string {
  const name = errnoName(error);
  return words.get(name) ?? name;
}
