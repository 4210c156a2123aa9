/**
 * Explicit congestion notification, after sys/netinet/tcp_ecn.c: RFC 3168, section 6.1, and accurate
 * ECN, RFC 9768. The handshake negotiates one of the two. Data we send is marked ECN-capable. With
 * RFC 3168, a received CE mark is echoed with ECE until the peer confirms with CWR that it has reduced
 * its window. With accurate ECN, the flags AE, CWR and ECE are one field, ACE: the number of CE marks
 * received, modulo 8. Left out: the option of accurate ECN, ECN++ on SYN-ACKs.
 */

import { TH_ACK, TH_AE, TH_CWR, TH_ECE, TH_SYN } from './tcp.ts';
import { SEQ_GEQ, SEQ_GT, seqDiff } from './tcp_seq.ts';
import { CC_ECN, cc_cong_signal } from './cc.ts';
import {
  type Tcpcb,
  type TcpSegment,
  type TcpVnet,
  TF_ACKNOW,
  TF_FASTOPEN,
  TF2_ACE_PERMIT,
  TF2_ECN_PERMIT,
  TF2_ECN_SND_CWR,
  TF2_ECN_SND_ECE,
} from './tcp_var.ts';
import { TCPS_SYN_RECEIVED } from './tcp_fsm.ts';

// The ECN field of the IP header, RFC 3168, section 5.
const IPTOS_ECN_ECT1 = 1;
export const IPTOS_ECN_ECT0 = 2;
const IPTOS_ECN_CE = 3;
export const IPTOS_ECN_MASK = 3;

// Values of the flags AE, CWR and ECE, read as a number of three bits, in a handshake.
const ACE_NONE = 0;
/** A SYN-ACK that accepts RFC 3168. */
const ACE_CLASSIC = 1;
/** A SYN that requests RFC 3168. */
const ACE_REQUEST_CLASSIC = 3;
/** A SYN-ACK, or the ACK of one, whose packet arrived with CE. */
const ACE_CE = 6;
/** A SYN that requests accurate ECN. */
const ACE_REQUEST = 7;
/** Reports the ECN field of a SYN or SYN-ACK, which is the index: RFC 9768, 3.1. */
const ACE_OF_ECN: readonly number[] = [2, 3, 4, ACE_CE];
/** First value of the counter of CE marks. */
const CEP_INIT = 5;

/** The flags AE, CWR and ECE as a number. @see sys/netinet/tcp_ecn.c */
function tcp_ecn_get_ace(flags: number): number {
  return (
    ((flags & TH_ECE) !== 0 ? 1 : 0) |
    ((flags & TH_CWR) !== 0 ? 2 : 0) |
    ((flags & TH_AE) !== 0 ? 4 : 0)
  );
}

/** The flags (TH_*) whose number is `ace`. */
function flagsOfAce(ace: number): number {
  return (
    ((ace & 1) !== 0 ? TH_ECE : 0) | ((ace & 2) !== 0 ? TH_CWR : 0) | ((ace & 4) !== 0 ? TH_AE : 0)
  );
}

/** First value of the counter after a handshake packet that `ace` describes. */
const firstCep = (ace: number): number => (ace === ACE_CE ? CEP_INIT + 1 : CEP_INIT);

/**
 * The answer to the SYN in `seg`, as a number of the flags of the SYN-ACK; 0: no ECN. Values 3 and 4 of
 * net.inet.tcp.ecn.enable accept accurate ECN. @see sys/netinet/tcp_ecn.c
 */
export function tcp_ecn_syncache_add(tcp: TcpVnet, seg: TcpSegment): number {
  const { ecn_enable } = tcp.params;
  const ace = tcp_ecn_get_ace(seg.flags);
  if (ecn_enable === 0 || ace === ACE_NONE) return ACE_NONE;
  if (ace === ACE_REQUEST_CLASSIC) return ACE_CLASSIC;
  // RFC 9768, 3.1.3: an undefined value requests accurate ECN.
  if (ecn_enable >= 3) return ACE_OF_ECN[seg.ecn]!;
  return ace === ACE_REQUEST ? ACE_CLASSIC : ACE_NONE;
}

/** Whether a repeated SYN with `flags` still requests ECN. */
export const ecnRequested = (flags: number): boolean =>
  (flags & (TH_ECE | TH_CWR)) === (TH_ECE | TH_CWR);

/** The ECN flags of a SYN-ACK that answers with `reply`. @see sys/netinet/tcp_ecn.c */
export function tcp_ecn_syncache_respond(reply: number): number {
  return flagsOfAce(reply);
}

/**
 * Sets up a connection whose SYN-ACK answered with `reply`. Fast Open sends that SYN-ACK later, and
 * always with RFC 3168. @see sys/netinet/tcp_ecn.c
 */
export function tcp_ecn_syncache_socket(tp: Tcpcb, reply: number): void {
  if (reply === ACE_NONE) return;
  if (reply === ACE_CLASSIC) {
    tp.t_flags2 |= TF2_ECN_PERMIT;
    return;
  }
  tp.t_flags2 |= TF2_ACE_PERMIT;
  tp.t_scep = CEP_INIT;
  tp.t_rcep = firstCep(reply);
}

/** Uses RFC 3168 instead of accurate ECN for a SYN that is answered with Fast Open. */
export const withoutAce = (reply: number): number => (reply === ACE_NONE ? reply : ACE_CLASSIC);

/** Enables accurate ECN; the next segment reports the ECN field of `seg`. */
function aceAgreed(tp: Tcpcb, seg: TcpSegment): void {
  tp.t_flags2 |= TF2_ACE_PERMIT;
  tp.t_rcep = ACE_OF_ECN[seg.ecn]!;
  tp.t_tcp.stat.tcps_ecn_shs++;
}

/** Enables ECN if we requested it and the peer's SYN-ACK accepts it. @see sys/netinet/tcp_ecn.c */
export function tcp_ecn_input_syn_sent(tp: Tcpcb, seg: TcpSegment): void {
  const { ecn_enable } = tp.t_tcp.params;
  if ((seg.flags & TH_ACK) === 0) {
    tcp_ecn_input_parallel_syn(tp, seg);
    return;
  }
  // Unlike FreeBSD: values 2 and 4 do not request ECN, so no SYN-ACK can accept it.
  if (ecn_enable !== 1 && ecn_enable !== 3) return;
  const ace = tcp_ecn_get_ace(seg.flags);
  if (ecn_enable === 1 ? (ace & 3) === ACE_CLASSIC : ace === ACE_CLASSIC) {
    tp.t_flags2 |= TF2_ECN_PERMIT;
    tp.t_tcp.stat.tcps_ecn_shs++;
  } else if (ecn_enable === 3 && ACE_OF_ECN.includes(ace)) {
    tp.t_scep = firstCep(ace);
    aceAgreed(tp, seg);
  }
}

/** The peer's SYN of a simultaneous open: our SYN-ACK accepts its ECN. @see sys/netinet/tcp_ecn.c */
function tcp_ecn_input_parallel_syn(tp: Tcpcb, seg: TcpSegment): void {
  const { ecn_enable } = tp.t_tcp.params;
  if (ecn_enable === 0 || !ecnRequested(seg.flags)) return;
  if (ecn_enable >= 3 && (seg.flags & TH_AE) !== 0) {
    tp.t_scep = CEP_INIT;
    aceAgreed(tp, seg);
    return;
  }
  tp.t_flags2 |= TF2_ECN_PERMIT | TF2_ECN_SND_ECE;
  tp.t_tcp.stat.tcps_ecn_shs++;
}

/**
 * Processes the ACE field. Returns whether the peer has received CE marks since the last segment. The
 * counter may have wrapped: as many of the newly acknowledged segments as possible count as marked.
 */
function aceInput(tp: Tcpcb, seg: TcpSegment): boolean {
  // A frame that the NIC coalesced is as many marked segments.
  if (seg.ecn === IPTOS_ECN_CE) tp.t_rcep = (tp.t_rcep + seg.nsegs) >>> 0;
  if ((seg.flags & TH_ACK) === 0 || SEQ_GT(seg.ack, tp.snd_max) || !SEQ_GEQ(seg.ack, tp.snd_una))
    return false;
  const ace = tcp_ecn_get_ace(seg.flags);
  if ((tp.t_flags2 & TF2_ECN_PERMIT) === 0 || tp.t_state === TCPS_SYN_RECEIVED) {
    // The last segment of the handshake reports how the one before it arrived.
    tp.t_scep = firstCep(ace);
    tp.t_flags2 |= TF2_ECN_PERMIT;
    return false;
  }
  const pkts = Math.ceil(seqDiff(seg.ack, tp.snd_una) / tp.t_maxseg);
  let delta = (ace - tp.t_scep) & 7;
  if (delta < pkts) delta = pkts - ((pkts - delta) & 7);
  tp.t_scep = (tp.t_scep + delta) >>> 0;
  tp.t_tcp.stat.tcps_ecn_ce += delta;
  return delta > 0;
}

/**
 * Processes the ECN field and flags of an acceptable segment of a synchronized connection: a CE
 * mark sets TF2_ECN_SND_ECE or is counted; marks that the peer reports reduce the window.
 * @see sys/netinet/tcp_ecn.c
 */
export function tcp_ecn_input_segment(tp: Tcpcb, seg: TcpSegment): void {
  const { stat } = tp.t_tcp;
  const classic = (tp.t_flags2 & TF2_ACE_PERMIT) === 0;
  // RFC 3168, 6.1.3: the peer has reduced its window, so stop sending ECE. A CE mark on this
  // segment sets it again. The immediate ACK shows the peer that its CWR has arrived.
  if (classic && (seg.flags & TH_CWR) !== 0) {
    tp.t_flags2 &= ~TF2_ECN_SND_ECE;
    tp.t_flags |= TF_ACKNOW;
  }
  switch (seg.ecn) {
    case IPTOS_ECN_CE:
      stat.tcps_ecn_rcvce++;
      if (classic) tp.t_flags2 |= TF2_ECN_SND_ECE;
      break;
    case IPTOS_ECN_ECT0:
      stat.tcps_ecn_ect0++;
      break;
    case IPTOS_ECN_ECT1:
      stat.tcps_ecn_ect1++;
      break;
    default:
      break;
  }
  if (!classic) {
    if (aceInput(tp, seg)) cc_cong_signal(tp, CC_ECN, seg.ack);
    return;
  }
  const echo = (seg.flags & (TH_ECE | TH_ACK | TH_SYN)) === (TH_ECE | TH_ACK);
  if (!echo || SEQ_GT(seg.ack, tp.snd_max) || !SEQ_GEQ(seg.ack, tp.snd_una)) return;
  stat.tcps_ecn_ce++;
  cc_cong_signal(tp, CC_ECN, seg.ack);
}

/**
 * ECN flags (TH_*) of our SYN. It requests ECN if net.inet.tcp.ecn.enable is 1, and accurate ECN if it is
 * 3, except after ecn_maxretries retransmissions.
 * @see sys/netinet/tcp_ecn.c
 */
export function tcp_ecn_output_syn_sent(tp: Tcpcb): number {
  const { ecn_enable, ecn_maxretries } = tp.t_tcp.params;
  // RFC 3168, 6.1.1.1: a middlebox may drop a SYN that requests ECN.
  if ((ecn_enable !== 1 && ecn_enable !== 3) || tp.t_rxtshift > ecn_maxretries) return 0;
  return flagsOfAce(ecn_enable === 1 ? ACE_REQUEST_CLASSIC : ACE_REQUEST);
}

/**
 * ECN flags (TH_*) of a segment other than our first SYN. `fresh`: it contains new data. Clears
 * TF2_ECN_SND_CWR when it sends CWR.
 * @see sys/netinet/tcp_ecn.c
 */
export function tcp_ecn_output_established(tp: Tcpcb, fresh: boolean): number {
  if ((tp.t_flags2 & TF2_ACE_PERMIT) !== 0) {
    const ace = tp.t_rcep & 7;
    if ((tp.t_flags2 & TF2_ECN_PERMIT) === 0) {
      tp.t_rcep = firstCep(ace);
      tp.t_flags2 |= TF2_ECN_PERMIT;
    }
    return flagsOfAce(ace);
  }
  let flags = 0;
  if ((tp.t_flags2 & TF2_ECN_SND_ECE) !== 0) flags |= TH_ECE;
  if (fresh && (tp.t_flags2 & TF2_ECN_SND_CWR) !== 0) {
    flags |= TH_CWR;
    tp.t_flags2 &= ~TF2_ECN_SND_CWR;
  }
  return flags;
}

/**
 * ECN flags (TH_*) of the SYN-ACK of a connection. As in FreeBSD, that of a simultaneous open accepts
 * RFC 3168 once, and its retransmissions do not.
 */
export function ecnSynAck(tp: Tcpcb): number {
  const fast = (tp.t_flags & TF_FASTOPEN) !== 0 && tp.t_state === TCPS_SYN_RECEIVED;
  if (fast) return (tp.t_flags2 & TF2_ECN_PERMIT) !== 0 ? TH_ECE : 0;
  const flags = tcp_ecn_output_established(tp, false);
  tp.t_flags2 &= ~TF2_ECN_SND_ECE;
  return flags;
}
