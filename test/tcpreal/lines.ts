/**
 * Requests and answers of the programs in this folder: one line of JSON each, on stdin and stdout.
 */

import { createInterface } from 'node:readline';

export type Args = Record<string, string | number | boolean>;
export type Answer = Record<string, unknown>;
type Handler = (args: Args) => Answer | Promise<Answer>;

/**
 * Answers requests until stdin ends, several concurrently; an exception of a handler becomes the
 * answer's `error`.
 */
export function serveLines(handlers: Record<string, Handler>): void {
  const say = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
  const one = async (line: string): Promise<void> => {
    const { id, op, args } = JSON.parse(line) as { id: number; op: string; args: Args };
    try {
      const handler = handlers[op];
      if (handler === undefined) throw new Error(`${op}: no such request`);
      say({ id, data: await handler(args) });
    } catch (e) {
      say({ id, error: e instanceof Error ? e.message : String(e) });
    }
  };
  createInterface({ input: process.stdin }).on('line', (line) => void one(line));
  say({ ready: true });
}
