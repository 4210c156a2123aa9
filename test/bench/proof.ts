/**
 * Proof of the path: what the instance, its driver and Linux's side of the TAP counted while the
 * bytes of a figure went through. A figure whose counters do not say what it claims is refused.
 */

import { request } from '../../src/cli/control_client.ts';
import type { InterfaceInfo } from '../../src/ctl/ifconfig.ts';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { Instance } from '../support/instance.ts';
import type { Fact } from './result.ts';

export type Engine = 'ts' | 'native';
export type Mode = 'wire' | 'vnet';

const ETHER_HEADER = 14;
/** Capabilities the path needs; off, the stack converts or sums in software. */
const NEEDED = ['NOMAP', 'TXCSUM', 'TSO4'];
/** Of the payload, at most this may be what FreeBSD copies itself for being small. */
const SMALL_MAX = 0.01;

interface Counts {
  emulator: NetstatM['emulator'];
  sendfile: NetstatM['sendfile'];
  nic: InterfaceInfo;
  tap: { packets: number; bytes: number };
}

interface LinkStats {
  stats64: { rx: { packets: number; bytes: number } };
}

/** Linux's counters of the TAP: a witness that is not ours. */
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

/** What is claimed of the runs between two readings. */
export interface Claim {
  engine: Engine;
  mode: Mode;
  mtu: number;
  /** Payload bytes received. */
  bytes: number;
  /** sendfile(2) calls at the least. */
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

/** Proves `claim` from what was counted between `before` and `after`; throws if it does not hold. */
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
  must(path.engine === claim.engine, `engine ${path.engine}, not ${claim.engine}`);
  must(path.mode === claim.mode, `mode ${path.mode}, not ${claim.mode}`);
  must(path.napi === 'off', `napi ${path.napi}, not off`);
  for (const cap of NEEDED) must(path.options.includes(cap), `${cap} is off`);
  must(path.sendfileCalls >= claim.requests, `${path.sendfileCalls} sendfile calls`);
  must(path.conversions === 0, `${path.conversions} conversions of unmapped mbufs`);
  must(path.sf_bufs === 0, `${path.sf_bufs} pages mapped`);
  must(path.dmaBounced === 0, `${path.dmaBounced} bounced pages`);
  must(path.dmaFaults === 0, `${path.dmaFaults} DMA faults`);
  for (const [why, n] of reads) {
    const most = why === 'small' ? claim.bytes * SMALL_MAX : 0;
    must(n <= most, `the CPU read ${n} file bytes: ${why}`);
  }
  must(tapBytes >= claim.bytes, `the TAP took ${tapBytes} bytes of ${claim.bytes}`);
  // The driver hands over TSO frames in both modes; who cuts them up tells the modes apart.
  const frameMax = claim.mtu + ETHER_HEADER;
  must(driverFrames * frameMax * 2 < claim.bytes, `${driverFrames} frames sent: no TSO`);
  if (claim.mode === 'wire')
    must(path.bytesPerTapFrame <= frameMax, `frames of ${path.bytesPerTapFrame} bytes on the TAP`);
  else must(path.bytesPerTapFrame > 2 * frameMax, 'no super-frames on the TAP');
  if (wrong.length > 0)
    throw new Error(
      `${claim.mode}, ${claim.engine}: the path is not the claimed one: ${wrong.join('; ')}`,
    );
  return path;
}
