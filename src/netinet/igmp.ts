/**
 * IGMP, versions 1 to 3 (RFC 1112, 2236, 3376), after sys/netinet/igmp.c: the packets and their
 * checks. in_report.ts decides what is reported when. Left out: raw IGMP sockets, multicast routing,
 * the loopback of reports to a router on the same host.
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import { countDrop, countInputDrop, inputSubject, pullupInput } from '../net/capture_drop.ts';
import type { AddrWords } from '../sys/addr.ts';
import {
  count,
  R_IGMP_IGNORED,
  R_IGMP_SHORT,
  R_IGMP_SUM,
  R_IP_NOBUFS,
  type Reason,
} from '../sys/reason.ts';
import { type InAddr, kva } from '../sys/types.ts';
import { m_freem, m_getcl, m_gethdr } from '../kern/kern_mbuf.ts';
import { type Mbuf, MHLEN, M_NOWAIT, M_PKTHDR, max_linkhdr, MT_DATA, mtod } from '../kern/mbuf.ts';
import { IPPROTO_IGMP } from '../kern/protosw.ts';
import { answersForAddresses, VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { IFF_LOOPBACK, type Ifnet } from '../net/if_var.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  IN_LOCAL_GROUP,
  IN_MULTICAST,
  inAddrOf,
  INADDR_ALLHOSTS_GROUP,
  INADDR_ALLRPTS_GROUP,
  INADDR_ALLRTRS_GROUP,
  inNetAddr,
} from './in.ts';
import { ETHER_MAP_IP_MULTICAST } from './if_ether.ts';
import { in_cksum_skip } from './in_cksum.ts';
import { InMoptions, inm_lookup } from './in_multi.ts';
import { PR_FASTHZ, type ReportLink, Reporter, type ReportWire } from './in_report.ts';
import {
  codeValue,
  readSources,
  type ReportFormat,
  ReportWriter,
  ticksOf,
} from './in_report_writer.ts';
import { inPrimary } from './in_var.ts';
import { Ip, IPOPT_RA } from './ip.ts';
import { IpOptions, ip_checkrouteralert } from './ip_options.ts';
import { ip_output } from './ip_output.ts';
import { type IpProto, V_ip } from './ip_var.ts';

// Versions. @see sys/netinet/igmp_var.h
export const IGMP_VERSION_1 = 1;
const IGMP_VERSION_2 = 2;
export const IGMP_VERSION_3 = 3;

// Types of messages. @see sys/netinet/igmp.h
const IGMP_HOST_MEMBERSHIP_QUERY = 0x11;
const IGMP_v1_HOST_MEMBERSHIP_REPORT = 0x12;
const IGMP_v2_HOST_MEMBERSHIP_REPORT = 0x16;
const IGMP_HOST_LEAVE_MESSAGE = 0x17;
const IGMP_v3_HOST_MEMBERSHIP_REPORT = 0x22;

const IGMP_MINLEN = 8;
const IGMP_V3_QUERY_MINLEN = 12;
/** The units of the maximum response time are a tenth of a second. */
const IGMP_TIMER_SCALE = 10;
/** The maximum response time of version 1, seconds. */
const IGMP_V1V2_MAX_RI = 10;
/** Internetwork control: RFC 3376, 4. */
const IPTOS_PREC_INTERNETCONTROL = 0xc0;
/** The most bytes of a report, IP header included: one Ethernet frame, and less than a cluster. */
const REPORT_MAX = 1500;
const RAOPT_LEN = 4;

const $ip = new Ip();
/** The header, the TTL and the interface of the reports. */
const $imo = new InMoptions();
$imo.imo_multicast_loop = false;
const $raopt = new IpOptions();
$raopt.bytes.set([IPOPT_RA, RAOPT_LEN, 0, 0]);
$raopt.len = RAOPT_LEN;

/** IGMP statistics, with FreeBSD's names. @see sys/netinet/igmp_var.h */
class Igmpstat {
  igps_rcv_total = 0;
  igps_rcv_tooshort = 0;
  igps_rcv_badttl = 0;
  igps_rcv_badsum = 0;
  igps_rcv_v1v2_queries = 0;
  igps_rcv_v3_queries = 0;
  igps_rcv_badqueries = 0;
  igps_rcv_gen_queries = 0;
  igps_rcv_group_queries = 0;
  igps_rcv_gsr_queries = 0;
  igps_drop_gsr_queries = 0;
  igps_rcv_reports = 0;
  igps_rcv_badreports = 0;
  igps_rcv_ourreports = 0;
  igps_rcv_nora = 0;
  igps_snd_reports = 0;
}

/** Settings under net.inet.igmp, with FreeBSD's defaults. */
class IgmpParams {
  /** Take 0.0.0.0 as the source of a report for an address of the network. */
  recvifkludge = true;
  /** Send the router alert option. */
  sendra = true;
  /** Report groups of 224.0.0.0/24 too. */
  sendlocal = true;
  v1enable = true;
  v2enable = true;
  /** A report of version 1 or 2 ends the answer of version 3 to a query. */
  legacysupp = false;
  default_version = IGMP_VERSION_3;
  /** Seconds between two answers to group-and-source queries of a group. */
  gsrdelay = 10;
}

/** IGMP's state of one stack. */
class IgmpVnet {
  readonly stat = new Igmpstat();
  readonly params = new IgmpParams();
  readonly reporter: Reporter;

  constructor(vnet: Vnet) {
    this.reporter = new Reporter(vnet, igmpWire(vnet, this));
  }
}

export const V_igmp = VNET_DEFINE((vnet) => new IgmpVnet(vnet));

/** IGMP statistics of a stack, for `netstat -s`. */
export function igmpstat(vnet: Vnet): Igmpstat {
  return V_igmp(vnet).stat;
}

/** IPv4's groups on an interface; null if IPv4 is not attached to it. */
export function igmpLink(ifp: Ifnet): ReportLink | null {
  return V_igmp(ifp.if_vnet).reporter.links.get(ifp) ?? null;
}

/** Starts IGMP on an interface. @see sys/netinet/igmp.c */
export function igmp_domifattach(ifp: Ifnet): void {
  V_igmp(ifp.if_vnet).reporter.attach(ifp);
}

/** Ends IGMP on an interface. All members have left. @see sys/netinet/igmp.c */
export function igmp_domifdetach(ifp: Ifnet): void {
  V_igmp(ifp.if_vnet).reporter.detach(ifp);
}

/** Stops the timer. Called when the stack is destroyed. */
export function igmpStop(vnet: Vnet): void {
  V_igmp(vnet).reporter.stop();
}

/** Sends the IGMP message `body` to `dst`, with its checksum. Reports that fail are not repeated. */
function send(ifp: Ifnet, dst: InAddr, body: Uint8Array): void {
  const { if_vnet: vnet } = ifp;
  if (!answersForAddresses(vnet)) return;
  const { params, stat } = V_igmp(vnet);
  const len = Ip.SIZE + body.length;
  const small = max_linkhdr + RAOPT_LEN + len <= MHLEN;
  const m = small ? m_gethdr(M_NOWAIT, MT_DATA) : m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR);
  if (m === null) return count(R_IP_NOBUFS);
  m.m_data += max_linkhdr + RAOPT_LEN;
  m.m_len = m.m_pkthdr.len = len;
  const p = mtod(m);
  mem.set(body, p + Ip.SIZE);
  memView.setUint16(p + Ip.SIZE + 2, in_cksum_skip(m, len, Ip.SIZE));
  $ip.at(p);
  $ip.ip_vhl = 0x45;
  $ip.ip_tos = IPTOS_PREC_INTERNETCONTROL;
  $ip.ip_len = len;
  $ip.ip_off = 0;
  $ip.ip_ttl = 1;
  $ip.ip_p = IPPROTO_IGMP;
  $ip.ip_src = 0 as InAddr;
  $ip.ip_dst = dst;
  $imo.imo_multicast_ifp = ifp;
  stat.igps_snd_reports++;
  ip_output(m, null, 0, vnet, params.sendra ? $raopt : null, $imo);
}

/** A message of version 1 or 2. */
function oldMessage(type: number, group: AddrWords): Uint8Array {
  const body = new Uint8Array(IGMP_MINLEN);
  body[0] = type;
  new DataView(body.buffer).setInt32(4, group.w0);
  return body;
}

/** The reports of version 3. */
const format: ReportFormat = {
  type: IGMP_v3_HOST_MEMBERSHIP_REPORT,
  addrLen: 4,
  put: (view, off, a) => view.setInt32(off, a.w0),
};

/** IGMP's packets, for in_report.ts. */
function igmpWire(vnet: Vnet, { params }: IgmpVnet): ReportWire {
  return {
    newest: IGMP_VERSION_3,
    defaultVersion: () => params.default_version,
    enabled: (version) => (version === IGMP_VERSION_1 ? params.v1enable : params.v2enable),
    reported(group): boolean {
      const addr = inAddrOf(group);
      if (addr === INADDR_ALLHOSTS_GROUP) return false;
      return params.sendlocal || !IN_LOCAL_GROUP(addr);
    },
    maxgrpsrc: () => V_ip(vnet).mcast.maxgrpsrc,
    gsrdelay: () => params.gsrdelay,
    useAllow: () => false,
    mapGroup: (group, ll_addr) => ETHER_MAP_IP_MULTICAST(inAddrOf(group), ll_addr),
    sendReport(ifp, version, group): void {
      const v1 = version === IGMP_VERSION_1;
      const type = v1 ? IGMP_v1_HOST_MEMBERSHIP_REPORT : IGMP_v2_HOST_MEMBERSHIP_REPORT;
      send(ifp, inAddrOf(group), oldMessage(type, group));
    },
    sendLeave(ifp, version, group): void {
      if (version !== IGMP_VERSION_2) return;
      send(ifp, INADDR_ALLRTRS_GROUP, oldMessage(IGMP_HOST_LEAVE_MESSAGE, group));
    },
    sendRecords(ifp, records): void {
      const room = Math.min(ifp.if_mtu, REPORT_MAX) - Ip.SIZE - RAOPT_LEN;
      const writer = new ReportWriter(format, room, (body) =>
        send(ifp, INADDR_ALLRPTS_GROUP, body),
      );
      for (const record of records) writer.add(record);
      writer.flush();
    },
  };
}

function drop(m: Mbuf, why: Reason): void {
  countDrop(m, why, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
}

const $group = inNetAddr(0 as InAddr);

/** The group `addr` of the link, with its state, or null. */
function groupOf(link: ReportLink, addr: InAddr): ReturnType<typeof inm_lookup> {
  $group.set(addr);
  return inm_lookup(link, $group);
}

/** A query of version 1 or 2. `code`: its maximum response time, 0 in version 1. */
function oldQuery(link: ReportLink, dst: InAddr, group: InAddr, code: number, v: IgmpVnet): void {
  const { stat, params } = v;
  stat.igps_rcv_v1v2_queries++;
  const version = code === 0 ? IGMP_VERSION_1 : IGMP_VERSION_2;
  if (!(code === 0 ? params.v1enable : params.v2enable)) return countInputDrop(R_IGMP_IGNORED);
  const general = group === 0;
  if (dst !== INADDR_ALLHOSTS_GROUP && (general || code === 0)) {
    if (code === 0) stat.igps_rcv_badqueries++;
    return countInputDrop(R_IGMP_IGNORED);
  }
  if (code === 0 && !general) {
    stat.igps_rcv_badqueries++;
    return countInputDrop(R_IGMP_IGNORED);
  }
  if (general) stat.igps_rcv_gen_queries++;
  else stat.igps_rcv_group_queries++;
  if ((link.ifp.if_flags & IFF_LOOPBACK) !== 0 || !link.olderQuerier(version)) return;
  const ticks = code === 0 ? IGMP_V1V2_MAX_RI * PR_FASTHZ : ticksOf(code, IGMP_TIMER_SCALE);
  if (general) {
    for (const inm of link.groups.list()) link.oldQuery(inm, ticks);
    return;
  }
  const inm = groupOf(link, group);
  if (inm !== null) link.oldQuery(inm, ticks);
}

/** A query of version 3, of `len` bytes at offset `hlen` of `m`. */
function newQuery(link: ReportLink, m: Mbuf, hlen: number, len: number, v: IgmpVnet): void {
  const { stat } = v;
  stat.igps_rcv_v3_queries++;
  const p = mtod(m) + hlen;
  const group = memView.getInt32(p + 4) as InAddr;
  const nsrc = memView.getUint16(p + 10);
  if (IGMP_V3_QUERY_MINLEN + 4 * nsrc > len) {
    stat.igps_rcv_tooshort++;
    return countInputDrop(R_IGMP_SHORT);
  }
  const maxresp = codeValue(mem[p + 1]!);
  const qrv = mem[p + 8]! & 7;
  const general = group === 0;
  if (general) {
    stat.igps_rcv_gen_queries++;
    if (nsrc > 0 || $ip.at(mtod(m)).ip_dst !== INADDR_ALLHOSTS_GROUP) {
      stat.igps_rcv_badqueries++;
      return countInputDrop(R_IGMP_IGNORED);
    }
  } else if (nsrc === 0) {
    stat.igps_rcv_group_queries++;
  } else {
    stat.igps_rcv_gsr_queries++;
  }
  if ((link.ifp.if_flags & IFF_LOOPBACK) !== 0 || link.version !== IGMP_VERSION_3) return;
  // RFC 3376, 4.1.6: a value below 2 is not usable.
  if (qrv >= 2) link.rv = qrv;
  else link.resetRobustness();
  link.qi = codeValue(mem[p + 9]!);
  link.qri = Math.ceil(maxresp / IGMP_TIMER_SCALE);
  const ticks = ticksOf(maxresp, IGMP_TIMER_SCALE);
  if (general) return link.generalQuery(ticks);
  const inm = groupOf(link, group);
  if (inm === null) return;
  if (nsrc > 0 && !link.mayAsk(inm)) {
    stat.igps_drop_gsr_queries++;
    return countInputDrop(R_IGMP_IGNORED);
  }
  if (link.answersBefore(ticks)) return;
  if (nsrc === 0) return link.groupQuery(inm, ticks);
  const sources = readSources(m, hlen + IGMP_V3_QUERY_MINLEN, 4 * nsrc);
  link.sourceQuery(inm, ticks, nsrc, (i) => {
    $group.set(sources.getInt32(4 * i));
    return $group;
  });
}

/** Another host's report of version 1 or 2. */
function report(link: ReportLink, src: InAddr, dst: InAddr, group: InAddr, v: IgmpVnet): void {
  const { stat, params } = v;
  stat.igps_rcv_reports++;
  const { ifp } = link;
  if ((ifp.if_flags & IFF_LOOPBACK) !== 0) return;
  const own = inPrimary(ifp);
  // Our own report came back.
  if (own !== null && src === own.ia_addr) return;
  if (!IN_MULTICAST(group) || group !== dst) {
    stat.igps_rcv_badreports++;
    return countInputDrop(R_IGMP_IGNORED);
  }
  const inm = groupOf(link, group);
  if (inm === null) return;
  // Without recvifkludge a source of 0.0.0.0 cannot be attributed to this network.
  if (src === 0 && !params.recvifkludge) return countInputDrop(R_IGMP_IGNORED);
  stat.igps_rcv_ourreports++;
  link.otherReport(inm, params.legacysupp);
}

/**
 * Input of an IGMP message. `m0` starts at a contiguous IP header of `hlen` bytes. Takes `m0`.
 * @see sys/netinet/igmp.c
 */
function igmp_input(m0: Mbuf, hlen: number, vnet: Vnet): void {
  const v = V_igmp(vnet);
  const { stat, params } = v;
  stat.igps_rcv_total++;
  const len = $ip.at(mtod(m0)).ip_len - hlen;
  const want = hlen + (len >= IGMP_V3_QUERY_MINLEN ? IGMP_V3_QUERY_MINLEN : IGMP_MINLEN);
  const m = len < IGMP_MINLEN || m0.m_len >= want ? m0 : pullupInput(m0, want, R_IP_NOBUFS);
  if (m === null) return;
  inputSubject(m);
  if (len < IGMP_MINLEN) {
    stat.igps_rcv_tooshort++;
    return drop(m, R_IGMP_SHORT);
  }
  if (in_cksum_skip(m, hlen + len, hlen) !== 0) {
    stat.igps_rcv_badsum++;
    return drop(m, R_IGMP_SUM);
  }
  $ip.at(mtod(m));
  if ($ip.ip_ttl !== 1) {
    stat.igps_rcv_badttl++;
    return drop(m, R_IGMP_IGNORED);
  }
  const link = v.reporter.links.get(m.m_pkthdr.rcvif as Ifnet);
  if (link === undefined) return m_freem(m);
  const p = kva(mtod(m) + hlen);
  const group = memView.getInt32(p + 4) as InAddr;
  const { ip_src: src, ip_dst: dst } = $ip;
  switch (mem[p]!) {
    case IGMP_HOST_MEMBERSHIP_QUERY:
      if (len === IGMP_MINLEN) {
        oldQuery(link, dst, group, mem[p + 1]!, v);
      } else if (len >= IGMP_V3_QUERY_MINLEN) {
        newQuery(link, m, hlen, len, v);
      } else {
        stat.igps_rcv_tooshort++;
        countInputDrop(R_IGMP_SHORT);
      }
      break;
    case IGMP_v1_HOST_MEMBERSHIP_REPORT:
      if (params.v1enable) report(link, src, dst, group, v);
      break;
    case IGMP_v2_HOST_MEMBERSHIP_REPORT:
      if (!params.v2enable) break;
      if (!ip_checkrouteralert(mtod(m), hlen)) stat.igps_rcv_nora++;
      report(link, src, dst, group, v);
      break;
    case IGMP_v3_HOST_MEMBERSHIP_REPORT:
      if (!ip_checkrouteralert(mtod(m), hlen)) stat.igps_rcv_nora++;
      break;
    default:
      countInputDrop(R_IGMP_IGNORED);
  }
  m_freem(m);
}

/** IGMP's entry in IP's protocol table. */
export const igmpProto: IpProto = { input: igmp_input, ctlinput(): void {} };
