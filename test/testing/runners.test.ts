/** The fixtures under mocha and node:test: what failing and skipped tests print and leave. */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { needsHere } from '../support/needs.ts';
import { linkPackage } from '../support/linked.ts';
import { packageRoot } from '../support/root.ts';

/** A test that hangs, one that fails, one that passes, one that needs root. */
const BODY = `
import { setTimeout as sleep } from 'node:timers/promises';
import { expectFrames, withLink, withStack } from 'tapnic/testing';
describe('suite', () => {
  it('hangs', LIMIT withLink(() => new Promise(() => {})));
  it('fails', withLink(({ client }) => expectFrames(client, ['> S'])));
  it('passes', withLink(async ({ client }) => expectFrames(client, [])));
  it('needs root', withStack(async () => {}));
});
`;

/** Runs a program without capabilities. */
const UNPRIVILEGED = ['setpriv', '--bounding-set', '-all', '--inh-caps', '-all'];

interface Ran {
  status: number | null;
  text: string;
  files: string[];
}

describe('testing: runners', function () {
  this.timeout(60_000);
  const dir = mkdtempSync(join(tmpdir(), 'tapnic-runners-'));
  const failures = join(dir, 'failures');
  after(() => rmSync(dir, { recursive: true }));

  before(() => linkPackage(dir));

  function run(
    name: string,
    text: string,
    args: string[],
    env: NodeJS.ProcessEnv = {},
    prefix: string[] = [],
  ): Ran {
    writeFileSync(join(dir, name), text);
    rmSync(failures, { recursive: true, force: true });
    const [command, ...commandArgs] = [...prefix, process.execPath, ...args, name];
    const { status, stdout, stderr } = spawnSync(command, commandArgs, {
      cwd: dir,
      encoding: 'utf8',
      timeout: 50_000,
      env: { ...process.env, NODE_TEST_CONTEXT: undefined, TAPNIC_FAILURES: failures, ...env },
    });
    let files: string[] = [];
    try {
      files = readdirSync(failures).sort();
    } catch {
      // Nothing was kept.
    }
    return { status, text: stdout + stderr, files };
  }

  const mocha = join(packageRoot(), 'node_modules/mocha/bin/mocha.js');
  const FILES = ['fails', 'hangs'].flatMap((test) =>
    ['client', 'server'].flatMap((stack) =>
      ['html', 'pcapng'].map((end) => `suite-${test}.${stack}.${end}`),
    ),
  );
  it('mocha: a hanging test ends in time, a failed one keeps its capture, the next one passes', () => {
    const text = BODY.replace('LIMIT', '').replace(
      "  it('needs root', withStack(async () => {}));\n",
      '',
    );
    const { status, text: out, files } = run('a.mjs', text, [mocha, '--timeout', '1000']);
    expect(status, out).to.equal(2);
    expect(out).to.include('1 passing').and.include('2 failing');
    expect(out).to.include('the time limit of 1000 ms is over');
    expect(out).to.include('client: 1 frame expected, 0 passed: frame 1 is missing');
    expect(out).to.include('suite-fails.client.pcapng');
    expect(files).to.deep.equal(FILES);
  });

  it('node:test: the same', () => {
    const text = `import { describe, it } from 'node:test';${BODY.replace('LIMIT', '{ timeout: 1000 },')}`;
    const { text: out, files } = run('b.mjs', text.replace(/.*needs root.*\n/, ''), ['--test']);
    expect(out).to.include('# pass 1');
    expect(out).to.match(/# (fail 2|fail 1\n# cancelled 1)/);
    expect(out).to.include('client: 1 frame expected, 0 passed: frame 1 is missing');
    expect(files).to.deep.equal(FILES);
  });

  it('skip a test where privileges are missing, and say so; fail with TAPNIC_REQUIRE=1', function () {
    needsHere(this, 'root', 'setpriv');
    const only = BODY.replace(/.*'(hangs|fails|passes)'.*\n/g, '');
    const optional = { TAPNIC_REQUIRE: '0' };
    const skipped = run('c.mjs', only, [mocha], optional, UNPRIVILEGED);
    expect(skipped.text).to.include('tapnic: skipped "suite needs root": ');
    expect(skipped.text).to.include('1 pending');
    expect(skipped.status, skipped.text).to.equal(0);
    const failed = run('c.mjs', only, [mocha], { TAPNIC_REQUIRE: '1' }, UNPRIVILEGED);
    expect(failed.text).to.include('missing, and required: ');
    expect(failed.status).to.equal(1);
    const node = `import { describe, it } from 'node:test';${only}`;
    const { text } = run('d.mjs', node, ['--test'], optional, UNPRIVILEGED);
    expect(text)
      .to.match(/# SKIP .*run as root/)
      .and.match(/skipped "(suite > )?needs root"/);
  });
});
