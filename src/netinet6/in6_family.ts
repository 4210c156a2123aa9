/** IPv6's table for commands about addresses and routes: AddrFamily for AF_INET6. */

import type { AddrWords, NetAddr } from '../sys/addr.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import type { AddrFamily } from '../net/addr_family.ts';
import type { Ifaddr, Ifnet } from '../net/if_var.ts';
import { IN6_ADDR_BITS, IN6_IS_ADDR_UNSPECIFIED } from './in6.ts';
import { in6_selectsrc } from './in6_src.ts';
import { ip6_sprintf, parseIn6Zone } from './scope6.ts';

/** Prefix length of a network without one: route(8). */
const NET_BITS = 64;

/** IPv6's table, for addrFamilyRegister. */
export const inet6Family: AddrFamily = {
  family: AF_INET6,
  keyword: 'inet6',
  digit: '6',
  title: 'Internet6',
  bits: IN6_ADDR_BITS,
  dstWidth: 33,
  gatewayWidth: 29,

  parse(vnet: Vnet, text: string): NetAddr | null {
    return parseIn6Zone(vnet, text);
  },
  print(vnet: Vnet, addr: AddrWords): string {
    return ip6_sprintf(vnet, addr);
  },
  impliedPrefixlen(addr: AddrWords, net: boolean): number {
    if (IN6_IS_ADDR_UNSPECIFIED(addr)) return 0;
    return net ? NET_BITS : IN6_ADDR_BITS;
  },
  ifaFor(ifp: Ifnet, dst: AddrWords): Ifaddr | null {
    return in6_selectsrc(ifp.if_vnet, dst, ifp);
  },
};
