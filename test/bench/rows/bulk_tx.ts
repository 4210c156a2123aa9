/** Rows of bulk transmission. */

import type { Bench } from '../bench.ts';

export const bulkTxBenches: readonly Bench[] = [];
