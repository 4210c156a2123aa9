/**
 * Fault injection for one NIC: a fault stage on its wire that uses the machine's clock and memory.
 * A device of the `ts` build is plugged into the stage from the start. A `native` device needs a
 * descriptor, so it moves to the stage when the first fault is added.
 */

import { FaultStage } from '../fault/fault_stage.ts';
import { type FaultScratch, FaultWire } from '../fault/fault_wire.ts';
import type { NativeTnDevice } from '../host/native_tn.ts';
import { SeededPrng } from '../host/prng.ts';
import { WireDetour } from '../host/wire_detour.ts';
import { Callout, callout_reset, callout_stop, nowNs } from '../kern/kern_timeout.ts';
import type { Task } from '../sys/clock.ts';
import { ENOMEM, errnoError } from '../sys/errno.ts';
import { inPass } from '../sys/pass.ts';
import type { Wire } from '../sys/wire.ts';
import { mem, PAGE_SIZE } from '../vm/arena.ts';
import { NOPAGE, vm_page_alloc_contig, vm_page_unwire } from '../vm/vm_page.ts';
import { FaultNotes } from './fault_notes.ts';
import type { Machine } from './machine.ts';

/** Pages for the longest frame of mode vnet: an IP packet with Ethernet and virtio-net headers. */
const FRAME_PAGES = Math.ceil((65_535 + 14 + 12) / PAGE_SIZE);

export class NicFaults {
  readonly stage: FaultStage;
  readonly #machine: Machine;
  readonly #wire: Wire;
  readonly #callout = new Callout({ run: () => this.#event?.run() });
  #event: Task | null = null;
  #front: FaultWire | null = null;
  /** The native device, and the detour that connects it to the stage. */
  #device: NativeTnDevice | null = null;
  #detour: WireDetour | null = null;
  #scratch: FaultScratch | null = null;
  readonly #pages: number[] = [];
  readonly #notes = new FaultNotes();
  #unit = 0;
  #noting = false;

  constructor(machine: Machine, wire: Wire) {
    this.#machine = machine;
    this.#wire = wire;
    const timer = {
      nowNs,
      schedule: (deadlineNs: number, event: Task): void => {
        this.#event = event;
        callout_reset(this.#callout, Math.max(deadlineNs - nowNs(), 0));
      },
      stop: (): void => void callout_stop(this.#callout),
    };
    const skip = wire.vnetHdr ? 12 : 0;
    this.stage = new FaultStage(timer, (seed) => new SeededPrng(seed), skip);
  }

  /** Returns the stage as a wire, which replaces the NIC's wire. */
  wire(): FaultWire {
    this.#front ??= new FaultWire({
      wire: this.#wire,
      stage: this.stage,
      mem,
      scratch: () => (this.#scratch ??= this.#alloc(1)),
      post: (task) => this.#machine.clock.post(task),
      notes: this.#notes,
    });
    return this.#front;
  }

  /**
   * Names the NIC, whose interface has the number `unit` in captures. A native `device` stays on its own
   * wire until the first fault is added.
   */
  follow(unit: number, device: NativeTnDevice | null): void {
    this.#unit = unit;
    this.#device = device;
  }

  /** Allocates memory for frames. Throws TapnicError (ENOMEM). */
  #alloc(frames: number): FaultScratch {
    const pages = frames * FRAME_PAGES;
    const first = inPass(vm_page_alloc_contig, pages, 1, 0);
    if (first === NOPAGE) throw errnoError(ENOMEM, 'fault', 'give the machine more memory');
    for (let i = 0; i < pages; i++) this.#pages.push(first + i);
    return { off: first * PAGE_SIZE, bytes: FRAME_PAGES * PAGE_SIZE };
  }

  /**
   * Allocates everything that a fault needs, so that adding one cannot fail. Throws TapnicError
   * (ENOMEM, EMFILE).
   */
  prepare(): void {
    this.#scratch ??= this.#alloc(1);
    if (this.#device === null && !this.#noting) this.#begin();
    if (this.#device === null || this.#detour !== null) return;
    const room = this.#alloc(2);
    const detour = new WireDetour(this.#machine.arena, this.#wire.vnetHdr);
    this.#device.rewire(detour.end);
    detour.lead(this.wire(), this.#device, room);
    this.#detour = detour;
    this.#begin();
  }

  #begin(): void {
    this.#noting = true;
    this.#notes.begin(this.#unit, this.wire().frames);
  }

  /** Releases everything, when the NIC is unplugged. */
  close(): void {
    this.#notes.close();
    this.#front?.close();
    this.#detour?.close();
    inPass(() => {
      for (const page of this.#pages) vm_page_unwire(page, false);
    });
    this.#pages.length = 0;
  }
}
