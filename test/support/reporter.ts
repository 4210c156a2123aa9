/**
 * Mocha's spec reporter. At the end it prints each skipped title with its reason and, as the last
 * line, the plain `N passed, N failed, N skipped` that scripts read. If TAPNIC_DURATIONS names a
 * file, it appends the duration of each test: milliseconds, a tab, the full title.
 */

import { appendFileSync } from 'node:fs';
import mocha from 'mocha';
import { skippedSuites } from './needs.ts';

const { EVENT_TEST_END, EVENT_TEST_PENDING } = mocha.Runner.constants;

/** The reason that `needs()` gave for the nearest suite around `test`. */
function reasonOf(test: Mocha.Test): string {
  for (let suite = test.parent; suite; suite = suite.parent) {
    const why = skippedSuites.get(suite.fullTitle());
    if (why !== undefined) return ` (${why})`;
  }
  return '';
}

export default class PlainReporter extends mocha.reporters.Spec {
  readonly #skipped: Mocha.Test[] = [];
  readonly #durations: string[] = [];

  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    runner.on(EVENT_TEST_PENDING, (test) => this.#skipped.push(test));
    runner.on(EVENT_TEST_END, (test) => {
      // A skipped test has no duration.
      if (test.duration !== undefined)
        this.#durations.push(`${test.duration}\t${test.fullTitle().replace(/\s+/g, ' ')}\n`);
    });
  }

  override epilogue(): void {
    super.epilogue();
    for (const test of this.#skipped) console.log(`skipped: ${test.fullTitle()}${reasonOf(test)}`);
    const path = process.env['TAPNIC_DURATIONS'];
    if (path !== undefined) appendFileSync(path, this.#durations.join(''));
    const { passes, failures, pending } = this.stats;
    console.log(`${passes} passed, ${failures} failed, ${pending} skipped`);
  }
}
