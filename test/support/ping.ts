/** Linux's ping, judged by the kernel's own count of replies. */

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
 * Pings `addr` and returns how many replies Linux received. Not what ping says: once it has any, it
 * waits for the last one only twice the longest round trip so far, which on a busy machine is less
 * than a turn of the scheduler.
 */
export async function pinged(ns: Netns, addr: string, count: number, size = 56): Promise<number> {
  const before = echoReplies(ns);
  await ns.run('ping', ['-c', String(count), '-i', '0.005', '-W', '2', '-s', String(size), addr]);
  for (let i = 0; i < 40 && echoReplies(ns) - before < count; i++) await sleep(50);
  return echoReplies(ns) - before;
}
