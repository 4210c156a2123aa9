/**
 * TLS key logs in the format that SSLKEYLOGFILE's programs write (draft-ietf-tls-keylogfile): one line for each
 * secret, with label, client random and secret. They go into Decryption Secrets Blocks.
 */

import { DSB_TLS_KEYLOG, PCAPNG_DSB, pcapngBlock } from './pcapng_options.ts';

/** `LABEL RANDOM SECRET`, and the old form for RSA with a session id. */
const LINE =
  /^(?:[A-Z][A-Z0-9_]{1,63} [0-9a-fA-F]{16,128} [0-9a-fA-F]{2,3000}|RSA Session-ID:[0-9a-fA-F]{0,64} Master-Key:[0-9a-fA-F]{96})$/;
/** A longer line is no key. */
const LINE_MAX = 4096;
const LF = 10;
/** Bytes of secrets in one block. A reader needs a block as a whole. */
const BLOCK_BYTES = 1 << 16;
/** Bytes of keys that a capture remembers, for repetition and against duplicates. */
export const KEY_LOG_MAX = 8 << 20;

/** Finds the lines of a key log in pieces of a file. */
export class KeyLogLines {
  /** Different lines with keys so far. */
  keys = 0;
  /** Lines that are neither keys nor comments nor empty. */
  leftOut = 0;
  /** The start of a line whose end has not come. */
  #rest: Buffer = Buffer.alloc(0);
  /** The rest of the line is not wanted. */
  #skipping = false;
  /** The last lines, which are not taken twice. */
  readonly #seen = new Set<string>();
  #seenBytes = 0;

  /** Forgets the start of a line: what follows is another file, or another part of it. */
  restart(within: boolean): void {
    this.#rest = Buffer.alloc(0);
    this.#skipping = within;
  }

  /** The new keys in `bytes`; each line ends with a line feed. */
  push(bytes: Uint8Array): string[] {
    const data = Buffer.concat([this.#rest, bytes]);
    const keys: string[] = [];
    let at = 0;
    for (let end = data.indexOf(LF); end >= 0; end = data.indexOf(LF, at)) {
      if (this.#skipping) this.#skipping = false;
      else this.#line(data.subarray(at, end), keys);
      at = end + 1;
    }
    const rest = data.subarray(at);
    if (!this.#skipping && rest.length > LINE_MAX) {
      this.#skipping = true;
      this.leftOut++;
    }
    this.#rest = this.#skipping ? Buffer.alloc(0) : Buffer.from(rest);
    return keys;
  }

  #line(bytes: Buffer, keys: string[]): void {
    const line = bytes.length > LINE_MAX ? '?' : bytes.toString('latin1').replace(/[\r\t ]+$/, '');
    if (line === '' || line.startsWith('#')) return;
    if (!LINE.test(line)) {
      this.leftOut++;
      return;
    }
    if (this.#seen.has(line)) return;
    this.#seen.add(line);
    this.#seenBytes += line.length;
    for (const oldest of this.#seen) {
      if (this.#seenBytes <= KEY_LOG_MAX) break;
      this.#seen.delete(oldest);
      this.#seenBytes -= oldest.length;
    }
    this.keys++;
    keys.push(`${line}\n`);
  }
}

/** The Decryption Secrets Blocks with `keys`, which are lines of a key log. */
export function secretsBlocks(keys: readonly string[]): Buffer[] {
  const blocks: Buffer[] = [];
  let text = '';
  const put = (): void => {
    if (text === '') return;
    const bytes = Buffer.from(text, 'latin1');
    const fixed = Buffer.alloc(8);
    fixed.writeUInt32LE(DSB_TLS_KEYLOG, 0);
    fixed.writeUInt32LE(bytes.length, 4);
    blocks.push(pcapngBlock(PCAPNG_DSB, fixed, bytes));
    text = '';
  };
  for (const key of keys) {
    if (text.length + key.length > BLOCK_BYTES) put();
    text += key;
  }
  put();
  return blocks;
}
