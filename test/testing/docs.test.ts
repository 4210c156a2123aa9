/** docs/testing-kit.md: the examples for mocha and node:test pass; those for vitest and jest run in test/package. */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { linkPackage } from '../support/linked.ts';
import { needs } from '../support/needs.ts';
import { type Snippet, snippets } from './snippets.ts';

/** Settings of the run that started this one. */
const UNSET = {
  TAPNIC_FAILURES: undefined,
  TAPNIC_UPDATE: undefined,
  NODE_TEST_CONTEXT: undefined,
};

describe('testing: docs/testing-kit.md', function () {
  needs('root', 'tap', 'netns', 'curl');
  this.timeout(60_000);
  const dir = mkdtempSync(join(tmpdir(), 'tapnic-kit-docs-'));
  const all = snippets();
  after(() => rmSync(dir, { recursive: true }));

  before(() => linkPackage(dir, 'chai', 'mocha'));

  function run(args: string[]): { status: number | null; text: string } {
    const { status, stdout, stderr } = spawnSync(process.execPath, args, {
      cwd: dir,
      encoding: 'utf8',
      timeout: 50_000,
      env: { ...process.env, ...UNSET },
    });
    return { status, text: stdout + stderr };
  }

  /** Writes the examples to files. Returns their names. */
  function files(wanted: readonly Snippet[]): string[] {
    return wanted.map(({ name, code }) => {
      const file = `${name}.test.mjs`;
      writeFileSync(join(dir, file), code);
      return file;
    });
  }

  const of = (runner: Snippet['runner']): Snippet[] =>
    all.filter((one) => one.runner === runner && one.fails === null);
  const mocha = 'node_modules/mocha/bin/mocha.js';

  it('has examples for each runner', () => {
    const runners = ['mocha', 'node', 'vitest', 'jest'] as const;
    expect(runners.map((runner) => of(runner).length)).to.deep.equal([7, 1, 1, 1]);
  });

  it('has examples that pass with mocha, the golden capture written first', () => {
    const names = files(of('mocha'));
    // The argument reaches the fixture through mocha.
    const written = run([mocha, ...names, '--update']);
    expect(written.status, written.text).to.equal(0);
    expect(written.text).to.include(`${names.length + 1} passing`);
    const golden = names[of('mocha').findIndex(({ code }) => code.includes('expectCapture'))]!;
    const { status, text } = run([mocha, golden]);
    expect(status, text).to.equal(0);
  });

  it('has examples that pass with node:test', () => {
    const { status, text } = run(['--test', ...files(of('node'))]);
    expect(status, text).to.equal(0);
    expect(text).to.include('# fail 0');
  });

  it('shows the message of a failure', () => {
    const failing = all.filter(({ fails }) => fails !== null);
    expect(failing).to.have.lengthOf(1);
    const { text } = run([mocha, ...files(failing)]);
    const plain = text.replace(/(192\.0\.2\.1\.)\d+/g, '$1PORT').replace(/^ +/gm, '');
    for (const line of failing[0]!.fails!.split('\n')) expect(plain).to.include(line.trimStart());
  });
});
