/**
 * Limits the threads of libuv's pool that output files occupy. A thread in a call on a disk that
 * does not answer is lost until the disk answers, and the pool has four threads, which page-in
 * needs too. So at most one call per disk and two calls in all are in flight; further calls wait
 * here in order.
 */

const CALLS_MAX = 2;

/** Starts one asynchronous call. It must call `done` when the call has returned. */
type Call = (done: () => void) => void;

const waiting: { readonly disk: string; readonly call: Call }[] = [];
const busy = new Set<string>();

function pump(): void {
  for (let i = 0; i < waiting.length && busy.size < CALLS_MAX;) {
    const { disk, call } = waiting[i]!;
    if (busy.has(disk)) {
      i++;
      continue;
    }
    waiting.splice(i, 1);
    busy.add(disk);
    call(() => {
      busy.delete(disk);
      pump();
    });
  }
}

/** Runs `call` when the limits permit. @param disk any name that is the same for the same disk */
export function poolCall(disk: string, call: Call): void {
  waiting.push({ disk, call });
  pump();
}

/** Number of calls in flight: Node's own exit would wait for them. */
export function poolCallsPending(): number {
  return busy.size;
}
