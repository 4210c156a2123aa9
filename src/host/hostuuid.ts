/** The UUID of an emulated host, kern.hostuuid: the same at each start, different on each machine. */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

/** The identifier of this machine: machine-id(5); '' without one. */
function machineId(): string {
  try {
    return readFileSync('/etc/machine-id', 'utf8').trim();
  } catch {
    return '';
  }
}

/**
 * The UUID of the emulated host `name` on this machine: a hash of the identifier, as machine-id(5)
 * recommends.
 */
export function stableHostuuid(name: string): string {
  const hash = createHash('sha256').update(`tapnic/${machineId()}/${name}`).digest('hex');
  const part = (from: number, to: number): string => hash.slice(from, to);
  return [part(0, 8), part(8, 12), `5${part(13, 16)}`, `8${part(17, 20)}`, part(20, 32)].join('-');
}
