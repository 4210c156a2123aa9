/** Builds received packets from scripts, and compares sent packets with scripts. */

import {
  buildIcmp,
  buildIp4,
  buildTcp,
  buildUdp,
  decodeIp4,
  type Ip4Info,
  type TcpInfo,
} from '../support/frames.ts';
import type { EcnWord, IcmpSpec, TcpOption, TcpSpec, UdpSpec } from './parser.ts';

/** The state of one connection: addresses, and the numbers that scripts count from 0. */
export class Conn {
  readonly us: string;
  readonly peer: string;
  lport: number;
  rport: number;
  /** Initial sequence numbers on the wire; null before a SYN. */
  localIss: number | null = null;
  remoteIss: number | null = null;
  /** Sequence number of the last SYN received, whether it belongs to the connection or not. */
  lastSyn: number | null = null;
  /** Our timestamps: from the script's number to the number on the wire, and the first pair. */
  readonly ts = new Map<number, number>();
  tsFirst: { script: number; live: number } | null = null;

  constructor(us: string, peer: string, lport: number, rport: number) {
    this.us = us;
    this.peer = peer;
    this.lport = lport;
    this.rport = rport;
  }
}

const add = (a: number, b: number): number => (a + b) >>> 0;
const u16 = (n: number): number[] => [(n >>> 8) & 0xff, n & 0xff];
const u32 = (n: number): number[] => [...u16(n >>> 16), ...u16(n)];

function optionBytes(options: readonly TcpOption[], conn: Conn): number[] {
  const iss = conn.localIss ?? 0;
  const bytes = options.flatMap((o): number[] => {
    switch (o.kind) {
      case 'mss':
        return [2, 4, ...u16(o.value)];
      case 'wscale':
        return [3, 3, o.value];
      case 'sackOK':
        return [4, 2];
      case 'FO':
        return [34, 2 + o.cookie.length / 2, ...Buffer.from(o.cookie, 'hex')];
      case 'nop':
        return [1];
      case 'eol':
        return [0];
      case 'sack': {
        const edges = o.blocks.flatMap(([a, b]) => [...u32(add(iss, a)), ...u32(add(iss, b))]);
        return [5, 2 + edges.length, ...edges];
      }
      case 'TS': {
        const ecr = o.ecr === 0 ? 0 : conn.ts.get(o.ecr);
        if (ecr === undefined) throw new Error(`ecr ${o.ecr}: no packet sent had that TS val`);
        return [8, 10, ...u32(o.val), ...u32(ecr)];
      }
    }
  });
  while (bytes.length % 4 !== 0) bytes.push(0);
  return bytes;
}

const ECN_BITS: Readonly<Record<EcnWord, number>> = { noecn: 0, ect1: 1, ect0: 2, ect01: 2, ce: 3 };

/** Builds the packet that the peer sends according to `spec`. */
export function buildReceived(spec: TcpSpec, conn: Conn): Uint8Array {
  const syn = spec.flags.includes('S');
  if (syn) {
    conn.remoteIss ??= spec.seq;
    conn.lastSyn = spec.seq;
  }
  const { ip } = spec;
  const tos = ip.tos ?? (ip.ecn === undefined ? 0 : ECN_BITS[ip.ecn]);
  return buildTcp(
    { src: conn.peer, dst: conn.us, ttl: ip.ttl ?? 255, tos },
    {
      sport: conn.rport,
      dport: conn.lport,
      flags: spec.flags,
      seq: syn ? spec.seq : add(conn.remoteIss ?? 0, spec.seq),
      ack: spec.ack === null ? 0 : add(conn.localIss ?? 0, spec.ack),
      win: spec.win ?? 0,
      urp: spec.urg ?? 0,
      options: optionBytes(spec.options ?? [], conn),
      payload: new Uint8Array(spec.len),
    },
  );
}

/** Builds the datagram that the peer sends according to `spec`. */
export function buildDatagram({ ip, len }: UdpSpec, conn: Conn): Uint8Array {
  const tos = ip.tos ?? (ip.ecn === undefined ? 0 : ECN_BITS[ip.ecn]);
  return buildUdp(
    { src: conn.peer, dst: conn.us, ttl: ip.ttl ?? 255, tos },
    { sport: conn.rport, dport: conn.lport, payload: new Uint8Array(len) },
  );
}

/** Returns how a sent packet differs from `spec`, or an empty list. */
export function datagramFaults(spec: UdpSpec, bytes: Uint8Array): string[] {
  const { udp, tos, ttl } = decodeIp4(bytes);
  if (udp === undefined) return ['not a UDP packet'];
  const faults: string[] = [];
  if (udp.payload.length !== spec.len) faults.push(`${udp.payload.length} bytes, not ${spec.len}`);
  if (spec.ip.tos !== undefined && tos !== spec.ip.tos)
    faults.push(`tos ${tos}, not ${spec.ip.tos}`);
  if (spec.ip.ttl !== undefined && ttl !== spec.ip.ttl)
    faults.push(`ttl ${ttl}, not ${spec.ip.ttl}`);
  return faults;
}

/** An ICMP error that quotes our segment described in `spec`. */
export function buildIcmpError(spec: IcmpSpec, conn: Conn): Uint8Array {
  const seq = add(conn.localIss ?? 0, spec.seq);
  const l4 = [...u16(conn.lport), ...u16(conn.rport), ...u32(seq)];
  const quoted = buildIp4(
    { src: conn.us, dst: conn.peer, ttl: 255, len: 40 + spec.len, sum: 0 },
    6,
    l4,
  );
  const icmp = buildIcmp({
    type: spec.icmpType,
    code: spec.code,
    seq: spec.mtu,
    payload: quoted,
  });
  return buildIp4({ src: conn.peer, dst: conn.us, ttl: 255 }, 1, icmp);
}

/** The options of a segment in their order; each padding byte behind EOL counts as EOL. */
function optionsOf(tcp: TcpInfo): TcpOption[] {
  const list: TcpOption[] = [];
  let length = 0;
  for (const kind of tcp.optionKinds) {
    if (kind === 1) list.push({ kind: 'nop' });
    else if (kind === 2) list.push({ kind: 'mss', value: tcp.mss! });
    else if (kind === 3) list.push({ kind: 'wscale', value: tcp.wscale! });
    else if (kind === 4) list.push({ kind: 'sackOK' });
    else if (kind === 5) list.push({ kind: 'sack', blocks: tcp.sack! });
    else if (kind === 8) list.push({ kind: 'TS', val: tcp.ts!.val, ecr: tcp.ts!.ecr });
    else if (kind === 34) list.push({ kind: 'FO', cookie: tcp.fo! });
    const fo = 2 + (tcp.fo?.length ?? 0) / 2;
    const sizes: Record<number, number> = { 2: 4, 3: 3, 4: 2, 8: 10, 34: fo };
    length += kind === 5 ? 2 + 8 * tcp.sack!.length : (sizes[kind] ?? 1);
    if (kind === 0) for (let at = length - 1; at < tcp.hlen - 20; at++) list.push({ kind: 'eol' });
  }
  return list;
}

function optionText(o: TcpOption): string {
  switch (o.kind) {
    case 'mss':
    case 'wscale':
      return `${o.kind} ${o.value}`;
    case 'TS':
      return `TS val ${o.val} ecr ${o.ecr}`;
    case 'FO':
      return `FO ${o.cookie}`;
    case 'sack':
      return `sack ${o.blocks.map((b) => b.join(':')).join(' ')}`;
    case 'sackOK':
    case 'nop':
    case 'eol':
      return o.kind;
  }
}

/** A segment in the syntax of scripts, with numbers relative to the ISNs. */
export function segmentText(ip: Ip4Info, conn: Conn): string {
  const tcp = ip.tcp;
  if (tcp === undefined)
    return ip.udp === undefined ? `protocol ${ip.proto}` : `udp (${ip.udp.payload.length})`;
  const syn = tcp.flags.includes('S');
  const seq = syn ? 0 : add(tcp.seq, -(conn.localIss ?? 0));
  const ack = add(tcp.ack, -(conn.remoteIss ?? 0));
  const len = tcp.payload.length;
  const options = relativeOptions(tcp, conn).map(optionText).join(',');
  const ecn = ['', '[ect1] ', '[ect0] ', '[ce] '][ip.tos & 3]!;
  return (
    `${ecn}${tcp.flags === '' ? '-' : tcp.flags} ${seq}:${add(seq, len)}(${len})` +
    `${tcp.flags.includes('.') ? ` ack ${ack}` : ''} win ${tcp.win}` +
    `${tcp.urp > 0 ? ` urg ${tcp.urp}` : ''}${options === '' ? '' : ` <${options}>`}`
  );
}

/** The options, with SACK blocks relative to the peer's ISN. */
function relativeOptions(tcp: TcpInfo, conn: Conn): TcpOption[] {
  const iss = conn.remoteIss ?? 0;
  return optionsOf(tcp).map((o) =>
    o.kind === 'sack'
      ? { kind: 'sack', blocks: o.blocks.map(([a, b]) => [add(a, -iss), add(b, -iss)]) }
      : o,
  );
}

function sameOptions(want: readonly TcpOption[], tcp: TcpInfo, conn: Conn, tick: number): string[] {
  const got = relativeOptions(tcp, conn);
  const faults: string[] = [];
  const kinds = (list: readonly TcpOption[]): string => list.map(({ kind }) => kind).join(',');
  if (kinds(want) !== kinds(got)) return [`options <${kinds(got)}>, not <${kinds(want)}>`];
  want.forEach((w, i) => {
    const g = got[i]!;
    if (w.kind === 'TS' && g.kind === 'TS') {
      const first = (conn.tsFirst ??= { script: w.val, live: g.val });
      const known = conn.ts.get(w.val);
      if (w.val !== 0 && known === undefined) conn.ts.set(w.val, g.val);
      const gone = add(g.val, -first.live);
      if (tick > 0 && gone !== add(w.val, -first.script))
        faults.push(`TS val ${add(first.script, gone)}, not ${w.val}`);
      if (g.ecr !== w.ecr) faults.push(`TS ecr ${g.ecr}, not ${w.ecr}`);
    } else if (optionText(w) !== optionText(g)) {
      faults.push(`option ${optionText(g)}, not ${optionText(w)}`);
    }
  });
  return faults;
}

/**
 * Returns how a sent packet differs from `spec`, or an empty list. Stores ISN and timestamps in
 * `conn`. Throws if a length or a checksum is wrong.
 * @param tick microseconds per timestamp tick; 0 ignores the timestamps' values
 */
export function faultsOf(spec: TcpSpec, bytes: Uint8Array, conn: Conn, tick: number): string[] {
  const ip = decodeIp4(bytes);
  const { tcp } = ip;
  if (tcp === undefined) return ['not a TCP packet'];
  const faults: string[] = [];
  const same = (what: string, got: number | string, want: number | string | null): void => {
    if (want !== null && got !== want) faults.push(`${what} ${got}, not ${want}`);
  };
  const syn = tcp.flags.includes('S');
  same('flags', tcp.flags, spec.flags);
  if (faults.length > 0) return faults;
  if (syn) {
    // An answer to a different SYN starts a new connection.
    if (tcp.flags.includes('.') && conn.lastSyn !== null && conn.lastSyn !== conn.remoteIss) {
      conn.remoteIss = conn.lastSyn;
      conn.localIss = null;
    }
    conn.localIss ??= add(tcp.seq, -spec.seq);
    same('seq', add(tcp.seq, -conn.localIss), spec.seq);
    if (spec.ack !== null) same('ack', tcp.ack, spec.ack);
  } else {
    same('seq', add(tcp.seq, -(conn.localIss ?? 0)), spec.seq);
    if (spec.ack !== null) same('ack', add(tcp.ack, -(conn.remoteIss ?? 0)), spec.ack);
  }
  if (!tcp.flags.includes('.')) same('ack field', tcp.ack, 0);
  same('length', tcp.payload.length, spec.len);
  if (tcp.payload.some((byte) => byte !== 0)) faults.push('payload is not the zeros written');
  same('win', tcp.win, spec.win);
  same('urg', tcp.urp, spec.urg ?? 0);
  same('tos', ip.tos, spec.ip.tos ?? null);
  same('ttl', ip.ttl, spec.ip.ttl ?? null);
  const bits = ip.tos & 3;
  if (
    spec.ip.ecn === 'ect01' ? bits !== 1 && bits !== 2 : bits !== ECN_BITS[spec.ip.ecn ?? 'noecn']
  )
    if (spec.ip.ecn !== undefined || spec.ip.tos === undefined)
      faults.push(`ECN bits ${bits}, not ${spec.ip.ecn ?? 'noecn'}`);
  if (spec.options !== null) faults.push(...sameOptions(spec.options, tcp, conn, tick));
  return faults;
}
