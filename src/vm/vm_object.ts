/**
 * The page cache of one file, after vm_object(9) and the vnode pager: pages by index, filled by
 * asynchronous reads straight into page frames. One object per (st_dev, st_ino). When a file has
 * changed, its cached pages are freed, and wired ones keep their bytes until they are unwired. Left
 * out: dirty pages, mappings, shadow objects, swap.
 */

import type { Task } from '../sys/clock.ts';
import type { Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { inPass, passDefer } from '../sys/pass.ts';
import type { FileStat, Pager, PagerRequest } from '../sys/pager.ts';
import { count, R_PAGER_EIO } from '../sys/reason.ts';
import { mem, PAGE_SIZE } from './arena.ts';
import { CHUNK_PAGES, PageIndex } from './page_index.ts';
import {
  NOPAGE,
  type PageOwner,
  vm_page_alloc,
  vm_page_alloc_noobj,
  vm_page_busied,
  vmPageDisown,
  vm_page_unwire,
  vm_page_all_valid,
  vm_page_wire,
  vm_page_wired,
  vmPagesWire,
  vm_page_xunbusy,
  vmWireAllowed,
  type VmPage,
} from './vm_page.ts';

/** Pages one read may fetch: MAXPHYS / PAGE_SIZE. */
export const MAXPAGES_IO = 32;

/** A file whose status changed less than this ago may change again without a new time stamp. */
const YOUNG_NS = 10_000_000;

/** Called when a page-in ends. */
export interface PageinListener {
  /** One read of `npages` pages is done; its pages are valid iff `error` is 0. */
  pageinDone(error: Errno, npages: number): void;
}

const objects = new Map<string, VmObject>();
let pager: Pager | null = null;

/** The page cache of a file. */
export class VmObject implements PageOwner {
  readonly key: string;
  /** Size and change time of the file when the pages were read. */
  size = -1;
  ctimeSec = 0;
  ctimeNsec = 0;
  /** A page was read while the file was young, so the next request reads again. */
  young = false;
  /** Number of users; while there is one, this is the file's only object. */
  refs = 0;
  readonly #pages = new PageIndex();
  #waiters: Task[] = [];

  constructor(key: string) {
    this.key = key;
  }

  /** Pages resident, valid or not. */
  get resident(): number {
    return this.#pages.size;
  }

  /** The frame of page `pindex`, or NOPAGE. */
  lookup(pindex: number): VmPage {
    return this.#pages.get(pindex);
  }

  /** Like vmPagesWire, for the pages from `pindex` on, of which page `from` is next. */
  wireRun(pindex: number, pages: VmPage[], from: number, n: number, held: number): number {
    const at = (pindex + from) % CHUNK_PAGES;
    const end = Math.min(n, from + CHUNK_PAGES - at);
    return vmPagesWire(this.#pages.chunkOf(pindex + from), at - from, pages, from, end, held);
  }

  insert(pindex: number, page: VmPage): void {
    this.#pages.add(pindex, page);
  }

  pageReclaimed(pindex: number, page: VmPage): void {
    if (this.#pages.get(pindex) === page) this.#pages.remove(pindex);
    this.forgetIfUnused();
  }

  /** Removes an object without pages and users from the table. */
  forgetIfUnused(): void {
    if (this.#pages.size !== 0 || this.refs !== 0) return;
    if (objects.get(this.key) === this) objects.delete(this.key);
  }

  /** Releases all pages; wired ones stay without an owner until their last wiring is dropped. */
  invalidate(): void {
    this.#pages.drain(vmPageDisown);
  }

  /** Runs `task` when a read of this object's pages ends. */
  waitPagein(task: Task): void {
    this.#waiters.push(task);
  }

  waitCancel(task: Task): void {
    const i = this.#waiters.indexOf(task);
    if (i >= 0) this.#waiters.splice(i, 1);
  }

  wakeup(): void {
    if (this.#waiters.length === 0) return;
    const woken = this.#waiters;
    this.#waiters = [];
    for (const task of woken) passDefer(task);
  }
}

/** Boots the page cache: discards all objects, and sets the disk. */
export function vmObjectInit(disk: Pager): void {
  objects.clear();
  freeReads.length = 0;
  pager = disk;
}

/** The machine's disk. */
export function machinePager(): Pager {
  KASSERT(pager !== null, 'machinePager: not booted');
  return pager;
}

/** Objects with pages, or in use. */
export function vmObjectCount(): number {
  return objects.size;
}

/** Releases every cached page of every file. For tests and benchmarks of a cold cache. */
export function vmObjectsFlush(): void {
  inPass(flushInPass);
}

function flushInPass(): void {
  for (const object of objects.values()) {
    object.invalidate();
    object.forgetIfUnused();
  }
}

/**
 * The object of the file that `st` describes. Releases stale pages: those of another size or change
 * time, and those read while the file was young. `wallNs` is the time now since 1970. The caller
 * gets a reference, and drops it with `vm_object_deallocate`.
 */
export function vmObjectOf(st: FileStat, wallNs: number): VmObject {
  const key = `${st.dev}:${st.ino}`;
  let object = objects.get(key);
  if (object === undefined) {
    object = new VmObject(key);
    objects.set(key, object);
  }
  object.refs++;
  revalidate(object, st, wallNs, true);
  return object;
}

/** Drops a reference. Pages stay cached. @see vm_object(9) */
export function vm_object_deallocate(object: VmObject): void {
  KASSERT(object.refs > 0, 'vm_object_deallocate: no references');
  object.refs--;
  object.forgetIfUnused();
}

/**
 * Compares the object with the file's status now, and releases pages of another version. `begin`: a
 * new request, which also releases pages that were read while the file was young.
 */
export function revalidate(object: VmObject, st: FileStat, wallNs: number, begin: boolean): void {
  const ageNs = wallNs - (st.ctimeSec * 1e9 + st.ctimeNsec);
  const isYoung = ageNs < YOUNG_NS;
  const same =
    object.size === st.size && object.ctimeSec === st.ctimeSec && object.ctimeNsec === st.ctimeNsec;
  if (!same || (begin && (object.young || isYoung))) {
    object.invalidate();
    object.young = false;
  }
  if (isYoung) object.young = true;
  object.size = st.size;
  object.ctimeSec = st.ctimeSec;
  object.ctimeNsec = st.ctimeNsec;
}

/** Result of `vm_page_grab_pages`. */
export const GRAB_OK = 0;
export const GRAB_BUSY = 1;
export const GRAB_NOMEM = 2;

/**
 * Wires `n` pages from `pindex` on into `pages`, allocating those that are missing (busy, invalid).
 * Unlike FreeBSD nothing sleeps: returns GRAB_BUSY if page `grabbed.n` is being read for another
 * request, and GRAB_NOMEM if there is no frame for it. The pages before it stay wired. `held`: pages
 * that the connection holds already, see vmWireAllowed.
 * @see sys/vm/vm_page.c
 */
export function vm_page_grab_pages(
  object: VmObject,
  pindex: number,
  pages: VmPage[],
  n: number,
  held = 0,
): number {
  grabbed.n = 0;
  for (let i = 0; i < n; i++) {
    const run = object.wireRun(pindex, pages, i, n, held);
    if (run > i) {
      grabbed.n = run;
      i = run - 1;
      continue;
    }
    let p = object.lookup(pindex + i);
    if (p === NOPAGE) {
      p = vm_page_alloc(object, pindex + i, held + i);
      if (p === NOPAGE) return GRAB_NOMEM;
      object.insert(pindex + i, p);
    } else {
      if (vm_page_busied(p)) return GRAB_BUSY;
      if (!vm_page_wired(p) && !vmWireAllowed(held + i)) return GRAB_NOMEM;
      vm_page_wire(p);
    }
    pages[i] = p;
    grabbed.n = i + 1;
  }
  return GRAB_OK;
}

/** How many pages the last `vm_page_grab_pages` wired. */
export const grabbed = { n: 0 };

/** One read in flight: the pages it fills, and its listener. Pooled. */
class PageRead implements PagerRequest {
  /** NOPAGE for a valid page, whose bytes go to the bogus page. */
  readonly pages = new Int32Array(MAXPAGES_IO);
  readonly iov = new Uint32Array(2 * MAXPAGES_IO);
  npages = 0;
  /** Some bytes go to the bogus page. */
  bogus = false;
  object: VmObject | null = null;
  listener: PageinListener | null = null;

  pagerDone(error: Errno, nbytes: number): void {
    inPass(readDone, this, error, nbytes);
  }

  done(error: Errno, nbytes: number): void {
    const { object, listener, npages } = this;
    // A file that shrank during the read gives fewer bytes. The missing ones are zeros, as past the
    // end of file, and the next fstat returns the new size.
    if (error === 0) zeroFrom(this, nbytes);
    else count(R_PAGER_EIO);
    if (this.bogus) bogusRelease();
    this.bogus = false;
    for (let i = 0; i < npages; i++) {
      if (this.pages[i] === NOPAGE) continue;
      vm_page_xunbusy(this.pages[i]!, error === 0);
      // Drop the read's own wiring, which kept the frame in case its requester went away.
      vm_page_unwire(this.pages[i]!, false);
    }
    this.object = null;
    this.listener = null;
    freeReads.push(this);
    try {
      listener!.pageinDone(error, npages);
    } finally {
      object!.wakeup();
    }
  }
}

function readDone(read: PageRead, error: Errno, nbytes: number): void {
  read.done(error, nbytes);
}

function zeroFrom(read: PageRead, nbytes: number): void {
  for (let i = Math.floor(nbytes / PAGE_SIZE); i < read.npages; i++) {
    if (read.pages[i] === NOPAGE) continue;
    const from = Math.max(nbytes - i * PAGE_SIZE, 0);
    const off = read.pages[i]! * PAGE_SIZE;
    mem.fill(0, off + from, off + PAGE_SIZE);
  }
}

const freeReads: PageRead[] = [];

// The bogus page takes bytes of the file that are in memory already. Unlike FreeBSD's it exists
// only while a read needs it.
let bogusPage = NOPAGE;
let bogusUsers = 0;

/** Reserves the bogus page for a read that is about to start. False if there is no frame for it. */
export function vmBogusHold(): boolean {
  if (bogusUsers === 0) {
    bogusPage = vm_page_alloc_noobj();
    if (bogusPage === NOPAGE) return false;
  }
  bogusUsers++;
  return true;
}

function bogusRelease(): void {
  if (--bogusUsers === 0) vm_page_unwire(bogusPage, false);
}

/** Releases the first `n` pages of a read that was not started. */
function abandon(read: PageRead, n: number): void {
  for (let i = 0; i < n; i++) {
    if (read.pages[i] === NOPAGE) continue;
    vm_page_xunbusy(read.pages[i]!, false);
    vm_page_unwire(read.pages[i]!, false);
  }
  if (read.bogus) bogusRelease();
  read.bogus = false;
  read.object = null;
  read.listener = null;
  freeReads.push(read);
}

/**
 * Starts one read of `n` pages, consecutive in the file from `pindex`, at most MAXPAGES_IO. It
 * fills the busy pages; bytes of valid pages go to the bogus page, which the caller holds and the
 * read takes over. Returns 0, and `listener.pageinDone` follows; or an errno, the busy pages then
 * unbusied and invalid. Each page is wired once more during the read.
 * @see sys/vm/vm_pager.c
 */
export function vm_pager_get_pages_async(
  object: VmObject,
  fd: number,
  pindex: number,
  pages: readonly VmPage[],
  first: number,
  n: number,
  listener: PageinListener,
): Errno {
  KASSERT(n > 0 && n <= MAXPAGES_IO, 'vm_pager_get_pages_async: too many pages');
  const read = freeReads.pop() ?? new PageRead();
  read.npages = n;
  read.object = object;
  read.listener = listener;
  for (let i = 0; i < n; i++) {
    let p = pages[first + i]!;
    read.pages[i] = p;
    if (vm_page_all_valid(p)) {
      KASSERT(bogusUsers > 0, 'vm_pager_get_pages_async: valid page, and no bogus page');
      p = bogusPage;
      read.pages[i] = NOPAGE;
      read.bogus = true;
    } else {
      KASSERT(vm_page_busied(p), 'vm_pager_get_pages_async: page not busy');
      vm_page_wire(p);
    }
    read.iov[2 * i] = p * PAGE_SIZE;
    read.iov[2 * i + 1] = PAGE_SIZE;
  }
  const error = machinePager().pread(fd, pindex * PAGE_SIZE, read.iov, n, read);
  if (error === 0) return 0;
  count(R_PAGER_EIO);
  abandon(read, n);
  return error;
}
