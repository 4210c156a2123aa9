/**
 * Inserts the extension headers of a program's options into a packet, in the order of RFC 8200, 4.1:
 * after ip6_insert* of sys/netinet6/ip6_output.c. Unlike FreeBSD, one mbuf contains all headers.
 */

import { m_freem, m_getcl } from '../kern/kern_mbuf.ts';
import {
  type Mbuf,
  max_linkhdr,
  MCLBYTES,
  M_NOWAIT,
  M_PKTHDR,
  MT_DATA,
  mtod,
} from '../kern/mbuf.ts';
import { m_move_pkthdr } from '../kern/m_pkthdr.ts';
import { m_adj } from '../kern/uipc_mbuf.ts';
import { mem } from '../vm/arena.ts';
import { Ip6, IP6_NXT_OFF, IPPROTO_DSTOPTS, IPPROTO_HOPOPTS, IPPROTO_ROUTING } from './ip6.ts';
import type { Ip6Pktopts } from './ip6_var.ts';

/** The extension headers of the packet under way: bytes of all, and of the unfragmentable ones. */
export const exthdrs = {
  optlen: 0,
  unfragpartlen: 0,
  /** Offset of the next-header byte of the last unfragmentable header. */
  nxtOff: IP6_NXT_OFF,
};

/** For a packet without extension headers. */
export function noExthdrs(): void {
  exthdrs.optlen = 0;
  exthdrs.unfragpartlen = 0;
  exthdrs.nxtOff = IP6_NXT_OFF;
}

/** Bytes of the extension headers of `opt`. @see sys/netinet6/ip6_output.c, ip6_optlen */
export function exthdrsLength(opt: Ip6Pktopts): number {
  const { ip6po_hbh: h, ip6po_dest1: d1, ip6po_rthdr: r, ip6po_dest2: d2 } = opt;
  return (h?.length ?? 0) + (d1?.length ?? 0) + (r?.length ?? 0) + (d2?.length ?? 0);
}

// Where the next header is written, and where its number goes.
const at = { p: 0, nxt: 0 };

function put(hdr: Uint8Array | null, nxt: number): void {
  if (hdr === null) return;
  mem.set(hdr, at.p);
  mem[at.p] = mem[at.nxt]!;
  mem[at.nxt] = nxt;
  at.nxt = at.p;
  at.p += hdr.length;
}

/**
 * Inserts the headers of `opt` behind the IPv6 header of `m`, which is contiguous, and sets `exthdrs`.
 * Takes `m`. Null: no mbuf, or the headers have more than a cluster.
 */
export function ip6InsertExthdrs(m: Mbuf, opt: Ip6Pktopts): Mbuf | null {
  noExthdrs();
  const optlen = exthdrsLength(opt);
  if (optlen === 0) return m;
  const fits = max_linkhdr + Ip6.SIZE + optlen <= MCLBYTES;
  const top = fits ? m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR) : null;
  if (top === null) {
    m_freem(m);
    return null;
  }
  const src = mtod(m);
  top.m_data += max_linkhdr;
  const p = mtod(top);
  mem.copyWithin(p, src, src + Ip6.SIZE);
  const { len } = m.m_pkthdr;
  m_adj(m, Ip6.SIZE);
  m_move_pkthdr(top, m);
  top.m_data = p;
  top.m_len = Ip6.SIZE + optlen;
  top.m_pkthdr.len = len + optlen;
  top.m_next = m;
  at.p = p + Ip6.SIZE;
  at.nxt = p + IP6_NXT_OFF;
  put(opt.ip6po_hbh, IPPROTO_HOPOPTS);
  put(opt.ip6po_dest1, IPPROTO_DSTOPTS);
  put(opt.ip6po_rthdr, IPPROTO_ROUTING);
  exthdrs.unfragpartlen = at.p - p - Ip6.SIZE;
  exthdrs.nxtOff = at.nxt - p;
  put(opt.ip6po_dest2, IPPROTO_DSTOPTS);
  exthdrs.optlen = optlen;
  return top;
}
