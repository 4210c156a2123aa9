import { expect } from 'chai';
import { unusedExports } from './support/exports.ts';
import { parsePackage } from './support/program.ts';
import { packageRoot } from './support/root.ts';

describe('exports', () => {
  it('are used by another file, or public, or labelled as library', () => {
    const found = unusedExports(parsePackage(packageRoot())).map(
      ({ path, line, name, own }) =>
        `${path}:${line}: ${name}${own ? ': used in its file only' : ''}`,
    );
    expect(found).to.deep.equal([]);
  }).timeout(60_000);
});
