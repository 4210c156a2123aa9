/**
 * A file that is written in large pieces: what captures go to. Writes are synchronous and happen
 * once per turn of the loop at most, so a record is either whole in the file or not there.
 */

import { closeSync, openSync, writeSync } from 'node:fs';
import { errnoName, errnoOf, TapnicError } from '../sys/errno.ts';

const BUFFER_BYTES = 1 << 18;

/** Takes bytes until the first error; then it drops them and remembers why. */
export class FileSink {
  readonly path: string;
  /** The error that stopped it; null while all is well. */
  error: TapnicError | null = null;
  readonly #fd: number;
  readonly #buf = Buffer.allocUnsafe(BUFFER_BYTES);
  #used = 0;
  #closed = false;

  /** Creates or truncates the file. Throws TapnicError. */
  constructor(path: string) {
    this.path = path;
    try {
      this.#fd = openSync(path, 'w');
    } catch (e) {
      throw asTapnicError(e, `open ${path}`);
    }
  }

  /** Appends `bytes[off .. off + len)`. */
  write(bytes: Uint8Array, off = 0, len = bytes.length - off): void {
    if (len > BUFFER_BYTES - this.#used) this.flush();
    if (len > BUFFER_BYTES) {
      this.#put(bytes, off, len);
      return;
    }
    this.#buf.set(bytes.subarray(off, off + len), this.#used);
    this.#used += len;
  }

  /** Writes what is buffered. */
  flush(): void {
    const n = this.#used;
    this.#used = 0;
    if (n > 0) this.#put(this.#buf, 0, n);
  }

  #put(bytes: Uint8Array, off: number, len: number): void {
    if (this.error !== null) return;
    try {
      while (len > 0) {
        const n = writeSync(this.#fd, bytes, off, len);
        off += n;
        len -= n;
      }
    } catch (e) {
      this.error = asTapnicError(e, `write ${this.path}`);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.flush();
    closeSync(this.#fd);
  }
}

function asTapnicError(e: unknown, syscall: string): TapnicError {
  return new TapnicError(
    (e as NodeJS.ErrnoException).code ?? errnoName(errnoOf(undefined)),
    syscall,
  );
}
