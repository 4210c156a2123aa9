/**
 * Data that an acknowledgment allows to be sent leaves at the end of the pass. Unlike FreeBSD, which
 * sends after each ACK, a connection first processes all ACKs of the pass, so its TSO packets are
 * larger. If several connections wait, each sends a few packets in its turn, and after a number of
 * packets the device gets to receive: a connection with a large window delays no other one.
 */

import type { Task } from '../sys/clock.ts';
import { inPass, passDefer, runTask } from '../sys/pass.ts';
import { machineClock } from '../kern/kern_timeout.ts';
import { VNET_DEFINE } from '../kern/vnet.ts';
import { TCPS_HAVEESTABLISHED, TCPS_TIME_WAIT } from './tcp_fsm.ts';
import { outputQuota, PACKETS_MAX, type Tcpcb, TF2_PASSOUT } from './tcp_var.ts';

/** Packets of a connection in its turn, and of all connections in a pass. */
const TURN_PACKETS = 4;
const PASS_PACKETS = 16;

/** Connections in the order of their turns. The array keeps its length, so that passes make no garbage. */
class PassOutput implements Task {
  #list: (Tcpcb | null)[] = [];
  #head = 0;
  #n = 0;
  /** `run` is deferred to the end of the pass. */
  #deferred = false;
  #posted = false;
  readonly #next: Task = { run: () => this.#continue() };

  add(tp: Tcpcb): void {
    tp.t_flags2 |= TF2_PASSOUT;
    this.#push(tp);
    this.#defer();
  }

  run(): void {
    this.#deferred = false;
    const alone = this.#n === 1;
    for (let sent = 0; this.#n > 0 && sent < PASS_PACKETS;) {
      const tp = this.#shift();
      // The connection may have ended.
      if (!TCPS_HAVEESTABLISHED(tp.t_state) || tp.t_state === TCPS_TIME_WAIT) {
        tp.t_flags2 &= ~TF2_PASSOUT;
        continue;
      }
      if (!alone) outputQuota.packets = TURN_PACKETS;
      try {
        tp.t_fb.tfb_tcp_output(tp);
      } finally {
        outputQuota.packets = PACKETS_MAX;
      }
      sent += outputQuota.sent;
      if (!alone && outputQuota.sent === TURN_PACKETS) this.#push(tp);
      else tp.t_flags2 &= ~TF2_PASSOUT;
    }
    if (this.#n === 0 || this.#posted) return;
    this.#posted = true;
    machineClock().post(this.#next);
  }

  #continue(): void {
    this.#posted = false;
    if (this.#n > 0) inPass(runTask, this);
  }

  #defer(): void {
    if (this.#deferred) return;
    this.#deferred = true;
    passDefer(this);
  }

  #push(tp: Tcpcb): void {
    const size = this.#list.length;
    if (this.#n === size) {
      // Grows, with the first one at the start.
      const old = this.#list;
      this.#list = Array.from({ length: Math.max(16, 2 * size) }, () => null);
      for (let i = 0; i < size; i++) this.#list[i] = old[(this.#head + i) & (size - 1)]!;
      this.#head = 0;
    }
    this.#list[(this.#head + this.#n++) & (this.#list.length - 1)] = tp;
  }

  #shift(): Tcpcb {
    const tp = this.#list[this.#head]!;
    this.#list[this.#head] = null;
    this.#head = (this.#head + 1) & (this.#list.length - 1);
    this.#n--;
    return tp;
  }
}

const V_passOutput = VNET_DEFINE(() => new PassOutput());

/** Sends what the windows of `tp` allow at the end of the pass. */
export function tcpPassOutput(tp: Tcpcb): void {
  if ((tp.t_flags2 & TF2_PASSOUT) === 0) V_passOutput(tp.t_tcp.vnet).add(tp);
}
