/**
 * State of one sendfile round, which its steps (sendfile_swapin.ts, sendfile_build.ts) share.
 * Unlike FreeBSD, which keeps it in local variables of one function.
 */

import type { Errno } from '../sys/errno.ts';
import type { WorkRecord } from '../sys/pass.ts';
import { MAXPAGES_IO, type VmObject } from '../vm/vm_object.ts';
import {
  NOPAGE,
  vm_page_busied,
  vm_page_unwire,
  type VmPage,
  vm_page_xunbusy,
} from '../vm/vm_page.ts';
import type { File } from './kern_descrip.ts';
import type { Sync } from './sendfile_io.ts';
import type { Socket } from './uipc_socket.ts';

/** Largest round, in pages: about the size of a socket buffer. */
export const ROUND_PAGES_MAX = 512;

/** One instance is enough, because a round never waits between its steps. The call fills it in. */
class SendfileRound implements WorkRecord {
  entered = false;
  so: Socket | null = null;
  file: File | null = null;
  object: VmObject | null = null;
  sync: Sync | null = null;
  flags = 0;
  /**
   * File offset of the round, bytes that the call must still send from there, and the file's size.
   */
  off = 0;
  rem = 0;
  size = 0;
  /** The file has holes. */
  sparse = false;
  /** The wired pages of the round. */
  readonly pages: VmPage[] = Array.from({ length: ROUND_PAGES_MAX }, () => NOPAGE);
  /** Pages after the round, for read-ahead. */
  readonly ahead: VmPage[] = Array.from({ length: MAXPAGES_IO }, () => NOPAGE);
  /** The error that ends the call after this round's data is sent; 0: none. */
  soft: Errno = 0;
  /** The round ended early because no sf_buf was free. */
  noSfBuf = false;

  /** Unwires pages [from, to). */
  release(from: number, to: number): void {
    for (let i = from; i < to; i++) vm_page_unwire(this.pages[i]!, false);
  }

  /**
   * Unbusies and unwires pages [from, to), for which no read was started. The round made the busy
   * ones busy.
   */
  releaseUnread(from: number, to: number): void {
    for (let i = from; i < to; i++)
      if (vm_page_busied(this.pages[i]!)) vm_page_xunbusy(this.pages[i]!, false);
    this.release(from, to);
  }
}

export const round = new SendfileRound();
