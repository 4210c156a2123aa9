/** Rows of the web server. */

import type { Bench } from '../bench.ts';

export const httpBenches: readonly Bench[] = [];
