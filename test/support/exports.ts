/**
 * Finds unused exports. An export is used if another file imports it; src/index.ts is the public API,
 * so what it re-exports is used. A routine needs no user if its doc comment, or the first comment of
 * its file, contains the word "library": drivers that are added later may call it.
 */

import { posix } from 'node:path';
import { linesOf, type Node, type SourceFile, SyntaxKind, textOf, walk } from './program.ts';

export interface UnusedExport {
  path: string;
  line: number;
  name: string;
  /** True if its own file uses it: only `export` is superfluous. False: the whole declaration is. */
  own: boolean;
}

interface Declared {
  name: string;
  node: Node;
}

const OURS = /^(src|drivers|native-bindings)\//;
const PUBLIC = ['src/index.ts', 'src/testing/kit.ts', 'src/testing/matchers.ts'];
const LIBRARY = /\blibrary\b/i;

/** Children of one kind, in order. */
function childrenOf(node: Node, kind: SyntaxKind): Node[] {
  const found: Node[] = [];
  node.forEachChild((child) => {
    if (child.kind === kind) found.push(child);
  });
  return found;
}

/** Names that a statement with `export` in front declares. */
function declaredBy(statement: Node, file: SourceFile): Declared[] {
  if (!childrenOf(statement, SyntaxKind.ExportKeyword).length) return [];
  if (childrenOf(statement, SyntaxKind.DefaultKeyword).length) return [];
  const [list] = childrenOf(statement, SyntaxKind.VariableDeclarationList);
  const nodes = list === undefined ? [statement] : childrenOf(list, SyntaxKind.VariableDeclaration);
  return nodes.flatMap((node) => {
    const [id] = childrenOf(node, SyntaxKind.Identifier);
    return id === undefined ? [] : [{ name: textOf(id, file), node: statement }];
  });
}

/** Names that `file` takes from other files, by the path of that file; `*` is every one. */
function takenBy(path: string, file: SourceFile): [from: string, name: string][] {
  const taken: [string, string][] = [];
  const target = (spec: string): string => posix.join(posix.dirname(path), spec.slice(1, -1));
  walk(file, (node) => {
    const literal = childrenOf(node, SyntaxKind.StringLiteral)[0];
    if (node.kind === SyntaxKind.ImportDeclaration || node.kind === SyntaxKind.ExportDeclaration) {
      if (literal === undefined) return;
      const from = target(textOf(literal, file));
      const names: string[] = [];
      let whole = node.kind === SyntaxKind.ExportDeclaration;
      walk(node, (part) => {
        if (part.kind === SyntaxKind.NamespaceImport) whole = true;
        if (part.kind === SyntaxKind.NamedExports) whole = false;
        if (part.kind !== SyntaxKind.ImportSpecifier && part.kind !== SyntaxKind.ExportSpecifier)
          return;
        // `a as b` takes a.
        names.push(textOf(childrenOf(part, SyntaxKind.Identifier)[0]!, file));
      });
      if (whole) names.push('*');
      for (const name of names) taken.push([from, name]);
    } else if (node.kind === SyntaxKind.CallExpression || node.kind === SyntaxKind.ImportType) {
      // import() takes every name, and so does a type import('x').A.
      const found = /^import\s*\(\s*(['"][^'"]+['"])/.exec(textOf(node, file));
      if (found !== null) taken.push([target(found[1]!), '*']);
    }
  });
  return taken;
}

/** How often each name stands in `file`. */
function identifiers(file: SourceFile): Map<string, number> {
  const counts = new Map<string, number>();
  walk(file, (node) => {
    if (node.kind !== SyntaxKind.Identifier) return;
    const name = textOf(node, file);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  });
  return counts;
}

/** The comments before a node. */
function commentOf(node: Node, file: SourceFile): string {
  return file.text.slice(node.pos, node.end - textOf(node, file).length);
}

/** Exports of src, drivers and native-bindings that no other file uses, in order of the files. */
export function unusedExports(files: ReadonlyMap<string, SourceFile>): UnusedExport[] {
  const taken = new Set<string>();
  for (const [path, file] of files)
    for (const [from, name] of takenBy(path, file)) taken.add(`${from} ${name}`);
  const unused: UnusedExport[] = [];
  for (const [path, file] of files) {
    if (!OURS.test(path) || PUBLIC.includes(path) || taken.has(`${path} *`)) continue;
    if (LIBRARY.test(/^\s*\/\*\*[^]*?\*\//.exec(file.text)?.[0] ?? '')) continue;
    const counts = identifiers(file);
    const declared: Declared[] = file.statements.flatMap((node) => declaredBy(node, file));
    for (const { name, node } of declared) {
      if (taken.has(`${path} ${name}`) || LIBRARY.test(commentOf(node, file))) continue;
      const times = declared.filter((other) => other.name === name).length;
      if (unused.some((other) => other.path === path && other.name === name)) continue;
      const own = (counts.get(name) ?? 0) > times;
      unused.push({ path, line: linesOf(node, file)[0], name, own });
    }
  }
  return unused;
}
