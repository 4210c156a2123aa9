/**
 * What an interface cannot do with unmapped mbufs is undone in front of it, for either family: the
 * block that ip_output and ip6_output share in sys/netinet/ip_output.c and sys/netinet6/ip6_output.c.
 */

import { count, R_CONVERT_CSUM, R_CONVERT_NOMAP, type Reason } from '../sys/reason.ts';
import { mb_unmapped_to_ext, mbEmulator } from '../kern/kern_mbuf.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { IFCAP_NOMAP, type Ifnet } from '../net/if_var.ts';

/**
 * Converts the unmapped mbufs of a packet that is about to leave, counting `why` if there were any.
 * Takes `m`; null, with everything freed, if there is no mapping or no mbuf for it.
 */
export function convertMbufs(m: Mbuf, why: Reason): Mbuf | null {
  const before = mbEmulator.conversions;
  const n = mb_unmapped_to_ext(m);
  if (mbEmulator.conversions !== before) count(why);
  return n;
}

/**
 * Makes a packet one that `ifp` takes. `swSum`: its transport checksum is still to be computed, by
 * software, because the interface has no offload for it; then the data must be mapped whatever the
 * interface can do, and the caller sums next, with its family's routine. Else data may stay unmapped
 * where IFCAP_NOMAP is enabled. Takes `m` and returns it; null, with everything freed, if a
 * conversion failed: the caller counts that among its family's drops and reports ENOBUFS.
 *
 * IPv4 asks with csum_flags & CSUM_DELAY_DATA & ~if_hwassist, IPv6 with CSUM_DELAY_DATA_IPV6, or
 * with all flags if there are extension headers.
 */
export function mbufFallback(m: Mbuf, ifp: Ifnet, swSum: boolean): Mbuf | null {
  if (swSum) return convertMbufs(m, R_CONVERT_CSUM);
  if ((ifp.if_capenable & IFCAP_NOMAP) === 0) return convertMbufs(m, R_CONVERT_NOMAP);
  return m;
}
