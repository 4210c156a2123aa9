/**
 * Converts unmapped mbufs before a packet reaches an interface that cannot handle them, for IPv4
 * and IPv6: the code that ip_output and ip6_output have in common in sys/netinet/ip_output.c and
 * sys/netinet6/ip6_output.c.
 */

import { CAPTURE_IP, CAPTURE_OUT } from '../sys/capture.ts';
import { META_WHY_CONVERSION } from '../sys/capture_meta.ts';
import { captureNotes } from '../sys/capture_notes.ts';
import {
  count,
  R_CONVERT_CSUM,
  R_CONVERT_FAILED,
  R_CONVERT_NOMAP,
  type Reason,
} from '../sys/reason.ts';
import { mb_unmapped_to_ext, mbEmulator } from '../kern/kern_mbuf.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { captureOn, captureRing } from '../net/capture.ts';
import { noteLost } from '../net/capture_drop.ts';
import { captureIp } from '../net/capture_layers.ts';
import { IFCAP_NOMAP, type Ifnet } from '../net/if_var.ts';

/**
 * Converts the unmapped mbufs of an outgoing packet and counts `why` if there were any. Takes `m`.
 * Frees everything and returns null if no sf_buf or mbuf is free.
 */
export function convertMbufs(m: Mbuf, why: Reason): Mbuf | null {
  const before = mbEmulator.conversions;
  const { pktId, len } = m.m_pkthdr;
  const n = mb_unmapped_to_ext(m);
  if (n === null) noteLost(pktId, len, R_CONVERT_FAILED, CAPTURE_IP, CAPTURE_OUT, null);
  if (mbEmulator.conversions === before) return n;
  count(why);
  if (captureNotes.on) captureNotes.why(pktId, META_WHY_CONVERSION, why, len);
  return n;
}

/**
 * Converts a packet as far as `ifp` requires, after the capture point `ip`. `swSum`: the transport checksum must be computed in
 * software, because the interface does not offload it. The data is then converted even with
 * IFCAP_NOMAP, and the caller computes the checksum with the routine of its family. Without
 * `swSum`, data stays unmapped if IFCAP_NOMAP is enabled. Takes `m` and returns it. If a conversion
 * fails, frees everything and returns null; the caller counts the drop and returns ENOBUFS.
 *
 * IPv4 sets `swSum` if csum_flags & CSUM_DELAY_DATA & ~if_hwassist is not 0. IPv6 does so with
 * CSUM_DELAY_DATA_IPV6, and ignores if_hwassist if there are extension headers.
 */
export function mbufFallback(m: Mbuf, ifp: Ifnet, swSum: boolean): Mbuf | null {
  if (captureOn.ip) captureIp(captureRing(), ifp, m, CAPTURE_OUT);
  if (swSum) return convertMbufs(m, R_CONVERT_CSUM);
  if ((ifp.if_capenable & IFCAP_NOMAP) === 0) return convertMbufs(m, R_CONVERT_NOMAP);
  return m;
}
