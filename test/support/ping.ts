/** Runs Linux's ping and counts the replies with the kernel's own counter. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Netns } from './netns.ts';

function echoReplies(ns: Netns): number {
  const [names, values] = ns
    .exec('cat', ['/proc/net/snmp'])
    .split('\n')
    .filter((line) => line.startsWith('Icmp:'))
    .map((line) => line.split(' '));
  return Number(values![names!.indexOf('InEchoReps')]);
}

/**
 * Pings `addr` and returns how many replies Linux received. The count that ping prints can be too
 * low on a busy machine: after the first reply, ping waits for the last one only twice the longest
 * round trip so far, which can be shorter than a scheduling delay.
 */
export async function pinged(ns: Netns, addr: string, count: number, size = 56): Promise<number> {
  const before = echoReplies(ns);
  await ns.run('ping', ['-c', String(count), '-i', '0.005', '-W', '2', '-s', String(size), addr]);
  for (let i = 0; i < 40 && echoReplies(ns) - before < count; i++) await sleep(50);
  return echoReplies(ns) - before;
}
