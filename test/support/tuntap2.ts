/** Programs that load a stand-in for the npm package tuntap2: test/tap/fake_tuntap2.ts. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { distRoot } from './root.ts';

/** Hooks of Node's module loader, in a temporary directory: `using fake = new FakeTuntap2()`. */
export class FakeTuntap2 implements Disposable {
  readonly #dir = mkdtempSync(join(tmpdir(), 'tapnic-tuntap2-'));

  constructor() {
    const fake = JSON.stringify(pathToFileURL(join(distRoot, 'test/tap/fake_tuntap2.js')));
    writeFileSync(
      join(this.#dir, 'hooks.mjs'),
      `export const resolve = (specifier, context, next) =>
         specifier === 'tuntap2' ? { url: ${fake}, shortCircuit: true } : next(specifier, context);`,
    );
    writeFileSync(
      join(this.#dir, 'register.mjs'),
      `import { register } from 'node:module'; register('./hooks.mjs', import.meta.url);`,
    );
  }

  /** A program with arguments that executes node with the hooks. */
  get wrapper(): string[] {
    const { href } = pathToFileURL(join(this.#dir, 'register.mjs'));
    return ['env', `NODE_OPTIONS=--import=${href}`];
  }

  [Symbol.dispose](): void {
    rmSync(this.#dir, { recursive: true });
  }
}
