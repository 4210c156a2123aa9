/**
 * ACKs at the end of a pass. Unlike FreeBSD, which acknowledges each segment of bulk data, or each
 * that LRO has merged, a connection acknowledges all data of one pass with one ACK. If the program
 * reads or discards the data within the pass, this ACK announces its whole window.
 */

import type { Task } from '../sys/clock.ts';
import { passDefer } from '../sys/pass.ts';
import { VNET_DEFINE } from '../kern/vnet.ts';
import { TCPS_HAVEESTABLISHED, TCPS_TIME_WAIT } from './tcp_fsm.ts';
import { type Tcpcb, TF2_PASSACK, TF_ACKNOW } from './tcp_var.ts';

class PassAcks implements Task {
  readonly #list: (Tcpcb | null)[] = [];
  #n = 0;

  add(tp: Tcpcb): void {
    if (this.#n === 0) passDefer(this);
    this.#list[this.#n++] = tp;
  }

  run(): void {
    for (let i = 0; i < this.#n; i++) {
      const tp = this.#list[i]!;
      this.#list[i] = null;
      tp.t_flags2 &= ~TF2_PASSACK;
      // Another segment may have carried the ACK, and the connection may have ended.
      const open = TCPS_HAVEESTABLISHED(tp.t_state) && tp.t_state !== TCPS_TIME_WAIT;
      if (open && (tp.t_flags & TF_ACKNOW) !== 0) tp.t_fb.tfb_tcp_output(tp);
    }
    this.#n = 0;
  }
}

const V_passAcks = VNET_DEFINE(() => new PassAcks());

/** Sends the ACK that was to be sent at the end of the pass, if it is still due. */
export function tcpPassAckNow(tp: Tcpcb): void {
  if ((tp.t_flags2 & TF2_PASSACK) !== 0 && (tp.t_flags & TF_ACKNOW) !== 0)
    tp.t_fb.tfb_tcp_output(tp);
}

/** Sends an ACK at the end of the pass, unless another segment carries it before. */
export function tcpPassAck(tp: Tcpcb): void {
  tp.t_flags |= TF_ACKNOW;
  if ((tp.t_flags2 & TF2_PASSACK) !== 0) return;
  tp.t_flags2 |= TF2_PASSACK;
  V_passAcks(tp.t_tcp.vnet).add(tp);
}
