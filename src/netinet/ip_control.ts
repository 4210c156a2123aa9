/**
 * Control messages of IPv4 datagram and raw sockets, after ip_savecontrol of sys/netinet/ip_input.c and
 * udp_output of sys/netinet/udp_usrreq.c. IP_RECVOPTS and IP_RECVRETOPTS can be set but, as in FreeBSD,
 * yield no message. Left out: SO_TIMESTAMP, flow ids.
 */

import { EADDRINUSE, EADDRNOTAVAIL, EINVAL, ENOPROTOOPT } from '../sys/errno.ts';
import type { InAddr, Kva } from '../sys/types.ts';
import { type Cmsg, cmsgData, sbcreatecontrol } from '../kern/cmsg.ts';
import { type Mbuf, mtod } from '../kern/mbuf.ts';
import { AF_INET, AF_LINK, IPPROTO_IP, IPPROTO_UDP } from '../kern/protosw.ts';
import { SOCKADDR_IN_SIZE } from '../kern/sockaddr.ts';
import { ETHER_ADDR_LEN, IFT_LOOP, type Ifnet } from '../net/if_var.ts';
import { mem, memView } from '../vm/arena.ts';
import type { InConninfo, Inpcb } from './in_pcb.ts';
import { portConflict } from './in_pcbbind.ts';
import { Ip, IP_DST_OFF } from './ip.ts';
import { in_localip } from './ip_var.ts';

// Socket options that request a message, and the types of the messages. sys/netinet/in.h.
export const IP_RECVOPTS = 5;
export const IP_RECVRETOPTS = 6;
export const IP_RECVDSTADDR = 7;
/** A message to send: the source address. */
export const IP_SENDSRCADDR = IP_RECVDSTADDR;
export const IP_RECVIF = 20;
export const IP_ORIGDSTADDR = 27;
export const IP_RECVTTL = 65;
export const IP_RECVTOS = 68;
/** A message to send, and a socket option: the TOS byte. */
export const IP_TOS = 3;

const INP_RECVDSTADDR = 0x00000004;
const INP_RECVIF = 0x00000080;
const INP_RECVTTL = 0x00000400;
const INP_RECVTOS = 0x00004000;
/** In FreeBSD a bit of inp_flags2. */
const INP_ORIGDSTADDR = 0x10000000;
const DELIVERED = INP_RECVDSTADDR | INP_RECVIF | INP_RECVTTL | INP_RECVTOS | INP_ORIGDSTADDR;

/** The bit of inp_flags of each option. */
export const controlOptions: ReadonlyMap<number, number> = new Map([
  [IP_RECVOPTS, 0x00000001],
  [IP_RECVRETOPTS, 0x00000002],
  [IP_RECVDSTADDR, INP_RECVDSTADDR],
  [IP_RECVIF, INP_RECVIF],
  [IP_RECVTTL, INP_RECVTTL],
  [IP_RECVTOS, INP_RECVTOS],
  [IP_ORIGDSTADDR, INP_ORIGDSTADDR],
]);

// Offsets in the IP and UDP header and in struct sockaddr_dl, and its size without and with a name.
const TOS_OFF = 1;
const TTL_OFF = 8;
const UDP_DPORT_OFF = 2;
const SDL_DATA = 8;
const SDL_SIZE = 56;

const $ip = new Ip();

/** Puts `m`, which may be null, in front of `rest`. */
function before(m: Mbuf | null, rest: Mbuf | null): Mbuf | null {
  if (m === null) return rest;
  m.m_next = rest;
  return m;
}

function byteMessage(type: number, value: number): Mbuf | null {
  const m = sbcreatecontrol(1, type, IPPROTO_IP);
  if (m !== null) mem[cmsgData(m)] = value;
  return m;
}

/** IP_RECVIF: struct sockaddr_dl of the interface. */
function interfaceMessage(ifp: Ifnet | null): Mbuf | null {
  const size = ifp === null ? SDL_DATA : SDL_SIZE;
  const m = sbcreatecontrol(size, IP_RECVIF, IPPROTO_IP);
  if (m === null) return null;
  const p = cmsgData(m);
  mem.fill(0, p, p + size);
  mem[p] = size;
  mem[p + 1] = AF_LINK;
  if (ifp === null) return m;
  const name = ifp.if_xname;
  const alen = ifp.if_type === IFT_LOOP ? 0 : ETHER_ADDR_LEN;
  memView.setUint16(p + 2, ifp.if_index, true);
  mem[p + 4] = ifp.if_type;
  mem[p + 5] = name.length;
  mem[p + 6] = alen;
  const at = p + SDL_DATA;
  for (let i = 0; i < name.length; i++) mem[at + i] = name.charCodeAt(i);
  for (let i = 0; i < alen; i++) mem[at + name.length + i] = ifp.if_lladdr[i]!;
  return m;
}

/** IP_ORIGDSTADDR: struct sockaddr_in of the datagram's destination. */
function destinationMessage(p: Kva): Mbuf | null {
  const m = sbcreatecontrol(SOCKADDR_IN_SIZE, IP_ORIGDSTADDR, IPPROTO_IP);
  if (m === null) return null;
  const to = cmsgData(m);
  const udp = p + ($ip.at(p).ip_hl << 2);
  mem.fill(0, to, to + SOCKADDR_IN_SIZE);
  mem[to] = SOCKADDR_IN_SIZE;
  mem[to + 1] = AF_INET;
  memView.setUint16(to + 2, memView.getUint16(udp + UDP_DPORT_OFF));
  memView.setInt32(to + 4, memView.getInt32(p + IP_DST_OFF));
  return m;
}

/**
 * The messages about the received packet `m` that the options of `inp` request; null: none. `m` starts
 * at the contiguous headers. Without memory a message is missing.
 * @see sys/netinet/ip_input.c
 */
export function ip_savecontrol(inp: Inpcb, m: Mbuf): Mbuf | null {
  const flags = inp.inp_flags;
  if ((flags & DELIVERED) === 0) return null;
  const p = mtod(m);
  // From the last message to the first.
  let list: Mbuf | null = null;
  if ((flags & INP_RECVTOS) !== 0) list = before(byteMessage(IP_RECVTOS, mem[p + TOS_OFF]!), list);
  if ((flags & INP_RECVIF) !== 0)
    list = before(interfaceMessage(m.m_pkthdr.rcvif as Ifnet | null), list);
  if ((flags & INP_RECVTTL) !== 0) list = before(byteMessage(IP_RECVTTL, mem[p + TTL_OFF]!), list);
  if ((flags & INP_RECVDSTADDR) !== 0) {
    const dst = sbcreatecontrol(4, IP_RECVDSTADDR, IPPROTO_IP);
    if (dst !== null) memView.setInt32(cmsgData(dst), memView.getInt32(p + IP_DST_OFF));
    list = before(dst, list);
  }
  const udp = inp.inp_socket!.so_proto.pr_protocol === IPPROTO_UDP;
  return (flags & INP_ORIGDSTADDR) !== 0 && udp ? before(destinationMessage(p), list) : list;
}

/**
 * Reads the messages of a datagram to send. Returns its TOS byte, or an errno negated; sets the local
 * address of `inc` if a message names it. EINVAL: wrong size; or IP_SENDSRCADDR on a socket without port
 * or with a local address. ENOPROTOOPT: unknown message. EADDRNOTAVAIL: not a local address.
 * EADDRINUSE: another socket has that address with the port.
 * @see sys/netinet/udp_usrreq.c
 */
export function ipSendcontrol(
  inp: Inpcb,
  control: readonly Cmsg[] | null,
  inc: InConninfo,
): number {
  let tos = inp.inp_ip_tos;
  if (control === null) return tos;
  let src: InAddr | null = null;
  for (const { level, type, data } of control) {
    if (level !== IPPROTO_IP) continue;
    if (type === IP_SENDSRCADDR) {
      if (data.length !== 4) return -EINVAL;
      src = new DataView(data.buffer, data.byteOffset).getInt32(0) as InAddr;
    } else if (type === IP_TOS) {
      if (data.length !== 1) return -EINVAL;
      tos = data[0]!;
    } else {
      return -ENOPROTOOPT;
    }
  }
  if (src === null) return tos;
  const own = inp.inp_inc;
  if (own.inc_lport === 0 || !own.laddrAny() || src === 0) return -EINVAL;
  if (!in_localip(inp.inp_vnet, src)) return -EADDRNOTAVAIL;
  inc.setLaddr(src);
  inc.inc_lport = own.inc_lport;
  return portConflict(inp, inc, inp.inp_socket!.so_options) ? -EADDRINUSE : tos;
}
