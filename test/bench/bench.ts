/** The interface of a bench. */

import type { Need } from '../support/needs.ts';
import type { BenchContext } from './context.ts';
import type { Contest } from './contest.ts';
import type { Row } from './result.ts';

export interface BenchOptions {
  /** A tiny size that only shows that the bench runs; its figures mean nothing. */
  readonly quick: boolean;
  /** Reports progress on standard error. */
  readonly progress: (text: string) => void;
}

interface Described {
  readonly name: string;
  readonly description: string;
  readonly needs: readonly Need[];
  /** Too short or too special for `all`. */
  readonly alone?: boolean;
}

/** A row that is measured by `runContest`, and that `compare` can measure with two revisions. */
export interface RowSpec {
  readonly name: string;
  /** Needs beyond those of its bench. */
  readonly needs?: readonly Need[];
  /**
   * Starts the programs, checks bytes on a sample, and returns what to run. Everything that it
   * creates goes through `ctx`, which removes it after the row, also after a throw.
   */
  readonly setUp: (ctx: BenchContext) => Promise<Contest>;
}

/** A bench of rows. */
export interface RowBench extends Described {
  readonly rows: readonly RowSpec[];
}

/** A bench that measures in its own way. */
export interface CustomBench extends Described {
  /** Rejects if it cannot measure, or if the bytes of a figure took another path than claimed. */
  readonly run: (options: BenchOptions) => Promise<Row[]>;
  /** Formats the rows as text; formatRows if not given. */
  readonly format?: (rows: readonly Row[]) => string;
}

export type Bench = RowBench | CustomBench;

/** A bench with one row of the same name. */
export function rowBench(bench: Described & Pick<RowSpec, 'setUp'>): RowBench {
  const { setUp, ...described } = bench;
  return { ...described, rows: [{ name: bench.name, setUp }] };
}
