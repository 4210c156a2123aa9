/**
 * Bus masters with two descriptor rings: one engine per ring and the shell that holds both. An
 * engine works in rounds of a limited number of frames. The model defines the descriptors, their
 * ownership and the ring's registers.
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

/** A descriptor ring: its registers, and the device's position in it. */
export interface DescRing {
  /** Whether base and length in the registers are valid. */
  readonly fits: boolean;
  /** Sets the position to the first descriptor of the ring in the registers. */
  rewind(): void;
  /** Clears the registers; the position is valid only while the engine runs. */
  clear(): void;
}

/** An engine. It is off, on, or stopped: on, with a ring that cannot be used. */
abstract class RingEngine<C extends DmaNicCore, G extends DescRing> implements Task {
  readonly ring: G;
  enabled = false;
  /** The ring cannot be used. Cleared when the engine is enabled again. */
  stopped = false;
  protected readonly core: C;
  /** Causes of the current round. */
  protected causes = 0;
  /** The next round is posted to the clock. */
  #posted = false;

  constructor(core: C, ring: G) {
    this.core = core;
    this.ring = ring;
  }

  /** Runs one round, up to its limit; later turns of the loop continue. */
  protected abstract work(): void;

  /** Sets the cause for a ring that cannot be used. */
  protected abstract tellStopped(): void;

  /** Applies this engine's enable bit of the control register. */
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

  /** Clears the ring's position and drops the current packet or frame. */
  protected disable(): void {
    this.enabled = false;
    this.ring.rewind();
  }

  /** Resets the engine to its power-on state. */
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

  /** Continues after a round that reached its limit. */
  run(): void {
    this.#posted = false;
    this.work();
  }

  /**
   * Begins a round. Returns the arena offset of the ring of `bytes` bytes. If the bus refuses it,
   * stops the engine and returns -1.
   */
  protected beginRound(addrLo: number, addrHi: number, bytes: number): number {
    this.causes = 0;
    const base = this.core.dma.map(addrLo, addrHi, bytes, true);
    if (base >= 0) return base;
    this.core.dmaFault();
    this.stop();
    return -1;
  }

  /** Ends a round: sets its causes, and posts the next one if there is `more`. */
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
  /** The wire is full; it calls wireWritable when it has room. */
  protected blocked = false;

  /** Sends the packets on the ring. */
  abstract consume(): void;

  /** Drops the current packet. */
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

  /** The wire has room again: continues sending. */
  wireWritable(): void {
    this.blocked = false;
    this.consume();
  }

  /** Counts a packet whose descriptors are bad. */
  protected badPacket(): void {
    this.core.stats[this.core.numbers.txBad]! += 1;
    count(R_DEV_TX_BAD);
    this.causes |= this.core.numbers.txError;
  }
}

/**
 * The receive engine. It reads the wire only while it has buffers, so frames wait on the wire, and
 * are not lost, while the driver is slow.
 */
export abstract class RxEngine<C extends DmaNicCore, G extends DescRing> extends RingEngine<C, G> {
  readonly filter: AddressFilter;
  /** There are too few buffers: the engine does not read the wire until the driver posts more. */
  protected stalled = false;

  constructor(core: C, ring: G, filter: AddressFilter) {
    super(core, ring);
    this.filter = filter;
  }

  /** Receives the frames that wait on the wire. */
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
    // No buffers yet: reception starts when the driver posts some.
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

  /** The driver has posted buffers: reads the wire again. */
  protected resume(): void {
    this.stalled = false;
    this.core.wire.setReadable(true);
    this.drain();
  }

  /** The posted buffers cannot hold another frame. */
  protected stall(): void {
    this.stalled = true;
    this.core.wire.setReadable(false);
    this.core.stats[this.core.numbers.rxNodesc]! += 1;
    count(R_DEV_RX_NODESC);
    this.causes |= this.core.numbers.rxEmpty;
  }

  /** The link came up: watches the wire again. */
  wireBack(): void {
    if (this.enabled && !this.stopped && !this.stalled) this.core.wire.setReadable(true);
  }

  /**
   * Handles a read error: stops polling the wire, because the loop would report it as readable
   * again and again.
   */
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

/** One NIC with an engine for each direction. */
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

  /** Handles the transmit doorbell: sends, then receives. */
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
