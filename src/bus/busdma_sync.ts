/**
 * The operations of bus_dmamap_sync, for bus_dma.ts and for the two watchers that it calls.
 * @see bus_dma(9), sys/sys/bus_dma.h
 */

export const BUS_DMASYNC_PREREAD = 1;
export const BUS_DMASYNC_POSTREAD = 2;
export const BUS_DMASYNC_PREWRITE = 4;
export const BUS_DMASYNC_POSTWRITE = 8;
