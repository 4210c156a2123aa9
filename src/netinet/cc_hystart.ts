/**
 * HyStart++, RFC 9406: slow start that ends when round trips get longer, before the queue on the way
 * overflows. On a first sign the window grows a quarter as fast for a few rounds (conservative slow
 * start); if round trips get shorter again it was none. CUBIC uses it in a connection's first slow
 * start. Left out: pacing, for which the RFC would lift the limit of an ACK's growth.
 */

import { type TcpSeq, tcpSeq } from '../sys/types.ts';
import { SEQ_GEQ } from './tcp_seq.ts';
import type { Tcpcb } from './tcp_var.ts';

/** No round trip was measured. */
const NONE = 0x3fffffff;

// The state: slow start, conservative slow start.
const HS_SS = 1;
const HS_CSS = 2;

/** A round is the time until what was sent when it began is acknowledged. Times in microseconds. */
export class Hystart {
  #state: number = HS_SS;
  #windowEnd: TcpSeq = tcpSeq(0);
  /** A round begins: it ends with what is sent for the ACK at hand, so windowEnd is set at the next. */
  #begins = true;
  #lastRoundMinRtt = NONE;
  #currentRoundMinRtt = NONE;
  #samples = 0;
  #cssBaselineMinRtt = NONE;
  #cssRounds = 0;

  /** Whether growth is conservative. */
  get conservative(): boolean {
    return this.#state === HS_CSS;
  }

  /** Slow start begins, with what is sent next. */
  start(): void {
    this.#state = HS_SS;
    this.#begins = true;
    this.#lastRoundMinRtt = NONE;
    this.#currentRoundMinRtt = NONE;
    this.#cssBaselineMinRtt = NONE;
    this.#samples = 0;
    this.#cssRounds = 0;
  }

  /** A round trip of `us` microseconds was measured. */
  sample(us: number): void {
    if (us < this.#currentRoundMinRtt) this.#currentRoundMinRtt = us;
    this.#samples++;
  }

  /**
   * Everything before `ack` is acknowledged. Returns true when slow start is over: the round trips
   * stayed long for as many rounds as it takes.
   */
  acked(tp: Tcpcb, ack: TcpSeq): boolean {
    const p = tp.t_tcp.params;
    if (this.#begins) this.#windowEnd = tp.snd_nxt;
    this.#begins = false;
    const now = this.#currentRoundMinRtt;
    if (this.#samples >= p.hystart_n_rttsamples && now !== NONE) {
      if (this.#state === HS_SS && this.#lastRoundMinRtt !== NONE) {
        const last = this.#lastRoundMinRtt;
        const most = Math.min(Math.floor(last / 8), p.hystart_maxrtt_thresh);
        if (now >= last + Math.max(p.hystart_minrtt_thresh, most)) {
          this.#state = HS_CSS;
          this.#cssBaselineMinRtt = now;
          this.#cssRounds = 0;
        }
      } else if (this.#state === HS_CSS && now < this.#cssBaselineMinRtt) {
        this.#state = HS_SS;
        this.#cssBaselineMinRtt = NONE;
      }
    }
    if (!SEQ_GEQ(ack, this.#windowEnd)) return false;
    this.#begins = true;
    this.#lastRoundMinRtt = now;
    this.#currentRoundMinRtt = NONE;
    this.#samples = 0;
    // The rest of the round in which it began counts as one.
    return this.#state === HS_CSS && ++this.#cssRounds >= p.hystart_css_rounds;
  }
}
