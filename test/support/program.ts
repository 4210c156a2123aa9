/**
 * Syntax trees of a package, from the parser of the installed compiler. The API is marked unstable:
 * package.json fixes the version, and no other file uses the API.
 */

import { join } from 'node:path';
import { computeLineStarts, getTokenPosOfNode, SyntaxKind } from 'typescript/unstable/ast';
import type { Node, SourceFile } from 'typescript/unstable/ast';
import { API } from 'typescript/unstable/sync';

export { SyntaxKind };
export type { Node, SourceFile };

/** Parses the package at `dir`, which has a tsconfig.json: its own files by path from `dir`. */
export function parsePackage(dir: string): Map<string, SourceFile> {
  const api = new API({ cwd: dir });
  try {
    const config = join(dir, 'tsconfig.json');
    using snapshot = api.updateSnapshot({ openProjects: [config] });
    const project = snapshot.getProject(config);
    if (project === undefined) throw new Error(`${config}: no such project`);
    const files = new Map<string, SourceFile>();
    for (const name of project.program.getSourceFileNames()) {
      if (!name.startsWith(`${dir}/`) || name.includes('/node_modules/')) continue;
      const file = project.program.getSourceFile(name);
      if (file !== undefined) files.set(name.slice(dir.length + 1), file);
    }
    return files;
  } finally {
    api.close();
  }
}

/** Calls `visit` for `node` and everything below it, parents first. */
export function walk(node: Node, visit: (node: Node) => void): void {
  visit(node);
  node.forEachChild((child) => walk(child, visit));
}

/** First and last line of a node, from 1, its comments left out. */
export function linesOf(node: Node, file: SourceFile): [first: number, last: number] {
  const starts = computeLineStarts(file.text);
  const line = (pos: number): number => {
    const after = starts.findIndex((start) => start > pos);
    return after < 0 ? starts.length : after;
  };
  return [line(getTokenPosOfNode(node, file)), line(node.end)];
}

/** The text of a node, its comments left out. */
export function textOf(node: Node, file: SourceFile): string {
  return file.text.slice(getTokenPosOfNode(node, file), node.end);
}
