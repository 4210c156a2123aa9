/**
 * IPv6 fragmentation by the sender, after ip6_fragment of sys/netinet6/ip6_output.c (RFC 8200, 4.5).
 * The fragments share the payload, mapped or unmapped.
 */

import { CAPTURE_IP, CAPTURE_OUT } from '../sys/capture.ts';
import { countDrop } from '../net/capture_drop.ts';
import { fragmentId } from '../net/capture_fragment.ts';
import { EMSGSIZE, ENOBUFS, type Errno } from '../sys/errno.ts';
import { R_IP6_CANTFRAG, R_IP6_NOBUFS } from '../sys/reason.ts';
import { m_freem, m_freemp, m_getcl, m_gethdr } from '../kern/kern_mbuf.ts';
import {
  type Mbuf,
  max_linkhdr,
  M_MCAST,
  MHLEN,
  M_NOWAIT,
  M_PKTHDR,
  MT_DATA,
  mtod,
} from '../kern/mbuf.ts';
import { m_copym } from '../kern/uipc_mbuf.ts';
import { mem, memView } from '../vm/arena.ts';
import { Ip6, IP6F_MORE_FRAG, IP6_FRAG_SIZE, IPPROTO_FRAGMENT } from './ip6.ts';
import type { Ip6Vnet } from './ip6_var.ts';

const $ip6 = new Ip6();

/** Result of ip6_fragment: packets linked by m_nextpkt. The caller owns them. */
export const ip6Fragments: { m0: Mbuf | null } = { m0: null };

/** The identification of the next fragmented packet: unpredictable. @see sys/netinet6/ip6_id.c */
function ip6_randomid(v: Ip6Vnet): number {
  // A counter whose values a bijection scatters: none repeats within 2^32 packets.
  let x = (v.fragId = (v.fragId + 1) | 0) ^ v.flowSeed;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b) ^ v.flowSeed;
  return x ^ (x >>> 16);
}

/** Makes the fragment of the `len` bytes from offset `off` of `m0`. Null: no memory. */
function makeFragment(
  m0: Mbuf,
  hlen: number,
  nxtOff: number,
  off: number,
  len: number,
  index: number,
): Mbuf | null {
  const need = max_linkhdr + hlen + IP6_FRAG_SIZE;
  const m = need <= MHLEN ? m_gethdr(M_NOWAIT, MT_DATA) : m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR);
  if (m === null) return null;
  m.m_data += max_linkhdr;
  const src = mtod(m0);
  const p = mtod(m);
  mem.copyWithin(p, src, src + hlen);
  m.m_len = hlen + IP6_FRAG_SIZE;
  m.m_flags |= m0.m_flags & M_MCAST;
  m.m_next = m_copym(m0, off, len, M_NOWAIT);
  if (m.m_next === null) {
    m_freem(m);
    return null;
  }
  const ph = m.m_pkthdr;
  ph.len = m.m_len + len;
  ph.rcvif = m0.m_pkthdr.rcvif;
  ph.flowid = m0.m_pkthdr.flowid;
  ph.rsstype = m0.m_pkthdr.rsstype;
  ph.pktId = fragmentId(m0.m_pkthdr.pktId, index);
  $ip6.at(p).ip6_plen = ph.len - Ip6.SIZE;
  mem[p + hlen] = mem[src + nxtOff]!;
  mem[p + hlen + 1] = 0;
  mem[p + nxtOff] = IPPROTO_FRAGMENT;
  return m;
}

/**
 * Splits the packet `m0` into fragments of at most `mtu` bytes that share its payload. Its first `hlen`
 * bytes, which are contiguous, are the unfragmentable part; `nxtOff` is the offset of the last
 * next-header byte in it. The checksum is complete. On success returns 0, and `ip6Fragments.m0` is the
 * list. EMSGSIZE: the MTU is too small; ENOBUFS: no memory. Takes `m0` on every outcome.
 * @see sys/netinet6/ip6_output.c
 */
export function ip6_fragment(
  m0: Mbuf,
  hlen: number,
  nxtOff: number,
  mtu: number,
  v: Ip6Vnet,
): Errno {
  ip6Fragments.m0 = null;
  const { len: total } = m0.m_pkthdr;
  const step = (mtu - hlen - IP6_FRAG_SIZE) & ~7;
  if (step < 8) {
    v.stat.ip6s_cantfrag++;
    countDrop(m0, R_IP6_CANTFRAG, CAPTURE_IP, CAPTURE_OUT);
    m_freem(m0);
    return EMSGSIZE;
  }
  const id = ip6_randomid(v);
  let tail: Mbuf | null = null;
  let n = 0;
  for (let off = hlen; off < total; off += step, n++) {
    const len = Math.min(step, total - off);
    const m = makeFragment(m0, hlen, nxtOff, off, len, n);
    if (m === null) {
      v.stat.ip6s_odropped++;
      countDrop(m0, R_IP6_NOBUFS, CAPTURE_IP, CAPTURE_OUT);
      m_freemp(ip6Fragments.m0);
      ip6Fragments.m0 = null;
      m_freem(m0);
      return ENOBUFS;
    }
    const frag = mtod(m) + hlen;
    memView.setUint16(frag + 2, (off - hlen) | (off + len < total ? IP6F_MORE_FRAG : 0));
    memView.setInt32(frag + 4, id);
    if (tail === null) ip6Fragments.m0 = m;
    else tail.m_nextpkt = m;
    tail = m;
  }
  m_freem(m0);
  v.stat.ip6s_ofragments += n;
  return 0;
}
