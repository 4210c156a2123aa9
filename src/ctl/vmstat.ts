/**
 * `vmstat -z`, after usr.bin/vmstat/vmstat.c: the zones that mbufs come from. It is where FreeBSD
 * shows the side structures of unmapped mbufs, `mbuf_extpgs`, which `netstat -m` does not. Left out:
 * zones of other subsystems, and all of vmstat(8) but -z.
 */

import { mbufZones } from '../kern/kern_mbuf.ts';

/** A zone as `vmstat -z --json` prints it. */
export interface ZoneLine {
  name: string;
  /** Bytes of an item. */
  size: number;
  /** Most items there may be. */
  limit: number;
  used: number;
  free: number;
  /** Items handed out since boot, and requests denied. */
  requests: number;
  failures: number;
}

/** The zones, in the order of their making. */
export function gatherZones(): ZoneLine[] {
  return Object.values(mbufZones()).map((zone) => ({
    name: zone.uz_name,
    size: zone.size,
    limit: zone.max,
    used: zone.current,
    free: zone.cached,
    requests: zone.requests,
    failures: zone.failures,
  }));
}

const HEAD = 'ITEM                   SIZE  LIMIT     USED     FREE      REQ FAIL SLEEP';

/** As FreeBSD prints it. SLEEP is always 0: allocations here do not wait. */
export function formatZones(zones: readonly ZoneLine[]): string {
  const cell = (n: number, width: number): string => String(n).padStart(width);
  const rows = zones.map((z) =>
    [
      `${`${z.name}:`.padEnd(20)} ${cell(z.size, 6)}`,
      ` ${cell(z.limit, 6)}`,
      cell(z.used, 8),
      cell(z.free, 8),
      cell(z.requests, 8),
      cell(z.failures, 4),
      cell(0, 4),
    ].join(','),
  );
  return [HEAD, '', ...rows, ''].join('\n');
}
