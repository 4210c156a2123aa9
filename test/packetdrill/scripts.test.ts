import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { packageRoot } from '../support/root.ts';
import { runScript } from './runner.ts';

const folder = join(packageRoot(), 'test/packetdrill');
const files = readdirSync(folder)
  .filter((name) => name.endsWith('.pkt'))
  .sort();

describe('packetdrill scripts on virtual time', () => {
  it('has at least sixty scripts', () => {
    expect(files.length).to.be.at.least(60);
  });

  for (const name of files) {
    const text = readFileSync(join(folder, name), 'utf8');
    it(`${name}: ${/^\/\/ *(.*)/.exec(text)?.[1] ?? ''}`, () => {
      expect(text, 'section in the first line').to.match(/^\/\/ (RFC \d+|FreeBSD|POSIX)/);
      runScript(name, text);
    });
  }
});
