/** The memfd-backed arena: the physical memory of a machine with a real wire and disk. */

import { loadAddon } from '../../native-bindings/index.ts';
import { KASSERT } from '../sys/kassert.ts';
import { check } from './linux_errno.ts';

let current: ArrayBuffer | undefined;

/**
 * Allocates the isolate's arena, zeroed: 16 MiB to 4 GiB, a multiple of 4096 bytes. The
 * addon uses this arena from now on. An earlier arena stays readable until it is garbage collected,
 * but close its wires and pagers first. Do not transfer the buffer.
 * Throws TapnicError (EINVAL, ENOMEM).
 */
export function allocArena(bytes: number): ArrayBuffer {
  return take(loadAddon().arenaAlloc(bytes), 'memfd_create');
}

function take(result: ArrayBuffer | number, syscall: string): ArrayBuffer {
  if (typeof result !== 'number') return (current = result);
  check(result, syscall, 'arena');
  throw new TypeError('unreachable');
}

/** Panics unless the addon uses `arena`: offsets into another arena would address wrong bytes. */
export function assertCurrentArena(arena: ArrayBuffer): void {
  KASSERT(arena === current, 'host: not the arena allocArena returned last');
}
