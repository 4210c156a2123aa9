/** `doctor`: checks whether this machine has what tapnic needs, and names the remedies. */

import type { Command } from 'commander';
import { newCommand, print, printJson } from './command.ts';

export const doctorCommand: Command = newCommand('doctor')
  .description('check this machine: device node, privileges, addon, tools, kernel features')
  .option('--json', 'print JSON')
  .action(async ({ json }: { json?: boolean }) => {
    const { formatChecks, runChecks } = await import('./checks.ts');
    const checks = runChecks();
    if (json === true) printJson(checks);
    else print(formatChecks(checks));
    process.exitCode = checks.some(({ ok, required }) => required && !ok) ? 1 : 0;
  });
