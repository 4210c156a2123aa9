/**
 * Interfaces of a stack, after sys/net/if.c: attaching and detaching, up and down, flags, MTU,
 * capabilities, link state, multicast filters. Left out: renaming, groups other than a cloner's,
 * moving between stacks, address families other than by hook.
 */

import { EAGAIN, EINVAL, ENETDOWN, ENOENT, EOPNOTSUPP, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import {
  ETHER_ADDR_LEN,
  IFCAP_NETMAP,
  IFCAP_TSO4,
  IFCAP_TSO6,
  IFCAP_TXCSUM,
  IFCAP_TXCSUM_IPV6,
  IFF_ALLMULTI,
  IFF_BROADCAST,
  IFF_LOOPBACK,
  IFF_MULTICAST,
  IFF_POINTOPOINT,
  IFF_PPROMISC,
  IFF_PROMISC,
  IFF_SIMPLEX,
  IFF_UP,
  Ifnet,
  type IfIoctl,
  LINK_STATE_DOWN,
  LINK_STATE_UP,
  SIOCADDMULTI,
  SIOCDELMULTI,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from './if_var.ts';
import { ribTouch, rtFlush } from './route.ts';

/** Bytes of the smallest and largest MTU. */
export const IF_MINMTU = 72;
export const IF_MAXMTU = 65535;

/** Flags that SIOCSIFFLAGS does not change: they are the interface's nature or kernel state. */
const IFF_CANTCHANGE =
  IFF_BROADCAST |
  IFF_POINTOPOINT |
  IFF_MULTICAST |
  IFF_SIMPLEX |
  IFF_LOOPBACK |
  IFF_PROMISC |
  IFF_ALLMULTI;

/** What address families are told of interfaces. @see EVENTHANDLER(9): ifnet_event */
export interface IfEvents {
  /** It was attached: the family may hang its state on it. */
  ifAttached(ifp: Ifnet): void;
  /** It is about to go: the family takes its addresses and state off. */
  ifDetaching(ifp: Ifnet): void;
  /** It went up or down (IFF_UP), or its link-level address changed. */
  ifChanged(ifp: Ifnet): void;
}

/** Writes a line about an interface to the console; the host sets it. */
export const ifConsole: { log: ((line: string) => void) | null } = { log: null };

class IfVnet {
  readonly list: Ifnet[] = [];
  readonly events: IfEvents[] = [];
  lastIndex = 0;
}

const V_ifnet = VNET_DEFINE(() => new IfVnet());

/** Interfaces of a stack in the order of their numbers. */
export function ifnetList(vnet: Vnet): readonly Ifnet[] {
  return V_ifnet(vnet).list;
}

/** The interface called `name`, or null. @see ifnet(9) */
export function ifunit(vnet: Vnet, name: string): Ifnet | null {
  return V_ifnet(vnet).list.find((ifp) => ifp.if_xname === name) ?? null;
}

/** Tells a family of interfaces from now on; those attached before are reported at once. */
export function ifEventsRegister(vnet: Vnet, events: IfEvents): void {
  const v = V_ifnet(vnet);
  v.events.push(events);
  for (const ifp of v.list) events.ifAttached(ifp);
}

/** An interface that is not attached yet. The driver fills it in. @see ifnet(9) */
export function if_alloc(vnet: Vnet, xname: string): Ifnet {
  return new Ifnet(vnet, xname);
}

/** Makes an interface known to its stack. Panics if the name is taken. @see ifnet(9) */
export function if_attach(ifp: Ifnet): void {
  const v = V_ifnet(ifp.if_vnet);
  KASSERT(ifunit(ifp.if_vnet, ifp.if_xname) === null, 'if_attach: name taken');
  ifp.if_index = ++v.lastIndex;
  v.list.push(ifp);
  for (const e of v.events) e.ifAttached(ifp);
}

/** Takes an interface off its stack, with its addresses, routes and listeners. @see ifnet(9) */
export function if_detach(ifp: Ifnet): void {
  const v = V_ifnet(ifp.if_vnet);
  const at = v.list.indexOf(ifp);
  KASSERT(at >= 0, 'if_detach: not attached');
  if_down(ifp);
  for (const e of v.events) e.ifDetaching(ifp);
  rtFlush(ifp.if_vnet, ifp, null);
  v.list.splice(at, 1);
}

function changed(ifp: Ifnet): void {
  ribTouch(ifp.if_vnet);
  for (const e of V_ifnet(ifp.if_vnet).events) e.ifChanged(ifp);
}

/** Marks an interface up and tells the families. @see ifnet(9) */
export function if_up(ifp: Ifnet): void {
  if ((ifp.if_flags & IFF_UP) !== 0) return;
  ifp.if_flags |= IFF_UP;
  changed(ifp);
}

/** Marks an interface down, drops what it has queued and tells the families. @see ifnet(9) */
export function if_down(ifp: Ifnet): void {
  if ((ifp.if_flags & IFF_UP) === 0) return;
  ifp.if_flags &= ~IFF_UP;
  ifp.if_driver?.if_qflush(ifp);
  changed(ifp);
}

/** Tells the families that `ifp.if_lladdr` changed. */
export function ifLladdrChanged(ifp: Ifnet): void {
  for (const e of V_ifnet(ifp.if_vnet).events) e.ifChanged(ifp);
}

/** A driver found the link up or down. @see ifnet(9) */
export function if_link_state_change(ifp: Ifnet, state: number): void {
  if (ifp.if_link_state === state) return;
  ifp.if_link_state = state;
  const word = state === LINK_STATE_UP ? 'UP' : state === LINK_STATE_DOWN ? 'DOWN' : 'UNKNOWN';
  ifConsole.log?.(`${ifp.if_xname}: link state changed to ${word}`);
  ifp.if_vlantrunk?.linkState();
  ifp.if_lagg?.linkState();
}

function setFlags(ifp: Ifnet, flags: number): Errno {
  const up = (flags & IFF_UP) !== 0;
  const wasUp = (ifp.if_flags & IFF_UP) !== 0;
  if (!up) if_down(ifp);
  // IFF_PPROMISC is the user's wish for promiscuous mode, IFF_PROMISC the driver's order.
  const promisc = (flags & IFF_PPROMISC) !== 0 ? IFF_PROMISC : 0;
  const kept = ifp.if_flags & IFF_CANTCHANGE & ~IFF_PROMISC;
  ifp.if_flags = (flags & ~IFF_CANTCHANGE) | kept | promisc;
  const error = ifp.if_driver?.if_ioctl(ifp, SIOCSIFFLAGS, ifp.if_flags) ?? 0;
  // The families hear of it when the driver can send.
  if (up && !wasUp) changed(ifp);
  return error;
}

function setMtu(ifp: Ifnet, mtu: number): Errno {
  if (!(mtu >= IF_MINMTU && mtu <= IF_MAXMTU) || !Number.isInteger(mtu)) return EINVAL;
  if (ifp.if_driver === null) return EOPNOTSUPP;
  // A port has the MTU of its lagg.
  if (ifp.if_lagg !== null) return EINVAL;
  const error = ifp.if_driver.if_ioctl(ifp, SIOCSIFMTU, mtu);
  if (error === 0) ribTouch(ifp.if_vnet);
  return error;
}

/**
 * Toggles transmit checksums and TSO of one family in if_capenable and couples the two: TSO goes off
 * with the checksums, which the console hears, and without them it cannot be turned on (EAGAIN).
 */
function toggleFamily(ifp: Ifnet, toggle: number, txcsum: number, tso: number): Errno {
  const six = txcsum === IFCAP_TXCSUM_IPV6;
  let left = toggle;
  if ((left & txcsum) !== 0) {
    ifp.if_capenable ^= txcsum;
    if ((ifp.if_capenable & (txcsum | tso)) === tso) {
      ifp.if_capenable &= ~tso;
      left &= ~tso;
      ifConsole.log?.(
        `${ifp.if_xname}: ${six ? 'tso6 disabled due to -txcsum6.' : 'tso4 disabled due to -txcsum.'}`,
      );
    }
  }
  if ((left & tso) === 0) return 0;
  if ((ifp.if_capenable & (txcsum | tso)) === 0) {
    ifConsole.log?.(`${ifp.if_xname}: ${six ? 'enable txcsum6 first.' : 'enable txcsum first.'}`);
    return EAGAIN;
  }
  ifp.if_capenable ^= tso;
  return 0;
}

/**
 * For a driver's SIOCSIFCAP: toggles those of `toggle` that are transmit checksums and TSO, IPv4's
 * and IPv6's, as FreeBSD's drivers couple them. EAGAIN: TSO was asked for without its checksums; what
 * was toggled before stays so. The driver brings if_hwassist in line afterwards, on an error too.
 */
export function ifToggleTxOffload(ifp: Ifnet, toggle: number): Errno {
  const error4 = toggleFamily(ifp, toggle, IFCAP_TXCSUM, IFCAP_TSO4);
  const error6 = toggleFamily(ifp, toggle, IFCAP_TXCSUM_IPV6, IFCAP_TSO6);
  return error4 !== 0 ? error4 : error6;
}

/**
 * Switches those of `bits` on or off that the interface has, as ifconfig(8) does: without any of them
 * nothing happens. 0, EOPNOTSUPP without a driver, EINVAL for netmap, or the driver's errno.
 * @see sbin/ifconfig/ifconfig.c, setifcap
 */
export function ifSwitchCapabilities(ifp: Ifnet, bits: number, on: boolean): Errno {
  const has = bits & ifp.if_capabilities;
  const now = ifp.if_capenable;
  const wanted = on ? now | has : now & ~has;
  return wanted === now ? 0 : setCapabilities(ifp, wanted);
}

/** SIOCSIFCAP of what is within if_capabilities. */
function setCapabilities(ifp: Ifnet, reqcap: number): Errno {
  if (ifp.if_driver === null) return EOPNOTSUPP;
  if (((reqcap ^ ifp.if_capenable) & IFCAP_NETMAP) !== 0) return EINVAL;
  const error = ifp.if_driver.if_ioctl(ifp, SIOCSIFCAP, reqcap);
  // Told on an error too: drivers keep what they switched before it.
  ifCapabilitiesChanged(ifp);
  return error;
}

/** Tells the interfaces on top of `ifp`, vlan(4) and lagg(4), that its capabilities changed. */
export function ifCapabilitiesChanged(ifp: Ifnet): void {
  ifp.if_vlantrunk?.capabilities();
  ifp.if_lagg?.capabilities();
}

/**
 * Gives a running interface another link-level address, 6 bytes; the driver is taken down and up,
 * for that is when it looks. Its errno for coming up.
 * @see ifnet(9)
 */
export function if_setlladdr(ifp: Ifnet, lladdr: Uint8Array): Errno {
  ifp.if_lladdr.set(lladdr.subarray(0, ETHER_ADDR_LEN));
  let error: Errno = 0;
  if ((ifp.if_flags & IFF_UP) !== 0 && ifp.if_driver !== null) {
    ifp.if_flags &= ~IFF_UP;
    ifp.if_driver.if_ioctl(ifp, SIOCSIFFLAGS, ifp.if_flags);
    ifp.if_flags |= IFF_UP;
    error = ifp.if_driver.if_ioctl(ifp, SIOCSIFFLAGS, ifp.if_flags);
  }
  ifLladdrChanged(ifp);
  return error;
}

/**
 * Changes an interface as ioctl(2) would. SIOCSIFFLAGS: `data` are the new flags. SIOCSIFMTU: bytes;
 * EINVAL outside 72 to 65535 or what the driver takes. SIOCSIFCAP: the whole new if_capenable;
 * EINVAL for a bit outside if_capabilities, nothing changed. EOPNOTSUPP without a driver. Else the
 * driver's errno.
 * @see netintro(4), sys/net/if.c
 */
export function ifhwioctl(ifp: Ifnet, command: IfIoctl, data: number): Errno {
  switch (command) {
    case SIOCSIFFLAGS:
      return setFlags(ifp, data);
    case SIOCSIFMTU:
      return setMtu(ifp, data);
    case SIOCSIFCAP:
      if (ifp.if_driver !== null && (data & ~ifp.if_capabilities) !== 0) return EINVAL;
      return setCapabilities(ifp, data);
    case SIOCADDMULTI:
    case SIOCDELMULTI:
      // By if_addmulti: they need an address, not a number.
      return EOPNOTSUPP;
  }
}

function sameLladdr(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < ETHER_ADDR_LEN; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Listens to a multicast link-level address; counted. @see ifnet(9) */
export function if_addmulti(ifp: Ifnet, lladdr: Uint8Array): Errno {
  if ((ifp.if_flags & IFF_MULTICAST) === 0) return ENETDOWN;
  const found = ifp.if_multiaddrs.find((ma) => sameLladdr(ma.ifma_lladdr, lladdr));
  if (found !== undefined) {
    found.ifma_refcount++;
    return 0;
  }
  ifp.if_multiaddrs.push({ ifma_lladdr: lladdr.slice(0, ETHER_ADDR_LEN), ifma_refcount: 1 });
  return ifp.if_driver?.if_ioctl(ifp, SIOCADDMULTI, 0) ?? 0;
}

/** Gives a multicast address back; ENOENT if nobody listens to it. @see ifnet(9) */
export function if_delmulti(ifp: Ifnet, lladdr: Uint8Array): Errno {
  const at = ifp.if_multiaddrs.findIndex((ma) => sameLladdr(ma.ifma_lladdr, lladdr));
  if (at < 0) return ENOENT;
  if (--ifp.if_multiaddrs[at]!.ifma_refcount > 0) return 0;
  ifp.if_multiaddrs.splice(at, 1);
  return ifp.if_driver?.if_ioctl(ifp, SIOCDELMULTI, 0) ?? 0;
}
