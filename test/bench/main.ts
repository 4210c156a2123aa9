/**
 * `npm run bench -- NAME… [--json] [--quick]`: runs benches and prints their rows. Status 0: done,
 * 1: something could not be measured, 2: wrong usage.
 */

import { parseArgs } from 'node:util';
import { missing } from '../support/needs.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { benches } from './benches.ts';
import { formatRows, type Row } from './result.ts';
import { runRow } from './run_rows.ts';

const USAGE = `usage: npm run bench -- NAME… [--json] [--quick]
  --json   print JSON, one row a figure
  --quick  a tiny size, to see that it runs; its figures mean nothing
  all      every bench below, except those marked *
benches:
${benches.map(({ name, description, alone }) => `  ${name}${alone === true ? '*' : ''}\t${description}`).join('\n')}
`;

function usage(message: string): never {
  process.stderr.write(`bench: ${message}\n${USAGE}`);
  process.exit(2);
}

interface Asked {
  names: string[];
  json: boolean;
  quick: boolean;
}

function parse(): Asked {
  let parsed;
  try {
    parsed = parseArgs({
      allowPositionals: true,
      options: {
        json: { type: 'boolean', default: false },
        quick: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
  } catch (e) {
    usage(e instanceof Error ? e.message : String(e));
  }
  const { values, positionals } = parsed;
  if (values.help) {
    process.stdout.write(USAGE);
    process.exit(0);
  }
  if (positionals.length === 0) usage('a name is needed');
  return { names: positionals, json: values.json, quick: values.quick };
}

/** The benches called `names`, each once; a row's name selects the row alone. */
function select(names: readonly string[]): Bench[] {
  const found = names.flatMap((name): Bench[] => {
    if (name === 'all') return benches.filter(({ alone }) => alone !== true);
    const bench = benches.find((b) => b.name === name);
    if (bench !== undefined) return [bench];
    for (const b of benches) {
      const rows = 'rows' in b ? b.rows.filter((row) => row.name === name) : [];
      if (rows.length > 0 && 'rows' in b) return [{ ...b, name, rows }];
    }
    usage(`no bench ${name}`);
  });
  return [...new Set(found)];
}

/** Rejects if the machine lacks something. */
function demand(needs: readonly string[]): void {
  const lacking = needs.map(missing).filter((why) => why !== null);
  if (lacking.length > 0) throw new Error(`missing: ${lacking.join('; ')}`);
}

/** The message of an error; of two, the first one that was thrown. */
function reasonOf(e: unknown): string {
  // Thrown by `using` if cleaning up failed after a failure.
  const suppressed: unknown = e instanceof Error ? Reflect.get(e, 'suppressed') : undefined;
  if (suppressed !== undefined) return reasonOf(suppressed);
  return e instanceof Error ? e.message : String(e);
}

/** Runs `bench`; `failed` gets the name of what could not be measured, and why. */
async function measure(
  bench: Bench,
  options: BenchOptions,
  failed: (name: string, why: string) => void,
): Promise<Row[]> {
  const rows: Row[] = [];
  const attempt = async (name: string, work: () => Promise<Row[]>): Promise<void> => {
    try {
      demand(bench.needs);
      rows.push(...(await work()));
    } catch (e) {
      failed(name, reasonOf(e));
    }
  };
  if (!('rows' in bench)) await attempt(bench.name, () => bench.run(options));
  else
    for (const spec of bench.rows) {
      options.progress(spec.name);
      await attempt(spec.name, async () => {
        demand(spec.needs ?? []);
        return [await runRow(spec, options)];
      });
    }
  return rows;
}

async function main(): Promise<number> {
  const { names, json, quick } = parse();
  const rows: Row[] = [];
  let status = 0;
  for (const bench of select(names)) {
    const progress = (text: string): void => {
      process.stderr.write(`bench ${bench.name}: ${text}\n`);
    };
    const some = await measure(bench, { quick, progress }, (name, why) => {
      process.stderr.write(`bench: FAILED: ${name}: ${why}\n`);
      status = 1;
    });
    rows.push(...some);
    const format = 'rows' in bench ? formatRows : (bench.format ?? formatRows);
    if (!json && some.length > 0) process.stdout.write(format(some));
  }
  if (json && (status === 0 || rows.length > 0)) process.stdout.write(`${JSON.stringify(rows)}\n`);
  return status;
}

// On an interrupt run the exit handlers, which remove the namespaces.
process.once('SIGINT', () => process.exit(130));
process.exitCode = await main();
