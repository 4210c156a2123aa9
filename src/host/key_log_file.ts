/**
 * A text file to which other programs append, read as it grows: a TLS key log. It may be missing at first, and
 * be truncated or replaced; then it is read from its start again.
 */

import { type BigIntStats, constants } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { TapnicError } from '../sys/errno.ts';
import { whyNot } from './sink_open.ts';

/** Bytes before the next one to read that show whether the file is still the same. */
const TAIL_BYTES = 64;

/** Time between reads by `Repeated`, ms: shorter than the records of a FileSink wait. */
const REPEAT_MS = 100;

/** What came since the read before. */
interface Piece {
  readonly bytes: Buffer;
  /** It does not continue the piece before: from the start, or from within the file. */
  readonly begins: 'after' | 'at the start' | 'within';
}

export class KeyLogFile {
  readonly path: string;
  /** Whether the file was not there at the last read. */
  missing = false;
  /** Bytes that were skipped because too many came at once. */
  skipped = 0;
  readonly #max: number;
  #id = '';
  #size = 0n;
  #mtime = 0n;
  #offset = 0;
  #tail: Buffer = Buffer.alloc(0);

  /** @param max bytes of one read: of more, only the last ones are read */
  constructor(path: string, max: number) {
    this.path = path;
    this.#max = max;
  }

  /** What is new; null: nothing. Rejects with TapnicError if it is not a regular file, or cannot be read. */
  async read(): Promise<Piece | null> {
    let file: FileHandle;
    try {
      // A FIFO without a writer would wait.
      file = await open(this.path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (e) {
      const { code = 'EIO' } = e as NodeJS.ErrnoException;
      this.missing = code === 'ENOENT';
      if (this.missing) return null;
      throw this.#error(e);
    }
    try {
      this.missing = false;
      return await this.#readFrom(file);
    } catch (e) {
      throw e instanceof TapnicError ? e : this.#error(e);
    } finally {
      await file.close();
    }
  }

  /** Whether `path` names the same file. */
  async isFile(path: string): Promise<boolean> {
    if (resolve(path) === resolve(this.path)) return true;
    const find = (name: string): Promise<BigIntStats | null> =>
      stat(name, { bigint: true }).catch(() => null);
    const [a, b] = [await find(path), await find(this.path)];
    return a !== null && b !== null && a.dev === b.dev && a.ino === b.ino;
  }

  #error(e: unknown): TapnicError {
    const error = e as NodeJS.ErrnoException;
    return new TapnicError(error.code ?? 'EIO', `read ${this.path}`, whyNot(error));
  }

  async #readFrom(file: FileHandle): Promise<Piece | null> {
    const st = await file.stat({ bigint: true });
    if (!st.isFile())
      throw new TapnicError('EINVAL', `read ${this.path}`, 'a key log is a regular file');
    const id = `${st.dev}:${st.ino}`;
    if (id === this.#id && st.size === this.#size && st.mtimeNs === this.#mtime) return null;
    const size = Number(st.size);
    let begins: Piece['begins'] = 'after';
    if (id !== this.#id || size < this.#offset || !(await this.#continues(file))) {
      begins = 'at the start';
      this.#offset = 0;
    }
    if (size - this.#offset > this.#max) {
      begins = 'within';
      this.skipped += size - this.#max - this.#offset;
      this.#offset = size - this.#max;
    }
    const bytes = await readAt(file, this.#offset, size - this.#offset);
    this.#id = id;
    this.#size = st.size;
    this.#mtime = st.mtimeNs;
    this.#offset += bytes.length;
    const before = begins === 'after' ? this.#tail : Buffer.alloc(0);
    this.#tail = Buffer.from(Buffer.concat([before, bytes]).subarray(-TAIL_BYTES));
    return bytes.length === 0 && begins === 'after' ? null : { bytes, begins };
  }

  /** Whether the file still has what was read last: else it was truncated and has grown again. */
  async #continues(file: FileHandle): Promise<boolean> {
    const { length } = this.#tail;
    return (await readAt(file, this.#offset - length, length)).equals(this.#tail);
  }
}

/** Calls an asynchronous function again and again, until `stop` or until it rejects. */
export class Repeated {
  #timer: NodeJS.Timeout | null = null;
  #stopped = false;

  /** @param failed gets the rejection */
  constructor(call: () => Promise<void>, failed: (e: unknown) => void) {
    const run = (): void =>
      void call().then(() => {
        if (!this.#stopped) this.#timer = setTimeout(run, REPEAT_MS).unref();
      }, failed);
    run();
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }
}

/** Up to `length` bytes at `offset`: fewer if the file has become shorter. */
async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  let n = 0;
  while (n < length) {
    const { bytesRead } = await file.read(bytes, n, length - n, offset + n);
    if (bytesRead === 0) break;
    n += bytesRead;
  }
  return bytes.subarray(0, n);
}
