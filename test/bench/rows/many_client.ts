/** `baseline/many.c`: a client that keeps its connections between runs. */

import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { within } from '../../support/instance.ts';
import type { Netns } from '../../support/netns.ts';
import type { BenchContext } from '../context.ts';

const RUN_TIMEOUT_MS = 150_000;

/** What it prints for each run. */
export interface ManyReport {
  readonly bytes: number;
  readonly requests: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
}

export class ManyClient {
  readonly #ask: (line: string) => Promise<string>;
  readonly connections: number;
  readonly pid: number;

  private constructor(pid: number, connections: number, ask: (line: string) => Promise<string>) {
    this.pid = pid;
    this.connections = connections;
    this.#ask = ask;
  }

  /** Opens `connections` from `ns` to `addr`, on the CPU of the peer, and waits until they are open. */
  static async open(
    ctx: BenchContext,
    ns: Netns,
    addr: string,
    connections: number,
    port = 80,
  ): Promise<ManyClient> {
    const args = ['-d', addr, '-p', String(port), '-n', String(connections)];
    const program = ctx.baselines.program('many');
    const child = ns.spawn(program, [...args, ...ctx.pins.args('peer')], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let stderr = '';
    child.stderr!.on('data', (chunk: Buffer) => (stderr += chunk.toString('utf8')));
    child.stdin!.on('error', () => undefined);
    const exit = once(child, 'close');
    const died = exit.then(([code]): never => {
      throw new Error(`many: ended (${String(code)}): ${stderr.slice(-2000)}`);
    });
    died.catch(() => undefined);
    ctx.defer(async () => {
      child.kill('SIGKILL');
      await exit;
    });
    const lines = createInterface({ input: child.stdout! });
    const answer = async (): Promise<string> => {
      const line = once(lines, 'line').then(([text]) => String(text));
      return await within(Promise.race([line, died]), RUN_TIMEOUT_MS, () => 'many: no answer');
    };
    await answer();
    return new ManyClient(child.pid!, connections, (line) => {
      const answered = answer();
      child.stdin!.write(`${line}\n`);
      return answered;
    });
  }

  /** Makes `requests` for `path`, a file of `bytes`, on its connections. */
  async run(path: string, bytes: number, requests: number): Promise<ManyReport> {
    const report = JSON.parse(await this.#ask(`${path} ${bytes} ${requests}`)) as ManyReport;
    if (report.bytes !== bytes * requests)
      throw new Error(`received ${report.bytes} bytes of ${bytes * requests}`);
    return report;
  }
}
