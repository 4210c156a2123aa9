/** The command line of the benches. */

import { parseArgs } from 'node:util';
import { benches } from './benches.ts';

const USAGE = `usage: npm run bench -- NAME… [--json] [--quick] [--report DIR]
       npm run bench -- compare REV NAME… [--pairs N] [--json] [--quick]
  --json        print JSON, one row a figure
  --quick       a tiny size, to see that it runs; its figures mean nothing
  --report DIR  keep the results in DIR/results.json, together with those of earlier calls, and write
                DIR/performance.md and its plots from all of them
  compare       run the rows with this revision and with REV in turns, and print the ratio
  --pairs N     pairs of runs of compare (20)
names: all, or a bench, or a row of a bench; all leaves out those marked *
${benches.map(({ name, description, alone }) => `  ${name}${alone === true ? '*' : ''}\t${description}`).join('\n')}
`;

/** Reports wrong usage and ends with status 2. */
export function usage(message: string): never {
  process.stderr.write(`bench: ${message}\n${USAGE}`);
  process.exit(2);
}

/** What was asked for. */
export interface Asked {
  /** Names to run; without `compare` and its revision. */
  names: string[];
  /** The revision to compare with. */
  compare: string | null;
  pairs: number;
  json: boolean;
  quick: boolean;
  report: string | null;
}

const OPTIONS = {
  json: { type: 'boolean', default: false },
  quick: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
  report: { type: 'string' },
  pairs: { type: 'string' },
} as const;

/** Parses the command line; ends the process for --help and for wrong usage. */
export function parse(): Asked {
  let parsed;
  try {
    parsed = parseArgs({ allowPositionals: true, options: OPTIONS });
  } catch (e) {
    usage(e instanceof Error ? e.message : String(e));
  }
  const { values, positionals } = parsed;
  if (values.help) {
    process.stdout.write(USAGE);
    process.exit(0);
  }
  const { json, quick, report = null, pairs = '20' } = values;
  if (report === '') usage('--report: the name of a directory is needed');
  if (!/^[1-9]\d{0,3}$/.test(pairs)) usage(`--pairs: ${pairs}: not a number from 1 to 9999`);
  const comparing = positionals[0] === 'compare';
  if (values.pairs !== undefined && !comparing) usage('--pairs: only compare has pairs');
  if (!comparing) {
    if (positionals.length === 0) usage('a name is needed');
    return { names: positionals, compare: null, pairs: 0, json, quick, report };
  }
  const [, revision, ...names] = positionals;
  if (revision === undefined) usage('compare: a revision is needed');
  if (names.length === 0) usage('compare: a name is needed');
  if (report !== null) usage('compare writes no report');
  return { names, compare: revision, pairs: Number(pairs), json, quick, report };
}
