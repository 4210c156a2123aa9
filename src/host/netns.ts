/**
 * Named network namespaces, as `ip netns` lists them. Entering a namespace moves only the calling
 * thread, and only while a synchronous function runs. Descriptors opened in it stay in that
 * namespace; the rest of the process is not affected.
 */

import { readdirSync, statSync, readFileSync } from 'node:fs';
import { linuxErrnoName, loadAddon } from '../../native-bindings/index.ts';
import { TapnicError } from '../sys/errno.ts';
import { panic } from '../sys/kassert.ts';

const PRIVILEGE_HINT = 'run as root or add --cap-add SYS_ADMIN';

function fail(error: number, syscall: string, name: string): never {
  const code = linuxErrnoName(-error);
  const hints: Record<string, string> = {
    EPERM: PRIVILEGE_HINT,
    EACCES: PRIVILEGE_HINT,
    EEXIST: `namespace ${name} exists`,
    ENOENT: `no namespace ${name}: ip netns list shows the existing ones`,
    EINVAL: 'a name has 1 to 255 bytes, without "/", ":", "%" and white space',
  };
  throw new TapnicError(code, `${syscall} ${name}`, hints[code] ?? '');
}

function bytesOf(name: string): Uint8Array {
  return new TextEncoder().encode(name);
}

/**
 * Creates a namespace as `ip netns add` does. It contains only `lo`, down. EEXIST, EPERM, EINVAL.
 */
export function createNetns(name: string): void {
  const error = loadAddon().netnsCreate(bytesOf(name));
  if (error !== 0) fail(error, 'netns add', name);
}

/**
 * Removes the name. The kernel removes the namespace when its last user has left. ENOENT, EPERM.
 */
export function removeNetns(name: string): void {
  const error = loadAddon().netnsRemove(bytesOf(name));
  if (error !== 0) fail(error, 'netns delete', name);
}

export function netnsExists(name: string): boolean {
  const addon = loadAddon();
  const fd = addon.netnsOpen(bytesOf(name));
  if (name === '' || fd < 0) return false;
  addon.fdClose(fd);
  return true;
}

/** PIDs of other processes whose main thread is in the namespace. */
export function netnsUsers(name: string): number[] {
  const ns = statSync(`/run/netns/${name}`);
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .filter((pid) => {
      try {
        const own = statSync(`/proc/${pid}/ns/net`);
        return own.ino === ns.ino && own.dev === ns.dev;
      } catch {
        return false; // the process ended, or access is denied
      }
    })
    .map(Number);
}

/** Interfaces that the kernel creates in every namespace when their modules are loaded. */
const OWN_INTERFACES =
  /^(lo|tunl0|gre0|gretap0|erspan0|ip_vti0|ip6_vti0|sit0|ip6tnl0|ip6gre0|teql0)$/;

/**
 * Interfaces that a program put into the namespace, such as a veth end or the TAP of another
 * instance.
 */
export function netnsInterfaces(name: string): string[] {
  return withNetns(name, () => readFileSync('/proc/thread-self/net/dev', 'utf8'))
    .split('\n')
    .map((line) => /^\s*([^:\s]+):/.exec(line)?.[1])
    .filter((dev) => dev !== undefined)
    .filter((dev) => !OWN_INTERFACES.test(dev));
}

/**
 * Runs `fn` with the thread in namespace `name` and returns its result. `fn` must be synchronous: a
 * promise throws TypeError. Throws TapnicError (ENOENT, EPERM); panics if the thread cannot return
 * to its own namespace.
 */
export function withNetns<T>(name: string, fn: () => T): T {
  const addon = loadAddon();
  const home = addon.netnsOpen(new Uint8Array(0));
  if (home < 0) fail(home, 'netns open', 'of this thread');
  const target = name === '' ? -22 : addon.netnsOpen(bytesOf(name));
  try {
    if (target < 0) fail(target, 'netns open', name);
    const error = addon.netnsEnter(target);
    if (error !== 0) fail(error, 'setns', name);
    try {
      const result = fn();
      if (result instanceof Promise) throw new TypeError('withNetns: fn must be synchronous');
      return result;
    } finally {
      if (addon.netnsEnter(home) !== 0) panic('withNetns: cannot return to the previous namespace');
    }
  } finally {
    if (target >= 0) addon.fdClose(target);
    addon.fdClose(home);
  }
}

/** Sets the loopback interface of the thread's namespace up. EPERM. */
export function loopbackUp(): void {
  const addon = loadAddon();
  const nl = addon.netlinkOpen(0);
  if (nl < 0) fail(nl, 'netlink', 'lo');
  const LO_INDEX = 1; // the first interface of every namespace
  const error = addon.linkSet(nl, LO_INDEX, 1, 1, 0);
  addon.fdClose(nl);
  if (error !== 0) fail(error, 'link up', 'lo');
}
