/** What every command loads before it runs. */

import { readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { expect } from 'chai';
import { distRoot } from '../support/root.ts';

/** The compiled modules that `path` imports, directly and through others, without `import()`. */
function loadedBy(path: string): Set<string> {
  const seen = new Set([path]);
  for (const at of seen)
    for (const [, name] of readFileSync(at, 'utf8').matchAll(
      /^(?:import|export)\b[^;()]*?['"](\.[^'"]+)['"];/gm,
    ))
      seen.add(join(at, '..', name!));
  return seen;
}

describe('cli: start of a command', () => {
  it('loads commands and control socket, but not the stack', () => {
    const loaded = [...loadedBy(join(distRoot, 'src/cli/program.js'))].map((path) =>
      relative(distRoot, path),
    );
    expect(loaded).to.include.members(['src/cli/netstat.js', 'src/cli/control_client.js']);
    const stack = /^(drivers|src\/(api|bus|dev|machine|net))\//;
    expect(loaded.filter((path) => stack.test(path))).to.deep.equal([]);
  });
});
