/**
 * Random numbers: from the operating system for real use, from a seed for repeatable simulation.
 */

import { randomFillSync } from 'node:crypto';
import type { Prng } from '../sys/prng.ts';

/** Unpredictable numbers, fetched 4 KiB at a time. */
export class OsPrng implements Prng {
  readonly #buf = new Uint32Array(1024);
  #next = this.#buf.length;

  next32(): number {
    if (this.#next === this.#buf.length) {
      randomFillSync(this.#buf);
      this.#next = 0;
    }
    const n = this.#buf[this.#next]!;
    this.#buf[this.#next++] = 0; // do not keep used numbers: one may be a TCP secret
    return n;
  }
}

/** A multiply and xor-shift mixer: spreads a seed's few bits over 32. */
function mix32(n: number): number {
  let z = (n + 0x9e3779b9) | 0;
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
  return (z ^ (z >>> 15)) >>> 0;
}

/** Chris Doty-Humphrey's sfc32 (PractRand): a 128-bit state, the same numbers for the same seed. */
export class SeededPrng implements Prng {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** @param seed a whole number, 0 to 2^53-1 */
  constructor(seed: number) {
    const low = seed >>> 0;
    const high = Math.floor(seed / 0x1_0000_0000) >>> 0;
    this.#a = mix32(low) | 0;
    this.#b = mix32(high ^ this.#a) | 0;
    this.#c = mix32(this.#b ^ low) | 0;
    // sfc32's author recommends twelve rounds, so that the seed affects every bit.
    for (let i = 0; i < 12; i++) this.next32();
  }

  next32(): number {
    const out = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + out) | 0;
    return out >>> 0;
  }

  /** Creates an independent generator, so that one user's draws do not change another's numbers. */
  fork(): SeededPrng {
    return new SeededPrng(this.next32() * 0x20_0000 + (this.next32() >>> 11));
  }
}

/** A uniform number, 0 to below 1, of 32 random bits. */
export function fraction(prng: Prng): number {
  return prng.next32() / 0x1_0000_0000;
}

/** A uniform integer, 0 to `n`-1; `n` is 1 to 2^32. Its bias is below n / 2^32. */
export function below(prng: Prng, n: number): number {
  return Math.floor(fraction(prng) * n);
}
