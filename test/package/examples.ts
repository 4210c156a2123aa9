/** The projects of examples/, and the examples of the documentation for vitest and jest, with the packed tarball. */

import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { full } from '../support/needs.ts';
import { packageRoot } from '../support/root.ts';
import { type Snippet, snippets } from '../testing/snippets.ts';

/** Runs a program that must succeed. Returns its output. */
type Must = (cwd: string, program: string, ...args: string[]) => string;

const INSTALL = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline'];
const PROJECTS = ['http-retry-mocha', 'line-protocol-vitest'] as const;

function snippetFor(runner: Snippet['runner']): string {
  return snippets().find((one) => one.runner === runner)!.code;
}

const TYPED = `
import { expectFrames, type FramePattern, matchers, type TapnicMatchers, withLink, withStack } from 'tapnic/testing';
const syn: FramePattern = { flags: 'S', options: ['mss 1460'] };
export const test = withLink({ stacks: { left: {}, right: {} }, delayMs: 5 }, async ({ left, right, link, advance }) => {
  await expectFrames(left, ['> S', syn], { ignore: ['arp', 'nd'], withinMs: 10 });
  await advance(link.now);
  return right.info;
});
export const two = withLink(({ client, server }) => [client.info, server.info]);
export const three = withStack({ mtu: 1400, keepCapture: false }, ({ stack, addr, netns }) => [stack.info, addr.length, netns]);
// @ts-expect-error no such stack
withLink(({ nobody }) => nobody);
// @ts-expect-error no such field
void ({ nonesuch: 1 } satisfies FramePattern);
declare const expected: TapnicMatchers;
export const free: Promise<void> = expected.toBeLeakFree();
export const names: string[] = Object.keys(matchers);
`;
const TYPED_COMMONJS = `
import { matchers, type Frame } from 'tapnic/testing/matchers';
export const result: boolean = matchers.toHaveDropped({}, 'udp.no_socket', 1).pass;
export const length = (frame: Frame): number => frame.payload.length;
`;

/** @param work an empty folder outside the checkout */
export function exampleTests(work: string, tarball: () => string, must: Must): void {
  const dir = join(work, 'projects');

  before(() => {
    // One installation for both, because each takes seconds.
    cpSync(join(packageRoot(), 'examples'), dir, { recursive: true });
    const dependencies = { tapnic: `file:${tarball()}` };
    const root = { private: true, workspaces: PROJECTS, dependencies };
    writeFileSync(join(dir, 'package.json'), JSON.stringify(root));
    must(dir, 'npm', ...INSTALL);
  });

  it('the retries of an HTTP client, with mocha', () => {
    expect(must(join(dir, PROJECTS[0]), 'npm', 'test')).to.include('1 passing');
  });

  it('a client of a line protocol, with vitest, and the example of the documentation', () => {
    const project = join(dir, PROJECTS[1]);
    writeFileSync(join(project, 'test/docs.test.js'), snippetFor('vitest'));
    expect(must(project, 'npm', 'test')).to.match(/Tests .*5 passed/);
  });

  it('the test of the HTTP client has 20 lines', () => {
    const file = join(packageRoot(), 'examples/http-retry-mocha/test/retry.test.js');
    expect(readFileSync(file, 'utf8').trimEnd().split('\n')).to.have.length.at.most(20);
  });

  it('the matchers are CommonJS', () => {
    const code =
      "const { matchers, tapnicChai } = require('tapnic/testing/matchers');" +
      'console.log(Object.keys(matchers).join(), typeof tapnicChai, matchers.toBeLeakFree({}).pass)';
    const flags = ['--no-experimental-require-module', '--input-type=commonjs'];
    expect(must(join(work, 'app'), process.execPath, ...flags, '-e', code)).to.equal(
      'toHaveSentFrame,toHaveDropped,toBeLeakFree function true\n',
    );
    const kit = "console.log(typeof require('tapnic/testing').withLink)";
    expect(must(join(work, 'app'), process.execPath, '--input-type=commonjs', '-e', kit)).to.equal(
      'function\n',
    );
  });

  it('the kit has types, and so have the matchers as CommonJS', () => {
    const app = join(work, 'app');
    writeFileSync(join(app, 'kit.mts'), TYPED);
    writeFileSync(join(app, 'matchers.cts'), TYPED_COMMONJS);
    const typeRoots = [join(packageRoot(), 'node_modules/@types')];
    const compilerOptions = { target: 'es2023', module: 'nodenext', strict: true, noEmit: true };
    const settings = { compilerOptions: { ...compilerOptions, types: ['node'], typeRoots } };
    writeFileSync(
      join(app, 'tsconfig.kit.json'),
      JSON.stringify({ ...settings, files: ['kit.mts', 'matchers.cts'] }),
    );
    must(app, join(packageRoot(), 'node_modules/.bin/tsc'), '-p', 'tsconfig.kit.json');
  });

  // The installation of jest takes longer than all of the above.
  if (full)
    it('jest runs the example of the documentation', () => {
      const alone = join(work, 'jest');
      mkdirSync(alone);
      writeFileSync(join(alone, 'package.json'), '{"private":true}\n');
      writeFileSync(join(alone, 'docs.test.js'), snippetFor('jest'));
      must(alone, 'npm', ...INSTALL, tarball(), 'jest@30');
      const jest = 'node_modules/jest/bin/jest.js';
      must(alone, process.execPath, '--experimental-vm-modules', jest);
    });
}
