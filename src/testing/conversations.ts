/**
 * Initial sequence numbers of the TCP connections of a log. A connection whose SYN is not in the log counts
 * from the first number seen, as 1.
 */

/** Makes sequence numbers relative, or leaves them as they are on the wire. */
export interface SeqNumbers {
  /** `seq` of a segment from `from` to `to`; both are `ADDR.PORT`. */
  seq(from: string, to: string, seq: number, syn: boolean): number;
  /** A number that `from` acknowledges, or names in SACK. */
  ack(from: string, to: string, ack: number): number;
}

/** Numbers as they are on the wire. */
export const absoluteNumbers: SeqNumbers = {
  seq: (_from, _to, seq) => seq,
  ack: (_from, _to, ack) => ack,
};

/** Numbers relative to each connection's. Give it the frames in their order. */
export class Conversations implements SeqNumbers {
  readonly #bases = new Map<string, number>();

  seq(from: string, to: string, seq: number, syn: boolean): number {
    const key = `${from} ${to}`;
    let base = this.#bases.get(key);
    // A SYN begins a connection, or repeats that of the one that is known.
    if (base === undefined || syn) {
      base = syn ? seq : (seq - 1) >>> 0;
      this.#bases.set(key, base);
    }
    return (seq - base) >>> 0;
  }

  ack(from: string, to: string, ack: number): number {
    const key = `${to} ${from}`;
    let base = this.#bases.get(key);
    if (base === undefined) {
      base = (ack - 1) >>> 0;
      this.#bases.set(key, base);
    }
    return (ack - base) >>> 0;
  }
}
