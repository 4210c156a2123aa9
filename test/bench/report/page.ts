/** The page of a report, in Markdown. */

import { benches } from '../benches.ts';
import {
  baselinesOf,
  cpuOf,
  cpuText,
  type Fact,
  latencyText,
  rangeText,
  type Row,
} from '../result.ts';
import { type Condition, GATES, gateOf } from './gates.ts';
import type { PlotFile } from './plots.ts';
import type { Failure, Measured, Results } from './results.ts';

const MADE_BY = '<!-- Made by `npm run bench -- all --report DIR`: do not edit. -->';

const INTRO = `# Performance

Each figure is compared with a program that does the same work: a minimal program in C, nginx, or a program for Node.js
over the kernel's TCP. They run in turns, and a ratio is computed within each turn; only ratios may be compared between
machines and days. [bench.md](bench.md) has the method of each row. Brackets have the least and the greatest value of
the counted rounds.`;

const REPEAT = `## How to repeat

\`\`\`
npm run bench -- all --report DIR         # everything; as root, on a machine that does nothing else
npm run bench -- NAME… --report DIR       # some rows; the rest stays as it was measured before
npm run bench -- compare REV NAME…        # this revision and another one, in pairs
\`\`\``;

/** Text for a cell of a table. */
function cell(text: string | number): string {
  return String(text).replaceAll('|', '\\|').replaceAll('\n', '<br>');
}

/** A table without the columns that are empty in all rows. */
function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const used = head.map((_title, i) => rows.some((cells) => cells[i] !== ''));
  const tableLine = (cells: readonly (string | number)[]): string =>
    `| ${cells
      .filter((_cell, i) => used[i])
      .map(cell)
      .join(' | ')} |`;
  return [tableLine(head), tableLine(head.map(() => '---')), ...rows.map(tableLine)].join('\n');
}

/** A condition with what became of it. */
function verdict(condition: Condition | null | undefined, row: Row, all: readonly Row[]): string {
  if (condition === null || condition === undefined) return '';
  const { text, holds } = condition;
  const met = holds(row, all);
  if (met === null) return `${text}: not measured`;
  return met ? `${text}: met` : `${text}: **missed**`;
}

/** Which way the bytes went, in short. */
function pathText({ path }: Row): string {
  const { engine, mode, napi, family } = path;
  const words = [engine, mode, napi === 'off' ? null : `napi ${String(napi)}`, family];
  return words.filter((word) => typeof word === 'string' && !word.includes('undefined')).join(', ');
}

const HEAD = ['row', 'ours', 'baselines', 'ratio', 'gate', 'goal', 'CPU', 'CPU, other end', 'path'];

/** A line of the table: ours, then each baseline on a line of its own. */
function line(row: Row, all: readonly Row[]): (string | number)[] {
  const sides = baselinesOf(row);
  const gate = gateOf(row);
  const peers = [row, ...sides].map(({ peerCpu }) => peerCpu ?? '-');
  return [
    `\`${row.name}\``,
    `${row.value} ${rangeText(row.spread)} ${row.unit}${row.conditions['noisy'] === true ? ', noisy' : ''}`,
    sides.map(({ name, value }) => `${name}: ${value}`).join('\n'),
    sides.map(({ ratio, ratioSpread }) => `**${ratio}** ${rangeText(ratioSpread)}`).join('\n'),
    verdict(gate?.gate, row, all),
    verdict(gate?.goal, row, all),
    [cpuText(row), ...sides.map((side) => cpuOf(side) || '-')].join(' : '),
    peers.every((peer) => peer === '-') ? '' : peers.join(' : '),
    pathText(row),
  ];
}

/** The line of a row that has a gate and no figure. */
function missingLine(name: string, why: string): string[] {
  const gate = gateOf({ name });
  const texts = [gate?.gate?.text ?? '', gate?.goal.text ?? ''];
  return [`\`${name}\``, `not measured: ${why}`, '', '', ...texts, '', '', ''];
}

/** The table of one bench, with what it could not measure. */
function section(
  bench: string,
  measured: readonly Measured[],
  failures: readonly Failure[],
  all: readonly Row[],
): string {
  const lines = [
    ...measured.map(({ row }) => line(row, all)),
    ...failures.map(({ name, why }) => missingLine(name, why)),
  ];
  const description = benches.find(({ name }) => name === bench)?.description ?? '';
  return `### ${bench}\n\n${description}\n\n${table(HEAD, lines)}`;
}

/** The rows with a gate, in the order of the gates; then one section for each bench. */
function figures({ measured, failures }: Results): string {
  const rows = measured.map(({ row }) => row);
  const gates = GATES.map(({ row: name }) => {
    const row = rows.find((of) => of.name === name);
    if (row !== undefined) return line(row, rows);
    const failure = failures.find((of) => of.name === name);
    return missingLine(name, failure?.why ?? 'not run');
  });
  const gated = new Set(GATES.map(({ row }) => row));
  const known = benches.map(({ name }) => name);
  const names = new Set([...measured, ...failures].map(({ bench }) => bench));
  const sections = [...names]
    .sort((a, b) => known.indexOf(a) - known.indexOf(b))
    .map((bench) => {
      const of = measured.filter((entry) => entry.bench === bench && !gated.has(entry.row.name));
      const not = failures.filter((entry) => entry.bench === bench && !gated.has(entry.name));
      return of.length + not.length === 0 ? '' : section(bench, of, not, rows);
    });
  return [
    '## Gates and goals',
    'CPU is in seconds per 10^9 bytes or in microseconds per request: ours, then each baseline.',
    table(HEAD, gates),
    '## Further rows',
    ...sections.filter((text) => text !== ''),
  ].join('\n\n');
}

function latencies(rows: readonly Row[]): string {
  const lines = rows
    .filter(({ latency }) => latency !== undefined)
    .map((row) => [
      `\`${row.name}\``,
      latencyText(row),
      baselinesOf(row)
        .map((side) => `${side.name}: ${latencyText(side) || '-'}`)
        .join('\n'),
    ]);
  if (lines.length === 0) return '';
  return `## Latency\n\n${table(['row', 'ours, p50 / p99 µs', 'baselines'], lines)}`;
}

function factText(fact: Fact): string {
  return Array.isArray(fact) ? fact.join('; ') : String(fact);
}

/** Conditions of each row that is not like those of all the others, and the proofs of the paths. */
function details(measured: readonly Measured[]): string {
  const rows = measured.map(({ row }) => row);
  const same = (key: string): boolean =>
    rows.every(({ conditions }) => {
      const first = rows[0]!.conditions[key];
      return JSON.stringify(conditions[key]) === JSON.stringify(first);
    });
  const keys = Object.keys(rows[0]?.conditions ?? {}).filter(same);
  const shared = keys.map((key) => [key, factText(rows[0]!.conditions[key]!)]);
  const facts = (of: Record<string, Fact>, without: readonly string[]): string =>
    Object.entries(of)
      .filter(([key]) => !without.includes(key))
      .map(([key, fact]) => `${key} ${factText(fact)}`)
      .join(', ');
  const lines = measured.map(({ row, at, revision, quick }) => [
    `\`${row.name}\``,
    `${at}, ${revision}${quick ? ', **quick: no figure**' : ''}, rounds: ${row.runs}`,
    facts(row.conditions, keys),
    facts(row.path, []),
  ]);
  return [
    '## Conditions',
    table(['condition of all rows', ''], shared),
    'When each row was measured, its own conditions, and the counters that prove its path:',
    table(['row', 'measured', 'conditions', 'path'], lines),
  ].join('\n\n');
}

/** The page: `notes` is text about the costs, written by hand. */
export function pageOf(results: Results, plots: readonly PlotFile[], notes: string): string {
  const order = benches.map(({ name }) => name);
  const measured = [...results.measured].sort(
    (a, b) => order.indexOf(a.bench) - order.indexOf(b.bench),
  );
  const images = plots.map(({ title, file }) => `![${title}](${file})`);
  const parts = [
    MADE_BY,
    INTRO,
    measured.some(({ quick }) => quick)
      ? '**Some rows were measured with `--quick`: their figures mean nothing.**'
      : '',
    figures({ ...results, measured }),
    images.length === 0 ? '' : ['## Plots', ...images].join('\n\n'),
    latencies(measured.map(({ row }) => row)),
    notes.trim(),
    measured.length === 0 ? '' : details(measured),
    REPEAT,
  ];
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`;
}
