/** Changes of the neighbour cache by ndp(8), after the link-layer routes of sys/netinet6/in6.c. */

import type { AddrWords } from '../sys/addr.ts';
import { EEXIST, EINVAL, ENOENT, type Errno } from '../sys/errno.ts';
import { LLE_IFADDR, LLE_STATIC } from '../net/if_llatbl.ts';
import type { Ifnet } from '../net/if_var.ts';
import { nd6Table } from './nd6.ts';
import { ND6_LLINFO_REACHABLE, ND6_LLINFO_STALE } from './nd6_var.ts';

/**
 * Sets the entry of `addr`, which contains its zone: permanent, or with `temp` one like a learned one.
 * `proxy`: this host answers solicitations for `addr`. EINVAL: `ifp` has no neighbour discovery, or the table is full. EEXIST: our own address. @see ndp(8)
 */
export function ndpSet(
  ifp: Ifnet,
  addr: AddrWords,
  lladdr: Uint8Array,
  temp: boolean,
  proxy = false,
): Errno {
  const nd = nd6Table(ifp);
  const old = nd?.find(addr) ?? null;
  if (nd === null) return EINVAL;
  if (old !== null && (old.la_flags & LLE_IFADDR) !== 0) return EEXIST;
  // A permanent entry that becomes temporary needs a timer and a place in the queues.
  if (old !== null) nd.remove(old);
  const lle = nd.create(addr);
  if (lle === null) return EINVAL;
  if (!temp) nd.keep(lle, LLE_STATIC);
  if (proxy) nd.publish(lle);
  nd.learned(lle, lladdr, temp ? ND6_LLINFO_STALE : ND6_LLINFO_REACHABLE);
  return 0;
}

/** Removes the entry of `addr`. ENOENT: no entry. EINVAL: our own address. @see ndp(8) */
export function ndpDelete(ifp: Ifnet, addr: AddrWords): Errno {
  const nd = nd6Table(ifp);
  const lle = nd?.find(addr) ?? null;
  if (nd === null || lle === null) return ENOENT;
  if ((lle.la_flags & LLE_IFADDR) !== 0) return EINVAL;
  nd.free(lle);
  return 0;
}
