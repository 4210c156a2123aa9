/**
 * Busmasters with two descriptor rings: the engines that work on them, in rounds of a limited number
 * of frames, and the shell that holds both. What a descriptor looks like, who owns it and how the
 * ring's registers work is the model's.
 */

import type { Task } from '../../sys/clock.ts';
import {
  count,
  R_DEV_BAD_RING,
  R_DEV_RX_BAD,
  R_DEV_RX_NODESC,
  R_DEV_TX_BAD,
  R_DEV_WIRE_ERROR,
} from '../../sys/reason.ts';
import type { AddressFilter } from './address_filter.ts';
import type { DmaNicCore } from './nic_core.ts';
import { NicShell } from './nic_shell.ts';

/** A descriptor ring as its registers have it, and where the device is in it. */
export interface DescRing {
  /** Whether the device can work on a ring like this. */
  readonly fits: boolean;
  /** Takes the ring from its registers, from the first descriptor. */
  rewind(): void;
  /** Clears what the registers say of it; the position belongs to an engine that runs. */
  clear(): void;
}

/** An engine: off, on, or on and stopped because its ring cannot be used. */
export abstract class RingEngine<C extends DmaNicCore, G extends DescRing> implements Task {
  readonly ring: G;
  enabled = false;
  /** The ring cannot be used; stays until the engine is enabled anew. */
  stopped = false;
  protected readonly core: C;
  /** Causes of the round under way. */
  protected causes = 0;
  /** The next round is on the clock's list. */
  #posted = false;

  constructor(core: C, ring: G) {
    this.core = core;
    this.ring = ring;
  }

  /** A round: what there is to do, up to a limit; the rest on later turns. */
  protected abstract work(): void;

  /** Says that the ring cannot be used. */
  protected abstract tellStopped(): void;

  /** The control register's bit of this engine. */
  switchTo(on: boolean): void {
    if (on === this.enabled) return;
    if (on) this.enable();
    else this.disable();
  }

  protected enable(): void {
    this.ring.rewind();
    this.enabled = true;
    this.stopped = false;
    if (!this.ring.fits) this.stop();
  }

  /** Forgets the ring's position and what is under way. */
  protected disable(): void {
    this.enabled = false;
    this.ring.rewind();
  }

  /** As at power-on. */
  reset(): void {
    this.disable();
    this.stopped = false;
    this.ring.clear();
  }

  protected stop(): void {
    this.stopped = true;
    count(R_DEV_BAD_RING);
    this.tellStopped();
  }

  /** The rest of what a round left over. */
  run(): void {
    this.#posted = false;
    this.work();
  }

  /** Begins a round: where the ring's `bytes` lie in the arena, or -1 after stopping. */
  protected beginRound(addrLo: number, addrHi: number, bytes: number): number {
    this.causes = 0;
    const base = this.core.dma.map(addrLo, addrHi, bytes, true);
    if (base >= 0) return base;
    this.core.dmaFault();
    this.stop();
    return -1;
  }

  /** Ends a round: sets its causes, and goes on later if there is `more`. */
  protected endRound(more: boolean): void {
    if (more && !this.#posted) {
      this.#posted = true;
      this.core.clock.post(this);
    }
    if (this.causes !== 0) this.core.cause(this.causes);
  }
}

/** The transmit engine. */
export abstract class TxEngine<C extends DmaNicCore, G extends DescRing> extends RingEngine<C, G> {
  /** The wire is full and has been asked to say when it is not. */
  protected blocked = false;

  /** Sends what is on the ring. */
  abstract consume(): void;

  /** Forgets the packet under way. */
  protected abstract forget(): void;

  protected override work(): void {
    this.consume();
  }

  protected override tellStopped(): void {
    this.forget();
    this.core.cause(this.core.numbers.txError);
  }

  protected override disable(): void {
    super.disable();
    this.forget();
    this.blocked = false;
  }

  /** The wire has room again. */
  wireWritable(): void {
    this.blocked = false;
    this.consume();
  }

  /** Counts a packet that cannot be sent as its descriptors are. */
  protected badPacket(): void {
    this.core.stats[this.core.numbers.txBad]! += 1;
    count(R_DEV_TX_BAD);
    this.causes |= this.core.numbers.txError;
  }
}

/**
 * The receive engine. It reads the wire only while it has buffers, so a slow driver pushes back on
 * the wire instead of losing frames.
 */
export abstract class RxEngine<C extends DmaNicCore, G extends DescRing> extends RingEngine<C, G> {
  readonly filter: AddressFilter;
  /** Too few buffers: not reading the wire until the driver says that there are more. */
  protected stalled = false;

  constructor(core: C, ring: G, filter: AddressFilter) {
    super(core, ring);
    this.filter = filter;
  }

  /** Receives what waits on the wire. */
  abstract drain(): void;

  protected override work(): void {
    this.drain();
  }

  protected override tellStopped(): void {
    this.core.wire.setReadable(false);
    this.core.cause(this.core.numbers.rxError);
  }

  protected override enable(): void {
    super.enable();
    // No buffers yet: the driver's first word of some starts it.
    this.stalled = !this.stopped;
  }

  protected override disable(): void {
    if (this.enabled) this.core.wire.setReadable(false);
    super.disable();
    this.stalled = false;
  }

  override reset(): void {
    super.reset();
    this.filter.reset();
  }

  /** The driver says that there are buffers: reads the wire again. */
  protected resume(): void {
    this.stalled = false;
    this.core.wire.setReadable(true);
    this.drain();
  }

  /** The buffers do not hold another frame. */
  protected stall(): void {
    this.stalled = true;
    this.core.wire.setReadable(false);
    this.core.stats[this.core.numbers.rxNodesc]! += 1;
    count(R_DEV_RX_NODESC);
    this.causes |= this.core.numbers.rxEmpty;
  }

  /** The wire came back. */
  wireBack(): void {
    if (this.enabled && !this.stopped && !this.stalled) this.core.wire.setReadable(true);
  }

  /** Reading failed: without this the loop would go on being told that there is something to read. */
  protected wireGone(): void {
    count(R_DEV_WIRE_ERROR);
    this.core.wire.setReadable(false);
    this.core.setLink(false);
  }

  /** Counts a buffer that cannot be used. */
  protected badBuffer(): void {
    this.core.stats[this.core.numbers.rxBad]! += 1;
    count(R_DEV_RX_BAD);
    this.causes |= this.core.numbers.rxError;
  }
}

/** One NIC of an engine for each direction. */
export abstract class RingNic<
  C extends DmaNicCore,
  T extends TxEngine<C, DescRing>,
  R extends RxEngine<C, DescRing>,
> extends NicShell<C, R> {
  protected readonly tx: T;

  constructor(core: C, tx: T, rx: R) {
    super(core, rx);
    this.tx = tx;
  }

  override wireWritable(): void {
    this.tx.wireWritable();
  }

  /** The doorbell of transmit: sends, then receives. */
  protected kick(): void {
    this.tx.consume();
    this.rx.drain();
  }

  protected override reset(): void {
    this.tx.reset();
    this.rx.reset();
    this.core.resetInterrupts();
  }
}
