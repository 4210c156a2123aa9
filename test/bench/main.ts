/**
 * `npm run bench -- NAME [--json] [--quick]`: runs a bench and prints its rows. Status 0: done, 1:
 * it could not measure, 2: wrong usage.
 */

import { parseArgs } from 'node:util';
import { missing } from '../support/needs.ts';
import { benches } from './benches.ts';
import { formatRows } from './result.ts';

const USAGE = `usage: npm run bench -- NAME [--json] [--quick]
  --json   print JSON, one row a figure
  --quick  a tiny size, to see that it runs; its figures mean nothing
benches:
${benches.map(({ name, description }) => `  ${name}\t${description}`).join('\n')}
`;

function usage(message: string): never {
  process.stderr.write(`bench: ${message}\n${USAGE}`);
  process.exit(2);
}

function parse(): { name: string; json: boolean; quick: boolean } {
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
  const [name, ...rest] = positionals;
  if (name === undefined || rest.length > 0) usage('one name is needed');
  return { name, json: values.json, quick: values.quick };
}

async function main(): Promise<number> {
  const { name, json, quick } = parse();
  const bench = benches.find((b) => b.name === name);
  if (bench === undefined) usage(`no bench ${name}`);
  const lacking = bench.needs.map(missing).filter((why) => why !== null);
  if (lacking.length > 0) throw new Error(`missing: ${lacking.join('; ')}`);
  const progress = (text: string): void => {
    process.stderr.write(`bench ${name}: ${text}\n`);
  };
  const rows = await bench.run({ quick, progress });
  process.stdout.write(json ? `${JSON.stringify(rows)}\n` : (bench.format ?? formatRows)(rows));
  return 0;
}

// On an interrupt run the exit handlers, which remove the namespaces.
process.once('SIGINT', () => process.exit(130));
try {
  process.exitCode = await main();
} catch (e) {
  process.stderr.write(`bench: FAILED: ${e instanceof Error ? e.message : String(e)}\n`);
  process.exitCode = 1;
}
