/**
 * Which suites a change can affect, by what each test file imports or names. A rule covers what no
 * import shows: the addon, the command line started as a program, folders read as a whole. A file
 * without a rule, and without a test file that reaches it, selects every suite.
 */

import { posix } from 'node:path';
import type { Source } from './sources.ts';
import { specifiers } from './sources.ts';

type Tree = Pick<Source, 'path' | 'code'>;

/** Changes to these can affect every suite. */
const EVERY_SUITE =
  /^(package(-lock)?\.json|tsconfig\.json|\.mocharc\.cjs|\.npmrc|types\/.*|scripts\/(lib\.sh|test)|test\/support\/reporter\.ts)$/;

/** Settings of tools, and scripts that no suite runs. They select only tidy. */
const NO_SUITE =
  /^(\.prettier|\.oxlintrc|\.gitignore|\.dockerignore|LICENSE|Dockerfile|\.ci\/|scripts\/(sanitize|fuzz)\.sh$|scripts\/image)/;

/** Files that the package suite does not pack. A change of any other file selects that suite. */
const NOT_PACKED = /^(test|\.ci)\/|^Dockerfile$|^\./;

/** Files that a module loads or reads without importing or naming them. */
const READS: [from: string, files: RegExp][] = [
  ['native-bindings/index.ts', /^native-bindings\/src\/|^scripts\/(build-addon|prebuild)\.mjs$/],
  ['test/packetdrill/scripts.test.ts', /^test\/packetdrill\/.*\.pkt$/],
  [
    'test/native/packetdrill.test.ts',
    /^test\/packetdrill\/.*\.pkt$|^native-bindings\/packetdrill\//,
  ],
  ['test/dev/datasheet.test.ts', /^docs\/.*-datasheet\.md$/],
  ['test/bench/cc.ts', /^test\/bench\/baseline\//],
];

/** Names of files in code: string literals and parts of templates. */
const FILE_NAME =
  /(?:[\w.-]+\/)*[\w.-]*\w\.(?:c|h|js|json|md|mjs|pkt|py|sh|ts|yaml)\b|\bscripts\/[a-z-]+\b/g;

/** Holds file names for other files, so the names in it are not read by it. */
const NAMES_FOR_OTHERS = 'test/support/root.ts';

/** The files that `code` names, from the package root. A bare name means any file called so. */
function named(path: string, code: string, byBase: Map<string, string[]>): string[] {
  const found: string[] = [];
  for (const [name] of code.matchAll(FILE_NAME)) {
    const wanted = posix
      .normalize(name.replace(/^(\.{1,2}\/)*(dist\/)?/, ''))
      .replace(/\.js$/, '.ts');
    for (const file of byBase.get(posix.basename(wanted)) ?? [])
      if (file === wanted || file.endsWith(`/${wanted}`)) found.push(file);
  }
  if (/\bcliMain\b/.test(code)) found.push('src/cli/main.ts');
  return found.filter((file) => file !== path);
}

/** Maps each file to those that import, read or name it. */
function dependents(sources: readonly Tree[], files: readonly string[]): Map<string, Set<string>> {
  const byBase = new Map<string, string[]>();
  for (const file of files) {
    const base = posix.basename(file);
    byBase.set(base, [...(byBase.get(base) ?? []), file]);
  }
  const users = new Map<string, Set<string>>();
  const add = (file: string, user: string): void => {
    const set = users.get(file);
    if (set === undefined) users.set(file, new Set([user]));
    else set.add(user);
  };
  for (const { path, code } of sources) {
    for (const spec of specifiers(code))
      if (spec.startsWith('.')) add(posix.join(posix.dirname(path), spec), path);
    if (!/^(test|scripts)\//.test(path) || path === NAMES_FOR_OTHERS) continue;
    // These name files in rules and examples, and do not read them.
    if (!/^test\/(tidy|support\/changed)/.test(path))
      for (const file of named(path, code, byBase)) add(file, path);
  }
  for (const [from, read] of READS) for (const file of files) if (read.test(file)) add(file, from);
  return users;
}

/** The suite that a file below test/ belongs to, null for others. */
function suiteOf(path: string): string | null {
  return /^test\/([^/]+)\//.exec(path)?.[1] ?? /^test\/([^/]+)\.test\.ts$/.exec(path)?.[1] ?? null;
}

/** The suites with a test file that reaches `file`. */
function reaching(file: string, users: Map<string, Set<string>>): Set<string> {
  const suites = new Set<string>();
  const seen = new Set([file]);
  for (const at of seen) {
    const suite = at.endsWith('.test.ts') ? suiteOf(at) : null;
    if (suite !== null) suites.add(suite);
    for (const user of users.get(at) ?? []) seen.add(user);
  }
  return suites;
}

/**
 * The suites, sorted, that a change of the files `changed` can affect. `files` is the whole tree and
 * `sources` its TypeScript. A deleted file selects its own suite and what its rule says.
 */
export function affectedSuites(
  changed: readonly string[],
  sources: readonly Tree[],
  files: readonly string[],
): string[] {
  if (changed.length === 0) return [];
  const testFiles = files.filter((file) => /^test\/.*\.test\.ts$/.test(file));
  const all = new Set(testFiles.map((file) => suiteOf(file)).filter((suite) => suite !== null));
  const users = dependents(sources, files);
  const suites = new Set(['tidy']);
  for (const file of changed) {
    if (!NOT_PACKED.test(file)) suites.add('package');
    if (NO_SUITE.test(file)) continue;
    const own = suiteOf(file);
    if (own !== null) suites.add(own);
    const reached = reaching(file, users);
    // Only tidy checks a document that no test reads.
    const unknown = reached.size === 0 && !/\.md$|^test\/.*\.test\.ts$/.test(file);
    for (const suite of EVERY_SUITE.test(file) || unknown ? all : reached) suites.add(suite);
  }
  return [...suites].filter((suite) => all.has(suite)).sort();
}
