/**
 * `netstat -m`, after usr.bin/netstat/mbuf.c: the memory of the network stack, and the counts of
 * sendfile(2). tapnic's own counts follow under a separate heading.
 */

import { dmaStats } from '../bus/bus_dma.ts';
import { mbEmulator, mbufZones } from '../kern/kern_mbuf.ts';
import { sfstat } from '../kern/sendfile_io.ts';
import { soStats } from '../kern/uipc_socket.ts';
import { payloadBytesRead, payloadReasons } from '../vm/payload.ts';
import { sfstatBufs } from '../vm/sf_buf.ts';
import { vmPageCounts } from '../vm/vm_page.ts';

/** Items or bytes in use, free in the cache, and their sum. */
export interface Usage {
  current: number;
  cache: number;
  total: number;
}

/** A zone's usage, its limit, and its number of denied requests. */
export interface ZoneUsage extends Usage {
  max: number;
  denied: number;
}

/** The 11 counters of kern.ipc.sfstat, in its order. */
export const SFSTAT_NAMES = [
  'sf_syscalls',
  'sf_noiocnt',
  'sf_iocnt',
  'sf_pages_read',
  'sf_pages_valid',
  'sf_rhpages_requested',
  'sf_rhpages_read',
  'sf_busy',
  'sf_allocfail',
  'sf_allocwait',
  'sf_pages_bogus',
] as const;
export type SfstatName = (typeof SFSTAT_NAMES)[number];

/** The output of `netstat -m --json`. */
export interface NetstatM {
  mbufs: ZoneUsage;
  clusters: ZoneUsage;
  jumbop: ZoneUsage;
  jumbo16: ZoneUsage;
  ext_pgs: { current: number; total: number };
  bytes: Usage;
  sendfile: Record<SfstatName, number>;
  /** Counts that FreeBSD does not have. */
  emulator: {
    unmapped_mbufs_current: number;
    conversions: number;
    conversion_failures: number;
    sf_bufs: { current: number; peak: number; total: number; max: number };
    payload_bytes_read: Record<(typeof payloadReasons)[number], number>;
    pages: { wired: number; cached: number; free: number; total: number; wired_file: number };
    dma: {
      loads: number;
      segments: number;
      bounced: number;
      defrags: number;
      faults: number;
      /** Number of loads by segment count, for counts that occurred; 128 includes larger counts. */
      histogram: Record<number, number>;
    };
    sockets: number;
  };
}

type Zone = ReturnType<typeof mbufZones>['mbuf' | 'clust'];

function zoneUsage(zone: Zone): ZoneUsage {
  const { current, cached, max, failures } = zone;
  return { current, cache: cached, total: current + cached, max, denied: failures };
}

/** Collects the report from the machine. */
export function gatherNetstatM(): NetstatM {
  const zones = mbufZones();
  const mbufs = zoneUsage(zones.mbuf);
  const clusters = zoneUsage(zones.clust);
  const jumbop = zoneUsage(zones.jumbop);
  const jumbo16 = zoneUsage(zones.jumbo16);
  const bytesOf = (count: keyof Usage): number =>
    mbufs[count] * zones.mbuf.size +
    clusters[count] * zones.clust.size +
    jumbop[count] * zones.jumbop.size +
    jumbo16[count] * zones.jumbo16.size;
  const pages = vmPageCounts();
  const reads = payloadReasons.map((name, reason) => [name, payloadBytesRead(reason)] as const);
  const { current, peak, total, max } = sfstatBufs;
  const { loads, segments, bounced, defrags, faults, segHist } = dmaStats;
  const histogram = Object.fromEntries(
    Array.from(segHist, (n, nsegs) => [nsegs, n] as const).filter(([, n]) => n > 0),
  );
  return {
    mbufs,
    clusters,
    jumbop,
    jumbo16,
    ext_pgs: { current: zones.extpgs.current, total: zones.extpgs.total },
    bytes: { current: bytesOf('current'), cache: bytesOf('cache'), total: bytesOf('total') },
    sendfile: Object.fromEntries(
      SFSTAT_NAMES.map((name) => [name, sfstat[name]]),
    ) as NetstatM['sendfile'],
    emulator: {
      unmapped_mbufs_current: mbEmulator.unmappedCurrent,
      conversions: mbEmulator.conversions,
      conversion_failures: mbEmulator.conversionFailures,
      sf_bufs: { current, peak, total, max },
      payload_bytes_read: Object.fromEntries(reads) as NetstatM['emulator']['payload_bytes_read'],
      pages: {
        wired: pages.wired,
        cached: pages.cached,
        free: pages.free,
        total: pages.total,
        wired_file: pages.wiredFile,
      },
      dma: { loads, segments, bounced, defrags, faults, histogram },
      sockets: soStats.current,
    },
  };
}

/** `300 x 1, 20 x 3`; `no` if the histogram is empty. */
function histogramText(histogram: Record<number, number>): string {
  const parts = Object.entries(histogram).map(([nsegs, n]) => `${n} x ${nsegs}`);
  return parts.length === 0 ? 'no' : parts.join(', ');
}

const kib = (bytes: number): string => `${Math.floor(bytes / 1024)}K`;
const usage = ({ current, cache, total }: Usage): string => `${current}/${cache}/${total}`;

/** FreeBSD's lines about sendfile, in FreeBSD's order. */
const SENDFILE_LINES: readonly (readonly [SfstatName, string])[] = [
  ['sf_syscalls', 'sendfile syscalls'],
  ['sf_noiocnt', 'sendfile syscalls completed without I/O request'],
  ['sf_iocnt', 'requests for I/O initiated by sendfile'],
  ['sf_pages_read', 'pages read by sendfile as part of a request'],
  ['sf_pages_valid', 'pages were valid at time of a sendfile request'],
  ['sf_pages_bogus', 'pages were valid and substituted to bogus page'],
  ['sf_rhpages_requested', 'pages were requested for read ahead by applications'],
  ['sf_rhpages_read', 'pages were read ahead by sendfile'],
  ['sf_busy', 'times sendfile encountered an already busy page'],
  ['sf_allocfail', 'requests for sfbufs denied'],
  ['sf_allocwait', 'requests for sfbufs delayed'],
];

/**
 * The report as FreeBSD prints it, then tapnic's counts. The packet secondary zone and the 9k zone
 * do not exist here and show 0. The sfbufs line appears because kern.ipc.nsfbufs exists.
 */
export function formatNetstatM(s: NetstatM): string {
  const { mbufs, clusters, jumbop, jumbo16, bytes, emulator } = s;
  const { sf_bufs: sf, pages, dma } = emulator;
  const reads = Object.entries(emulator.payload_bytes_read);
  return [
    `${usage(mbufs)} mbufs in use (current/cache/total)`,
    `${usage(clusters)}/${clusters.max} mbuf clusters in use (current/cache/total/max)`,
    `0/0 mbuf+clusters out of packet secondary zone in use (current/cache)`,
    `${usage(jumbop)}/${jumbop.max} 4k (page size) jumbo clusters in use (current/cache/total/max)`,
    `0/0/0/0 9k jumbo clusters in use (current/cache/total/max)`,
    `${usage(jumbo16)}/${jumbo16.max} 16k jumbo clusters in use (current/cache/total/max)`,
    `${kib(bytes.current)}/${kib(bytes.cache)}/${kib(bytes.total)} ` +
      `bytes allocated to network (current/cache/total)`,
    `${mbufs.denied}/${clusters.denied}/0 ` +
      `requests for mbufs denied (mbufs/clusters/mbuf+clusters)`,
    `0/0/0 requests for mbufs delayed (mbufs/clusters/mbuf+clusters)`,
    `0/0/0 requests for jumbo clusters delayed (4k/9k/16k)`,
    `${jumbop.denied}/0/${jumbo16.denied} requests for jumbo clusters denied (4k/9k/16k)`,
    `${sf.current}/${sf.peak}/${sf.max} sfbufs in use (current/peak/max)`,
    ...SENDFILE_LINES.map(([name, text]) => `${s.sendfile[name]} ${text}`),
    `tapnic's own counts, not in FreeBSD's report:`,
    `\t${s.ext_pgs.current}/${s.ext_pgs.total} mbuf_extpgs in use (current/total)`,
    `\t${emulator.unmapped_mbufs_current} unmapped mbufs in use`,
    `\t${emulator.conversions} unmapped chains converted, ${emulator.conversion_failures} failed`,
    `\t${sf.total} pages mapped`,
    `\t${reads.map(([, n]) => n).join('/')} ` +
      `file-page bytes read by the CPU (${reads.map(([name]) => name).join('/')})`,
    `\t${pages.wired}/${pages.cached}/${pages.free}/${pages.total} ` +
      `pages (wired/cached/free/total), ${pages.wired_file} wired with file data`,
    `\t${dma.loads}/${dma.segments}/${dma.bounced}/${dma.defrags}/${dma.faults} ` +
      `DMA (loads/segments/bounced/defrags/faults)`,
    `\t${histogramText(dma.histogram)} DMA loads by number of segments`,
    `\t${emulator.sockets} sockets`,
    '',
  ].join('\n');
}
