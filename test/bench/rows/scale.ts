/** Rows by number of connections and by file size. */

import type { Bench } from '../bench.ts';

export const scaleBenches: readonly Bench[] = [];
