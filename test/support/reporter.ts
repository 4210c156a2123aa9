/**
 * Mocha's spec reporter. At the end it prints each skipped title with its reason and, as the last
 * line, the plain `N passed, N failed, N skipped` that scripts read.
 */

import mocha from 'mocha';
import { skippedSuites } from './needs.ts';

const { EVENT_TEST_PENDING } = mocha.Runner.constants;

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

  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    runner.on(EVENT_TEST_PENDING, (test) => this.#skipped.push(test));
  }

  override epilogue(): void {
    super.epilogue();
    for (const test of this.#skipped) console.log(`skipped: ${test.fullTitle()}${reasonOf(test)}`);
    const { passes, failures, pending } = this.stats;
    console.log(`${passes} passed, ${failures} failed, ${pending} skipped`);
  }
}
