/**
 * The NIC `tp`: register file, data port, transmitter, interrupts and link; the receiver is in
 * tp_rx.ts. The registers are described in docs/tp-datasheet.md. The device cannot access host
 * memory: frames are in its own packet memory, and the driver copies them word by word. A register
 * write never calls the driver; it sets causes and raises the interrupt line.
 */

import { CAPTURE_OUT, CAPTURE_RING } from '../../sys/capture.ts';
import { META_CSUM_SOFTWARE } from '../../sys/capture_meta.ts';
import { count, R_DEV_BAD_REG, R_DEV_TX_BAD } from '../../sys/reason.ts';
import { BLOCKED, SENT } from '../blocks/nic_core.ts';
import { NicShell } from '../blocks/nic_shell.ts';
import { type TpConfig, TpCore } from './tp_core.ts';
import { TpRx } from './tp_rx.ts';
import {
  TP_BNRY,
  TP_CR,
  TP_CR_ABT,
  TP_CR_MASK,
  TP_CR_RRD,
  TP_CR_RST,
  TP_CR_RWR,
  TP_CR_STA,
  TP_CR_STP,
  TP_CR_TXP,
  TP_CURR,
  TP_DATA,
  TP_FRAME_MAX,
  TP_FRAME_MIN,
  TP_FRAME_RUNT,
  TP_ID,
  TP_ID_REV1,
  TP_IMR,
  TP_INT_OVW,
  TP_INT_PTX,
  TP_INT_RDC,
  TP_INT_TXE,
  TP_ISR,
  TP_LIMITS,
  TP_MACH,
  TP_MACL,
  TP_MEM_SIZE,
  TP_MTA0,
  TP_MTA1,
  TP_NPAGES,
  TP_NSTATS,
  TP_PAGE_SIZE,
  TP_PSTART,
  TP_PSTOP,
  TP_RBCR,
  TP_RCR,
  TP_RCR_MASK,
  TP_REG_SIZE,
  TP_RSAR,
  TP_ST_BAD_PIO,
  TP_ST_PIO_READ,
  TP_ST_PIO_WRITTEN,
  TP_ST_TX_BAD,
  TP_STATS,
  TP_STATUS,
  TP_STATUS_LU,
  TP_STATUS_OVF,
  TP_STATUS_RUN,
  TP_STATUS_TXB,
  TP_TBCR,
  TP_TPSR,
  TP_TSR,
  TP_TSR_BAD,
  TP_TSR_CRS,
  TP_TSR_ERR,
  TP_TSR_PTX,
} from './tpreg.ts';

const STATS_END = TP_STATS + 4 * TP_NSTATS;
/** Offset of the zeros that pad short frames: after packet memory and the receive FIFO. */
const ZERO_OFF = TP_MEM_SIZE + 2048;
/**
 * Values read from an undefined register and from an empty data port. The latter is signed, like
 * all words of TP_DATA.
 */
const NOTHING = 0xffffffff;
const NO_DATA = -1;
// Pairs of commands: one write may contain at most one of each pair.
const START_STOP = TP_CR_STP | TP_CR_STA;
const READ_WRITE = TP_CR_RRD | TP_CR_RWR;

/** One NIC. The constructor connects it to its wire; `close` disconnects it. */
export class TpDevice extends NicShell<TpCore, TpRx> {
  override readonly size = TP_REG_SIZE;
  // Transmit. `#txBusy`: the frame waits for room on the wire.
  #tpsr = 0;
  #tbcr = 0;
  #tsr = 0;
  #txBusy = false;
  /** The id of the frame being sent, for captures. */
  #tag = 0;
  readonly #iov = new Uint32Array(4);
  // The data port: its registers, and the current transfer.
  #rsar = 0;
  #rbcr = 0;
  #pioAt = 0;
  #pioLeft = 0;
  /** TP_CR_RRD, TP_CR_RWR or 0 if there is no transfer. */
  #pioDir = 0;

  constructor(config: TpConfig) {
    if (config.wire.vnetHdr)
      throw new RangeError('tp: no mode vnet: the wire must not have virtio-net headers');
    const core = new TpCore(config);
    super(core, new TpRx(core, config.mac));
    config.mem.fill(0, config.sramOff + ZERO_OFF, config.sramOff + ZERO_OFF + TP_FRAME_MIN);
    this.plugIn();
  }

  override wireWritable(): void {
    if (this.#txBusy) this.#send();
  }

  /**
   * Returns TP_DATA as a signed number: V8 would allocate an unsigned one on its heap for each
   * word.
   */
  override read32(off: number): number {
    if (off === TP_DATA) return this.#readData();
    const core = this.core;
    const rx = this.rx;
    if (off >= TP_STATS && off < STATS_END && off % 4 === 0)
      return core.stats[(off - TP_STATS) / 4]! >>> 0;
    switch (off) {
      case TP_ID:
        return TP_ID_REV1;
      case TP_CR:
        return (rx.running ? TP_CR_STA : TP_CR_STP) | (this.#txBusy ? TP_CR_TXP : 0) | this.#pioDir;
      case TP_STATUS:
        return (
          (core.linkUp ? TP_STATUS_LU : 0) |
          (rx.running ? TP_STATUS_RUN : 0) |
          (this.#txBusy ? TP_STATUS_TXB : 0) |
          (rx.halted ? TP_STATUS_OVF : 0)
        );
      case TP_ISR:
        return core.causes;
      case TP_IMR:
        return core.mask;
      case TP_RCR:
        return rx.rcr;
      case TP_PSTART:
        return rx.pstart;
      case TP_PSTOP:
        return rx.pstop;
      case TP_BNRY:
        return rx.bnry;
      case TP_CURR:
        return rx.curr;
      case TP_TPSR:
        return this.#tpsr;
      case TP_TBCR:
        return this.#tbcr;
      case TP_TSR:
        return this.#tsr;
      case TP_RSAR:
        return this.#rsar;
      case TP_RBCR:
        return this.#rbcr;
      case TP_LIMITS:
        return ((TP_FRAME_MAX << 16) | TP_NPAGES) >>> 0;
      default:
        return this.#readAddress(off);
    }
  }

  override write32(off: number, value: number): void {
    if (off === TP_DATA) this.#writeData(value);
    else super.write32(off, value);
  }

  #readAddress(off: number): number {
    const { filter } = this.rx;
    switch (off) {
      case TP_MACL:
        return filter.macLow;
      case TP_MACH:
        return filter.macHigh;
      case TP_MTA0:
      case TP_MTA1:
        return filter.bits[(off - TP_MTA0) / 4]!;
      default:
        this.core.badReg();
        return NOTHING;
    }
  }

  /** Writes one register. Returns false if it does not exist or cannot take the value now. */
  protected override write(off: number, value: number): boolean {
    const core = this.core;
    const rx = this.rx;
    switch (off) {
      case TP_CR:
        return this.#command(value);
      case TP_ISR:
        core.acknowledge(value);
        return true;
      case TP_IMR:
        return core.setMask(value);
      case TP_RCR:
        if ((value & ~TP_RCR_MASK) !== 0) return false;
        rx.rcr = value;
        return true;
      case TP_BNRY:
        if (value >= TP_NPAGES) return false;
        if (rx.running && (value < rx.pstart || value >= rx.pstop)) return false;
        rx.bnry = value;
        return true;
      case TP_PSTART:
      case TP_PSTOP:
      case TP_CURR:
        return this.#writeRing(off, value);
      case TP_TPSR:
        if (value >= TP_NPAGES) return false;
        this.#tpsr = value;
        return true;
      case TP_TBCR:
        if (value > 0xffff) return false;
        this.#tbcr = value;
        return true;
      case TP_RSAR:
        if (value >= TP_MEM_SIZE) return false;
        this.#rsar = value;
        return true;
      case TP_RBCR:
        if (value > TP_MEM_SIZE) return false;
        this.#rbcr = value;
        return true;
      default:
        return this.#writeAddress(off, value);
    }
  }

  /** Writes a ring register. Returns false if the receiver runs or the value is invalid. */
  #writeRing(off: number, value: number): boolean {
    const rx = this.rx;
    if (rx.running || value > TP_NPAGES) return false;
    if (off === TP_PSTOP) {
      rx.pstop = value;
      return true;
    }
    if (value === TP_NPAGES) return false;
    if (off === TP_PSTART) rx.pstart = value;
    else rx.curr = value;
    return true;
  }

  #writeAddress(off: number, value: number): boolean {
    const { filter } = this.rx;
    switch (off) {
      case TP_MACL:
        filter.macLow = value;
        return true;
      case TP_MACH:
        filter.macHigh = value;
        return true;
      case TP_MTA0:
      case TP_MTA1:
        filter.bits[(off - TP_MTA0) / 4] = value;
        return true;
      default:
        return false;
    }
  }

  /**
   * Executes the commands of one write. Returns false if one failed. Executes none of them, and
   * returns false, if their combination is invalid.
   */
  #command(value: number): boolean {
    if ((value & TP_CR_RST) !== 0) {
      this.reset();
      return true;
    }
    if ((value & ~TP_CR_MASK) !== 0) return false;
    if ((value & START_STOP) === START_STOP || (value & READ_WRITE) === READ_WRITE) return false;
    let done = true;
    if ((value & TP_CR_ABT) !== 0) this.#pioDir = 0;
    if ((value & TP_CR_STP) !== 0) this.rx.stop();
    if ((value & TP_CR_STA) !== 0) done = this.#start();
    if ((value & READ_WRITE) !== 0) this.#beginPio(value & READ_WRITE);
    if ((value & TP_CR_TXP) !== 0) done = this.#transmit() && done;
    return done;
  }

  /** Starts the receiver. Returns false if an overflow is unacknowledged or the ring is invalid. */
  #start(): boolean {
    const rx = this.rx;
    if (rx.running) return true;
    if ((this.core.causes & TP_INT_OVW) !== 0 || !rx.ringGood) return false;
    rx.start();
    return true;
  }

  #beginPio(dir: number): void {
    this.#pioDir = 0;
    if (this.#rsar + this.#rbcr > TP_MEM_SIZE) {
      this.#badPio();
      return;
    }
    this.#pioAt = this.core.sramOff + this.#rsar;
    this.#pioLeft = this.#rbcr;
    if (this.#pioLeft === 0) this.core.cause(TP_INT_RDC);
    else this.#pioDir = dir;
  }

  #badPio(): void {
    this.core.stats[TP_ST_BAD_PIO]! += 1;
    count(R_DEV_BAD_REG);
  }

  /** Records that `n` bytes have passed through the port. */
  #pioAdvance(n: number): void {
    this.#pioAt += n;
    this.#pioLeft -= n;
    if (this.#pioLeft > 0) return;
    this.#pioDir = 0;
    this.core.cause(TP_INT_RDC);
  }

  #readData(): number {
    if (this.#pioDir !== TP_CR_RRD) {
      this.#badPio();
      return NO_DATA;
    }
    const { mem, view, stats } = this.core;
    const at = this.#pioAt;
    const n = Math.min(4, this.#pioLeft);
    let value = 0;
    if (n === 4) value = view.getInt32(at, true);
    else for (let i = 0; i < n; i++) value |= mem[at + i]! << (8 * i);
    stats[TP_ST_PIO_READ]! += n;
    this.#pioAdvance(n);
    return value;
  }

  #writeData(value: number): void {
    if (this.#pioDir !== TP_CR_RWR) {
      this.#badPio();
      return;
    }
    const { mem, view, stats } = this.core;
    const at = this.#pioAt;
    const n = Math.min(4, this.#pioLeft);
    if (n === 4) view.setInt32(at, value, true);
    else for (let i = 0; i < n; i++) mem[at + i] = (value >>> (8 * i)) & 0xff;
    stats[TP_ST_PIO_WRITTEN]! += n;
    this.#pioAdvance(n);
  }

  /** Starts the transmission of a frame. Returns false while another is being sent. */
  #transmit(): boolean {
    if (this.#txBusy) return false;
    this.#tag = this.core.takeTag(this.#tpsr);
    const end = this.#tpsr * TP_PAGE_SIZE + this.#tbcr;
    if (this.#tbcr < TP_FRAME_RUNT || this.#tbcr > TP_FRAME_MAX || end > TP_MEM_SIZE) {
      this.core.stats[TP_ST_TX_BAD]! += 1;
      count(R_DEV_TX_BAD);
      this.core.captureDrop(CAPTURE_RING, CAPTURE_OUT, this.#tag, R_DEV_TX_BAD, this.#tbcr);
      this.#finish(TP_TSR_BAD);
      return true;
    }
    const { sramOff } = this.core;
    this.#iov[0] = sramOff + this.#tpsr * TP_PAGE_SIZE;
    this.#iov[1] = this.#tbcr;
    this.#iov[2] = sramOff + ZERO_OFF;
    this.#iov[3] = Math.max(TP_FRAME_MIN - this.#tbcr, 0);
    const facts = this.core.ringFacts();
    if (facts !== null) {
      facts.csum = META_CSUM_SOFTWARE;
      this.core.captureRing(CAPTURE_OUT, this.#tag, this.#iov, 1, this.#tbcr);
    }
    this.#send();
    return true;
  }

  /** Writes the frame to the wire, or keeps it until the wire has room. */
  #send(): void {
    const { wire, linkUp } = this.core;
    this.#txBusy = false;
    if (!linkUp) {
      this.core.noLink(this.#tbcr, this.#tag);
      this.#finish(TP_TSR_CRS);
      return;
    }
    const iovcnt = this.#iov[3]! > 0 ? 2 : 1;
    const n = wire.writev(this.#iov, iovcnt);
    const len = this.#tbcr + this.#iov[3]!;
    const did = this.core.written(n, this.#iov, iovcnt, len, this.#tag, META_CSUM_SOFTWARE);
    if (did === BLOCKED) this.#txBusy = true;
    else this.#finish(did === SENT ? TP_TSR_PTX : TP_TSR_ERR);
  }

  #finish(tsr: number): void {
    this.#tsr = tsr;
    this.core.cause(tsr === TP_TSR_PTX ? TP_INT_PTX : TP_INT_TXE);
  }

  /** Resets everything except packet memory and the statistics. */
  protected override reset(): void {
    const core = this.core;
    const rx = this.rx;
    rx.stop();
    rx.pstart = 0;
    rx.pstop = 0;
    rx.bnry = 0;
    rx.curr = 0;
    rx.rcr = 0;
    rx.filter.reset();
    this.#tpsr = 0;
    this.#tbcr = 0;
    this.#tsr = 0;
    this.#txBusy = false;
    this.#rsar = 0;
    this.#rbcr = 0;
    this.#pioDir = 0;
    core.resetInterrupts();
  }
}
