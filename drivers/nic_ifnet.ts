/**
 * The interface functions that all NIC drivers share: attach and detach, ioctls that do not depend
 * on hardware, link state, the station address in register format, the multicast hash.
 */

import { EINVAL, EOPNOTSUPP, type Errno } from '../src/sys/errno.ts';
import type { Task } from '../src/sys/clock.ts';
import { bus_setup_intr, bus_teardown_intr, type IntrVector } from '../src/bus/intr.ts';
import { if_link_state_change, ifToggleTxOffload } from '../src/net/if.ts';
import { ether_ifattach, ether_ifdetach } from '../src/net/if_ethersubr.ts';
import {
  ETHER_ADDR_LEN,
  IFCAP_TSO,
  IFCAP_TXCSUM,
  IFCAP_TXCSUM_IPV6,
  IFF_BROADCAST,
  IFF_DRV_RUNNING,
  IFF_MULTICAST,
  IFF_SIMPLEX,
  IFF_UP,
  type IfDriver,
  type IfIoctl,
  type Ifnet,
  LINK_STATE_DOWN,
  LINK_STATE_UP,
  SIOCADDMULTI,
  SIOCDELMULTI,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from '../src/net/if_var.ts';

const MTU_MIN = 68; // RFC 791

/** The part of a driver's state that this file uses. */
interface NicSoftc extends IfDriver, Task {
  readonly ifp: Ifnet;
  readonly intr: IntrVector;
}

/** Bytes 0 to 3 of a MAC address in register format, byte 0 in bits 7:0. The result is signed. */
export function lladdrLow(lladdr: Uint8Array): number {
  return lladdr[0]! | (lladdr[1]! << 8) | (lladdr[2]! << 16) | (lladdr[3]! << 24);
}

/** Bytes 4 and 5 of a MAC address in register format. */
export function lladdrHigh(lladdr: Uint8Array): number {
  return lladdr[4]! | (lladdr[5]! << 8);
}

/** Makes `sc` the driver of `ifp`. The driver then sets its limits and calls nicAttached. */
export function nicAttach(ifp: Ifnet, sc: NicSoftc, capabilities: number): void {
  ifp.if_softc = sc;
  ifp.if_driver = sc;
  ifp.if_flags = IFF_BROADCAST | IFF_SIMPLEX | IFF_MULTICAST;
  ifp.if_capabilities = capabilities;
  ifp.if_capenable = capabilities;
  ifp.if_hwassist = 0;
}

/**
 * Completes an attach: connects the interrupt handler and gives the interface the MAC address from
 * the two registers.
 */
export function nicAttached(sc: NicSoftc, addrLow: number, addrHigh: number): void {
  const lladdr = new Uint8Array(ETHER_ADDR_LEN);
  for (let i = 0; i < 4; i++) lladdr[i] = (addrLow >>> (8 * i)) & 0xff;
  for (let i = 0; i < 2; i++) lladdr[4 + i] = (addrHigh >>> (8 * i)) & 0xff;
  bus_setup_intr(sc.intr, sc);
  ether_ifattach(sc.ifp, lladdr);
}

/** Detaches the driver from the interface. The caller has stopped the NIC. */
export function nicDetach(sc: NicSoftc): void {
  const { ifp } = sc;
  ether_ifdetach(ifp);
  bus_teardown_intr(sc.intr);
  ifp.if_softc = null;
  ifp.if_driver = null;
}

/** Reports the link state to the stack. */
export function nicLink(ifp: Ifnet, up: boolean): void {
  if_link_state_change(ifp, up ? LINK_STATE_UP : LINK_STATE_DOWN);
}

/**
 * The 64-bit multicast filter for the groups of `ifp`, low word first. `hash` maps an address to
 * its bit, 0 to 63.
 */
export function multicastHash(ifp: Ifnet, hash: (lladdr: Uint8Array) => number): Uint32Array {
  const bits = new Uint32Array(2);
  for (const { ifma_lladdr } of ifp.if_multiaddrs) {
    const bit = hash(ifma_lladdr);
    bits[bit >>> 5]! |= 1 << (bit & 31);
  }
  return bits;
}

/** The driver functions that the ioctls call. */
export interface NicControl<S> {
  readonly mtuMax: number;
  init(sc: S): Errno;
  stop(sc: S): void;
  /** IFF_PROMISC or IFF_ALLMULTI may have changed while running. */
  setmodes(sc: S): void;
  /** The joined groups changed while running. */
  setmulti(sc: S): void;
  /** if_mtu changed while running. */
  setmtu(sc: S): Errno;
  /** if_capenable changed: updates if_hwassist and the NIC. */
  capsync(sc: S): void;
}

/**
 * SIOCSIFCAP; the caller has masked `wanted` to if_capabilities. Changes made before an error are
 * kept, as in FreeBSD's drivers.
 */
function setcap(ifp: Ifnet, wanted: number): Errno {
  const changed = wanted ^ ifp.if_capenable;
  // A capability that is not a transmit offload is toggled without further checks.
  ifp.if_capenable ^= changed & ~(IFCAP_TXCSUM | IFCAP_TXCSUM_IPV6 | IFCAP_TSO);
  return ifToggleTxOffload(ifp, changed);
}

/** if_ioctl of a NIC. */
export function nicIoctl<S extends NicSoftc>(
  sc: S,
  control: NicControl<S>,
  command: IfIoctl,
  data: number,
): Errno {
  const { ifp } = sc;
  const running = (ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0;
  switch (command) {
    case SIOCSIFFLAGS:
      if ((ifp.if_flags & IFF_UP) === 0) {
        if (running) control.stop(sc);
        return 0;
      }
      if (!running) return control.init(sc);
      control.setmodes(sc);
      return 0;
    case SIOCSIFCAP: {
      const error = setcap(ifp, data);
      control.capsync(sc);
      return error;
    }
    case SIOCSIFMTU:
      if (!Number.isInteger(data) || data < MTU_MIN || data > control.mtuMax) return EINVAL;
      ifp.if_mtu = data;
      return running ? control.setmtu(sc) : 0;
    case SIOCADDMULTI:
    case SIOCDELMULTI:
      if (running) control.setmulti(sc);
      return 0;
    default:
      return EOPNOTSUPP;
  }
}
