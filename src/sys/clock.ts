/** The clock interface. src/host/clock.ts implements real time, manual_clock.ts virtual time. */

/** Work for the event loop to run. */
export interface Task {
  run(): void;
}

/** Time and the event loop. There is one alarm at a time; all callouts share it (kern_timeout). */
export interface Clock {
  /** Monotonic nanoseconds since an arbitrary start; a whole number below 2^53. */
  nowNs(): number;
  /** The wall-clock time at `nowNs() === 0`, in seconds since 1970; may have a fraction. */
  readonly bootSec: number;
  /** Schedules one `alarm.run()` at or soon after `deadlineNs`. Replaces the previous alarm. */
  setAlarm(deadlineNs: number, alarm: Task): void;
  clearAlarm(): void;
  /** Runs `task` after the running code returns and before time advances. First in, first out. */
  post(task: Task): void;
  /**
   * Runs the handler of an interrupt, like `post`, but without waiting for other posted tasks: a
   * device that was polled by the host is served in the turn that polled it. `task` must not call
   * programs.
   */
  interrupt(task: Task): void;
}
