/**
 * The interface of a congestion control algorithm and its per-connection state, after
 * sys/netinet/cc/cc.h.
 */

import type { TcpSeq } from '../sys/types.ts';
import { Hystart } from './cc_hystart.ts';
import type { Tcpcb } from './tcp_var.ts';

/** A congestion control algorithm; functions as mod_cc(9) names them. @see mod_cc(9) */
export interface CcAlgo {
  readonly name: string;
  /** The connection was established, or switched to this algorithm. */
  conn_init(tp: Tcpcb): void;
  /** A new RTT sample of `us` microseconds. @see mod_cc(9) */
  rttsample(tp: Tcpcb, us: number): void;
  /**
   * `acked` bytes were acknowledged outside of recovery, while snd_cwnd limited sending, by `nsegs` ACKs
   * that the NIC coalesced into one.
   */
  ack_received(tp: Tcpcb, acked: number, nsegs: number): void;
  /** Bytes were acknowledged while the peer's window limited sending. Ours. */
  app_limited(tp: Tcpcb): void;
  /** A congestion signal: `type` is CC_ECN, CC_RTO, CC_RTO_ERR or CC_NDUPACK. */
  cong_signal(tp: Tcpcb, type: number): void;
  /** A loss after an ECN mark that already reduced the window in this recovery. Ours. */
  loss_after_mark(tp: Tcpcb): void;
  /** Recovery ends with the acknowledgment `ack`. */
  post_recovery(tp: Tcpcb, ack: TcpSeq): void;
  /** The connection was idle for at least one RTO. */
  after_idle(tp: Tcpcb): void;
}

/** Congestion control state of a connection: CUBIC's variables. Windows are in segments. */
export class CcVar {
  /** When this epoch of congestion avoidance began, ns; below 0: no epoch. */
  epochNs = -1;
  /** RFC 9438's W_max, cwnd_prior (the window before the last reduction) and W_est. */
  wMax = 0;
  cwndPrior = 0;
  wEst = 0;
  /** RFC 9438's K: seconds from the start of the epoch until the cubic function reaches wMax. */
  k = 0;
  /** Not null during the first slow start. */
  hystart: Hystart | null;
  #wMaxPrev = 0;
  #cwndPriorPrev = 0;

  constructor(useHystart: boolean) {
    this.hystart = useHystart ? new Hystart() : null;
  }

  /** Saves the variables that a time-out changes, for `restore`. */
  save(): void {
    this.#wMaxPrev = this.wMax;
    this.#cwndPriorPrev = this.cwndPrior;
  }

  restore(): void {
    this.wMax = this.#wMaxPrev;
    this.cwndPrior = this.#cwndPriorPrev;
    this.epochNs = -1;
  }
}
