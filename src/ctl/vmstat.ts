/**
 * `vmstat -z`, after usr.bin/vmstat/vmstat.c: the zones of mbufs. FreeBSD shows the side
 * structures of unmapped mbufs, `mbuf_extpgs`, here and not in `netstat -m`. Not implemented: zones
 * of other subsystems, and the other options of vmstat(8).
 */

import { mbufZones } from '../kern/kern_mbuf.ts';

/** A zone in the output of `vmstat -z --json`. */
export interface ZoneLine {
  name: string;
  /** Bytes per item. */
  size: number;
  /** The largest number of items. */
  limit: number;
  used: number;
  free: number;
  /** Allocated items since boot, and denied requests. */
  requests: number;
  failures: number;
}

/** The zones, in order of creation. */
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

/** The table as FreeBSD prints it. The SLEEP column is always 0, because no request sleeps. */
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
