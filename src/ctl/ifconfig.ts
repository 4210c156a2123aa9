/**
 * The output of ifconfig(8) for an instance's interfaces. The words that change an interface are in
 * ifconfig_verbs.ts. Left out: descriptions, selection of media.
 */

import type { InAddr } from '../sys/types.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ether_ntoa } from '../net/ethernet.ts';
import { ifnetList, ifunit } from '../net/if.ts';
import { type LaggInfo, laggInfo } from '../net/if_lagg.ts';
import {
  if_get_counter,
  IFCOUNTER_COLLISIONS,
  IFCOUNTER_IBYTES,
  IFCOUNTER_IERRORS,
  IFCOUNTER_IMCASTS,
  IFCOUNTER_IPACKETS,
  IFCOUNTER_IQDROPS,
  IFCOUNTER_NOPROTO,
  IFCOUNTER_OBYTES,
  IFCOUNTER_OERRORS,
  IFCOUNTER_OMCASTS,
  IFCOUNTER_OPACKETS,
  IFCOUNTER_OQDROPS,
  IFF_LOOPBACK,
  type Ifnet,
  LINK_STATE_DOWN,
  LINK_STATE_UP,
} from '../net/if_var.ts';
import type { PendingAddr } from '../netinet/arp_probe.ts';
import { inPendings } from '../netinet/in_acd.ts';
import { type InIfaddr, isInIfaddr } from '../netinet/in_var.ts';
import { type VlanInfo, vlanInfo } from '../net/if_vlan.ts';
import { bitNames, bitsText, CAP_NAMES, FLAG_NAMES } from './bits.ts';
import {
  gatherInet6,
  gatherNd6,
  type Inet6Line,
  inet6Lines,
  type Nd6Line,
  nd6Lines,
} from './ifconfig_inet6.ts';
import { ControlFailure } from './protocol.ts';

/** An IPv4 address of an interface. */
export interface InetLine {
  addr: string;
  netmask: string;
  prefixlen: number;
  broadcast: string;
  /** `tentative` or `duplicated`; absent if the address is usable. */
  flags?: string[];
}

/** The output of `ifconfig IF --json`. */
export interface InterfaceInfo {
  name: string;
  index: number;
  flags: number;
  flags_names: string[];
  options: number;
  options_names: string[];
  capabilities: number;
  capabilities_names: string[];
  mtu: number;
  /** Null for an interface without a link-level address. */
  ether: string | null;
  inet: InetLine[];
  inet6: Inet6Line[];
  /** Neighbour discovery; null for an interface without IPv6. */
  nd6: Nd6Line | null;
  /** The groups, without `all`, which contains every interface. */
  groups: string[];
  /** Null if the interface is not a vlan(4) or a lagg(4). */
  vlan: VlanInfo | null;
  lagg: LaggInfo | null;
  /** Null for an interface without media. */
  media: string | null;
  /** Null until the driver reports a state, and for an interface without media. */
  status: 'active' | 'no carrier' | null;
  counters: Record<string, number>;
}

const COUNTERS: readonly (readonly [string, number])[] = [
  ['ipackets', IFCOUNTER_IPACKETS],
  ['ierrors', IFCOUNTER_IERRORS],
  ['opackets', IFCOUNTER_OPACKETS],
  ['oerrors', IFCOUNTER_OERRORS],
  ['collisions', IFCOUNTER_COLLISIONS],
  ['ibytes', IFCOUNTER_IBYTES],
  ['obytes', IFCOUNTER_OBYTES],
  ['imcasts', IFCOUNTER_IMCASTS],
  ['omcasts', IFCOUNTER_OMCASTS],
  ['iqdrops', IFCOUNTER_IQDROPS],
  ['oqdrops', IFCOUNTER_OQDROPS],
  ['noproto', IFCOUNTER_NOPROTO],
];

/** An address in dotted decimal form. */
export function inetText(addr: InAddr): string {
  return [24, 16, 8, 0].map((shift) => (addr >>> shift) & 0xff).join('.');
}

function inetLine({ ia_addr, ia_subnetmask, ia_broadaddr }: InIfaddr): InetLine {
  return {
    addr: inetText(ia_addr),
    netmask: `0x${(ia_subnetmask >>> 0).toString(16).padStart(8, '0')}`,
    prefixlen: Math.clz32(~ia_subnetmask),
    broadcast: inetText(ia_broadaddr),
  };
}

/** The addresses that are not usable yet, or not at all. */
function pendingLine({ addr, netmask, broadcast, duplicated }: PendingAddr): InetLine {
  return {
    addr: inetText(addr),
    netmask: `0x${(netmask >>> 0).toString(16).padStart(8, '0')}`,
    prefixlen: Math.clz32(~netmask),
    broadcast: inetText(broadcast),
    flags: [duplicated ? 'duplicated' : 'tentative'],
  };
}

/** The link state that ifconfig prints with the media. */
function linkStatus(ifp: Ifnet): InterfaceInfo['status'] {
  if (ifp.if_media === '') return null;
  const state = ifp.if_link_state;
  return state === LINK_STATE_UP ? 'active' : state === LINK_STATE_DOWN ? 'no carrier' : null;
}

/** Gathers one interface. */
export function gatherInterface(ifp: Ifnet): InterfaceInfo {
  const flags = ifp.if_flags | ifp.if_drv_flags;
  const loopback = (flags & IFF_LOOPBACK) !== 0;
  return {
    name: ifp.if_xname,
    index: ifp.if_index,
    flags,
    flags_names: bitNames(flags, FLAG_NAMES),
    options: ifp.if_capenable,
    options_names: bitNames(ifp.if_capenable, CAP_NAMES),
    capabilities: ifp.if_capabilities,
    capabilities_names: bitNames(ifp.if_capabilities, CAP_NAMES),
    mtu: ifp.if_mtu,
    ether: loopback ? null : ether_ntoa(ifp.if_lladdr),
    inet: [
      ...ifp.if_addrhead.filter(isInIfaddr).map(inetLine),
      ...inPendings(ifp).map(pendingLine),
    ],
    inet6: gatherInet6(ifp),
    nd6: gatherNd6(ifp),
    groups: [...ifp.if_groups],
    vlan: vlanInfo(ifp),
    lagg: laggInfo(ifp),
    media: ifp.if_media === '' ? null : `Ethernet ${ifp.if_media}`,
    status: linkStatus(ifp),
    counters: Object.fromEntries(COUNTERS.map(([name, i]) => [name, if_get_counter(ifp, i)])),
  };
}

/** All interfaces of a stack, in the order of their index. */
export function gatherInterfaces(vnet: Vnet): InterfaceInfo[] {
  return ifnetList(vnet).map(gatherInterface);
}

/** The interface `name`. Throws ControlFailure (ENXIO). */
export function findInterface(vnet: Vnet, name: string): Ifnet {
  const ifp = ifunit(vnet, name);
  if (ifp === null) throw new ControlFailure('ENXIO', `interface ${name} does not exist`);
  return ifp;
}

/**
 * Converts `Ethernet 10Gbase-T <full-duplex>` to a line of the list of media: `media 10Gbase-T
 * mediaopt full-duplex`. Every emulated NIC has exactly one medium.
 */
function mediaWords(media: string): string {
  const [, subtype = '', options = ''] = /^Ethernet ([^<]*?)(?: <(.*)>)?$/.exec(media) ?? [];
  return `media ${subtype}${options === '' ? '' : ` mediaopt ${options}`}`;
}

function laggLines({ lagg }: InterfaceInfo): string[] {
  if (lagg === null) return [];
  return [
    `\tlaggproto ${lagg.proto} lagghash ${lagg.hash}`,
    ...lagg.ports.map((p) => `\tlaggport: ${p.name} flags=${bitsText(p.flags, p.flags_names)}`),
  ];
}

function vlanLines({ vlan }: InterfaceInfo): string[] {
  if (vlan === null) return [];
  const parent = vlan.parent ?? '<none>';
  return [
    `\tvlan: ${vlan.vlan} vlanproto: ${vlan.proto} vlanpcp: ${vlan.pcp} parent interface: ${parent}`,
  ];
}

function inetLines({ inet, flags_names }: InterfaceInfo): string[] {
  return inet.map(({ addr, netmask, broadcast, flags = [] }) => {
    const suffix = flags_names.includes('BROADCAST') ? ` broadcast ${broadcast}` : '';
    return `\tinet ${[`${addr} netmask ${netmask}${suffix}`, ...flags].join(' ')}`;
  });
}

/** What to print of an interface. */
export interface InterfaceFormat {
  /** Also capabilities and supported media: `ifconfig -m`. */
  readonly m?: boolean;
  /** Also the lifetimes of IPv6 addresses: `ifconfig -L`. */
  readonly L?: boolean;
  /** Only this family: `ifconfig tn0 inet6`; null: everything. */
  readonly family?: 'inet' | 'inet6' | 'ether' | null;
}

export function formatInterface(i: InterfaceInfo, format: InterfaceFormat = {}): string {
  const { m: all = false, L = false, family = null } = format;
  const of = (name: InterfaceFormat['family'], lines: () => string[]): string[] =>
    family === null || family === name ? lines() : [];
  const lines = [
    `${i.name}: flags=${bitsText(i.flags, i.flags_names)} metric 0 mtu ${i.mtu}`,
    ...(i.options === 0 ? [] : [`\toptions=${bitsText(i.options, i.options_names)}`]),
    ...(!all || i.capabilities === 0
      ? []
      : [`\tcapabilities=${bitsText(i.capabilities, i.capabilities_names)}`]),
    ...of('ether', () => (i.ether === null ? [] : [`\tether ${i.ether}`])),
    ...of('inet', () => inetLines(i)),
    ...of('inet6', () => inet6Lines(i.inet6, L)),
    ...of(null, () => otherLines(i, all)),
    ...of('inet6', () => nd6Lines(i.nd6)),
  ];
  return lines.map((line) => `${line}\n`).join('');
}

/** The lines that belong to no address family. */
function otherLines(i: InterfaceInfo, all: boolean): string[] {
  return [
    ...laggLines(i),
    ...(i.groups.length === 0 ? [] : [`\tgroups: ${i.groups.join(' ')}`]),
    ...vlanLines(i),
    ...(i.media === null ? [] : [`\tmedia: ${i.media}`]),
    ...(i.status === null ? [] : [`\tstatus: ${i.status}`]),
    ...(!all || i.media === null ? [] : ['\tsupported media:', `\t\t${mediaWords(i.media)}`]),
  ];
}
