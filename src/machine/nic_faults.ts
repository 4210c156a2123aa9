/** The faults of one NIC: their stage on its wire, with the machine's time and memory. */

import { FaultStage } from '../fault/fault_stage.ts';
import { FaultWire } from '../fault/fault_wire.ts';
import { SeededPrng } from '../host/prng.ts';
import { Callout, callout_reset, callout_stop, nowNs } from '../kern/kern_timeout.ts';
import type { Task } from '../sys/clock.ts';
import { ENOMEM, errnoError } from '../sys/errno.ts';
import type { Wire } from '../sys/wire.ts';
import { mem, PAGE_SIZE } from '../vm/arena.ts';
import { NOPAGE, vm_page_alloc_contig, vm_page_unwire } from '../vm/vm_page.ts';
import type { Machine } from './machine.ts';

/** The longest frame of mode vnet: an IP packet, Ethernet's and virtio-net's headers. */
const SCRATCH_PAGES = Math.ceil((65_535 + 14 + 12) / PAGE_SIZE);

export class NicFaults {
  readonly stage: FaultStage;
  /** To be plugged in instead of the wire. */
  readonly wire: FaultWire;
  readonly #callout = new Callout({ run: () => this.#event?.run() });
  #event: Task | null = null;
  #scratch = NOPAGE;

  constructor(machine: Machine, wire: Wire) {
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
    this.wire = new FaultWire({
      wire,
      stage: this.stage,
      mem,
      scratch: () => this.#alloc(),
      post: (task) => machine.clock.post(task),
    });
  }

  #alloc(): { off: number; bytes: number } {
    if (this.#scratch === NOPAGE) {
      this.#scratch = vm_page_alloc_contig(SCRATCH_PAGES, 1, 0);
      if (this.#scratch === NOPAGE) throw errnoError(ENOMEM, 'fault', 'raise --memory');
    }
    return { off: this.#scratch * PAGE_SIZE, bytes: SCRATCH_PAGES * PAGE_SIZE };
  }

  /** Gets its memory now, while an error still has somebody to hear it. Throws TapnicError (ENOMEM). */
  prepare(): void {
    this.#alloc();
  }

  /** Lets go of everything, when the NIC is unplugged. */
  close(): void {
    this.wire.close();
    if (this.#scratch === NOPAGE) return;
    for (let i = 0; i < SCRATCH_PAGES; i++) vm_page_unwire(this.#scratch + i, false);
    this.#scratch = NOPAGE;
  }
}
