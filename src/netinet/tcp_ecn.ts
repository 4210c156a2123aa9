/**
 * Explicit congestion notification, after sys/netinet/tcp_ecn.c: RFC 3168, section 6.1. ECN is
 * negotiated in the handshake. Data we send is marked ECN-capable. A received CE mark is echoed
 * with ECE until the peer confirms with CWR that it has reduced its window. Left out: accurate ECN,
 * ECN++ on SYN-ACKs.
 */

import { TH_ACK, TH_CWR, TH_ECE, TH_SYN } from './tcp.ts';
import { SEQ_GEQ, SEQ_GT } from './tcp_seq.ts';
import { CC_ECN, cc_cong_signal } from './cc.ts';
import {
  type Tcpcb,
  type TcpSegment,
  type TcpVnet,
  TF_ACKNOW,
  TF2_ECN_PERMIT,
  TF2_ECN_SND_CWR,
  TF2_ECN_SND_ECE,
} from './tcp_var.ts';
import { TCPS_SYN_RECEIVED, TCPS_SYN_SENT } from './tcp_fsm.ts';

// The ECN field of the IP header, RFC 3168, section 5.
const IPTOS_ECN_ECT1 = 1;
export const IPTOS_ECN_ECT0 = 2;
const IPTOS_ECN_CE = 3;
export const IPTOS_ECN_MASK = 3;

/** Whether a SYN with `flags` requests ECN and we accept it (net.inet.tcp.ecn.enable is 1 or 2). */
export function ecnWanted(tcp: TcpVnet, flags: number): boolean {
  return tcp.params.ecn_enable !== 0 && (flags & (TH_ECE | TH_CWR)) === (TH_ECE | TH_CWR);
}

/** Enables ECN if we requested it and the peer's SYN-ACK accepts it. @see sys/netinet/tcp_ecn.c */
export function tcp_ecn_input_syn_sent(tp: Tcpcb, seg: TcpSegment): void {
  const agreed = (seg.flags & (TH_ECE | TH_CWR | TH_ACK)) === (TH_ECE | TH_ACK);
  if (!agreed || tp.t_tcp.params.ecn_enable !== 1) return;
  tp.t_flags2 |= TF2_ECN_PERMIT;
  tp.t_tcp.stat.tcps_ecn_shs++;
}

/**
 * Processes the ECN field and flags of an acceptable segment of a synchronized connection: a CE
 * mark sets TF2_ECN_SND_ECE; an ECE from the peer reduces the window.
 * @see sys/netinet/tcp_ecn.c
 */
export function tcp_ecn_input_segment(tp: Tcpcb, seg: TcpSegment): void {
  const { stat } = tp.t_tcp;
  // RFC 3168, 6.1.3: the peer has reduced its window, so stop sending ECE. A CE mark on this
  // segment sets it again. The immediate ACK shows the peer that its CWR has arrived.
  if ((seg.flags & TH_CWR) !== 0) {
    tp.t_flags2 &= ~TF2_ECN_SND_ECE;
    tp.t_flags |= TF_ACKNOW;
  }
  switch (seg.ecn) {
    case IPTOS_ECN_CE:
      stat.tcps_ecn_rcvce++;
      tp.t_flags2 |= TF2_ECN_SND_ECE;
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
  const echo = (seg.flags & (TH_ECE | TH_ACK | TH_SYN)) === (TH_ECE | TH_ACK);
  if (!echo || SEQ_GT(seg.ack, tp.snd_max) || !SEQ_GEQ(seg.ack, tp.snd_una)) return;
  stat.tcps_ecn_ce++;
  cc_cong_signal(tp, CC_ECN, seg.ack);
}

/**
 * ECN flags (TH_*) of our SYN or SYN-ACK. A SYN requests ECN if net.inet.tcp.ecn.enable is 1,
 * except after ecn_maxretries retransmissions.
 * @see sys/netinet/tcp_ecn.c
 */
export function tcp_ecn_output_syn_sent(tp: Tcpcb): number {
  const { params } = tp.t_tcp;
  if (tp.t_state === TCPS_SYN_RECEIVED) return (tp.t_flags2 & TF2_ECN_PERMIT) !== 0 ? TH_ECE : 0;
  // RFC 3168, 6.1.1.1: a middlebox may drop a SYN that requests ECN.
  if (
    params.ecn_enable !== 1 ||
    tp.t_state !== TCPS_SYN_SENT ||
    tp.t_rxtshift > params.ecn_maxretries
  )
    return 0;
  return TH_ECE | TH_CWR;
}

/**
 * ECN flags (TH_*) of a segment. `fresh`: it contains new data. Clears TF2_ECN_SND_CWR when it
 * sends CWR.
 * @see sys/netinet/tcp_ecn.c
 */
export function tcp_ecn_output_established(tp: Tcpcb, fresh: boolean): number {
  let flags = 0;
  if ((tp.t_flags2 & TF2_ECN_SND_ECE) !== 0) flags |= TH_ECE;
  if (fresh && (tp.t_flags2 & TF2_ECN_SND_CWR) !== 0) {
    flags |= TH_CWR;
    tp.t_flags2 &= ~TF2_ECN_SND_CWR;
  }
  return flags;
}
