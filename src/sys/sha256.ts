/** SHA-256 (FIPS 180-4) and HMAC (RFC 2104) with it, for configuration, not per packet. */

const BLOCK = 64;

/** The first 32 bits of the fractional parts of the roots of the first 64 primes. */
function fractions(root: (n: number) => number, count: number): Int32Array {
  const out = new Int32Array(count);
  for (let n = 2, found = 0; found < count; n++) {
    let prime = true;
    for (let d = 2; d * d <= n && prime; d++) prime = n % d !== 0;
    if (prime) out[found++] = ((root(n) % 1) * 0x100000000) | 0;
  }
  return out;
}
const K = fractions(Math.cbrt, 64);
const H0 = fractions(Math.sqrt, 8);

const rotr = (x: number, n: number): number => (x >>> n) | (x << (32 - n));

/** Mixes one block, at `off` of `view`, into the state `h`. `w`: 64 words of scratch. */
function compress(h: Int32Array, view: DataView, off: number, w: Int32Array): void {
  for (let t = 0; t < 16; t++) w[t] = view.getInt32(off + 4 * t);
  for (let t = 16; t < 64; t++) {
    const [x, y] = [w[t - 15]!, w[t - 2]!];
    const s0 = rotr(x, 7) ^ rotr(x, 18) ^ (x >>> 3);
    const s1 = rotr(y, 17) ^ rotr(y, 19) ^ (y >>> 10);
    w[t] = (w[t - 16]! + s0 + w[t - 7]! + s1) | 0;
  }
  let [a, b, c, d, e, f, g, i] = h as unknown as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  for (let t = 0; t < 64; t++) {
    const s1 = rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25);
    const t1 = (i + s1 + ((e & f) ^ (~e & g)) + K[t]! + w[t]!) | 0;
    const s0 = rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22);
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    i = g;
    g = f;
    f = e;
    e = (d + t1) | 0;
    d = c;
    c = b;
    b = a;
    a = (t1 + t2) | 0;
  }
  [a, b, c, d, e, f, g, i].forEach((v, n) => (h[n] = (h[n]! + v) | 0));
}

/** The digest, 32 bytes, of the parts in sequence. */
export function sha256(parts: readonly Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const data = new Uint8Array(Math.ceil((length + 9) / BLOCK) * BLOCK);
  let at = 0;
  for (const part of parts) {
    data.set(part, at);
    at += part.length;
  }
  data[length] = 0x80;
  const view = new DataView(data.buffer);
  view.setUint32(data.length - 8, Math.floor((length * 8) / 0x100000000));
  view.setUint32(data.length - 4, (length * 8) >>> 0);
  const h = H0.slice();
  const w = new Int32Array(64);
  for (let off = 0; off < data.length; off += BLOCK) compress(h, view, off, w);
  const out = new Uint8Array(32);
  const result = new DataView(out.buffer);
  h.forEach((v, n) => result.setInt32(4 * n, v));
  return out;
}

/** The code, 32 bytes, of the parts in sequence under `key`. */
export function hmacSha256(key: Uint8Array, parts: readonly Uint8Array[]): Uint8Array {
  const short = key.length > BLOCK ? sha256([key]) : key;
  const padded = (value: number): Uint8Array => {
    const pad = new Uint8Array(BLOCK).fill(value);
    short.forEach((byte, n) => (pad[n] = byte ^ value));
    return pad;
  };
  return sha256([padded(0x5c), sha256([padded(0x36), ...parts])]);
}
