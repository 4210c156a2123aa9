/**
 * IPv4 fragmentation, after ip_fragment of sys/netinet/ip_output.c (RFC 791, 3.2). The fragments
 * share the payload, mapped or unmapped.
 */

import { CAPTURE_IP, CAPTURE_OUT } from '../sys/capture.ts';
import { countDrop } from '../net/capture_drop.ts';
import { fragmentId } from '../net/capture_fragment.ts';
import { EMSGSIZE, ENOBUFS, type Errno } from '../sys/errno.ts';
import { R_CONVERT_CSUM, R_IP_CANTFRAG, R_IP_NOBUFS } from '../sys/reason.ts';
import { m_freem, m_freemp, m_gethdr } from '../kern/kern_mbuf.ts';
import {
  CSUM_DELAY_DATA,
  CSUM_IP,
  M_BCAST,
  type Mbuf,
  max_linkhdr,
  M_MCAST,
  M_NOWAIT,
  MT_DATA,
  mtod,
} from '../kern/mbuf.ts';
import { m_adj, m_copym } from '../kern/uipc_mbuf.ts';
import { mem, PAGE_MASK, PAGE_SIZE } from '../vm/arena.ts';
import { in_cksum_hdr, in_delayed_cksum } from './in_cksum.ts';
import { Ip, IP_DF, IP_MF, IP_OFFMASK } from './ip.ts';
import { convertMbufs } from './ip_fallback.ts';
import { ip_optcopy } from './ip_options.ts';
import type { IpVnet } from './ip_var.ts';

const $ip = new Ip();
const $frag = new Ip();

/**
 * Computes the IP header checksum of `m` if CSUM_IP is set and not in `hwassist`; else leaves
 * ip_sum 0.
 */
export function sumHeader(m: Mbuf, ip: Ip, hwassist: number): void {
  ip.ip_sum = 0;
  const ph = m.m_pkthdr;
  if ((ph.csum_flags & CSUM_IP & ~hwassist) === 0) return;
  ip.ip_sum = in_cksum_hdr(m, ip.ip_hl << 2);
  ph.csum_flags &= ~CSUM_IP;
}

/** Result of ip_fragment: packets linked by m_nextpkt. The caller owns them. */
export const ipFragments: { m0: Mbuf | null } = { m0: null };

/**
 * Payload bytes of the first fragment when the later fragments have page multiples: as many whole
 * mbufs as fit into `mtu`, so that the second fragment starts at a page boundary. 0 if no payload
 * fits that way.
 */
function firstWholeMbufs(m0: Mbuf, hlen: number, mtu: number): number {
  let off = 0;
  for (let m: Mbuf | null = m0; m !== null && off + m.m_len <= mtu; m = m.m_next) off += m.m_len;
  return off > hlen ? (off - hlen) & ~7 : 0;
}

/**
 * Makes one fragment of the `len` bytes from offset `off` of the packet `m0`. Null if there is no
 * memory.
 */
function makeFragment(
  m0: Mbuf,
  hlen: number,
  off: number,
  len: number,
  index: number,
): Mbuf | null {
  const m = m_gethdr(M_NOWAIT, MT_DATA);
  if (m === null) return null;
  const src = mtod(m0);
  m.m_data += max_linkhdr;
  mem.copyWithin(m.m_data, src, src + Ip.SIZE);
  m.m_len = hlen > Ip.SIZE ? ip_optcopy(src, hlen, m.m_data) : Ip.SIZE;
  m.m_flags |= m0.m_flags & (M_MCAST | M_BCAST);
  m.m_next = m_copym(m0, off, len, M_NOWAIT);
  if (m.m_next === null) {
    m_freem(m);
    return null;
  }
  const ph = m.m_pkthdr;
  ph.len = m.m_len + len;
  ph.csum_flags = m0.m_pkthdr.csum_flags;
  ph.flowid = m0.m_pkthdr.flowid;
  ph.rsstype = m0.m_pkthdr.rsstype;
  ph.pktId = fragmentId(m0.m_pkthdr.pktId, index);
  $frag.at(mtod(m));
  $frag.ip_vhl = 0x40 | (m.m_len >>> 2);
  $frag.ip_len = ph.len;
  return m;
}

/**
 * Splits the packet `m0` into fragments of at most `mtu` bytes that share its payload. On success
 * returns 0; `ipFragments.m0` is the list, ready to transmit, with `m0` as its first packet.
 * EMSGSIZE: DF is set, or the MTU is too small; ENOBUFS: no memory. Takes `m0` on every outcome.
 * Unlike FreeBSD's, frees all fragments on failure and has no parameter for the header.
 * @see sys/netinet/ip_output.c
 */
export function ip_fragment(m0: Mbuf, mtu: number, hwassist: number, v: IpVnet): Errno {
  ipFragments.m0 = null;
  const ip = $ip.at(mtod(m0));
  const hlen = ip.ip_hl << 2;
  const ipLen = ip.ip_len;
  let len = (mtu - hlen) & ~7;
  if ((ip.ip_off & IP_DF) !== 0 || len < 8) {
    v.stat.ips_cantfrag++;
    countDrop(m0, R_IP_CANTFRAG, CAPTURE_IP, CAPTURE_OUT);
    m_freem(m0);
    return EMSGSIZE;
  }
  const ph = m0.m_pkthdr;
  if ((ph.csum_flags & CSUM_DELAY_DATA) !== 0) {
    // A NIC cannot compute a transport checksum over fragments.
    if (convertMbufs(m0, R_CONVERT_CSUM) === null) {
      v.stat.ips_odropped++;
      return ENOBUFS;
    }
    in_delayed_cksum(m0);
    ph.csum_flags &= ~CSUM_DELAY_DATA;
  }
  let firstlen = len;
  const pages = mtu & ~PAGE_MASK;
  if (len > PAGE_SIZE && pages + Ip.SIZE <= mtu) {
    const whole = firstWholeMbufs(m0, hlen, mtu);
    if (whole > 0) {
      firstlen = whole;
      len = pages;
    }
  }
  const ipOff = ip.ip_off;
  let tail: Mbuf = m0;
  let nfrags = 1;
  for (let off = hlen + firstlen; off < ipLen; off += len) {
    const n = Math.min(len, ipLen - off);
    const m = makeFragment(m0, hlen, off, n, nfrags);
    if (m === null) {
      v.stat.ips_odropped++;
      countDrop(m0, R_IP_NOBUFS, CAPTURE_IP, CAPTURE_OUT);
      m_freemp(m0);
      return ENOBUFS;
    }
    // If the packet is itself a fragment with MF set, keep MF on its last fragment.
    const more = off + n < ipLen || (ipOff & IP_MF) !== 0 ? IP_MF : 0;
    $frag.ip_off = ((ipOff & IP_OFFMASK) + ((off - hlen) >>> 3)) | more;
    sumHeader(m, $frag, hwassist);
    tail.m_nextpkt = m;
    tail = m;
    nfrags++;
  }
  v.stat.ips_ofragments += nfrags;
  ph.pktId = fragmentId(ph.pktId, 0);
  m_adj(m0, hlen + firstlen - ipLen);
  ip.ip_len = hlen + firstlen;
  ip.ip_off = ipOff | IP_MF;
  sumHeader(m0, ip, hwassist);
  ipFragments.m0 = m0;
  return 0;
}
