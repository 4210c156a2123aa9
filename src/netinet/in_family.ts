/** IPv4's table for commands about addresses and routes: AddrFamily for AF_INET. */

import type { AddrWords, NetAddr } from '../sys/addr.ts';
import type { InAddr } from '../sys/types.ts';
import { AF_INET } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import type { AddrFamily } from '../net/addr_family.ts';
import type { Ifaddr, Ifnet } from '../net/if_var.ts';
import { inAddrOf, inet_ntoa, inNetAddr, parseInAddr, prefixMask } from './in.ts';
import { inIfaddrFor } from './in_var.ts';

/** Prefix length of the network of the address's class: RFC 791. */
export function classPrefix(addr: InAddr): number {
  const top = addr >>> 30;
  return top < 2 ? 8 : top === 2 ? 16 : 24;
}

/** `10` and `10.1` are networks: inet_network(3). */
const SHORT_NET = /^\d{1,3}(\.\d{1,3}){0,2}$/;

/** IPv4's table, for addrFamilyRegister. */
export const inetFamily: AddrFamily = {
  family: AF_INET,
  keyword: 'inet',
  digit: '4',
  title: 'Internet',
  bits: 32,
  dstWidth: 18,
  gatewayWidth: 18,

  parse(_vnet: Vnet, text: string, net: boolean): NetAddr | null {
    const short = net && SHORT_NET.test(text);
    const full = short ? [...text.split('.'), '0', '0', '0'].slice(0, 4).join('.') : text;
    const addr = parseInAddr(full);
    return addr === null ? null : inNetAddr(addr);
  },
  print(_vnet: Vnet, addr: AddrWords): string {
    return inet_ntoa(inAddrOf(addr));
  },
  impliedPrefixlen(words: AddrWords, net: boolean): number {
    const addr = inAddrOf(words);
    if (addr === 0) return 0;
    const prefixlen = classPrefix(addr);
    return net || (addr & ~prefixMask(prefixlen)) === 0 ? prefixlen : 32;
  },
  ifaFor(ifp: Ifnet, dst: AddrWords): Ifaddr | null {
    return inIfaddrFor(ifp, inAddrOf(dst));
  },
};
