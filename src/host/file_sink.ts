/**
 * A file that is written in large pieces, for captures. Writes are synchronous and happen at most
 * once per turn of the loop, so the file contains a record completely or not at all.
 */

import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { errnoName, errnoOf, TapnicError } from '../sys/errno.ts';

const BUFFER_BYTES = 1 << 18;

/** Accepts bytes until the first error; after that it drops them and keeps the error in `error`. */
export class FileSink {
  readonly path: string;
  /** The error that stopped the sink; null before an error. */
  error: TapnicError | null = null;
  readonly #fd: number;
  readonly #buf = Buffer.allocUnsafe(BUFFER_BYTES);
  #used = 0;
  /** Bytes of the file after the last successful flush. */
  #size = 0;
  #closed = false;

  /** Creates or truncates the file. Throws TapnicError. */
  constructor(path: string) {
    this.path = path;
    try {
      this.#fd = openSync(path, 'w');
    } catch (e) {
      throw asTapnicError(e, `open ${path}`, 'choose a path that can be written');
    }
  }

  /** Starts a record of `len` bytes in several writes: the file gets all of them or none. */
  together(len: number): void {
    if (len > BUFFER_BYTES - this.#used) this.flush();
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

  /** Writes the buffered bytes. */
  flush(): void {
    const n = this.#used;
    this.#used = 0;
    if (n > 0) this.#put(this.#buf, 0, n);
  }

  #put(bytes: Uint8Array, off: number, len: number): void {
    if (this.error !== null) return;
    try {
      for (let left = len; left > 0;) {
        const n = writeSync(this.#fd, bytes, off, left);
        off += n;
        left -= n;
      }
      this.#size += len;
    } catch (e) {
      this.error = asTapnicError(e, `write ${this.path}`);
      this.#cut();
    }
  }

  /** Truncates the file to remove the part that a failed write left. */
  #cut(): void {
    try {
      ftruncateSync(this.#fd, this.#size);
    } catch {
      // A pipe or a device cannot be truncated; the bytes stay written.
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.flush();
    closeSync(this.#fd);
  }
}

function asTapnicError(e: unknown, syscall: string, hint = ''): TapnicError {
  return new TapnicError(
    (e as NodeJS.ErrnoException).code ?? errnoName(errnoOf(undefined)),
    syscall,
    hint,
  );
}
