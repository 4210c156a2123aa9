/**
 * The NIC `tn`, device build `native`. The device itself is in the addon
 * (native-bindings/src/tn_*.cpp) and behaves like src/dev/tn. This file connects it to the event
 * loop: device turns, the wire's readiness, the interrupt line, the moderation timer. It makes one
 * addon call, with integers only, per register access or event; the result is a set of flags of
 * actions to perform. Left out: wires without a descriptor, IOMMU.
 */

import { loadAddon, type NativeAddon } from '../../native-bindings/index.ts';
import {
  TN_DO_ARM,
  TN_DO_CAPTURED,
  TN_DO_INTR,
  TN_DO_POST_RX,
  TN_DO_POST_TX,
  TN_DO_READ_OFF,
  TN_DO_READ_ON,
  TN_DO_REASONS,
  TN_DO_TIMER,
  TN_EV_LINK_DOWN,
  TN_EV_LINK_UP,
  TN_EV_READABLE,
  TN_EV_RESET,
  TN_EV_RX,
  TN_EV_TIMER,
  TN_EV_TX,
  TN_EV_WRITABLE,
  TN_P_CAPTURE_BYTES,
  TN_P_CAPTURE_OFF,
  TN_P_CAPTURE_UNIT,
  TN_P_COUNT,
  TN_P_HAS_TIMER,
  TN_P_NOW,
  TN_P_OWN_TIME,
  TN_P_RAM_BASE,
  TN_P_RAM_BYTES,
  TN_P_REASONS,
  TN_P_VNET,
} from '../../native-bindings/tn_abi.ts';
import {
  TN_ITR,
  TN_NSTATS,
  TN_REASON_COUNT,
  TN_REASON_DMA_FAULT,
  TN_REG_SIZE,
  tnReasons,
} from '../dev/tn/tnreg.ts';
import type { Clock, Task } from '../sys/clock.ts';
import { KASSERT } from '../sys/kassert.ts';
import { count } from '../sys/reason.ts';
import type { Wire, WireListener } from '../sys/wire.ts';
import { RealClock } from './clock.ts';
import { check } from './linux_errno.ts';

/** Output buffer for addon calls. */
const $out = new Float64Array(32);

/** A wire on a file descriptor of the addon. */
interface DescriptorWire extends Wire {
  readonly fd: number;
}

/** Configuration of the device, with the names of the `ts` build's TnConfig. */
interface NativeTnConfig {
  /** Its `vnetHdr` must be true in mode `vnet` and false in mode `wire`. */
  readonly wire: DescriptorWire;
  readonly intr: { raise(): void };
  readonly clock: Clock;
  readonly mode: 'wire' | 'vnet';
  /** Ethernet address at power-on, 6 bytes. */
  readonly mac: Uint8Array;
  /**
   * RAM: the first `ramBytes` bytes of the current arena (`allocArena`), at bus address `ramBase`.
   */
  readonly ramBase: number;
  readonly ramBytes: number;
  /** The capture ring in the arena, this interface's number in it, and its `kick`. */
  readonly capture?: {
    readonly off: number;
    readonly bytes: number;
    readonly unit: number;
    kick(): void;
  } | null;
  /** Interrupt moderation timer. Without it TN_ITR is always 0. */
  readonly timer?: { schedule(deadlineNs: number, event: Task): void } | null;
  /** Called with the number of new DMA faults. */
  readonly dmaFaults?: (n: number) => void;
}

/**
 * One NIC: an MmioRegion (src/bus/device.ts). The constructor plugs it into the wire; `close`
 * unplugs it.
 */
export class NativeTnDevice implements WireListener {
  readonly size = TN_REG_SIZE;
  readonly #addon: NativeAddon;
  readonly #config: NativeTnConfig;
  #wire: DescriptorWire;
  /** Current settings of the wire, for `rewire`. */
  #reading = false;
  #armed = false;
  readonly #id: number;
  /** Whether the clock is virtual: the addon then needs the time before each call. */
  readonly #virtual: boolean;
  #timed: boolean;
  #closed = false;
  readonly #txTurn: Task = { run: () => this.#event(TN_EV_TX) };
  readonly #rxTurn: Task = { run: () => this.#event(TN_EV_RX) };
  readonly #timerTurn: Task = { run: () => this.#event(TN_EV_TIMER) };

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
    const params = new Float64Array(TN_P_COUNT);
    params[TN_P_VNET] = config.mode === 'vnet' ? 1 : 0;
    params[TN_P_HAS_TIMER] = (config.timer ?? null) === null ? 0 : 1;
    params[TN_P_RAM_BASE] = config.ramBase;
    params[TN_P_RAM_BYTES] = config.ramBytes;
    params[TN_P_CAPTURE_OFF] = capture?.off ?? 0;
    params[TN_P_CAPTURE_BYTES] = capture?.bytes ?? 0;
    params[TN_P_CAPTURE_UNIT] = capture?.unit ?? 0;
    params[TN_P_NOW] = clock.nowNs();
    params[TN_P_OWN_TIME] = this.#virtual ? 1 : 0;
    params.set(tnReasons, TN_P_REASONS);
    this.#id = check(this.#addon.tnOpen(config.wire.fd, config.mac.slice(0, 6), params), 'tnOpen');
    config.wire.setListener(this);
  }

  /** Unplugs the device, which then sends and receives nothing. The wire stays open. */
  close(): void {
    if (this.#closed) return;
    this.#event(TN_EV_RESET);
    this.#closed = true;
    this.#wire.setListener(null);
    this.#addon.tnClose(this.#id);
  }

  /**
   * Moves the device to another wire with the same headers. The old wire has no listener afterwards
   * and keeps its unread frames. Throws TapnicError (EBADF: the wire is closed).
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

  /** The current statistics by number (TN_ST_*). */
  get stats(): Float64Array {
    const stats = new Float64Array(TN_NSTATS);
    if (!this.#closed) check(this.#addon.tnStats(this.#id, stats), 'tnStats');
    return stats;
  }

  wireReadable(): void {
    this.#event(TN_EV_READABLE);
  }

  wireWritable(): void {
    this.#armed = false;
    this.#event(TN_EV_WRITABLE);
  }

  wireState(up: boolean, _error: number): void {
    this.#event(up ? TN_EV_LINK_UP : TN_EV_LINK_DOWN);
  }

  read32(off: number): number {
    const value = this.#addon.tnRead(this.#id, off >>> 0);
    // All ones may mean a rejected access, which has a reason.
    if (value === 0xffffffff && !this.#closed) this.#countReasons();
    return value;
  }

  write32(off: number, value: number): void {
    if (this.#closed) return;
    // Moderation needs the time. Keep passing it after moderation ends; that is harmless.
    if (off === TN_ITR && value !== 0) this.#timed = true;
    if (this.#timed) this.#addon.tnTime(this.#id, this.#config.clock.nowNs());
    this.#act(this.#addon.tnWrite(this.#id, off >>> 0, value >>> 0));
  }

  #event(event: number): void {
    if (this.#closed) return;
    if (this.#timed) this.#addon.tnTime(this.#id, this.#config.clock.nowNs());
    this.#act(this.#addon.tnEvent(this.#id, event));
  }

  /** Performs the actions in `flags`, the result of an addon call. */
  #act(flags: number): void {
    if (flags === 0) return;
    KASSERT(flags > 0, 'native tn: refused by the addon');
    const { clock, intr } = this.#config;
    if ((flags & TN_DO_POST_TX) !== 0) clock.post(this.#txTurn);
    if ((flags & TN_DO_INTR) !== 0) intr.raise();
    if ((flags & TN_DO_POST_RX) !== 0) clock.post(this.#rxTurn);
    if ((flags & TN_DO_ARM) !== 0) {
      this.#armed = true;
      this.#wire.armWritable();
    }
    if ((flags & (TN_DO_READ_ON | TN_DO_READ_OFF)) !== 0) {
      this.#reading = (flags & TN_DO_READ_ON) !== 0;
      this.#wire.setReadable(this.#reading);
    }
    if ((flags & (TN_DO_TIMER | TN_DO_CAPTURED | TN_DO_REASONS)) === 0) return;
    if ((flags & TN_DO_TIMER) !== 0)
      this.#config.timer?.schedule(this.#addon.tnTimer(this.#id), this.#timerTurn);
    if ((flags & TN_DO_CAPTURED) !== 0) this.#config.capture?.kick();
    if ((flags & TN_DO_REASONS) !== 0) this.#countReasons();
  }

  #countReasons(): void {
    const n = this.#addon.tnReasons(this.#id, $out);
    KASSERT(n === TN_REASON_COUNT, 'native tn: reasons');
    for (let i = 0; i < n; i++) {
      const times = $out[i]!;
      if (times > 0) count(tnReasons[i]!, times);
    }
    const faults = $out[TN_REASON_DMA_FAULT]!;
    if (faults > 0) this.#config.dmaFaults?.(faults);
  }
}
