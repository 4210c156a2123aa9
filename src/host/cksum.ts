/**
 * The Internet checksum in the addon: with AVX2 if the processor has it, else with 64-bit words.
 */

import { loadAddon, type NativeAddon } from '../../native-bindings/index.ts';
import type { CksumKernel } from '../sys/cksum.ts';
import { KASSERT } from '../sys/kassert.ts';
import { assertCurrentArena } from './arena.ts';

export class NativeCksum implements CksumKernel {
  readonly #addon: NativeAddon;
  readonly #scalar: 0 | 1;

  /**
   * @param arena the one `allocArena` returned last
   * @param scalar use the portable loop, for comparison
   */
  constructor(arena: ArrayBuffer, scalar = false) {
    assertCurrentArena(arena);
    this.#addon = loadAddon();
    this.#scalar = scalar ? 1 : 0;
  }

  /** Panics if the range is outside the arena. A call costs about 50 ns before the first byte. */
  sum(off: number, len: number, sum: number): number {
    const n = this.#addon.cksum(off, len, sum, this.#scalar);
    KASSERT(n >= 0, 'NativeCksum: outside the arena');
    return n;
  }
}
