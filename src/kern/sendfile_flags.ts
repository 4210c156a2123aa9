/** The flags of sendfile(2), after sys/sys/socket.h. */

/**
 * The call returns EBUSY instead of waiting for memory or for a page that another call is reading.
 */
export const SF_NODISKIO = 0x1;
/**
 * The call returns when no mbuf refers to the file's pages any more, that is when all data is
 * acknowledged.
 */
export const SF_SYNC = 0x4;
/** Reads ahead only the number of pages given with SF_FLAGS. */
export const SF_USER_READAHEAD = 0x8;
/** Frees pages after they are sent instead of keeping them in the cache. */
export const SF_NOCACHE = 0x10;

/** Combines `flags` with `rh`, the number of pages to read ahead, 0 to 65535. @see sendfile(2) */
export function SF_FLAGS(rh: number, flags: number): number {
  return ((rh & 0xffff) << 16) | flags;
}
