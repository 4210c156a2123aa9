/** Rows of echoes, requests and responses, and of new connections. */

import type { Bench } from '../bench.ts';

export const rrBenches: readonly Bench[] = [];
