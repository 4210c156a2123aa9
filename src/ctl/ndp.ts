/**
 * ndp(8): the neighbours, prefixes and routers of IPv6, and neighbour discovery on an interface.
 * ndp_text.ts formats the answers. Left out: `-A`, `-f`, `-t`.
 */

import { EEXIST, ENOENT, type Errno, errnoName } from '../sys/errno.ts';
import type { AddrWords } from '../sys/addr.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ether_ntoa } from '../net/ethernet.ts';
import { ifnetList, ifunit } from '../net/if.ts';
import { LLE_IFADDR, LLE_PUB, LLE_STATIC, type Llentry, LLE_VALID } from '../net/if_llatbl.ts';
import type { Ifnet } from '../net/if_var.ts';
import {
  in6IfaForPeer,
  in6Ifextra,
  ND6_IFF_ACCEPT_RTADV,
  ND6_IFF_AUTO_LINKLOCAL,
  ND6_IFF_IFDISABLED,
  ND6_IFF_NO_PREFER_IFACE,
  ND6_IFF_PERFORMNUD,
  ND6_INFINITE_LIFETIME,
} from '../netinet6/in6_var.ts';
import { nd6Table } from '../netinet6/nd6.ts';
import { nd6_setflags } from '../netinet6/nd6_flags.ts';
import { defrouter_select } from '../netinet6/nd6_defrouter.ts';
import {
  nd6Defaultiface,
  nd6Dns,
  type Nd6DnsData,
  nd6Drlist,
  nd6FlushPrefixes,
  nd6FlushRouters,
  nd6Ifinfo,
  nd6Prlist,
  nd6_setdefaultiface,
} from '../netinet6/nd6_list.ts';
import { ndpDelete, ndpSet } from '../netinet6/nd6_ndp.ts';
import { in6_getlinkifnet, in6_getscope, ip6_sprintf, parseIn6Zone } from '../netinet6/scope6.ts';
import { etherOf } from './arp.ts';
import { findInterface } from './ifconfig.ts';
import { ControlFailure } from './protocol.ts';
import { strerror } from './strerror.ts';

/** A line of `ndp -a --json`. */
export interface NdpLine {
  addr: string;
  /** Null while the solicitation is unanswered. */
  ether: string | null;
  if: string;
  /** Seconds until the state ends; null for a permanent entry. */
  expires: number | null;
  /** N, I(ncomplete), R(eachable), S(tale), D(elay), P(robe). */
  state: string;
  router: boolean;
  /** This host answers solicitations for the address. */
  proxy: boolean;
  /** Solicitations without a reply. */
  probes: number;
}

/** A line of `ndp -p --json`. Times are in seconds; null: no end. */
export interface NdpPrefix {
  prefix: string;
  prefixlen: number;
  if: string;
  /** L (on link) and A (autonomous) as advertised, O: on link, D: detached. */
  flags: string;
  vltime: number | null;
  pltime: number | null;
  expires: number | null;
  /** Addresses with the prefix. */
  refcnt: number;
  routers: { addr: string; state: string }[];
}

/** A line of `ndp -r --json`. */
export interface NdpRouter {
  addr: string;
  if: string;
  /** M (managed), O (other). */
  flags: string;
  pref: string;
  /** Seconds; null: no end. */
  expires: number | null;
  /** The default route leads to it. */
  installed: boolean;
}

/** Where a DNS server or search domain comes from. */
interface NdpOrigin {
  router: string;
  /** Seconds; null: no end. */
  expires: number | null;
}

/** The output of `ndp -i IF --json`. Times are in milliseconds. */
export interface NdpIfinfo {
  if: string;
  linkmtu: number;
  maxmtu: number;
  curhlim: number;
  basereachable: number;
  reachable: number;
  retrans: number;
  flags: string[];
  /** Ours: DNS servers and search domains of routers, which nothing uses. */
  rdnss: ({ addr: string } & NdpOrigin)[];
  dnssl: ({ domain: string } & NdpOrigin)[];
}

export type NdpAnswer =
  | { op: 'neighbors'; lines: NdpLine[] }
  | { op: 'prefixes'; lines: NdpPrefix[] }
  | { op: 'routers'; lines: NdpRouter[] }
  | { op: 'ifinfo'; info: NdpIfinfo }
  /** The default interface; null: none. */
  | { op: 'defif'; if: string | null }
  /** The deleted neighbours. */
  | { op: 'deleted'; addrs: string[] }
  | { op: 'done' };

const SEC = 1e9;
/** Letters by Llentry.ln_state; another state has no resolution yet. */
const STATES: Record<number, string> = { 0: 'I', 1: 'R', 2: 'S', 3: 'D', 4: 'P' };

function fail(code: string, message: string): never {
  throw new ControlFailure(code, message);
}

function check(error: Errno, what: string): void {
  if (error !== 0) fail(errnoName(error), `${what}: ${strerror(error)}`);
}

/** A lifetime for JSON. */
const seconds = (time: number): number | null => (time === ND6_INFINITE_LIFETIME ? null : time);

function neighborLine(ifp: Ifnet, lle: Llentry): NdpLine {
  const valid = (lle.la_flags & LLE_VALID) !== 0;
  const fixed = (lle.la_flags & LLE_STATIC) !== 0 || lle.la_expire === 0;
  return {
    addr: ip6_sprintf(ifp.if_vnet, lle.r_l3addr),
    ether: valid ? ether_ntoa(lle.ll_addr) : null,
    if: ifp.if_xname,
    expires: fixed ? null : Math.max(0, Math.ceil((lle.la_expire - nowNs()) / SEC)),
    state: STATES[lle.ln_state] ?? 'N',
    router: lle.ln_router,
    proxy: (lle.la_flags & LLE_PUB) !== 0,
    probes: valid ? 0 : lle.la_asked,
  };
}

function neighbors(vnet: Vnet): NdpLine[] {
  return ifnetList(vnet).flatMap((ifp) =>
    (nd6Table(ifp)?.table.list() ?? []).map((lle) => neighborLine(ifp, lle)),
  );
}

function prefixes(vnet: Vnet): NdpPrefix[] {
  return nd6Prlist(vnet).map((pr) => ({
    prefix: ip6_sprintf(vnet, pr.prefix),
    prefixlen: pr.prefixlen,
    if: pr.ifp.if_xname,
    flags: [
      pr.raf_onlink ? 'L' : '',
      pr.raf_auto ? 'A' : '',
      pr.onlink ? 'O' : '',
      pr.detached ? 'D' : '',
    ].join(''),
    vltime: seconds(pr.vltime),
    pltime: seconds(pr.pltime),
    expires: pr.expire,
    refcnt: pr.refcnt,
    routers: pr.advrtrs.map(({ rtaddr, state }) => ({ addr: ip6_sprintf(vnet, rtaddr), state })),
  }));
}

function routers(vnet: Vnet): NdpRouter[] {
  return nd6Drlist(vnet).map((dr) => ({
    addr: ip6_sprintf(vnet, dr.rtaddr),
    if: dr.ifp.if_xname,
    flags: `${dr.managed ? 'M' : ''}${dr.other ? 'O' : ''}`,
    pref: dr.pref,
    expires: dr.expire,
    installed: dr.installed,
  }));
}

/** Flags of an interface in ndp's words, in the order of its output. */
const FLAGS: readonly (readonly [string, number])[] = [
  ['disabled', ND6_IFF_IFDISABLED],
  ['nud', ND6_IFF_PERFORMNUD],
  ['accept_rtadv', ND6_IFF_ACCEPT_RTADV],
  ['auto_linklocal', ND6_IFF_AUTO_LINKLOCAL],
  ['no_prefer_iface', ND6_IFF_NO_PREFER_IFACE],
];

function ifinfo(ifp: Ifnet): NdpIfinfo {
  const nd = nd6Ifinfo(ifp) ?? fail('EINVAL', `${ifp.if_xname}: not initialized yet`);
  const { linkmtu, maxmtu, chlim, basereachable, reachable, retrans, flags } = nd;
  const { if_vnet: vnet } = ifp;
  const dns = nd6Dns(ifp);
  return {
    if: ifp.if_xname,
    linkmtu,
    maxmtu,
    curhlim: chlim,
    basereachable,
    reachable,
    retrans,
    flags: FLAGS.filter(([, bit]) => (flags & bit) !== 0).map(([name]) => name),
    rdnss: dns.flatMap(({ addr, ...one }) =>
      addr === null ? [] : [{ addr: ip6_sprintf(vnet, addr), ...origin(vnet, one) }],
    ),
    dnssl: dns.flatMap(({ addr, domain, ...one }) =>
      addr === null ? [{ domain, ...origin(vnet, one) }] : [],
    ),
  };
}

/** The router that advertises a server or domain, and the seconds that are left. */
function origin(vnet: Vnet, one: Pick<Nd6DnsData, 'from' | 'expire'>): NdpOrigin {
  return { router: ip6_sprintf(vnet, one.from), expires: one.expire };
}

/** Values of `-i IF name=N`, and their largest value. */
const VALUES = { basereachable: 3_600_000, retrans: 3_600_000, curhlim: 255 } as const;

const isValue = (name: string): name is keyof typeof VALUES => Object.hasOwn(VALUES, name);

/** Changes the flags and values of an interface as `-i IF` names them. Checks all words first. */
function setIfinfo(ifp: Ifnet, words: readonly string[]): void {
  const nd = in6Ifextra(ifp)?.nd_ifinfo ?? fail('EINVAL', `${ifp.if_xname}: no IPv6`);
  let { flags } = nd;
  const values: Partial<Record<keyof typeof VALUES, number>> = {};
  for (const word of words) {
    const [name = '', text] = word.split('=', 2);
    const bit = FLAGS.find(([flag]) => flag === name.replace(/^-/, ''))?.[1];
    if (bit !== undefined && text === undefined) {
      flags = name.startsWith('-') ? flags & ~bit : flags | bit;
      continue;
    }
    const known = [...FLAGS.map(([flag]) => flag), ...Object.keys(VALUES).map((v) => `${v}=N`)];
    if (!isValue(name)) fail('EINVAL', `${word}: one of ${known.join(', ')}`);
    if (text === undefined || !/^\d{1,9}$/.test(text) || Number(text) > VALUES[name])
      fail('EINVAL', `${word}: ${name}=N, up to ${VALUES[name]}`);
    values[name] = Number(text);
  }
  if (flags !== nd.flags) check(nd6_setflags(ifp, flags), 'ioctl(SIOCSIFINFO_IN6)');
  const { basereachable = 0, retrans = 0, curhlim = 0 } = values;
  // 0 means unspecified, as on FreeBSD.
  if (basereachable > 0) nd.basereachable = nd.reachable = basereachable;
  if (retrans > 0) nd.retrans = retrans;
  if (curhlim > 0) nd.chlim = curhlim;
}

function readAddr(vnet: Vnet, text: string): AddrWords {
  return parseIn6Zone(vnet, text) ?? fail('EINVAL', `${text}: not an IPv6 address`);
}

/** The interface on whose link `addr` is, or null. */
function interfaceOf(vnet: Vnet, addr: AddrWords): Ifnet | null {
  const zone = in6_getscope(addr);
  if (zone !== 0) return in6_getlinkifnet(vnet, zone);
  const nd = ifnetList(vnet).filter((ifp) => nd6Table(ifp) !== null);
  return (
    nd.find((ifp) => nd6Table(ifp)!.find(addr) !== null) ??
    nd.find((ifp) => in6IfaForPeer(ifp, addr) !== null) ??
    null
  );
}

function set(vnet: Vnet, [host, ether, ...flags]: readonly string[]): void {
  if (host === undefined || ether === undefined)
    fail('EINVAL', '-s: an address and an Ethernet address are needed');
  const other = flags.find((flag) => flag !== 'temp' && flag !== 'proxy');
  if (other !== undefined) fail('EINVAL', `${other}: only temp and proxy are known`);
  const addr = readAddr(vnet, host);
  const ifp =
    interfaceOf(vnet, addr) ?? fail('EINVAL', `cannot intuit interface index and type for ${host}`);
  const error = ndpSet(ifp, addr, etherOf(ether), flags.includes('temp'), flags.includes('proxy'));
  if (error === EEXIST) fail('EEXIST', `${host} is an address of ${ifp.if_xname}`);
  check(error, host);
}

/** Deletes one neighbour. */
function remove(vnet: Vnet, host: string): void {
  const addr = readAddr(vnet, host);
  const ifp = interfaceOf(vnet, addr);
  const error = ifp === null ? ENOENT : ndpDelete(ifp, addr);
  if (error !== 0) fail(errnoName(error), `cannot locate ${host}`);
}

/** Deletes all neighbours but our own addresses. Returns their addresses. */
function clear(vnet: Vnet): string[] {
  return ifnetList(vnet).flatMap((ifp) => {
    const list = nd6Table(ifp)?.table.list() ?? [];
    const others = list.filter((lle) => (lle.la_flags & LLE_IFADDR) === 0);
    for (const lle of others) nd6Table(ifp)!.free(lle);
    return others.map((lle) => ip6_sprintf(vnet, lle.r_l3addr));
  });
}

function setDefaultIf(vnet: Vnet, name: string): void {
  const ifp = name === 'delete' ? null : ifunit(vnet, name);
  if (ifp === null && name !== 'delete')
    fail('ENXIO', `failed to resolve i/f index for ${name}: Device not configured`);
  check(nd6_setdefaultiface(vnet, ifp), 'ioctl(SIOCSDEFIFACE_IN6)');
}

const USAGE =
  '-a, -c, -p, -r, -H, -P, -R, -d HOST, -i IF [FLAG...], -I [IF|delete], -s HOST ETHER [temp] [proxy], or HOST';

/** The operation letter of the options, and the words after them. */
function readWords(words: readonly string[]): { op: string; args: string[] } {
  let op = '';
  let at = 0;
  for (; words[at]?.startsWith('-') === true && op === ''; at++)
    for (const letter of words[at]!.slice(1)) {
      // Numbers are always printed.
      if (letter === 'n') continue;
      if (!'acprHPRdiIs'.includes(letter) || op !== '')
        fail('EINVAL', `${words[at]!}: use ${USAGE}`);
      op = letter;
    }
  return { op, args: words.slice(at) };
}

/** Throws unless there are `min` to `max` arguments. */
function counted(args: readonly string[], min: number, max: number): void {
  if (args.length < min || args.length > max) fail('EINVAL', `use ${USAGE}`);
}

/**
 * Executes `ndp WORDS...` and returns the data of its output. Throws ControlFailure; then nothing was
 * changed. @see ndp(8)
 */
export function runNdp(vnet: Vnet, words: readonly string[]): NdpAnswer {
  const { op, args } = readWords(words);
  const [first = ''] = args;
  if (op === 'i') {
    counted(args, 1, Infinity);
    const ifp = findInterface(vnet, first);
    if (args.length > 1) setIfinfo(ifp, args.slice(1));
    return { op: 'ifinfo', info: ifinfo(ifp) };
  }
  if (op === 's') {
    set(vnet, args);
    return { op: 'done' };
  }
  if (op === '' || op === 'd') {
    counted(args, 1, 1);
    if (op === 'd') {
      remove(vnet, first);
      return { op: 'deleted', addrs: [first] };
    }
    const addr = ip6_sprintf(vnet, readAddr(vnet, first));
    const lines = neighbors(vnet).filter((line) => line.addr === addr);
    if (lines.length === 0) fail('ENOENT', `${first} (${addr}) -- no entry`);
    return { op: 'neighbors', lines };
  }
  if (op === 'I') {
    counted(args, 0, 1);
    if (args.length === 1) setDefaultIf(vnet, first);
    return { op: 'defif', if: nd6Defaultiface(vnet)?.if_xname ?? null };
  }
  counted(args, 0, 0);
  switch (op) {
    case 'a':
      return { op: 'neighbors', lines: neighbors(vnet) };
    case 'c':
      return { op: 'deleted', addrs: clear(vnet) };
    case 'p':
      return { op: 'prefixes', lines: prefixes(vnet) };
    case 'r':
      return { op: 'routers', lines: routers(vnet) };
    case 'P':
      nd6FlushPrefixes(vnet);
      return { op: 'done' };
    case 'R':
      nd6FlushRouters(vnet);
      return { op: 'done' };
    // -H: the default route leads to the best router again, if the user has removed it.
    case 'H':
      defrouter_select(vnet);
      return { op: 'done' };
    default:
      return { op: 'done' };
  }
}
