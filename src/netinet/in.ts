/**
 * IPv4 addresses as signed 32-bit integers in host byte order, after sys/netinet/in.h and in.c.
 * Left out: class A, B and C networks.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { inAddr, type InAddr, type Port } from '../sys/types.ts';
import { AF_INET } from '../kern/protosw.ts';
import { Sockaddr, SOCKADDR_IN_SIZE } from '../kern/sockaddr.ts';

export const INADDR_ANY = inAddr(0);
export const INADDR_LOOPBACK = inAddr(0x7f000001);
export const INADDR_BROADCAST = inAddr(0xffffffff);
export const INADDR_ALLHOSTS_GROUP = inAddr(0xe0000001);
/** All routers, RFC 1112. */
export const INADDR_ALLRTRS_GROUP = inAddr(0xe0000002);
/** All IGMPv3-capable multicast routers, RFC 3376. */
export const INADDR_ALLRPTS_GROUP = inAddr(0xe0000016);
export const IN_LOOPBACKNET = 127;

/** The IPv4 address in the address words of AF_INET. */
export function inAddrOf(a: AddrWords): InAddr {
  return a.w0 as InAddr;
}

/** Allocates the address words of an IPv4 address; for configuration, not per packet. */
export function inNetAddr(addr: InAddr): NetAddr {
  const a = new NetAddr();
  a.set(addr);
  return a;
}

/** Allocates a socket address of AF_INET. */
export function inSockaddr(addr: InAddr, port: Port): Sockaddr {
  const sa = new Sockaddr();
  sa.len = SOCKADDR_IN_SIZE;
  sa.family = AF_INET;
  sa.port = port;
  sa.set(addr);
  return sa;
}

/** 0.0.0.0 @see sys/netinet/in.h */
export function in_nullhost(a: InAddr): boolean {
  return a === 0;
}

/** 224.0.0.0/4 @see sys/netinet/in.h */
export function IN_MULTICAST(a: InAddr): boolean {
  return a >>> 28 === 0xe;
}

/** 240.0.0.0/4, including 255.255.255.255. @see sys/netinet/in.h */
export function IN_EXPERIMENTAL(a: InAddr): boolean {
  return a >>> 28 === 0xf;
}

/** 127.0.0.0/8 @see sys/netinet/in.h */
export function IN_LOOPBACK(a: InAddr): boolean {
  return a >>> 24 === IN_LOOPBACKNET;
}

/** 0.0.0.0/8 @see sys/netinet/in.h */
export function IN_ZERONET(a: InAddr): boolean {
  return a >>> 24 === 0;
}

/** 169.254.0.0/16 @see sys/netinet/in.h */
export function IN_LINKLOCAL(a: InAddr): boolean {
  return a >>> 16 === 0xa9fe;
}

/** 224.0.0.0/24: groups of the local link, never forwarded. @see sys/netinet/in.h */
export function IN_LOCAL_GROUP(a: InAddr): boolean {
  return a >>> 8 === 0xe00000;
}

/** Formats an address as a dotted quad; for output and logs, not per packet. @see inet(3) */
export function inet_ntoa(a: InAddr): string {
  return `${a >>> 24}.${(a >>> 16) & 0xff}.${(a >>> 8) & 0xff}.${a & 0xff}`;
}

/**
 * Parses a dotted quad of four decimal numbers; null for all other text. Unlike FreeBSD's inet_aton
 * it does not accept hexadecimal, octal or shortened forms.
 */
export function parseInAddr(text: string): InAddr | null {
  const found = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (found === null) return null;
  let addr = 0;
  for (let i = 1; i <= 4; i++) {
    const digits = found[i]!;
    const octet = Number(digits);
    if (octet > 255 || (digits.length > 1 && digits.startsWith('0'))) return null;
    addr = addr * 256 + octet;
  }
  return inAddr(addr);
}

/** The netmask of a prefix length, 0 to 32. */
export function prefixMask(len: number): InAddr {
  return inAddr(len === 0 ? 0 : -1 << (32 - len));
}

/** The prefix length of a netmask; -1 if its ones are not contiguous. */
export function maskPrefix(mask: InAddr): number {
  const ones = Math.clz32(~mask);
  return prefixMask(ones) === mask ? ones : -1;
}
