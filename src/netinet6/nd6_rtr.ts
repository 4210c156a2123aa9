/**
 * Router advertisements and solicitations received, after sys/netinet6/nd6_rtr.c: RFC 4861, 6.1 and 6.3.4.
 * The lists are in nd6_defrouter.ts, nd6_prefix.ts, in6_autoconf.ts and nd6_dns.ts. Left out: sending
 * advertisements (FreeBSD: rtadvd), the IPv6-only flag.
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import { countDrop } from '../net/capture_drop.ts';
import { NetAddr } from '../sys/addr.ts';
import { R_ICMP6_IGNORED, R_ND6_BAD, R_ND6_FRAGMENT, type Reason } from '../sys/reason.ts';
import { type Kva, kva } from '../sys/types.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { type Mbuf, mtod } from '../kern/mbuf.ts';
import type { Ifnet } from '../net/if_var.ts';
import { ribTouch } from '../net/route.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  ICMP6_MINLEN,
  ND_HLIM,
  ND_OPT_SOURCE_LINKADDR,
  ND_ROUTER_ADVERT,
  ND_ROUTER_ADVERT_LEN,
  ND_ROUTER_SOLICIT,
} from './icmp6.ts';
import { V_icmp6 } from './icmp6_var.ts';
import {
  in6Get,
  IN6_IS_ADDR_LINKLOCAL,
  IN6_IS_ADDR_MULTICAST,
  IN6_IS_ADDR_UNSPECIFIED,
  in6Ntop,
} from './in6.ts';
import { nd6Log, prelist_update } from './in6_autoconf.ts';
import { IN6_IFAUPDATE_DADDELAY } from './in6_ifaddr.ts';
import { in6Ifextra, ND6_IFF_ACCEPT_RTADV, ND6_IFF_NO_RADR, type NdIfinfo } from './in6_var.ts';
import { Ip6, IP6_DST_OFF, IP6_SRC_OFF, IPV6_MMTU } from './ip6.ts';
import { M_FRAGMENTED, V_ip6 } from './ip6_var.ts';
import { nd6_cache_lladdr } from './nd6.ts';
import { defrtrlist_update } from './nd6_defrouter.ts';
import { dnsslInput, rdnssInput } from './nd6_dns.ts';
import { ndLladdr, ndOpts, nd6_options } from './nd6_options.ts';
import { pfxlist_onlink_check } from './nd6_prefix.ts';
import { nd6RsAnswered } from './nd6_rs.ts';
import type { NdDefrouter } from './nd6_rtr_var.ts';
import { nd6Reachable, V_nd6 } from './nd6_var.ts';
import { in6_clearscope } from './scope6.ts';

const ND_OPT_PREFIX_INFORMATION = 3;
const ND_OPT_MTU = 5;
const ND_OPT_RDNSS = 25;
const ND_OPT_DNSSL = 31;
const ND_OPT_PI_FLAG_ONLINK = 0x80;
const ND_OPT_PI_FLAG_AUTO = 0x40;
/** Lengths of options in units of 8 bytes. */
const MTU_UNITS = 1;
const PI_UNITS = 4;
/** Milliseconds: RFC 4861, 6.2.1. */
const MAX_REACHABLE_TIME = 3_600_000;

const $ip6 = new Ip6();
const $src = new NetAddr();
const $dst = new NetAddr();
const $from = new NetAddr();

/** Addresses of the options that a message may have several times. */
const prefixOptions: number[] = [];
const dnsOptions: number[] = [];

const lengthOf = (p: number): number => mem[p + 1]! << 3;

/**
 * Finds the options at `p`, which end at `end`: those of which there is one in `ndOpts`. FreeBSD's rtsold,
 * which reads the options about DNS, has no limit of their number. Returns false for a malformed option.
 */
function readOptions(p: number, end: number, ifp: Ifnet): boolean {
  const vnet = ifp.if_vnet;
  if (!nd6_options(vnet, p, end)) return false;
  const { nd6_maxndopt } = V_nd6(vnet).params;
  prefixOptions.length = dnsOptions.length = 0;
  for (let n = 0; p + 1 < end; n++) {
    const len = lengthOf(p);
    // Behind the last option that nd6_options has checked.
    if (len === 0 || p + len > end) break;
    const type = mem[p]!;
    if (type === ND_OPT_RDNSS || type === ND_OPT_DNSSL) dnsOptions.push(p);
    else if (type === ND_OPT_PREFIX_INFORMATION && n <= nd6_maxndopt) prefixOptions.push(p);
    p += len;
  }
  return true;
}

function bad(m: Mbuf, ifp: Ifnet): void {
  V_icmp6(ifp.if_vnet).stat.icp6s_badra++;
  drop(m, R_ND6_BAD);
}

function drop(m: Mbuf, why: Reason): void {
  countDrop(m, why, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
}

/**
 * Input of a router advertisement of `len` contiguous bytes at offset `off` of `m`. Takes `m`.
 * @see sys/netinet6/nd6_rtr.c
 */
export function nd6_ra_input(m: Mbuf, off: number, len: number): void {
  const ifp = m.m_pkthdr.rcvif as Ifnet;
  const nd = in6Ifextra(ifp)?.nd_ifinfo;
  if (nd === undefined || (nd.flags & ND6_IFF_ACCEPT_RTADV) === 0) return drop(m, R_ICMP6_IGNORED);
  // RFC 6980, 5.
  if ((m.m_flags & M_FRAGMENTED) !== 0) return drop(m, R_ND6_FRAGMENT);
  const p = mtod(m);
  const ra = kva(p + off);
  in6Get(p + IP6_SRC_OFF, $src);
  if ($ip6.at(p).ip6_hlim !== ND_HLIM || !IN6_IS_ADDR_LINKLOCAL($src)) return bad(m, ifp);
  if (!readOptions(ra + ND_ROUTER_ADVERT_LEN, ra + len, ifp)) return drop(m, R_ND6_BAD);
  nd6RsAnswered(ifp);
  $from.setFrom($src);
  in6_clearscope($from);
  timers(ifp, nd, ra);
  const dr = routerOf(ifp, nd, ra);
  const delay = IN6_IS_ADDR_MULTICAST(in6Get(p + IP6_DST_OFF, $dst));
  prefixes(ifp, dr, delay ? IN6_IFAUPDATE_DADDELAY : 0);
  mtuOption(ifp, nd);
  dns(ifp);
  if (!sourceAddress(ifp, ND_ROUTER_ADVERT)) return bad(m, ifp);
  pfxlist_onlink_check(ifp.if_vnet);
  m_freem(m);
}

/**
 * Input of a router solicitation of `len` contiguous bytes at offset `off` of `m`: a router learns the
 * link-level address of the host. Takes `m`. @see sys/netinet6/nd6_rtr.c
 */
export function nd6_rs_input(m: Mbuf, off: number, len: number): void {
  const ifp = m.m_pkthdr.rcvif as Ifnet;
  const { if_vnet: vnet } = ifp;
  const accept = (in6Ifextra(ifp)?.nd_ifinfo.flags ?? 0) & ND6_IFF_ACCEPT_RTADV;
  if (!V_ip6(vnet).params.forwarding || accept !== 0) return drop(m, R_ICMP6_IGNORED);
  if ((m.m_flags & M_FRAGMENTED) !== 0) return drop(m, R_ND6_FRAGMENT);
  const p = mtod(m);
  const rs = kva(p + off);
  let good = $ip6.at(p).ip6_hlim === ND_HLIM;
  in6Get(p + IP6_SRC_OFF, $src);
  if (good && !IN6_IS_ADDR_UNSPECIFIED($src)) {
    if (!nd6_options(vnet, rs + ICMP6_MINLEN, rs + len)) return drop(m, R_ND6_BAD);
    good = sourceAddress(ifp, ND_ROUTER_SOLICIT);
  }
  if (good) return m_freem(m);
  V_icmp6(vnet).stat.icp6s_badrs++;
  drop(m, R_ND6_BAD);
}

/** Sets the times and the hop limit of the interface: RFC 4861, 6.3.4. 0: the router does not say. */
function timers(ifp: Ifnet, nd: NdIfinfo, ra: Kva): void {
  const reachable = memView.getUint32(ra + 8);
  if (reachable !== 0 && reachable <= MAX_REACHABLE_TIME && reachable !== nd.basereachable) {
    nd.basereachable = reachable;
    nd.reachable = nd6Reachable(ifp.if_vnet, reachable);
    nd.recalctm = nowNs();
  }
  const retrans = memView.getUint32(ra + 12);
  if (retrans !== 0) nd.retrans = retrans;
  const hlim = mem[ra + 4]!;
  if (hlim === 0) return;
  // A lower limit could make hosts unreachable: FreeBSD only increases it.
  if (hlim >= nd.chlim) nd.chlim = hlim;
  else
    nd6Log(ifp, `hop limit ${hlim} of router ${in6Ntop($from)} ignored: it is below ${nd.chlim}`);
}

/** Updates the default router list. Null: the router is not in it. */
function routerOf(ifp: Ifnet, nd: NdIfinfo, ra: Kva): NdDefrouter | null {
  const { forwarding, rfc6204w3 } = V_ip6(ifp.if_vnet).params;
  // A router has its routes from elsewhere, except one that is a host upstream: RFC 6204, W-3.
  const ignored = (nd.flags & ND6_IFF_NO_RADR) !== 0 || (forwarding && !rfc6204w3);
  const lifetime = ignored ? 0 : memView.getUint16(ra + 6);
  return defrtrlist_update(ifp, $src, mem[ra + 5]!, lifetime);
}

/** Processes the Prefix Information options: RFC 4861, 4.6.2. */
function prefixes(ifp: Ifnet, dr: NdDefrouter | null, updateflags: number): void {
  for (const p of prefixOptions) {
    const plen = mem[p + 2]!;
    const prefix = in6Get(p + 16, new NetAddr());
    const from = `of router ${in6Ntop($from)} ignored`;
    if (mem[p + 1] !== PI_UNITS) {
      nd6Log(ifp, `prefix option of ${lengthOf(p)} bytes ${from}`);
    } else if (plen > 128) {
      nd6Log(ifp, `prefix length ${plen} ${from}`);
    } else if (IN6_IS_ADDR_MULTICAST(prefix) || IN6_IS_ADDR_LINKLOCAL(prefix)) {
      nd6Log(ifp, `prefix ${in6Ntop(prefix)}/${plen} ${from}`);
    } else {
      const pc = {
        ndpr_ifp: ifp,
        ndpr_prefix: prefix,
        ndpr_plen: plen,
        ndpr_raf_onlink: (mem[p + 3]! & ND_OPT_PI_FLAG_ONLINK) !== 0,
        ndpr_raf_auto: (mem[p + 3]! & ND_OPT_PI_FLAG_AUTO) !== 0,
        vltime: memView.getUint32(p + 4),
        pltime: memView.getUint32(p + 8),
      };
      prelist_update(pc, dr, updateflags);
    }
  }
}

/** Processes the MTU option: RFC 4861, 4.6.4. */
function mtuOption(ifp: Ifnet, nd: NdIfinfo): void {
  const p = ndOpts.at[ND_OPT_MTU]!;
  if (p === 0 || mem[p + 1] !== MTU_UNITS) return;
  const mtu = memView.getUint32(p + 4);
  if (mtu < IPV6_MMTU || mtu > ifp.if_mtu) {
    nd6Log(
      ifp,
      `MTU ${mtu} of router ${in6Ntop($from)} ignored: it is not in ${IPV6_MMTU} to ${ifp.if_mtu}`,
    );
  } else if (mtu !== nd.linkmtu) {
    nd.linkmtu = mtu;
    ribTouch(ifp.if_vnet);
  }
}

/** Processes the options about DNS: RFC 8106. */
function dns(ifp: Ifnet): void {
  const router = new NetAddr();
  router.setFrom($src);
  for (const p of dnsOptions) {
    const option = mem.slice(p, p + lengthOf(p));
    const input = option[0] === ND_OPT_RDNSS ? rdnssInput : dnsslInput;
    if (input(ifp, router, option)) continue;
    V_icmp6(ifp.if_vnet).stat.icp6s_nd_badopt++;
    nd6Log(ifp, `malformed DNS option of router ${in6Ntop($from)} ignored`);
  }
}

/**
 * Records the link-level address of the sender of a message of `type`. A router may become reachable with
 * it. False: the option is not that of Ethernet.
 */
function sourceAddress(ifp: Ifnet, type: number): boolean {
  const found = ndLladdr(ND_OPT_SOURCE_LINKADDR);
  if (found < 0) return false;
  nd6_cache_lladdr(ifp, $src, found > 0 ? ndOpts.lladdr : null, type);
  return true;
}
