/**
 * Maps page indexes of a file to frames, in chunks of consecutive pages, because sendfile uses runs
 * of pages. A look-up in the chunk used last takes two loads.
 */

import { NOPAGE, type VmPage } from './vm_page.ts';

const CHUNK_SHIFT = 8;
export const CHUNK_PAGES = 1 << CHUNK_SHIFT;
/** Index of the number of frames, after the frames of a chunk. */
const COUNT = CHUNK_PAGES;

const EMPTY = new Int32Array(CHUNK_PAGES + 1).fill(NOPAGE);

export class PageIndex {
  readonly #chunks = new Map<number, Int32Array>();
  // The chunk used last; EMPTY if that chunk does not exist.
  #lastKey = -1;
  #last: Int32Array = EMPTY;
  /** Number of pages. */
  size = 0;

  #chunk(key: number): Int32Array {
    if (key !== this.#lastKey) {
      this.#lastKey = key;
      this.#last = this.#chunks.get(key) ?? EMPTY;
    }
    return this.#last;
  }

  /** The frame of page `pindex`, 0 to 2^40, or NOPAGE. */
  get(pindex: number): VmPage {
    return this.#chunk(Math.floor(pindex / CHUNK_PAGES))[pindex % CHUNK_PAGES]!;
  }

  /**
   * The frames of the chunk that contains page `pindex`, at the indexes `pindex % CHUNK_PAGES` and up;
   * NOPAGE where there is none. Valid until the next call.
   */
  chunkOf(pindex: number): Int32Array {
    return this.#chunk(Math.floor(pindex / CHUNK_PAGES));
  }

  /** Adds a page whose index is not in use. */
  add(pindex: number, page: VmPage): void {
    const key = Math.floor(pindex / CHUNK_PAGES);
    let chunk = this.#chunk(key);
    if (chunk === EMPTY) {
      chunk = new Int32Array(CHUNK_PAGES + 1).fill(NOPAGE);
      chunk[COUNT] = 0;
      this.#chunks.set(key, chunk);
      this.#last = chunk;
    }
    chunk[pindex % CHUNK_PAGES] = page;
    chunk[COUNT]!++;
    this.size++;
  }

  /** Removes a page, which must be present. */
  remove(pindex: number): void {
    const key = Math.floor(pindex / CHUNK_PAGES);
    const chunk = this.#chunk(key);
    chunk[pindex % CHUNK_PAGES] = NOPAGE;
    this.size--;
    if (--chunk[COUNT]! !== 0) return;
    this.#chunks.delete(key);
    this.#last = EMPTY;
  }

  /** Empties the index, and calls `each` with every frame. */
  drain(each: (page: VmPage) => void): void {
    for (const chunk of this.#chunks.values())
      for (let i = 0; i < CHUNK_PAGES; i++) if (chunk[i] !== NOPAGE) each(chunk[i]!);
    this.#chunks.clear();
    this.#lastKey = -1;
    this.#last = EMPTY;
    this.size = 0;
  }
}
