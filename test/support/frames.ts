/**
 * Builds and decodes Ethernet, ARP, IPv4, ICMP, UDP and TCP frames after the RFCs, without code of
 * the stack, so that the stack does not check itself. `decodeFrame` always checks every length and
 * checksum; its errors show the frame in hexadecimal.
 */

import { expect } from 'chai';

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const BROADCAST_MAC = 'ff:ff:ff:ff:ff:ff';

/** A decoded TCP header. */
export interface TcpInfo {
  sport: number;
  dport: number;
  seq: number;
  ack: number;
  /** Letters of FSRP.UEWA in that order, as tcpdump prints them; A is AE of accurate ECN. */
  flags: string;
  win: number;
  urp: number;
  /** Header bytes, options included. */
  hlen: number;
  mss?: number;
  wscale?: number;
  sackOk?: boolean;
  sack?: [number, number][];
  ts?: { val: number; ecr: number };
  /** The Fast Open cookie in hexadecimal, '' for a request. */
  fo?: string;
  /** Kinds of the options in order, NOP and EOL included. */
  optionKinds: number[];
  payload: Uint8Array;
}

export interface UdpInfo {
  sport: number;
  dport: number;
  payload: Uint8Array;
}

export interface IcmpInfo {
  type: number;
  code: number;
  /** Bytes 4 to 7: id and sequence number of echo, MTU of "fragmentation needed". */
  id: number;
  seq: number;
  payload: Uint8Array;
}

export interface Ip4Info {
  src: string;
  dst: string;
  hlen: number;
  tos: number;
  len: number;
  id: number;
  df: boolean;
  mf: boolean;
  /** Bytes. */
  fragOff: number;
  ttl: number;
  proto: number;
  options: Uint8Array;
  payload: Uint8Array;
  tcp?: TcpInfo;
  udp?: UdpInfo;
  icmp?: IcmpInfo;
}

export interface ArpInfo {
  op: number;
  sha: string;
  spa: string;
  tha: string;
  tpa: string;
}

export interface Frame {
  dst: string;
  src: string;
  type: number;
  vlan?: number;
  arp?: ArpInfo;
  ip?: Ip4Info;
  /** All bytes. */
  bytes: Uint8Array;
}

export interface DecodeOptions {
  /**
   * TCP and UDP checksums: `full` (default), `pseudo` (a packet before an offloading NIC: the field
   * holds the pseudo-header's sum), `none` (not checked).
   */
  l4?: 'full' | 'pseudo' | 'none';
  /** IP header checksum: `full` (default), or `none` for a packet before an offloading NIC. */
  l3?: 'full' | 'none';
}

// Bytes and numbers.

export function ip4(text: string): number[] {
  const parts = text.split('.').map(Number);
  expect(parts.length, text).to.equal(4);
  return parts;
}

export function mac(text: string): number[] {
  const parts = text.split(':').map((x) => parseInt(x, 16));
  expect(parts.length, text).to.equal(6);
  return parts;
}

const ip4Text = (b: Uint8Array, off: number): string => [...b.subarray(off, off + 4)].join('.');
const macText = (b: Uint8Array, off: number): string =>
  [...b.subarray(off, off + 6)].map((x) => x.toString(16).padStart(2, '0')).join(':');
const u16 = (n: number): number[] => [(n >>> 8) & 0xff, n & 0xff];
const u32 = (n: number): number[] => [(n >>> 24) & 0xff, (n >>> 16) & 0xff, ...u16(n)];
const get16 = (b: Uint8Array, off: number): number => b[off]! * 256 + b[off + 1]!;
const get32 = (b: Uint8Array, off: number): number => get16(b, off) * 65536 + get16(b, off + 2);

/** One's complement sum of big-endian words, folded, not complemented: RFC 1071, the naive way. */
export function naiveSum(bytes: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += bytes[i]! * 256 + (i + 1 < bytes.length ? bytes[i + 1]! : 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

const checksum = (bytes: ArrayLike<number>): number => 0xffff - naiveSum(bytes);

const pseudoHeader = (src: number[], dst: number[], proto: number, len: number): number[] => [
  ...src,
  ...dst,
  0,
  proto,
  ...u16(len),
];

/** Converts a string (UTF-8), an array or undefined to bytes. */
export function toBytes(data: string | ArrayLike<number> | undefined): Uint8Array {
  if (data === undefined) return new Uint8Array(0);
  return typeof data === 'string' ? new TextEncoder().encode(data) : Uint8Array.from(data);
}

// Building.

export interface EtherFields {
  dst: string;
  src: string;
  vlan?: number;
}

export function buildEther(e: EtherFields, type: number, payload: ArrayLike<number>): Uint8Array {
  const tag = e.vlan === undefined ? [] : [0x81, 0x00, ...u16(e.vlan)];
  const header = [...mac(e.dst), ...mac(e.src), ...tag, ...u16(type)];
  const out = new Uint8Array(header.length + payload.length);
  out.set(header);
  out.set(payload, header.length);
  return out;
}

export function buildArp(e: EtherFields, a: ArpInfo): Uint8Array {
  const body = [...u16(1), ...u16(0x0800), 6, 4, ...u16(a.op)];
  body.push(...mac(a.sha), ...ip4(a.spa), ...mac(a.tha), ...ip4(a.tpa));
  return buildEther(e, ETHERTYPE_ARP, body);
}

export interface Ip4Fields {
  src: string;
  dst: string;
  tos?: number;
  id?: number;
  df?: boolean;
  mf?: boolean;
  /** Bytes; a multiple of 8. */
  fragOff?: number;
  ttl?: number;
  /** A multiple of 4 bytes. */
  options?: ArrayLike<number>;
  /** For invalid packets: values that replace the right ones. */
  version?: number;
  hl?: number;
  len?: number;
  sum?: number;
}

/** An IPv4 packet, without Ethernet header. */
export function buildIp4(f: Ip4Fields, proto: number, payload: ArrayLike<number>): Uint8Array {
  const options = Array.from(f.options ?? []);
  const hlen = 20 + options.length;
  const off = ((f.df ?? false) ? 0x4000 : 0) | ((f.mf ?? false) ? 0x2000 : 0);
  const header = [
    ((f.version ?? 4) << 4) | (f.hl ?? hlen / 4),
    f.tos ?? 0,
    ...u16(f.len ?? hlen + payload.length),
    ...u16(f.id ?? 0),
    ...u16(off | ((f.fragOff ?? 0) / 8)),
    f.ttl ?? 64,
    proto,
    0,
    0,
    ...ip4(f.src),
    ...ip4(f.dst),
    ...options,
  ];
  const sum = f.sum ?? checksum(header);
  header[10] = sum >>> 8;
  header[11] = sum & 0xff;
  const out = new Uint8Array(header.length + payload.length);
  out.set(header);
  out.set(payload, header.length);
  return out;
}

export interface IcmpFields {
  type: number;
  code?: number;
  id?: number;
  seq?: number;
  payload?: string | ArrayLike<number>;
  sum?: number;
}

export function buildIcmp(f: IcmpFields): Uint8Array {
  const payload = toBytes(f.payload);
  const out = Uint8Array.from([f.type, f.code ?? 0, 0, 0, ...u16(f.id ?? 0), ...u16(f.seq ?? 0)]);
  const all = new Uint8Array(8 + payload.length);
  all.set(out);
  all.set(payload, 8);
  all.set(u16(f.sum ?? checksum(all)), 2);
  return all;
}

export interface UdpFields {
  sport: number;
  dport: number;
  payload?: string | ArrayLike<number>;
  sum?: number;
}

export function buildUdp(ip: Ip4Fields, f: UdpFields): Uint8Array {
  const payload = toBytes(f.payload);
  const len = 8 + payload.length;
  const all = new Uint8Array(len);
  all.set([...u16(f.sport), ...u16(f.dport), ...u16(len), 0, 0]);
  all.set(payload, 8);
  const sum = checksum([...pseudoHeader(ip4(ip.src), ip4(ip.dst), 17, len), ...all]);
  all.set(u16(f.sum ?? (sum === 0 ? 0xffff : sum)), 6);
  return buildIp4(ip, 17, all);
}

/** Flag letters by bit, FIN first, in the order in which tcpdump prints them. */
const FLAG_LETTERS = 'FSRP.UEWA';

export interface TcpFields {
  sport: number;
  dport: number;
  seq?: number;
  ack?: number;
  /** tcpdump's letters, e.g. `S`, `P.`, `F.`; any order. Default `.`. */
  flags?: string;
  win?: number;
  urp?: number;
  mss?: number;
  wscale?: number;
  sackOk?: boolean;
  sack?: [number, number][];
  ts?: { val: number; ecr: number };
  /** Raw option bytes in place of those above. */
  options?: ArrayLike<number>;
  payload?: string | ArrayLike<number>;
  sum?: number;
  /** Replaces the right data offset, in words. */
  off?: number;
}

function tcpOptions(f: TcpFields): number[] {
  if (f.options !== undefined) return Array.from(f.options);
  const o: number[] = [];
  if (f.mss !== undefined) o.push(2, 4, ...u16(f.mss));
  if (f.sackOk === true) o.push(4, 2);
  if (f.ts !== undefined) o.push(8, 10, ...u32(f.ts.val), ...u32(f.ts.ecr));
  if (f.wscale !== undefined) o.push(3, 3, f.wscale);
  if (f.sack !== undefined)
    o.push(5, 2 + 8 * f.sack.length, ...f.sack.flatMap(([a, b]) => [...u32(a), ...u32(b)]));
  while (o.length % 4 !== 0) o.push(1);
  return o;
}

/** An IPv4 packet with a TCP segment in it. */
export function buildTcp(ip: Ip4Fields, f: TcpFields): Uint8Array {
  const payload = toBytes(f.payload);
  const options = tcpOptions(f);
  const hlen = 20 + options.length;
  let bits = 0;
  for (const letter of f.flags ?? '.') {
    const bit = FLAG_LETTERS.indexOf(letter);
    expect(bit, `flag ${letter}`).to.be.at.least(0);
    bits |= 1 << bit;
  }
  const all = new Uint8Array(hlen + payload.length);
  all.set([...u16(f.sport), ...u16(f.dport), ...u32(f.seq ?? 0), ...u32(f.ack ?? 0)]);
  all.set(
    [
      ((f.off ?? hlen / 4) << 4) | (bits >> 8),
      bits & 0xff,
      ...u16(f.win ?? 65535),
      0,
      0,
      ...u16(f.urp ?? 0),
    ],
    12,
  );
  all.set(options, 20);
  all.set(payload, hlen);
  const pseudo = pseudoHeader(ip4(ip.src), ip4(ip.dst), 6, all.length);
  all.set(u16(f.sum ?? 0xffff - addSums(naiveSum(pseudo), naiveSum(all))), 16);
  return buildIp4(ip, 6, all);
}

function addSums(a: number, b: number): number {
  const sum = a + b;
  return sum > 0xffff ? sum - 0xffff : sum;
}

// Decoding.

class FrameError extends Error {
  constructor(what: string, bytes: Uint8Array) {
    super(`${what}\n  ${hex(bytes)}`);
  }
}

function hex(bytes: Uint8Array): string {
  const shown = [...bytes.subarray(0, 128)].map((x) => x.toString(16).padStart(2, '0')).join('');
  return `${bytes.length} bytes: ${shown.replace(/(.{4})/g, '$1 ')}`;
}

function decodeTcp(b: Uint8Array): TcpInfo {
  if (b.length < 20) throw new FrameError('TCP header cut short', b);
  const hlen = (b[12]! >>> 4) * 4;
  if (hlen < 20 || hlen > b.length) throw new FrameError(`TCP data offset ${hlen}`, b);
  const bits = b[13]! | ((b[12]! & 1) << 8);
  const tcp: TcpInfo = {
    sport: get16(b, 0),
    dport: get16(b, 2),
    seq: get32(b, 4),
    ack: get32(b, 8),
    flags: Array.from(FLAG_LETTERS)
      .filter((_, i) => (bits & (1 << i)) !== 0)
      .join(''),
    win: get16(b, 14),
    urp: get16(b, 18),
    hlen,
    optionKinds: [],
    payload: b.slice(hlen),
  };
  for (let i = 20; i < hlen;) {
    const kind = b[i]!;
    tcp.optionKinds.push(kind);
    if (kind === 0) break;
    if (kind === 1) {
      i++;
      continue;
    }
    const len = b[i + 1] ?? 0;
    if (len < 2 || i + len > hlen) throw new FrameError(`TCP option ${kind} of ${len} bytes`, b);
    const want = ({ 2: 4, 3: 3, 4: 2, 8: 10 } as Record<number, number>)[kind];
    if (want !== undefined && want !== len)
      throw new FrameError(`TCP option ${kind} of ${len} bytes, not ${want}`, b);
    if (kind === 2) tcp.mss = get16(b, i + 2);
    if (kind === 3) tcp.wscale = b[i + 2]!;
    if (kind === 4) tcp.sackOk = true;
    if (kind === 5) {
      tcp.sack = [];
      for (let at = i + 2; at + 8 <= i + len; at += 8)
        tcp.sack.push([get32(b, at), get32(b, at + 4)]);
    }
    if (kind === 34) tcp.fo = Buffer.from(b.subarray(i + 2, i + len)).toString('hex');
    if (kind === 8) tcp.ts = { val: get32(b, i + 2), ecr: get32(b, i + 6) };
    i += len;
  }
  return tcp;
}

function checkL4(b: Uint8Array, l4: Uint8Array, proto: number, mode: string): void {
  if (mode === 'none') return;
  const at = proto === 6 ? 16 : 6;
  const src = [...b.subarray(12, 16)];
  const dst = [...b.subarray(16, 20)];
  const pseudo = naiveSum(pseudoHeader(src, dst, proto, l4.length));
  const name = proto === 6 ? 'TCP' : 'UDP';
  if (mode === 'pseudo') {
    if (get16(l4, at) !== pseudo)
      throw new FrameError(
        `${name} checksum field does not hold the pseudo-header sum ${pseudo}`,
        b,
      );
    return;
  }
  if (proto === 17 && get16(l4, at) === 0) return;
  if (addSums(pseudo, naiveSum(l4)) !== 0xffff) throw new FrameError(`${name} checksum wrong`, b);
}

/** Decodes an IPv4 packet; throws on any wrong length or checksum. Trailing bytes are padding. */
export function decodeIp4(bytes: Uint8Array, options: DecodeOptions = {}): Ip4Info {
  if (bytes.length < 20) throw new FrameError('IP header cut short', bytes);
  if (bytes[0]! >>> 4 !== 4) throw new FrameError('not IPv4', bytes);
  const hlen = (bytes[0]! & 15) * 4;
  const len = get16(bytes, 2);
  if (hlen < 20 || hlen > len || len > bytes.length)
    throw new FrameError(`IP lengths: header ${hlen}, packet ${len}`, bytes);
  const b = bytes.subarray(0, len);
  if ((options.l3 ?? 'full') === 'full' && naiveSum(b.subarray(0, hlen)) !== 0xffff)
    throw new FrameError('IP header checksum wrong', bytes);
  const off = get16(b, 6);
  const ip: Ip4Info = {
    src: ip4Text(b, 12),
    dst: ip4Text(b, 16),
    hlen,
    tos: b[1]!,
    len,
    id: get16(b, 4),
    df: (off & 0x4000) !== 0,
    mf: (off & 0x2000) !== 0,
    fragOff: (off & 0x1fff) * 8,
    ttl: b[8]!,
    proto: b[9]!,
    options: b.slice(20, hlen),
    payload: b.slice(hlen),
  };
  if (ip.mf || ip.fragOff > 0) return ip;
  const l4 = ip.payload;
  if (ip.proto === 1) {
    if (l4.length < 8) throw new FrameError('ICMP cut short', b);
    if (naiveSum(l4) !== 0xffff) throw new FrameError('ICMP checksum wrong', b);
    ip.icmp = {
      type: l4[0]!,
      code: l4[1]!,
      id: get16(l4, 4),
      seq: get16(l4, 6),
      payload: l4.slice(8),
    };
  } else if (ip.proto === 6) {
    ip.tcp = decodeTcp(l4);
    checkL4(b, l4, 6, options.l4 ?? 'full');
  } else if (ip.proto === 17) {
    if (l4.length < 8) throw new FrameError('UDP cut short', b);
    if (get16(l4, 4) !== l4.length) throw new FrameError('UDP length wrong', b);
    checkL4(b, l4, 17, options.l4 ?? 'full');
    ip.udp = { sport: get16(l4, 0), dport: get16(l4, 2), payload: l4.slice(8) };
  }
  return ip;
}

/** Decodes an Ethernet frame; throws on any wrong length or checksum. */
export function decodeFrame(bytes: Uint8Array, options: DecodeOptions = {}): Frame {
  if (bytes.length < 14) throw new FrameError('Ethernet header cut short', bytes);
  let type = get16(bytes, 12);
  let at = 14;
  const frame: Frame = { dst: macText(bytes, 0), src: macText(bytes, 6), type, bytes };
  if (type === 0x8100) {
    frame.vlan = get16(bytes, 14);
    type = frame.type = get16(bytes, 16);
    at = 18;
  }
  const body = bytes.subarray(at);
  if (type === ETHERTYPE_IPV4) frame.ip = decodeIp4(body, options);
  if (type === ETHERTYPE_ARP) {
    if (body.length < 28 || get32(body, 0) !== 0x00010800 || get16(body, 4) !== 0x0604)
      throw new FrameError('ARP header', bytes);
    frame.arp = {
      op: get16(body, 6),
      sha: macText(body, 8),
      spa: ip4Text(body, 14),
      tha: macText(body, 18),
      tpa: ip4Text(body, 24),
    };
  }
  return frame;
}

/** Formats a frame as one line, as tcpdump -n prints it. */
export function formatFrame(f: Frame): string {
  const vlan = f.vlan === undefined ? '' : `vlan ${f.vlan & 0xfff}, `;
  if (f.arp !== undefined) {
    const { op, sha, spa, tpa } = f.arp;
    return op === 1
      ? `${vlan}ARP, Request who-has ${tpa} tell ${spa}`
      : `${vlan}ARP, Reply ${spa} is-at ${sha}`;
  }
  const { ip } = f;
  if (ip === undefined) return `${vlan}${f.src} > ${f.dst}, ethertype 0x${f.type.toString(16)}`;
  const frag =
    ip.mf || ip.fragOff > 0
      ? ` (frag ${ip.id}:${ip.payload.length}@${ip.fragOff}${ip.mf ? '+' : ''})`
      : '';
  if (ip.tcp !== undefined) {
    const t = ip.tcp;
    const opts = [
      t.mss === undefined ? '' : `mss ${t.mss}`,
      t.sackOk === true ? 'sackOK' : '',
      t.ts === undefined ? '' : `TS val ${t.ts.val} ecr ${t.ts.ecr}`,
      t.wscale === undefined ? '' : `wscale ${t.wscale}`,
      t.sack === undefined ? '' : `sack ${t.sack.map((s) => s.join(':')).join(' ')}`,
    ].filter((o) => o !== '');
    const end = (t.seq + t.payload.length) % 2 ** 32;
    const seq = t.payload.length > 0 ? `${t.seq}:${end}` : `${t.seq}`;
    return (
      `${vlan}IP ${ip.src}.${t.sport} > ${ip.dst}.${t.dport}: Flags [${t.flags}], seq ${seq}` +
      `${t.flags.includes('.') ? `, ack ${t.ack}` : ''}, win ${t.win}` +
      `${opts.length > 0 ? `, options [${opts.join(',')}]` : ''}, length ${t.payload.length}`
    );
  }
  if (ip.udp !== undefined)
    return `${vlan}IP ${ip.src}.${ip.udp.sport} > ${ip.dst}.${ip.udp.dport}: UDP, length ${ip.udp.payload.length}`;
  if (ip.icmp !== undefined)
    return `${vlan}IP ${ip.src} > ${ip.dst}: ICMP type ${ip.icmp.type} code ${ip.icmp.code}, id ${ip.icmp.id}, seq ${ip.icmp.seq}, length ${ip.payload.length}`;
  return `${vlan}IP ${ip.src} > ${ip.dst}: proto ${ip.proto}${frag}, length ${ip.payload.length}`;
}

// Checkers: small functions to compose. Each throws if the frame does not match.

export type Checker = (f: Frame) => void;

/**
 * Checks that exactly these frames were sent, in this order, and empties `sent`. Each further
 * argument is the list of checkers for one frame.
 */
export function expectTx(sent: Uint8Array[], ...want: Checker[][]): Frame[] {
  return expectTxWith({}, sent, ...want);
}

/** `expectTx` for frames whose checksums an offloading NIC still has to complete. */
export function expectTxWith(
  options: DecodeOptions,
  sent: Uint8Array[],
  ...want: Checker[][]
): Frame[] {
  const frames = sent.splice(0).map((bytes) => decodeFrame(bytes, options));
  const listing = frames.map((f) => `\n  ${formatFrame(f)}`).join('');
  expect(frames.length, `number of frames sent:${listing}\n`).to.equal(want.length);
  want.forEach((checks, i) => {
    for (const check of checks) {
      try {
        check(frames[i]!);
      } catch (err) {
        if (err instanceof Error) err.message = `frame ${i}: ${err.message}; sent:${listing}`;
        throw err;
      }
    }
  });
  return frames;
}

const ports = (f: Frame): { sport: number; dport: number } | undefined => f.ip?.tcp ?? f.ip?.udp;
const tcpOf = (f: Frame): TcpInfo => {
  expect(f.ip?.tcp, 'TCP').to.not.equal(undefined);
  return f.ip!.tcp!;
};

export const from =
  (addr: string, port?: number): Checker =>
  (f) => {
    expect(f.ip?.src, 'source').to.equal(addr);
    if (port !== undefined) expect(ports(f)?.sport, 'source port').to.equal(port);
  };
export const to =
  (addr: string, port?: number): Checker =>
  (f) => {
    expect(f.ip?.dst, 'destination').to.equal(addr);
    if (port !== undefined) expect(ports(f)?.dport, 'destination port').to.equal(port);
  };
/** All TCP flags, tcpdump's letters in tcpdump's order (FSRP.UEW). */
export const flags =
  (letters: string): Checker =>
  (f) =>
    expect(tcpOf(f).flags, 'flags').to.equal(letters);
export const seq =
  (n: number): Checker =>
  (f) =>
    expect(tcpOf(f).seq, 'seq').to.equal(n % 2 ** 32);
export const ack =
  (n: number): Checker =>
  (f) => {
    expect(tcpOf(f).flags, 'flags').to.include('.');
    expect(tcpOf(f).ack, 'ack').to.equal(n % 2 ** 32);
  };
export const win =
  (n: number): Checker =>
  (f) =>
    expect(tcpOf(f).win, 'win').to.equal(n);
export const mss =
  (n: number | undefined): Checker =>
  (f) =>
    expect(tcpOf(f).mss, 'mss').to.equal(n);
export const wscale =
  (n: number | undefined): Checker =>
  (f) =>
    expect(tcpOf(f).wscale, 'wscale').to.equal(n);
/** Transport payload: its bytes, or only its length. */
export const payload =
  (data: string | ArrayLike<number> | number): Checker =>
  (f) => {
    const got = f.ip?.tcp?.payload ?? f.ip?.udp?.payload ?? f.ip?.icmp?.payload ?? f.ip?.payload;
    expect(got, 'payload').to.not.equal(undefined);
    if (typeof data === 'number') expect(got!.length, 'payload bytes').to.equal(data);
    else expect(Buffer.from(got!).equals(toBytes(data)), 'payload as expected').to.equal(true);
  };
export const icmp =
  (type: number, code = 0): Checker =>
  (f) => {
    expect(f.ip?.icmp?.type, 'ICMP type').to.equal(type);
    expect(f.ip?.icmp?.code, 'ICMP code').to.equal(code);
  };
export const toMac =
  (addr: string): Checker =>
  (f) =>
    expect(f.dst, 'Ethernet destination').to.equal(addr);
/** An ARP request for `tpa`. */
export const arpRequest =
  (tpa: string): Checker =>
  (f) => {
    expect(f.arp?.op, 'ARP op').to.equal(1);
    expect(f.arp?.tpa, 'ARP target').to.equal(tpa);
  };
export const arpReply =
  (spa: string, sha: string): Checker =>
  (f) => {
    expect(f.arp?.op, 'ARP op').to.equal(2);
    expect(f.arp?.spa, 'ARP sender').to.equal(spa);
    expect(f.arp?.sha, 'ARP sender MAC').to.equal(sha);
  };
