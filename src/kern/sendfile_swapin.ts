/**
 * The pages of a round of sendfile, after sendfile_swapin of sys/kern/kern_sendfile.c: grabs and
 * wires them, starts reads of missing pages, and reads ahead.
 */

import type { Task } from '../sys/clock.ts';
import { EBUSY, EIO } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { count, R_SF_BUSY, R_VM_WAIT } from '../sys/reason.ts';
import { mem, PAGE_SIZE } from '../vm/arena.ts';
import {
  GRAB_BUSY,
  GRAB_NOMEM,
  grabbed,
  machinePager,
  MAXPAGES_IO,
  vmBogusHold,
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
  vmPagesInvalid,
  vm_page_xunbusy,
  vmWaitPages,
} from '../vm/vm_page.ts';
import { readaheadAlloc, type Sfio, sfstat } from './sendfile_io.ts';
import { SF_NODISKIO, SF_USER_READAHEAD } from './sendfile_flags.ts';
import { round } from './sendfile_round.ts';

/** Pages that the data in the send buffer of the round's socket fills. */
function pagesHeld(): number {
  return Math.ceil(round.so!.so_snd.sb_ccc / PAGE_SIZE);
}

/**
 * Wires the round's `npages` pages. Returns the number of pages wired, or -1 if the call must wait;
 * `waiter` then runs when the call can retry. With SF_NODISKIO the call does not wait: the round is
 * cut short and the call returns EBUSY (`round.soft`).
 */
export function sendfileGrab(npages: number, waiter: Task): number {
  const object = round.object!;
  round.soft = 0;
  const first = Math.floor(round.off / PAGE_SIZE);
  const result = vm_page_grab_pages(object, first, round.pages, npages, pagesHeld());
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
    if (n > 0) return n; // send these pages; the next round waits
    count(R_VM_WAIT);
    if ((round.flags & SF_NODISKIO) === 0) {
      vmWaitPages(waiter);
      return -1;
    }
  }
  round.soft = EBUSY;
  return n;
}

/** Reads the pages behind the round of `npages` pages into the cache, up to the first page that is cached already. */
function readAhead(pindex: number, npages: number): void {
  const object = round.object!;
  const asked = round.flags >>> 16;
  const past = Math.ceil(round.size / PAGE_SIZE) - pindex;
  const rest = Math.ceil((round.off + round.rem) / PAGE_SIZE) - pindex;
  const user = (round.flags & SF_USER_READAHEAD) !== 0;
  const n = Math.min(user ? asked : rest + asked, past, MAXPAGES_IO);
  // The pages of the round are wired, but not in the buffer yet.
  const held = pagesHeld() + npages;
  let got = 0;
  while (got < n && object.lookup(pindex + got) === NOPAGE) {
    const p = vm_page_alloc(object, pindex + got, held + got);
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

/**
 * Length in pages of the data extent that starts at page `pindex`, at most `n`. For a hole, the
 * length is negative. A page that contains any data counts as data.
 */
function stored(pindex: number, n: number): number {
  if (!round.sparse) return n;
  const pager = machinePager();
  const fd = round.file!.f_fd;
  const off = pindex * PAGE_SIZE;
  let data = pager.extent(fd, off);
  if (data < 0) {
    const hole = -data;
    const pages = hole >= round.size - off ? n : Math.floor(hole / PAGE_SIZE);
    if (pages > 0) return -Math.min(pages, n);
    data = hole + Math.max(pager.extent(fd, off + hole), 1);
  }
  return Math.min(Math.ceil(data / PAGE_SIZE), n);
}

/**
 * Fills the invalid pages of [i, i + n), which are in a hole, with zeros and makes them valid. No
 * read.
 */
function zeroFill(i: number, n: number): void {
  for (let j = i; j < i + n; j++) {
    const p = round.pages[j]!;
    if (vm_page_all_valid(p)) {
      sfstat.sf_pages_valid++;
      continue;
    }
    if (!vm_page_busied(p)) vm_page_busy_acquire(p);
    mem.fill(0, p * PAGE_SIZE, (p + 1) * PAGE_SIZE);
    vm_page_xunbusy(p, true);
  }
}

/**
 * Number of pages that one read fetches from `i` on, at most `n` and MAXPAGES_IO. The run ends at
 * its last invalid page. For valid pages within the run, the read fills the bogus page instead. If
 * there is no frame for the bogus page, the run ends before the first valid page.
 */
function runLength(i: number, n: number): number {
  const { pages } = round;
  n = Math.min(n, MAXPAGES_IO);
  while (vm_page_all_valid(pages[i + n - 1]!)) n--; // page i is invalid
  let bogus = 0;
  for (let k = 0; k < n; k++) {
    const p = pages[i + k]!;
    if (!vm_page_all_valid(p)) {
      if (!vm_page_busied(p)) vm_page_busy_acquire(p);
    } else if (bogus > 0 || vmBogusHold()) {
      bogus++;
    } else {
      return k;
    }
  }
  sfstat.sf_pages_valid += bogus;
  sfstat.sf_pages_bogus += bogus;
  return n;
}

/**
 * Starts one read for each run of invalid pages, fills holes with zeros, and reads ahead. Returns
 * the number of pages to send. It is less than `npages` if a read could not be started;
 * `round.soft` is then EIO.
 */
export function sendfileSwapin(sfio: Sfio, npages: number): number {
  const first = Math.floor(round.off / PAGE_SIZE);
  const fd = round.file!.f_fd;
  let ios = 0;
  let lastRead = false;
  for (let i = 0; i < npages;) {
    const invalid = vmPagesInvalid(round.pages, i, npages);
    lastRead = invalid < npages;
    sfstat.sf_pages_valid += invalid - i;
    i = invalid;
    if (!lastRead) break;
    const there = stored(first + i, npages - i);
    if (there < 0) {
      zeroFill(i, -there);
      i -= there;
      lastRead = false;
      continue;
    }
    const n = runLength(i, there);
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
  if (lastRead) readAhead(first + npages, npages);
  return npages;
}
