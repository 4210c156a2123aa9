/**
 * `npm run bench`: runs benches and prints their rows, keeps a report, or compares two revisions.
 * Status 0: done, 1: something could not be measured, or is worse than in the other revision, 2:
 * wrong usage.
 */

import { type Asked, parse } from './args.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { compare } from './compare/compare.ts';
import { Report } from './report/report.ts';
import { formatRows, type Row } from './result.ts';
import { runRow } from './run_rows.ts';
import { demand, reasonOf, select } from './select.ts';

/** Gets what was measured, when it is ready. */
interface Sink {
  /** Rows. */
  readonly measured: (rows: Row[]) => Promise<void>;
  /** The name of what could not be measured, and why. */
  readonly failed: (name: string, why: string) => Promise<void>;
}

/** Runs `bench`. */
async function measure(
  bench: Bench,
  options: BenchOptions,
  { measured, failed }: Sink,
): Promise<void> {
  const attempt = async (name: string, work: () => Promise<Row[]>): Promise<void> => {
    let rows: Row[];
    try {
      demand(bench.needs);
      rows = await work();
    } catch (e) {
      return await failed(name, reasonOf(e));
    }
    await measured(rows);
  };
  if (!('rows' in bench)) return await attempt(bench.name, () => bench.run(options));
  for (const spec of bench.rows) {
    options.progress(spec.name);
    await attempt(spec.name, async () => {
      demand(spec.needs ?? []);
      return [await runRow(spec, options)];
    });
  }
}

/** Runs benches. @returns the exit status */
async function run({ names, json, quick, report: dir }: Asked): Promise<number> {
  const report = dir === null ? null : new Report(dir, quick);
  const all: Row[] = [];
  let status = 0;
  for (const { bench, partial } of select(names)) {
    const progress = (text: string): void => {
      process.stderr.write(`bench ${bench.name}: ${text}\n`);
    };
    const rows: Row[] = [];
    if (!partial) report?.forget(bench);
    // A row takes a while: keep it at once.
    const measured = async (some: Row[]): Promise<void> => {
      rows.push(...some);
      report?.add(bench, some);
      await report?.write();
    };
    const failed = async (name: string, why: string): Promise<void> => {
      process.stderr.write(`bench: FAILED: ${name}: ${why}\n`);
      report?.fail(bench, name, why);
      await report?.write();
      status = 1;
    };
    await measure(bench, { quick, progress }, { measured, failed });
    all.push(...rows);
    const format = 'rows' in bench ? formatRows : (bench.format ?? formatRows);
    if (!json && rows.length > 0) process.stdout.write(format(rows));
  }
  if (json && (status === 0 || all.length > 0)) process.stdout.write(`${JSON.stringify(all)}\n`);
  return status;
}

// On a signal run the exit handlers, which remove the namespaces and directories. npm and timeout(1)
// send a signal twice, so the listeners stay.
process.on('SIGINT', () => process.exit(130));
process.on('SIGTERM', () => process.exit(143));
process.on('SIGHUP', () => process.exit(129));
const asked = parse();
try {
  process.exitCode = await (asked.compare === null ? run(asked) : compare(asked, asked.compare));
} catch (e) {
  process.stderr.write(`bench: FAILED: ${reasonOf(e)}\n`);
  process.exitCode = 1;
}
