/**
 * Explains a failed system call: the cause, which depends on the call as well as on the errno, and
 * the remedy. One line each, without the name of the errno, which TapnicError adds.
 */

import { statSync } from 'node:fs';

/** The calls whose errors are explained. */
export type Call =
  | 'tun open'
  | 'tun attach'
  | 'route socket'
  | 'link'
  | 'address'
  | 'netns open'
  | 'netns enter'
  | 'netns add'
  | 'netns delete'
  | 'arena'
  | 'poll';

export interface Subject {
  /** The interface or the namespace. */
  readonly name?: string;
  /** TAP or TUN. */
  readonly kind?: string;
  readonly queues?: number | undefined;
  /** Whether an interface of that name exists. */
  readonly exists?: boolean;
  /** The namespace that contains the interface; undefined: the current one. */
  readonly netns?: string | undefined;
}

const NET_ADMIN_HINT = 'run as root or add --device /dev/net/tun --cap-add NET_ADMIN';
const SYS_ADMIN_HINT = 'run as root or add --cap-add SYS_ADMIN';
const NAME_RULE = 'an interface name has 1 to 15 bytes, without "/", ":", "%" and white space';
const NETNS_RULE = 'a name has 1 to 255 bytes, without "/", ":", "%" and white space';

/** Causes that are the same for every call. */
const anyCall: Readonly<Record<string, string>> = {
  EMFILE: 'this process has as many files open as it may: raise its limit (ulimit -n)',
  ENFILE: 'the system has as many files open as it may: raise fs.file-max',
  ENOMEM: 'the kernel has no memory for it: free memory or raise the limit of the container',
  ENOBUFS: 'the kernel has no buffer for it: try again or raise net.core.rmem_max',
};

/** Whether /run/netns contains a plain file of that name, which `ip netns` cannot enter either. */
function isLeftover(name: string): boolean {
  try {
    // Files of the namespace file system are on their own device; a leftover is on that of /run.
    return statSync(`/run/netns/${name}`).dev === statSync('/run/netns').dev;
  } catch {
    return false;
  }
}

function leftover(name: string): string {
  return (
    `/run/netns/${name} is a plain file, left over from a namespace that no longer exists: ` +
    `remove it with ip netns delete ${name}`
  );
}

function attachCause(code: string, { name, kind = 'TAP', queues = 1, exists }: Subject): string {
  const many = queues > 1 ? 'multi-queue' : 'single-queue';
  switch (code) {
    case 'EPERM':
    case 'EACCES':
      return NET_ADMIN_HINT;
    case 'EBUSY':
      return `interface ${name} is in use: stop its user or choose another name`;
    case 'EEXIST':
      return `another interface got the name ${name} at the same time: try again`;
    case 'ENOTTY':
      return '/dev/net/tun is not the TAP device: replace it (mknod /dev/net/tun c 10 200)';
    case 'E2BIG':
      return `interface ${name} has all the queues that the kernel allows: use fewer`;
    case 'EINVAL':
      return exists === true
        ? `interface ${name} exists and is not a ${many} ${kind}: choose another name, or the ` +
            'number of queues that it was made with'
        : NAME_RULE;
    default:
      return '';
  }
}

function linkCause(code: string, { name = 'the interface' }: Subject): string {
  switch (code) {
    case 'EPERM':
      return 'run as root or add --cap-add NET_ADMIN';
    case 'ENODEV':
      return `${name} was deleted or moved to another network namespace: start again`;
    case 'EINVAL':
      return `${name} does not accept this value: a TAP has an MTU of 68 to 65521 bytes`;
    case 'EADDRNOTAVAIL':
      return 'a MAC address of a group is not valid for an interface';
    default:
      return '';
  }
}

function addressCause(code: string, subject: Subject): string {
  const { name = 'the interface' } = subject;
  switch (code) {
    case 'EEXIST':
      return `${name} has this address or route already`;
    case 'EACCES':
      return `IPv6 is disabled on ${name}: sysctl net.ipv6.conf.${name}.disable_ipv6=0`;
    case 'EADDRNOTAVAIL':
      return `${name} does not have this address`;
    case 'ENETUNREACH':
      return `the gateway is on no network of ${name}`;
    case 'EINVAL':
      return 'the address or its prefix length is not valid';
    default:
      return linkCause(code, subject);
  }
}

function netnsCause(call: Call, code: string, name: string): string {
  if (code === 'EPERM' || code === 'EACCES') return SYS_ADMIN_HINT;
  if ((call === 'netns enter' || call === 'netns add') && isLeftover(name)) return leftover(name);
  switch (code) {
    case 'EEXIST':
      return `namespace ${name} exists`;
    case 'ENOENT':
      return `no namespace ${name}: ip netns list shows the existing ones`;
    case 'EBUSY':
      return `/run/netns/${name} is a mount point in another mount namespace: remove it there`;
    case 'ENOSPC':
      return 'the limit on namespaces is reached: raise user.max_net_namespaces';
    case 'EINVAL':
      return call === 'netns enter'
        ? `/run/netns/${name} is not a network namespace: remove it or choose another name`
        : NETNS_RULE;
    default:
      return '';
  }
}

function openCause(code: string): string {
  switch (code) {
    case 'EPERM':
    case 'EACCES':
      return NET_ADMIN_HINT;
    case 'ENOENT':
    case 'ENODEV':
    case 'ENXIO':
      return 'no TAP device here: modprobe tun, or add --device /dev/net/tun --cap-add NET_ADMIN';
    default:
      return '';
  }
}

function otherCause(call: Call, code: string): string {
  if (call === 'arena') {
    if (code === 'EINVAL') return 'memory is 16 MiB to 4 GiB in pages of 4096 bytes';
    if (code === 'ENOMEM')
      return 'not enough memory or address space: use less memory for the machine';
    if (code === 'ENOTSUP') return 'this JavaScript engine does not accept outside memory';
  }
  if (call === 'poll') {
    if (code === 'ENOSPC')
      return 'the user watches too many descriptors: raise fs.epoll.max_user_watches';
    if (code === 'EBUSY') return 'the descriptor is polled already';
    if (code === 'EPERM') return 'a plain file cannot be polled';
  }
  if (call === 'route socket' && (code === 'EPROTONOSUPPORT' || code === 'EAFNOSUPPORT'))
    return 'this kernel or sandbox has no rtnetlink: use a Linux kernel, not an emulation of it';
  return '';
}

/** The cause of `code` from `call` and its remedy; an empty string if the code says enough. */
export function explain(call: Call, code: string, subject: Subject = {}): string {
  const known = (): string => {
    switch (call) {
      case 'tun open':
        return openCause(code);
      case 'tun attach':
        return attachCause(code, subject);
      case 'link':
        return linkCause(code, subject);
      case 'address':
        return addressCause(code, subject);
      case 'netns open':
      case 'netns enter':
      case 'netns add':
      case 'netns delete':
        return netnsCause(call, code, subject.name ?? '');
      case 'route socket':
      case 'arena':
      case 'poll':
        return otherCause(call, code);
    }
  };
  return known() || (anyCall[code] ?? '');
}
