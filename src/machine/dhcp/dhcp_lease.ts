/** Leases: what an offer or an acknowledgement grants, checked. */

import type { InAddr } from '../../sys/types.ts';
import {
  IN_EXPERIMENTAL,
  IN_LOOPBACK,
  IN_MULTICAST,
  IN_ZERONET,
  inet_ntoa,
  maskPrefix,
  prefixMask,
} from '../../netinet/in.ts';
import { classPrefix } from '../../netinet/in_family.ts';
import { inAddr } from '../../sys/types.ts';
import {
  DHO_CLASSLESS_ROUTES,
  DHO_DNS,
  DHO_DOMAIN_NAME,
  DHO_LEASE_TIME,
  DHO_MTU,
  DHO_ROUTERS,
  DHO_SERVER_ID,
  DHO_SUBNET_MASK,
  DHO_T1,
  DHO_T2,
  type DhcpReply,
} from './dhcp_msg.ts';

/** A lease time that never ends: RFC 2131, section 3.3. */
const INFINITE = 0xffffffff;
/** The most entries of each list that are kept. */
const SERVERS_MAX = 8;
const ROUTES_MAX = 64;
/** The smallest MTU that is taken from a server: hosts accept datagrams of 576 bytes. */
const MTU_MIN = 576;
/** A domain name: RFC 1035, section 2.3.4. */
const DOMAIN = /^[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?\.?$/i;

/** A route of option 121; gateway 0: the destination is on the link. */
export interface LeaseRoute {
  readonly dst: InAddr;
  readonly prefixlen: number;
  readonly gateway: InAddr;
}

/** A lease. Times are in seconds from the request; Infinity: never. */
export interface Lease {
  readonly addr: InAddr;
  readonly prefixlen: number;
  readonly server: InAddr;
  readonly routers: readonly InAddr[];
  /** Null: the server sent no option 121. Else the routers do not count, RFC 3442. */
  readonly routes: readonly LeaseRoute[] | null;
  readonly dns: readonly InAddr[];
  readonly domain: string | null;
  readonly mtu: number | null;
  readonly seconds: number;
  readonly t1: number;
  readonly t2: number;
}

/** Whether an address can be that of a host. */
function isHostAddr(addr: InAddr): boolean {
  return !(IN_ZERONET(addr) || IN_LOOPBACK(addr) || IN_MULTICAST(addr) || IN_EXPERIMENTAL(addr));
}

/** The routes of option 121; null: malformed. */
function classlessRoutes(bytes: Uint8Array): LeaseRoute[] | null {
  const routes: LeaseRoute[] = [];
  for (let at = 0; at < bytes.length;) {
    const prefixlen = bytes[at]!;
    const significant = Math.ceil(prefixlen / 8);
    const end = at + 1 + significant + 4;
    if (prefixlen > 32 || end > bytes.length) return null;
    const word = (from: number, n: number): number => {
      let v = 0;
      for (let i = 0; i < 4; i++) v = v * 256 + (i < n ? bytes[from + i]! : 0);
      return v;
    };
    const dst = inAddr(word(at + 1, significant) & prefixMask(prefixlen));
    const gateway = inAddr(word(at + 1 + significant, 4));
    at = end;
    const usable = prefixlen === 0 || isHostAddr(dst);
    if (usable && (gateway === 0 || isHostAddr(gateway)) && routes.length < ROUTES_MAX)
      routes.push({ dst, prefixlen, gateway });
  }
  return routes;
}

function domainOf(bytes: Uint8Array | null): string | null {
  if (bytes === null) return null;
  // Some servers end the name with NUL.
  const text = Buffer.from(bytes).toString('latin1').replace(/\0+$/, '');
  return DOMAIN.test(text) ? text : null;
}

/** T1 and T2 of a lease: the server's if they are in order, else RFC 2131's. */
function timers({ options }: DhcpReply, seconds: number): { t1: number; t2: number } {
  if (seconds === Infinity) return { t1: Infinity, t2: Infinity };
  const t2 = options.number(DHO_T2, 4) ?? seconds * 0.875;
  const t1 = options.number(DHO_T1, 4) ?? Math.min(seconds * 0.5, t2);
  const inOrder = t1 > 0 && t1 <= t2 && t2 < seconds;
  return inOrder ? { t1, t2 } : { t1: seconds * 0.5, t2: seconds * 0.875 };
}

/** Why the address cannot be used in the network of `prefixlen`; null: it can. */
function addrProblem(addr: InAddr, prefixlen: number, server: InAddr): string | null {
  const text = `${inet_ntoa(addr)}/${prefixlen}`;
  if (!isHostAddr(addr)) return `${text} is not a host's address`;
  if (addr === server) return `${text} is the server's own address`;
  const host = ~prefixMask(prefixlen);
  if (prefixlen < 31 && ((addr & host) === 0 || (addr & host) === host))
    return `${text} is the address of the network or its broadcast address`;
  return null;
}

/** The lease that an offer or an acknowledgement grants, or what is wrong with it. */
export function leaseOf(reply: DhcpReply): Lease | string {
  const { yiaddr: addr, options } = reply;
  const server = options.addr(DHO_SERVER_ID);
  if (server === null || !isHostAddr(server)) return 'no valid server identifier';
  const given = options.number(DHO_LEASE_TIME, 4);
  if (given === null || given === 0) return 'no valid lease time';
  const mask = options.addr(DHO_SUBNET_MASK);
  const prefixlen = mask === null ? classPrefix(addr) : maskPrefix(mask);
  if (prefixlen <= 0) return 'no valid subnet mask';
  const problem = addrProblem(addr, prefixlen, server);
  if (problem !== null) return problem;
  const seconds = given === INFINITE ? Infinity : given;
  const classless = options.bytes(DHO_CLASSLESS_ROUTES);
  const mtu = options.number(DHO_MTU, 2);
  return {
    addr,
    prefixlen,
    server,
    routers: options.addrs(DHO_ROUTERS, SERVERS_MAX).filter((a) => isHostAddr(a) && a !== addr),
    routes: classless === null ? null : classlessRoutes(classless),
    dns: options.addrs(DHO_DNS, SERVERS_MAX).filter(isHostAddr),
    domain: domainOf(options.bytes(DHO_DOMAIN_NAME)),
    mtu: mtu !== null && mtu >= MTU_MIN ? mtu : null,
    seconds,
    ...timers(reply, seconds),
  };
}
