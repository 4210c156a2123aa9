#!/usr/bin/env node
/**
 * The program `tapnic`: loads the commands and runs one. Modules are loaded at once, so a low limit
 * of open files is noticed here first.
 */

import { raiseInlining } from './inlining.ts';
import { openFilesText } from './open_files.ts';

raiseInlining();

try {
  const { run } = await import('./program.ts');
  await run();
} catch (e) {
  const text = openFilesText(e);
  if (text === null) throw e;
  process.stderr.write(`tapnic: ${text}\n`);
  process.exitCode = 1;
}
