/** A frame as `tcpdump -n -t` prints it. */

import type { Frame } from './frame.ts';

/** Texts of ICMP messages, by type. */
const ICMP: Readonly<Record<number, string>> = {
  0: 'echo reply',
  3: 'unreachable',
  5: 'redirect',
  8: 'echo request',
  11: 'time exceeded in-transit',
};
const ICMP6: Readonly<Record<number, string>> = {
  1: 'destination unreachable',
  2: 'packet too big',
  3: 'time exceeded in-transit',
  128: 'echo request',
  129: 'echo reply',
  130: 'multicast listener query',
  131: 'multicast listener report',
  133: 'router solicitation',
  134: 'router advertisement',
  135: 'neighbor solicitation',
  136: 'neighbor advertisement',
  137: 'redirect',
  143: 'multicast listener report v2',
};
const ECHO = [0, 8, 128, 129];

function tcpText({ tcp, payload }: Frame): string {
  const { flags, seq, ack, win, urg, options } = tcp!;
  const n = payload.length;
  const parts = [`Flags [${flags === '' ? 'none' : flags}]`];
  if (n > 0) parts.push(`seq ${seq}:${(seq + n) >>> 0}`);
  else if (/[SFR]/.test(flags)) parts.push(`seq ${seq}`);
  if (flags.includes('.')) parts.push(`ack ${ack}`);
  parts.push(`win ${win}`);
  if (flags.includes('U')) parts.push(`urg ${urg}`);
  if (options.length > 0) parts.push(`options [${options.join(',')}]`);
  parts.push(`length ${n}`);
  return parts.join(', ');
}

function icmpText({ icmp, protocol, payload }: Frame): string {
  const { type, id, seq, target } = icmp!;
  const six = protocol === 'icmp6';
  const name = (six ? ICMP6 : ICMP)[type] ?? `type-#${type}`;
  const parts = [six ? `ICMP6, ${name}` : `ICMP ${name}`];
  if (ECHO.includes(type)) parts.push(`id ${id}`, `seq ${seq}`);
  if (type === 135) parts.push(`who has ${target}`);
  if (type === 136) parts.push(`tgt is ${target}`);
  parts.push(`length ${payload.length + 8}`);
  return parts.join(', ');
}

function arpText({ arp, bytes }: Frame): string {
  const { op, sender, senderMac, target } = arp!;
  const length = bytes.length - 14;
  const what =
    op === 1
      ? `Request who-has ${target} tell ${sender}`
      : op === 2
        ? `Reply ${sender} is-at ${senderMac}`
        : `op ${op} ${sender} to ${target}`;
  return `ARP, ${what}, length ${length}`;
}

/** One line. */
export function frameText(f: Frame): string {
  const { protocol, payload } = f;
  if (protocol === 'ether') {
    const type = f.type.toString(16).padStart(4, '0');
    return `${f.src} > ${f.dst}, ethertype 0x${type}, length ${f.bytes.length}`;
  }
  if (protocol === 'arp') return arpText(f);
  const family = f.src.includes(':') ? 'IP6' : 'IP';
  const port = (n: number): string => (n < 0 ? '' : `.${n}`);
  const ends = `${family} ${f.src}${port(f.sport)} > ${f.dst}${port(f.dport)}: `;
  if (f.tcp !== null) return ends + tcpText(f);
  if (protocol === 'udp') return `${ends}UDP, length ${payload.length}`;
  if (f.icmp !== null) return ends + icmpText(f);
  const what = protocol === 'igmp' ? 'igmp' : `ip-proto-${f.type}`;
  const part = f.fragment < 0 ? '' : `, fragment at ${f.fragment}`;
  return `${ends}${what}${part}, length ${payload.length}`;
}
