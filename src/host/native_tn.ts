/**
 * The NIC `tn`, device build `native`, as the machine sees it. The device itself is in the addon
 * (native-bindings/src/tn_*.cpp) and behaves as src/dev/tn does; here is what a device needs of the
 * event loop: turns, the wire's readiness, the interrupt line, the moderation timer. One call into
 * the addon per register access or event, integers only; it answers with flags of what is to be
 * done. Left out: any wire that is not a descriptor, IOMMU.
 */

import { loadAddon, type NativeAddon } from '../../native-bindings/index.ts';
import type { Clock, Task } from '../sys/clock.ts';
import { KASSERT } from '../sys/kassert.ts';
import {
  count,
  R_CAPTURE_FULL,
  R_DEV_BAD_REG,
  R_DEV_BAD_RING,
  R_DEV_DMA_FAULT,
  R_DEV_LINK_DOWN,
  R_DEV_RX_BAD,
  R_DEV_RX_FILTER,
  R_DEV_RX_NODESC,
  R_DEV_RX_OVERSIZE,
  R_DEV_RX_RUNT,
  R_DEV_TX_BAD,
  R_DEV_WIRE_ERROR,
  R_DEV_WIRE_FULL,
} from '../sys/reason.ts';
import type { Wire, WireListener } from '../sys/wire.ts';
import { RealClock } from './clock.ts';
import { check } from './linux_errno.ts';

// What the addon asks for: tn_device.h.
const POST_TX = 0x1;
const POST_RX = 0x2;
const ARM = 0x4;
const READ_ON = 0x8;
const READ_OFF = 0x10;
const INTR = 0x20;
const TIMER = 0x40;
const CAPTURED = 0x80;
const REASONS = 0x100;

// Events, likewise.
const EV_READABLE = 0;
const EV_WRITABLE = 1;
const EV_LINK_UP = 2;
const EV_LINK_DOWN = 3;
const EV_TX = 4;
const EV_RX = 5;
const EV_TIMER = 6;
const EV_RESET = 7;

/** TN_ITR: while it is not 0, the device needs to know the time. */
const TN_ITR = 0x030;
const TN_REG_SIZE = 0x1000;
const TN_NSTATS = 23;

/** Reasons in the addon's order. */
const reasons = [
  R_DEV_BAD_REG,
  R_DEV_DMA_FAULT,
  R_DEV_TX_BAD,
  R_DEV_RX_NODESC,
  R_DEV_RX_BAD,
  R_DEV_RX_RUNT,
  R_DEV_BAD_RING,
  R_DEV_RX_OVERSIZE,
  R_DEV_RX_FILTER,
  R_DEV_WIRE_FULL,
  R_DEV_WIRE_ERROR,
  R_DEV_LINK_DOWN,
  R_CAPTURE_FULL,
];
const DMA_FAULT = 1;

/** Scratch for the addon's answers. */
const $out = new Float64Array(32);

/** A wire behind a descriptor of the addon. */
export interface DescriptorWire extends Wire {
  readonly fd: number;
}

/** What the device is built into; the names are those of the `ts` build's TnConfig. */
export interface NativeTnConfig {
  /** `vnetHdr` of it must be true exactly in mode `vnet`. */
  readonly wire: DescriptorWire;
  readonly intr: { raise(): void };
  readonly clock: Clock;
  readonly mode: 'wire' | 'vnet';
  /** Address it has at power-on, 6 bytes. */
  readonly mac: Uint8Array;
  /** RAM: `ramBytes` from the start of the arena `allocArena` returned last, at bus address `ramBase`. */
  readonly ramBase: number;
  readonly ramBytes: number;
  /** The capture ring in the arena, the number of this interface in it, and its drain. */
  readonly capture?: {
    readonly off: number;
    readonly bytes: number;
    readonly unit: number;
    kick(): void;
  } | null;
  /** Without one TN_ITR reads 0 and takes nothing else. */
  readonly timer?: { schedule(deadlineNs: number, event: Task): void } | null;
  /** Told of DMA faults, as a bus would log them. */
  readonly dmaFaults?: (n: number) => void;
}

/** One NIC: an MmioRegion (src/bus/device.ts). Plugs itself into the wire; `close` unplugs it. */
export class NativeTnDevice implements WireListener {
  readonly size = TN_REG_SIZE;
  readonly #addon: NativeAddon;
  readonly #config: NativeTnConfig;
  #wire: DescriptorWire;
  /** What it wants of the wire. */
  #reading = false;
  #armed = false;
  readonly #id: number;
  /** Whether the addon is told the time before each call. */
  readonly #virtual: boolean;
  #timed: boolean;
  #closed = false;
  readonly #txTurn: Task = { run: () => this.#event(EV_TX) };
  readonly #rxTurn: Task = { run: () => this.#event(EV_RX) };
  readonly #timerTurn: Task = { run: () => this.#event(EV_TIMER) };

  /** Throws TapnicError (EBADF: the wire is closed; EFAULT: RAM is not the current arena's). */
  constructor(config: NativeTnConfig) {
    if (config.wire.vnetHdr !== (config.mode === 'vnet'))
      throw new RangeError('tn: the wire must have virtio-net headers exactly in mode vnet');
    this.#addon = loadAddon();
    this.#config = config;
    this.#wire = config.wire;
    this.#virtual = !(config.clock instanceof RealClock);
    this.#timed = this.#virtual;
    const { clock, capture } = config;
    const params = Float64Array.of(
      config.mode === 'vnet' ? 1 : 0,
      (config.timer ?? null) === null ? 0 : 1,
      config.ramBase,
      config.ramBytes,
      capture?.off ?? 0,
      capture?.bytes ?? 0,
      capture?.unit ?? 0,
      clock.nowNs(),
      this.#virtual ? 1 : 0,
    );
    this.#id = check(this.#addon.tnOpen(config.wire.fd, config.mac.slice(0, 6), params), 'tnOpen');
    config.wire.setListener(this);
  }

  /** Unplugs it: nothing is sent or received any more. The wire stays open. */
  close(): void {
    if (this.#closed) return;
    this.#event(EV_RESET);
    this.#closed = true;
    this.#wire.setListener(null);
    this.#addon.tnClose(this.#id);
  }

  /**
   * Puts it on another wire, with the same headers; the old one has no listener afterwards, and what
   * it still holds stays there. Throws TapnicError (EBADF: the wire is closed).
   */
  rewire(wire: DescriptorWire): void {
    check(this.#addon.tnRewire(this.#id, wire.fd), 'tnRewire');
    this.#wire.setReadable(false);
    this.#wire.setListener(null);
    this.#wire = wire;
    wire.setListener(this);
    wire.setReadable(this.#reading);
    if (this.#armed) wire.armWritable();
  }

  /** The statistics by number (TN_ST_*), as they are now. */
  get stats(): Float64Array {
    const stats = new Float64Array(TN_NSTATS);
    if (!this.#closed) check(this.#addon.tnStats(this.#id, stats), 'tnStats');
    return stats;
  }

  wireReadable(): void {
    this.#event(EV_READABLE);
  }

  wireWritable(): void {
    this.#armed = false;
    this.#event(EV_WRITABLE);
  }

  wireState(up: boolean, _error: number): void {
    this.#event(up ? EV_LINK_UP : EV_LINK_DOWN);
  }

  read32(off: number): number {
    const value = this.#addon.tnRead(this.#id, off >>> 0);
    // It may have been a refused access.
    if (value === 0xffffffff && !this.#closed) this.#countReasons();
    return value;
  }

  write32(off: number, value: number): void {
    if (this.#closed) return;
    // From now on; that it goes on when moderation ends does no harm.
    if (off === TN_ITR && value !== 0) this.#timed = true;
    if (this.#timed) this.#addon.tnTime(this.#id, this.#config.clock.nowNs());
    this.#act(this.#addon.tnWrite(this.#id, off >>> 0, value >>> 0));
  }

  #event(event: number): void {
    if (this.#closed) return;
    if (this.#timed) this.#addon.tnTime(this.#id, this.#config.clock.nowNs());
    this.#act(this.#addon.tnEvent(this.#id, event));
  }

  /** Does what the device asks for. */
  #act(flags: number): void {
    if (flags === 0) return;
    KASSERT(flags > 0, 'native tn: refused by the addon');
    const { clock, intr } = this.#config;
    if ((flags & POST_TX) !== 0) clock.post(this.#txTurn);
    if ((flags & INTR) !== 0) intr.raise();
    if ((flags & POST_RX) !== 0) clock.post(this.#rxTurn);
    if ((flags & ARM) !== 0) {
      this.#armed = true;
      this.#wire.armWritable();
    }
    if ((flags & (READ_ON | READ_OFF)) !== 0) {
      this.#reading = (flags & READ_ON) !== 0;
      this.#wire.setReadable(this.#reading);
    }
    if ((flags & (TIMER | CAPTURED | REASONS)) === 0) return;
    if ((flags & TIMER) !== 0)
      this.#config.timer?.schedule(this.#addon.tnTimer(this.#id), this.#timerTurn);
    if ((flags & CAPTURED) !== 0) this.#config.capture?.kick();
    if ((flags & REASONS) !== 0) this.#countReasons();
  }

  #countReasons(): void {
    const n = this.#addon.tnReasons(this.#id, $out);
    KASSERT(n === reasons.length, 'native tn: reasons');
    for (let i = 0; i < n; i++) {
      const times = $out[i]!;
      if (times > 0) count(reasons[i]!, times);
    }
    const faults = $out[DMA_FAULT]!;
    if (faults > 0) this.#config.dmaFaults?.(faults);
  }
}
