/** The flags of sendfile(2), after sys/sys/socket.h. */

/** Ends with EBUSY instead of waiting for a page that is being read for somebody else. */
export const SF_NODISKIO = 0x1;
/** Obsolete, ignored. */
export const SF_MNOWAIT = 0x2;
/** Ends when nothing refers to the file's pages any more: all is acknowledged. */
export const SF_SYNC = 0x4;
/** Reads ahead the pages that SF_FLAGS says, and no others. */
export const SF_USER_READAHEAD = 0x8;
/** Gives pages up once they are sent. */
export const SF_NOCACHE = 0x10;

/** Flags with a number of pages to read ahead, 0 to 65535. @see sendfile(2) */
export function SF_FLAGS(rh: number, flags: number): number {
  return ((rh & 0xffff) << 16) | flags;
}
