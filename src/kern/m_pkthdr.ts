/**
 * Functions that clear, copy and move packet headers, after sys/kern/uipc_mbuf.c. Left out: mbuf
 * tags.
 */

import { KASSERT } from '../sys/kassert.ts';
import { type Mbuf, M_COPYFLAGS, M_EXT, M_NOMAP, M_PKTHDR, m_pktdat, M_RDONLY } from './mbuf.ts';

/** Clears a packet header. @see sys/kern/kern_mbuf.c */
export function m_pkthdr_init(m: Mbuf): void {
  const ph = m.m_pkthdr;
  ph.rcvif = null;
  ph.len = 0;
  ph.flowid = 0;
  ph.csum_flags = 0;
  ph.fibnum = 0;
  ph.rsstype = 0;
  ph.csum_data = 0;
  ph.tso_segsz = 0;
  ph.lro_nsegs = 0;
  ph.ether_vtag = 0;
  ph.l2hlen = 0;
  ph.l3hlen = 0;
  ph.l4hlen = 0;
  ph.pktId = 0;
}

/** Copies the packet header fields of `from` to `to`. Both mbufs keep their flags. */
export function copyPkthdr(to: Mbuf, from: Mbuf): void {
  const d = to.m_pkthdr;
  const s = from.m_pkthdr;
  d.rcvif = s.rcvif;
  d.len = s.len;
  d.flowid = s.flowid;
  d.csum_flags = s.csum_flags;
  d.fibnum = s.fibnum;
  d.rsstype = s.rsstype;
  d.csum_data = s.csum_data;
  d.tso_segsz = s.tso_segsz;
  d.lro_nsegs = s.lro_nsegs;
  d.ether_vtag = s.ether_vtag;
  d.l2hlen = s.l2hlen;
  d.l3hlen = s.l3hlen;
  d.l4hlen = s.l4hlen;
  d.pktId = s.pktId;
}

/**
 * Copies the packet header and the flags of `from` to `to`. `to` keeps its own storage flags
 * (M_EXT, M_RDONLY, M_NOMAP). Unlike FreeBSD, M_RDONLY is not copied, because it describes the
 * storage of `from` and not that of `to`.
 * @see mbuf(9)
 */
export function m_dup_pkthdr(to: Mbuf, from: Mbuf): void {
  KASSERT((from.m_flags & M_PKTHDR) !== 0, 'm_dup_pkthdr: no packet header');
  to.m_flags =
    (from.m_flags & M_COPYFLAGS & ~M_RDONLY) | (to.m_flags & (M_EXT | M_RDONLY | M_NOMAP));
  if ((to.m_flags & M_EXT) === 0) to.m_data = m_pktdat(to);
  copyPkthdr(to, from);
}

/** Moves the packet header of `from` to `to` and clears M_PKTHDR in `from`. @see mbuf(9) */
export function m_move_pkthdr(to: Mbuf, from: Mbuf): void {
  m_dup_pkthdr(to, from);
  from.m_flags &= ~M_PKTHDR;
}
