/**
 * Standard output and standard error of a running instance. Node writes files and terminals
 * synchronously: a stopped terminal (Ctrl-S) or a log on a disk that does not answer would stop the
 * event loop. For a pipe Node queues without a limit. Here every write is asynchronous and the
 * queue is bounded: what does not fit is dropped and counted.
 */

import { constants, fstatSync, openSync } from 'node:fs';
import { Writable } from 'node:stream';
import { isatty } from 'node:tty';
import { FileTarget, type SinkTarget } from './sink_target.ts';

/** Bytes that may wait. */
const QUEUE_BYTES = 1 << 20;

type Done = (error?: Error | null) => void;

/** A stream on descriptor 1 or 2. */
class OutStream extends Writable {
  /** Writes that were dropped. */
  lost = 0;
  /** The error that ended the stream, in words; null without one, and if only the reader is gone. */
  failure: string | null = null;
  readonly #put: (bytes: Buffer, done: Done) => void;

  constructor(put: (bytes: Buffer, done: Done) => void) {
    super({ decodeStrings: true });
    this.#put = put;
    // The instance goes on without output. EIO: the terminal is gone.
    this.on('error', (e: NodeJS.ErrnoException) => {
      if (e.code !== 'EPIPE' && e.code !== 'EIO') this.failure = e.message;
    });
  }

  override write(chunk: unknown, encoding?: BufferEncoding | Done, done?: Done): boolean {
    const written = typeof encoding === 'function' ? encoding : done;
    if (this.writableLength > QUEUE_BYTES) {
      this.lost++;
      if (written !== undefined) process.nextTick(written);
      return false;
    }
    return super.write(chunk, typeof encoding === 'string' ? encoding : 'utf8', written);
  }

  override _write(chunk: Buffer, _encoding: string, done: Done): void {
    if (chunk.length === 0) done();
    else this.#put(chunk, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: Done): void {
    this._write(Buffer.concat(chunks.map(({ chunk }) => chunk)), '', done);
  }
}

/** A terminal's own open file: O_NONBLOCK on the inherited one would change the shell's, too. */
function terminal(fd: number): number {
  try {
    const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants;
    return openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK | O_NOCTTY);
  } catch {
    return fd; // of another user: a blocked write holds one thread of the pool
  }
}

function outStream(fd: 1 | 2, node: NodeJS.WriteStream): OutStream {
  const tty = isatty(fd);
  const st = fstatSync(fd);
  if (st.isFIFO() || st.isSocket())
    // A pipe or a socket: Node's own stream is asynchronous.
    return new OutStream((bytes, done) => void node.write(bytes, done));
  const target: SinkTarget = new FileTarget(tty ? terminal(fd) : fd, `disk ${st.dev}`, false);
  return new OutStream((bytes, done) => target.write([bytes], (error) => done(error)));
}

let streams: OutStream[] = [];

/** Makes `process.stdout` and `process.stderr` streams that never block. */
export function unblockOutput(): void {
  if (streams.length > 0) return;
  try {
    const { stdout, stderr } = process;
    streams = [outStream(1, stdout), outStream(2, stderr)];
  } catch {
    return; // a closed descriptor: Node has a stream for that
  }
  for (const [i, name] of (['stdout', 'stderr'] as const).entries())
    Object.defineProperty(process, name, { value: streams[i], configurable: true });
}

/** Why output is missing; null if none is. `failed`: a write failed, rather than a slow reader. */
export function outputProblem(): { message: string; failed: boolean } | null {
  const failure = streams.find((stream) => stream.failure !== null)?.failure ?? null;
  if (failure !== null) return { message: `output: ${failure}`, failed: true };
  const lost = streams.reduce((n, stream) => n + stream.lost, 0);
  if (lost === 0) return null;
  return { message: `output: ${lost} lines were dropped: they were not read`, failed: false };
}

/**
 * Resolves when everything is written, or failed.
 * @param withinMs time after which it resolves in any case; null to wait
 */
export async function outputWritten(withinMs: number | null): Promise<void> {
  const written = Promise.all(
    [process.stdout, process.stderr].map(
      (stream) => new Promise<void>((resolve) => stream.write('', () => resolve())),
    ),
  );
  if (withinMs === null) {
    await written;
    return;
  }
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, withinMs)));
  await Promise.race([written, late]);
  clearTimeout(timer);
}
