/**
 * What commands need from an address family to read, print and route addresses: a table per family,
 * which the domain registers when it attaches. `route` and `netstat -r` work for each family that is
 * registered, without knowledge of any of them. Ours; FreeBSD's commands contain the families.
 */

import type { AddrWords, NetAddr } from '../sys/addr.ts';
import { EEXIST, type Errno } from '../sys/errno.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import type { Ifaddr, Ifnet } from './if_var.ts';

/** The table of one family. */
export interface AddrFamily {
  /** AF_*. */
  readonly family: number;
  /** Its name in commands: `inet` for `-inet`. */
  readonly keyword: string;
  /** The short form of the option: `4` for `-4`. */
  readonly digit: string;
  /** The heading of its table in `netstat -r`. */
  readonly title: string;
  /** Bits of an address. */
  readonly bits: number;
  /** Columns of addresses and gateways in `netstat -rn`. */
  readonly dstWidth: number;
  readonly gatewayWidth: number;
  /**
   * Parses an address, with its zone if the family has zones; null: not an address of the family.
   * `net`: the text is the address of a network, which may be shortened.
   */
  parse(vnet: Vnet, text: string, net: boolean): NetAddr | null;
  print(vnet: Vnet, addr: AddrWords): string;
  /**
   * The prefix length of a destination without one. `net`: it is a network; false: the user did not
   * say.
   */
  impliedPrefixlen(addr: AddrWords, net: boolean): number;
  /** The address of `ifp` that is the source of packets to `dst`; null: it has none. */
  ifaFor(ifp: Ifnet, dst: AddrWords): Ifaddr | null;
}

const V_families = VNET_DEFINE((): { list: AddrFamily[] } => ({ list: [] }));

/** Registers a family. EEXIST: registered already. */
export function addrFamilyRegister(vnet: Vnet, af: AddrFamily): Errno {
  const { list } = V_families(vnet);
  if (list.some((one) => one.family === af.family)) return EEXIST;
  list.push(af);
  list.sort((a, b) => a.family - b.family);
  return 0;
}

/** The families of a stack, in the order of their numbers. */
export function addrFamilies(vnet: Vnet): readonly AddrFamily[] {
  return V_families(vnet).list;
}
