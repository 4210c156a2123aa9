/** The Internet checksum by the addon: AVX2 where the processor has it, 64-bit words elsewhere. */

import { loadAddon, type NativeAddon } from '../../native-bindings/index.ts';
import type { CksumKernel } from '../sys/cksum.ts';
import { KASSERT } from '../sys/kassert.ts';
import { assertCurrentArena } from './arena.ts';

export class NativeCksum implements CksumKernel {
  readonly #addon: NativeAddon;
  readonly #scalar: 0 | 1;

  /**
   * @param arena the one `allocArena` returned last
   * @param scalar take the portable loop, for comparison
   */
  constructor(arena: ArrayBuffer, scalar = false) {
    assertCurrentArena(arena);
    this.#addon = loadAddon();
    this.#scalar = scalar ? 1 : 0;
  }

  /** Panics outside the arena. About 50 ns a call before the first byte. */
  sum(off: number, len: number, sum: number): number {
    const n = this.#addon.cksum(off, len, sum, this.#scalar);
    KASSERT(n >= 0, 'NativeCksum: outside the arena');
    return n;
  }
}
