/**
 * A capture as a stream of bytes to a reader that may be slow, in the library or at the other end of
 * the control socket. Records wait in a bounded queue; what does not fit is dropped and counted.
 */

import { KASSERT } from '../sys/kassert.ts';
import { count, R_CAPTURE_ENDED, R_CAPTURE_SLOW } from '../sys/reason.ts';

/** A chunk holds many records; its size is what a reader gets at a time. */
const CHUNK_BYTES = 1 << 16;
/** Bytes that wait for a slow reader. */
const QUEUE_BYTES = 8 << 20;

/** Takes bytes, which it owns from then on, and resolves when there is room for more. */
type SendBytes = (bytes: Buffer) => Promise<void>;

/** The sink of a CaptureRecorder. */
export class StreamSink {
  /** Packets that were not accepted. */
  dropped = 0;
  /** Packets that were accepted. */
  accepted = 0;
  readonly #send: SendBytes;
  #filling: Buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  #used = 0;
  readonly #queue: Buffer[] = [];
  #queued = 0;
  #left = 0;
  #sending = false;
  #posted = false;
  #ended = false;
  #failure: Error | null = null;
  readonly #done: Promise<void>;
  #settle!: { resolve(): void; reject(e: Error): void };

  constructor(send: SendBytes) {
    this.#send = send;
    this.#done = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.#done.catch(() => undefined);
  }

  /** Resolves when everything was sent after `end`. Rejects with what `send` rejected with. */
  get done(): Promise<void> {
    return this.#done;
  }

  begin(len: number, packet = true): boolean {
    KASSERT(this.#left === 0, 'StreamSink: record under way');
    if (this.#ended || this.#failure !== null) {
      if (packet) this.dropped++;
      if (packet) count(R_CAPTURE_ENDED);
      return false;
    }
    if (this.#queued + this.#used + len > QUEUE_BYTES) {
      if (packet) this.dropped++;
      if (packet) count(R_CAPTURE_SLOW);
      return false;
    }
    if (packet) this.accepted++;
    this.#left = len;
    if (len > this.#filling.length - this.#used) this.#nextChunk(len);
    if (!this.#posted) {
      this.#posted = true;
      setImmediate(() => {
        this.#posted = false;
        this.#flush();
      });
    }
    return true;
  }

  write(bytes: Uint8Array, off: number, len: number): void {
    KASSERT(len <= this.#left, 'StreamSink: record longer than begun');
    this.#filling.set(bytes.subarray(off, off + len), this.#used);
    this.#used += len;
    this.#left -= len;
  }

  header(bytes: Uint8Array): boolean {
    if (!this.begin(bytes.length, false)) return false;
    this.write(bytes, 0, bytes.length);
    return true;
  }

  /** Accepts no more records; see `done`. */
  end(): void {
    this.#ended = true;
    this.#flush();
    if (!this.#sending) this.#settle.resolve();
  }

  #nextChunk(len: number): void {
    if (this.#used > 0) {
      this.#queue.push(this.#filling.subarray(0, this.#used));
      this.#queued += this.#used;
      this.#used = 0;
    }
    this.#filling = Buffer.allocUnsafe(Math.max(CHUNK_BYTES, len));
  }

  #flush(): void {
    if (this.#used > 0 && this.#left === 0 && !this.#sending) this.#nextChunk(0);
    if (!this.#sending && this.#queue.length > 0) void this.#pump();
  }

  async #pump(): Promise<void> {
    this.#sending = true;
    try {
      for (;;) {
        if (this.#queue.length === 0 && this.#used > 0 && this.#left === 0) this.#nextChunk(0);
        const chunk = this.#queue.shift();
        if (chunk === undefined) break;
        this.#queued -= chunk.length;
        await this.#send(chunk);
      }
    } catch (e) {
      this.#failure = e as Error;
      this.#queue.length = 0;
      this.#queued = this.#used = 0;
      this.#settle.reject(this.#failure);
      return;
    } finally {
      this.#sending = false;
    }
    if (this.#ended) this.#settle.resolve();
  }
}
