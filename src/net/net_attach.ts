/**
 * What `net` itself adds to a stack, whatever its address families are: lo0, the interfaces that are
 * made by name (vlan(4), lagg(4)), and net.isr.*. After the SYSINITs of sys/net.
 */

import { EEXIST, type Errno } from '../sys/errno.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifCloneDestroyAll } from './if_clone.ts';
import { laggAttach } from './if_lagg.ts';
import { loAttach, V_loif } from './if_loop.ts';
import { vlanAttach } from './if_vlan.ts';
import { netisrDrain, netisrSysctls } from './netisr.ts';

/**
 * Attaches `net` to a stack. Once per Vnet: EEXIST. Domains may attach before or after: each is
 * told of the interfaces that are there.
 */
export function netAttach(vnet: Vnet): Errno {
  if (V_loif(vnet).ifp !== null) return EEXIST;
  netisrSysctls(vnet);
  loAttach(vnet);
  vlanAttach(vnet);
  laggAttach(vnet);
  return 0;
}

/**
 * Undoes `netAttach` before the domains detach: frees packets that wait for a protocol and destroys
 * the interfaces that were made by name. Other interfaces stay their drivers'.
 */
export function netDetach(vnet: Vnet): void {
  netisrDrain(vnet);
  ifCloneDestroyAll(vnet);
}
