/**
 * The routing tables: route(8) and `netstat -r`, for every address family that the stack has
 * (AddrFamily). All words are parsed before any change. The texts are those of sbin/route and
 * usr.bin/netstat. Left out: -reject, -blackhole, several tables (fibs), multipath, names of hosts
 * and networks, `monitor`.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { EADDRINUSE, type Errno, EEXIST, ENETUNREACH, errnoName, ESRCH } from '../sys/errno.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import type { Vnet } from '../kern/vnet.ts';
import { addrFamilies, type AddrFamily } from '../net/addr_family.ts';
import { ifunit } from '../net/if.ts';
import { IFF_UP, type Ifnet } from '../net/if_var.ts';
import {
  Nhop,
  nhopVia,
  rib_add_route,
  rib_change_route,
  rib_del_route,
  rib_lookup_prefix,
  ribMatch,
  ribRemoveWhere,
  RTF_DYNAMIC,
  RTF_GATEWAY,
  RTF_HOST,
  RTF_PINNED,
  RTF_STATIC,
  RTF_UP,
  rt_tables_get_rnh,
  type RtEntry,
} from '../net/route.ts';
import { type Destination, readRoute, type RoutePlan } from './route_words.ts';
import { ControlFailure } from './protocol.ts';
import { strerror } from './strerror.ts';

/** A line of `netstat -rn --json`. */
export interface RouteLine {
  /** `inet`, `inet6`. */
  family: string;
  /** As netstat prints it: `default`, `192.0.2.0/24`, or the address of a host. */
  destination: string;
  prefixlen: number;
  /** An address, or `link#N` with the number of the interface. */
  gateway: string;
  /** Letters: U up, G gateway, H host, D from a redirect, S static. */
  flags: string;
  netif: string;
  /** Bytes. */
  mtu: number;
  /** Seconds; null: the route does not expire. */
  expire: number | null;
}

/** The table of one family, as netstat prints it. */
export interface RouteTable {
  family: string;
  title: string;
  dstWidth: number;
  gatewayWidth: number;
  routes: RouteLine[];
}

/** The answer of `route get`. */
export interface RouteGet extends Omit<RouteLine, 'flags'> {
  op: 'get';
  routeTo: string;
  mask: string;
  /** Names, such as UP and GATEWAY. */
  flags: string[];
  /** The source address of packets on this route. */
  source: string;
}

/** The answer of `route add`, `change` and `delete`. */
export interface RouteChange {
  op: 'add' | 'change' | 'delete';
  family: string;
  type: 'net' | 'host';
  destination: string;
  prefixlen: number;
  /** The gateway or the interface; null if the user gave none. */
  gateway: string | null;
}

/** The answer of `route flush`: the removed routes. */
export interface RouteFlush {
  op: 'flush';
  routes: RouteLine[];
}

export interface RouteShow {
  op: 'show';
  tables: RouteTable[];
}

export type RouteAnswer = RouteGet | RouteChange | RouteFlush | RouteShow;

const FLAG_LETTERS: readonly (readonly [number, string])[] = [
  [RTF_GATEWAY, 'G'],
  [RTF_HOST, 'H'],
  [RTF_DYNAMIC, 'D'],
  [RTF_STATIC, 'S'],
];

const FLAG_NAMES: readonly (readonly [number, string])[] = [
  [RTF_GATEWAY, 'GATEWAY'],
  [RTF_HOST, 'HOST'],
  [RTF_DYNAMIC, 'DYNAMIC'],
  // The kernel's mark of an answer, in this place of the list.
  [-1, 'DONE'],
  [RTF_STATIC, 'STATIC'],
  [RTF_PINNED, 'PINNED'],
];

const isUp = ({ rt_nhop }: RtEntry): boolean => (rt_nhop.nh_ifp.if_flags & IFF_UP) !== 0;

function destinationText(vnet: Vnet, af: AddrFamily, rt: RtEntry): string {
  if (rt.rt_prefixlen === 0) return 'default';
  const addr = af.print(vnet, rt.rt_dst);
  return rt.rt_prefixlen === af.bits ? addr : `${addr}/${rt.rt_prefixlen}`;
}

function gatewayText(vnet: Vnet, af: AddrFamily, { nh_flags, nh_gateway, nh_ifa }: Nhop): string {
  if ((nh_flags & RTF_GATEWAY) !== 0) return af.print(vnet, nh_gateway);
  // For a route by lo0 to an own address this is the interface of the address.
  return `link#${nh_ifa.ifa_ifp.if_index}`;
}

function routeLine(vnet: Vnet, af: AddrFamily, rt: RtEntry): RouteLine {
  const { rt_nhop: nh } = rt;
  const letters = FLAG_LETTERS.filter(([bit]) => (nh.nh_flags & bit) !== 0).map(([, c]) => c);
  return {
    family: af.keyword,
    destination: destinationText(vnet, af, rt),
    prefixlen: rt.rt_prefixlen,
    gateway: gatewayText(vnet, af, nh),
    flags: `${isUp(rt) ? 'U' : ''}${letters.join('')}`,
    netif: nh.nh_ifp.if_xname,
    mtu: nh.nh_mtu,
    expire: nh.nh_expire === 0 ? null : Math.max(0, Math.ceil((nh.nh_expire - nowNs()) / 1e9)),
  };
}

/** Compares the unsigned words of two addresses. */
function compareWords(a: AddrWords, b: AddrWords): number {
  const pairs = [
    [a.w0, b.w0],
    [a.w1, b.w1],
    [a.w2, b.w2],
    [a.w3, b.w3],
  ] as const;
  for (const [x, y] of pairs) if (x !== y) return (x >>> 0) - (y >>> 0);
  return 0;
}

/** The routes of a family, sorted by address, then by prefix length. */
function tableOf(vnet: Vnet, af: AddrFamily): RouteTable {
  const entries = [...rt_tables_get_rnh(vnet, af.family).entries];
  entries.sort((a, b) => compareWords(a.rt_dst, b.rt_dst) || a.rt_prefixlen - b.rt_prefixlen);
  const { keyword: family, title, dstWidth, gatewayWidth } = af;
  const routes = entries.map((rt) => routeLine(vnet, af, rt));
  return { family, title, dstWidth, gatewayWidth, routes };
}

/** The routes of all families, for `netstat -rn --json`. */
export function gatherRoutes(vnet: Vnet): RouteLine[] {
  return addrFamilies(vnet).flatMap((af) => tableOf(vnet, af).routes);
}

/** Formats the tables as `netstat -rn`. */
function formatRoutes(tables: readonly RouteTable[]): string {
  const line = (
    { dstWidth, gatewayWidth }: RouteTable,
    dst: string,
    gateway: string,
    flags: string,
    netif: string,
    expire: string,
  ): string => {
    const head = `${dst.padEnd(dstWidth)} ${gateway.padEnd(gatewayWidth)} ${flags.padEnd(6)}`;
    return `${head} ${netif.padStart(8)} ${expire}`.trimEnd() + '\n';
  };
  const text = tables.map((t) => {
    const rows = t.routes.map(({ destination, gateway, flags, netif, expire }) =>
      line(
        t,
        destination,
        gateway,
        flags,
        netif,
        expire === null ? '' : String(expire).padStart(6),
      ),
    );
    const head = line(t, 'Destination', 'Gateway', 'Flags', 'Netif', 'Expire');
    return `\n${t.title}:\n${head}${rows.join('')}`;
  });
  return `Routing tables\n${text.join('')}`;
}

/** What the command reports for an errno. @see route(8), sbin/route/route.c */
function reasonOf(error: Errno): string {
  const words: Record<string, string> = {
    ESRCH: 'not in table',
    EEXIST: 'route already in table',
    ENOBUFS: 'not enough memory',
    EADDRINUSE: 'the route belongs to an interface address: use ifconfig',
  };
  return words[errnoName(error)] ?? strerror(error);
}

/** The line that route prints about a change, without the result. */
function changeText({ op, type, destination, gateway }: RouteChange): string {
  return `${op} ${type} ${destination}${gateway === null ? '' : `: gateway ${gateway}`}`;
}

function fail(code: string, message: string): never {
  throw new ControlFailure(code, `route: ${message}`);
}

/** The next hop of `route add` and `change`. */
function nhopOf(vnet: Vnet, af: AddrFamily, plan: RoutePlan, dst: Destination): Nhop | Errno {
  const host = dst.prefixlen === af.bits ? RTF_HOST : 0;
  const rh = rt_tables_get_rnh(vnet, af.family);
  const on = plan.ifp === null ? null : interfaceOf(vnet, plan.ifp);
  if (plan.byInterface !== null) {
    const ifp = interfaceOf(vnet, plan.byInterface);
    const ifa = af.ifaFor(ifp, dst.addr);
    if (ifa === null) return ENETUNREACH;
    return new Nhop(ifp, ifa, null, RTF_UP | RTF_STATIC | host, plan.mtu);
  }
  return nhopVia(rh, plan.gateway!, host, plan.mtu, on) ?? ENETUNREACH;
}

function interfaceOf(vnet: Vnet, name: string): Ifnet {
  return ifunit(vnet, name) ?? fail('ENXIO', `${name}: no such interface`);
}

/** For `change` without a gateway: the present next hop with the new MTU. */
function changedMtu(af: AddrFamily, vnet: Vnet, { addr, prefixlen }: Destination, mtu: number) {
  const rt = rib_lookup_prefix(rt_tables_get_rnh(vnet, af.family), addr, prefixlen);
  if (rt === null) return ESRCH;
  const { nh_ifp, nh_ifa, nh_gateway, nh_flags } = rt.rt_nhop;
  const gateway = (nh_flags & RTF_GATEWAY) === 0 ? null : nh_gateway;
  return new Nhop(nh_ifp, nh_ifa, gateway, nh_flags, mtu);
}

/** Whether the route has the gateway or interface that `route delete` names, if it names one. */
function gatewayFits(plan: RoutePlan, { rt_nhop: nh }: RtEntry): boolean {
  if (plan.byInterface !== null && nh.nh_ifp.if_xname !== plan.byInterface) return false;
  if (plan.ifp !== null && nh.nh_ifp.if_xname !== plan.ifp) return false;
  if (plan.gateway === null) return true;
  const words = new NetAddr();
  words.setFrom(plan.gateway);
  return (nh.nh_flags & RTF_GATEWAY) !== 0 && words.equals(nh.nh_gateway);
}

function remove(vnet: Vnet, af: AddrFamily, plan: RoutePlan, dst: Destination): Errno {
  const rh = rt_tables_get_rnh(vnet, af.family);
  const rt = rib_lookup_prefix(rh, dst.addr, dst.prefixlen);
  if (rt === null || !gatewayFits(plan, rt)) return ESRCH;
  if ((rt.rt_nhop.nh_flags & RTF_PINNED) !== 0) return EADDRINUSE;
  return rib_del_route(rh, dst.addr, dst.prefixlen);
}

function apply(vnet: Vnet, af: AddrFamily, plan: RoutePlan, dst: Destination): Errno {
  if (plan.op === 'delete') return remove(vnet, af, plan, dst);
  const rh = rt_tables_get_rnh(vnet, af.family);
  const { addr, prefixlen } = dst;
  const there = rib_lookup_prefix(rh, addr, prefixlen);
  if (plan.op === 'add' && there !== null) return EEXIST;
  if (plan.op === 'change' && there === null) return ESRCH;
  const named = plan.gateway !== null || plan.byInterface !== null;
  const nh = named ? nhopOf(vnet, af, plan, dst) : changedMtu(af, vnet, dst, plan.mtu);
  if (typeof nh === 'number') return nh;
  return plan.op === 'add'
    ? rib_add_route(rh, addr, prefixlen, nh)
    : rib_change_route(rh, addr, prefixlen, nh);
}

function change(vnet: Vnet, af: AddrFamily, plan: RoutePlan, dst: Destination): RouteChange {
  const answer: RouteChange = {
    op: plan.op as RouteChange['op'],
    family: af.keyword,
    type: dst.prefixlen === af.bits ? 'host' : 'net',
    destination: dst.text,
    prefixlen: dst.prefixlen,
    gateway: plan.byInterface ?? plan.gatewayText,
  };
  const error = apply(vnet, af, plan, dst);
  if (error !== 0)
    fail(
      errnoName(error),
      `writing to routing socket: ${strerror(error)}: ` +
        `${changeText(answer)} fib 0: ${reasonOf(error)}`,
    );
  return answer;
}

function get(vnet: Vnet, af: AddrFamily, dst: Destination): RouteGet {
  const rh = rt_tables_get_rnh(vnet, af.family);
  const { addr, prefixlen } = dst;
  // A destination with a prefix asks for this route, an address for the one that packets take.
  const exact = prefixlen < af.bits;
  const rt = exact ? rib_lookup_prefix(rh, addr, prefixlen) : ribMatch(rh, addr);
  if (rt === null) return fail('ESRCH', 'route has not been found');
  const { nh_flags, nh_ifa } = rt.rt_nhop;
  const names = FLAG_NAMES.filter(([bit]) => bit === -1 || (nh_flags & bit) !== 0);
  const { rt_prefixlen, rt_mask } = rt;
  return {
    ...routeLine(vnet, af, rt),
    op: 'get',
    routeTo: dst.text,
    destination: rt_prefixlen === 0 ? 'default' : af.print(vnet, rt.rt_dst),
    mask: rt_prefixlen === 0 ? 'default' : af.print(vnet, rt_mask),
    flags: [...(isUp(rt) ? ['UP'] : []), ...names.map(([, name]) => name)],
    source: af.print(vnet, nh_ifa.ifa_addr),
  };
}

function flush(vnet: Vnet, families: readonly AddrFamily[]): RouteFlush {
  const routes = families.flatMap((af) => {
    const rh = rt_tables_get_rnh(vnet, af.family);
    const gone = ribRemoveWhere(rh, (rt) => (rt.rt_nhop.nh_flags & RTF_GATEWAY) !== 0);
    return gone.map((rt) => routeLine(vnet, af, rt));
  });
  return { op: 'flush', routes };
}

/**
 * Executes `route WORDS...` and returns the data of its output. Throws ControlFailure with route's
 * message; then nothing was changed.
 * @see route(8)
 */
export function runRoute(vnet: Vnet, words: readonly string[]): RouteAnswer {
  const plan = readRoute(vnet, words);
  const { af, dst, op } = plan;
  const families = af === null ? addrFamilies(vnet) : [af];
  if (op === 'flush') return flush(vnet, families);
  if (af === null || dst === null)
    return { op: 'show', tables: families.map((one) => tableOf(vnet, one)) };
  return op === 'get' ? get(vnet, af, dst) : change(vnet, af, plan, dst);
}

function getText(r: RouteGet): string {
  const host = r.flags.includes('HOST');
  const gateway = r.flags.includes('GATEWAY') ? `    gateway: ${r.gateway}\n` : '';
  const numbers = [0, 0, 0, 0, r.mtu, 1].map((n) => `${String(n).padStart(8)}  `).join('');
  return (
    `   route to: ${r.routeTo}\ndestination: ${r.destination}\n` +
    `${host ? '' : `       mask: ${r.mask}\n`}${gateway}        fib: 0\n` +
    `  interface: ${r.netif}\n      flags: <${r.flags.join(',')}>\n` +
    ' recvpipe  sendpipe  ssthresh  rtt,msec    mtu        weight    expire\n' +
    `${numbers}${String(r.expire ?? 0).padStart(8)} \n`
  );
}

/** Formats an answer as route(8) prints it. */
export function formatRoute(answer: RouteAnswer): string {
  switch (answer.op) {
    case 'get':
      return getText(answer);
    case 'show':
      return formatRoutes(answer.tables);
    case 'flush':
      return answer.routes
        .map((r) => `${r.destination.padEnd(20)} ${r.gateway.padEnd(20)} done\n`)
        .join('');
    case 'add':
    case 'change':
    case 'delete':
      return `${changeText(answer)}\n`;
  }
}
