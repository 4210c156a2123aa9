/**
 * `netstat -i`, after usr.bin/netstat/if.c: packet counts per interface. Not implemented: counts
 * per address; an address line shows dashes.
 */

import type { InterfaceInfo } from './ifconfig.ts';

const HEAD: readonly string[] = [
  'Mtu',
  'Network',
  'Address',
  'Ipkts',
  'Ierrs',
  'Idrop',
  'Opkts',
  'Oerrs',
  'Coll',
];

function row(nameWidth: number, name: string, cells: readonly string[]): string {
  const [mtu, network, address, ipkts, ierrs, idrop, opkts, oerrs, coll] = cells as string[];
  return [
    name.padEnd(nameWidth),
    mtu!.padStart(5),
    network!.slice(0, 13).padEnd(13),
    address!.slice(0, 17).padEnd(17),
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

export function formatNetstatI(interfaces: readonly InterfaceInfo[]): string {
  const width = Math.max(5, ...interfaces.map(({ name }) => name.length));
  const lines = [row(width, 'Name', HEAD)];
  for (const { name, index, mtu, ether, inet, counters: c } of interfaces) {
    const counts = [c['ipackets'], c['ierrors'], c['iqdrops'], c['opackets'], c['oerrors']];
    lines.push(
      row(width, name, [
        String(mtu),
        `<Link#${index}>`,
        ether ?? name,
        ...[...counts, c['collisions']].map((n) => String(n ?? 0)),
      ]),
      ...inet.map(({ addr, prefixlen }) =>
        row(width, name, ['-', networkText(addr, prefixlen), addr, '-', '-', '-', '-', '-', '-']),
      ),
    );
  }
  return lines.map((line) => `${line}\n`).join('');
}
