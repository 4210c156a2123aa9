/** docs/api.md: every example is a program that prints what its comments say. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { linkPackage } from '../support/linked.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { packageRoot } from '../support/root.ts';

interface Example {
  /** Line in the document. */
  line: number;
  code: string;
  prints: string[];
}

function examples(markdown: string): Example[] {
  return [...markdown.matchAll(/^```js\n(.*?)^```/gms)].map((found) => ({
    line: markdown.slice(0, found.index).split('\n').length,
    code: found[1]!,
    prints: [...found[1]!.matchAll(/\/\/ prints: (.*)$/gm)].map(([, text]) => text!),
  }));
}

describe('api: docs/api.md', () => {
  needs('root', 'tap', 'netns', 'curl');
  const dir = mkdtempSync(join(tmpdir(), 'tapnic-docs-'));
  const found = examples(readFileSync(join(packageRoot(), 'docs/api.md'), 'utf8'));

  before(() => linkPackage(dir, 'undici'));
  after(() => rmSync(dir, { recursive: true, force: true }));

  it('has examples', () => {
    expect(found.length).to.be.at.least(8);
    expect(found.filter(({ prints }) => prints.length === 0)).to.deep.equal([]);
  });

  for (const { line, code, prints } of found)
    it(`line ${line} prints ${prints.join(', ')}`, async () => {
      using ns = new Netns('docs');
      const program = join(dir, `line${line}.mjs`);
      writeFileSync(program, code);
      const { status, stdout, stderr } = await ns.run(process.execPath, [program], { cwd: dir });
      expect({ status, lines: stdout.split('\n'), stderr }).to.deep.equal({
        status: 0,
        lines: [...prints, ''],
        stderr: '',
      });
    });
});
