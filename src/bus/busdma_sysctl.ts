/** hw.busdma.*: bounce zones by name, read-only, as FreeBSD has them. */

import { machineSysctl } from '../kern/kern_sysctl.ts';
import { bounceZones, type BounceZone, bouncePageCounts } from './busdma_bounce.ts';

const ZONE_COUNTERS = [
  ['total_bpages', 'Total bounce pages'],
  ['free_bpages', 'Free bounce pages'],
  ['reserved_bpages', 'Reserved bounce pages'],
  ['active_bpages', 'Active bounce pages'],
  ['total_bounced', 'Total bounce requests'],
  ['total_deferred', 'Total bounce requests that were deferred'],
] as const;

/** Adds a new zone's leaves to the machine's tree. */
export function busDmaZoneSysctl({ name }: BounceZone): void {
  const { tree } = machineSysctl;
  const base = `hw.busdma.${name}`;
  // The tree may still have this leaf from an earlier machine, if a test boots only a part of one.
  if (tree.find(`${base}.lowaddr`) !== undefined) return;
  const at = Number(name.slice('zone'.length));
  for (const [field, descr] of ZONE_COUNTERS)
    tree.int(`${base}.${field}`, descr, () => bounceZones[at]?.[field] ?? 0, null);
  tree.string(
    `${base}.lowaddr`,
    'Highest address that devices of this zone reach',
    () => `0x${(bounceZones[at]?.lowaddr ?? 0).toString(16)}`,
  );
  tree.int(
    `${base}.alignment`,
    'Alignment of the zone, bytes',
    () => bounceZones[at]?.alignment ?? 0,
    null,
  );
  tree.int(`${base}.domain`, 'memory domain', () => 0, null);
}

/** Adds the leaves that exist without a zone. Called at boot, after the tree was created. */
export function busDmaSysctlInit(): void {
  machineSysctl.tree.int(
    'hw.busdma.total_bpages',
    'Total bounce pages',
    () => bouncePageCounts().total,
    null,
  );
}
