/**
 * Multicast listener discovery, versions 1 and 2 (RFC 2710, 3590, 3810), after sys/netinet6/mld6.c: the
 * packets and their checks. netinet/in_report.ts decides what is reported when. Left out: multicast
 * routing.
 */

import { countInputDrop } from '../net/capture_drop.ts';
import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { count, R_IP6_NOBUFS, R_MLD_IGNORED, R_MLD_SHORT } from '../sys/reason.ts';
import { kva } from '../sys/types.ts';
import { m_getcl, m_gethdr } from '../kern/kern_mbuf.ts';
import {
  type Mbuf,
  max_linkhdr,
  MHLEN,
  M_NOWAIT,
  M_PKTHDR,
  M_RTALERT_MLD,
  MT_DATA,
  mtod,
} from '../kern/mbuf.ts';
import { answersForAddresses, VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { IFF_LOOPBACK, type Ifnet } from '../net/if_var.ts';
import { inm_lookup, type InMulti } from '../netinet/in_multi.ts';
import { type ReportLink, Reporter, type ReportWire } from '../netinet/in_report.ts';
import {
  codeValue,
  readSources,
  type ReportFormat,
  ReportWriter,
  ticksOf,
} from '../netinet/in_report_writer.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  ICMP6_CKSUM_OFF,
  MLD_LISTENER_DONE,
  MLD_LISTENER_QUERY,
  MLD_LISTENER_REPORT,
  MLDV2_LISTENER_REPORT,
} from './icmp6.ts';
import { icmp6Count } from './icmp6_var.ts';
import {
  in6addr_any,
  in6addr_linklocal_allnodes,
  in6addr_linklocal_allrouters,
  in6addr_linklocal_allv2routers,
  in6Get,
  IN6_IS_ADDR_LINKLOCAL,
  IN6_IS_ADDR_MULTICAST,
  IN6_IS_ADDR_UNSPECIFIED,
  IPV6_ADDR_MC_SCOPE,
  IPV6_ADDR_SCOPE_INTFACELOCAL,
  in6Put,
} from './in6.ts';
import { in6_cksum } from './in6_cksum.ts';
import { ETHER_MAP_IPV6_MULTICAST } from './in6_mcast.ts';
import { IN6_IFF_ANYCAST, IN6_IFF_NOTREADY, in6ifa_ifpforlinklocal } from './in6_var.ts';
import {
  Ip6,
  IP6_DST_OFF,
  IP6_SRC_OFF,
  IP6OPT_PADN,
  IP6OPT_ROUTER_ALERT,
  IP6OPT_RTALERT_MLD,
  IPPROTO_ICMPV6,
  IPV6_VERSION,
} from './ip6.ts';
import { ip6_output } from './ip6_output.ts';
import { Ip6Moptions, Ip6Pktopts, IPV6_DONTFRAG, IPV6_UNSPECSRC, V_ip6 } from './ip6_var.ts';
import { in6_clearscope, in6_setscope } from './scope6.ts';

const MLD_VERSION_1 = 1;
const MLD_VERSION_2 = 2;

/** Bytes of a message of version 1: type, code, checksum, maximum delay, reserved, group. */
const MLD_MINLEN = 24;
const MLD_DELAY_OFF = 4;
const MLD_ADDR_OFF = 8;
/** Bytes of a query of version 2 without sources, and where its fields are: RFC 3810, 5.1. */
const MLD_V2_QUERY_MINLEN = 28;
const MLD_V2_MISC_OFF = 24;
const MLD_V2_QQIC_OFF = 25;
const MLD_V2_NUMSRC_OFF = 26;
/** The most sources of a query that is processed. @see sys/netinet6/mld6_var.h */
const MLD_MAX_GS_SOURCES = 256;
/** The units of the maximum response delay are milliseconds. */
const MLD_TIMER_SCALE = 1000;
/** The most bytes of a report, all headers included: one Ethernet frame, and less than a cluster. */
const REPORT_MAX = 1500;
const RAOPT_LEN = 8;
const ADDR_LEN = 16;

const $ip6 = new Ip6();
const $src = new NetAddr();
const $dst = new NetAddr();
const $addr = new NetAddr();
/** Router alert, hop limit and interface of the reports. */
const $opt = new Ip6Pktopts();
$opt.ip6po_hbh = Uint8Array.of(0, 0, IP6OPT_PADN, 0, IP6OPT_ROUTER_ALERT, 2, 0, IP6OPT_RTALERT_MLD);
$opt.ip6po_hlim = 1;
$opt.ip6po_flags = IPV6_DONTFRAG;
const $im6o = new Ip6Moptions();
$im6o.im6o_multicast_loop = false;

/** Statistics of MLD. FreeBSD has none; the names follow its igmpstat. */
class MldStat {
  rcvTotal = 0;
  rcvTooShort = 0;
  rcvBadHlim = 0;
  /** Without router alert. */
  rcvNoRa = 0;
  rcvV1Queries = 0;
  rcvV2Queries = 0;
  rcvBadQueries = 0;
  rcvGenQueries = 0;
  rcvGroupQueries = 0;
  rcvGsrQueries = 0;
  dropGsrQueries = 0;
  rcvReports = 0;
  rcvBadReports = 0;
  rcvOurReports = 0;
  sndReports = 0;
}

/** Settings under net.inet6.mld, with FreeBSD's defaults. */
class MldParams {
  /** Seconds between two answers to group-and-source queries of a group. */
  gsrdelay = 10;
  /** Obey queries of version 1. */
  v1enable = true;
  /** Obey queries of version 2. */
  v2enable = true;
  /** Report memberships with sources by ALLOW and BLOCK records. */
  use_allow = true;
}

/** MLD's state of one stack. */
class MldVnet {
  readonly stat = new MldStat();
  readonly params = new MldParams();
  readonly reporter: Reporter;

  constructor(vnet: Vnet) {
    this.reporter = new Reporter(vnet, mldWire(vnet, this));
  }
}

export const V_mld = VNET_DEFINE((vnet) => new MldVnet(vnet));

/** MLD statistics of a stack, for `netstat -s`. */
export function mldstat(vnet: Vnet): MldStat {
  return V_mld(vnet).stat;
}

/** Starts MLD on an interface. @see sys/netinet6/mld6.c */
export function mld_domifattach(ifp: Ifnet): ReportLink {
  return V_mld(ifp.if_vnet).reporter.attach(ifp);
}

/** Ends MLD on an interface. All members have left. @see sys/netinet6/mld6.c */
export function mld_domifdetach(ifp: Ifnet): void {
  V_mld(ifp.if_vnet).reporter.detach(ifp);
}

/** Stops the timer. Called when the stack is destroyed. */
export function mldStop(vnet: Vnet): void {
  V_mld(vnet).reporter.stop();
}

/**
 * Sends the message `body` to `dst`, with its checksum, from the link-local address or, while that is
 * tentative, from `::` (RFC 3590). Reports that fail are not repeated.
 */
function send(ifp: Ifnet, dst: AddrWords, body: Uint8Array): void {
  const { if_vnet: vnet } = ifp;
  if (!answersForAddresses(vnet)) return;
  const len = Ip6.SIZE + body.length;
  const small = max_linkhdr + len <= MHLEN;
  const m = small ? m_gethdr(M_NOWAIT, MT_DATA) : m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR);
  if (m === null) return count(R_IP6_NOBUFS);
  m.m_data += max_linkhdr;
  m.m_len = m.m_pkthdr.len = len;
  const p = mtod(m);
  const icp = p + Ip6.SIZE;
  mem.set(body, icp);
  $ip6.at(p);
  $ip6.ip6_flow = IPV6_VERSION << 24;
  $ip6.ip6_plen = body.length;
  $ip6.ip6_nxt = IPPROTO_ICMPV6;
  $ip6.ip6_hlim = 1;
  const ia = in6ifa_ifpforlinklocal(ifp, IN6_IFF_NOTREADY | IN6_IFF_ANYCAST);
  in6Put(p + IP6_SRC_OFF, ia === null ? in6addr_any : ia.ifa_addr);
  $dst.setFrom(dst);
  in6_setscope($dst, ifp);
  in6Put(p + IP6_DST_OFF, $dst);
  memView.setUint16(icp + ICMP6_CKSUM_OFF, in6_cksum(m, IPPROTO_ICMPV6, Ip6.SIZE, body.length));
  $im6o.im6o_multicast_ifp = ifp;
  V_mld(vnet).stat.sndReports++;
  icmp6Count(vnet, body[0]!);
  ip6_output(m, $opt, null, IPV6_UNSPECSRC, $im6o, vnet);
}

/** Writes an address without its zone. */
function put(view: DataView, off: number, a: AddrWords): void {
  $addr.setFrom(a);
  in6_clearscope($addr);
  view.setInt32(off, $addr.w0);
  view.setInt32(off + 4, $addr.w1);
  view.setInt32(off + 8, $addr.w2);
  view.setInt32(off + 12, $addr.w3);
}

/** Sends a message of version 1. */
function oldMessage(ifp: Ifnet, type: number, dst: AddrWords, group: AddrWords): void {
  const body = new Uint8Array(MLD_MINLEN);
  body[0] = type;
  put(new DataView(body.buffer), MLD_ADDR_OFF, group);
  send(ifp, dst, body);
}

/** The reports of version 2. */
const format: ReportFormat = { type: MLDV2_LISTENER_REPORT, addrLen: ADDR_LEN, put };

/**
 * Whether memberships of `group` are reported: RFC 3810, 6 excludes ff02::1 and the scopes 0 and 1.
 * @see sys/netinet6/mld6.c
 */
function mld_is_addr_reported(group: AddrWords): boolean {
  if (IPV6_ADDR_MC_SCOPE(group) <= IPV6_ADDR_SCOPE_INTFACELOCAL) return false;
  $addr.setFrom(group);
  in6_clearscope($addr);
  return !$addr.equals(in6addr_linklocal_allnodes);
}

/** MLD's packets, for in_report.ts. */
function mldWire(vnet: Vnet, { params }: MldVnet): ReportWire {
  return {
    newest: MLD_VERSION_2,
    defaultVersion: () => MLD_VERSION_2,
    enabled: () => params.v1enable,
    reported: mld_is_addr_reported,
    maxgrpsrc: () => V_ip6(vnet).mcast.maxgrpsrc,
    gsrdelay: () => params.gsrdelay,
    useAllow: () => params.use_allow,
    mapGroup: ETHER_MAP_IPV6_MULTICAST,
    sendReport(ifp, _version, group): void {
      oldMessage(ifp, MLD_LISTENER_REPORT, group, group);
    },
    sendLeave(ifp, _version, group): void {
      oldMessage(ifp, MLD_LISTENER_DONE, in6addr_linklocal_allrouters, group);
    },
    sendRecords(ifp, records): void {
      const room = Math.min(ifp.if_mtu, REPORT_MAX) - Ip6.SIZE - RAOPT_LEN;
      const writer = new ReportWriter(format, room, (report) =>
        send(ifp, in6addr_linklocal_allv2routers, report),
      );
      for (const record of records) writer.add(record);
      writer.flush();
    },
  };
}

/** The value of a maximum response code of version 2, milliseconds: RFC 3810, 5.1.3. */
function delayOf(code: number): number {
  return code < 0x8000 ? code : ((code & 0xfff) | 0x1000) << (((code >>> 12) & 7) + 3);
}

/** Refuses a query. */
function badQuery(v: MldVnet): void {
  v.stat.rcvBadQueries++;
  countInputDrop(R_MLD_IGNORED);
}

/** The group in `$addr` that the link receives, or null. */
function groupOf(link: ReportLink): InMulti | null {
  in6_setscope($addr, link.ifp);
  return inm_lookup(link, $addr);
}

/** Whether `$dst` is ff02::1. */
function toAllNodes(): boolean {
  in6_clearscope($dst);
  return $dst.equals(in6addr_linklocal_allnodes);
}

/** A query of version 1 at `mld`: RFC 2710. */
function mld_v1_input_query(link: ReportLink, mld: number, v: MldVnet): void {
  const { stat, params } = v;
  stat.rcvV1Queries++;
  if (!params.v1enable) return countInputDrop(R_MLD_IGNORED);
  in6Get(mld + MLD_ADDR_OFF, $addr);
  const general = IN6_IS_ADDR_UNSPECIFIED($addr);
  if (general ? !toAllNodes() : !IN6_IS_ADDR_MULTICAST($addr)) return badQuery(v);
  if (general) stat.rcvGenQueries++;
  else stat.rcvGroupQueries++;
  if (!link.olderQuerier(MLD_VERSION_1)) return;
  const ticks = ticksOf(memView.getUint16(mld + MLD_DELAY_OFF), MLD_TIMER_SCALE);
  if (general) {
    for (const inm of link.groups.list()) link.oldQuery(inm, ticks);
    return;
  }
  const inm = groupOf(link);
  if (inm !== null) link.oldQuery(inm, ticks);
}

/** A query of version 2, of `len` bytes at offset `off` of `m`. @see sys/netinet6/mld6.c */
function mld_v2_input_query(link: ReportLink, m: Mbuf, off: number, len: number, v: MldVnet): void {
  const { stat, params } = v;
  stat.rcvV2Queries++;
  if (!params.v2enable) return countInputDrop(R_MLD_IGNORED);
  const mld = mtod(m) + off;
  const nsrc = memView.getUint16(mld + MLD_V2_NUMSRC_OFF);
  in6Get(mld + MLD_ADDR_OFF, $addr);
  const general = IN6_IS_ADDR_UNSPECIFIED($addr);
  if (nsrc > MLD_MAX_GS_SOURCES || len < MLD_V2_QUERY_MINLEN + ADDR_LEN * nsrc) return badQuery(v);
  if (general ? nsrc > 0 : !IN6_IS_ADDR_MULTICAST($addr)) return badQuery(v);
  if (general) stat.rcvGenQueries++;
  else if (nsrc === 0) stat.rcvGroupQueries++;
  else stat.rcvGsrQueries++;
  // While a querier of version 1 is present, others are ignored: RFC 3810, 8.2.1.
  if (link.version !== MLD_VERSION_2) return;
  const delay = delayOf(memView.getUint16(mld + MLD_DELAY_OFF));
  const qrv = mem[mld + MLD_V2_MISC_OFF]! & 7;
  // RFC 3810, 9.1: a value below 2 is not usable.
  if (qrv >= 2) link.rv = qrv;
  else link.resetRobustness();
  link.qi = codeValue(mem[mld + MLD_V2_QQIC_OFF]!);
  link.qri = Math.ceil(delay / MLD_TIMER_SCALE);
  const ticks = ticksOf(delay, MLD_TIMER_SCALE);
  if (general) return link.generalQuery(ticks);
  const inm = groupOf(link);
  if (inm === null) return;
  if (nsrc > 0 && !link.mayAsk(inm)) {
    stat.dropGsrQueries++;
    return countInputDrop(R_MLD_IGNORED);
  }
  if (link.answersBefore(ticks)) return;
  if (nsrc === 0) return link.groupQuery(inm, ticks);
  const sources = readSources(m, off + MLD_V2_QUERY_MINLEN, ADDR_LEN * nsrc);
  link.sourceQuery(inm, ticks, nsrc, (i) => {
    const at = ADDR_LEN * i;
    const word = (n: number): number => sources.getInt32(at + 4 * n);
    $addr.set(word(0), word(1), word(2), word(3));
    in6_setscope($addr, link.ifp);
    return $addr;
  });
}

/** A query: RFC 3810, 6.2, requires a link-local source, and 8.1 distinguishes the versions by length. */
function query(link: ReportLink, m: Mbuf, off: number, len: number, v: MldVnet): void {
  if (!IN6_IS_ADDR_LINKLOCAL($src)) return badQuery(v);
  if (len === MLD_MINLEN) return mld_v1_input_query(link, mtod(m) + off, v);
  if (len >= MLD_V2_QUERY_MINLEN) return mld_v2_input_query(link, m, off, len, v);
  v.stat.rcvTooShort++;
  countInputDrop(R_MLD_SHORT);
}

/** Another host's report of version 1 at `mld`. @see sys/netinet6/mld6.c */
function mld_v1_input_report(link: ReportLink, mld: number, v: MldVnet): void {
  const { stat, params } = v;
  const { ifp } = link;
  stat.rcvReports++;
  if (!params.v1enable) return countInputDrop(R_MLD_IGNORED);
  const any = IN6_IS_ADDR_UNSPECIFIED($src);
  in6Get(mld + MLD_ADDR_OFF, $addr);
  in6_setscope($addr, ifp);
  const valid = IN6_IS_ADDR_MULTICAST($addr) && $addr.equals($dst);
  if (!valid || (!any && !IN6_IS_ADDR_LINKLOCAL($src))) {
    stat.rcvBadReports++;
    return countInputDrop(R_MLD_IGNORED);
  }
  // Our own report came back.
  const ia = in6ifa_ifpforlinklocal(ifp, IN6_IFF_NOTREADY | IN6_IFF_ANYCAST);
  if (ia === null ? any : $src.equals(ia.ifa_addr)) return;
  const inm = groupOf(link);
  if (inm === null) return;
  stat.rcvOurReports++;
  link.otherReport(inm, false);
}

/**
 * Input of an MLD message of `len` bytes at offset `off` of `m`, of which the first 28, as far as they
 * exist, are contiguous with the headers. The checksum is verified. Does not take `m`. Returns whether
 * raw sockets may receive the message. @see sys/netinet6/mld6.c
 */
export function mld_input(m: Mbuf, off: number, len: number, vnet: Vnet): boolean {
  const v = V_mld(vnet);
  const { stat } = v;
  stat.rcvTotal++;
  const p = mtod(m);
  const badHlim = $ip6.at(p).ip6_hlim !== 1;
  if (badHlim || (m.m_flags & M_RTALERT_MLD) === 0) {
    if (badHlim) stat.rcvBadHlim++;
    else stat.rcvNoRa++;
    countInputDrop(R_MLD_IGNORED);
    return false;
  }
  const mld = kva(p + off);
  const type = mem[mld]!;
  if (type !== MLDV2_LISTENER_REPORT && len < MLD_MINLEN) {
    stat.rcvTooShort++;
    countInputDrop(R_MLD_SHORT);
    return false;
  }
  const ifp = m.m_pkthdr.rcvif as Ifnet;
  const link = v.reporter.links.get(ifp);
  if (link === undefined || (ifp.if_flags & IFF_LOOPBACK) !== 0) return true;
  in6Get(p + IP6_SRC_OFF, $src);
  in6Get(p + IP6_DST_OFF, $dst);
  if (type === MLD_LISTENER_QUERY) query(link, m, off, len, v);
  else if (type === MLD_LISTENER_REPORT) mld_v1_input_report(link, mld, v);
  else if (type === MLDV2_LISTENER_REPORT) stat.rcvReports++;
  return true;
}
