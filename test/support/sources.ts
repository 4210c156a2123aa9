/** The sources as text: their list, comments removed, and what they import. For checks of the tree. */

import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join, posix } from 'node:path';
import { packageRoot } from './root.ts';

const root = packageRoot();

export interface Source {
  /** From the package root, with forward slashes. */
  path: string;
  text: string;
  /** The text without comments; what is in string literals stays. */
  code: string;
}

/**
 * Replaces comments by spaces, line breaks kept. Strings, templates and regular expressions are
 * recognised only as far as a comment's beginning inside them must not count.
 */
export function stripComments(text: string): string {
  const token =
    /\/\*[^]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`|(?<=[=(,:[!&|?{};]\s*)\/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\//g;
  return text.replace(token, (found) =>
    found.startsWith('/*') || found.startsWith('//') ? found.replace(/[^\n]/g, ' ') : found,
  );
}

/** Every file below a folder of the package, from the package root. Empty if there is no folder. */
export function filesBelow(dir: string): string[] {
  if (!existsSync(join(root, dir))) return [];
  return readdirSync(join(root, dir), { withFileTypes: true }).flatMap((entry) => {
    const path = posix.join(dir, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

/** Reads the TypeScript files among `paths`. */
export function readSources(paths: readonly string[]): Source[] {
  return paths
    .filter((path) => path.endsWith('.ts'))
    .map((path) => {
      const text = readFileSync(join(root, path), 'utf8');
      return { path, text, code: stripComments(text) };
    });
}

/** Module specifiers of imports, re-exports, `import()` and `require()`, import types included. */
export function specifiers(code: string): string[] {
  const patterns = [
    /\bfrom\s*(['"])([^'"\n]+)\1/g,
    /(?:^|[;\n])\s*import\s*(['"])([^'"\n]+)\1/g,
    /\b(?:import|require)\s*\(\s*(['"`])([^'"`\n]+)\1/g,
  ];
  return patterns.flatMap((pattern) => [...code.matchAll(pattern)].map((found) => found[2]!));
}
