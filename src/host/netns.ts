/**
 * Named network namespaces, as `ip netns` lists them. Entering a namespace moves only the calling
 * thread, and only while a synchronous function runs. Descriptors opened in it stay in that
 * namespace; the rest of the process is not affected.
 */

import { readdirSync, statSync, readFileSync } from 'node:fs';
import { loadAddon } from '../../native-bindings/index.ts';
import { panic } from '../sys/kassert.ts';
import { check } from './linux_errno.ts';

function bytesOf(name: string): Uint8Array {
  return new TextEncoder().encode(name);
}

/**
 * Creates a namespace as `ip netns add` does. It contains only `lo`, down. EEXIST, EPERM, EINVAL.
 */
export function createNetns(name: string): void {
  check(loadAddon().netnsCreate(bytesOf(name)), `netns add ${name}`, 'netns add', { name });
}

/**
 * Removes the name. The kernel removes the namespace when its last user has left. ENOENT, EPERM.
 */
export function removeNetns(name: string): void {
  check(loadAddon().netnsRemove(bytesOf(name)), `netns delete ${name}`, 'netns delete', { name });
}

/**
 * Returns a descriptor of the namespace, which the caller closes with the addon's fdClose; null:
 * the namespace does not exist.
 */
export function openNetns(name: string): number | null {
  const fd = name === '' ? -1 : loadAddon().netnsOpen(bytesOf(name));
  return fd < 0 ? null : fd;
}

export function netnsExists(name: string): boolean {
  const fd = openNetns(name);
  if (fd !== null) loadAddon().fdClose(fd);
  return fd !== null;
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
  const home = check(
    addon.netnsOpen(new Uint8Array(0)),
    'netns open of this thread',
    'netns open',
    { name: 'of this thread' },
  );
  const target = name === '' ? -22 : addon.netnsOpen(bytesOf(name));
  try {
    check(target, `netns open ${name}`, 'netns open', { name });
    check(addon.netnsEnter(target), `setns ${name}`, 'netns enter', { name });
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

/**
 * Moves the thread into namespace `name`, until the returned function is called. Sockets and processes that the program
 * creates meanwhile are in it. Throws TapnicError (ENOENT, EPERM).
 */
export function enterNetns(name: string): () => void {
  const addon = loadAddon();
  const home = check(
    addon.netnsOpen(new Uint8Array(0)),
    'netns open of this thread',
    'netns open',
    {
      name: 'of this thread',
    },
  );
  const target = addon.netnsOpen(bytesOf(name));
  try {
    check(target, `netns open ${name}`, 'netns open', { name });
    check(addon.netnsEnter(target), `setns ${name}`, 'netns enter', { name });
  } catch (e) {
    addon.fdClose(home);
    throw e;
  } finally {
    if (target >= 0) addon.fdClose(target);
  }
  return () => {
    const error = addon.netnsEnter(home);
    addon.fdClose(home);
    if (error !== 0) panic('enterNetns: cannot return to the previous namespace');
  };
}

/** Sets the loopback interface of the thread's namespace up. EPERM. */
export function loopbackUp(): void {
  const addon = loadAddon();
  const nl = check(addon.netlinkOpen(0), 'netlink lo', 'route socket');
  const LO_INDEX = 1; // the first interface of every namespace
  const error = addon.linkSet(nl, LO_INDEX, 1, 1, 0);
  addon.fdClose(nl);
  check(error, 'link up lo', 'link', { name: 'lo' });
}
