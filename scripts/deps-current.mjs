#!/usr/bin/env node
// Exits with 0 if node_modules contains the packages of package-lock.json, by content: version and
// integrity of each entry in npm's record of what it installed. Times of files do not count, because
// a copy of node_modules has others. Otherwise it prints the first difference and exits with 1.
//
//   node scripts/deps-current.mjs [DIR]     DIR has package-lock.json and node_modules
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const root = process.argv[2] ?? '.';
const packagesOf = (file) => JSON.parse(readFileSync(join(root, file), 'utf8')).packages ?? {};

/** Returns what differs; an empty string if nothing does. */
function difference() {
  const wanted = packagesOf('package-lock.json');
  let installed;
  try {
    installed = packagesOf('node_modules/.package-lock.json');
  } catch {
    return 'node_modules has no record of npm';
  }
  for (const [path, want] of Object.entries(wanted)) {
    if (path === '') continue;
    const have = installed[path];
    // npm leaves out optional packages, such as those for another system.
    if (have === undefined && (want.optional === true || want.devOptional === true)) continue;
    if (have === undefined) return `${path} is not installed`;
    if (have.version !== want.version || have.integrity !== want.integrity)
      return `${path} is ${have.version}, not ${want.version}`;
    // An interrupted copy has the record without all packages.
    if (!existsSync(join(root, path, 'package.json'))) return `${path} is missing`;
  }
  return '';
}

const text = difference();
if (text !== '') process.stdout.write(`${text}\n`);
process.exitCode = text === '' ? 0 : 1;
