/**
 * One round of sendfile under construction: what its steps (sendfile_swapin.ts, sendfile_build.ts)
 * hand on to each other. Ours: FreeBSD keeps these in the variables of one function.
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

/** Largest round, in pages: a socket buffer's worth. */
export const ROUND_PAGES_MAX = 512;

/** There is one, because a round never waits between its steps. Its call aims it. */
export class SendfileRound implements WorkRecord {
  entered = false;
  so: Socket | null = null;
  file: File | null = null;
  object: VmObject | null = null;
  sync: Sync | null = null;
  flags = 0;
  /** Where in the file the round begins, what the call has still to send from there, the file's size. */
  off = 0;
  rem = 0;
  size = 0;
  /** The file has holes. */
  sparse = false;
  /** The pages, wired. */
  readonly pages: VmPage[] = Array.from({ length: ROUND_PAGES_MAX }, () => NOPAGE);
  /** Pages behind the round, to be read ahead. */
  readonly ahead: VmPage[] = Array.from({ length: MAXPAGES_IO }, () => NOPAGE);
  /** The error that ends the call after what this round could send. */
  soft: Errno = 0;
  /** The round was cut short for want of an sf_buf. */
  noSfBuf = false;

  /** Unwires pages [from, to). */
  release(from: number, to: number): void {
    for (let i = from; i < to; i++) vm_page_unwire(this.pages[i]!, false);
  }

  /** Unwires pages [from, to) for which no read was started: the busy ones are ours. */
  releaseUnread(from: number, to: number): void {
    for (let i = from; i < to; i++)
      if (vm_page_busied(this.pages[i]!)) vm_page_xunbusy(this.pages[i]!, false);
    this.release(from, to);
  }
}

export const round = new SendfileRound();
