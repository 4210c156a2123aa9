/**
 * The parts of sendfile that continue after the call returns: reads in flight, readahead, the free
 * callbacks of file pages, and the statistics; after sys/kern/kern_sendfile.c.
 */

import type { Task } from '../sys/clock.ts';
import { EIO, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { passDefer } from '../sys/pass.ts';
import { count, R_SF_IOERR } from '../sys/reason.ts';
import type { PhysAddr } from '../sys/types.ts';
import { sf_buf_free, sf_buf_page, type SfBuf } from '../vm/sf_buf.ts';
import type { PageinListener } from '../vm/vm_object.ts';
import { PHYS_TO_VM_PAGE, vm_page_unwire, vmPagesUnwire } from '../vm/vm_page.ts';
import { fdrop, fhold, type File } from './kern_descrip.ts';
import { mb_free_notready } from './kern_mbuf.ts';
import {
  EXT_FLAG_CACHE_LAST,
  EXT_FLAG_NOCACHE,
  EXT_FLAG_SYNC,
  type Mbuf,
  type MbufExtPgs,
} from './mbuf.ts';
import { sbflush } from './uipc_sockbuf.ts';
import { type Socket, soref, sorele } from './uipc_socket.ts';

/** kern.ipc.sfstat, in FreeBSD's order. */
export const sfstat = {
  sf_syscalls: 0,
  sf_noiocnt: 0,
  sf_iocnt: 0,
  sf_pages_read: 0,
  sf_pages_valid: 0,
  sf_rhpages_requested: 0,
  sf_rhpages_read: 0,
  sf_busy: 0,
  sf_allocfail: 0,
  sf_allocwait: 0,
  sf_pages_bogus: 0,
};

/** Sets all counters of sfstat to 0. */
export function sfstatReset(): void {
  for (const name of Object.keys(sfstat) as (keyof typeof sfstat)[]) sfstat[name] = 0;
}

/** For leak checks: sendfile calls in progress, and Sfio objects in use. */
export const sendfileLive = { calls: 0, ios: 0 };

/** The reads of one round. The last read to complete makes the mbufs ready. Objects are pooled. */
export class Sfio implements PageinListener {
  /** Reads in flight, plus one for the call until it has passed the data to the protocol. */
  nios = 0;
  error: Errno = 0;
  npages = 0;
  so: Socket | null = null;
  file: File | null = null;
  m: Mbuf | null = null;
  /** Set when the protocol has accepted the mbufs. */
  sent = false;

  pageinDone(error: Errno): void {
    if (error !== 0) this.error = error;
    this.drop();
  }

  /** Decrements `nios`; at 0 completes the round and returns this object to the pool. */
  drop(): void {
    if (--this.nios !== 0) return;
    const { so, m, npages } = this;
    sendfileLive.ios--;
    fdrop(this.file!);
    this.so = null;
    this.file = null;
    this.m = null;
    freeSfios.push(this);
    if (m !== null) this.finish(so!, m, npages);
    sorele(so!);
  }

  finish(so: Socket, m: Mbuf, npages: number): void {
    if (!this.sent) {
      // The protocol rejected the data, and the call has already returned the error.
      mb_free_notready(m, npages);
      return;
    }
    if (this.error === 0 && so.so_pcb !== null) {
      so.so_proto.pr_ready(so, m, npages);
      return;
    }
    if (this.error !== 0) {
      // The call has already returned: abort the connection and set so_error.
      count(R_SF_IOERR);
      if (so.so_pcb !== null) so.so_proto.pr_abort(so);
      so.so_error = EIO;
    }
    // A detached protocol may have left these mbufs in so_snd. Remove them there before they are
    // freed.
    if (so.so_pcb === null) sbflush(so.so_snd);
    KASSERT(so.so_snd.sb_fnrdy === null, 'sendfile: pending data on a dead connection');
    mb_free_notready(m, npages);
  }
}

const freeSfios: Sfio[] = [];

/**
 * An Sfio for one round's reads, with references on `so` and `file`. The caller owns one count of
 * `nios`.
 */
export function sfioAlloc(so: Socket, file: File): Sfio {
  const sfio = freeSfios.pop() ?? new Sfio();
  sfio.nios = 1;
  sfio.error = 0;
  sfio.npages = 0;
  sfio.so = so;
  sfio.file = file;
  sfio.m = null;
  sfio.sent = false;
  sendfileLive.ios++;
  soref(so);
  fhold(file);
  return sfio;
}

/** A readahead. No call waits for it to complete. */
class Readahead implements PageinListener {
  file: File | null = null;

  pageinDone(): void {
    const file = this.file!;
    this.file = null;
    freeReadaheads.push(this);
    fdrop(file);
  }
}

const freeReadaheads: Readahead[] = [];

/**
 * A listener for a readahead from `file`. It holds a reference on `file` until the read completes.
 */
export function readaheadAlloc(file: File): Readahead {
  const ra = freeReadaheads.pop() ?? new Readahead();
  ra.file = file;
  fhold(file);
  return ra;
}

/** For SF_SYNC: the number of mbufs that still refer to file pages. At 0 schedules `waiter`. */
export class Sync {
  count = 0;
  waiter: Task | null = null;

  drop(): void {
    if (--this.count === 0 && this.waiter !== null) passDefer(this.waiter);
  }
}

/**
 * Free callback of an unmapped mbuf of file pages: unwires the pages.
 * @see sys/kern/kern_sendfile.c
 */
export function sendfile_free_mext_pg(m: Mbuf): void {
  const ext = m.m_ext;
  const pgs = ext.ext_pgs!;
  const nocache = (ext.ext_flags & EXT_FLAG_NOCACHE) !== 0;
  const cacheLast = (ext.ext_flags & EXT_FLAG_CACHE_LAST) !== 0;
  const sync = (ext.ext_flags & EXT_FLAG_SYNC) !== 0 ? (ext.ext_arg2 as Sync) : null;
  if (nocache) unwireNocache(pgs, cacheLast);
  else vmPagesUnwire(pgs.pa, pgs.pa0, pgs.npgs);
  sync?.drop();
}

/** Unwires the pages, which will not be needed again, except for the last one with `cacheLast`. */
function unwireNocache(pgs: MbufExtPgs, cacheLast: boolean): void {
  for (let i = 0; i < pgs.npgs; i++) {
    const last = i === pgs.npgs - 1;
    const page = PHYS_TO_VM_PAGE(pgs.pa[pgs.pa0 + i]! as PhysAddr);
    vm_page_unwire(page, !(last && cacheLast));
  }
}

/**
 * Free callback of a mapped mbuf of one file page: unmaps and unwires the page.
 * @see sys/kern/kern_sendfile.c
 */
export function sendfile_free_mext(m: Mbuf): void {
  const ext = m.m_ext;
  const sf = ext.ext_arg1 as SfBuf;
  const page = sf_buf_page(sf);
  sf_buf_free(sf);
  vm_page_unwire(page, (ext.ext_flags & EXT_FLAG_NOCACHE) !== 0);
  if ((ext.ext_flags & EXT_FLAG_SYNC) !== 0) (ext.ext_arg2 as Sync).drop();
}
