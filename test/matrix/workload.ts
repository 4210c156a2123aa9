/**
 * The workload of a cell: files of sizes around the boundaries (page, 19 pages, segment, cluster,
 * limits for compressing and for copying), ranges of files, headers before them, several
 * connections at once, and one connection that its client aborts half-way.
 */

import { below, type SeededPrng } from '../../src/host/prng.ts';
import type { Cell } from './cells.ts';

const PAGE = 4096;
const PAGES_MAX = 19 * PAGE;
/**
 * Most bytes that mb_unmapped_compress compresses, and that tcp_output copies into the header mbuf.
 */
const COMPRESS_MAX = 224;
const COPY_MAX = 100;
const CLUSTER = 2048;
const TCPIP_HDR = 40;
const TCPIP6_HDR = 60;
const TIMESTAMPS = 12;

export interface Request {
  /** Index into the sizes. */
  readonly file: number;
  readonly offset: number;
  /** 0 means to the end of the file. */
  readonly nbytes: number;
  /** Bytes of header before the file. */
  readonly header: number;
}

export interface Workload {
  readonly sizes: readonly number[];
  /** A list of requests for each connection. */
  readonly conns: readonly (readonly Request[])[];
  /** The file of the connection that is aborted, and after how many bytes. */
  readonly aborted: { readonly file: number; readonly after: number };
}

/** Bytes of a request's file part. */
export function requestBytes({ sizes }: Workload, { file, offset, nbytes }: Request): number {
  const rest = sizes[file]! - offset;
  return nbytes === 0 ? rest : Math.min(nbytes, rest);
}

/** Bytes of the IP and TCP headers without options. */
export const headersOf = (six: boolean): number => (six ? TCPIP6_HDR : TCPIP_HDR);

/** The workload for an MTU. It depends only on the numbers from `prng`. */
export function makeWorkload(
  prng: SeededPrng,
  { mtu, six }: Pick<Cell, 'mtu' | 'six'>,
  connections: number,
): Workload {
  const mss = mtu - headersOf(six) - TIMESTAMPS;
  const edges = [COPY_MAX, COMPRESS_MAX, CLUSTER, mss, 2 * mss, PAGE, 2 * PAGE, PAGES_MAX];
  const sizes = [
    1,
    ...edges.flatMap((n) => [n - 1, n, n + 1]),
    2 * PAGES_MAX + 1 + below(prng, PAGE),
    PAGE + below(prng, PAGES_MAX),
  ];
  const requests: Request[] = sizes.map((_size, file) => ({
    file,
    offset: 0,
    nbytes: 0,
    header: below(prng, 3) === 0 ? 1 + below(prng, 300) : 0,
  }));
  const largest = sizes.indexOf(Math.max(...sizes));
  for (const at of [PAGE, PAGES_MAX])
    for (const near of [-1, 0, 1])
      requests.push({
        file: largest,
        offset: at + near,
        nbytes: 1 + below(prng, 2 * PAGE),
        header: 0,
      });
  // A range that ends at a boundary.
  requests.push({ file: largest, offset: 1, nbytes: PAGES_MAX - 1, header: 0 });
  for (let i = requests.length - 1; i > 0; i--) {
    const j = below(prng, i + 1);
    [requests[i], requests[j]] = [requests[j]!, requests[i]!];
  }
  const conns = Array.from({ length: connections }, (_none, c) =>
    requests.filter((_request, i) => i % connections === c),
  );
  return { sizes, conns, aborted: { file: largest, after: PAGES_MAX } };
}
