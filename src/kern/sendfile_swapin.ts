/**
 * The pages of a round of sendfile and their reads, after sendfile_swapin of sys/kern/kern_sendfile.c:
 * grab, wire, start what is missing, read ahead.
 */

import type { Task } from '../sys/clock.ts';
import { EBUSY, EIO } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { count, R_SF_BUSY, R_VM_WAIT } from '../sys/reason.ts';
import { PAGE_SIZE } from '../vm/arena.ts';
import {
  GRAB_BUSY,
  GRAB_NOMEM,
  grabbed,
  MAXPAGES_IO,
  vm_page_grab_pages,
  vm_pager_get_pages_async,
} from '../vm/vm_object.ts';
import {
  NOPAGE,
  vm_page_all_valid,
  vm_page_alloc,
  vm_page_busied,
  vm_page_busy_acquire,
  vm_page_unwire,
  vmWaitPages,
} from '../vm/vm_page.ts';
import { readaheadAlloc, type Sfio, sfstat } from './sendfile_io.ts';
import { round, SF_NODISKIO, SF_USER_READAHEAD } from './sendfile_round.ts';

/**
 * Wires the round's `npages` pages. Returns how many, or -1 if the call has to wait: `waiter` runs
 * when to try again. With SF_NODISKIO it does not: the round ends early and the call with EBUSY.
 */
export function sendfileGrab(npages: number, waiter: Task): number {
  const object = round.object!;
  round.soft = 0;
  const first = Math.floor(round.off / PAGE_SIZE);
  const result = vm_page_grab_pages(object, first, round.pages, npages);
  const { n } = grabbed;
  if (n === npages) return n;
  if (result === GRAB_BUSY) {
    sfstat.sf_busy++;
    count(R_SF_BUSY);
    if ((round.flags & SF_NODISKIO) === 0) {
      round.releaseUnread(0, n);
      object.waitPagein(waiter);
      return -1;
    }
  } else {
    KASSERT(result === GRAB_NOMEM, 'sendfile: grab ended early');
    if (n > 0) return n; // send these; the next round waits
    count(R_VM_WAIT);
    if ((round.flags & SF_NODISKIO) === 0) {
      vmWaitPages(waiter);
      return -1;
    }
  }
  round.soft = EBUSY;
  return n;
}

/** Reads pages behind the round into the cache, as far as nobody has them. */
function readAhead(pindex: number): void {
  const object = round.object!;
  const asked = round.flags >>> 16;
  const past = Math.ceil(round.size / PAGE_SIZE) - pindex;
  const rest = Math.ceil((round.off + round.rem) / PAGE_SIZE) - pindex;
  const user = (round.flags & SF_USER_READAHEAD) !== 0;
  const n = Math.min(user ? asked : rest + asked, past, MAXPAGES_IO);
  let got = 0;
  while (got < n && object.lookup(pindex + got) === NOPAGE) {
    const p = vm_page_alloc(object, pindex + got);
    if (p === NOPAGE) break;
    object.insert(pindex + got, p);
    round.ahead[got++] = p;
  }
  if (got === 0) return;
  const ra = readaheadAlloc(round.file!);
  const fd = round.file!.f_fd;
  if (vm_pager_get_pages_async(object, fd, pindex, round.ahead, 0, got, ra) === 0)
    sfstat.sf_rhpages_read += got;
  else ra.pageinDone();
  for (let i = 0; i < got; i++) vm_page_unwire(round.ahead[i]!, false);
}

/** How many pages from `i` on, of `npages`, one read fetches: those up to the next valid one. */
function runLength(i: number, npages: number): number {
  let n = 0;
  while (i + n < npages && n < MAXPAGES_IO && !vm_page_all_valid(round.pages[i + n]!)) {
    if (!vm_page_busied(round.pages[i + n]!)) vm_page_busy_acquire(round.pages[i + n]!);
    n++;
  }
  return n;
}

/**
 * Starts the reads of the pages that are not valid, a run at a time, and reads ahead. Returns how
 * many pages can be sent: fewer than `npages` if a read could not be started.
 */
export function sendfileSwapin(sfio: Sfio, npages: number): number {
  const first = Math.floor(round.off / PAGE_SIZE);
  const fd = round.file!.f_fd;
  let ios = 0;
  let lastRead = false;
  for (let i = 0; i < npages;) {
    lastRead = !vm_page_all_valid(round.pages[i]!);
    if (!lastRead) {
      sfstat.sf_pages_valid++;
      i++;
      continue;
    }
    const n = runLength(i, npages);
    sfio.nios++;
    const error = vm_pager_get_pages_async(round.object!, fd, first + i, round.pages, i, n, sfio);
    if (error !== 0) {
      sfio.nios--;
      round.releaseUnread(i, npages);
      round.soft = EIO;
      return i;
    }
    ios++;
    sfstat.sf_iocnt++;
    sfstat.sf_pages_read += n;
    i += n;
  }
  if (ios === 0 && npages > 0) sfstat.sf_noiocnt++;
  if (lastRead) readAhead(first + npages);
  return npages;
}
