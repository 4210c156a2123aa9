/** Runs the shell examples of the documentation unchanged. */

import { expect } from 'chai';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { cliMain, packageRoot } from '../support/root.ts';
import { seededBytes } from '../support/served.ts';

/** The code blocks of a document that start an instance. */
function examples(document: string): string[] {
  const text = readFileSync(join(packageRoot(), document), 'utf8');
  return [...text.matchAll(/^```\n([^]*?)^```$/gm)]
    .map((m) => m[1]!)
    .filter((block) => /tapnic serve DIR/.test(block));
}

/** Turns a block into a script: start the instance in the background, run its clients, stop it. */
function scriptOf(block: string): string {
  const lines = block.replaceAll('./scripts/tapnic', 'tapnic').split('\n');
  const serve = lines.findIndex((line) => line.startsWith('tapnic serve'));
  const [command] = lines[serve]!.split(/\s*(?:&|#)/);
  return [
    'set -eu',
    `${command} & instance=$!`,
    'for i in $(seq 100); do tapnic netstat -m >/dev/null 2>&1 && break; sleep 0.1; done',
    ...lines.slice(serve + 1),
    'kill $instance; wait $instance',
  ].join('\n');
}

describe('commands: the documentation', function () {
  needs('root', 'tap', 'netns', 'curl');
  this.timeout(240_000);

  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-docs-'));
    mkdirSync(join(dir, 'DIR'));
    mkdirSync(join(dir, 'bin'));
    writeFileSync(join(dir, 'DIR', 'file'), seededBytes(300_000, 1));
    const tapnic = join(dir, 'bin', 'tapnic');
    writeFileSync(tapnic, `#!/bin/sh\nexec ${process.execPath} ${cliMain} "$@"\n`);
    chmodSync(tapnic, 0o755);
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  for (const document of ['README.md', 'docs/usage.md', 'docs/vlan-lagg.md', 'docs/capture.md']) {
    it(`${document}: the example commands work`, async () => {
      const blocks = examples(document);
      expect(blocks).not.to.have.length(0);
      for (const block of blocks) {
        using ns = new Netns();
        const path = `${join(dir, 'bin')}:${process.env['PATH']}`;
        const script = `export PATH='${path}' TAPNIC_RUNDIR='${dir}'; cd '${dir}'\n${scriptOf(block)}`;
        const { status, stdout, stderr } = await ns.run('bash', ['-c', script], {
          timeoutMs: 200_000,
        });
        expect(status, `${script}\n${stdout}${stderr}`).to.equal(0);
        if (block.includes('netstat -m')) expect(stdout).to.match(/mbufs in use/);
        if (block.includes('fault list')) expect(stdout).to.match(/drop rate 0\.01 seed 1: \d+ of/);
        if (block.includes('curl'))
          expect(readFileSync(join(dir, 'file')).equals(seededBytes(300_000, 1))).to.equal(true);
      }
    });
  }
});
