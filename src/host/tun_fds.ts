/** The open TAP and TUN descriptors of processes, from /proc. */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/**
 * The name of the interface of descriptor `fd` of process `pid`; empty if the interface was
 * deleted; null if the descriptor is not that of an interface.
 */
export function tunName(pid: string, fd: string): string | null {
  try {
    if (readlinkSync(`/proc/${pid}/fd/${fd}`) !== '/dev/net/tun') return null;
    const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8');
    return /^iff:\t(.*)$/m.exec(info)?.[1] ?? null;
  } catch {
    return null; // it is closed, or belongs to another user
  }
}

/** The descriptors of process `pid` that have the interface `dev` open. */
export function tunFds(pid: string, dev: string): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).filter((fd) => tunName(pid, fd) === dev);
  } catch {
    return []; // it ended, or belongs to another user
  }
}
