/** Flag names as ifconfig(8) prints them, and the words that it accepts for capabilities. */

import {
  IFCAP_HWRXTSTMP,
  IFCAP_HWSTATS,
  IFCAP_JUMBO_MTU,
  IFCAP_LINKSTATE,
  IFCAP_LRO,
  IFCAP_NETCONS,
  IFCAP_NETMAP,
  IFCAP_NOMAP,
  IFCAP_POLLING,
  IFCAP_RXCSUM,
  IFCAP_RXCSUM_IPV6,
  IFCAP_TOE4,
  IFCAP_TOE6,
  IFCAP_TSO4,
  IFCAP_TSO6,
  IFCAP_TXCSUM,
  IFCAP_TXCSUM_IPV6,
  IFCAP_TXRTLMT,
  IFCAP_TXTLS4,
  IFCAP_TXTLS6,
  IFCAP_VLAN_HWCSUM,
  IFCAP_VLAN_HWFILTER,
  IFCAP_VLAN_HWTAGGING,
  IFCAP_VLAN_HWTSO,
  IFCAP_VLAN_MTU,
  IFCAP_WOL_MAGIC,
  IFCAP_WOL_MCAST,
  IFCAP_WOL_UCAST,
  IFF_ALLMULTI,
  IFF_BROADCAST,
  IFF_DEBUG,
  IFF_DRV_OACTIVE,
  IFF_DRV_RUNNING,
  IFF_LINK0,
  IFF_LINK1,
  IFF_LINK2,
  IFF_LOOPBACK,
  IFF_MONITOR,
  IFF_MULTICAST,
  IFF_NOARP,
  IFF_POINTOPOINT,
  IFF_PPROMISC,
  IFF_PROMISC,
  IFF_SIMPLEX,
  IFF_STATICARP,
  IFF_UP,
} from '../net/if_var.ts';

/** A bit and the name printed for it; null for a bit without one. Lowest bit first. */
export type BitName = readonly [bit: number, name: string | null];

export const FLAG_NAMES: readonly BitName[] = [
  [IFF_UP, 'UP'],
  [IFF_BROADCAST, 'BROADCAST'],
  [IFF_DEBUG, 'DEBUG'],
  [IFF_LOOPBACK, 'LOOPBACK'],
  [IFF_POINTOPOINT, 'POINTOPOINT'],
  [IFF_DRV_RUNNING, 'RUNNING'],
  [IFF_NOARP, 'NOARP'],
  [IFF_PROMISC, 'PROMISC'],
  [IFF_ALLMULTI, 'ALLMULTI'],
  [IFF_DRV_OACTIVE, 'OACTIVE'],
  [IFF_SIMPLEX, 'SIMPLEX'],
  [IFF_LINK0, 'LINK0'],
  [IFF_LINK1, 'LINK1'],
  [IFF_LINK2, 'LINK2'],
  [IFF_MULTICAST, 'MULTICAST'],
  [IFF_PPROMISC, 'PPROMISC'],
  [IFF_MONITOR, 'MONITOR'],
  [IFF_STATICARP, 'STATICARP'],
];

export const CAP_NAMES: readonly BitName[] = [
  [IFCAP_RXCSUM, 'RXCSUM'],
  [IFCAP_TXCSUM, 'TXCSUM'],
  [IFCAP_NETCONS, 'NETCONS'],
  [IFCAP_VLAN_MTU, 'VLAN_MTU'],
  [IFCAP_VLAN_HWTAGGING, 'VLAN_HWTAGGING'],
  [IFCAP_JUMBO_MTU, 'JUMBO_MTU'],
  [IFCAP_POLLING, 'POLLING'],
  [IFCAP_VLAN_HWCSUM, 'VLAN_HWCSUM'],
  [IFCAP_TSO4, 'TSO4'],
  [IFCAP_TSO6, 'TSO6'],
  [IFCAP_LRO, 'LRO'],
  [IFCAP_WOL_UCAST, 'WOL_UCAST'],
  [IFCAP_WOL_MCAST, 'WOL_MCAST'],
  [IFCAP_WOL_MAGIC, 'WOL_MAGIC'],
  [IFCAP_TOE4, 'TOE4'],
  [IFCAP_TOE6, 'TOE6'],
  [IFCAP_VLAN_HWFILTER, 'VLAN_HWFILTER'],
  [IFCAP_VLAN_HWTSO, 'VLAN_HWTSO'],
  [IFCAP_LINKSTATE, 'LINKSTATE'],
  [IFCAP_NETMAP, 'NETMAP'],
  [IFCAP_RXCSUM_IPV6, 'RXCSUM_IPV6'],
  [IFCAP_TXCSUM_IPV6, 'TXCSUM_IPV6'],
  [IFCAP_HWSTATS, null],
  [IFCAP_TXRTLMT, 'TXRTLMT'],
  [IFCAP_HWRXTSTMP, 'HWRXTSTMP'],
  [IFCAP_NOMAP, 'NOMAP'],
  [IFCAP_TXTLS4, 'TXTLS4'],
  [IFCAP_TXTLS6, 'TXTLS6'],
];

const keywords = new Map<string, number>([
  ['rxcsum', IFCAP_RXCSUM],
  ['txcsum', IFCAP_TXCSUM],
  ['netcons', IFCAP_NETCONS],
  ['vlanmtu', IFCAP_VLAN_MTU],
  ['vlanhwtag', IFCAP_VLAN_HWTAGGING],
  ['polling', IFCAP_POLLING],
  ['vlanhwcsum', IFCAP_VLAN_HWCSUM],
  ['tso', IFCAP_TSO4 | IFCAP_TSO6],
  ['tso4', IFCAP_TSO4],
  ['tso6', IFCAP_TSO6],
  ['lro', IFCAP_LRO],
  ['wol', IFCAP_WOL_UCAST | IFCAP_WOL_MCAST | IFCAP_WOL_MAGIC],
  ['wol_ucast', IFCAP_WOL_UCAST],
  ['wol_mcast', IFCAP_WOL_MCAST],
  ['wol_magic', IFCAP_WOL_MAGIC],
  ['toe', IFCAP_TOE4 | IFCAP_TOE6],
  ['vlanhwfilter', IFCAP_VLAN_HWFILTER],
  ['vlanhwtso', IFCAP_VLAN_HWTSO],
  ['rxcsum6', IFCAP_RXCSUM_IPV6],
  ['txcsum6', IFCAP_TXCSUM_IPV6],
  ['txrtlmt', IFCAP_TXRTLMT],
  ['hwrxtstmp', IFCAP_HWRXTSTMP],
  // r349529 uses the first name; FreeBSD has used the second since 2021.
  ['nomap', IFCAP_NOMAP],
  ['mextpg', IFCAP_NOMAP],
  ['txtls', IFCAP_TXTLS4 | IFCAP_TXTLS6],
]);

/** A parsed capability word. */
export interface CapabilityChange {
  /** IFCAP_* bits; more than one for a group such as `tso`. */
  readonly bits: number;
  readonly on: boolean;
}

/** Parses `txcsum`, `-tso` and so on; null if the word is not a capability. */
export function parseCapability(word: string): CapabilityChange | null {
  const off = word.startsWith('-');
  const bits = keywords.get(off ? word.slice(1) : word);
  return bits === undefined ? null : { bits, on: !off };
}

/** The single-bit words for `bits`, in the order of the bits; bits without a word are omitted. */
export function capabilityKeywords(bits: number): string[] {
  const words: string[] = [];
  for (const [bit] of CAP_NAMES) {
    if ((bits & bit) === 0) continue;
    for (const [word, b] of keywords) {
      if (b !== bit) continue;
      words.push(word);
      break;
    }
  }
  return words;
}

/** Names of the set bits, lowest first. */
export function bitNames(word: number, names: readonly BitName[]): string[] {
  return names.flatMap(([bit, name]) => ((word & bit) !== 0 && name !== null ? [name] : []));
}

/**
 * `8843<UP,BROADCAST>`: hexadecimal, then the names; bits without a name appear only in the number.
 */
export function bitsText(word: number, names: readonly string[]): string {
  return `${(word >>> 0).toString(16)}<${names.join(',')}>`;
}
