/**
 * DMA resources of a driver: tags, maps and ring memory. Each is recorded with the step that frees
 * it, so that a failed attach and a detach run the same code.
 */

import { bus_space_write_4 } from '../src/bus/bus_space.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import { KASSERT } from '../src/sys/kassert.ts';
import type { Errno } from '../src/sys/errno.ts';
import type { Kva } from '../src/sys/types.ts';
import {
  bus_dma_tag_create,
  bus_dma_tag_destroy,
  bus_dmamap_create,
  bus_dmamap_destroy,
  bus_dmamap_load,
  bus_dmamap_unload,
  bus_dmamem_alloc,
  bus_dmamem_free,
  BUS_DMA_NOWAIT,
  BUS_DMA_ZERO,
  BUS_DMASYNC_POSTREAD,
  BUS_DMASYNC_POSTWRITE,
  BUS_DMASYNC_PREREAD,
  BUS_DMASYNC_PREWRITE,
  type BusDmamap,
  type BusDmamapRef,
  BusDmaSegs,
  type BusDmaTag,
  type BusDmaTagParams,
  type BusDmaTagRef,
} from '../src/bus/bus_dma.ts';

/** Sync operations of a ring: the device reads descriptors and writes them back. */
export const RING_TO_DEVICE = BUS_DMASYNC_PREREAD | BUS_DMASYNC_PREWRITE;
export const RING_TO_US = BUS_DMASYNC_POSTREAD | BUS_DMASYNC_POSTWRITE;

/** Contiguous memory that driver and device share, loaded for DMA. */
export interface DmaRing {
  readonly tag: BusDmaTag;
  readonly map: BusDmamap;
  readonly vaddr: Kva;
  /** Bus address of its first byte. */
  readonly busAddr: number;
}

function mustDo(error: Errno): void {
  KASSERT(error === 0, 'dma_setup: a DMA resource is still in use');
}

/**
 * DMA resources of one device. If a call returns null or false, memory is exhausted: call `undo`.
 */
export class DmaSetup {
  readonly #ifname: string;
  readonly #steps: (() => void)[] = [];

  /** @param ifname the interface; its name is part of the tags' names */
  constructor(ifname: string) {
    this.#ifname = ifname;
  }

  /** Adds a step that `undo` runs before all steps added earlier. */
  add(step: () => void): void {
    this.#steps.push(step);
  }

  /**
   * Frees everything, the last allocation first. The driver has unloaded all maps except those of
   * rings.
   */
  undo(): void {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) step();
  }

  /** Creates a tag named `what`, such as `tx`. Panics if bus_dma refuses the parameters. */
  tag(what: string, params: BusDmaTagParams): BusDmaTag {
    const ref: BusDmaTagRef = { tag: null };
    mustDo(bus_dma_tag_create({ ...params, name: `${this.#ifname} ${what}` }, ref));
    const tag = ref.tag!;
    this.add(() => mustDo(bus_dma_tag_destroy(tag)));
    return tag;
  }

  /**
   * Appends `n` maps to `maps`; the driver may reorder them. Returns false if there is no memory
   * for a map or its bounce pages.
   */
  maps(tag: BusDmaTag, n: number, maps: BusDmamap[]): boolean {
    const ref: BusDmamapRef = { map: null };
    for (let i = 0; i < n; i++) {
      if (bus_dmamap_create(tag, 0, ref) !== 0) return false;
      const map = ref.map!;
      this.add(() => mustDo(bus_dmamap_destroy(tag, map)));
      maps.push(map);
    }
    return true;
  }

  /**
   * Allocates a zeroed ring of `bytes` bytes, aligned and below `lowaddr` as `params` require.
   * Returns null if memory is exhausted.
   */
  ring(
    what: string,
    bytes: number,
    params: Pick<BusDmaTagParams, 'parent' | 'alignment' | 'lowaddr'>,
  ): DmaRing | null {
    const tag = this.tag(what, { ...params, maxsize: bytes, nsegments: 1, maxsegsz: bytes });
    const dmamem = bus_dmamem_alloc(tag, BUS_DMA_NOWAIT | BUS_DMA_ZERO);
    if (dmamem === null) return null;
    this.add(() => bus_dmamem_free(tag, dmamem));
    const { map, vaddr } = dmamem;
    const segs = new BusDmaSegs(1);
    mustDo(bus_dmamap_load(tag, map, vaddr, bytes, segs));
    this.add(() => bus_dmamap_unload(tag, map));
    return { tag, map, vaddr, busAddr: segs.ds_addr[0]! };
  }
}

/** Writes the 64-bit bus address of a ring to the registers `low` and `high`. */
export function writeRingBase(regs: MmioRegion, low: number, high: number, addr: number): void {
  bus_space_write_4(regs, low, addr >>> 0);
  bus_space_write_4(regs, high, Math.floor(addr / 0x100000000));
}
