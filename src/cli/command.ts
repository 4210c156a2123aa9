/** Functions that all commands share: creation, output, and the exit status of errors. */

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { getSystemErrorMap } from 'node:util';
import { Command, CommanderError } from 'commander';
import { TapnicError } from '../sys/errno.ts';
import { Panic } from '../sys/kassert.ts';
import { escapeField, escapeLayout, jsonText } from './escape.ts';
import { openFilesText } from './open_files.ts';

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

/** Wrong arguments or configuration: exit status 2. */
export class UsageError extends Error {}

/** The command failed: exit status 1. */
export class CliError extends Error {}

/** The text of a file error: `ENOENT: no such file or directory`. */
export function fileError(e: unknown): string {
  const { code, errno = 0 } = e as NodeJS.ErrnoException;
  const words = getSystemErrorMap().get(errno)?.[1];
  return code === undefined ? String(e) : words === undefined ? code : `${code}: ${words}`;
}

/** Creates a command that throws its errors: commander itself neither prints them nor exits. */
export function newCommand(name: string): Command {
  return new Command(name).exitOverride().configureOutput({ outputError: () => undefined });
}

/** Writes text to stdout, control characters escaped. */
export function print(text: string): void {
  process.stdout.write(escapeLayout(text));
}

/** Writes one line of JSON to stdout. */
export function printJson(value: unknown): void {
  process.stdout.write(`${jsonText(value)}\n`);
}

/** Writes text to stderr, control characters escaped. */
export function printError(text: string): void {
  process.stderr.write(escapeLayout(text));
}

/** Writes one line to stderr. */
export function warn(message: string): void {
  printError(`tapnic: ${escapeField(message.replace(/\s*\n\s*/g, ' '))}\n`);
}

/** Prints an error on stderr in one line (a stack trace for a bug) and returns the exit status. */
export function reportError(error: unknown): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    // If the command is missing, commander has already printed the help.
    const more = error.code === 'commander.unknownCommand' ? ': `tapnic --help` lists them' : '';
    if (error.code !== 'commander.help') warn(`${error.message.replace(/^error: /, '')}${more}`);
    return EXIT_USAGE;
  }
  if (!(error instanceof Error)) {
    warn(String(error));
    return EXIT_FAILED;
  }
  const ownMistake =
    error instanceof Panic || error instanceof TypeError || error instanceof ReferenceError;
  if (ownMistake && !(error instanceof TapnicError))
    printError(`tapnic: ${error.stack ?? error.message}\n`);
  else warn((error instanceof TapnicError ? null : openFilesText(error)) ?? error.message);
  return error instanceof UsageError ? EXIT_USAGE : EXIT_FAILED;
}

/** Returns the folder of the package and its manifest, which is in a directory above this file. */
export function ownPackage(): { dir: string; version: string } | null {
  for (
    let dir = dirname(fileURLToPath(import.meta.url));
    dirname(dir) !== dir;
    dir = dirname(dir)
  ) {
    const manifest = join(dir, 'package.json');
    if (!existsSync(manifest)) continue;
    const { name, version } = JSON.parse(readFileSync(manifest, 'utf8')) as Record<string, string>;
    if (name === 'tapnic') return { dir, version: version ?? '' };
  }
  return null;
}

/** Returns the version of the package. */
export function packageVersion(): string {
  return ownPackage()?.version ?? 'unknown';
}
