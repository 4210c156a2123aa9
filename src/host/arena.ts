/** The memfd-backed arena: physical memory of a machine that talks to the real world. */

import { loadAddon } from '../../native-bindings/index.ts';
import { KASSERT } from '../sys/kassert.ts';
import { check } from './linux_errno.ts';

let current: ArrayBuffer | undefined;

/**
 * Allocates the isolate's arena, zeroed: 16 MiB to 4 GiB, a multiple of 4096 bytes. The
 * addon means this one from now on; an arena before it stays readable until it is collected, but
 * wires and pagers made for it must be gone. Never transfer it: a worker attaches `arenaFd()`.
 * Throws TapnicError (EINVAL, ENOMEM).
 */
export function allocArena(bytes: number): ArrayBuffer {
  return take(loadAddon().arenaAlloc(bytes), 'memfd_create');
}

/** Maps the arena of another isolate of this process. Throws TapnicError (EBADF, EPERM). */
export function attachArena(fd: number): ArrayBuffer {
  return take(loadAddon().arenaAttach(fd), 'mmap');
}

/** The descriptor behind the arena, for `attachArena`. It stays the arena's: do not close it. */
export function arenaFd(): number {
  return check(loadAddon().arenaFd(), 'arenaFd');
}

function take(result: ArrayBuffer | number, syscall: string): ArrayBuffer {
  if (typeof result !== 'number') return (current = result);
  check(result, syscall, result === -22 ? 'memory is 16 MiB to 4 GiB in pages of 4096 bytes' : '');
  throw new TypeError('unreachable');
}

/** Panics unless `arena` is the one the addon means: offsets into another would hit the wrong bytes. */
export function assertCurrentArena(arena: ArrayBuffer): void {
  KASSERT(arena === current, 'host: not the arena allocArena returned last');
}
