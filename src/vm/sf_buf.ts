/**
 * sf_bufs, after sf_buf(9): a limited handle that makes one file page addressable. The direct map
 * gives the address; the handle models the scarcity of 32-bit FreeBSD, where kern.ipc.nsfbufs
 * limits them. A caller that must wait queues a task instead of sleeping.
 */

import type { Task } from '../sys/clock.ts';
import { failPoint } from '../sys/fail_point.ts';
import { KASSERT } from '../sys/kassert.ts';
import { passDefer } from '../sys/pass.ts';
import { count, R_SFBUF_NOBUFS } from '../sys/reason.ts';
import { kva, type Kva } from '../sys/types.ts';
import { PAGE_SIZE } from './arena.ts';
import { NOPAGE, type VmPage } from './vm_page.ts';

/** A mapping of one page. */
export class SfBuf {
  /** The mapped page; NOPAGE while the handle is free. */
  m: VmPage = NOPAGE;
}

/** Counters of kern.ipc.nsfbufs*, and of mappings ever made. */
export const sfstatBufs = { max: 4096, current: 0, peak: 0, total: 0 };

const pool: SfBuf[] = [];
let waiters: Task[] = [];
const sfBufFail = failPoint('sf_buf');
/**
 * Ends a wait after an injected failure: possibly no handle is in use, so that none will be freed.
 */
const retry: Task = { run: wakeup };

/** Maps page `m`. Returns null when kern.ipc.nsfbufs are in use. The caller owns it. @see sf_buf(9) */
export function sf_buf_alloc(m: VmPage): SfBuf | null {
  const injected = sfBufFail.refuses();
  if (injected || sfstatBufs.current >= sfstatBufs.max) {
    count(R_SFBUF_NOBUFS);
    if (injected) passDefer(retry);
    return null;
  }
  const sf = pool.pop() ?? new SfBuf();
  sf.m = m;
  sfstatBufs.total++;
  if (++sfstatBufs.current > sfstatBufs.peak) sfstatBufs.peak = sfstatBufs.current;
  return sf;
}

/** Unmaps. The page is not unwired. @see sf_buf(9) */
export function sf_buf_free(sf: SfBuf): void {
  KASSERT(sf.m !== NOPAGE, 'sf_buf_free: free already');
  sf.m = NOPAGE;
  sfstatBufs.current--;
  pool.push(sf);
  wakeup();
}

/**
 * Wakes all waiters in order; one that finds no handle waits again. Waking only the first would
 * lose the wake-up if that one no longer wants a handle.
 */
function wakeup(): void {
  if (waiters.length === 0) return;
  const woken = waiters;
  waiters = [];
  for (const task of woken) passDefer(task);
}

/** Sets kern.ipc.nsfbufs. */
export function sfBufLimit(max: number): void {
  sfstatBufs.max = max;
  wakeup();
}

/** Runs `task` once when a handle is freed, at the end of that pass. First in, first out. */
export function sfBufWait(task: Task): void {
  waiters.push(task);
}

/** Withdraws an `sfBufWait`. */
export function sfBufWaitCancel(task: Task): void {
  waiters = waiters.filter((t) => t !== task);
}

/** @see sf_buf(9) */
export function sf_buf_kva(sf: SfBuf): Kva {
  return kva(sf.m * PAGE_SIZE);
}

/** @see sf_buf(9) */
export function sf_buf_page(sf: SfBuf): VmPage {
  return sf.m;
}

/** Discards all handles; `max` is kern.ipc.nsfbufs. Only `vm_init` calls this. */
export function sfBufInit(max: number): void {
  sfstatBufs.max = max;
  sfstatBufs.current = 0;
  sfstatBufs.peak = 0;
  sfstatBufs.total = 0;
  waiters = [];
}
