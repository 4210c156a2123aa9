/** The named filters of frames that a host sends without a program's wish. */

import { TapnicError } from '../sys/errno.ts';
import type { Frame } from './frame.ts';

const ROUTER_TYPES = [133, 134, 137];
const NEIGHBOR_TYPES = [135, 136];
const MLD_TYPES = [130, 131, 132, 143];
/** Ports of mDNS, LLMNR, SSDP and DHCP. */
const DISCOVERY_PORTS = [5353, 5355, 1900];
const DHCP_PORTS = [67, 68, 546, 547];

const icmp6 =
  (types: readonly number[]) =>
  (f: Frame): boolean =>
    f.protocol === 'icmp6' && types.includes(f.icmp!.type);
const udp =
  (ports: readonly number[]) =>
  (f: Frame): boolean =>
    f.protocol === 'udp' && ports.includes(f.dport);

/** What each name ignores. */
const FILTERS = {
  arp: (f: Frame): boolean => f.protocol === 'arp',
  /** Neighbour discovery. */
  nd: icmp6(NEIGHBOR_TYPES),
  /** Router discovery. */
  rd: icmp6(ROUTER_TYPES),
  /** Reports of multicast groups. */
  mld: icmp6(MLD_TYPES),
  igmp: (f: Frame): boolean => f.protocol === 'igmp',
  /** mDNS, LLMNR and SSDP. */
  discovery: udp(DISCOVERY_PORTS),
  dhcp: udp(DHCP_PORTS),
} as const;

/** `chatter`: all others. `none`: nothing is ignored. */
export type FilterName = keyof typeof FILTERS | 'chatter' | 'none';

/** Which frames are ignored: by name, several names, or a function. */
export type Ignore = FilterName | readonly FilterName[] | ((frame: Frame) => boolean);

const NAMES = [...Object.keys(FILTERS), 'chatter', 'none'] as FilterName[];

/**
 * Returns the name of the filter that ignores a frame, or null. A function that ignores one is called `ignore`. Throws
 * TapnicError EINVAL.
 */
export function filterOf(call: string, ignore: Ignore): (frame: Frame) => string | null {
  if (typeof ignore === 'function') return (frame) => (ignore(frame) ? 'ignore' : null);
  const names = typeof ignore === 'string' ? [ignore] : [...ignore];
  const stranger = names.find((name) => !NAMES.includes(name));
  if (stranger !== undefined)
    throw new TapnicError('EINVAL', call, `ignore: ${stranger}: none of ${NAMES.join(', ')}`);
  const all = names.includes('chatter');
  const used = Object.entries(FILTERS).filter(
    ([name]) => all || names.includes(name as FilterName),
  );
  return (frame) => used.find(([, filter]) => filter(frame))?.[0] ?? null;
}
