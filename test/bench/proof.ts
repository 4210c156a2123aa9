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

const ETHER_HEADER = 14;
const PAGE_SIZE = 4096;

/** The transmit paths of file bytes; see ARMS. */
export type ArmName = 'default' | 'no-ext-pgs' | 'no-nomap' | 'no-txcsum';

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
}

export const ARMS: readonly Arm[] = [
  {
    name: 'default',
    label: 'default',
    args: [],
    on: ['NOMAP', 'TXCSUM', 'TSO4'],
    off: [],
    converts: false,
    maps: false,
    sums: false,
  },
  {
    name: 'no-ext-pgs',
    label: 'mb_use_ext_pgs=0',
    args: ['--sysctl', 'kern.ipc.mb_use_ext_pgs=0'],
    on: ['NOMAP', 'TXCSUM', 'TSO4'],
    off: [],
    converts: false,
    maps: true,
    sums: false,
  },
  {
    name: 'no-nomap',
    label: '-nomap',
    args: ['--cap=-nomap'],
    on: ['TXCSUM', 'TSO4'],
    off: ['NOMAP'],
    converts: true,
    maps: true,
    sums: false,
  },
  {
    name: 'no-txcsum',
    label: '-txcsum',
    args: ['--cap=-txcsum'],
    on: ['NOMAP'],
    off: ['TXCSUM', 'TSO4'],
    converts: true,
    maps: true,
    sums: true,
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
}

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

/** Reads all counters through the control socket. */
export async function readCounts(instance: Instance): Promise<Counts> {
  const m = (await request(instance.control, 'netstat', { report: 'm' })) as NetstatM;
  const args = { if: instance.ready.if };
  const nic = (await request(instance.control, 'ifconfig', args)) as InterfaceInfo;
  return { emulator: m.emulator, sendfile: m.sendfile, nic, tap: await tapCounts(instance) };
}

/** What a figure claims about the runs between two readings. */
export interface Claim {
  engine: Engine;
  mode: Mode;
  arm: ArmName;
  mtu: number;
  /** Payload bytes received. */
  bytes: number;
  /** Least number of sendfile(2) calls. */
  requests: number;
}

/** Payload bytes of file pages that the host CPU read, by reason, without the reasons that are 0. */
function cpuReads(before: Counts, after: Counts): [string, number][] {
  return Object.entries(after.emulator.payload_bytes_read)
    .map(([why, n]): [string, number] => {
      const was: Record<string, number> = before.emulator.payload_bytes_read;
      return [why, n - (was[why] ?? 0)];
    })
    .filter(([, n]) => n !== 0);
}

/** Proves `claim` by what was counted between `before` and `after`; throws if it does not hold. */
export function provePath(
  instance: Instance,
  claim: Claim,
  before: Counts,
  after: Counts,
): Record<string, Fact> {
  const { ready } = instance;
  const reads = cpuReads(before, after);
  const delta = (count: (c: Counts) => number): number => count(after) - count(before);
  const tapFrames = delta((c) => c.tap.packets);
  const tapBytes = delta((c) => c.tap.bytes);
  const driverFrames = delta((c) => c.nic.counters['opackets'] ?? 0);
  const path = {
    engine: ready.engine,
    mode: ready.mode,
    napi: ready.napi,
    options: after.nic.options_names,
    sendfileCalls: delta((c) => c.sendfile.sf_syscalls),
    conversions: delta((c) => c.emulator.conversions + c.emulator.conversion_failures),
    payload_bytes_read: reads.map(([why, n]) => `${why} ${n}`),
    sf_bufs: delta((c) => c.emulator.sf_bufs.total),
    dmaBounced: delta((c) => c.emulator.dma.bounced),
    dmaFaults: delta((c) => c.emulator.dma.faults),
    bytes: claim.bytes,
    driverFrames,
    tapFrames,
    tapBytes,
    bytesPerDriverFrame: Math.round(claim.bytes / driverFrames),
    bytesPerTapFrame: Math.round(tapBytes / tapFrames),
  };
  const wrong: string[] = [];
  const must = (holds: boolean, what: string): void => {
    if (!holds) wrong.push(what);
  };
  const arm = armOf(claim.arm);
  must(path.engine === claim.engine, `engine ${path.engine}, not ${claim.engine}`);
  must(path.mode === claim.mode, `mode ${path.mode}, not ${claim.mode}`);
  must(path.napi === 'off', `napi ${path.napi}, not off`);
  for (const cap of arm.on) must(path.options.includes(cap), `${cap} is off`);
  for (const cap of arm.off) must(!path.options.includes(cap), `${cap} is on`);
  must(path.sendfileCalls >= claim.requests, `${path.sendfileCalls} sendfile calls`);
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
      `${claim.mode}, ${claim.engine}, ${arm.label}: the path is not the claimed one: ${wrong.join('; ')}`,
    );
  return path;
}
