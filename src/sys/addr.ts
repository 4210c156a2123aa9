/**
 * A network address of any family as four signed 32-bit words in host order. `w0` holds the first
 * four bytes as they stand on the wire. An address of fewer than 16 bytes fills its words from `w0`
 * on; the rest is 0. An IPv4 address (`InAddr`) is therefore `w0`. All families have one class, so
 * that code which compares or copies addresses stays monomorphic and allocates nothing.
 */

/** The words of an address, for code that only reads them. */
export interface AddrWords {
  readonly w0: number;
  readonly w1: number;
  readonly w2: number;
  readonly w3: number;
}

/** A word of a prefix mask, with `left` mask bits remaining from this word on. */
function maskWord(left: number): number {
  return left <= 0 ? 0 : left >= 32 ? -1 : -1 << (32 - left);
}

/** An address that its owner may change. Holders copy words and never share one. */
export class NetAddr implements AddrWords {
  w0 = 0;
  w1 = 0;
  w2 = 0;
  w3 = 0;

  set(w0: number, w1 = 0, w2 = 0, w3 = 0): void {
    this.w0 = w0;
    this.w1 = w1;
    this.w2 = w2;
    this.w3 = w3;
  }

  setFrom(a: AddrWords): void {
    this.w0 = a.w0;
    this.w1 = a.w1;
    this.w2 = a.w2;
    this.w3 = a.w3;
  }

  equals(a: AddrWords): boolean {
    return this.w0 === a.w0 && this.w1 === a.w1 && this.w2 === a.w2 && this.w3 === a.w3;
  }

  /** Whether this is the unspecified address, all bits 0. */
  isAny(): boolean {
    return (this.w0 | this.w1 | this.w2 | this.w3) === 0;
  }
}

/** `a` with the bits after its first `prefixlen` bits set to 0. Allocates: not for packets. */
export function addrMasked(a: AddrWords, prefixlen: number): NetAddr {
  const net = new NetAddr();
  net.set(
    a.w0 & maskWord(prefixlen),
    a.w1 & maskWord(prefixlen - 32),
    a.w2 & maskWord(prefixlen - 64),
    a.w3 & maskWord(prefixlen - 96),
  );
  return net;
}
