/**
 * Interfaces of a stack, after sys/net/if.c: attaching and detaching, up and down, flags, MTU,
 * capabilities, link state, multicast filters. Left out: renaming, groups other than a cloner's,
 * moving between stacks, address families except through IfEvents.
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
  IFF_DRV_RUNNING,
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
const IF_MINMTU = 72;
const IF_MAXMTU = 65535;

/** Flags that SIOCSIFFLAGS does not change: the interface type or kernel state sets them. */
const IFF_CANTCHANGE =
  IFF_BROADCAST |
  IFF_POINTOPOINT |
  IFF_MULTICAST |
  IFF_SIMPLEX |
  IFF_LOOPBACK |
  IFF_PROMISC |
  IFF_ALLMULTI;

/** Interface events for address families. @see EVENTHANDLER(9): ifnet_event */
export interface IfEvents {
  /** The interface was attached. The family may attach its state to it. */
  ifAttached(ifp: Ifnet): void;
  /** The interface is about to be detached. The family removes its addresses and state. */
  ifDetaching(ifp: Ifnet): void;
  /** The interface went up or down (IFF_UP), or its link-level address changed. */
  ifChanged(ifp: Ifnet): void;
  /** The link state of the interface changed. */
  linkChanged?(ifp: Ifnet): void;
}

/** Writes a line about an interface to the console; the host sets it. */
export const ifConsole: { log: ((line: string) => void) | null } = { log: null };

class IfVnet {
  readonly list: Ifnet[] = [];
  readonly events: IfEvents[] = [];
  lastIndex = 0;
}

const V_ifnet = VNET_DEFINE(() => new IfVnet());

/** Returns the interfaces of a stack, in the order of their numbers. */
export function ifnetList(vnet: Vnet): readonly Ifnet[] {
  return V_ifnet(vnet).list;
}

/** Returns the interface `name`, or null. @see ifnet(9) */
export function ifunit(vnet: Vnet, name: string): Ifnet | null {
  return V_ifnet(vnet).list.find((ifp) => ifp.if_xname === name) ?? null;
}

/** Returns the interface with this index, or null. @see sys/net/if.c */
export function ifnet_byindex(vnet: Vnet, index: number): Ifnet | null {
  const { list } = V_ifnet(vnet);
  for (let i = 0; i < list.length; i++) if (list[i]!.if_index === index) return list[i]!;
  return null;
}

/**
 * Registers a family for interface events. Calls ifAttached immediately for each interface that
 * exists already.
 */
export function ifEventsRegister(vnet: Vnet, events: IfEvents): void {
  const v = V_ifnet(vnet);
  v.events.push(events);
  for (const ifp of v.list) events.ifAttached(ifp);
}

/** Creates an interface that is not attached yet. The driver fills it in. @see ifnet(9) */
export function if_alloc(vnet: Vnet, xname: string): Ifnet {
  return new Ifnet(vnet, xname);
}

/** Adds an interface to its stack. Panics if the name is taken. @see ifnet(9) */
export function if_attach(ifp: Ifnet): void {
  const v = V_ifnet(ifp.if_vnet);
  KASSERT(ifunit(ifp.if_vnet, ifp.if_xname) === null, 'if_attach: name taken');
  ifp.if_index = ++v.lastIndex;
  v.list.push(ifp);
  for (const e of v.events) e.ifAttached(ifp);
}

/** Removes an interface from its stack, with its addresses and routes. @see ifnet(9) */
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

/**
 * Marks an interface up and notifies the families.
 * Part of the ifnet(9) library: the stack itself does not call it.
 * @see ifnet(9)
 */
export function if_up(ifp: Ifnet): void {
  if ((ifp.if_flags & IFF_UP) !== 0) return;
  ifp.if_flags |= IFF_UP;
  changed(ifp);
}

/** Marks an interface down, frees its queued packets and notifies the families. @see ifnet(9) */
export function if_down(ifp: Ifnet): void {
  if ((ifp.if_flags & IFF_UP) === 0) return;
  ifp.if_flags &= ~IFF_UP;
  ifp.if_driver?.if_qflush(ifp);
  changed(ifp);
}

/** Notifies the families that `ifp.if_lladdr` changed. */
function ifLladdrChanged(ifp: Ifnet): void {
  for (const e of V_ifnet(ifp.if_vnet).events) e.ifChanged(ifp);
}

/**
 * Sets the link state; drivers call it. Notifies vlan(4), lagg(4) and the families if it changed.
 * @see ifnet(9)
 */
export function if_link_state_change(ifp: Ifnet, state: number): void {
  if (ifp.if_link_state === state) return;
  ifp.if_link_state = state;
  const word = state === LINK_STATE_UP ? 'UP' : state === LINK_STATE_DOWN ? 'DOWN' : 'UNKNOWN';
  ifConsole.log?.(`${ifp.if_xname}: link state changed to ${word}`);
  ifp.if_vlantrunk?.linkState();
  ifp.if_lagg?.linkState();
  for (const e of V_ifnet(ifp.if_vnet).events) e.linkChanged?.(ifp);
}

function setFlags(ifp: Ifnet, flags: number): Errno {
  const up = (flags & IFF_UP) !== 0;
  const wasUp = (ifp.if_flags & IFF_UP) !== 0;
  if (!up) if_down(ifp);
  // The user sets IFF_PPROMISC; the driver acts on IFF_PROMISC.
  const promisc = (flags & IFF_PPROMISC) !== 0 || ifp.if_pcount > 0 ? IFF_PROMISC : 0;
  const kept = ifp.if_flags & IFF_CANTCHANGE & ~IFF_PROMISC;
  ifp.if_flags = (flags & ~IFF_CANTCHANGE) | kept | promisc;
  const error = ifp.if_driver?.if_ioctl(ifp, SIOCSIFFLAGS, ifp.if_flags) ?? 0;
  // Notify the families only after the driver can send.
  if (up && !wasUp) changed(ifp);
  return error;
}

/**
 * Turns promiscuous mode of `ifp` on or off for one listener: it stays on while one wants it. Returns
 * the driver's errno.
 * @see ifnet(9)
 */
export function ifpromisc(ifp: Ifnet, on: boolean): Errno {
  ifp.if_pcount += on ? 1 : -1;
  const error = setFlags(ifp, ifp.if_flags);
  if (error !== 0 && on) ifp.if_pcount--;
  return error;
}

function setMtu(ifp: Ifnet, mtu: number): Errno {
  if (!(mtu >= IF_MINMTU && mtu <= IF_MAXMTU) || !Number.isInteger(mtu)) return EINVAL;
  if (ifp.if_driver === null) return EOPNOTSUPP;
  // The lagg interface sets the MTU of its ports.
  if (ifp.if_lagg !== null) return EINVAL;
  const error = ifp.if_driver.if_ioctl(ifp, SIOCSIFMTU, mtu);
  if (error === 0) ribTouch(ifp.if_vnet);
  return error;
}

/**
 * Toggles transmit checksums and TSO of one family in if_capenable. Turning the checksums off turns
 * TSO off too and logs a line on the console. EAGAIN: TSO cannot be turned on without the
 * checksums.
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
 * For SIOCSIFCAP of a driver: toggles the transmit checksum and TSO bits in `toggle`, for IPv4 and
 * IPv6. TSO depends on the checksums as in FreeBSD's drivers. EAGAIN: TSO cannot be turned on
 * without its checksums; bits toggled before the error stay toggled. The driver must update
 * if_hwassist afterwards, also after an error.
 */
export function ifToggleTxOffload(ifp: Ifnet, toggle: number): Errno {
  const error4 = toggleFamily(ifp, toggle, IFCAP_TXCSUM, IFCAP_TSO4);
  const error6 = toggleFamily(ifp, toggle, IFCAP_TXCSUM_IPV6, IFCAP_TSO6);
  return error4 !== 0 ? error4 : error6;
}

/**
 * Switches the capabilities in `bits` on or off, as ifconfig(8) does; ignores bits that the
 * interface lacks. Returns 0, EOPNOTSUPP without a driver, EINVAL for netmap, or the driver's
 * errno.
 * @see sbin/ifconfig/ifconfig.c, setifcap
 */
export function ifSwitchCapabilities(ifp: Ifnet, bits: number, on: boolean): Errno {
  const has = bits & ifp.if_capabilities;
  const now = ifp.if_capenable;
  const wanted = on ? now | has : now & ~has;
  return wanted === now ? 0 : setCapabilities(ifp, wanted);
}

/** SIOCSIFCAP. The caller has checked that `reqcap` is within if_capabilities. */
function setCapabilities(ifp: Ifnet, reqcap: number): Errno {
  if (ifp.if_driver === null) return EOPNOTSUPP;
  if (((reqcap ^ ifp.if_capenable) & IFCAP_NETMAP) !== 0) return EINVAL;
  const error = ifp.if_driver.if_ioctl(ifp, SIOCSIFCAP, reqcap);
  // Notify after an error too: drivers keep the bits that they switched before it.
  ifCapabilitiesChanged(ifp);
  return error;
}

/** Notifies the vlan(4) and lagg(4) interfaces on `ifp` that its capabilities changed. */
export function ifCapabilitiesChanged(ifp: Ifnet): void {
  ifp.if_vlantrunk?.capabilities();
  ifp.if_lagg?.capabilities();
}

/**
 * Changes the link-level address (6 bytes) of an interface. A running driver is stopped and
 * started, because it reads the address when it starts. Returns the driver's errno of the start.
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
 * Changes an interface, as ioctl(2) does. SIOCSIFFLAGS: `data` holds the new flags. SIOCSIFMTU:
 * `data` is in bytes; EINVAL if outside 72 to 65535. SIOCSIFCAP: `data` is the complete new
 * if_capenable; EINVAL and no change for a bit outside if_capabilities. Returns EOPNOTSUPP for MTU
 * and capabilities without a driver; otherwise the driver's errno.
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
      // Use if_addmulti and if_delmulti: these commands need an address.
      return EOPNOTSUPP;
  }
}

/**
 * Sets IFF_UP of an interface that gets an address, and starts its driver if necessary. Returns the
 * driver's errno.
 */
export function ifBringUp(ifp: Ifnet): Errno {
  if ((ifp.if_flags & IFF_UP) === 0) {
    const error = ifhwioctl(ifp, SIOCSIFFLAGS, ifp.if_flags | IFF_UP);
    if (error !== 0) return error;
  }
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) ifp.if_driver?.if_init(ifp);
  return 0;
}

function sameLladdr(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < ETHER_ADDR_LEN; i++) if (a[i] !== b[i]) return false;
  return true;
}

/**
 * Adds a reference to a multicast link-level address in the receive filter. ENETDOWN without
 * IFF_MULTICAST.
 * @see ifnet(9)
 */
export function if_addmulti(ifp: Ifnet, lladdr: Uint8Array): Errno {
  if ((ifp.if_flags & IFF_MULTICAST) === 0) return ENETDOWN;
  const found = ifp.if_multiaddrs.find((ma) => sameLladdr(ma.ifma_lladdr, lladdr));
  if (found !== undefined) {
    found.ifma_refcount++;
    return 0;
  }
  ifp.if_multiaddrs.push({ ifma_lladdr: lladdr.slice(0, ETHER_ADDR_LEN), ifma_refcount: 1 });
  // As in FreeBSD, an interface without a filter for groups is no error: it receives all of them.
  ifp.if_driver?.if_ioctl(ifp, SIOCADDMULTI, 0);
  return 0;
}

/**
 * Drops a reference to a multicast address; the last one removes it. ENOENT: no such address.
 * @see ifnet(9)
 */
export function if_delmulti(ifp: Ifnet, lladdr: Uint8Array): Errno {
  const at = ifp.if_multiaddrs.findIndex((ma) => sameLladdr(ma.ifma_lladdr, lladdr));
  if (at < 0) return ENOENT;
  if (--ifp.if_multiaddrs[at]!.ifma_refcount > 0) return 0;
  ifp.if_multiaddrs.splice(at, 1);
  ifp.if_driver?.if_ioctl(ifp, SIOCDELMULTI, 0);
  return 0;
}
