/** Runs rows of a bench, one after the other. */

import type { BenchOptions, RowSpec } from './bench.ts';
import { Baselines } from './cc.ts';
import { BenchContext } from './context.ts';
import { runContest } from './contest.ts';
import type { Row } from './result.ts';

/** Measures one row with programs of its own. */
export async function runRow(spec: RowSpec, options: BenchOptions): Promise<Row> {
  using baselines = new Baselines();
  await using ctx = new BenchContext({ ...options, baselines });
  return await runContest(ctx, spec.name, await spec.setUp(ctx));
}
