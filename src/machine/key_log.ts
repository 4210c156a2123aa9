/** The TLS key log of a capture: a file that other programs append to, as blocks for pcapng files. */

import { KeyLogFile } from '../host/key_log_file.ts';
import { KEY_LOG_MAX, KeyLogLines, secretsBlocks } from '../pcap/key_log.ts';

/** One file, read as it grows. */
export class KeyLog {
  readonly #file: KeyLogFile;
  readonly #lines = new KeyLogLines();
  #reading: Promise<Buffer[]> | null = null;

  constructor(path: string) {
    this.#file = new KeyLogFile(path, KEY_LOG_MAX);
  }

  /**
   * Decryption Secrets Blocks with the keys that are new. Rejects with TapnicError if it is not a regular
   * file, or cannot be read. A call during another one returns the promise of that one.
   */
  poll(): Promise<Buffer[]> {
    this.#reading ??= this.#read().finally(() => (this.#reading = null));
    return this.#reading;
  }

  async #read(): Promise<Buffer[]> {
    const piece = await this.#file.read();
    if (piece === null) return [];
    if (piece.begins !== 'after') this.#lines.restart(piece.begins === 'within');
    return secretsBlocks(this.#lines.push(piece.bytes));
  }

  /** Whether `path` is the same file. */
  isFile(path: string): Promise<boolean> {
    return this.#file.isFile(path);
  }

  /** Whether the file was not there at the last poll. */
  get missing(): boolean {
    return this.#file.missing;
  }

  /** Keys so far, lines that are no keys, and bytes that were skipped. */
  get counts(): { keys: number; leftOut: number; skipped: number } {
    return { keys: this.#lines.keys, leftOut: this.#lines.leftOut, skipped: this.#file.skipped };
  }
}
