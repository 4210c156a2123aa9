/**
 * Internet protocol control blocks, after sys/netinet/in_pcb.c: which socket a packet belongs to,
 * local ports, and the per-family table through which TCP and UDP reach IPv4 or IPv6. Left out:
 * locking, RSS, FIBs other than 0, credentials, multicast options.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import {
  EADDRINUSE,
  EADDRNOTAVAIL,
  EAFNOSUPPORT,
  EEXIST,
  EINVAL,
  type Errno,
} from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { type Kva, port, type Port } from '../sys/types.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { AF_INET, AF_MAX } from '../kern/protosw.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import type { Sockopt } from '../kern/sockopt.ts';
import { SO_REUSEADDR, SO_REUSEPORT, SO_REUSEPORT_LB, type Socket } from '../kern/uipc_socket.ts';
import { type Vnet, VNET_DEFINE } from '../kern/vnet.ts';
import type { Ifnet } from '../net/if_var.ts';
import { Route } from '../net/route.ts';

// inp_flags
/** IP_PORTRANGE: local ports come from the high or the low range. */
export const INP_HIGHPORT = 0x00000010;
export const INP_LOWPORT = 0x00000020;
export const INP_DONTFRAG = 0x00000800;
export const INP_DROPPED = 0x04000000;
/** The protocol holds a reference on a socket that its program has closed. */
export const INP_SOCKREF = 0x08000000;

/**
 * Addresses and ports of a connection or of a received packet, local side first. The words of both
 * addresses, as NetAddr has them, are fields of the object itself: each connection has one, and two
 * objects more would cost 64 bytes.
 */
export class InConninfo {
  /** AF_*. */
  inc_family = AF_INET;
  /** The local address. */
  inc_l0 = 0;
  inc_l1 = 0;
  inc_l2 = 0;
  inc_l3 = 0;
  /** The foreign address. */
  inc_f0 = 0;
  inc_f1 = 0;
  inc_f2 = 0;
  inc_f3 = 0;
  inc_lport: Port = port(0);
  inc_fport: Port = port(0);

  copyFrom(from: InConninfo): void {
    this.inc_family = from.inc_family;
    this.setLaddr(from.inc_l0, from.inc_l1, from.inc_l2, from.inc_l3);
    this.setFaddr(from.inc_f0, from.inc_f1, from.inc_f2, from.inc_f3);
    this.inc_lport = from.inc_lport;
    this.inc_fport = from.inc_fport;
  }

  setLaddr(w0: number, w1 = 0, w2 = 0, w3 = 0): void {
    this.inc_l0 = w0;
    this.inc_l1 = w1;
    this.inc_l2 = w2;
    this.inc_l3 = w3;
  }

  setFaddr(w0: number, w1 = 0, w2 = 0, w3 = 0): void {
    this.inc_f0 = w0;
    this.inc_f1 = w1;
    this.inc_f2 = w2;
    this.inc_f3 = w3;
  }

  laddrFrom(a: AddrWords): void {
    this.setLaddr(a.w0, a.w1, a.w2, a.w3);
  }

  faddrFrom(a: AddrWords): void {
    this.setFaddr(a.w0, a.w1, a.w2, a.w3);
  }

  /** Copies the local address to `a`, and returns it. */
  laddrTo<T extends NetAddr>(a: T): T {
    a.set(this.inc_l0, this.inc_l1, this.inc_l2, this.inc_l3);
    return a;
  }

  /** Copies the foreign address to `a`, and returns it. */
  faddrTo<T extends NetAddr>(a: T): T {
    a.set(this.inc_f0, this.inc_f1, this.inc_f2, this.inc_f3);
    return a;
  }

  /** Whether the address is unspecified, all bits 0. */
  laddrAny(): boolean {
    return (this.inc_l0 | this.inc_l1 | this.inc_l2 | this.inc_l3) === 0;
  }

  faddrAny(): boolean {
    return (this.inc_f0 | this.inc_f1 | this.inc_f2 | this.inc_f3) === 0;
  }

  laddrEquals(i: InConninfo): boolean {
    return (
      this.inc_l0 === i.inc_l0 &&
      this.inc_l1 === i.inc_l1 &&
      this.inc_l2 === i.inc_l2 &&
      this.inc_l3 === i.inc_l3
    );
  }

  faddrEquals(i: InConninfo): boolean {
    return (
      this.inc_f0 === i.inc_f0 &&
      this.inc_f1 === i.inc_f1 &&
      this.inc_f2 === i.inc_f2 &&
      this.inc_f3 === i.inc_f3
    );
  }

  /** Whether both addresses are the same. */
  selfTalk(): boolean {
    return (
      this.inc_l0 === this.inc_f0 &&
      this.inc_l1 === this.inc_f1 &&
      this.inc_l2 === this.inc_f2 &&
      this.inc_l3 === this.inc_f3
    );
  }
}

/** Segment sizes that TCP assumes in a family, in bytes. */
export interface TcpMss {
  /** Without an MSS option, or without a route. */
  readonly mssdflt: number;
  /** What path MTU black hole detection tries first. */
  readonly pmtud_blackhole_mss: number;
}

/**
 * What an address family does for the protocols above it: IPv4 and IPv6 differ in nothing else for
 * TCP, UDP and raw sockets. Each domain registers its own table.
 */
export interface InpAf {
  readonly family: number;
  /** What netstat puts behind the protocol's name: `4` or `6`. */
  readonly suffix: string;
  /** Words of an address that count: 1 or 4. */
  readonly addrWords: number;
  /** Bytes of an IP header without options, and of the largest packet with it. */
  readonly hdrlen: number;
  readonly maxpacket: number;
  /** What asks the NIC for a UDP and a TCP checksum, for TSO, and the interface capability of TSO. */
  readonly csumUdp: number;
  readonly csumTcp: number;
  readonly csumTso: number;
  readonly ifcapTso: number;
  /** Whether UDP must have a checksum: IPv6, RFC 8200, 8.1. */
  readonly udpSumRequired: boolean;
  /** The value of net.inet.tcp.pmtud_blackhole_detection that leaves this family out. */
  readonly pmtudBlackholeOff: number;
  /** The family's own segment sizes; null: net.inet.tcp.mssdflt and pmtud_blackhole_mss. */
  tcpMss(vnet: Vnet): TcpMss | null;
  /** TTL or hop limit of packets made here. */
  defaultTtl(vnet: Vnet): number;
  /** Whether the stack has this unicast address. */
  isLocal(vnet: Vnet, addr: AddrWords): boolean;
  /** 32 bits of the foreign and local address for the connection hash. */
  hash(inc: InConninfo): number;
  /** Whether TCP may connect to `nam`: 0, EAFNOSUPPORT, EACCES, EADDRNOTAVAIL. */
  connectable(vnet: Vnet, nam: AddrWords): Errno;
  /** Chooses inc's local address for its foreign one. ENETUNREACH, EHOSTUNREACH. */
  selectLaddr(vnet: Vnet, inc: InConninfo): Errno;
  /** The interface that packets to inc's foreign address leave by, null without a route. */
  outgoing(vnet: Vnet, inc: InConninfo): Ifnet | null;
  /** Bytes of the largest packet that way takes; 0 without a route. */
  pathMtu(vnet: Vnet, inc: InConninfo): number;
  /** Fills in `to` with inc's foreign or local address and port, and returns it. */
  sockaddr(inc: InConninfo, foreign: boolean, to: Sockaddr): Sockaddr;
  /** Address text for netstat. */
  print(inc: InConninfo, foreign: boolean): string;
  /** Reads the addresses of the received packet `m` into `inc`. */
  parse(m: Mbuf, inc: InConninfo): void;
  /** The header's ECN field, 0 to 3, and its TTL or hop limit. */
  ecn(m: Mbuf): number;
  ttl(m: Mbuf): number;
  /** Whether a segment may come from and to these addresses: no multicast, no broadcast. */
  unicast(vnet: Vnet, m: Mbuf, inc: InConninfo): boolean;
  /** M_MCAST or M_BCAST if inc's local address is a group or a broadcast of the link of `m`; else 0. */
  castOf(m: Mbuf, inc: InConninfo): number;
  /** Bytes behind the IP header of `hlen` bytes. */
  ulpLength(m: Mbuf, hlen: number): number;
  /** Folded sum, not complemented, of the pseudo-header: addresses plus the number `c`. */
  pseudo(inc: InConninfo, c: number): number;
  /** Fills in the IP header at `ip` of a packet of `len` bytes in all. */
  fill(
    ip: Kva,
    inc: InConninfo,
    len: number,
    proto: number,
    ttl: number,
    tos: number,
    df: boolean,
  ): void;
  /** Hands a packet to IP, which takes it. `inp` lends its cached route. */
  output(m: Mbuf, inp: Inpcb | null, vnet: Vnet): Errno;
  /** `output` for a datagram, which may be for everyone on a link if `toAll`. */
  outputDgram(m: Mbuf, inp: Inpcb, toAll: boolean): Errno;
  /** Sends ICMP's port unreachable about the received packet `m`, which it takes. */
  portUnreachable(m: Mbuf, vnet: Vnet): void;
  /** Control data about the packet `m` for the socket of `inp`, by its options; null without any. */
  savecontrol(inp: Inpcb, m: Mbuf): Mbuf | null;
  /** Options of the family on a socket. EINVAL: another level; ENOPROTOOPT. */
  ctloutput(so: Socket, sopt: Sockopt): Errno;
}

/** The families of a stack by AF_*. */
const V_inpaf = VNET_DEFINE(() => ({
  tables: Array.from({ length: AF_MAX }, (): InpAf | null => null),
}));

/** Registers a family's table. EEXIST: the stack has one of this family. Its domain calls it. */
export function inpafRegister(vnet: Vnet, af: InpAf): Errno {
  const { tables } = V_inpaf(vnet);
  if (tables[af.family] !== null) return EEXIST;
  tables[af.family] = af;
  return 0;
}

/** The table of a family; panics if the stack does not have it. */
export function inpaf(vnet: Vnet, family: number): InpAf {
  const af = V_inpaf(vnet).tables[family]!;
  KASSERT(af !== null, 'inpaf: no such family in this stack');
  return af;
}

const $peer = new NetAddr();

/** Whether inc's foreign address is one of the stack's own. */
export function peerIsLocal(vnet: Vnet, af: InpAf, inc: InConninfo): boolean {
  return af.isLocal(vnet, inc.faddrTo($peer));
}

/** A protocol control block. @see sys/netinet/in_pcb.h */
export class Inpcb {
  readonly inp_pcbinfo: Inpcbinfo;
  readonly inp_vnet: Vnet;
  readonly inp_inc = new InConninfo();
  readonly inp_af: InpAf;
  inp_socket: Socket | null;
  /** The protocol's own block, such as a Tcpcb. */
  inp_ppcb: object | null = null;
  inp_flags = 0;
  inp_ip_ttl = 64;
  inp_ip_tos = 0;
  /** The least TTL that is taken: IP_MINTTL. */
  inp_ip_minttl = 0;
  /** What ip_output caches between packets. */
  readonly inp_route = new Route();
  // Links of the tables of Inpcbinfo. hashIn says which: 0 none, 1 wild, 2 connected.
  hashIn = 0;
  hashNext: Inpcb | null = null;
  portIn = false;
  portNext: Inpcb | null = null;
  portPrev: Inpcb | null = null;
  listPrev: Inpcb | null = null;
  listNext: Inpcb | null = null;

  constructor(pcbinfo: Inpcbinfo, so: Socket | null, af: InpAf) {
    this.inp_pcbinfo = pcbinfo;
    this.inp_vnet = pcbinfo.ipi_vnet;
    this.inp_socket = so;
    this.inp_af = af;
    this.inp_inc.inc_family = af.family;
  }
}

const HASH_MIN = 64;

/** All PCBs of one protocol of one stack. @see sys/netinet/in_pcb.h */
export class Inpcbinfo {
  readonly ipi_vnet: Vnet;
  /** PCBs alive. */
  ipi_count = 0;
  /** The newest one; the rest follows by listNext. */
  ipi_listhead: Inpcb | null = null;
  // Three chained hashes: connected by 4-tuple, unconnected by local port, all by local port.
  conn: (Inpcb | null)[] = Array.from({ length: HASH_MIN }, () => null);
  connCount = 0;
  wild: (Inpcb | null)[] = Array.from({ length: HASH_MIN }, () => null);
  ports: (Inpcb | null)[] = Array.from({ length: HASH_MIN }, () => null);
  /** Makes the chains unpredictable for a peer. */
  readonly seed: number;
  lastport = 0;

  constructor(vnet: Vnet) {
    this.ipi_vnet = vnet;
    this.seed = vnet.prng.next32() | 0;
  }
}

/** net.inet.ip.portrange.*: which local ports are given out. @see ip(4) */
class Portrange {
  /** For IP_PORTRANGE_LOW, from above; then the usual ones; then for IP_PORTRANGE_HIGH. */
  lowfirst = 1023;
  lowlast = 600;
  first = 10000;
  last = 65535;
  hifirst = 49152;
  hilast = 65535;
  randomized = true;
}
export const V_portrange = VNET_DEFINE(() => new Portrange());

/** Adds net.inet.ip.portrange.*. The inet domain calls it when the Vnet is created. */
export function in_pcbSysctls(vnet: Vnet): void {
  const r = V_portrange(vnet);
  const tree = vnet.sysctl;
  const name = 'net.inet.ip.portrange';
  for (const leaf of ['lowfirst', 'lowlast', 'first', 'last', 'hifirst', 'hilast'] as const)
    tree.intField(`${name}.${leaf}`, `${leaf} port of the range`, r, leaf, 1, 65535);
  tree.boolField(`${name}.randomized`, 'Enable random port allocation', r, 'randomized');
}

/** A hash in all its 32 bits; signed, because an unsigned one would be returned on the heap. */
function mix(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x21f0aaad);
  h = Math.imul(h ^ (h >>> 15), 0x735a2d97);
  return h ^ (h >>> 15);
}

function connBucket(info: Inpcbinfo, af: InpAf, inc: InConninfo): number {
  const ports = (inc.inc_lport << 16) | inc.inc_fport;
  return mix(af.hash(inc) ^ Math.imul(ports ^ info.seed, 0x9e3779b1)) & (info.conn.length - 1);
}

function portBucket(table: readonly unknown[], lport: number): number {
  return lport & (table.length - 1);
}

/** Keeps the chains short: the connection table grows with what it holds. */
function growConn(info: Inpcbinfo): void {
  const old = info.conn;
  info.conn = Array.from({ length: old.length * 2 }, () => null);
  for (const chain of old) {
    for (let inp = chain; inp !== null;) {
      const next: Inpcb | null = inp.hashNext;
      const b = connBucket(info, inp.inp_af, inp.inp_inc);
      inp.hashNext = info.conn[b]!;
      info.conn[b] = inp;
      inp = next;
    }
  }
}

/** Enters a PCB with a local port into the tables. @see sys/netinet/in_pcb.c */
export function in_pcbinshash(inp: Inpcb): void {
  KASSERT(inp.hashIn === 0, 'in_pcbinshash: in a table already');
  const info = inp.inp_pcbinfo;
  const inc = inp.inp_inc;
  if (inc.faddrAny()) {
    const b = portBucket(info.wild, inc.inc_lport);
    inp.hashNext = info.wild[b]!;
    info.wild[b] = inp;
    inp.hashIn = 1;
  } else {
    if (++info.connCount > info.conn.length) growConn(info);
    const b = connBucket(info, inp.inp_af, inc);
    inp.hashNext = info.conn[b]!;
    info.conn[b] = inp;
    inp.hashIn = 2;
  }
  if (inp.portIn) return;
  const p = portBucket(info.ports, inc.inc_lport);
  inp.portNext = info.ports[p]!;
  if (inp.portNext !== null) inp.portNext.portPrev = inp;
  info.ports[p] = inp;
  inp.portIn = true;
}

/** Takes a PCB out of the chain of its hash, not out of the port table. */
function unhash(inp: Inpcb): void {
  if (inp.hashIn === 0) return;
  const info = inp.inp_pcbinfo;
  const wild = inp.hashIn === 1;
  const table = wild ? info.wild : info.conn;
  const b = wild
    ? portBucket(table, inp.inp_inc.inc_lport)
    : connBucket(info, inp.inp_af, inp.inp_inc);
  if (table[b] === inp) {
    table[b] = inp.hashNext;
  } else {
    let p = table[b]!;
    while (p.hashNext !== inp) p = p.hashNext!;
    p.hashNext = inp.hashNext;
  }
  inp.hashNext = null;
  inp.hashIn = 0;
  if (!wild) info.connCount--;
}

/** Thousands of connections share a server's port: none looks for another. */
function unport(inp: Inpcb): void {
  if (!inp.portIn) return;
  const { portPrev, portNext } = inp;
  if (portNext !== null) portNext.portPrev = portPrev;
  if (portPrev !== null) {
    portPrev.portNext = portNext;
  } else {
    const table = inp.inp_pcbinfo.ports;
    table[portBucket(table, inp.inp_inc.inc_lport)] = portNext;
  }
  inp.portPrev = null;
  inp.portNext = null;
  inp.portIn = false;
}

/** Makes a PCB for `so`; null for one without a socket yet. @see sys/netinet/in_pcb.c */
export function in_pcballoc(so: Socket | null, pcbinfo: Inpcbinfo, af: InpAf): Inpcb {
  const inp = new Inpcb(pcbinfo, so, af);
  inp.listNext = pcbinfo.ipi_listhead;
  if (pcbinfo.ipi_listhead !== null) pcbinfo.ipi_listhead.listPrev = inp;
  pcbinfo.ipi_listhead = inp;
  pcbinfo.ipi_count++;
  return inp;
}

/**
 * The connection is over: no packet finds the PCB any more and its port is free; the socket keeps
 * it until it is closed.
 * @see sys/netinet/in_pcb.c
 */
export function in_pcbdrop(inp: Inpcb): void {
  inp.inp_flags |= INP_DROPPED;
  unhash(inp);
  unport(inp);
}

/** The PCB of a socket that has one. */
export function sotoinpcb(so: Socket): Inpcb {
  KASSERT(so.so_pcb !== null, 'sotoinpcb: detached');
  return so.so_pcb as Inpcb;
}

/** Removes a PCB for good. @see sys/netinet/in_pcb.c */
export function in_pcbfree(inp: Inpcb): void {
  in_pcbdrop(inp);
  const info = inp.inp_pcbinfo;
  if (inp.listPrev !== null) inp.listPrev.listNext = inp.listNext;
  else info.ipi_listhead = inp.listNext;
  if (inp.listNext !== null) inp.listNext.listPrev = inp.listPrev;
  inp.listPrev = null;
  inp.listNext = null;
  inp.inp_socket = null;
  inp.inp_ppcb = null;
  inp.inp_route.ro_nh = null;
  info.ipi_count--;
}

/** The connection of `inc`, or null. @see sys/netinet/in_pcb.c */
export function in_pcblookupConn(info: Inpcbinfo, af: InpAf, inc: InConninfo): Inpcb | null {
  let inp: Inpcb | null = info.conn[connBucket(info, af, inc)]!;
  for (; inp !== null; inp = inp.hashNext) {
    const i = inp.inp_inc;
    if (
      i.inc_lport === inc.inc_lport &&
      i.inc_fport === inc.inc_fport &&
      inp.inp_af === af &&
      i.faddrEquals(inc) &&
      i.laddrEquals(inc)
    )
      return inp;
  }
  return null;
}

/** The unconnected PCB for `inc`: one bound to the very address before one bound to any. */
export function in_pcblookupWild(info: Inpcbinfo, af: InpAf, inc: InConninfo): Inpcb | null {
  let any: Inpcb | null = null;
  let inp: Inpcb | null = info.wild[portBucket(info.wild, inc.inc_lport)]!;
  for (; inp !== null; inp = inp.hashNext) {
    if (inp.inp_inc.inc_lport !== inc.inc_lport || inp.inp_af !== af) continue;
    if (inp.inp_inc.laddrEquals(inc)) return lbMember(info, inp, inc);
    if (inp.inp_inc.laddrAny()) any = inp;
  }
  return any === null ? null : lbMember(info, any, inc);
}

/** Whether `inp` shares its port by SO_REUSEPORT_LB. */
function shares(inp: Inpcb): boolean {
  return inp.inp_socket !== null && (inp.inp_socket.so_options & SO_REUSEPORT_LB) !== 0;
}

/** Whether `t` is one of those that share `inp`'s port and address. */
function sharesWith(t: Inpcb, inp: Inpcb): boolean {
  return (
    t.inp_inc.inc_lport === inp.inp_inc.inc_lport &&
    t.inp_af === inp.inp_af &&
    shares(t) &&
    t.inp_inc.laddrEquals(inp.inp_inc)
  );
}

/** Which one of those that share a port with `inp` a packet of `inc` is for: always the same one. */
function lbMember(info: Inpcbinfo, inp: Inpcb, inc: InConninfo): Inpcb {
  if (!shares(inp)) return inp;
  const head = info.wild[portBucket(info.wild, inp.inp_inc.inc_lport)]!;
  let n = 0;
  for (let t: Inpcb | null = head; t !== null; t = t.hashNext) if (sharesWith(t, inp)) n++;
  const hash = mix(inp.inp_af.hash(inc) ^ Math.imul(inc.inc_fport ^ info.seed, 0x9e3779b1));
  let pick = (hash >>> 0) % n;
  for (let t: Inpcb | null = head; t !== null; t = t.hashNext)
    if (sharesWith(t, inp) && pick-- === 0) return t;
  return inp;
}

/**
 * Whose packet it is: a connection, with `wildcard` else a listener, else null.
 * @see sys/netinet/in_pcb.c
 */
export function in_pcblookup(
  info: Inpcbinfo,
  af: InpAf,
  inc: InConninfo,
  wildcard: boolean,
): Inpcb | null {
  const inp = in_pcblookupConn(info, af, inc);
  return inp !== null || !wildcard ? inp : in_pcblookupWild(info, af, inc);
}

/** Whether `inp` may not have the local address and port of `inc` because of another PCB. */
function portConflict(inp: Inpcb, inc: InConninfo, options: number): boolean {
  const info = inp.inp_pcbinfo;
  const af = inp.inp_af;
  let t: Inpcb | null = info.ports[portBucket(info.ports, inc.inc_lport)]!;
  for (; t !== null; t = t.portNext) {
    if (t === inp || t.inp_inc.inc_lport !== inc.inc_lport || t.inp_af !== af) continue;
    const theirs = t.inp_socket === null ? SO_REUSEADDR | SO_REUSEPORT : t.inp_socket.so_options;
    if ((options & theirs & (SO_REUSEPORT | SO_REUSEPORT_LB)) !== 0) continue;
    const same = t.inp_inc.laddrEquals(inc);
    if ((options & (SO_REUSEADDR | SO_REUSEPORT | SO_REUSEPORT_LB)) !== 0) {
      // SO_REUSEADDR passes over connections and other addresses, not over the same binding.
      if (same && t.hashIn === 1) return true;
    } else if (same || t.inp_inc.laddrAny() || inc.laddrAny()) {
      return true;
    }
  }
  return false;
}

const $try = new InConninfo();

/**
 * Chooses a local port, RFC 6056: a random one of the range, then the next ones. With a foreign
 * address it only has to make the 4-tuple unique. EADDRNOTAVAIL: all are taken.
 * @see sys/netinet/in_pcb.c
 */
export function in_pcb_lport(inp: Inpcb, inc: InConninfo): Errno {
  const info = inp.inp_pcbinfo;
  const range = V_portrange(info.ipi_vnet);
  const high = (inp.inp_flags & INP_HIGHPORT) !== 0;
  const low = (inp.inp_flags & INP_LOWPORT) !== 0;
  const from = high ? range.hifirst : low ? range.lowfirst : range.first;
  const to = high ? range.hilast : low ? range.lowlast : range.last;
  const first = Math.min(from, to);
  const n = Math.max(from, to) - first + 1;
  const connected = !inc.faddrAny();
  const start = range.randomized
    ? info.ipi_vnet.prng.next32() % n
    : (info.lastport + 1 - first) % n;
  $try.copyFrom(inc);
  for (let i = 0; i < n; i++) {
    $try.inc_lport = port(first + ((start + i + n) % n));
    const taken = connected
      ? in_pcblookup(info, inp.inp_af, $try, true) !== null
      : portConflict(inp, $try, 0);
    if (taken) continue;
    inc.inc_lport = $try.inc_lport;
    info.lastport = $try.inc_lport;
    return 0;
  }
  return EADDRNOTAVAIL;
}

/**
 * Gives the PCB a local address and port. EINVAL: it has one; EAFNOSUPPORT; EADDRNOTAVAIL: not our
 * address, or no port left; EADDRINUSE.
 * @see bind(2)
 */
export function in_pcbbind(inp: Inpcb, nam: Sockaddr | null): Errno {
  const inc = inp.inp_inc;
  const af = inp.inp_af;
  if (inc.inc_lport !== 0 || !inc.laddrAny()) return EINVAL;
  if (nam !== null) {
    if (nam.family !== af.family) return EAFNOSUPPORT;
    if (!nam.isAny() && !af.isLocal(inp.inp_vnet, nam)) return EADDRNOTAVAIL;
    inc.laddrFrom(nam);
    if (nam.port !== 0) {
      inc.inc_lport = nam.port;
      if (portConflict(inp, inc, inp.inp_socket?.so_options ?? 0)) {
        inc.inc_lport = port(0);
        inc.setLaddr(0);
        return EADDRINUSE;
      }
    }
  }
  if (inc.inc_lport === 0) {
    const error = in_pcb_lport(inp, inc);
    if (error !== 0) {
      inc.setLaddr(0);
      return error;
    }
  }
  in_pcbinshash(inp);
  return 0;
}

/**
 * Gives the PCB a foreign address, and a local address and port if it has none. EADDRNOTAVAIL,
 * EADDRINUSE: there is such a connection; ENETUNREACH, EHOSTUNREACH.
 * @see connect(2)
 */
export function in_pcbconnect(inp: Inpcb, nam: Sockaddr): Errno {
  const inc = inp.inp_inc;
  const af = inp.inp_af;
  if (nam.family !== af.family) return EAFNOSUPPORT;
  if (nam.port === 0) return EADDRNOTAVAIL;
  $conn.copyFrom(inc);
  $conn.faddrFrom(nam);
  $conn.inc_fport = nam.port;
  if ($conn.laddrAny()) {
    const error = af.selectLaddr(inp.inp_vnet, $conn);
    if (error !== 0) return error;
  }
  if ($conn.inc_lport === 0) {
    const error = in_pcb_lport(inp, $conn);
    if (error !== 0) return error;
  } else if (in_pcblookupConn(inp.inp_pcbinfo, af, $conn) !== null) {
    return EADDRINUSE;
  }
  pcbSetConn(inp, $conn);
  return 0;
}
const $conn = new InConninfo();

/** Makes the PCB that of the connection `inc`, and findable. The 4-tuple must be free. */
export function pcbSetConn(inp: Inpcb, inc: InConninfo): void {
  unhash(inp);
  if (inp.inp_inc.inc_lport !== inc.inc_lport) unport(inp);
  inp.inp_inc.copyFrom(inc);
  in_pcbinshash(inp);
}

/** Undoes in_pcbconnect. @see sys/netinet/in_pcb.c */
export function in_pcbdisconnect(inp: Inpcb): void {
  unhash(inp);
  inp.inp_inc.setFaddr(0);
  inp.inp_inc.inc_fport = port(0);
  if (inp.inp_inc.inc_lport !== 0) in_pcbinshash(inp);
}

// A number for captures that stays a small integer; 0 means none.
let lastPktId = 0;

/** The id of the next packet made on this machine, for captures: 1 to 2^30-1, round and round. */
export function nextPktId(): number {
  lastPktId = lastPktId === 0x3fffffff ? 1 : lastPktId + 1;
  return lastPktId;
}
