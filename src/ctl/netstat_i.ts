/**
 * `netstat -i`, after usr.bin/netstat/if.c: packet counts per interface. Not implemented: counts
 * per address; an address line shows dashes.
 */

import { addrMasked } from '../sys/addr.ts';
import { IFF_UP } from '../net/if_var.ts';
import { in6Ntop, parseIn6 } from '../netinet6/in6.ts';
import type { InterfaceInfo } from './ifconfig.ts';

/** Widths of the first columns. */
interface Widths {
  readonly name: number;
  readonly network: number;
  readonly address: number;
}

/** A line before it is padded: name, network, address, and the other cells. */
interface Row {
  readonly name: string;
  readonly network: string;
  readonly address: string;
  /** MTU, then counts. */
  readonly cells: readonly string[];
}

const HEAD: Row = {
  name: 'Name',
  network: 'Network',
  address: 'Address',
  cells: ['Mtu', 'Ipkts', 'Ierrs', 'Idrop', 'Opkts', 'Oerrs', 'Coll'],
};

function rowText(widths: Widths, { name, network, address, cells }: Row): string {
  const [mtu, ipkts, ierrs, idrop, opkts, oerrs, coll] = cells as string[];
  return [
    name.padEnd(widths.name),
    mtu!.padStart(5),
    network.slice(0, widths.network).padEnd(widths.network),
    address.slice(0, widths.address).padEnd(widths.address),
    ipkts!.padStart(8),
    ierrs!.padStart(5),
    idrop!.padStart(5),
    opkts!.padStart(8),
    oerrs!.padStart(5),
    coll!.padStart(5),
  ].join(' ');
}

/** The network of an address in the form `192.0.2.0/24`. */
function networkText(addr: string, prefixlen: number): string {
  const n = addr.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0);
  const net = prefixlen === 0 ? 0 : (n & (-1 << (32 - prefixlen))) >>> 0;
  return `${[24, 16, 8, 0].map((shift) => (net >>> shift) & 0xff).join('.')}/${prefixlen}`;
}

/** The network of an IPv6 address in the form `fe80::%tn0/64`. */
function network6Text(addr: string, prefixlen: number): string {
  const [text, zone] = addr.split('%') as [string, string?];
  const net = in6Ntop(addrMasked(parseIn6(text)!, prefixlen));
  return `${net}${zone === undefined ? '' : `%${zone}`}/${prefixlen}`;
}

/** The lines of an interface: its own, then one per address. */
function rowsOf(info: InterfaceInfo, family: string | null): Row[] {
  const { index, mtu, ether, inet, inet6, counters: c } = info;
  const name = (info.flags & IFF_UP) === 0 ? `${info.name}*` : info.name;
  const counts = [c['ipackets'], c['ierrors'], c['iqdrops'], c['opackets'], c['oerrors']];
  const own = [String(mtu), ...[...counts, c['collisions']].map((n) => String(n ?? 0))];
  const none = own.map(() => '-');
  const line = (network: string, address: string): Row => ({ name, network, address, cells: none });
  return [
    ...(family === null
      ? [{ name, network: `<Link#${index}>`, address: ether ?? info.name, cells: own }]
      : []),
    ...(family === 'inet6' ? [] : inet).map((a) => line(networkText(a.addr, a.prefixlen), a.addr)),
    ...(family === 'inet' ? [] : inet6).map((a) => line(network6Text(a.addr, a.prefixlen), a.addr)),
  ];
}

/**
 * The text of `netstat -i`. An asterisk marks an interface that is down.
 * @param family `inet` or `inet6`: only addresses of this family; null: everything
 * @param wide as -W: whole networks and addresses
 * @see netstat(1)
 */
export function formatNetstatI(
  interfaces: readonly InterfaceInfo[],
  family: string | null = null,
  wide = false,
): string {
  const rows = interfaces.flatMap((info) => rowsOf(info, family));
  const widest = (least: number, texts: string[]): number =>
    Math.max(least, ...texts.map(({ length }) => length));
  const networks = wide ? rows.map(({ network }) => network) : [];
  const addresses = wide ? rows.map(({ address }) => address) : [];
  const widths = {
    name: widest(
      5,
      rows.map(({ name }) => name),
    ),
    network: widest(13, networks),
    address: widest(17, addresses),
  };
  return [HEAD, ...rows].map((line) => `${rowText(widths, line)}\n`).join('');
}
