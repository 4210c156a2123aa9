/** A stack that is configured by router advertisements. The test plays the routers. */

import { expect } from 'chai';
import { nd6Drlist, nd6Prlist } from '../../src/netinet6/nd6_list.ts';
import { in6AutoconfStart } from '../../src/netinet6/nd6_flags.ts';
import { fib6_lookup } from '../../src/netinet6/in6_fib.ts';
import { in6Addr, in6Ntop, parseIn6 } from '../../src/netinet6/in6.ts';
import {
  IN6_IFF_AUTOCONF,
  IN6_IFF_DEPRECATED,
  IN6_IFF_DETACHED,
  IN6_IFF_TEMPORARY,
  IN6_IFF_TENTATIVE,
  type In6Ifaddr,
  in6ifa_ifpwithaddr,
  isIn6Ifaddr,
} from '../../src/netinet6/in6_var.ts';
import { V_icmp6 } from '../../src/netinet6/icmp6_var.ts';
import { ip6_sprintf } from '../../src/netinet6/scope6.ts';
import { inPass } from '../../src/sys/pass.ts';
import type { AddrWords } from '../../src/sys/addr.ts';
import { Rig, type RigOptions } from '../netinet/rig.ts';
import { buildEther, mac } from '../support/frames.ts';
import { buildIcmp6, decode6, ETHERTYPE_IPV6, ip6, isSix, type Packet6 } from '../support/six.ts';

export const R1 = 'fe80::1';
export const R2 = 'fe80::2';
export const R3 = 'fe80::3';
export const PREFIX = '2001:db8:1::';
/** The address with this prefix and the identifier of the Ethernet address. */
export const AUTO = '2001:db8:1::ff:fe00:2';
export const PREFIX2 = '2001:db8:2::';
export const AUTO2 = '2001:db8:2::ff:fe00:2';
export const FOREVER = 0xffffffff;

const be16 = (n: number): number[] => [(n >>> 8) & 0xff, n & 0xff];
const be32 = (n: number): number[] => [...be16(n >>> 16), ...be16(n)];

/** A Prefix Information option. `flags`: L is 0x80, A is 0x40. */
export function prefixOption(
  prefix: string,
  o: { plen?: number; flags?: number; valid?: number; preferred?: number; units?: number } = {},
): number[] {
  const { plen = 64, flags = 0xc0, valid = 86_400, preferred = 14_400, units = 4 } = o;
  const head = [3, units, plen, flags, ...be32(valid), ...be32(preferred), 0, 0, 0, 0];
  return [...head, ...ip6(prefix)];
}

export const mtuOption = (mtu: number): number[] => [5, 1, 0, 0, ...be32(mtu)];
export const lladdrOption = (text: string): number[] => [1, 1, ...mac(text)];
export const rdnssOption = (lifetime: number, ...addrs: string[]): number[] => [
  25,
  1 + 2 * addrs.length,
  0,
  0,
  ...be32(lifetime),
  ...addrs.flatMap(ip6),
];
export function dnsslOption(lifetime: number, ...names: string[]): number[] {
  const text = names.flatMap((name) => [
    ...name.split('.').flatMap((label) => [label.length, ...Buffer.from(label)]),
    0,
  ]);
  while (text.length % 8 !== 0) text.push(0);
  return [31, 1 + text.length / 8, 0, 0, ...be32(lifetime), ...text];
}

export interface Ra {
  src?: string;
  dst?: string;
  /** Hop limit of the packet. */
  ttl?: number;
  code?: number;
  hlim?: number;
  flags?: number;
  lifetime?: number;
  reachable?: number;
  retrans?: number;
  options?: number[][];
}

/** The message of an advertisement. */
export function raBody(ra: Ra): number[] {
  const { code = 0, hlim = 0, flags = 0, lifetime = 1800, reachable = 0, retrans = 0 } = ra;
  const head = [134, code, 0, 0, hlim, flags, ...be16(lifetime)];
  return [...head, ...be32(reachable), ...be32(retrans), ...(ra.options ?? []).flat()];
}

/** The Ethernet address of the router `fe80::n`. */
export const routerMac = (src: string): string =>
  `02:00:00:00:01:0${src === '::' ? '0' : src.slice(-1)}`;

export class RaRig extends Rig {
  constructor(options: RigOptions & { radr?: boolean; start?: boolean } = {}) {
    super(options);
    if (options.start ?? true)
      expect(inPass(in6AutoconfStart, this.ifp, options.radr ?? true)).to.equal(0);
    this.settle();
  }

  /** Lets duplicate address detection end, and forgets what was sent. */
  settle(): void {
    this.advance(5000);
    this.take6();
    this.sent.length = 0;
    this.chains.length = 0;
  }

  /** Delivers an advertisement, with the link-level address of its router unless `options` are given. */
  ra(ra: Ra = {}): void {
    const src = ra.src ?? R1;
    const all = { options: [lladdrOption(routerMac(src)), prefixOption(PREFIX)], ...ra };
    this.raw(raBody(all), { src, ...ra });
  }

  /** Delivers a message of a router. */
  raw(body: ArrayLike<number>, { src = R1, dst = 'ff02::1', ttl = 255 }: Ra = {}, piece = 0): void {
    const packet = buildIcmp6({ src, dst, hlim: ttl }, body);
    const ether = { dst: '33:33:00:00:00:01', src: routerMac(src) };
    this.inject(buildEther(ether, ETHERTYPE_IPV6, packet), piece);
  }

  /** Decodes and removes the IPv6 packets sent since the last call. */
  take6(): Packet6[] {
    return this.sent
      .splice(0)
      .filter(isSix)
      .map((frame) => decode6(frame));
  }

  /** The router solicitations sent since the last call. */
  solicitations(): Packet6[] {
    return this.take6().filter(({ nxt, body }) => nxt === 58 && body[0] === 133);
  }

  advance(ms: number): void {
    this.clock.advance(ms * 1e6);
  }

  seconds(s: number): void {
    this.advance(s * 1000);
  }

  find(text: string): In6Ifaddr | null {
    return in6ifa_ifpwithaddr(this.ifp, parseIn6(text)!);
  }

  /** The addresses that are not link-local, with the flags that stand in ifconfig. */
  get addresses(): string[] {
    const names = [
      [IN6_IFF_TENTATIVE, 'tentative'],
      [IN6_IFF_DEPRECATED, 'deprecated'],
      [IN6_IFF_DETACHED, 'detached'],
      [IN6_IFF_AUTOCONF, 'autoconf'],
      [IN6_IFF_TEMPORARY, 'temporary'],
    ] as const;
    return this.ifp.if_addrhead
      .filter(isIn6Ifaddr)
      .filter(({ ifa_addr }) => ifa_addr.w0 >>> 16 !== 0xfe80)
      .map((ia) =>
        [
          in6Ntop(ia.ifa_addr),
          ...names.filter(([flag]) => (ia.ia6_flags & flag) !== 0).map(([, name]) => name),
        ].join(' '),
      );
  }

  /** The gateway of the default route; null: there is none. */
  get gateway(): string | null {
    const nh = fib6_lookup(this.vnet, parseIn6('2001:4860::1')!);
    return nh === null ? null : this.print(nh.nh_gateway);
  }

  print({ w0, w1, w2, w3 }: AddrWords): string {
    return ip6_sprintf(this.vnet, in6Addr(w0, w1, w2, w3)).replace('%tn0', '');
  }

  get routers(): string[] {
    return nd6Drlist(this.vnet).map(({ rtaddr, pref }) => `${this.print(rtaddr)} ${pref}`);
  }

  /** The prefixes except link-local ones, with the flags of `ndp -p` and the references. */
  get prefixes(): string[] {
    return nd6Prlist(this.vnet)
      .filter(({ ifp, prefix }) => ifp === this.ifp && prefix.w0 >>> 16 !== 0xfe80)
      .map((pr) => {
        const flags = `${pr.raf_onlink ? 'L' : ''}${pr.raf_auto ? 'A' : ''}${pr.onlink ? 'O' : ''}`;
        const all = flags + (pr.detached ? 'D' : '');
        return `${this.print(pr.prefix)}/${pr.prefixlen} ${all} ${pr.refcnt}`;
      });
  }

  get icmp6(): ReturnType<typeof V_icmp6>['stat'] {
    return V_icmp6(this.vnet).stat;
  }
}
