/**
 * The bytes of a capture file as they arrive, read piece by piece. It buffers one piece and the
 * chunk that ends it, so memory stays bounded whatever the file says.
 */

/** A file that is not a well-formed capture. */
export class CaptureFormatError extends Error {
  readonly code = 'EINVAL';
  readonly syscall = 'read';
  /** Offset in the file, after decompression, of the record at fault. */
  readonly offset: number;

  constructor(offset: number, reason: string) {
    super(`at offset ${offset}: ${reason}`);
    this.name = 'CaptureFormatError';
    this.offset = offset;
  }
}

/** Reads exact numbers of bytes from chunks of any size. */
export class BlockStream {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #buf: Buffer = Buffer.alloc(0);
  /** Offset of the next byte to read. */
  offset = 0;

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /**
   * The next `n` bytes, valid until the next call. Null at the end of the file, before the first of
   * them. Rejects with CaptureFormatError if the file ends among them.
   * @param what names the piece in the error
   * @param begin offset for the error
   */
  async take(n: number, what: string, begin = this.offset): Promise<Buffer | null> {
    if (this.#buf.length < n) {
      const parts = [this.#buf];
      let have = this.#buf.length;
      while (have < n) {
        const { value, done } = await this.#chunks.next();
        if (done === true) break;
        parts.push(Buffer.from(value.buffer, value.byteOffset, value.length));
        have += value.length;
      }
      this.#buf = Buffer.concat(parts, have);
      if (have === 0) return null;
      if (have < n)
        throw new CaptureFormatError(
          begin,
          `the file ends within ${what}: ${n} bytes wanted, ${have} left`,
        );
    }
    const piece = this.#buf.subarray(0, n);
    this.#buf = this.#buf.subarray(n);
    this.offset += n;
    return piece;
  }

  /** As `take`, but the end of the file is an error, too. */
  async need(n: number, what: string, begin = this.offset): Promise<Buffer> {
    const piece = await this.take(n, what, begin);
    if (piece === null)
      throw new CaptureFormatError(
        begin,
        `the file ends within ${what}: ${n} bytes wanted, 0 left`,
      );
    return piece;
  }

  /** Ends the reading early. */
  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}
