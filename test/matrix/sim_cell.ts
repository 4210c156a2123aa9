/**
 * One cell on the simulated wire: a whole host runs the workload, and its bytes, counters and
 * frames are checked.
 */

import { expect } from 'chai';
import { SeededPrng } from '../../src/host/prng.ts';
import { nicModel } from '../../src/machine/nic_models.ts';
import { fileBytes } from '../kern/disk.ts';
import type { Call } from '../kern/sendfile_rig.ts';
import { decodeFrame, type TcpInfo } from '../support/frames.ts';
import { HOST_ADDR, type Reader } from '../support/reader.ts';
import { isSix, toFour } from '../support/six.ts';
import { type Conn, inWorld, type World, type WorldFile } from '../support/world.ts';
import { capWords, type Cell } from './cells.ts';
import { expectCounters } from './counters.ts';
import { cutUp, GSO_NONE, GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, virtioHeader } from './virtio.ts';
import { headersOf, makeWorkload, type Request, requestBytes, type Workload } from './workload.ts';

const ETHER_HDR = 14;
const MEMORY = 16 << 20;
/** RAM crosses the 4 GiB line, where 32-bit addresses end. */
const BASE = 2 ** 32 - MEMORY / 2;
const CONNECTIONS = 3;
const TIME_MS = 120_000;

/** A connection's requests, one after the other. */
class Stream {
  readonly conn: Conn;
  readonly expected: Uint8Array;
  readonly #w: World;
  readonly #files: readonly WorldFile[];
  readonly #load: Workload;
  readonly #left: Request[];
  #call: Call | null = null;

  constructor(w: World, load: Workload, files: readonly WorldFile[], requests: readonly Request[]) {
    this.#w = w;
    this.#load = load;
    this.#files = files;
    this.#left = [...requests];
    const mss = w.ifp.if_mtu - headersOf(w.port.six);
    this.conn = w.connect({ mss, window: 1 << 18 });
    this.expected = Buffer.concat(
      requests.flatMap((request) => {
        const { bytes } = files[request.file]!;
        const { offset } = request;
        const part = bytes.subarray(offset, offset + requestBytes(load, request));
        return [fileBytes(request.header, request.file + 7), part];
      }),
    );
  }

  /** Bytes of files requested so far. */
  get fileBytes(): number {
    return this.#fileBytes;
  }
  #fileBytes = 0;

  /** Starts the next request if the last one is done. Returns whether all has arrived. */
  turn(): boolean {
    while (this.#call === null || this.#call.heard.length > 0) {
      const [heard] = this.#call?.heard ?? [];
      if (heard !== undefined) expect(heard.error, 'sendfile').to.equal(0);
      const request = this.#left.shift();
      if (request === undefined) break;
      const { file, offset, nbytes, header } = request;
      this.#fileBytes += requestBytes(this.#load, request);
      this.#call = this.#w.sendfile(this.conn, this.#files[file]!, {
        offset,
        nbytes,
        ...(header === 0 ? {} : { headers: [fileBytes(header, file + 7)] }),
      });
      expect(this.#call.started, 'sendfile').to.equal(0);
    }
    return this.#left.length === 0 && this.conn.reader.length >= this.expected.length;
  }
}

/**
 * Takes the finished frames of a cell, of at most the MTU. tshark judges them later, with other
 * cells.
 */
export type FrameSink = (frame: Uint8Array) => void;

/** Runs `cell`; throws if bytes, counters or frames are not as the cell implies. */
export function runSimCell(cell: Cell, seed: number, sink: FrameSink): void {
  const model = nicModel(cell.model)!;
  const { mode, build, mtu, six } = cell;
  const options = {
    model,
    mode,
    build,
    mtu,
    six,
    caps: capWords(cell, model),
    useExtPgs: cell.extPgs,
    memory: MEMORY,
    base: BASE,
  };
  inWorld(options, (w) => {
    const load = makeWorkload(new SeededPrng(seed), cell, CONNECTIONS);
    const files = load.sizes.map((n) => w.file(n));
    const streams = load.conns.map((requests) => new Stream(w, load, files, requests));
    const gaveUp = abortOne(w, load, files);
    const done = (): boolean => streams.map((stream) => stream.turn()).every(Boolean);
    expect(w.until(done, TIME_MS), 'all arrives').to.equal(true);
    w.settle();

    for (const { conn, expected } of streams) expectBytes(conn.reader.received, expected);
    expectBytes(gaveUp.received, files[load.aborted.file]!.bytes.subarray(0, gaveUp.length));
    const sent = streams.reduce((n, stream) => n + stream.fileBytes, 0);
    expectCounters(w.m, cell, sent);
    const frames = finishedFrames(w, cell);
    for (const frame of frames) {
      expect(frame.length, 'frame').to.be.at.most(mtu + ETHER_HDR);
      sink(frame);
    }
    const segments = frames.map(tcpOf);
    for (const { conn, expected } of streams) expectStream(segments, conn.reader, expected);
  });
}

/** A client that aborts in the middle of a file. */
function abortOne(w: World, { aborted }: Workload, files: readonly WorldFile[]): Reader {
  const conn = w.connect({ mss: w.ifp.if_mtu - headersOf(w.port.six) });
  const call = w.sendfile(conn, files[aborted.file]!);
  expect(
    w.until(() => conn.reader.length >= aborted.after),
    'half arrives',
  ).to.equal(true);
  conn.reader.abort();
  expect(
    w.until(() => call.heard.length > 0),
    'the call ends',
  ).to.equal(true);
  return conn.reader;
}

function expectBytes(got: Uint8Array, want: Uint8Array): void {
  expect(got.length, 'bytes').to.equal(want.length);
  expect(Buffer.compare(got, want), 'content').to.equal(0);
}

/** The TCP segment of a frame of the host, or null. */
function tcpOf(frame: Uint8Array): TcpInfo | null {
  const four = isSix(frame) ? toFour(frame, false) : frame;
  if (four === null) return null;
  const { ip } = decodeFrame(four, { l4: 'none' });
  return ip?.src === HOST_ADDR ? (ip.tcp ?? null) : null;
}

/**
 * The host's frames after a receiver has segmented them and completed their checksums. Checks the
 * virtio-net headers.
 */
function finishedFrames(w: World, { mode, txcsum, tso, mtu, six }: Cell): Uint8Array[] {
  const { frames, vnetHeaders } = w.port;
  if (mode === 'wire') return frames;
  let supers = 0;
  const out = frames.flatMap((frame, i) => {
    const header = virtioHeader(vnetHeaders[i]!);
    if (tcpOf(frame) === null) return [frame];
    expect((header.flags & NEEDS_CSUM) !== 0, 'NEEDS_CSUM').to.equal(txcsum);
    if (header.gsoType !== GSO_NONE) {
      expect(header.gsoType, 'gso_type').to.equal(six ? GSO_TCPV6 : GSO_TCPV4);
      expect(header.gsoSize, 'gso_size').to.be.at.most(mtu - headersOf(six));
      supers++;
    }
    return cutUp(frame, header);
  });
  expect(supers > 0, `${supers} super-frames`).to.equal(tso);
  return out;
}

/** Checks that the data which `segments` carry to `reader` is `expected`. */
function expectStream(
  segments: readonly (TcpInfo | null)[],
  reader: Reader,
  expected: Uint8Array,
): void {
  const got = new Uint8Array(expected.length);
  const seen = new Uint8Array(expected.length);
  let base: number | null = null;
  for (const tcp of segments) {
    if (tcp?.dport !== reader.sport) continue;
    if (tcp.flags.includes('S')) base = (tcp.seq + 1) >>> 0;
    const at = (tcp.seq - (base ?? 0)) >>> 0;
    if (tcp.payload.length === 0) continue;
    got.set(tcp.payload, at);
    seen.fill(1, at, at + tcp.payload.length);
  }
  expect(seen.indexOf(0), 'first byte that no frame carried').to.equal(-1);
  expectBytes(got, expected);
}
