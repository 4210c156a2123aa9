/**
 * A gzip file as a SinkTarget. zlib compresses on libuv's thread pool. Every write ends with a sync
 * flush, so `gzip -dc` gets all of it from a file whose writer was killed.
 */

import { constants, createGzip, type Gzip } from 'node:zlib';
import type { SinkTarget, Written } from './sink_target.ts';

export class GzipTarget implements SinkTarget {
  readonly #inner: SinkTarget;
  readonly #gzip: Gzip;
  #out: Uint8Array[] = [];
  /** Bytes of the compressed file after the last complete write. */
  #size = 0;

  /** Takes over `inner`, which gets the compressed bytes. */
  constructor(inner: SinkTarget) {
    this.#inner = inner;
    this.#gzip = createGzip({ level: constants.Z_BEST_SPEED });
    this.#gzip.on('data', (chunk: Uint8Array) => this.#out.push(chunk));
  }

  write(bufs: readonly Uint8Array[], done: Written): void {
    let bytes = 0;
    for (const buf of bufs) {
      bytes += buf.length;
      this.#gzip.write(buf);
    }
    this.#gzip.flush(constants.Z_SYNC_FLUSH, () => this.#put(bytes, done));
  }

  finish(done: Written): void {
    this.#gzip.once('end', () => this.#put(0, done));
    this.#gzip.end();
  }

  /** Writes the compressed form of `bytes` bytes. */
  #put(bytes: number, done: Written): void {
    const out = this.#out;
    this.#out = [];
    this.#inner.write(out, (e, n) => {
      if (e === null) this.#size += n;
      // After a failure it is unknown what the written part decompresses to.
      done(e, e === null ? bytes : 0);
    });
  }

  taken(): number {
    return 0;
  }

  cut(): void {
    this.#inner.cut(this.#size);
  }

  unlinked(done: (yes: boolean) => void): void {
    this.#inner.unlinked(done);
  }

  close(): void {
    this.#gzip.destroy();
    this.#inner.close();
  }
}
