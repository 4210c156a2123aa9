/**
 * Whether the event loop waits for the next event without sleeping. Waking a sleeping process takes about
 * 27 us, and a peer that sleeps too takes as long again: most of the time of a short request. A wait
 * uses the CPU, so it is short and adapts, as halt polling of Linux's KVM does: only an event that
 * followed quickly makes the loop wait, and a wait in vain is not repeated for some events. So an idle
 * process never waits, nor does one whose peer has the same CPU.
 */

/** How long to wait: two wake-ups and a little work. */
export const SPIN_NS = 60_000;
/** An event is quick if it starts within this time after the end of the last one. */
export const QUICK_NS = 100_000;
/** Largest number of quick events without a wait, after waits in vain. */
export const PAUSE_MAX = 1024;

export class Spin {
  #endedNs = -QUICK_NS;
  #quick = false;
  /** Quick events to go without a wait; and their number after the next wait in vain. */
  #pause = 0;
  #nextPause = 1;

  /** An event starts. */
  begin(nowNs: number): void {
    this.#quick = nowNs - this.#endedNs < QUICK_NS;
  }

  /** At the end of an event: whether to wait. If so, `waited` must follow. */
  wanted(): boolean {
    if (!this.#quick) return false;
    if (this.#pause === 0) return true;
    this.#pause--;
    return false;
  }

  /** @param found whether the next event came during the wait */
  waited(found: boolean): void {
    if (found) {
      this.#nextPause = 1;
      return;
    }
    this.#pause = this.#nextPause;
    this.#nextPause = Math.min(2 * this.#nextPause, PAUSE_MAX);
  }

  /** The event has ended, and the wait if there was one. */
  end(nowNs: number): void {
    this.#endedNs = nowNs;
  }
}
