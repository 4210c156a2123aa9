/** All benches. */

import type { Bench } from './bench.ts';
import { bulkRxBenches } from './rows/bulk_rx.ts';
import { bulkTxBenches } from './rows/bulk_tx.ts';
import { captureBenches } from './rows/capture.ts';
import { gcBenches } from './rows/gc.ts';
import { httpBenches } from './rows/http.ts';
import { lossBenches } from './rows/loss.ts';
import { rrBenches } from './rows/rr.ts';
import { scaleBenches } from './rows/scale.ts';
import { workersBenches } from './rows/workers.ts';
import { sendfile } from './sendfile.ts';
import { smoke } from './smoke.ts';

export const benches: readonly Bench[] = [
  smoke,
  ...bulkTxBenches,
  ...bulkRxBenches,
  ...rrBenches,
  ...httpBenches,
  sendfile,
  ...scaleBenches,
  ...lossBenches,
  ...gcBenches,
  ...workersBenches,
  ...captureBenches,
];
