/** Time, passed in: the real clock is in src/host/clock.ts, the virtual one in manual_clock.ts. */

/** Something the loop can be asked to run. */
export interface Task {
  run(): void;
}

/** Time and the turn of the event loop. One alarm at a time: callouts share it (kern_timeout). */
export interface Clock {
  /** Monotonic nanoseconds since an arbitrary start; a whole number below 2^53. */
  nowNs(): number;
  /** Wall-clock seconds since 1970 that `nowNs() === 0` stands for; may have a fraction. */
  readonly bootSec: number;
  /** Asks for one `alarm.run()` at or soon after `deadlineNs`. Replaces the alarm before it. */
  setAlarm(deadlineNs: number, alarm: Task): void;
  clearAlarm(): void;
  /** Runs `task` soon: after the code now running, before time goes on. First in, first out. */
  post(task: Task): void;
}
