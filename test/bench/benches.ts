/** The benches there are. */

import type { Bench } from './bench.ts';
import { smoke } from './smoke.ts';

export const benches: readonly Bench[] = [smoke];
