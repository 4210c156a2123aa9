/**
 * HyStart++, RFC 9406: slow start that ends when round-trip times increase, before the queue on the
 * path overflows. After a first increase, conservative slow start follows for a few rounds: the
 * window grows more slowly, by default a quarter as fast. If round-trip times decrease again, the
 * increase was spurious and slow start resumes. CUBIC uses it in the first slow start of a
 * connection. Left out: pacing, with which the RFC removes the limit on the growth per ACK.
 */

import { type TcpSeq, tcpSeq } from '../sys/types.ts';
import { SEQ_GEQ } from './tcp_seq.ts';
import type { Tcpcb } from './tcp_var.ts';

/** Value of a minimum round-trip time without a sample. */
const NONE = 0x3fffffff;

// States: slow start, conservative slow start.
const HS_SS = 1;
const HS_CSS = 2;

/**
 * HyStart++ state of a connection. A round ends when the data in flight at its beginning is
 * acknowledged. Times are in microseconds.
 */
export class Hystart {
  #state: number = HS_SS;
  #windowEnd: TcpSeq = tcpSeq(0);
  /**
   * Set when a round begins. windowEnd is set at the next ACK, so that the round includes the data
   * sent for the current ACK.
   */
  #begins = true;
  #lastRoundMinRtt = NONE;
  #currentRoundMinRtt = NONE;
  #samples = 0;
  #cssBaselineMinRtt = NONE;
  #cssRounds = 0;

  /** Whether the state is conservative slow start. */
  get conservative(): boolean {
    return this.#state === HS_CSS;
  }

  /** Begins slow start with the next segment sent. */
  start(): void {
    this.#state = HS_SS;
    this.#begins = true;
    this.#lastRoundMinRtt = NONE;
    this.#currentRoundMinRtt = NONE;
    this.#cssBaselineMinRtt = NONE;
    this.#samples = 0;
    this.#cssRounds = 0;
  }

  /** Adds a round-trip sample of `us` microseconds. */
  sample(us: number): void {
    if (us < this.#currentRoundMinRtt) this.#currentRoundMinRtt = us;
    this.#samples++;
  }

  /**
   * Processes an ACK of all data before `ack`. Returns true when slow start must end: round-trip
   * times stayed high for hystart_css_rounds rounds.
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
    // The rest of the round in which conservative slow start began counts as a round.
    return this.#state === HS_CSS && ++this.#cssRounds >= p.hystart_css_rounds;
  }
}
