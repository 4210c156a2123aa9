/** All benches. */

import type { Bench } from './bench.ts';
import { sendfile } from './sendfile.ts';
import { smoke } from './smoke.ts';

export const benches: readonly Bench[] = [smoke, sendfile];
