/** Clients and counters for instances with several workers. */

import { expect } from 'chai';
import type { NetstatS } from '../../src/ctl/netstat_s.ts';
import type { Instance } from './instance.ts';
import type { Netns } from './netns.ts';

/** Runs `script` with Debian's Python, which has scapy; returns what it prints, parsed as JSON. */
export async function python<T>(ns: Netns, script: string, ...args: string[]): Promise<T> {
  const { status, stdout, stderr } = await ns.run('/usr/bin/python3', ['-c', script, ...args], {
    timeoutMs: 110_000,
  });
  expect(status, stderr).to.equal(0);
  const value: T = JSON.parse(stdout);
  return value;
}

/**
 * Fetches `url` by `n` curls at once, each on its own connection. Resolves with the number of each
 * checksum; curl's errors are in it too.
 */
export async function curls(ns: Netns, url: string, n: number): Promise<Record<string, number>> {
  const script = `for i in $(seq ${n}); do
      ( curl -sS -g --max-time 60 '${url}' 2>&1 | sha256sum | cut -d' ' -f1 ) &
    done; wait`;
  const { stdout } = await ns.run('sh', ['-c', script], { timeoutMs: 110_000 });
  const sums: Record<string, number> = {};
  for (const sum of stdout.trim().split('\n')) sums[sum] = (sums[sum] ?? 0) + 1;
  return sums;
}

/** The counters of the workers' exchange. */
export interface Handover {
  handedOver: number;
  handoverFull: number;
  received: number;
}

export async function statistics(tapnic: Instance): Promise<NetstatS> {
  return tapnic.json<NetstatS>('netstat', '-s');
}

export async function handover(tapnic: Instance): Promise<Handover> {
  const { protocols } = await statistics(tapnic);
  return protocols['workers'] as unknown as Handover;
}

/** The count of a reason. */
export async function reasonCount(tapnic: Instance, name: string): Promise<number> {
  const { reasons } = await statistics(tapnic);
  return reasons.find(({ reason }) => reason === name)!.count;
}
