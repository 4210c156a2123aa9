/**
 * The limit on log lines per second. A peer can cause lines, for example with ARP packets; without
 * a limit it could fill the disk of the log and take the time of the event loop.
 */

import { count, R_LOG_SUPPRESSED } from '../sys/reason.ts';

/** Lines per second that are printed, for each of the two classes. */
export const LINES_PER_SECOND = 100;

const SECOND_MS = 1000;

/** One class of lines: errors, or all others. */
class Budget {
  left = LINES_PER_SECOND;
  suppressed = 0;
}

export class LogLimit {
  readonly #budgets = [new Budget(), new Budget()];
  readonly #print: (line: string) => void;
  readonly #report: (suppressed: number) => void;
  #timer: NodeJS.Timeout | null = null;

  /** @param report prints a line that says how many lines the last second lost */
  constructor(print: (line: string) => void, report: (suppressed: number) => void) {
    this.#print = print;
    this.#report = report;
  }

  /** Prints `line`, or counts it. Errors have a budget of their own, so that they stay visible. */
  write(line: string, isError: boolean): void {
    const budget = this.#budgets[isError ? 1 : 0]!;
    // The second begins with its first line.
    if (this.#timer === null) this.#timer = setTimeout(() => this.#secondEnds(), SECOND_MS).unref();
    if (budget.left > 0) {
      budget.left--;
      this.#print(line);
      return;
    }
    budget.suppressed++;
    count(R_LOG_SUPPRESSED);
  }

  #secondEnds(): void {
    this.#timer = null;
    let suppressed = 0;
    for (const budget of this.#budgets) {
      suppressed += budget.suppressed;
      budget.left = LINES_PER_SECOND;
      budget.suppressed = 0;
    }
    if (suppressed > 0) this.#report(suppressed);
  }
}
