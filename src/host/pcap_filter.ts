/** Filter expressions of pcap-filter(7), compiled by the tcpdump program. */

import { execFile } from 'node:child_process';

/**
 * An empty capture of Ethernet frames. With a file as input, tcpdump needs no interface and no
 * privilege.
 */
function emptyPcap(): Buffer {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt16LE(2, 4);
  header.writeUInt16LE(4, 6);
  header.writeUInt32LE(65_535, 16);
  header.writeUInt32LE(1, 20);
  return header;
}

/** tcpdump takes 10 ms, but a name server can make it slow. */
const COMPILE_MS = 2000;

/** Why tcpdump failed, in one line. */
function cause(error: Error & { code?: unknown; killed?: boolean }, stderr: string): string {
  if (error.name === 'AbortError') return 'canceled';
  if (error.code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER') return 'the filter is too long';
  if (error.killed === true) return 'tcpdump took too long: use addresses, not names';
  const last = stderr.trim().split('\n').at(-1) ?? '';
  return last === '' ? error.message : last.replace(/^tcpdump: /, '');
}

function run(expression: string, signal: AbortSignal | undefined): Promise<string> {
  return new Promise((resolve, reject) => {
    const failed = (why: string): void => reject(new Error(`match: ${why}`));
    const missing = (e: unknown): void =>
      failed(`tcpdump is needed to compile it: ${(e as Error).message}`);
    // A text with NUL cannot be an argument of a program.
    if (expression.includes('\0')) {
      failed(`${JSON.stringify(expression)}: not a filter`);
      return;
    }
    try {
      const child = execFile(
        'tcpdump',
        ['-ddd', '-r', '-', '--', expression],
        {
          env: { ...process.env, RES_OPTIONS: 'timeout:1 attempts:1' },
          timeout: COMPILE_MS,
          killSignal: 'SIGKILL',
          ...(signal === undefined ? {} : { signal }),
        },
        (error, stdout, stderr) => {
          process.off('exit', kill);
          if (error === null) resolve(stdout);
          else if ('syscall' in error) missing(error);
          else failed(`${expression}: ${cause(error, stderr)}`);
        },
      );
      const kill = (): void => void child.kill('SIGKILL');
      // A process that ends leaves no tcpdump behind.
      process.once('exit', kill);
      // EPIPE: tcpdump ended before it read its input; its status says why.
      child.stdin?.on('error', () => undefined);
      child.stdin?.end(emptyPcap());
    } catch (e) {
      missing(e); // such as E2BIG
    }
  });
}

/** The compilation that was started last. */
let last: Promise<unknown> = Promise.resolve();

/**
 * Compiles `expression` to BPF instructions [code, jt, jf, k], off the event loop and one at a
 * time. Rejects with Error with a one-line message, at most two seconds after the compilations
 * before it.
 */
export async function compileFilterInsns(
  expression: string,
  signal?: AbortSignal,
): Promise<number[][]> {
  const before = last;
  const text = before.then(() => run(expression, signal));
  last = text.catch(() => undefined);
  return (await text)
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.split(' ').map(Number));
}
