/**
 * Adds the parts of `net` that do not depend on an address family to a stack: lo0, the cloners of
 * vlan(4) and lagg(4), and net.isr.*. After the SYSINITs of sys/net.
 */

import { EEXIST, type Errno } from '../sys/errno.ts';
import type { Vnet } from '../kern/vnet.ts';
import { bpfSysctls } from './bpf_sysctl.ts';
import { ifCloneDestroyAll } from './if_clone.ts';
import { laggAttach } from './if_lagg.ts';
import { loAttach, V_loif } from './if_loop.ts';
import { vlanAttach } from './if_vlan.ts';
import { netisrDrain, netisrSysctls } from './netisr.ts';

/**
 * Attaches `net` to a stack. EEXIST: attached already. Domains may attach before or after; each
 * gets an ifAttached event for every existing interface.
 */
export function netAttach(vnet: Vnet): Errno {
  if (V_loif(vnet).ifp !== null) return EEXIST;
  netisrSysctls(vnet);
  bpfSysctls(vnet);
  loAttach(vnet);
  vlanAttach(vnet);
  laggAttach(vnet);
  return 0;
}

/**
 * Undoes `netAttach`; call it before the domains detach. Frees packets in the netisr queues and
 * destroys cloned interfaces. Drivers remove the other interfaces.
 */
export function netDetach(vnet: Vnet): void {
  netisrDrain(vnet);
  ifCloneDestroyAll(vnet);
}
