/**
 * The descriptors of bpf(4), after bpf_d and catchpacket in sys/net/bpf.c: each has a filter and three
 * buffers: store is being filled, hold is full and waits for a read, free waits to become store. Only
 * the buffer mode is modelled, not shared memory (BPF_BUFMODE_ZBUF), and no signals. The buffers are
 * memory of the program that reads, not pages of the machine.
 */

import type { BpfProgram } from '../sys/bpf_filter.ts';
import type { Task } from '../sys/clock.ts';
import { EBADF, EINVAL, ENXIO, type Errno, EWOULDBLOCK } from '../sys/errno.ts';
import type { KqFile } from '../kern/kern_event.ts';
import { Callout, callout_reset, callout_stop, machineClock, nowNs } from '../kern/kern_timeout.ts';
import { m_mbuftouio } from '../kern/m_copydata.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { noTasks } from '../kern/socket_cold.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { Uio, UIO_READ } from '../vm/uio.ts';
import { BPF_D_INOUT, type BpfInterface, type BpfListener } from './bpf.ts';
import { bpfFilterMbuf } from './bpf_filter_mbuf.ts';
import { ifpromisc } from './if.ts';
import type { Ifnet } from './if_var.ts';

/** Smallest buffer, in bytes. */
export const BPF_MINBUFSIZE = 32;

// Format and flags of time stamps, with the values of BIOCSTSTAMP.
const BPF_T_MICROTIME = 0;
const BPF_T_NANOTIME = 1;
const BPF_T_BINTIME = 2;
const BPF_T_NONE = 3;
export const BPF_T_FORMAT_MASK = 3;
export const BPF_T_FAST = 0x100;
export const BPF_T_MONOTONIC = 0x200;

/** Bytes of struct bpf_hdr and of struct bpf_xhdr, without padding at the end. */
const BPF_HDR_LEN = 26;

/** net.bpf.* and the open descriptors of a stack. */
export const V_bpf = VNET_DEFINE(() => ({
  bufsize: 4096,
  maxbufsize: 0x80000,
  maxinsns: 512,
  descs: new Set<BpfDesc>(),
}));

/** Open descriptors of the machine. */
export const bpfStats = { current: 0 };

/** @see bpf(4) */
function BPF_WORDALIGN(n: number): number {
  return Math.ceil(n / 8) * 8;
}

const $uio = new Uio();

/** One of the three buffers. */
interface Buffer {
  bytes: Uint8Array;
  view: DataView;
  len: number;
}

function newBuffer(size: number): Buffer {
  const bytes = new Uint8Array(size);
  return { bytes, view: new DataView(bytes.buffer), len: 0 };
}

/** What a read returns: bytes copied, or an errno. */
export const bpfReadResult = { n: 0 };

/** A descriptor. @see bpf(4) */
export class BpfDesc implements BpfListener, KqFile, Task {
  readonly vnet: Vnet;
  bd_bif: BpfInterface | null = null;
  bd_bufsize: number;
  #store: Buffer | null = null;
  #hold: Buffer | null = null;
  #free: Buffer | null = null;
  bd_rfilter: BpfProgram | null = null;
  bd_wfilter: BpfProgram | null = null;
  bd_direction = BPF_D_INOUT;
  bd_immediate = false;
  bd_hdrcmplt = false;
  bd_feedback = false;
  bd_locked = false;
  bd_promisc = false;
  bd_tstamp = BPF_T_MICROTIME;
  /** Nanoseconds; 0: no time-out. */
  bd_rtout = 0;
  // Counters: packets received, dropped for lack of buffers, accepted by the filter; writes, those
  // that the write filter accepted, those that failed.
  bd_rcount = 0;
  bd_dcount = 0;
  bd_fcount = 0;
  bd_wcount = 0;
  bd_wfcount = 0;
  bd_wdcount = 0;
  kq_notes: readonly Task[] = noTasks;
  readonly #waiters: Task[] = [];
  /** Whether the time-out of a kqueue has passed since the last read. */
  #timedOut = false;
  #timing = false;
  readonly #timer = new Callout(this);
  #closed = false;

  constructor(vnet: Vnet) {
    this.vnet = vnet;
    const v = V_bpf(vnet);
    this.bd_bufsize = v.bufsize;
    v.descs.add(this);
    bpfStats.current++;
  }

  /** Whether the buffers exist: their size can no longer change. */
  get hasBuffers(): boolean {
    return this.#store !== null;
  }

  get holdLen(): number {
    return this.#hold === null ? 0 : this.#hold.len;
  }

  get storeLen(): number {
    return this.#store === null ? 0 : this.#store.len;
  }

  /** Attaches the descriptor to `bif`, or only empties it if it is attached there. */
  attach(bif: BpfInterface): void {
    if (this.#store === null) {
      this.#store = newBuffer(this.bd_bufsize);
      this.#free = newBuffer(this.bd_bufsize);
    }
    if (this.bd_bif !== bif) {
      this.#detach();
      this.bd_bif = bif;
      bif.attach(this);
    }
    this.reset();
  }

  #detach(): void {
    const bif = this.bd_bif;
    if (bif === null) return;
    this.bd_bif = null;
    bif.detach(this);
    if (!this.bd_promisc) return;
    this.bd_promisc = false;
    ifpromisc(bif.bif_ifp, false);
  }

  /** The interface is about to be removed: reads fail with ENXIO once hold is empty. */
  bpfDetached(): void {
    this.#detach();
    this.#wakeup();
  }

  /** Empties the buffers and clears the counters. */
  reset(): void {
    if (this.#hold !== null) {
      this.#free = this.#hold;
      this.#hold = null;
    }
    if (this.#store !== null) this.#store.len = 0;
    this.bd_rcount = this.bd_dcount = this.bd_fcount = 0;
    this.bd_wcount = this.bd_wfcount = this.bd_wdcount = 0;
  }

  bpfPacket(_ifp: Ifnet, m: Mbuf, pktlen: number): void {
    this.bd_rcount++;
    const keep = this.bd_rfilter === null ? pktlen : bpfFilterMbuf(this.bd_rfilter, m, pktlen);
    if (keep === 0) return;
    this.bd_fcount++;
    this.#catchpacket(m, pktlen, keep);
  }

  /** Copies at most `snaplen` bytes of a packet into the store buffer. */
  #catchpacket(m: Mbuf, pktlen: number, snaplen: number): void {
    const { bif_hdrlen } = this.bd_bif!;
    const hdrlen = BPF_WORDALIGN(bif_hdrlen + BPF_HDR_LEN) - bif_hdrlen;
    const totlen = Math.min(hdrlen + Math.min(snaplen, pktlen), this.bd_bufsize);
    let at = BPF_WORDALIGN(this.#store!.len);
    let wake = false;
    if (at + totlen > this.bd_bufsize) {
      if (this.#free === null) {
        this.bd_dcount++;
        return;
      }
      this.#rotate();
      wake = true;
      at = 0;
    } else if (this.bd_immediate || this.#timedOut) {
      wake = true;
    }
    const store = this.#store!;
    this.#stamp(store.view, at);
    store.view.setUint32(at + 16, totlen - hdrlen, true);
    store.view.setUint32(at + 20, pktlen, true);
    store.view.setUint16(at + 24, hdrlen, true);
    if (totlen > hdrlen)
      m_mbuftouio(
        $uio.single(store.bytes, at + hdrlen, totlen - hdrlen, UIO_READ),
        m,
        totlen - hdrlen,
      );
    store.len = at + totlen;
    if (wake) this.#wakeup();
  }

  /** Writes the time: struct timeval, timespec or bintime, of 16 bytes. */
  #stamp(view: DataView, at: number): void {
    const { bd_tstamp } = this;
    const format = bd_tstamp & BPF_T_FORMAT_MASK;
    let sec = 0;
    let nsec = 0;
    if (format !== BPF_T_NONE) {
      const clock = machineClock();
      const up = (bd_tstamp & BPF_T_FAST) !== 0 ? nowNs() : clock.nowNs();
      const boot = (bd_tstamp & BPF_T_MONOTONIC) !== 0 ? 0 : clock.bootSec;
      sec = Math.floor(boot);
      nsec = Math.floor((boot - sec) * 1e9) + (up % 1e9);
      sec += Math.floor(up / 1e9) + Math.floor(nsec / 1e9);
      nsec %= 1e9;
    }
    view.setUint32(at, sec, true);
    view.setUint32(at + 4, Math.floor(sec / 2 ** 32), true);
    if (format === BPF_T_BINTIME) {
      // A fraction of 2^64.
      const high = Math.floor((nsec * 2 ** 32) / 1e9);
      const rest = nsec * 2 ** 32 - high * 1e9;
      view.setUint32(at + 8, Math.floor((rest * 2 ** 32) / 1e9), true);
      view.setUint32(at + 12, high, true);
    } else {
      view.setUint32(at + 8, format === BPF_T_NANOTIME ? nsec : Math.floor(nsec / 1000), true);
      view.setUint32(at + 12, 0, true);
    }
  }

  /** Makes the store buffer the hold buffer. The free buffer exists. */
  #rotate(): void {
    this.#hold = this.#store;
    this.#store = this.#free!;
    this.#store.len = 0;
    this.#free = null;
  }

  #wakeup(): void {
    this.#stopTimer();
    for (let n = this.#waiters.length; n > 0; n--) this.#waiters.shift()?.run();
    for (const note of this.kq_notes) note.run();
  }

  /** The time-out of a kqueue: the store buffer can be read, now or when it has a packet. */
  run(): void {
    this.#timing = false;
    this.#timedOut = true;
    if (this.storeLen > 0) this.#wakeup();
  }

  #startTimer(): void {
    if (this.bd_rtout === 0 || this.#timing || this.#timedOut) return;
    this.#timing = true;
    callout_reset(this.#timer, this.bd_rtout);
  }

  #stopTimer(): void {
    if (this.#timing) callout_stop(this.#timer);
    this.#timing = false;
  }

  /** The next read returns data. */
  get #ready(): boolean {
    if (this.#hold !== null) return true;
    return (this.bd_immediate || this.#timedOut) && this.storeLen > 0;
  }

  /** For EVFILT_READ: bytes in both buffers; -1: not ready. */
  kqReadable(): number {
    if (this.bd_bif === null && this.#store !== null) return this.holdLen + this.storeLen;
    if (this.#ready) return this.holdLen + this.storeLen;
    this.#startTimer();
    return -1;
  }

  /**
   * Copies the hold buffer into `buf`, or, if there is none, the store buffer. The number of bytes is
   * in bpfReadResult. EINVAL: `buf` is not as long as a buffer. EWOULDBLOCK: no data.
   */
  read(buf: Uint8Array): Errno {
    if (buf.length !== this.bd_bufsize) return EINVAL;
    if (this.#hold === null && this.storeLen > 0) this.#rotate();
    const hold = this.#hold;
    if (hold === null) return this.bd_bif === null ? ENXIO : EWOULDBLOCK;
    this.#timedOut = false;
    this.#stopTimer();
    buf.set(hold.bytes.subarray(0, hold.len));
    bpfReadResult.n = hold.len;
    this.#hold = null;
    this.#free = hold;
    return 0;
  }

  /**
   * Like `read`, as on a blocking descriptor: waits until hold is full, immediate mode has a packet or
   * the time-out passes. 0 bytes: the time-out passed without a packet.
   */
  async readWaiting(buf: Uint8Array): Promise<Errno> {
    if (buf.length !== this.bd_bufsize) return EINVAL;
    const limit = { late: false };
    const timer = new Callout({
      run: (): void => {
        limit.late = true;
        for (let n = this.#waiters.length; n > 0; n--) this.#waiters.shift()?.run();
      },
    });
    if (this.bd_rtout > 0) callout_reset(timer, this.bd_rtout);
    while (!this.#ready && this.bd_bif !== null && !limit.late && !this.#closed)
      await new Promise<void>((resolve) => {
        this.#waiters.push({ run: resolve });
      });
    callout_stop(timer);
    if (this.#closed) return EBADF;
    const error = this.read(buf);
    if (error !== EWOULDBLOCK || !limit.late) return error;
    bpfReadResult.n = 0;
    return 0;
  }

  /** @see bpf(4) */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#detach();
    this.#wakeup();
    this.#store = this.#hold = this.#free = null;
    this.bd_rfilter = this.bd_wfilter = null;
    V_bpf(this.vnet).descs.delete(this);
    bpfStats.current--;
  }
}
