/** Rows of bulk reception. */

import type { Bench } from '../bench.ts';

export const bulkRxBenches: readonly Bench[] = [];
