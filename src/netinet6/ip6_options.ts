/**
 * Input of extension headers: hop-by-hop and destination options and the routing header, after
 * ip6_input.c, dest6.c and route6.c of sys/netinet6 (RFC 8200, 4.2 to 4.6). Left out: the jumbo payload,
 * which is treated as an unknown option; routing headers with segments left, which are rejected.
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import { countDrop, pullupInput } from '../net/capture_drop.ts';
import { R_IP6_NOBUFS, R_IP6_OPTIONS, R_IP6_ROUTING } from '../sys/reason.ts';
import { type Kva, kva } from '../sys/types.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { M_BCAST, type Mbuf, M_MCAST, M_RTALERT_MLD, mtod } from '../kern/mbuf.ts';
import type { Vnet } from '../kern/vnet.ts';
import { mem } from '../vm/arena.ts';
import { ICMP6_PARAM_PROB, ICMP6_PARAMPROB_HEADER, ICMP6_PARAMPROB_OPTION } from './icmp6.ts';
import { icmp6_error } from './icmp6_error.ts';
import {
  IP6_DST_OFF,
  IP6OPT_PAD1,
  IP6OPT_PADN,
  IP6OPT_ROUTER_ALERT,
  IP6OPT_RTALERT_MLD,
  IP6OPT_TYPE_DISCARD,
  IP6OPT_TYPE_FORCEICMP,
  IP6OPT_TYPE_SKIP,
  IPPROTO_DONE,
} from './ip6.ts';
import { ip6Input, type Ip6Proto, ip6stat } from './ip6_var.ts';

/**
 * Makes the extension header at offset `off` contiguous and sets `ip6Input.m`. Returns its length; 0 if
 * the packet was dropped. @see sys/netinet6/ip6_input.c
 */
function headerLength(m0: Mbuf, off: number, vnet: Vnet): number {
  let m: Mbuf | null = m0;
  let len = 8;
  for (let pass = 0; pass < 2; pass++) {
    if (m.m_pkthdr.len < off + len) {
      ip6stat(vnet).ip6s_tooshort++;
      countDrop(m, R_IP6_OPTIONS, CAPTURE_IP, CAPTURE_IN);
      m_freem(m);
      m = null;
    } else if (m.m_len < off + len) {
      m = pullupInput(m, off + len, R_IP6_NOBUFS);
      if (m === null) ip6stat(vnet).ip6s_tooshort++;
    }
    ip6Input.m = m;
    if (m === null) return 0;
    if (pass === 0) len = (mem[mtod(m) + off + 1]! + 1) << 3;
  }
  return len;
}

/** Sends a parameter problem about byte `pointer` of the packet. Takes `m`. */
function problem(m: Mbuf, code: number, pointer: number, vnet: Vnet): void {
  ip6Input.m = null;
  ip6stat(vnet).ip6s_badoptions++;
  countDrop(m, R_IP6_OPTIONS, CAPTURE_IP, CAPTURE_IN);
  icmp6_error(m, ICMP6_PARAM_PROB, code, pointer, vnet);
}

/**
 * Treats the unknown option at offset `off` by its action bits. Returns whether to go on; else `m` was
 * taken. @see sys/netinet6/ip6_input.c
 */
function ip6_unknown_opt(m: Mbuf, p: Kva, off: number, vnet: Vnet): boolean {
  const action = mem[p + off]! & 0xc0;
  if (action === IP6OPT_TYPE_SKIP) return true;
  const toAll = (m.m_flags & (M_BCAST | M_MCAST)) !== 0 || mem[p + IP6_DST_OFF] === 0xff;
  if (action === IP6OPT_TYPE_DISCARD || (action !== IP6OPT_TYPE_FORCEICMP && toAll)) {
    ip6Input.m = null;
    ip6stat(vnet).ip6s_badoptions++;
    countDrop(m, R_IP6_OPTIONS, CAPTURE_IP, CAPTURE_IN);
    m_freem(m);
    return false;
  }
  problem(m, ICMP6_PARAMPROB_OPTION, off, vnet);
  return false;
}

/** Processes the options from offset `off` to `end`. Returns false if `m` was taken. */
function options(m: Mbuf, off: number, end: number, hopbyhop: boolean, vnet: Vnet): boolean {
  const p = mtod(m);
  while (off < end) {
    const type = mem[p + off]!;
    if (type === IP6OPT_PAD1) {
      off++;
      continue;
    }
    const len = off + 1 < end ? mem[p + off + 1]! + 2 : end;
    if (off + len > end) {
      // The option ends behind its header: its length is wrong.
      problem(m, ICMP6_PARAMPROB_HEADER, off + 1, vnet);
      return false;
    }
    if (hopbyhop && type === IP6OPT_ROUTER_ALERT) {
      if (len !== 4) {
        problem(m, ICMP6_PARAMPROB_HEADER, off + 1, vnet);
        return false;
      }
      if ((mem[p + off + 2]! | mem[p + off + 3]!) === IP6OPT_RTALERT_MLD)
        m.m_flags |= M_RTALERT_MLD;
    } else if (type !== IP6OPT_PADN && !ip6_unknown_opt(m, p, off, vnet)) {
      return false;
    }
    off += len;
  }
  return true;
}

/** Input of an options header. Returns the next header, or IPPROTO_DONE. */
function optionsHeader(m0: Mbuf, off: number, hopbyhop: boolean, vnet: Vnet): number {
  const len = headerLength(m0, off, vnet);
  if (len === 0) return IPPROTO_DONE;
  const m = ip6Input.m!;
  if (!options(m, off + 2, off + len, hopbyhop, vnet)) return IPPROTO_DONE;
  ip6Input.off = off + len;
  return mem[mtod(m) + off]!;
}

/**
 * Input of the hop-by-hop options, which only ip6_input calls, directly behind the IPv6 header.
 * @see sys/netinet6/ip6_input.c
 */
export function ip6_hopopts_input(m: Mbuf, off: number, vnet: Vnet): number {
  return optionsHeader(m, off, true, vnet);
}

/** Destination options in IPv6's protocol table. @see sys/netinet6/dest6.c */
export const dest6Proto: Ip6Proto = {
  input: (m, off, vnet) => optionsHeader(m, off, false, vnet),
  ctlinput(): void {},
};

/** Input of a routing header. @see sys/netinet6/route6.c */
function route6_input(m0: Mbuf, off: number, vnet: Vnet): number {
  const len = headerLength(m0, off, vnet);
  if (len === 0) return IPPROTO_DONE;
  const m = ip6Input.m!;
  const rh = kva(mtod(m) + off);
  // Without segments left the header has no effect, whatever its type.
  if (mem[rh + 3] === 0) {
    ip6Input.off = off + len;
    return mem[rh]!;
  }
  ip6Input.m = null;
  ip6stat(vnet).ip6s_badoptions++;
  countDrop(m, R_IP6_ROUTING, CAPTURE_IP, CAPTURE_IN);
  icmp6_error(m, ICMP6_PARAM_PROB, ICMP6_PARAMPROB_HEADER, off + 2, vnet);
  return IPPROTO_DONE;
}

/** The routing header in IPv6's protocol table. RFC 5095: type 0 is treated as unknown. */
export const route6Proto: Ip6Proto = { input: route6_input, ctlinput(): void {} };
