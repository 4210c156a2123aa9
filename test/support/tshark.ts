/**
 * Checks captures with Wireshark's dissectors, so that our own code does not read what it wrote.
 * TCP streams are not reassembled and HTTP is not dissected: each frame is checked alone, and a
 * capture of 100 MB takes seconds.
 */

import { execFile, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

const execFileAsync = promisify(execFile);

const CHECK = [
  'ip.check_checksum:TRUE',
  'tcp.check_checksum:TRUE',
  'udp.check_checksum:TRUE',
  'tcp.desegment_tcp_streams:FALSE',
  'tcp.analyze_sequence_numbers:FALSE',
];
const checkArgs = [...CHECK.flatMap((pref) => ['-o', pref]), '--disable-protocol', 'http'];
/**
 * Payloads are random bytes, in which tshark's heuristics sometimes detect a protocol: decode them
 * as data.
 */
const NO_GUESSING = 'tcp udp'.split(' ').flatMap((proto) => ['-d', `${proto}.port==1-65535,data`]);

/**
 * Runs tshark on a capture and returns one array of field values per frame that matches `filter`.
 */
export async function tsharkFields(
  file: string,
  fields: string[],
  filter = '',
): Promise<string[][]> {
  const rows: string[][] = [];
  const args = filter === '' ? [] : ['-Y', filter];
  await eachRow(file, fields, args, (row) => rows.push(row));
  return rows;
}

function eachRow(
  file: string,
  fields: string[],
  extra: string[],
  row: (values: string[]) => void,
): Promise<void> {
  const args = ['-n', '-r', file, ...checkArgs, ...extra, '-T', 'fields', '-E', 'occurrence=f'];
  const child = spawn('tshark', [...args, ...fields.flatMap((field) => ['-e', field])], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString('utf8')));
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => row(line.split('\t')));
  const drained = new Promise((resolve) => lines.once('close', resolve));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => {
      // For a truncated file tshark prints the frames before the cut and exits with status 2.
      if (status !== 0) reject(new Error(`tshark ${file}: status ${status}: ${said.trim()}`));
      else void drained.then(() => resolve());
    });
  });
}

/** Contents of a clean capture, as frame counts unless stated otherwise. */
export interface CaptureCounts {
  frames: number;
  /** Bytes of all frames. */
  bytes: number;
  /** Length of the longest frame, in bytes, without FCS. */
  frameMax: number;
  ip: number;
  ip6: number;
  tcp: number;
  udp: number;
  icmp: number;
  arp: number;
  /** Bytes of TCP payload. */
  tcpPayload: number;
}

export interface CleanOptions {
  /** In bytes. A frame may be 14 bytes longer. */
  mtu: number;
}

const FIELDS = [
  'frame.number',
  'frame.len',
  'frame.cap_len',
  'frame.protocols',
  '_ws.malformed',
  'ip.src',
  'ipv6.src',
  'ip.checksum.status',
  'ip.frag_offset',
  'ip.flags.mf',
  'tcp.checksum.status',
  'tcp.checksum',
  'tcp.checksum_calculated',
  'udp.checksum.status',
  'icmp.checksum.status',
  'icmpv6.checksum.status',
  'tcp.len',
] as const;
type Field = (typeof FIELDS)[number];
/** Returns a field of one frame as tshark printed it, or an empty string. */
type Frame = (field: Field) => string;

const column = new Map<Field, number>(FIELDS.map((name, i) => [name, i]));

/** Addresses of the Linux side unless `--host-addr` and `--host-addr6` change them. */
const LINUX_ADDR = '192.0.2.1';
const LINUX_ADDR6 = '2001:db8::1';
const ETHER_HDR_LEN = 14;
const isSet = (value: string): boolean => value === '1' || value === 'True';
const isGood = (status: string): boolean => status === '1' || status === 'Good';
/** UDP over IPv4 may have no checksum: the field is 0. */
const isAbsent = (status: string): boolean => status === '3' || status === 'Not present';

/**
 * When Linux fills in a checksum late, it sends ffff instead of 0 for TCP as for UDP, once in 65536
 * frames. For a receiver both are the same number (RFC 1071, 1), so the frame is valid, but tshark
 * calls it bad. It is accepted here from the Linux side only.
 */
function isTcpSumGood(frame: Frame): boolean {
  if (isGood(frame('tcp.checksum.status'))) return true;
  return (
    (frame('ip.src') === LINUX_ADDR || frame('ipv6.src') === LINUX_ADDR6) &&
    Number(frame('tcp.checksum')) === 0xffff &&
    Number(frame('tcp.checksum_calculated')) === 0
  );
}

/** Checks one frame and adds it to `counts`. Returns the fault, or null. */
function judge(frame: Frame, mtu: number, counts: CaptureCounts): string | null {
  const len = Number(frame('frame.len'));
  counts.frames++;
  counts.bytes += len;
  counts.frameMax = Math.max(counts.frameMax, len);
  if (frame('_ws.malformed') !== '') return 'malformed';
  if (len > mtu + ETHER_HDR_LEN) return `${len} bytes, above the MTU of ${mtu}`;
  if (frame('frame.cap_len') !== frame('frame.len')) return 'cut short by the capture';

  // For example eth:ethertype:ip:tcp. In an ICMP error the protocols of the quoted packet follow.
  // IPv6 extension headers come before the transport: ipv6:ipv6.hopopts:tcp.
  const [, , network = '', ...inner] = frame('frame.protocols').split(':');
  const transport = inner.find((name) => !name.startsWith('ipv6.')) ?? '';
  if (network === 'arp') counts.arp++;
  else if (network === 'ipv6') {
    counts.ip6++;
    if (inner.includes('ipv6.fraghdr')) return null;
  } else if (network === 'ip') {
    counts.ip++;
    if (!isGood(frame('ip.checksum.status'))) return 'bad IP checksum';
    if (frame('ip.frag_offset') !== '0' || isSet(frame('ip.flags.mf'))) return null;
  } else return `not IP or ARP: ${frame('frame.protocols')}`;

  switch (transport) {
    case 'tcp':
      counts.tcp++;
      counts.tcpPayload += Number(frame('tcp.len'));
      return isTcpSumGood(frame) ? null : 'bad TCP checksum';
    case 'udp': {
      counts.udp++;
      const status = frame('udp.checksum.status');
      return isGood(status) || (network === 'ip' && isAbsent(status)) ? null : 'bad UDP checksum';
    }
    case 'icmp':
      counts.icmp++;
      return isGood(frame('icmp.checksum.status')) ? null : 'bad ICMP checksum';
    case 'icmpv6':
      counts.icmp++;
      return isGood(frame('icmpv6.checksum.status')) ? null : 'bad ICMPv6 checksum';
    default:
      return null;
  }
}

/**
 * Rejects unless `file` holds at least one frame, every IP, TCP, UDP and ICMP checksum in it is
 * valid, no frame is malformed or cut, and none is longer than the MTU allows.
 */
export async function assertCleanCapture(
  file: string,
  { mtu }: CleanOptions,
): Promise<CaptureCounts> {
  const counts: CaptureCounts = {
    frames: 0,
    bytes: 0,
    frameMax: 0,
    ip: 0,
    ip6: 0,
    tcp: 0,
    udp: 0,
    icmp: 0,
    arp: 0,
    tcpPayload: 0,
  };
  const wrong: string[] = [];
  let wrongCount = 0;
  await eachRow(file, [...FIELDS], NO_GUESSING, (values) => {
    const frame: Frame = (field) => values[column.get(field) ?? -1] ?? '';
    const why = judge(frame, mtu, counts);
    if (why === null) return;
    wrongCount++;
    if (wrong.length < 10) wrong.push(`frame ${frame('frame.number')}: ${why}`);
  });
  if (counts.frames === 0) throw new Error(`${file}: no frames`);
  if (wrongCount > 0)
    throw new Error(`${file}: ${wrongCount} of ${counts.frames} frames:\n${wrong.join('\n')}`);
  return counts;
}

/**
 * Returns the findings of tshark's TCP analysis: all of `tcp.analysis.flags` and every expert item
 * above a note, each as `frame SOURCE: messages`.
 */
export async function tcpRemarks(file: string): Promise<string[]> {
  const options = `-n -r ${file} -o tcp.desegment_tcp_streams:FALSE -T fields -E aggregator=;`;
  const fields = '-e frame.number -e ip.src -e _ws.expert.message';
  const filter = 'tcp.analysis.flags || _ws.expert.severity > note';
  const { stdout } = await execFileAsync(
    'tshark',
    [...`${options} ${fields}`.split(' '), ...NO_GUESSING, '-Y', filter],
    { maxBuffer: 256 << 20 },
  );
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.replace('\t', ' ').replace('\t', ': '));
}

/** Number of frames in a capture, counted by Wireshark's capinfos. */
export async function capinfosFrames(file: string): Promise<number> {
  const { stdout } = await execFileAsync('capinfos', ['-TrMc', file]);
  return Number(stdout.trim().split('\t').at(-1));
}

/** The lines that tcpdump prints for a capture, including its messages about bad checksums. */
export async function tcpdumpLines(file: string, filter: string[] = []): Promise<string[]> {
  const { stdout } = await execFileAsync('tcpdump', ['-nnvr', file, ...filter], {
    maxBuffer: 256 << 20,
  });
  return stdout.split('\n').filter((line) => line !== '');
}
