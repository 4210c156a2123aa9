import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import { unusedExports } from './exports.ts';
import { parsePackage } from './program.ts';

describe('unusedExports', function () {
  this.timeout(60_000);
  const dir = mkdtempSync(join(tmpdir(), 'tapnic-exports-'));
  after(() => rmSync(dir, { recursive: true }));

  /** Name and `own` of what is found in the files. */
  function found(files: Record<string, string>): [string, boolean][] {
    rmSync(dir, { recursive: true });
    const settings = { compilerOptions: { noEmit: true, types: [] }, include: ['src', 'test'] };
    for (const [path, text] of Object.entries({
      'tsconfig.json': JSON.stringify(settings),
      ...files,
    })) {
      mkdirSync(dirname(join(dir, path)), { recursive: true });
      writeFileSync(join(dir, path), text);
    }
    return unusedExports(parsePackage(dir)).map(({ name, own }) => [name, own]);
  }

  it('returns each unused export, and whether its own file uses it', () => {
    const a = `export const x = 1, y = 2;
      export function f(): I { return { n: x }; }
      export interface I { n: number }
      export class C {}
      export type T = number;`;
    expect(found({ 'src/kern/a.ts': a })).to.deep.equal([
      ['x', true],
      ['y', false],
      ['f', false],
      ['I', true],
      ['C', false],
      ['T', false],
    ]);
  });

  it('leaves out exports that another file imports, in every form of import', () => {
    const a = 'export const x = 1, y = 2; export type T = number;';
    for (const taking of [
      "import { x, y as z, type T } from '../src/a.ts';",
      "import * as a from '../src/a.ts';",
      "export * from '../src/a.ts';",
      "export { x, y as default, type T } from '../src/a.ts';",
      "const a = await import('../src/a.ts'); export {};",
    ])
      expect(found({ 'src/a.ts': a, 'test/b.ts': taking }), taking).to.deep.equal([]);
    expect(found({ 'src/a.ts': a, 'test/b.ts': "import '../src/a.ts';" })).to.have.lengthOf(3);
  });

  it('leaves out the library and the public API', () => {
    expect(found({ 'src/a.ts': '/** A library routine. */\nexport const x = 1;' })).to.be.empty;
    expect(found({ 'src/a.ts': '/** The library of sglist(9). */\n\nexport const x = 1;' })).to.be
      .empty;
    expect(found({ 'src/a.ts': '/** A routine. */\nexport const x = 1;' })).to.have.lengthOf(1);
    expect(found({ 'src/index.ts': 'export const x = 1;' })).to.deep.equal([]);
  });
});
