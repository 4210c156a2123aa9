/**
 * Proof of the path: checks what the instance, its driver and Linux's side of the TAP counted
 * during the runs of a figure. A figure whose counters contradict its claim is refused.
 */

import { request } from '../../src/cli/control_client.ts';
import type { InterfaceInfo } from '../../src/ctl/ifconfig.ts';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { Instance } from '../support/instance.ts';
import type { Fact } from './result.ts';

export type Engine = 'ts' | 'native';
export type Mode = 'wire' | 'vnet';
export type Family = 4 | 6;

export const FAMILIES: readonly Family[] = [4, 6];

const ETHER_HEADER = 14;
const PAGE_SIZE = 4096;

/** The transmit paths of file bytes; see ARMS. */
export type ArmName = 'default' | 'no-ext-pgs' | 'no-nomap' | 'no-txcsum' | 'write';

export interface Arm {
  readonly name: ArmName;
  /** The option that selects the arm, for tables. */
  readonly label: string;
  readonly args: readonly string[];
  /** Capabilities that must be on, and off. */
  readonly on: readonly string[];
  readonly off: readonly string[];
  /** Whether unmapped mbufs are converted in ip_output. */
  readonly converts: boolean;
  /** Whether every page is mapped at least once. */
  readonly maps: boolean;
  /** Whether the CPU sums every byte. */
  readonly sums: boolean;
  /** The server reads the file and writes it, without sendfile; see write_probe.ts. */
  readonly writes?: boolean;
}

/** Checksum and segmentation offload for both families. */
const OFFLOADS = ['TXCSUM', 'TSO4', 'TXCSUM_IPV6', 'TSO6'];

export const ARMS: readonly Arm[] = [
  {
    name: 'default',
    label: 'default',
    args: [],
    on: ['NOMAP', ...OFFLOADS],
    off: [],
    converts: false,
    maps: false,
    sums: false,
  },
  {
    name: 'no-ext-pgs',
    label: 'mb_use_ext_pgs=0',
    args: ['--sysctl', 'kern.ipc.mb_use_ext_pgs=0'],
    on: ['NOMAP', ...OFFLOADS],
    off: [],
    converts: false,
    maps: true,
    sums: false,
  },
  {
    name: 'no-nomap',
    label: '-nomap',
    args: ['--cap=-nomap'],
    on: [...OFFLOADS],
    off: ['NOMAP'],
    converts: true,
    maps: true,
    sums: false,
  },
  {
    name: 'no-txcsum',
    label: '-txcsum',
    args: ['--cap=-txcsum,-txcsum6'],
    on: ['NOMAP'],
    off: [...OFFLOADS],
    converts: true,
    maps: true,
    sums: true,
  },
  {
    name: 'write',
    label: 'read and write',
    args: [],
    on: ['NOMAP', ...OFFLOADS],
    off: [],
    converts: false,
    maps: false,
    sums: false,
    writes: true,
  },
];

/** The arm called `name`. */
export function armOf(name: ArmName): Arm {
  return ARMS.find((arm) => arm.name === name)!;
}

/** Largest part of the payload that FreeBSD may copy because it is small. */
const SMALL_MAX = 0.01;

export interface Counts {
  emulator: NetstatM['emulator'];
  sendfile: NetstatM['sendfile'];
  nic: InterfaceInfo;
  tap: { packets: number; bytes: number };
  /** Bytes of IP packets that Linux received in each family. */
  octets: Record<Family, number>;
}

/** Readings before and after each run of a figure. */
export type Span = readonly [before: Counts, after: Counts];

interface LinkStats {
  stats64: { rx: { packets: number; bytes: number } };
}

/** Linux's counters of the TAP, which are independent of ours. */
async function tapCounts(instance: Instance): Promise<Counts['tap']> {
  const args = ['-s', '-j', 'link', 'show', 'dev', instance.ready.tap];
  const links: LinkStats[] = JSON.parse(await instance.ns.execAsync('ip', args));
  const [link] = links;
  if (link === undefined) throw new Error(`no interface ${instance.ready.tap}`);
  return link.stats64.rx;
}

/** Linux's counters of received IP bytes in the namespace of the TAP. */
async function octetCounts(instance: Instance): Promise<Counts['octets']> {
  const files = ['/proc/net/netstat', '/proc/net/snmp6'];
  const text = await instance.ns.execAsync('cat', files);
  const [names = [], values = []] = text
    .split('\n')
    .filter((line) => line.startsWith('IpExt:'))
    .map((line) => line.split(' '));
  const ip6 = /^Ip6InOctets\s+(\d+)$/m.exec(text)?.[1];
  const octets = { 4: Number(values[names.indexOf('InOctets')]), 6: Number(ip6 ?? 0) };
  if (Number.isNaN(octets[4])) throw new Error('/proc/net/netstat has no InOctets');
  return octets;
}

/** Reads all counters through the control socket, and Linux's. */
export async function readCounts(instance: Instance): Promise<Counts> {
  const m = (await request(instance.control, 'netstat', { report: 'm' })) as NetstatM;
  const args = { if: instance.ready.if };
  const nic = (await request(instance.control, 'ifconfig', args)) as InterfaceInfo;
  const tap = await tapCounts(instance);
  const octets = await octetCounts(instance);
  return { emulator: m.emulator, sendfile: m.sendfile, nic, tap, octets };
}

/** Runs `work` between two readings, which it appends to `spans`. */
export async function counting<T>(
  instance: Instance,
  spans: Span[],
  work: () => Promise<T>,
): Promise<T> {
  const before = await readCounts(instance);
  const result = await work();
  spans.push([before, await readCounts(instance)]);
  return result;
}

/** What a figure claims about the runs between the readings. */
export interface Claim {
  family: Family;
  engine: Engine;
  mode: Mode;
  arm: ArmName;
  mtu: number;
  /** Payload bytes received. */
  bytes: number;
  /** Least number of sendfile(2) calls. */
  requests: number;
  /** Whether a NAPI thread receives the frames. Default: no. */
  napi?: boolean;
}

/** The growth of a counter during the runs. */
function grown(spans: readonly Span[], count: (c: Counts) => number): number {
  return spans.reduce((sum, [before, after]) => sum + count(after) - count(before), 0);
}

/** Payload bytes of file pages that the host CPU read, by reason, without the reasons that are 0. */
function cpuReads(spans: readonly Span[]): [string, number][] {
  const why = Object.keys(spans[0]?.[0].emulator.payload_bytes_read ?? {});
  const read = (c: Counts): Record<string, number> => c.emulator.payload_bytes_read;
  return why
    .map((name): [string, number] => [name, grown(spans, (c) => read(c)[name] ?? 0)])
    .filter(([, n]) => n !== 0);
}

/** What was counted in `spans`. */
function pathOf(
  { ready }: Instance,
  { family, bytes }: Claim,
  spans: readonly Span[],
  reads: readonly [string, number][],
) {
  const delta = (count: (c: Counts) => number): number => grown(spans, count);
  const tapFrames = delta((c) => c.tap.packets);
  const tapBytes = delta((c) => c.tap.bytes);
  const driverFrames = delta((c) => c.nic.counters['opackets'] ?? 0);
  return {
    engine: ready.engine,
    mode: ready.mode,
    napi: ready.napi,
    family: `IPv${family}`,
    options: spans.at(-1)?.[1].nic.options_names ?? [],
    sendfileCalls: delta((c) => c.sendfile.sf_syscalls),
    conversions: delta((c) => c.emulator.conversions + c.emulator.conversion_failures),
    payload_bytes_read: reads.map(([why, n]) => `${why} ${n}`),
    sf_bufs: delta((c) => c.emulator.sf_bufs.total),
    dmaBounced: delta((c) => c.emulator.dma.bounced),
    dmaFaults: delta((c) => c.emulator.dma.faults),
    bytes,
    driverFrames,
    tapFrames,
    tapBytes,
    familyBytes: delta((c) => c.octets[family]),
    bytesPerDriverFrame: Math.round(bytes / driverFrames),
    bytesPerTapFrame: Math.round(tapBytes / tapFrames),
  };
}

/** Proves `claim` by what was counted in `spans`; throws if it does not hold. */
export function provePath(
  instance: Instance,
  claim: Claim,
  spans: readonly Span[],
): Record<string, Fact> {
  const { family } = claim;
  const reads = cpuReads(spans);
  const path = pathOf(instance, claim, spans, reads);
  const { driverFrames, tapBytes } = path;
  const wrong: string[] = [];
  const must = (holds: boolean, what: string): void => {
    if (!holds) wrong.push(what);
  };
  const arm = armOf(claim.arm);
  must(path.engine === claim.engine, `engine ${path.engine}, not ${claim.engine}`);
  must(path.mode === claim.mode, `mode ${path.mode}, not ${claim.mode}`);
  const napi = claim.napi === true ? 'thread' : 'off';
  must(path.napi === napi, `napi ${path.napi}, not ${napi}`);
  for (const cap of arm.on) must(path.options.includes(cap), `${cap} is off`);
  for (const cap of arm.off) must(!path.options.includes(cap), `${cap} is on`);
  const calls = path.sendfileCalls;
  must(arm.writes === true ? calls === 0 : calls >= claim.requests, `${calls} sendfile calls`);
  const unmapped = `${path.conversions} conversions of unmapped mbufs`;
  must(path.conversions > 0 === arm.converts, unmapped);
  const pages = `${path.sf_bufs} pages mapped`;
  must(arm.maps ? path.sf_bufs >= claim.bytes / PAGE_SIZE : path.sf_bufs === 0, pages);
  must(path.dmaBounced === 0, `${path.dmaBounced} bounced pages`);
  must(path.dmaFaults === 0, `${path.dmaFaults} DMA faults`);
  // Payload that tcp_output copies because it is small is summed together with the header.
  const summed = reads.reduce((n, [, bytes]) => n + bytes, 0);
  if (arm.sums) must(summed >= claim.bytes, `only ${summed} bytes summed or copied by the CPU`);
  for (const [why, n] of reads) {
    if (arm.sums && why === 'checksum') continue;
    const most = why === 'small' ? claim.bytes * SMALL_MAX : 0;
    must(n <= most, `the CPU read ${n} file bytes: ${why}`);
  }
  must(tapBytes >= claim.bytes, `the TAP took ${tapBytes} bytes of ${claim.bytes}`);
  // The bytes arrived in packets of the family: the other one has headers and neighbours at most.
  must(path.familyBytes >= claim.bytes, `Linux received ${path.familyBytes} bytes of IPv${family}`);
  // With TSO the driver sends long frames in both modes. In mode wire the NIC segments them, in
  // mode vnet Linux does.
  const frameMax = claim.mtu + ETHER_HEADER;
  const tso = arm.on.includes('TSO4');
  must(!tso || driverFrames * frameMax * 2 < claim.bytes, `${driverFrames} frames sent: no TSO`);
  if (claim.mode === 'wire' || !tso)
    must(path.bytesPerTapFrame <= frameMax, `frames of ${path.bytesPerTapFrame} bytes on the TAP`);
  else must(path.bytesPerTapFrame > 2 * frameMax, 'no super-frames on the TAP');
  if (wrong.length > 0)
    throw new Error(
      `${claim.mode}, ${claim.engine}, IPv${family}, ${arm.label}: the path is not the claimed one: ${wrong.join('; ')}`,
    );
  return path;
}
