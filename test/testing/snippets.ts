/** The examples of docs/testing-kit.md and the README, and what a failing one prints. */

import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { packageRoot } from '../support/root.ts';

/** An example, for the runner that its imports name. */
export interface Snippet {
  /** The document's name and the line in it, joined. */
  name: string;
  code: string;
  runner: 'mocha' | 'node' | 'vitest' | 'jest';
  /** The message of its failure; null: it passes. */
  fails: string | null;
}

function runnerOf(code: string): Snippet['runner'] {
  if (code.includes("from 'vitest'")) return 'vitest';
  if (code.includes("from 'node:test'")) return 'node';
  return code.includes('require(') ? 'jest' : 'mocha';
}

/** All examples of the kit, in order. */
export function snippets(): Snippet[] {
  return ['README.md', 'docs/testing-kit.md'].flatMap(snippetsIn);
}

function snippetsIn(document: string): Snippet[] {
  const markdown = readFileSync(join(packageRoot(), document), 'utf8');
  const block = /^```js\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?/gms;
  return [...markdown.matchAll(block)].map(({ index, 1: code, 2: fails }) => ({
    name: `${basename(document, '.md')}${markdown.slice(0, index).split('\n').length}`,
    code: code!,
    runner: runnerOf(code!),
    fails: fails ?? null,
  }));
}
