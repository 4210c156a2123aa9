/** What captures say about the machine that they were made on. */

import { arch, cpus, release, type, version } from 'node:os';

/** The operating system, as uname(1) prints it. */
export function hostOs(): string {
  return `${type()} ${release()} ${version()}`;
}

/** The processor. */
export function hostHardware(): string {
  return `${cpus()[0]?.model.trim() ?? 'unknown'} (${arch()})`;
}
