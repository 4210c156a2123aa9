/**
 * IPv6 input, after sys/netinet6/ip6_input.c: checks, zones, local delivery, dispatch over the extension
 * headers; ip6_forward.ts forwards packets for other hosts. Every dropped packet is counted twice: in
 * FreeBSD's ip6stat and by drop reason. Left out: packet filter hooks.
 */

import { NetAddr } from '../sys/addr.ts';
import {
  R_IP6_BADADDR,
  R_IP6_BADSCOPE,
  R_IP6_DISABLED,
  R_IP6_HEADERS,
  R_IP6_NOBUFS,
  R_IP6_NONE,
  R_IP6_NOPROTO,
  R_IP6_NOTREADY,
  R_IP6_NOTUS,
  R_IP6_SHORT,
  R_IP6_VERSION,
  type Reason,
} from '../sys/reason.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { type Mbuf, M_LOOP, mtod } from '../kern/mbuf.ts';
import { m_adj } from '../kern/uipc_mbuf.ts';
import type { Vnet } from '../kern/vnet.ts';
import { IFF_LOOPBACK, type Ifnet } from '../net/if_var.ts';
import { ICMP6_PARAM_PROB, ICMP6_PARAMPROB_NEXTHEADER } from './icmp6.ts';
import { icmp6_error } from './icmp6_error.ts';
import {
  in6Get,
  IN6_IS_ADDR_LOOPBACK,
  IN6_IS_ADDR_MC_INTFACELOCAL,
  IN6_IS_ADDR_MULTICAST,
  IN6_IS_ADDR_UNSPECIFIED,
  IN6_IS_ADDR_V4MAPPED,
  IPV6_ADDR_MC_SCOPE,
} from './in6.ts';
import { in6Enabled, IN6_IFF_NOTREADY, in6ifa_ifwithaddr, in6m_lookup } from './in6_var.ts';
import {
  Ip6,
  IP6_DST_OFF,
  IP6_NXT_OFF,
  IP6_SRC_OFF,
  IPPROTO_DONE,
  IPPROTO_HOPOPTS,
  IPPROTO_NONE,
  IPV6_VERSION,
  IPV6_VERSION_MASK,
} from './ip6.ts';
import { ip6_forward } from './ip6_forward.ts';
import { ip6_hopopts_input } from './ip6_options.ts';
import { ip6Input, type Ip6stat, type Ip6Vnet, V_ip6 } from './ip6_var.ts';
import { in6ClearscopeAt, in6Ordinary, in6SetscopeAt } from './scope6.ts';
import { captureOn, captureRing } from '../net/capture.ts';
import { captureIp } from '../net/capture_layers.ts';
import { countDrop, pullupInput } from '../net/capture_drop.ts';
import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';

const $ip6 = new Ip6();
const $src = new NetAddr();
const $dst = new NetAddr();

function drop(m: Mbuf, why: Reason): void {
  countDrop(m, why, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
}

/** Makes the header of `m` contiguous and checks the version. Takes `m`; null: it was dropped. */
function checkHeader(m0: Mbuf, stat: Ip6stat): Mbuf | null {
  if (m0.m_pkthdr.len < Ip6.SIZE) {
    stat.ip6s_toosmall++;
    drop(m0, R_IP6_SHORT);
    return null;
  }
  const m = m0.m_len < Ip6.SIZE ? pullupInput(m0, Ip6.SIZE, R_IP6_NOBUFS) : m0;
  if (m === null) {
    stat.ip6s_toosmall++;
    return null;
  }
  if (($ip6.at(mtod(m)).ip6_vfc & IPV6_VERSION_MASK) !== IPV6_VERSION) {
    stat.ip6s_badvers++;
    drop(m, R_IP6_VERSION);
    return null;
  }
  stat.ip6s_nxthist[$ip6.ip6_nxt]!++;
  return m;
}

/**
 * Whether `$src` or `$dst`, which stand at `p` in the packet, must not arrive by `ifp`. Removes the zone
 * that a packet from the wire must not contain.
 */
function badScope(m: Mbuf, ifp: Ifnet, p: number): boolean {
  if (IN6_IS_ADDR_MULTICAST($src) || IN6_IS_ADDR_UNSPECIFIED($dst)) return true;
  // A group of no scope, or of interface-local scope from elsewhere.
  if (IN6_IS_ADDR_MULTICAST($dst) && IPV6_ADDR_MC_SCOPE($dst) === 0) return true;
  if (IN6_IS_ADDR_MC_INTFACELOCAL($dst) && (m.m_flags & M_LOOP) === 0) return true;
  if (IN6_IS_ADDR_V4MAPPED($src) || IN6_IS_ADDR_V4MAPPED($dst)) return true;
  // Both calls: neither address may contain a zone.
  if (Number(in6ClearscopeAt(p + IP6_SRC_OFF)) + Number(in6ClearscopeAt(p + IP6_DST_OFF)) > 0)
    return true;
  if ((ifp.if_flags & IFF_LOOPBACK) !== 0) return false;
  return IN6_IS_ADDR_LOOPBACK($src) || IN6_IS_ADDR_LOOPBACK($dst);
}

// What happens to a packet: see destinationOf.
const OURS = 0;
const FORWARD = 1;
const DROPPED = 2;

/** Whether the packet to `$dst` is for this host, or is forwarded; else takes `m`. */
function destinationOf(m: Mbuf, ifp: Ifnet, v: Ip6Vnet, vnet: Vnet): number {
  const { stat } = v;
  if (IN6_IS_ADDR_MULTICAST($dst)) {
    if (in6m_lookup(ifp, $dst) !== null) return OURS;
    stat.ip6s_notmember++;
    stat.ip6s_cantforward++;
    drop(m, R_IP6_NOTUS);
    return DROPPED;
  }
  const ia = in6ifa_ifwithaddr(vnet, $dst.w0, $dst.w1, $dst.w2, $dst.w3);
  if (ia === null) {
    if (v.params.forwarding) return FORWARD;
    stat.ip6s_cantforward++;
    drop(m, R_IP6_NOTUS);
    return DROPPED;
  }
  if ((ia.ia6_flags & IN6_IFF_NOTREADY) === 0) return OURS;
  drop(m, R_IP6_NOTREADY);
  return DROPPED;
}

/** Trims the bytes behind the payload. Returns false, and takes `m`, if it is incomplete. */
function trim(m: Mbuf, stat: Ip6stat): boolean {
  const want = Ip6.SIZE + $ip6.at(mtod(m)).ip6_plen;
  const have = m.m_pkthdr.len;
  if (have < want) {
    stat.ip6s_tooshort++;
    drop(m, R_IP6_SHORT);
    return false;
  }
  if (have > want) {
    if (m.m_len === have) {
      m.m_len = want;
      m.m_pkthdr.len = want;
    } else {
      m_adj(m, want - have);
    }
  }
  return true;
}

/** Passes the packet in `ip6Input` to the protocols of its headers, from `nxt` on. */
function dispatch(nxt: number, v: Ip6Vnet, vnet: Vnet): void {
  const { stat, params, inet6sw } = v;
  stat.ip6s_delivered++;
  for (let nest = 0; nxt !== IPPROTO_DONE;) {
    const m = ip6Input.m!;
    const { off } = ip6Input;
    if (params.hdrnestlimit !== 0 && ++nest > params.hdrnestlimit) {
      stat.ip6s_toomanyhdr++;
      return drop(m, R_IP6_HEADERS);
    }
    if (m.m_pkthdr.len < off) {
      stat.ip6s_tooshort++;
      return drop(m, R_IP6_SHORT);
    }
    if (nxt === IPPROTO_NONE) return drop(m, R_IP6_NONE);
    const pr = nxt === IPPROTO_HOPOPTS ? null : inet6sw[nxt]!;
    if (pr === null) {
      // RFC 8200, 4: also for hop-by-hop options that do not follow the IPv6 header.
      countDrop(m, R_IP6_NOPROTO, CAPTURE_IP, CAPTURE_IN);
      return icmp6_error(m, ICMP6_PARAM_PROB, ICMP6_PARAMPROB_NEXTHEADER, ip6Input.nxtOff, vnet);
    }
    ip6Input.next = off;
    nxt = pr.input(m, off, vnet);
    ip6Input.nxtOff = ip6Input.next;
  }
}

/**
 * Input of an IPv6 packet. Takes `m0`, which starts at the IPv6 header.
 * @see sys/netinet6/ip6_input.c
 */
export function ip6_input(m0: Mbuf, vnet: Vnet): void {
  const v = V_ip6(vnet);
  const { stat } = v;
  const ifp = m0.m_pkthdr.rcvif as Ifnet;
  if (!in6Enabled(ifp)) return drop(m0, R_IP6_DISABLED);
  stat.ip6s_total++;
  const m = checkHeader(m0, stat);
  if (m === null) return;
  if (captureOn.ip) captureIp(captureRing(), ifp, m, CAPTURE_IN);
  const p = mtod(m);
  in6Get(p + IP6_SRC_OFF, $src);
  in6Get(p + IP6_DST_OFF, $dst);
  if (!in6Ordinary($src.w0) || !in6Ordinary($dst.w0)) {
    if (badScope(m, ifp, p)) {
      stat.ip6s_badscope++;
      return drop(m, R_IP6_BADSCOPE);
    }
    in6SetscopeAt(p + IP6_SRC_OFF, ifp);
    in6SetscopeAt(p + IP6_DST_OFF, ifp);
    in6Get(p + IP6_SRC_OFF, $src);
    in6Get(p + IP6_DST_OFF, $dst);
  }
  // A remote host must not use one of our addresses as source. One that is not ready may be its own.
  const own = in6ifa_ifwithaddr(vnet, $src.w0, $src.w1, $src.w2, $src.w3);
  const remote = (m.m_flags & M_LOOP) === 0 && (ifp.if_flags & IFF_LOOPBACK) === 0;
  const spoofed = own !== null && (own.ia6_flags & IN6_IFF_NOTREADY) === 0;
  if (v.params.source_address_validation && remote && spoofed) return drop(m, R_IP6_BADADDR);
  const to = destinationOf(m, ifp, v, vnet);
  if (to === DROPPED) return;
  ip6Input.m = m;
  ip6Input.off = Ip6.SIZE;
  let nxt = $ip6.at(p).ip6_nxt;
  ip6Input.nxtOff = IP6_NXT_OFF;
  if (nxt === IPPROTO_HOPOPTS) {
    ip6Input.nxtOff = Ip6.SIZE;
    nxt = ip6_hopopts_input(m, Ip6.SIZE, vnet);
    if (nxt === IPPROTO_DONE) return;
  }
  if (!trim(ip6Input.m, stat)) return;
  if (to === FORWARD) ip6_forward(ip6Input.m, vnet);
  else dispatch(nxt, v, vnet);
}
