/** The interface of a bench. */

import type { Need } from '../support/needs.ts';
import type { Row } from './result.ts';

export interface BenchOptions {
  /** A tiny size that only shows that the bench runs; its figures mean nothing. */
  readonly quick: boolean;
  /** Reports progress on standard error. */
  readonly progress: (text: string) => void;
}

export interface Bench {
  readonly name: string;
  readonly description: string;
  readonly needs: readonly Need[];
  /** Rejects if it cannot measure, or if the bytes of a figure took another path than claimed. */
  readonly run: (options: BenchOptions) => Promise<Row[]>;
  /** Formats the rows as text; formatRows if not given. */
  readonly format?: (rows: readonly Row[]) => string;
}
