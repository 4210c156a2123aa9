/** Questions about interface addresses, after sys/netinet/in_var.h and in.c. */

import type { InAddr } from '../sys/types.ts';
import type { Vnet } from '../kern/vnet.ts';
import type { Ifnet, InIfaddr } from '../net/if_var.ts';
import { INADDR_BROADCAST } from './in.ts';
import { V_ip } from './ip_var.ts';

/**
 * Whether `addr` means everyone on `ifp`'s link: 255.255.255.255, 0.0.0.0, a network's broadcast
 * address or, as of old, the network's own. A /31 or /32 has neither. Takes `addr | 0` as well, the
 * small integer that per-packet code passes because it costs no allocation. @see sys/netinet/in.c
 */
export function in_broadcast(addr: InAddr, ifp: Ifnet): boolean {
  const a = addr | 0;
  if (a === (INADDR_BROADCAST | 0) || a === 0) return true;
  for (let i = 0; i < ifp.if_addrhead.length; i++) {
    const ia = ifp.if_addrhead[i]!;
    if (ia.ia_broadaddr === 0 || (ia.ia_addr | 0) === a) continue;
    if (a === (ia.ia_broadaddr | 0) || a === (ia.ia_addr & ia.ia_subnetmask)) return true;
  }
  return false;
}

/** The first interface address on whose network `dst` is (or whose broadcast it is), or null. */
export function ifaOnLink(vnet: Vnet, dst: InAddr): InIfaddr | null {
  for (const ia of V_ip(vnet).addrs.values()) {
    if (dst === INADDR_BROADCAST && ia.ia_broadaddr !== 0) return ia;
    if ((dst & ia.ia_subnetmask) === (ia.ia_addr & ia.ia_subnetmask)) return ia;
  }
  return null;
}

/** The address of `ifp` on whose network `addr` is, or null. */
export function ifaForPeer(ifp: Ifnet, addr: InAddr): InIfaddr | null {
  for (let i = 0; i < ifp.if_addrhead.length; i++) {
    const ia = ifp.if_addrhead[i]!;
    if ((addr & ia.ia_subnetmask) === (ia.ia_addr & ia.ia_subnetmask)) return ia;
  }
  return null;
}
