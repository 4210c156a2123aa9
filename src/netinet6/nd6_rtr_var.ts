/** What the neighbour cache reports to router discovery. Stubs: there is no list of routers yet. */

import type { AddrWords } from '../sys/addr.ts';
import type { Ifnet } from '../net/if_var.ts';

/** Reports that a neighbour that is a router has become reachable or unreachable, or was removed. */
export function nd6RouterChanged(_ifp: Ifnet): void {}

/** Reports that the neighbour `addr` is no longer a router. Returns whether it was a default router. */
export function nd6RouterLost(_ifp: Ifnet, _addr: AddrWords): boolean {
  return false;
}

/** When the default router `addr` of `ifp` expires, ns since boot; 0: it is not a default router. */
export function nd6RouterExpiry(_ifp: Ifnet, _addr: AddrWords): number {
  return 0;
}
