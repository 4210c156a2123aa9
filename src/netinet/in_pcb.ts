/**
 * Internet protocol control blocks (PCBs), after sys/netinet/in_pcb.c: look-up of a packet's
 * socket, and the per-family table (InpAf) that gives TCP, UDP and raw sockets access to IPv4 or
 * IPv6. in_pcbbind.ts binds and connects. Left out: locking, RSS, FIBs other than 0, credentials.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { EEXIST, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { type Kva, port, type Port } from '../sys/types.ts';
import type { Cmsg } from '../kern/cmsg.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { AF_INET, AF_MAX } from '../kern/protosw.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import type { Sockopt } from '../kern/sockopt.ts';
import { SO_REUSEPORT_LB, type Socket } from '../kern/uipc_socket.ts';
import { type Vnet, VNET_DEFINE } from '../kern/vnet.ts';
import type { Ifnet } from '../net/if_var.ts';
import { imoFree } from './in_multi.ts';
import { InpcbBase } from './in_pcb_cold.ts';
import type { IpOptions } from './ip_options.ts';

// inp_vflag: the IP versions of the packets that the PCB gets.
export const INP_IPV4 = 0x1;
export const INP_IPV6 = 0x2;
/** The socket is of AF_INET6. */
export const INP_IPV6PROTO = 0x4;

// inp_flags
/** Set by IP_PORTRANGE: choose local ports from the high or the low range. */
export const INP_HIGHPORT = 0x00000010;
export const INP_LOWPORT = 0x00000020;
export const INP_DONTFRAG = 0x00000800;
/** IP_BINDANY: bind to addresses that are not local. */
export const INP_BINDANY = 0x00001000;
/** IPV6_V6ONLY: no IPv4 by v4-mapped addresses. */
export const IN6P_IPV6_V6ONLY = 0x00008000;
export const INP_DROPPED = 0x04000000;
/** The protocol holds a reference on a socket that its program has closed. */
export const INP_SOCKREF = 0x08000000;

/**
 * Addresses and ports of a connection or of a received packet, local side first. The address words
 * (see NetAddr) are fields of this object, because two NetAddr objects would cost 64 bytes more per
 * connection.
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
  /** IPV6_USE_MIN_MTU of a TCP socket: INC_IPV6MINMTU of FreeBSD's inc_flags. */
  inc_minmtu = false;

  copyFrom(from: InConninfo): void {
    this.inc_family = from.inc_family;
    this.setLaddr(from.inc_l0, from.inc_l1, from.inc_l2, from.inc_l3);
    this.setFaddr(from.inc_f0, from.inc_f1, from.inc_f2, from.inc_f3);
    this.inc_lport = from.inc_lport;
    this.inc_fport = from.inc_fport;
    this.inc_minmtu = from.inc_minmtu;
  }

  setLaddr(w0: number, w1 = 0, w2 = 0, w3 = 0): void {
    this.inc_l0 = w0;
    this.inc_l1 = w1;
    this.inc_l2 = w2;
    this.inc_l3 = w3;
  }

  /** Copies the local address of `i`. */
  copyLaddr(i: InConninfo): void {
    this.setLaddr(i.inc_l0, i.inc_l1, i.inc_l2, i.inc_l3);
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

  /** Whether the local address is unspecified (all bits 0). */
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

  /** Whether the local and the foreign address are equal. */
  selfTalk(): boolean {
    return (
      this.inc_l0 === this.inc_f0 &&
      this.inc_l1 === this.inc_f1 &&
      this.inc_l2 === this.inc_f2 &&
      this.inc_l3 === this.inc_f3
    );
  }
}

/** TCP's default segment sizes in a family, bytes. */
export interface TcpMss {
  /** Used without an MSS option or without a route. */
  readonly mssdflt: number;
  /** The size that path MTU black hole detection tries first. */
  readonly pmtud_blackhole_mss: number;
}

/**
 * The functions and constants of an address family that TCP, UDP and raw sockets use. They are the
 * only difference between IPv4 and IPv6 there. Each domain registers its own table.
 */
export interface InpAf {
  readonly family: number;
  /** The bit of inp_vflag. */
  readonly vflag: number;
  /** The suffix that netstat appends to the protocol's name: `4` or `6`. */
  readonly suffix: string;
  /** Number of 32-bit words of an address: 1 or 4. */
  readonly addrWords: number;
  /** Bytes of an IP header without options, and of the largest packet, header included. */
  readonly hdrlen: number;
  readonly maxpacket: number;
  /** CSUM_* flags for UDP checksum, TCP checksum and TSO, and the IFCAP_* flag of TSO. */
  readonly csumUdp: number;
  readonly csumTcp: number;
  readonly csumTso: number;
  readonly ifcapTso: number;
  /** Whether UDP must have a checksum: IPv6, RFC 8200, 8.1. */
  readonly udpSumRequired: boolean;
  /** The value of net.inet.tcp.pmtud_blackhole_detection that excludes this family. */
  readonly pmtudBlackholeOff: number;
  /** Whether raw sockets receive packets with their IP header. */
  readonly rawHeader: boolean;
  /** The family's segment sizes; null: use net.inet.tcp.mssdflt and pmtud_blackhole_mss. */
  tcpMss(vnet: Vnet): TcpMss | null;
  /** Default TTL or hop limit of packets that this host originates. */
  defaultTtl(vnet: Vnet): number;
  /** Initializes a new PCB of a socket of this family: inp_vflag, the defaults of its options. */
  pcbInit(inp: Inpcb): void;
  /** TTL or hop limit, and TOS or traffic class, of the packets of a PCB. */
  ttlOf(inp: Inpcb): number;
  tosOf(inp: Inpcb): number;
  /** Bytes of the IP options or extension headers in each packet of a PCB. */
  optlenOf(inp: Inpcb): number;
  /** Copies the options of a listener to the PCB of a new connection. */
  inherit(inp: Inpcb, listener: Inpcb): void;
  /** Whether `addr` is a unicast address of the stack. */
  isLocal(vnet: Vnet, addr: AddrWords): boolean;
  /** A 32-bit hash of the foreign and local address, for the connection table. */
  hash(inc: InConninfo): number;
  /**
   * Stores the zone of a program's address, `scope_id`, where the stack expects it: in the words. ENXIO:
   * no such zone. EADDRNOTAVAIL: the words contain another zone.
   */
  embedScope(vnet: Vnet, nam: Sockaddr): Errno;
  /** Whether TCP may connect to `nam`: 0, or EAFNOSUPPORT, EACCES or EADDRNOTAVAIL. */
  connectable(vnet: Vnet, nam: AddrWords): Errno;
  /**
   * Sets inc's local address to suit its foreign one and the options of `inp`, with `sending` also the
   * control messages that `sendcontrol` read. EHOSTUNREACH, …
   */
  selectLaddr(inp: Inpcb, inc: InConninfo, sending: boolean): Errno;
  /** Whether `inp` may be bound to the unicast address `addr`: 0 or EADDRNOTAVAIL. */
  bindable(inp: Inpcb, addr: AddrWords): Errno;
  /** Whether a socket may be bound to `addr`, which is not local: a group. */
  isGroup(addr: AddrWords): boolean;
  /** The outgoing interface of packets to inc's foreign address; null without a route. */
  outgoing(vnet: Vnet, inc: InConninfo): Ifnet | null;
  /** The path MTU to inc's foreign address, bytes, at most `routed` behind a router; 0: no route. */
  pathMtu(vnet: Vnet, inc: InConninfo, routed?: number): number;
  /** Sets `to` to inc's foreign or local address and port, and returns it. */
  sockaddr(inc: InConninfo, foreign: boolean, to: Sockaddr): Sockaddr;
  /** inc's foreign or local address as text, for netstat. */
  print(vnet: Vnet, inc: InConninfo, foreign: boolean): string;
  /** Reads the addresses of the received packet `m` into `inc`. */
  parse(m: Mbuf, inc: InConninfo): void;
  /** The header's ECN field, 0 to 3, and its TTL or hop limit. */
  ecn(m: Mbuf): number;
  ttl(m: Mbuf): number;
  /** Whether both addresses are unicast: false for multicast and broadcast. */
  unicast(vnet: Vnet, m: Mbuf, inc: InConninfo): boolean;
  /**
   * M_MCAST if inc's local address is a group, M_BCAST if it is a broadcast on m's link, else 0.
   */
  castOf(m: Mbuf, inc: InConninfo): number;
  /** Counts a multicast that a socket did not get because it is not a member of the group. */
  notGroupMember(vnet: Vnet): void;
  /** Bytes of the packet after the IP header of `hlen` bytes. */
  ulpLength(m: Mbuf, hlen: number): number;
  /** Folded, not complemented sum of the pseudo-header: the addresses plus the number `c`. */
  pseudo(inc: InConninfo, c: number): number;
  /** Writes the IP header at `ip`; `len` is the length of the packet with this header. */
  fill(
    ip: Kva,
    inc: InConninfo,
    len: number,
    proto: number,
    ttl: number,
    tos: number,
    df: boolean,
  ): void;
  /**
   * Passes a packet to IP, which takes it. Uses the cached route and the IP options of `inp`; if it is
   * null, the options `opt`.
   */
  output(m: Mbuf, inp: Inpcb | null, vnet: Vnet, opt?: IpOptions | null): Errno;
  /** Like `output`, for a datagram. `toAll` (SO_BROADCAST) permits broadcast. */
  outputDgram(m: Mbuf, inp: Inpcb, toAll: boolean): Errno;
  /** Sends an ICMP port unreachable error about the received packet `m`. Takes `m`. */
  portUnreachable(m: Mbuf, vnet: Vnet): void;
  /** The way back of a source route that the packet under way came by; null: none. */
  sourceRoute(): IpOptions | null;
  /**
   * The control data of packet `m` with headers of `hlen` bytes that the socket options of `inp` request;
   * null: none.
   */
  savecontrol(inp: Inpcb, m: Mbuf, hlen: number): Mbuf | null;
  /**
   * Reads the control messages of a datagram, which `outputDgram` sends next; null: none. Returns its TOS
   * or -errno; sets inc's local address.
   */
  sendcontrol(inp: Inpcb, control: readonly Cmsg[] | null, inc: InConninfo): number;
  /** Whether the filter of a raw socket accepts the message at offset `hlen` of `m`. */
  rawAccepts(inp: Inpcb, m: Mbuf, hlen: number): boolean;
  /** Like `sendcontrol`, for a raw socket. */
  rawControl(inp: Inpcb, control: readonly Cmsg[] | null): number;
  /** Reads or sets a socket option of the family. EINVAL: other level. ENOPROTOOPT: unknown. */
  ctloutput(so: Socket, sopt: Sockopt): Errno;
}

/** The families of a stack, indexed by AF_*. */
const V_inpaf = VNET_DEFINE(() => ({
  tables: Array.from({ length: AF_MAX }, (): InpAf | null => null),
}));

/** Registers a family's table; its domain calls it. EEXIST: the family is registered already. */
export function inpafRegister(vnet: Vnet, af: InpAf): Errno {
  const { tables } = V_inpaf(vnet);
  if (tables[af.family] !== null) return EEXIST;
  tables[af.family] = af;
  return 0;
}

/** The table of a family; null: the stack does not have it. */
export function inpafOrNull(vnet: Vnet, family: number): InpAf | null {
  return V_inpaf(vnet).tables[family]!;
}

/** The table of a family; panics if it is not registered. */
export function inpaf(vnet: Vnet, family: number): InpAf {
  const af = V_inpaf(vnet).tables[family]!;
  KASSERT(af !== null, 'inpaf: no such family in this stack');
  return af;
}

const $peer = new NetAddr();

/** Whether inc's foreign address is a local address of the stack. */
export function peerIsLocal(vnet: Vnet, af: InpAf, inc: InConninfo): boolean {
  return af.isLocal(vnet, inc.faddrTo($peer));
}

/** A protocol control block. @see sys/netinet/in_pcb.h */
export class Inpcb extends InpcbBase {
  readonly inp_pcbinfo: Inpcbinfo;
  readonly inp_inc = new InConninfo();
  /** The family of the addresses in inp_inc; for a v4-mapped peer of an AF_INET6 socket AF_INET. */
  inp_af: InpAf;
  /** INP_IPV4, INP_IPV6 or both; and INP_IPV6PROTO. */
  inp_vflag = 0;
  inp_socket: Socket | null;
  /** The protocol's control block, such as a Tcpcb. */
  inp_ppcb: object | null = null;
  inp_flags = 0;
  // Links of the tables of Inpcbinfo. hashIn is the hash that contains the PCB: 0: no hash, 1:
  // wild, 2: conn.
  hashIn = 0;
  hashNext: Inpcb | null = null;
  portIn = false;
  portNext: Inpcb | null = null;
  portPrev: Inpcb | null = null;
  listPrev: Inpcb | null = null;
  listNext: Inpcb | null = null;

  constructor(pcbinfo: Inpcbinfo, so: Socket | null, af: InpAf) {
    super();
    this.inp_pcbinfo = pcbinfo;
    this.inp_socket = so;
    this.inp_af = af;
    this.inp_inc.inc_family = af.family;
    this.inp_vflag = af.vflag;
  }

  get inp_vnet(): Vnet {
    return this.inp_pcbinfo.ipi_vnet;
  }
}

const HASH_MIN = 64;
/**
 * Buckets of the tables by local port. They do not grow, because thousands of connections of a server
 * share one bucket. With all ports in use a bucket has 64 ports.
 */
const PORT_BUCKETS = 1024;

/** All PCBs of one protocol of one stack. @see sys/netinet/in_pcb.h */
export class Inpcbinfo {
  readonly ipi_vnet: Vnet;
  /** Number of PCBs. */
  ipi_count = 0;
  /** The newest PCB; older ones follow by listNext. */
  ipi_listhead: Inpcb | null = null;
  // Three chained hashes: connected PCBs by 4-tuple, unconnected ones by local port, all by local
  // port.
  conn: (Inpcb | null)[] = Array.from({ length: HASH_MIN }, () => null);
  connCount = 0;
  wild: (Inpcb | null)[] = Array.from({ length: PORT_BUCKETS }, () => null);
  ports: (Inpcb | null)[] = Array.from({ length: PORT_BUCKETS }, () => null);
  /** Random seed of the hashes, so that a peer cannot cause long chains. */
  readonly seed: number;
  lastport = 0;

  constructor(vnet: Vnet) {
    this.ipi_vnet = vnet;
    this.seed = vnet.prng.next32() | 0;
  }
}

/** Mixes all 32 bits of a hash. Signed, because V8 would box a large unsigned result. */
function mix(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x21f0aaad);
  h = Math.imul(h ^ (h >>> 15), 0x735a2d97);
  return h ^ (h >>> 15);
}

function connBucket(info: Inpcbinfo, af: InpAf, inc: InConninfo): number {
  const ports = (inc.inc_lport << 16) | inc.inc_fport;
  return mix(af.hash(inc) ^ Math.imul(ports ^ info.seed, 0x9e3779b1)) & (info.conn.length - 1);
}

/** The index of `lport` in Inpcbinfo's `ports` or `wild`. */
export function portBucket(table: readonly unknown[], lport: number): number {
  return lport & (table.length - 1);
}

/** Doubles the connection table, so that its chains stay short. */
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

/** Removes a PCB from `conn` or `wild`, not from the port table. */
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

/**
 * Removes a PCB from the port table. O(1), because thousands of connections share a server's port.
 */
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

/** Creates a PCB for `so`, or without a socket if `so` is null. @see sys/netinet/in_pcb.c */
export function in_pcballoc(so: Socket | null, pcbinfo: Inpcbinfo, af: InpAf): Inpcb {
  const inp = new Inpcb(pcbinfo, so, af);
  inp.listNext = pcbinfo.ipi_listhead;
  if (pcbinfo.ipi_listhead !== null) pcbinfo.ipi_listhead.listPrev = inp;
  pcbinfo.ipi_listhead = inp;
  pcbinfo.ipi_count++;
  af.pcbInit(inp);
  return inp;
}

/**
 * Marks a PCB as dropped: removes it from the hash tables, so that packets no longer match it, and
 * frees its port. The socket keeps the PCB until it is closed.
 * @see sys/netinet/in_pcb.c
 */
export function in_pcbdrop(inp: Inpcb): void {
  inp.inp_flags |= INP_DROPPED;
  unhash(inp);
  unport(inp);
}

/** The PCB of a socket; panics if it has none. */
export function sotoinpcb(so: Socket): Inpcb {
  KASSERT(so.so_pcb !== null, 'sotoinpcb: detached');
  return so.so_pcb as Inpcb;
}

/** Frees a PCB: removes it from all tables and from the list. @see sys/netinet/in_pcb.c */
export function in_pcbfree(inp: Inpcb): void {
  in_pcbdrop(inp);
  if (inp.inp_moptions !== null) imoFree(inp.inp_vnet, inp.inp_moptions);
  inp.inp_moptions = null;
  const info = inp.inp_pcbinfo;
  if (inp.listPrev !== null) inp.listPrev.listNext = inp.listNext;
  else info.ipi_listhead = inp.listNext;
  if (inp.listNext !== null) inp.listNext.listPrev = inp.listPrev;
  inp.listPrev = null;
  inp.listNext = null;
  inp.inp_socket = null;
  inp.inp_ppcb = null;
  inp.inp_in6 = null;
  inp.dropRoute();
  info.ipi_count--;
}

/** The PCB of the connection `inc`, or null. @see sys/netinet/in_pcb.c */
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

/**
 * The unconnected PCB for `inc`. One bound to exactly the local address takes precedence, then one of the
 * family that is bound to any address, then one of AF_INET6 that also gets IPv4.
 */
function in_pcblookupWild(info: Inpcbinfo, af: InpAf, inc: InConninfo): Inpcb | null {
  let any: Inpcb | null = null;
  let mapped: Inpcb | null = null;
  let inp: Inpcb | null = info.wild[portBucket(info.wild, inc.inc_lport)]!;
  for (; inp !== null; inp = inp.hashNext) {
    if (inp.inp_inc.inc_lport !== inc.inc_lport || (inp.inp_vflag & af.vflag) === 0) continue;
    const own = inp.inp_af === af;
    if (own && inp.inp_inc.laddrEquals(inc)) return lbMember(info, inp, inc);
    if (!inp.inp_inc.laddrAny()) continue;
    if (own && (af.vflag === INP_IPV6 || (inp.inp_vflag & INP_IPV6PROTO) === 0)) any = inp;
    else mapped = inp;
  }
  const found = any ?? mapped;
  return found === null ? null : lbMember(info, found, inc);
}

/** Whether `inp` is a member of a SO_REUSEPORT_LB group. */
function shares(inp: Inpcb): boolean {
  return inp.inp_socket !== null && (inp.inp_socket.so_options & SO_REUSEPORT_LB) !== 0;
}

/** Whether `t` is in the SO_REUSEPORT_LB group of `inp`: the same port and address. */
function sharesWith(t: Inpcb, inp: Inpcb): boolean {
  return (
    t.inp_inc.inc_lport === inp.inp_inc.inc_lport &&
    t.inp_af === inp.inp_af &&
    shares(t) &&
    t.inp_inc.laddrEquals(inp.inp_inc)
  );
}

/** The member of inp's SO_REUSEPORT_LB group for `inc`, chosen by a hash of the foreign side. */
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
 * The PCB of a packet: a connection, else with `wildcard` an unconnected PCB, else null.
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

/** Lets an AF_INET6 socket use only addresses of `family` from now on. It is in no hash table. */
export function pcbSetFamily(inp: Inpcb, family: number): void {
  inp.inp_af = inpaf(inp.inp_vnet, family);
  inp.inp_vflag = (inp.inp_vflag & INP_IPV6PROTO) | inp.inp_af.vflag;
  inp.inp_inc.inc_family = family;
  inp.dropRoute();
}

/**
 * Sets addresses and ports of the PCB to `inc` and enters it into the tables. `inc` must be unused.
 */
export function pcbSetConn(inp: Inpcb, inc: InConninfo): void {
  unhash(inp);
  if (inp.inp_inc.inc_lport !== inc.inc_lport) unport(inp);
  // A connection of an AF_INET6 socket is of one family.
  if (inp.inp_inc.inc_family !== inc.inc_family) pcbSetFamily(inp, inc.inc_family);
  else inp.inp_vflag = (inp.inp_vflag & INP_IPV6PROTO) | inp.inp_af.vflag;
  inp.inp_inc.copyFrom(inc);
  in_pcbinshash(inp);
}

/** Clears the foreign address and port; keeps the local ones. @see sys/netinet/in_pcb.c */
export function in_pcbdisconnect(inp: Inpcb): void {
  unhash(inp);
  inp.inp_inc.setFaddr(0);
  inp.inp_inc.inc_fport = port(0);
  if (inp.inp_inc.inc_lport !== 0) in_pcbinshash(inp);
}
