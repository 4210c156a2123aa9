/** Formats output as sbin/ping prints it. Each function returns lines with their line feeds. */

import type { IcmpError } from './packet.ts';
import type { PingReply, PingStatistics } from './ping.ts';

const ms = (n: number): string => n.toFixed(3);

const sendErrors: Readonly<Record<string, string>> = {
  EACCES: 'Permission denied',
  EADDRNOTAVAIL: "Can't assign requested address",
  EHOSTDOWN: 'Host is down',
  EHOSTUNREACH: 'No route to host',
  EMSGSIZE: 'Message too long',
  ENETDOWN: 'Network is down',
  ENOBUFS: 'No buffer space available',
};

/** @param source our address; with IPv4 it is not printed */
export function printBegin(host: string, size: number, source: string | null = null): string {
  if (!host.includes(':')) return `PING ${host} (${host}): ${size} data bytes\n`;
  return `PING(${size + 48}=40+8+${size} bytes) ${source ?? '::'} --> ${host}\n`;
}

export function printReply(r: PingReply): string {
  const wrong =
    r.wrong === null
      ? ''
      : `wrong data byte #${r.wrong.at} should be 0x${r.wrong.sent.toString(16)} ` +
        `but was 0x${r.wrong.got.toString(16)}\n`;
  const dup = r.duplicate ? ' (DUP!)' : '';
  const [comma, hops] = r.from.includes(':') ? [',', 'hlim'] : [':', 'ttl'];
  return `${r.bytes} bytes from ${r.from}${comma} icmp_seq=${r.seq} ${hops}=${r.ttl} time=${ms(r.timeMs)} ms${dup}\n${wrong}`;
}

export function printIcmpError(e: IcmpError): string {
  return `${e.bytes} bytes from ${e.from}: ${e.text}\n`;
}

export function printSendError(code: string): string {
  return `ping: sendto: ${sendErrors[code] ?? code}\n`;
}

/** Requests without a reply, in percent; 0 if none was sent. */
export function lossPercent({ transmitted, received }: PingStatistics): number {
  return transmitted === 0 ? 0 : ((transmitted - received) * 100) / transmitted;
}

export function printStatistics(host: string, s: PingStatistics): string {
  const parts = [`${s.transmitted} packets transmitted`, `${s.received} packets received`];
  if (s.duplicates > 0) parts.push(`+${s.duplicates} duplicates`);
  if (s.transmitted > 0) parts.push(`${lossPercent(s).toFixed(1)}% packet loss`);
  if (s.late > 0) parts.push(`${s.late} packets out of wait time`);
  let text = `\n--- ${host} ping statistics ---\n${parts.join(', ')}\n`;
  if (s.rttMs !== null) {
    const { min, avg, max, stddev } = s.rttMs;
    text += `round-trip min/avg/max/stddev = ${ms(min)}/${ms(avg)}/${ms(max)}/${ms(stddev)} ms\n`;
  }
  return text;
}
