/**
 * Records every point of a stack while a test runs. If the test fails, the capture and its page stay in the folder of
 * failures, named after the test; else nothing stays.
 */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { copyFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { captureItems } from '../cli/capture_input.ts';
import { capturePage } from '../explain/html.ts';
import type { FileCapture, Stack } from '../machine/stack.ts';
import { capturePoints } from '../sys/capture.ts';

/** Packets in a capture; a page shows as many. */
const PACKETS_MAX = 200_000;
const NAME_MAX = 120;
const DEFAULT_FOLDER = 'tapnic-failures';

/** The folder of failures. */
function failuresFolder(): string {
  return process.env['TAPNIC_FAILURES'] || DEFAULT_FOLDER;
}

/** A name that is a file's name everywhere. */
function fileNameOf(test: string): string {
  const plain = test.replace(/[^\p{L}\p{N}._-]+/gu, '-').replace(/^[-.]+|-+$/g, '');
  return plain.slice(0, NAME_MAX) || 'test';
}

/** The captures of one test. */
export class FailureCapture {
  #temp = '';
  readonly #captures: { name: string; file: string; capture: FileCapture }[] = [];
  readonly #test: string;

  /** @param test title of the test */
  constructor(test: string) {
    this.#test = fileNameOf(test);
  }

  /** Begins to record a stack. */
  async add(stack: Stack, name: string): Promise<void> {
    if (this.#temp === '') this.#temp = mkdtempSync(join(tmpdir(), 'tapnic-test-'));
    const file = join(this.#temp, `${this.#captures.length}.pcapng`);
    const capture = stack.capture(capturePoints, { file, count: PACKETS_MAX });
    this.#captures.push({ name, file, capture });
    await capture.ready;
  }

  /** Ends the captures. Call it before the stacks close. */
  async end(): Promise<void> {
    await Promise.allSettled(this.#captures.map(({ capture }) => capture.close()));
  }

  #target(name: string): string {
    return join(failuresFolder(), `${this.#test}.${fileNameOf(name)}`);
  }

  /** Keeps the captures and makes their pages. Returns a line for each; one that says why, if that fails. */
  async keep(): Promise<string[]> {
    const lines: string[] = [];
    try {
      mkdirSync(failuresFolder(), { recursive: true });
      for (const { name, file } of this.#captures) {
        const target = this.#target(name);
        await copyFile(file, `${target}.pcapng`);
        await writeFile(`${target}.html`, await capturePage(captureItems(file), target));
        const inside = relative('', target);
        const shown = inside.startsWith('..') ? target : inside;
        lines.push(`capture of ${name}: ${shown}.pcapng, page: ${shown}.html`);
      }
    } catch (e) {
      lines.push(`the capture is not kept: ${(e as Error).message}`);
    }
    this.#removeTemp();
    return lines;
  }

  /** Removes the captures, and those of an earlier run of the same test. */
  discard(): void {
    for (const { name } of this.#captures)
      for (const end of ['pcapng', 'html']) rmSync(`${this.#target(name)}.${end}`, { force: true });
    this.#removeTemp();
  }

  #removeTemp(): void {
    if (this.#temp !== '') rmSync(this.#temp, { recursive: true, force: true });
  }
}
