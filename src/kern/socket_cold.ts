/**
 * The parts of sockets and socket buffers that most connections do not need. An object gets its part
 * when one of the fields first changes; until then it shares one. That halves an idle socket.
 */

import type { Task } from '../sys/clock.ts';
import type { Errno } from '../sys/errno.ts';
import type { Socket } from './uipc_socket.ts';

/** The queues of a socket that is not a listener. Frozen: no socket can be added. */
const noSockets = Object.freeze([]) as unknown as Socket[];

/** The empty list of every buffer that nothing waits for. An array of its own takes 32 bytes. */
export const noTasks: readonly Task[] = Object.freeze([]);

/** Fields of listeners, of urgent data and of rare options. */
class SocketCold {
  /** Linger time in seconds, with SO_LINGER; 0 closes with RST. */
  so_linger = 0;
  /** SO_USER_COOKIE, SO_TS_CLOCK and SO_MAX_PACING_RATE: stored, but without effect. */
  so_user_cookie = 0;
  so_ts_clock = 0;
  so_max_pacing_rate = 0;
  /** With SO_RERROR the error of a full receive buffer. Cleared when reported. */
  so_rerror: Errno = 0;
  /** Bytes to read before the urgent data; 0: no urgent data ahead. */
  so_oobmark = 0;
  /** Listener: the backlog, the incomplete connections, and the complete ones. */
  sol_qlimit = 0;
  sol_incomp: Socket[] = noSockets;
  sol_comp: Socket[] = noSockets;
  /** Listener: number of connections refused because the queue was full. */
  sol_overcount = 0;
  /** Listener: runs when a connection can be accepted. */
  sol_upcall: Task | null = null;
  /** The upcall is queued for the end of the pass. It is queued at most once. */
  upcallPending = false;
}

const noSocketCold = new SocketCold();

/** Access to the fields of SocketCold as if they were fields of the socket. */
export abstract class SocketBase {
  #cold = noSocketCold;

  #own(): SocketCold {
    if (this.#cold === noSocketCold) this.#cold = new SocketCold();
    return this.#cold;
  }

  get so_linger(): number {
    return this.#cold.so_linger;
  }
  set so_linger(v: number) {
    if (v !== this.#cold.so_linger) this.#own().so_linger = v;
  }

  get so_user_cookie(): number {
    return this.#cold.so_user_cookie;
  }
  set so_user_cookie(v: number) {
    if (v !== this.#cold.so_user_cookie) this.#own().so_user_cookie = v;
  }

  get so_ts_clock(): number {
    return this.#cold.so_ts_clock;
  }
  set so_ts_clock(v: number) {
    if (v !== this.#cold.so_ts_clock) this.#own().so_ts_clock = v;
  }

  get so_max_pacing_rate(): number {
    return this.#cold.so_max_pacing_rate;
  }
  set so_max_pacing_rate(v: number) {
    if (v !== this.#cold.so_max_pacing_rate) this.#own().so_max_pacing_rate = v;
  }

  get so_rerror(): Errno {
    return this.#cold.so_rerror;
  }
  set so_rerror(v: Errno) {
    if (v !== this.#cold.so_rerror) this.#own().so_rerror = v;
  }

  get so_oobmark(): number {
    return this.#cold.so_oobmark;
  }
  set so_oobmark(v: number) {
    if (v !== this.#cold.so_oobmark) this.#own().so_oobmark = v;
  }

  get sol_qlimit(): number {
    return this.#cold.sol_qlimit;
  }
  set sol_qlimit(v: number) {
    if (v !== this.#cold.sol_qlimit) this.#own().sol_qlimit = v;
  }

  get sol_incomp(): Socket[] {
    return this.#cold.sol_incomp;
  }
  set sol_incomp(v: Socket[]) {
    if (v !== this.#cold.sol_incomp) this.#own().sol_incomp = v;
  }

  get sol_comp(): Socket[] {
    return this.#cold.sol_comp;
  }
  set sol_comp(v: Socket[]) {
    if (v !== this.#cold.sol_comp) this.#own().sol_comp = v;
  }

  get sol_overcount(): number {
    return this.#cold.sol_overcount;
  }
  set sol_overcount(v: number) {
    if (v !== this.#cold.sol_overcount) this.#own().sol_overcount = v;
  }

  get sol_upcall(): Task | null {
    return this.#cold.sol_upcall;
  }
  set sol_upcall(v: Task | null) {
    if (v !== this.#cold.sol_upcall) this.#own().sol_upcall = v;
  }

  get upcallPending(): boolean {
    return this.#cold.upcallPending;
  }
  set upcallPending(v: boolean) {
    if (v !== this.#cold.upcallPending) this.#own().upcallPending = v;
  }
}

/** Fields of buffers with waiting calls, addresses or time-outs. */
class SockbufCold {
  /** Bytes in sb_ccc that are not data but addresses. */
  sb_ctl = 0;
  /** SO_RCVTIMEO or SO_SNDTIMEO: how long a call may block, in ns; 0: no timeout. */
  sb_timeo = 0;
  /** Calls that wait for the buffer, such as sendfile. A wake-up removes and runs them in order. */
  sb_waiters: readonly Task[] = noTasks;
  /** Knotes of kqueues. Each wake-up runs them all. */
  sb_notes: readonly Task[] = noTasks;
}

const noSockbufCold = new SockbufCold();

/** Access to the fields of SockbufCold as if they were fields of the buffer. */
export abstract class SockbufBase {
  #cold = noSockbufCold;

  #own(): SockbufCold {
    if (this.#cold === noSockbufCold) this.#cold = new SockbufCold();
    return this.#cold;
  }

  get sb_ctl(): number {
    return this.#cold.sb_ctl;
  }
  set sb_ctl(v: number) {
    if (v !== this.#cold.sb_ctl) this.#own().sb_ctl = v;
  }

  get sb_timeo(): number {
    return this.#cold.sb_timeo;
  }
  set sb_timeo(v: number) {
    if (v !== this.#cold.sb_timeo) this.#own().sb_timeo = v;
  }

  get sb_waiters(): readonly Task[] {
    return this.#cold.sb_waiters;
  }
  set sb_waiters(v: readonly Task[]) {
    if (v !== this.#cold.sb_waiters) this.#own().sb_waiters = v;
  }

  get sb_notes(): readonly Task[] {
    return this.#cold.sb_notes;
  }
  set sb_notes(v: readonly Task[]) {
    if (v !== this.#cold.sb_notes) this.#own().sb_notes = v;
  }
}
