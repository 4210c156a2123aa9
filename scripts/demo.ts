/**
 * The demonstration: sendfile sends a real file through unmapped mbufs, bus_dma and the emulated
 * NIC, and curl receives it over a TAP in a private namespace. Four arms:
 *
 *   default            unmapped mbufs up to the NIC's DMA
 *   mb_use_ext_pgs=0   one mapped mbuf per page, as before unmapped mbufs: the baseline
 *   -nomap             unmapped in the socket buffer, converted in ip_output
 *   -txcsum            converted and checksummed in software
 *
 * Each arm runs twice, and each run downloads over IPv4 and IPv6. The first run has no capture:
 * downloads with samples of the send buffer, then timed downloads. The second run captures the wire
 * during one download of each family, and tshark checks every frame. The SHA-256 of every download is
 * compared with that of the file. The status is 1 if a check fails.
 */

import { createHash, randomFillSync } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  createReadStream,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import Table from 'cli-table3';
import { Instance } from '../test/support/instance.ts';
import { missing } from '../test/support/needs.ts';
import { Netns } from '../test/support/netns.ts';
import { mbufsPerMB, watchSendBuffers } from '../test/support/send_buffers.ts';
import { assertCleanCapture } from '../test/support/tshark.ts';
import type { CaptureCounts } from '../test/support/tshark.ts';

const FILE_BYTES = 100 * 1024 * 1024;
/** A disk on a busy machine takes every frame at this rate, and the capture drops none. */
const CAPTURED_RATE = ['--limit-rate', '60M'];
const MTU = 1500;
const TIMED_RUNS = 3;
/** Downloads before the timed ones. */
const WARM_UP_RUNS = 2;
/** Milliseconds between two samples of the send buffer. */
const LOOK_MS = 10;
const MB = 1e6;
const GB = 1e9;

/** Reasons for which the host CPU may have read file bytes, as `netstat -m --json` names them. */
type Reads = Record<'small' | 'checksum' | 'copy' | 'bpf' | 'pio' | 'other', number>;

/** The part of `netstat -m --json` that the demo uses. */
interface NetstatM {
  emulator: {
    conversions: number;
    sf_bufs: { current: number; peak: number; total: number };
    payload_bytes_read: Reads;
    dma: { loads: number; segments: number };
  };
}

/** The part of `ifconfig IF --json` that the demo uses. */
interface Ifconfig {
  counters: { opackets: number };
}

interface Arm {
  name: string;
  args: string[];
}

const ARMS: Arm[] = [
  { name: 'default', args: [] },
  { name: 'mb_use_ext_pgs=0', args: ['--sysctl', 'kern.ipc.mb_use_ext_pgs=0'] },
  { name: '-nomap', args: ['--cap=-nomap'] },
  { name: '-txcsum', args: ['--cap=-txcsum,-txcsum6'] },
];

type Family = 4 | 6;
const FAMILIES: readonly Family[] = [4, 6];

/** The timed downloads of one family. */
interface Timed {
  sfBufs: number;
  reads: Reads;
  conversions: number;
  /** Counts loads for sending, not for receive buffers. */
  segsPerFrame: number;
  /** Median of the timed downloads. */
  seconds: number;
  cpuPerGB: number;
}

/** The results of one arm. */
interface Outcome {
  arm: string;
  /** Mean during the warm-up downloads; null if every sample was empty. */
  mbufsPerMB: number | null;
  timed: Record<Family, Timed>;
  capture: CaptureCounts;
  /** Failed checks. */
  faults: string[];
}

interface Original {
  dir: string;
  name: string;
  size: number;
  sha256: string;
}

function progress(text: string): void {
  process.stderr.write(`demo: ${text}\n`);
}

async function sha256Of(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk);
  return hash.digest('hex');
}

/** Creates a directory below `work` that contains only the file to serve. */
async function original(work: string, given: string | undefined): Promise<Original> {
  const dir = join(work, 'www');
  mkdirSync(dir);
  const name = given === undefined ? 'random.bin' : basename(given);
  const path = join(dir, name);
  if (given === undefined) {
    progress(`writing ${FILE_BYTES / MB} MB of random bytes`);
    const chunk = Buffer.allocUnsafe(1 << 20);
    const fd = openSync(path, 'w');
    for (let n = 0; n < FILE_BYTES; n += chunk.length) writeSync(fd, randomFillSync(chunk));
    closeSync(fd);
  } else {
    // Serve no other file of its directory. The server refuses symbolic links out of its directory.
    try {
      linkSync(given, path);
    } catch {
      copyFileSync(given, path);
    }
  }
  return { dir, name, size: statSync(path).size, sha256: await sha256Of(path) };
}

/** Nanoseconds of CPU that all threads of `pid` have used. */
function cpuNs(pid: number): number {
  let sum = 0;
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    try {
      const [onCpu = '0'] = readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ');
      sum += Number(onCpu);
    } catch {
      // The thread ended meanwhile. Threads of the pool do not end.
    }
  }
  return sum;
}

/** Downloads the file, checks it, and returns curl's seconds. */
async function download(
  instance: Instance,
  file: Original,
  out: string,
  family: Family,
  options: readonly string[] = [],
): Promise<number> {
  const url = instance.urlOf(file.name, family);
  const args = [...options, `-${family}`, '-o', out, '-w', '%{http_code} %{time_total}', url];
  const { status, stdout, stderr } = await instance.curl(...args);
  if (status !== 0) throw new Error(`curl: status ${status}: ${stderr.trim()}`);
  const [code = '', seconds = ''] = stdout.split(' ');
  if (code !== '200') throw new Error(`curl: HTTP status ${code}`);
  const sha256 = await sha256Of(out);
  rmSync(out);
  if (sha256 !== file.sha256) throw new Error(`SHA-256 is ${sha256}, not ${file.sha256}`);
  return Number(seconds);
}

/**
 * Downloads the file at full speed. Returns the mbufs per 10^6 bytes in the send buffer, the mean
 * over the whole downloads; null if every sample was empty.
 */
async function warmUp(instance: Instance, file: Original, out: string): Promise<number | null> {
  const downloads = async (): Promise<void> => {
    for (let i = 0; i < WARM_UP_RUNS; i++)
      for (const family of FAMILIES) await download(instance, file, out, family);
  };
  const fill = await watchSendBuffers(instance.control, downloads(), LOOK_MS);
  return fill.looks === 0 ? null : mbufsPerMB(fill);
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

/** Stops `instance`; adds a bad exit status and leaks to `faults`. */
async function stop(instance: Instance, faults: string[]): Promise<void> {
  const { code, leaked, stderr } = await instance.stop();
  if (code !== 0) faults.push(`exit status ${code}: ${stderr.trim().slice(-500)}`);
  if (leaked === null) faults.push('no exit line');
  else if (Object.keys(leaked).length > 0) faults.push(`leaked: ${JSON.stringify(leaked)}`);
}

function difference(after: Reads, before: Reads): Reads {
  return {
    small: after.small - before.small,
    checksum: after.checksum - before.checksum,
    copy: after.copy - before.copy,
    bpf: after.bpf - before.bpf,
    pio: after.pio - before.pio,
    other: after.other - before.other,
  };
}

/** Reads the counters that differ between the arms. */
async function counters(instance: Instance): Promise<NetstatM['emulator'] & { opackets: number }> {
  const { emulator } = await instance.json<NetstatM>('netstat', '-m');
  const { counters: counted } = await instance.json<Ifconfig>('ifconfig', instance.ready.if);
  return { ...emulator, opackets: counted.opackets };
}

/** Runs the arm without a capture. */
async function measure(
  { name, args }: Arm,
  file: Original,
  work: string,
): Promise<Omit<Outcome, 'capture'>> {
  using ns = new Netns();
  const faults: string[] = [];
  const instance = await Instance.start(ns, ['serve', file.dir, ...args]);
  // Warm up first, so that JIT compilation does not count as cost of a transfer.
  const mbufs = await warmUp(instance, file, join(work, 'out'));
  const timed = {
    4: await timedRuns(instance, file, join(work, 'out'), 4),
    6: await timedRuns(instance, file, join(work, 'out'), 6),
  };
  await stop(instance, faults);
  return { arm: name, mbufsPerMB: mbufs, timed, faults };
}

/** Downloads the file several times and returns the differences of the counters. */
async function timedRuns(
  instance: Instance,
  file: Original,
  out: string,
  family: Family,
): Promise<Timed> {
  const before = await counters(instance);
  const cpuBefore = cpuNs(instance.ready.pid);
  const seconds: number[] = [];
  for (let i = 0; i < TIMED_RUNS; i++) seconds.push(await download(instance, file, out, family));
  const cpu = cpuNs(instance.ready.pid) - cpuBefore;
  const after = await counters(instance);
  // The other loads were for receive buffers, which have one segment each.
  const frames = after.opackets - before.opackets;
  const buffers = after.dma.loads - before.dma.loads - frames;
  const segments = after.dma.segments - before.dma.segments - buffers;
  return {
    sfBufs: (after.sf_bufs.total - before.sf_bufs.total) / TIMED_RUNS,
    reads: difference(after.payload_bytes_read, before.payload_bytes_read),
    conversions: (after.conversions - before.conversions) / TIMED_RUNS,
    segsPerFrame: segments / frames,
    seconds: median(seconds),
    cpuPerGB: cpu / 1e9 / ((file.size * TIMED_RUNS) / GB),
  };
}

/** Runs the arm with a capture of the wire and checks every frame. */
async function judge(
  { args }: Arm,
  file: Original,
  work: string,
  faults: string[],
): Promise<CaptureCounts> {
  const capture = join(work, 'wire.pcap');
  {
    using ns = new Netns();
    const options = ['--capture', `wire=${capture}`, '--mtu', String(MTU)];
    const instance = await Instance.start(ns, ['serve', file.dir, ...args, ...options]);
    for (const family of FAMILIES)
      await download(instance, file, join(work, 'out'), family, CAPTURED_RATE);
    await stop(instance, faults);
  }
  const counts = await assertCleanCapture(capture, { mtu: MTU });
  if (counts.tcpPayload < FAMILIES.length * file.size)
    faults.push(`the capture misses file bytes: ${counts.tcpPayload} of 2 x ${file.size}`);
  rmSync(capture);
  return counts;
}

/** Checks the counters of the arms against each other; adds to their `faults`. */
function compare(outcomes: Outcome[], file: Original): void {
  const [dflt, mapped, nomap, txcsum] = outcomes;
  if (!dflt || !mapped || !nomap || !txcsum) throw new Error('an arm is missing');
  for (const family of FAMILIES) {
    const fault = ({ faults }: Outcome, text: string): void =>
      void faults.push(`IPv${family}: ${text}`);
    for (const [reason, bytes] of Object.entries(dflt.timed[family].reads))
      if (reason !== 'small' && bytes !== 0)
        fault(dflt, `the CPU read ${bytes} file bytes: ${reason}`);
    if (dflt.timed[family].conversions !== 0) fault(dflt, 'conversions on the unmapped path');
    if (mapped.timed[family].conversions !== 0) fault(mapped, 'conversions without unmapped mbufs');
    // Below 1 MB all segments may be small enough to be copied, which needs no conversion.
    if (file.size < MB) continue;
    for (const arm of [nomap, txcsum])
      if (arm.timed[family].conversions === 0) fault(arm, 'no conversions');
    // tcp_output copies small payloads into the header mbuf, where the checksum reads them.
    const { checksum, small } = txcsum.timed[family].reads;
    if (checksum + small < file.size * TIMED_RUNS)
      fault(txcsum, 'the software checksum did not read the whole file');
  }
  if (file.size < MB) return;
  if (dflt.mbufsPerMB !== null && mapped.mbufsPerMB !== null)
    if (mapped.mbufsPerMB < 5 * dflt.mbufsPerMB) mapped.faults.push('as few mbufs as unmapped');
}

function readsText(reads: Reads, runs: number): string {
  const parts = Object.entries(reads).filter(([, bytes]) => bytes !== 0);
  const each = parts.map(([reason, bytes]) => `${reason} ${Math.round(bytes / runs)}`);
  return each.length === 0 ? '0' : each.join('\n');
}

function print(outcomes: Outcome[], file: Original): void {
  const table = new Table({
    head: ['per download', ...outcomes.map(({ arm }) => arm)],
    colAligns: ['left', ...outcomes.map(() => 'right' as const)],
    style: { head: [], border: [] },
  });
  const row = (name: string, cell: (o: Outcome) => string): void => {
    table.push([name, ...outcomes.map(cell)]);
  };
  row('mbufs per MB in the socket buffer', (o) => o.mbufsPerMB?.toFixed(1) ?? '-');
  for (const family of FAMILIES) {
    const timed = (name: string, cell: (t: Timed) => string): void =>
      row(`IPv${family}: ${name}`, (o) => cell(o.timed[family]));
    timed('pages mapped (sf_bufs)', (t) => t.sfBufs.toFixed(0));
    timed('file-page bytes read by the CPU', (t) => readsText(t.reads, TIMED_RUNS));
    timed('conversions of unmapped chains', (t) => t.conversions.toFixed(0));
    timed('DMA segments per frame sent', (t) =>
      Number.isFinite(t.segsPerFrame) ? t.segsPerFrame.toFixed(1) : '-',
    );
    timed(`seconds (median of ${TIMED_RUNS})`, (t) => t.seconds.toFixed(2));
    // For a small file the CPU time is that of the connection, not of the bytes.
    timed('CPU seconds per GB', (t) => (file.size < MB ? '-' : t.cpuPerGB.toFixed(2)));
  }
  row('frames on the wire, all valid', (o) => String(o.capture.frames));
  row('longest frame, bytes', (o) => String(o.capture.frameMax));
  console.log(table.toString());
  console.log(`${file.name}: ${file.size} bytes, SHA-256 ${file.sha256}, received unchanged`);
  console.log(
    'Frames sent: what the driver passes to the NIC, with TSO up to 64 KB, which the NIC segments.',
  );
}

async function main(given: string | undefined): Promise<number> {
  const lacking = ['root', 'netns', 'tap', 'curl', 'tshark'].map(missing);
  const why = lacking.filter((what) => what !== null);
  if (why.length > 0) throw new Error(`missing: ${why.join('; ')}`);

  const work = mkdtempSync(join(tmpdir(), 'tapnic-demo-'));
  process.on('exit', () => rmSync(work, { recursive: true, force: true }));
  process.once('SIGINT', () => process.exit(130));

  const file = await original(work, given);
  const outcomes: Outcome[] = [];
  for (const arm of ARMS) {
    const size = `${(file.size / MB).toFixed(1)} MB`;
    progress(`${arm.name}: ${TIMED_RUNS} downloads of ${size} over IPv4, and over IPv6`);
    const measured = await measure(arm, file, work);
    progress(`${arm.name}: a download over each with the wire captured, checked by tshark`);
    outcomes.push({ ...measured, capture: await judge(arm, file, work, measured.faults) });
  }
  compare(outcomes, file);
  print(outcomes, file);
  const faults = outcomes.flatMap((o) => o.faults.map((fault) => `${o.arm}: ${fault}`));
  for (const fault of faults) console.error(`demo: FAILED: ${fault}`);
  return faults.length === 0 ? 0 : 1;
}

try {
  process.exitCode = await main(process.argv[2]);
} catch (error) {
  console.error(`demo: FAILED: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
