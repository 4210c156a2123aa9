/**
 * `netstat -s`, after usr.bin/netstat/inet.c and if.c: per-protocol counts with FreeBSD's texts,
 * for the fields that the stack counts, then tapnic's reasons from src/sys/reason.ts.
 */

import { reasonCounts } from '../sys/reason.ts';
import { tcpstates } from '../netinet/tcp_fsm.ts';
import { ICMP6, ICMP6_TYPES, IP6, IP6_HEADERS, type Line } from './netstat_s6.ts';

/** Fields with FreeBSD's names; arrays are histograms by message type. */
export type ProtocolStat = Record<string, number | number[]>;

/** The output of `netstat -s --json`. */
export interface NetstatS {
  protocols: Record<string, ProtocolStat>;
  reasons: { layer: string; reason: string; count: number }[];
}

/** Copies the numbers of a statistics object, e.g. a `struct tcpstat`. */
export function statFields(stat: object): ProtocolStat {
  const fields: ProtocolStat = {};
  for (const [name, value] of Object.entries(stat) as [string, unknown][]) {
    if (typeof value === 'number') fields[name] = value;
    else if (ArrayBuffer.isView(value) && !(value instanceof DataView))
      fields[name] = Array.from(value as Int32Array | Float64Array);
    else if (Array.isArray(value) && value.every((v) => typeof v === 'number'))
      fields[name] = [...value];
  }
  return fields;
}

/** Collects the report from the statistics of one Vnet's protocols, by name. */
export function gatherNetstatS(stats: Record<string, object>): NetstatS {
  return {
    protocols: Object.fromEntries(
      Object.entries(stats).map(([name, stat]) => [name, statFields(stat)]),
    ),
    reasons: reasonCounts(),
  };
}

const TCP: readonly Line[] = [
  ['\t# packet~ sent', 'tcps_sndtotal'],
  ['\t\t# data packet~ (# byte~)', 'tcps_sndpack', 'tcps_sndbyte'],
  ['\t\t# data packet~ (# byte~) retransmitted', 'tcps_sndrexmitpack', 'tcps_sndrexmitbyte'],
  ['\t\t# data packet~ unnecessarily retransmitted', 'tcps_sndrexmitbad'],
  ['\t\t# resend~ initiated by MTU discovery', 'tcps_mturesent'],
  ['\t\t# ack-only packet~ (# delayed)', 'tcps_sndacks', 'tcps_delack'],
  ['\t\t# URG only packet~', 'tcps_sndurg'],
  ['\t\t# window probe packet~', 'tcps_sndprobe'],
  ['\t\t# window update packet~', 'tcps_sndwinup'],
  ['\t\t# control packet~', 'tcps_sndctrl'],
  ['\t# packet~ received', 'tcps_rcvtotal'],
  ['\t\t# ack~ (for # byte~)', 'tcps_rcvackpack', 'tcps_rcvackbyte'],
  ['\t\t# duplicate ack~', 'tcps_rcvdupack'],
  ['\t\t# ack~ for unsent data', 'tcps_rcvacktoomuch'],
  ['\t\t# packet~ (# byte~) received in-sequence', 'tcps_rcvpack', 'tcps_rcvbyte'],
  ['\t\t# completely duplicate packet~ (# byte~)', 'tcps_rcvduppack', 'tcps_rcvdupbyte'],
  ['\t\t# old duplicate packet~', 'tcps_pawsdrop'],
  [
    '\t\t# packet~ with some dup. data (# byte~ duped)',
    'tcps_rcvpartduppack',
    'tcps_rcvpartdupbyte',
  ],
  ['\t\t# out-of-order packet~ (# byte~)', 'tcps_rcvoopack', 'tcps_rcvoobyte'],
  ['\t\t# packet~ (# byte~) of data after window', 'tcps_rcvpackafterwin', 'tcps_rcvbyteafterwin'],
  ['\t\t# window probe~', 'tcps_rcvwinprobe'],
  ['\t\t# window update packet~', 'tcps_rcvwinupd'],
  ['\t\t# packet~ received after close', 'tcps_rcvafterclose'],
  ['\t\t# discarded for bad checksum~', 'tcps_rcvbadsum'],
  ['\t\t# discarded for bad header offset field~', 'tcps_rcvbadoff'],
  ['\t\t# discarded because packet too short', 'tcps_rcvshort'],
  ['\t\t# discarded due to full reassembly queue', 'tcps_rcvreassfull'],
  ['\t# connection request~', 'tcps_connattempt'],
  ['\t# connection accept~', 'tcps_accepts'],
  ['\t# bad connection attempt~', 'tcps_badsyn'],
  ['\t# listen queue overflow~', 'tcps_listendrop'],
  ['\t# ignored RSTs in the window~', 'tcps_badrst'],
  ['\t# connection~ established (including accepts)', 'tcps_connects'],
  ['\t# connection~ closed (including # drop~)', 'tcps_closed', 'tcps_drops'],
  ['\t# embryonic connection~ dropped', 'tcps_conndrops'],
  ['\t# segment~ updated rtt (of # attempt~)', 'tcps_rttupdated', 'tcps_segstimed'],
  ['\t# retransmit timeout~', 'tcps_rexmttimeo'],
  ['\t\t# connection~ dropped by rexmit timeout', 'tcps_timeoutdrop'],
  ['\t# persist timeout~', 'tcps_persisttimeo'],
  ['\t\t# connection~ dropped by persist timeout', 'tcps_persistdrop'],
  ['\t# Connection~ (fin_wait_2) dropped because of timeout', 'tcps_finwait2_drops'],
  ['\t# keepalive timeout~', 'tcps_keeptimeo'],
  ['\t\t# keepalive probe~ sent', 'tcps_keepprobe'],
  ['\t\t# connection~ dropped by keepalive', 'tcps_keepdrops'],
  ['\t# correct ACK header prediction~', 'tcps_predack'],
  ['\t# correct data packet header prediction~', 'tcps_preddat'],
  ['\t# syncache entr~y,ies~ added', 'tcps_sc_added'],
  ['\t\t# retransmitted', 'tcps_sc_retransmitted'],
  ['\t\t# dupsyn', 'tcps_sc_dupsyn'],
  ['\t\t# dropped', 'tcps_sc_dropped'],
  ['\t\t# completed', 'tcps_sc_completed'],
  ['\t\t# bucket overflow', 'tcps_sc_bucketoverflow'],
  ['\t\t# cache overflow', 'tcps_sc_cacheoverflow'],
  ['\t\t# reset', 'tcps_sc_reset'],
  ['\t\t# stale', 'tcps_sc_stale'],
  ['\t\t# aborted', 'tcps_sc_aborted'],
  ['\t\t# badack', 'tcps_sc_badack'],
  ['\t\t# unreach', 'tcps_sc_unreach'],
  ['\t\t# zone failure~', 'tcps_sc_zonefail'],
  ['\t# cookie~ sent', 'tcps_sc_sendcookie'],
  ['\t# cookie~ received', 'tcps_sc_recvcookie'],
  ['\t# invalid cookie~ received', 'tcps_sc_failcookie'],
  ['\t# SACK recovery episode~', 'tcps_sack_recovery_episode'],
  ['\t\t# segment rexmit~ in SACK recovery episodes', 'tcps_sack_rexmits'],
  ['\t\t# byte rexmit~ in SACK recovery episodes', 'tcps_sack_rexmit_bytes'],
  ['\t# SACK block~ received', 'tcps_sack_rcv_blocks'],
  ['\t# SACK option~ (SACK blocks) sent', 'tcps_sack_send_blocks'],
  ['\t# SACK retransmission~ lost', 'tcps_sack_lostrexmits'],
  ['\t# SACK scoreboard overflow', 'tcps_sack_sboverflow'],
  ['\t# D-SACK block~ (# byte~) received', 'tcps_dsack_count', 'tcps_dsack_bytes'],
  ['\t# packet~ with ECN CE bit set', 'tcps_ecn_rcvce'],
  ['\t# packet~ with ECN ECT(0) bit set', 'tcps_ecn_ect0'],
  ['\t# packet~ with ECN ECT(1) bit set', 'tcps_ecn_ect1'],
  ['\t# successful ECN handshake~', 'tcps_ecn_shs'],
  ['\t# time~ ECN reduced the congestion window', 'tcps_ecn_rcwnd'],
  ['\t# Fast Open SYN~ whose data the peer acknowledged', 'tcps_tfo_active'],
  ['\t# Fast Open connection~ accepted', 'tcps_tfo_passive'],
  ['\t# path~ on which Fast Open was disabled', 'tcps_tfo_disabled'],
  ['\tTCP connection count by state:', 'states'],
];

const UDP: readonly Line[] = [
  ['\t# datagram~ received', 'udps_ipackets'],
  ['\t# with incomplete header', 'udps_hdrops'],
  ['\t# with bad data length field', 'udps_badlen'],
  ['\t# with bad checksum', 'udps_badsum'],
  ['\t# with no checksum', 'udps_nosum'],
  ['\t# dropped due to no socket', 'udps_noport'],
  ['\t# broadcast/multicast datagram~ undelivered', 'udps_noportbcast'],
  ['\t# dropped due to full socket buffers', 'udps_fullsock'],
  ['\t# not for hashed pcb', 'udps_pcbhashmiss'],
  ['\t# datagram~ output', 'udps_opackets'],
];

const IP: readonly Line[] = [
  ['\t# total packet~ received', 'ips_total'],
  ['\t# bad header checksum~', 'ips_badsum'],
  ['\t# with size smaller than minimum', 'ips_toosmall'],
  ['\t# with data size < data length', 'ips_tooshort'],
  ['\t# with ip length > max ip packet size', 'ips_toolong'],
  ['\t# with header length < data size', 'ips_badhlen'],
  ['\t# with data length < header length', 'ips_badlen'],
  ['\t# with bad options', 'ips_badoptions'],
  ['\t# with incorrect version number', 'ips_badvers'],
  ['\t# fragment~ received', 'ips_fragments'],
  ['\t# fragment~ dropped (dup or out of space)', 'ips_fragdropped'],
  ['\t# fragment~ dropped after timeout', 'ips_fragtimeout'],
  ['\t# packet~ reassembled ok', 'ips_reassembled'],
  ['\t# packet~ for this host', 'ips_delivered'],
  ['\t# packet~ for unknown/unsupported protocol', 'ips_noproto'],
  ['\t# packet~ forwarded (# packet~ fast forwarded)', 'ips_forward', 'ips_fastforward'],
  ['\t# packet~ not forwardable', 'ips_cantforward'],
  ['\t# packet~ received for unknown multicast group', 'ips_notmember'],
  ['\t# redirect~ sent', 'ips_redirectsent'],
  ['\t# packet~ sent from this host', 'ips_localout'],
  ['\t# packet~ sent with fabricated ip header', 'ips_rawout'],
  ['\t# output packet~ dropped due to no bufs, etc.', 'ips_odropped'],
  ['\t# output packet~ discarded due to no route', 'ips_noroute'],
  ['\t# output datagram~ fragmented', 'ips_fragmented'],
  ['\t# fragment~ created', 'ips_ofragments'],
  ["\t# datagram~ that can't be fragmented", 'ips_cantfrag'],
  ["\t# tunneling packet~ that can't find gif", 'ips_nogif'],
  ['\t# datagram~ with bad address in header', 'ips_badaddr'],
];

const ICMP: readonly Line[] = [
  ['\t# call~ to icmp_error', 'icps_error'],
  ['\t# error~ not generated in response to an icmp message', 'icps_oldicmp'],
  ['\tOutput histogram:', 'icps_outhist'],
  ['\t# message~ with bad code fields', 'icps_badcode'],
  ['\t# message~ less than the minimum length', 'icps_tooshort'],
  ['\t# message~ with bad checksum', 'icps_checksum'],
  ['\t# message~ with bad length', 'icps_badlen'],
  ['\t# multicast echo requests ignored', 'icps_bmcastecho'],
  ['\t# multicast timestamp requests ignored', 'icps_bmcasttstamp'],
  ['\tInput histogram:', 'icps_inhist'],
  ['\t# message response~ generated', 'icps_reflect'],
  ['\t# invalid return address~,es~', 'icps_badaddr'],
  ['\t# no return route~', 'icps_noroute'],
];

const IGMP: readonly Line[] = [
  ['\t# message~ received', 'igps_rcv_total'],
  ['\t# message~ received with too few bytes', 'igps_rcv_tooshort'],
  ['\t# message~ received with wrong TTL', 'igps_rcv_badttl'],
  ['\t# message~ received with bad checksum', 'igps_rcv_badsum'],
  ['\t# V1/V2 membership quer~y,ies~ received', 'igps_rcv_v1v2_queries'],
  ['\t# V3 membership quer~y,ies~ received', 'igps_rcv_v3_queries'],
  ['\t# membership quer~y,ies~ received with invalid field(s)', 'igps_rcv_badqueries'],
  ['\t# general quer~y,ies~ received', 'igps_rcv_gen_queries'],
  ['\t# group quer~y,ies~ received', 'igps_rcv_group_queries'],
  ['\t# group-source quer~y,ies~ received', 'igps_rcv_gsr_queries'],
  ['\t# group-source quer~y,ies~ dropped', 'igps_drop_gsr_queries'],
  ['\t# membership report~ received', 'igps_rcv_reports'],
  ['\t# membership report~ received with invalid field(s)', 'igps_rcv_badreports'],
  ['\t# membership report~ received for groups to which we belong', 'igps_rcv_ourreports'],
  ['\t# V3 report~ received without Router Alert', 'igps_rcv_nora'],
  ['\t# membership report~ sent', 'igps_snd_reports'],
];

// FreeBSD counts nothing of MLD; the texts follow those of IGMP.
const MLD: readonly Line[] = [
  ['\t# message~ received', 'rcvTotal'],
  ['\t# message~ received with too few bytes', 'rcvTooShort'],
  ['\t# message~ received with wrong hop limit', 'rcvBadHlim'],
  ['\t# message~ received without Router Alert', 'rcvNoRa'],
  ['\t# V1 listener quer~y,ies~ received', 'rcvV1Queries'],
  ['\t# V2 listener quer~y,ies~ received', 'rcvV2Queries'],
  ['\t# listener quer~y,ies~ received with invalid field(s)', 'rcvBadQueries'],
  ['\t# general quer~y,ies~ received', 'rcvGenQueries'],
  ['\t# group quer~y,ies~ received', 'rcvGroupQueries'],
  ['\t# group-source quer~y,ies~ received', 'rcvGsrQueries'],
  ['\t# group-source quer~y,ies~ dropped', 'dropGsrQueries'],
  ['\t# listener report~ received', 'rcvReports'],
  ['\t# listener report~ received with invalid field(s)', 'rcvBadReports'],
  ['\t# listener report~ received for groups to which we belong', 'rcvOurReports'],
  ['\t# listener report~ sent', 'sndReports'],
];

const ARP: readonly Line[] = [
  ['\t# ARP request~ sent', 'txrequests'],
  ['\t# ARP repl~y,ies~ sent', 'txreplies'],
  ['\t# ARP request~ received', 'rxrequests'],
  ['\t# ARP repl~y,ies~ received', 'rxreplies'],
  ['\t# ARP packet~ received', 'received'],
  ['\t# total packet~ dropped due to no ARP entry', 'dropped'],
  ['\t# ARP entr~y,ies~ timed out', 'timeouts'],
  ['\t# Duplicate IP~ seen', 'dupips'],
];

/** Of an instance with several workers. Not FreeBSD's. */
const WORKERS: readonly Line[] = [
  ['\t# frame~ of other workers handed over', 'handedOver'],
  ['\t# frame~ lost because the inbox of a worker was full', 'handoverFull'],
  ['\t# frame~ received from other workers', 'received'],
];

const TABLES: Record<string, readonly Line[]> = {
  tcp: TCP,
  udp: UDP,
  ip: IP,
  icmp: ICMP,
  igmp: IGMP,
  mld: MLD,
  arp: ARP,
  ip6: IP6,
  icmp6: ICMP6,
  workers: WORKERS,
};

/** Message names of the histograms, by ICMP type. */
const ICMP_TYPES: Record<number, string> = {
  0: 'echo reply',
  3: 'destination unreachable',
  4: 'source quench',
  5: 'routing redirect',
  8: 'echo',
  9: 'router advertisement',
  10: 'router solicitation',
  11: 'time exceeded',
  12: 'parameter problem',
  13: 'time stamp',
  14: 'time stamp reply',
  15: 'information request',
  16: 'information request reply',
  17: 'address mask request',
  18: 'address mask reply',
};

/** Names in the histograms of a protocol, by number. */
const HISTOGRAM_NAMES: Record<string, Record<number, string>> = {
  icmp: ICMP_TYPES,
  icmp6: ICMP6_TYPES,
  ip6: IP6_HEADERS,
};

function histogram(
  name: string,
  head: string,
  counts: readonly number[],
  hideZeros: boolean,
): string[] {
  if (name === 'tcp') {
    const rows = counts.flatMap((n, state) =>
      n === 0 && hideZeros
        ? []
        : [`\t\t${n} connection${n === 1 ? '' : 's'} in ${tcpstates[state] ?? state} state`],
    );
    return [head, ...rows];
  }
  const rows = counts.flatMap((n, type) =>
    n === 0 ? [] : [`\t\t${HISTOGRAM_NAMES[name]?.[type] ?? `#${type}`}: ${n}`],
  );
  return rows.length === 0 ? [] : [head, ...rows];
}

function lineText([text, ...fields]: Line, values: readonly number[]): string {
  let next = 0;
  let last = 0;
  const filled = text.replace(
    /#|~(?:([^~, ]*),([^~, ]*)~)?/g,
    (token, one?: string, many?: string) => {
      if (token === '#') {
        last = values[next++]!;
        return String(last);
      }
      return last === 1 ? (one ?? '') : (many ?? 's');
    },
  );
  return next === fields.length ? filled : '';
}

function protocolText(name: string, stat: ProtocolStat, hideZeros: boolean): string[] {
  const lines: string[] = [`${name}:`];
  for (const line of TABLES[name] ?? []) {
    const [text, ...fields] = line;
    const values = fields.map((field) => stat[field]);
    const counts = values[0];
    if (Array.isArray(counts)) lines.push(...histogram(name, text, counts, hideZeros));
    // Omit a line whose fields the stack does not count: a zero would be wrong.
    else if (!values.every((v) => typeof v === 'number')) continue;
    // A line without a field is a heading.
    else if (!hideZeros || values.length === 0 || values.some((v) => v !== 0))
      lines.push(lineText(line, values));
  }
  return lines;
}

/** @param hideZeros as with `netstat -ss` */
export function formatNetstatS(s: NetstatS, hideZeros: boolean): string {
  const lines = Object.entries(s.protocols).flatMap(([name, stat]) =>
    protocolText(name, stat, hideZeros),
  );
  const reasons = s.reasons.filter(({ count }) => count !== 0);
  if (reasons.length > 0)
    lines.push(
      "reasons (tapnic's own, those that occurred):",
      ...reasons.map(({ layer, reason, count }) => `\t${count} ${layer}: ${reason}`),
    );
  return lines.map((line) => `${line}\n`).join('');
}
