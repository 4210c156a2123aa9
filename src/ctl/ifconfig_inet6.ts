/**
 * The inet6 part of ifconfig(8), after sbin/ifconfig/af_inet6.c and af_nd6.c: the lines of addresses
 * and of neighbour discovery, and the words after `inet6`. Left out: point-to-point addresses, carp.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { EADDRNOTAVAIL, EINVAL, type Errno, errnoName } from '../sys/errno.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import type { Vnet } from '../kern/vnet.ts';
import type { Ifnet } from '../net/if_var.ts';
import { IN6_ADDR_BITS } from '../netinet6/in6.ts';
import { in6_aifaddr, in6_difaddr } from '../netinet6/in6_ifattach.ts';
import {
  IFA6_IS_DEPRECATED,
  IN6_IFF_ANYCAST,
  IN6_IFF_AUTOCONF,
  IN6_IFF_DEPRECATED,
  IN6_IFF_DETACHED,
  IN6_IFF_DUPLICATED,
  IN6_IFF_PREFER_SOURCE,
  IN6_IFF_TEMPORARY,
  IN6_IFF_TENTATIVE,
  type In6Ifaddr,
  in6Ifextra,
  in6ifa_ifpforlinklocal,
  in6ifa_ifpwithaddr,
  isIn6Ifaddr,
  ND6_IFF_ACCEPT_RTADV,
  ND6_IFF_AUTO_LINKLOCAL,
  ND6_IFF_IFDISABLED,
  ND6_IFF_NO_DAD,
  ND6_IFF_NO_PREFER_IFACE,
  ND6_IFF_NO_RADR,
  ND6_IFF_PERFORMNUD,
  ND6_IFF_PREFER_SOURCE,
  ND6_IFF_STABLEADDR,
  ND6_INFINITE_LIFETIME,
} from '../netinet6/in6_var.ts';
import { nd6_setflags } from '../netinet6/nd6_flags.ts';
import { in6_getscope, in6_setscope, ip6_sprintf, parseIn6Zone } from '../netinet6/scope6.ts';
import { bitNames, type BitName, bitsText } from './bits.ts';
import { ControlFailure } from './protocol.ts';
import { strerror } from './strerror.ts';

/** An IPv6 address of an interface. */
export interface Inet6Line {
  /** A link-local address has its zone. */
  addr: string;
  prefixlen: number;
  /** The index of the interface of a link-local address; else 0. */
  scopeid: number;
  /** In the order in which ifconfig prints them: `tentative`, `duplicated`, … */
  flags: string[];
  /** Seconds; null: no end. */
  pltime: number | null;
  vltime: number | null;
}

/** Neighbour discovery on an interface. */
export interface Nd6Line {
  options: number;
  options_names: string[];
}

/** Flags of an address in the order of ifconfig's output. */
const ADDR_FLAGS: readonly (readonly [number, string])[] = [
  [IN6_IFF_ANYCAST, 'anycast'],
  [IN6_IFF_TENTATIVE, 'tentative'],
  [IN6_IFF_DUPLICATED, 'duplicated'],
  [IN6_IFF_DETACHED, 'detached'],
  [IN6_IFF_DEPRECATED, 'deprecated'],
  [IN6_IFF_AUTOCONF, 'autoconf'],
  [IN6_IFF_TEMPORARY, 'temporary'],
  [IN6_IFF_PREFER_SOURCE, 'prefer_source'],
];

const ND6_NAMES: readonly BitName[] = [
  [ND6_IFF_PERFORMNUD, 'PERFORMNUD'],
  [ND6_IFF_ACCEPT_RTADV, 'ACCEPT_RTADV'],
  [ND6_IFF_PREFER_SOURCE, 'PREFER_SOURCE'],
  [ND6_IFF_IFDISABLED, 'IFDISABLED'],
  [ND6_IFF_AUTO_LINKLOCAL, 'AUTO_LINKLOCAL'],
  [ND6_IFF_NO_RADR, 'NO_RADR'],
  [ND6_IFF_NO_PREFER_IFACE, 'NO_PREFER_IFACE'],
  [ND6_IFF_NO_DAD, 'NO_DAD'],
  [ND6_IFF_STABLEADDR, 'STABLEADDR'],
];

const SEC = 1e9;

/** The rest of a lifetime in seconds; null: no end. */
function left({ ia6_updatetime }: In6Ifaddr, time: number): number | null {
  if (time === ND6_INFINITE_LIFETIME) return null;
  return Math.max(0, Math.ceil((ia6_updatetime - nowNs()) / SEC + time));
}

function inet6Line(ia: In6Ifaddr): Inet6Line {
  const late = IFA6_IS_DEPRECATED(ia) ? IN6_IFF_DEPRECATED : 0;
  return {
    addr: ip6_sprintf(ia.ifa_ifp.if_vnet, ia.ifa_addr),
    prefixlen: ia.ia6_plen,
    scopeid: in6_getscope(ia.ifa_addr),
    flags: ADDR_FLAGS.filter(([bit]) => ((ia.ia6_flags | late) & bit) !== 0).map(
      ([, name]) => name,
    ),
    pltime: left(ia, ia.ia6_pltime),
    vltime: left(ia, ia.ia6_vltime),
  };
}

/** The IPv6 addresses of an interface. */
export function gatherInet6(ifp: Ifnet): Inet6Line[] {
  return ifp.if_addrhead.filter(isIn6Ifaddr).map(inet6Line);
}

/** Neighbour discovery on an interface; null without it. */
export function gatherNd6(ifp: Ifnet): Nd6Line | null {
  const flags = in6Ifextra(ifp)?.nd_ifinfo.flags;
  return flags === undefined ? null : { options: flags, options_names: bitNames(flags, ND6_NAMES) };
}

/** @param lifetimes print them, as `ifconfig -L` does */
export function inet6Lines(lines: readonly Inet6Line[], lifetimes: boolean): string[] {
  return lines.map(({ addr, prefixlen, scopeid, flags, pltime, vltime }) =>
    [
      `\tinet6 ${addr} prefixlen ${prefixlen}`,
      ...flags,
      ...(scopeid === 0 ? [] : [`scopeid 0x${scopeid.toString(16)}`]),
      ...(!lifetimes || (pltime === null && vltime === null)
        ? []
        : [`pltime ${pltime ?? 'infty'} vltime ${vltime ?? 'infty'}`]),
    ].join(' '),
  );
}

export function nd6Lines(nd6: Nd6Line | null): string[] {
  if (nd6 === null) return [];
  return [`\tnd6 options=${bitsText(nd6.options, nd6.options_names)}`];
}

function fail(code: string, message: string): never {
  throw new ControlFailure(code, message);
}

function check(error: Errno, call: string): void {
  if (error !== 0) fail(errnoName(error), `${call}: ${strerror(error)}`);
}

/** The words of one command line after `inet6`. */
export interface Inet6Words {
  addr: NetAddr | null;
  prefixlen: number | null;
  does: 'add' | 'delete';
  eui64: boolean;
  /** Bits of ia6_flags to set and to clear. */
  set: number;
  clear: number;
  pltime: number | null;
  vltime: number | null;
}

/** A change of the flags of neighbour discovery. */
interface Nd6Change {
  readonly set: number;
  readonly clear: number;
}

export function newInet6Words(): Inet6Words {
  return {
    addr: null,
    prefixlen: null,
    does: 'add',
    eui64: false,
    set: 0,
    clear: 0,
    pltime: null,
    vltime: null,
  };
}

const ADDR_WORDS = new Map<string, number>([
  ['anycast', IN6_IFF_ANYCAST],
  ['tentative', IN6_IFF_TENTATIVE],
  ['deprecated', IN6_IFF_DEPRECATED],
  ['autoconf', IN6_IFF_AUTOCONF],
  ['prefer_source', IN6_IFF_PREFER_SOURCE],
]);

const ND6_WORDS = new Map<string, number>([
  ['nud', ND6_IFF_PERFORMNUD],
  ['accept_rtadv', ND6_IFF_ACCEPT_RTADV],
  ['ifdisabled', ND6_IFF_IFDISABLED],
  ['auto_linklocal', ND6_IFF_AUTO_LINKLOCAL],
  ['no_radr', ND6_IFF_NO_RADR],
  ['no_prefer_iface', ND6_IFF_NO_PREFER_IFACE],
  ['no_dad', ND6_IFF_NO_DAD],
  ['stableaddr', ND6_IFF_STABLEADDR],
]);

/** The change of neighbour discovery that a word such as `-ifdisabled` makes; null: another word. */
export function nd6Word(word: string): Nd6Change | null {
  const off = word.startsWith('-');
  const bit = ND6_WORDS.get(off ? word.slice(1) : word);
  if (bit === undefined) return null;
  return off ? { set: 0, clear: bit } : { set: bit, clear: 0 };
}

/** Changes the flags of neighbour discovery of `ifp`. EINVAL: it has none. @see ifconfig(8) */
export function nd6SetFlags(ifp: Ifnet, { set, clear }: Nd6Change): Errno {
  const nd = in6Ifextra(ifp)?.nd_ifinfo;
  return nd === undefined ? EINVAL : nd6_setflags(ifp, (nd.flags & ~clear) | set);
}

function seconds(text: string): number {
  if (text === 'infty' || text === 'infinity') return ND6_INFINITE_LIFETIME;
  return /^\d{1,10}$/.test(text) && Number(text) < ND6_INFINITE_LIFETIME
    ? Number(text)
    : fail('EINVAL', `${text}: bad value`);
}

function readPrefixlen(text: string): number {
  return /^\d{1,3}$/.test(text) && Number(text) <= IN6_ADDR_BITS
    ? Number(text)
    : fail('EINVAL', `${text}: bad value`);
}

/** Parses `2001:db8::1/64`, also with a zone. */
function readAddr(vnet: Vnet, to: Inet6Words, word: string): void {
  const [text = '', bits, more] = word.split('/');
  const addr = parseIn6Zone(vnet, text);
  if (addr === null || more !== undefined) fail('EINVAL', `${word}: bad value`);
  to.addr = addr;
  if (bits !== undefined) to.prefixlen = readPrefixlen(bits);
}

/**
 * Parses one word of the part after `inet6`; `arg` returns the word's argument. Throws ControlFailure
 * (EINVAL) with ifconfig's message.
 */
export function readInet6Word(
  vnet: Vnet,
  to: Inet6Words,
  word: string,
  arg: (verb: string) => string,
): void {
  const off = word.startsWith('-');
  const bit = ADDR_WORDS.get(off ? word.slice(1) : word);
  if (bit !== undefined) {
    if (off) to.clear |= bit;
    else to.set |= bit;
    return;
  }
  switch (word) {
    case 'prefixlen':
      to.prefixlen = readPrefixlen(arg(word));
      return;
    case 'pltime':
      to.pltime = seconds(arg(word));
      return;
    case 'vltime':
      to.vltime = seconds(arg(word));
      return;
    case 'eui64':
      to.eui64 = true;
      return;
    case 'alias':
    case 'add':
      return;
    case '-alias':
    case 'delete':
    case 'remove':
      to.does = 'delete';
      return;
    default:
      readAddr(vnet, to, word);
  }
}

/** Whether the words name something to do with an address. */
function actsOnAddress({ addr, prefixlen: plen, does, eui64, set, clear }: Inet6Words): boolean {
  return addr !== null || plen !== null || does === 'delete' || eui64 || set !== 0 || clear !== 0;
}

/** Throws ControlFailure if the words need an address and have none. */
export function checkInet6Words(words: Inet6Words): void {
  if (words.addr === null && words.does !== 'delete' && actsOnAddress(words))
    fail('EINVAL', "'inet6' requires an address");
}

/** Replaces the lower half of `a` by the interface identifier of the link-local address. */
function setEui64(ifp: Ifnet, a: NetAddr): void {
  if (a.w2 !== 0 || a.w3 !== 0) fail('EINVAL', 'interface index is already filled');
  const own = in6ifa_ifpforlinklocal(ifp, 0);
  if (own === null) fail('EADDRNOTAVAIL', 'could not determine link local address');
  a.set(a.w0, a.w1, own.ifa_addr.w2, own.ifa_addr.w3);
}

/** Sets the flags of an existing address that the words name. */
function setFlags(ifp: Ifnet, addr: AddrWords, { set, clear }: Inet6Words): void {
  const a = new NetAddr();
  a.setFrom(addr);
  in6_setscope(a, ifp);
  const ia = in6ifa_ifpwithaddr(ifp, a);
  if (ia !== null) ia.ia6_flags = (ia.ia6_flags & ~clear) | set;
}

/** Carries out the words about an address. Throws ControlFailure. */
export function setInet6(ifp: Ifnet, words: Inet6Words): void {
  const { does, set, pltime, vltime } = words;
  const addr = new NetAddr();
  if (words.addr === null) {
    if (does === 'delete') check(EADDRNOTAVAIL, 'ioctl (SIOCDIFADDR)');
    return;
  }
  addr.setFrom(words.addr);
  const zone = in6_getscope(addr);
  if (zone !== 0 && zone !== ifp.if_index) check(EINVAL, 'ioctl (SIOCAIFADDR)');
  if (words.eui64) setEui64(ifp, addr);
  if (does === 'delete') {
    check(in6_difaddr(ifp, addr), 'ioctl (SIOCDIFADDR)');
    return;
  }
  const lifetime = {
    pltime: pltime ?? vltime ?? ND6_INFINITE_LIFETIME,
    vltime: vltime ?? ND6_INFINITE_LIFETIME,
  };
  const error = in6_aifaddr(ifp, addr, words.prefixlen ?? 64, set & IN6_IFF_ANYCAST, lifetime);
  check(error, 'ioctl (SIOCAIFADDR)');
  setFlags(ifp, addr, words);
}
