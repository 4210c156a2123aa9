/** The report of a call: merges its rows into the results in a directory, and makes the page again. */

import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { format, resolveConfig } from 'prettier';
import type { Bench } from '../bench.ts';
import type { Row } from '../result.ts';
import { pageOf } from './page.ts';
import { plotsOf } from './plots.ts';
import { type Origin, readResults, type Results, revision, writeResults } from './results.ts';

const PAGE = 'performance.md';
/** Text about the costs, written by hand, which the page includes. */
const NOTES = 'performance-notes.md';

export class Report {
  readonly #dir: string;
  readonly #quick: boolean;
  readonly #results: Results;
  readonly #revision = revision();

  /** Creates `dir` if necessary. */
  constructor(dir: string, quick: boolean) {
    mkdirSync(dir, { recursive: true });
    this.#dir = dir;
    this.#quick = quick;
    this.#results = readResults(dir);
  }

  #origin({ name }: Bench): Origin {
    const at = `${new Date().toISOString().slice(0, 16)}Z`;
    return { bench: name, at, revision: this.#revision, quick: this.#quick };
  }

  /** Removes everything of `bench`, before it is measured again. */
  forget({ name }: Bench): void {
    const results = this.#results;
    results.measured = results.measured.filter(({ bench }) => bench !== name);
    results.failures = results.failures.filter(({ bench }) => bench !== name);
  }

  /** Removes what is known of a row. */
  #drop(name: string): void {
    const results = this.#results;
    results.measured = results.measured.filter(({ row }) => row.name !== name);
    results.failures = results.failures.filter((failure) => failure.name !== name);
  }

  /** Adds rows of `bench`, in place of earlier ones with their names. */
  add(bench: Bench, rows: readonly Row[]): void {
    for (const row of rows) {
      this.#drop(row.name);
      this.#results.measured.push({ ...this.#origin(bench), row });
    }
  }

  /** Records that the row or bench `name` could not be measured. */
  fail(bench: Bench, name: string, why: string): void {
    this.#drop(name);
    this.#results.failures.push({ ...this.#origin(bench), name, why });
  }

  /** Writes the results, and the page and plots of all results. */
  async write(): Promise<void> {
    writeResults(this.#dir, this.#results);
    for (const name of readdirSync(this.#dir))
      if (/^performance-.*\.svg$/.test(name)) rmSync(join(this.#dir, name));
    const plots = plotsOf(this.#results.measured.map(({ row }) => row));
    for (const { file, svg } of plots) writeFileSync(join(this.#dir, file), svg);
    const page = join(this.#dir, PAGE);
    const text = pageOf(this.#results, plots, this.#notes());
    const options = { ...(await resolveConfig(page)), parser: 'markdown' };
    writeFileSync(page, await format(text, options));
  }

  #notes(): string {
    try {
      return readFileSync(join(this.#dir, NOTES), 'utf8');
    } catch {
      return '';
    }
  }
}
