/**
 * IPv6 of a NIC of this host: sets its address and default route, or starts the configuration by router
 * advertisements, and reports the state of the address.
 */

import { EEXIST, EINVAL, ENETUNREACH, type Errno, errnoError, errnoName } from '../sys/errno.ts';
import type { NetAddr } from '../sys/addr.ts';
import { inPass } from '../sys/pass.ts';
import type { Ifnet } from '../net/if_var.ts';
import { IN6_IS_ADDR_LINKLOCAL, in6addr_any, parseIn6 } from '../netinet6/in6.ts';
import { in6RouteAddGateway } from '../netinet6/in6_fib.ts';
import { in6_aifaddr } from '../netinet6/in6_ifattach.ts';
import {
  IN6_IFF_AUTOCONF,
  IN6_IFF_DUPLICATED,
  IN6_IFF_TEMPORARY,
  IN6_IFF_TENTATIVE,
  type In6Ifaddr,
  in6ifa_ifpwithaddr,
  isIn6Ifaddr,
} from '../netinet6/in6_var.ts';
import { in6AutoconfStart } from '../netinet6/nd6_flags.ts';
import { in6_setscope, ip6_sprintf } from '../netinet6/scope6.ts';
import type { NicOptions } from './nic.ts';

type Ipv6Options = Pick<NicOptions, 'addr6' | 'gateway6' | 'slaac'>;

/** The options of a NIC whose wire cannot carry IPv6. */
export function withoutIpv6({ slaac: _slaac, ...options }: NicOptions): NicOptions {
  return { ...options, addr6: null, gateway6: null };
}

function must(error: Errno, syscall: string, hint = ''): void {
  if (error !== 0) throw errnoError(error, syscall, hint);
}

/** Parses an address of an option; a link-local one gets the zone of `ifp`. */
function parsed(ifp: Ifnet, option: string, text: string): NetAddr {
  const a = parseIn6(text);
  if (a === null) throw errnoError(EINVAL, option, text);
  in6_setscope(a, ifp);
  return a;
}

/** Splits `2001:db8::2/64`. */
function cidrOf(ifp: Ifnet, cidr: string): [addr: NetAddr, plen: number] {
  const [addr = '', plen = ''] = cidr.split('/');
  return [parsed(ifp, 'addr6', addr), Number(plen)];
}

/**
 * Sets the IPv6 address and the default route of `ifp`, in a pass. Without either the interface has no
 * IPv6. Throws TapnicError.
 */
export function configureIpv6(ifp: Ifnet, { addr6, gateway6, slaac }: Ipv6Options): void {
  // With another gateway, or without one, the default routes of advertisements are not used.
  if (slaac !== undefined)
    must(in6AutoconfStart(ifp, slaac.gateway === 'auto'), 'autoconfiguration');
  if (addr6 === null) return;
  const [addr, plen] = cidrOf(ifp, addr6);
  must(in6_aifaddr(ifp, addr, plen), `address ${addr6}`);
  if (gateway6 === null) return;
  const via = parsed(ifp, 'gateway6', gateway6);
  const error = in6RouteAddGateway(ifp.if_vnet, in6addr_any, 0, via);
  const hint = 'choose an address on the network of the emulated host';
  if (error !== EEXIST) must(error, `gateway6 ${gateway6}`, hint);
}

/** The IPv6 address of a NIC that its options name, or that the network gives. */
export class NicIpv6 {
  readonly #ifp: Ifnet;
  readonly #cidr: string | null;
  /** Whether the address comes from router advertisements. */
  readonly auto: boolean;
  /** A gateway that is added when the network is known; null: none. */
  #gateway: string | null;
  #routeProblem: string | null = null;

  constructor(ifp: Ifnet, { addr6, slaac }: Ipv6Options) {
    this.#ifp = ifp;
    this.#cidr = addr6;
    this.auto = slaac !== undefined;
    const via = slaac?.gateway ?? null;
    this.#gateway = via === 'auto' ? null : via;
  }

  /** The address itself; null: the NIC has none. */
  #find(): In6Ifaddr | null {
    const ifp = this.#ifp;
    if (this.#cidr !== null) return in6ifa_ifpwithaddr(ifp, cidrOf(ifp, this.#cidr)[0]);
    if (!this.auto) return null;
    const found = ifp.if_addrhead.filter(isIn6Ifaddr).filter((ia) => {
      const flags = ia.ia6_flags;
      const autoconf = (flags & IN6_IFF_AUTOCONF) !== 0 && (flags & IN6_IFF_TEMPORARY) === 0;
      return autoconf && !IN6_IS_ADDR_LINKLOCAL(ia.ifa_addr);
    });
    return found.find((ia) => !isDuplicate(ia)) ?? found[0] ?? null;
  }

  /** The text of the address; null: no address, or a duplicate. */
  get addr(): string | null {
    const ia = this.#find();
    return ia === null || isDuplicate(ia) ? null : ip6_sprintf(this.#ifp.if_vnet, ia.ifa_addr);
  }

  /** Whether nothing is left to wait for: the address is usable, missing or a duplicate. */
  get settled(): boolean {
    const ia = this.#find();
    if (ia === null) return !this.auto;
    return !isPending(ia);
  }

  /** Adds the default route by the gateway that the options name, if the network gave the address. */
  addGateway(): void {
    const via = this.#gateway;
    this.#gateway = null;
    if (via === null) return;
    const ifp = this.#ifp;
    const gateway = parsed(ifp, 'gateway6', via);
    const error = inPass(() => in6RouteAddGateway(ifp.if_vnet, in6addr_any, 0, gateway));
    if (error === 0) return;
    const why = error === ENETUNREACH ? 'not on a network of the interface' : errnoName(error);
    this.#routeProblem = `${ifp.if_xname}: default route by ${via} left out: ${why}`;
  }

  /** Why the address or the gateway cannot be used, in one line; null: they can. */
  get problem(): string | null {
    if (this.#routeProblem !== null) return this.#routeProblem;
    const ia = this.#find();
    if (ia === null || !isDuplicate(ia)) return null;
    const text = ip6_sprintf(this.#ifp.if_vnet, ia.ifa_addr);
    return `${this.#ifp.if_xname}: ${text} is a duplicate: another host on the link has it: choose another addr6 (--addr6)`;
  }
}

const isDuplicate = (ia: In6Ifaddr): boolean => (ia.ia6_flags & IN6_IFF_DUPLICATED) !== 0;

/** Whether duplicate address detection of `ia` is under way. */
const isPending = (ia: In6Ifaddr): boolean =>
  (ia.ia6_flags & IN6_IFF_TENTATIVE) !== 0 && !isDuplicate(ia);
