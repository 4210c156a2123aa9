/**
 * Lines of packetdrill as patterns: `[+SECONDS] < or > FRAME ["PAYLOAD"]`. `>` is a frame that the stack sends, `<` one
 * that it receives. Frames are
 *
 *    FLAGS [SEQ:END(LENGTH)] [ack N] [win N] [urg N] [<OPTIONS>]     flags as tcpdump prints them
 *    udp (LENGTH)
 *    icmp TYPE [CODE], icmpv6 TYPE [CODE]                            names with _, or numbers
 *    arp request ADDR, arp reply                                     not in packetdrill
 *
 * Unlike packetdrill: what is left out is not compared, options too, and `*` matches any number. Absolute times and
 * ECN words are refused.
 */

import { TapnicError } from '../sys/errno.ts';
import type { FramePattern } from './pattern.ts';

const ICMP: Readonly<Record<string, number>> = {
  echo_reply: 0,
  unreachable: 3,
  redirect: 5,
  echo_request: 8,
  time_exceeded: 11,
  parameter_problem: 12,
};
const ICMP_CODES: Readonly<Record<string, number>> = {
  net_unreachable: 0,
  host_unreachable: 1,
  protocol_unreachable: 2,
  port_unreachable: 3,
  frag_needed: 4,
};
const ICMP6: Readonly<Record<string, number>> = {
  unreachable: 1,
  packet_too_big: 2,
  time_exceeded: 3,
  parameter_problem: 4,
  echo_request: 128,
  echo_reply: 129,
  router_solicitation: 133,
  router_advertisement: 134,
  neighbor_solicitation: 135,
  neighbor_advertisement: 136,
};
const ICMP6_CODES: Readonly<Record<string, number>> = {
  no_route: 0,
  admin_prohibited: 1,
  address_unreachable: 3,
  port_unreachable: 4,
};

const DIRECTIONS = { '<': 'in', '>': 'out' } as const;

type Draft = { -readonly [K in keyof FramePattern]: FramePattern[K] };

/** Reads one line from left to right. */
class Line {
  readonly #call: string;
  readonly #text: string;
  #rest: string;

  constructor(call: string, text: string) {
    this.#call = call;
    this.#text = text;
    this.#rest = text.trim();
  }

  /** Takes what `re`, anchored by `^`, matches, and the space after it; null: it does not. */
  take(re: RegExp): RegExpExecArray | null {
    const found = re.exec(this.#rest);
    if (found !== null) this.#rest = this.#rest.slice(found[0].length).trimStart();
    return found;
  }

  get ended(): boolean {
    return this.#rest === '';
  }

  fail(need: string): never {
    const at = this.ended ? 'at the end' : `at \`${this.#rest}\``;
    throw new TapnicError('EINVAL', this.#call, `\`${this.#text.trim()}\`: ${at}: ${need}`);
  }
}

/** `*` or a number. */
function number(text: string): number | undefined {
  return text === '*' ? undefined : Number(text);
}

function tcp(line: Line, p: Draft): void {
  p.protocol = 'tcp';
  const span = line.take(/^(\d+):(\d+)\((\d+)\)/);
  if (span !== null) {
    const [from, to, length] = [Number(span[1]), Number(span[2]), Number(span[3])];
    if ((from + length) % 2 ** 32 !== to)
      line.fail(`${span[0]}: ${from} and ${length} bytes are ${from + length}, not ${to}`);
    Object.assign(p, { seq: from, length });
  }
  for (const key of ['ack', 'win', 'urg'] as const) {
    const value = line.take(new RegExp(`^${key} (\\d+|\\*)(?=\\s|$)`));
    const n = value === null ? undefined : number(value[1]!);
    if (n !== undefined) p[key] = n;
  }
  const options = line.take(/^<([^>]*)>/);
  if (options !== null && options[1]!.trim() !== '...')
    p.options = options[1]!
      .split(',')
      .map((option) => option.trim())
      .filter((option) => option !== '');
}

function icmp(line: Line, p: Draft, six: boolean): void {
  p.protocol = six ? 'icmp6' : 'icmp';
  const [types, codes] = six ? [ICMP6, ICMP6_CODES] : [ICMP, ICMP_CODES];
  const word = line.take(/^\w+/)?.[0] ?? line.fail('a type of ICMP is needed');
  const type = /^\d+$/.test(word) ? Number(word) : types[word];
  if (type === undefined) line.fail(`${word}: none of ${Object.keys(types).join(', ')}`);
  p.icmpType = type!;
  const code = line.take(/^\w+/)?.[0];
  if (code === undefined) return;
  const n = /^\d+$/.test(code) ? Number(code) : codes[code];
  if (n === undefined) line.fail(`${code}: none of ${Object.keys(codes).join(', ')}`);
  p.icmpCode = n!;
}

function arp(line: Line, p: Draft): void {
  p.protocol = 'arp';
  const op = line.take(/^(request|reply)\b/)?.[1] ?? line.fail('request or reply is needed');
  p.arpOp = op === 'request' ? 1 : 2;
  const target = line.take(/^[\d.]+/)?.[0];
  if (target !== undefined) p.target = target;
}

function udp(line: Line, p: Draft): void {
  p.protocol = 'udp';
  const length = line.take(/^\((\d+|\*)\)/);
  const n = length === null ? undefined : number(length[1]!);
  if (n !== undefined) p.length = n;
}

function frame(line: Line, p: Draft): void {
  if (line.take(/^udp\b/) !== null) return udp(line, p);
  if (line.take(/^icmpv?6\b/) !== null) return icmp(line, p, true);
  if (line.take(/^icmp(v4)?\b/) !== null) return icmp(line, p, false);
  if (line.take(/^arp\b/) !== null) return arp(line, p);
  const flags = line.take(/^([FSRP.UEWe]+|-)(?=\s|$)/)?.[1];
  if (flags === undefined) line.fail('flags such as S. or one of udp, icmp, icmpv6, arp is needed');
  if (new Set(flags).size !== flags.length) line.fail(`${flags}: a flag is repeated`);
  p.flags = flags === '-' ? '' : flags;
  return tcp(line, p);
}

/** Parses a line. Throws TapnicError EINVAL that quotes the place of the fault. */
export function parseFrameLine(call: string, text: string): FramePattern {
  const line = new Line(call, text);
  const p: Draft = {};
  const time = line.take(/^\+(\d+(?:\.\d+)?|\.\d+)(?=\s)/);
  if (time !== null) p.afterMs = Number(time[1]) * 1000;
  const mark = line.take(/^[<>](?=\s)/)?.[0] ?? line.fail('`<` or `>` is needed');
  p.direction = DIRECTIONS[mark as '<' | '>'];
  frame(line, p);
  const payload = line.take(/^"(?:[^"\\]|\\.)*"/);
  if (payload !== null) {
    try {
      p.payload = JSON.parse(payload[0]) as string;
    } catch {
      line.fail(`${payload[0]}: the escapes of JSON are needed`);
    }
  }
  if (!line.ended) line.fail('nothing more is expected here');
  return p;
}
