/** Cuts a byte stream into lines of bounded length. */

const LF = 0x0a;

export class LineSplitter {
  readonly #max: number;
  #parts: Buffer[] = [];
  #held = 0;

  /** @param max bytes of a line, without its line feed */
  constructor(max: number) {
    this.#max = max;
  }

  /** Returns the lines that `chunk` completes, or null if a line is longer than the maximum. */
  push(chunk: Buffer): string[] | null {
    const lines: string[] = [];
    let from = 0;
    for (let lf = chunk.indexOf(LF); lf >= 0; lf = chunk.indexOf(LF, from)) {
      if (this.#held + lf - from > this.#max) return null;
      this.#parts.push(chunk.subarray(from, lf));
      lines.push(Buffer.concat(this.#parts).toString('utf8'));
      this.#parts = [];
      this.#held = 0;
      from = lf + 1;
    }
    const rest = chunk.subarray(from);
    this.#held += rest.length;
    if (this.#held > this.#max) return null;
    if (rest.length > 0) this.#parts.push(rest);
    return lines;
  }
}
