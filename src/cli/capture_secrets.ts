/**
 * `tapnic capture --keylog`: adds the keys of a TLS key log to the stream of a capture. Packets wait for a moment,
 * because a program logs its keys a little after the packets that begin to need them: a reader of the file
 * must find the keys first.
 */

import { Writable } from 'node:stream';
import type { KeyLog } from '../machine/key_log.ts';
import { CliError, printError } from './command.ts';

/** How long packets wait for keys, ms. */
const HOLD_MS = 250;
/** Time between reads of the key log while no packets come, ms. */
const IDLE_MS = 250;
/** Bytes that wait at most: then the oldest go on at once, behind the keys that are there. */
const HOLD_BYTES = 4 << 20;
/** No block of an instance is longer. */
const BLOCK_MAX = 1 << 24;

interface Held {
  readonly bytes: Buffer;
  /** When it came, ms. */
  readonly at: number;
  readonly done: (e?: Error) => void;
}

/** Passes a pcapng stream on, with Decryption Secrets Blocks between its blocks. */
export class SecretsOutput extends Writable {
  /** Null after a failure. */
  #keys: KeyLog | null;
  readonly #out: Writable;
  readonly #held: Held[] = [];
  #bytes = 0;
  /** Bytes of the block under way that are still to come, after its length is known. */
  #left = 0;
  /** The start of a block that is too short to know its length. */
  #start: Buffer = Buffer.alloc(0);
  /** The section header, which is the first block, has passed. */
  #begun = false;
  /** Keys that wait for the end of a block. */
  readonly #blocks: Buffer[];
  #timer: NodeJS.Timeout | null = null;
  /** The timer runs for packets. */
  #soon = false;
  #busy = false;
  #whenEmpty: ((e?: Error | null) => void) | null = null;

  /**
   * @param blocks the keys that are known
   * @param out gets the stream; it ends with this one, and an error of one ends both
   */
  constructor(keys: KeyLog, blocks: readonly Buffer[], out: Writable) {
    super({ highWaterMark: HOLD_BYTES });
    this.#keys = keys;
    this.#blocks = [...blocks];
    this.#out = out;
    out.once('error', (e) => this.destroy(e));
    this.#arm(0);
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: (e?: Error) => void): void {
    this.#bytes += bytes.length;
    const room = this.#bytes < HOLD_BYTES;
    this.#held.push({ bytes, at: performance.now(), done: room ? () => undefined : done });
    if (room) done();
    this.#arm(room ? HOLD_MS : 0);
  }

  override _final(done: (e?: Error | null) => void): void {
    this.#whenEmpty = done;
    this.#arm(this.#held.length === 0 ? 0 : HOLD_MS);
  }

  override _destroy(e: Error | null, done: (e?: Error | null) => void): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#out.destroy();
    done(e);
  }

  /** Runs after `ms`, or earlier. */
  #arm(ms: number): void {
    if (this.#busy || this.destroyed) return;
    if (this.#timer !== null && ms > 0 && this.#soon) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#soon = ms < IDLE_MS;
    this.#timer = setTimeout(() => void this.#run(), ms);
  }

  async #poll(): Promise<void> {
    try {
      if (this.#keys !== null) this.#blocks.push(...(await this.#keys.poll()));
    } catch (e) {
      this.#keys = null;
      printError(`capture: ${(e as Error).message}: no more keys are added\n`);
    }
  }

  async #run(): Promise<void> {
    this.#timer = null;
    this.#busy = true;
    // Keys that are read now are in front of all packets that came before.
    const due = performance.now() - HOLD_MS;
    try {
      await this.#poll();
      if (this.#left === 0 && this.#begun) await this.#putKeys();
      while (this.#held.length > 0 && !this.destroyed) {
        const { bytes, at, done } = this.#held[0]!;
        if (at > due && this.#bytes < HOLD_BYTES) break;
        this.#held.shift();
        await this.#pass(bytes);
        this.#bytes -= bytes.length;
        done();
      }
    } catch (e) {
      this.destroy(this.#out.errored ?? (e as Error));
    }
    this.#busy = false;
    this.#next();
  }

  #next(): void {
    const oldest = this.#held[0];
    if (oldest !== undefined) this.#arm(Math.max(0, oldest.at + HOLD_MS - performance.now()));
    else if (this.#whenEmpty === null) this.#arm(IDLE_MS);
    else if (!this.destroyed) this.#out.end(this.#whenEmpty);
  }

  /** Passes `bytes` on; keys that wait go between the first two blocks of it. */
  async #pass(bytes: Buffer): Promise<void> {
    let data = Buffer.concat([this.#start, bytes]);
    this.#start = Buffer.alloc(0);
    while (this.#blocks.length > 0 && data.length > 0) {
      if (this.#left === 0) {
        if (this.#begun) await this.#putKeys();
        if (this.#blocks.length === 0) break;
      }
      const used = this.#walk(data, true);
      if (used === 0) break;
      await this.#put(data.subarray(0, used));
      data = data.subarray(used);
    }
    const used = this.#walk(data, false);
    this.#start = Buffer.from(data.subarray(used));
    if (used > 0) await this.#put(data.subarray(0, used));
  }

  /** Bytes of `data` to its end, or of one block; an unfinished head of a block stays. */
  #walk(data: Buffer, one: boolean): number {
    let at = 0;
    for (;;) {
      const n = Math.min(this.#left, data.length - at);
      at += n;
      this.#left -= n;
      if (n > 0 && this.#left === 0) {
        this.#begun = true;
        if (one) return at;
      }
      if (data.length - at < 8 || this.#left > 0) return at;
      this.#left = data.readUInt32LE(at + 4);
      if (this.#left < 12 || this.#left > BLOCK_MAX)
        throw new CliError('capture: the stream is not a capture');
    }
  }

  async #putKeys(): Promise<void> {
    for (const block of this.#blocks.splice(0)) await this.#put(block);
  }

  #put(bytes: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#out.write(bytes, (e) => (e ? reject(e) : resolve()));
    });
  }
}
