/** What a bench is. */

import type { Need } from '../support/needs.ts';
import type { Row } from './result.ts';

export interface BenchOptions {
  /** A tiny size: shows that it runs; the figures mean nothing. */
  readonly quick: boolean;
  /** Says what is going on, on standard error. */
  readonly progress: (text: string) => void;
}

export interface Bench {
  readonly name: string;
  readonly description: string;
  readonly needs: readonly Need[];
  /** Rejects if it could not measure, or if a figure's path was not the claimed one. */
  readonly run: (options: BenchOptions) => Promise<Row[]>;
  /** The rows as text; a line for each unless given. */
  readonly format?: (rows: readonly Row[]) => string;
}
