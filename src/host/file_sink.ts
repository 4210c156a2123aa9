/**
 * A file that is written in large pieces: what captures go to. Writes are synchronous and happen
 * once per turn of the loop at most, so a record is either whole in the file or not there.
 */

import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
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
  /** Bytes of the file up to the last flush that went well. */
  #size = 0;
  #closed = false;

  /** Creates or truncates the file. Throws TapnicError. */
  constructor(path: string) {
    this.path = path;
    try {
      this.#fd = openSync(path, 'w');
    } catch (e) {
      throw asTapnicError(e, `open ${path}`, 'a file that can be written is needed');
    }
  }

  /** What follows, `len` bytes in several writes, is to be in the file whole or not at all. */
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

  /** Writes what is buffered. */
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

  /** Takes away what a write that failed halfway has left. */
  #cut(): void {
    try {
      ftruncateSync(this.#fd, this.#size);
    } catch {
      // A pipe or a device: what is out is out.
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
