/**
 * Which frame holds which page of a file: a map from page index to frame, in pieces of consecutive
 * pages, because sendfile asks for runs. A look-up beside the last one is two loads.
 */

import { NOPAGE, type VmPage } from './vm_page.ts';

const CHUNK_SHIFT = 8;
const CHUNK_PAGES = 1 << CHUNK_SHIFT;
/** Behind the frames of a piece: how many there are. */
const COUNT = CHUNK_PAGES;

const EMPTY = new Int32Array(CHUNK_PAGES + 1).fill(NOPAGE);

export class PageIndex {
  readonly #chunks = new Map<number, Int32Array>();
  // The piece used last; EMPTY stands for one that is not there.
  #lastKey = -1;
  #last: Int32Array = EMPTY;
  /** Pages in it. */
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

  /** Adds a page that is not in it. */
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

  /** Takes a page out that is in it. */
  remove(pindex: number): void {
    const key = Math.floor(pindex / CHUNK_PAGES);
    const chunk = this.#chunk(key);
    chunk[pindex % CHUNK_PAGES] = NOPAGE;
    this.size--;
    if (--chunk[COUNT]! !== 0) return;
    this.#chunks.delete(key);
    this.#last = EMPTY;
  }

  /** Empties it, handing out every frame it held. */
  drain(each: (page: VmPage) => void): void {
    for (const chunk of this.#chunks.values())
      for (let i = 0; i < CHUNK_PAGES; i++) if (chunk[i] !== NOPAGE) each(chunk[i]!);
    this.#chunks.clear();
    this.#lastKey = -1;
    this.#last = EMPTY;
    this.size = 0;
  }
}
