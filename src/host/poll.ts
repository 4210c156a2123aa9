/** Descriptors on Node's event loop: one callback from the addon, handed to whoever watches. */

import { loadAddon, type NativeAddon } from '../../native-bindings/index.ts';
import { check } from './linux_errno.ts';

export const POLL_READABLE = 1;
export const POLL_WRITABLE = 2;

/** Whoever watches a descriptor. Called from the event loop. */
export interface PollHandler {
  /**
   * @param status 0, or a negated Linux errno: the descriptor is in error and no longer watched
   * @param events POLL_READABLE, POLL_WRITABLE or both
   */
  pollEvent(status: number, events: number): void;
}

const handlers: (PollHandler | undefined)[] = [];
let registered = false;

function dispatch(id: number, status: number, events: number): void {
  handlers[id]?.pollEvent(status, events);
}

/** A watch on one descriptor of the addon, level-triggered. */
export class FdPoll {
  readonly #addon: NativeAddon;
  readonly #ref: 0 | 1;
  readonly #id: number;
  #events = 0;
  #closed = false;

  /**
   * Watches for nothing yet. Throws TapnicError (EBUSY: watched already; EMFILE: more than 64).
   * @param ref whether it keeps the process alive while it watches for something
   */
  constructor(fd: number, handler: PollHandler, ref = true) {
    this.#addon = loadAddon();
    this.#ref = ref ? 1 : 0;
    if (!registered) check(this.#addon.pollCallback(dispatch), 'uv_poll_init');
    registered = true;
    this.#id = check(this.#addon.pollOpen(fd), 'uv_poll_init');
    handlers[this.#id] = handler;
  }

  /** Changes what is watched for; 0 for nothing. Costs a system call only if it is a change. */
  watch(events: number): void {
    if (this.#closed || events === this.#events) return;
    check(this.#addon.pollEvents(this.#id, events, this.#ref), 'uv_poll_start');
    this.#events = events;
  }

  /** No call to the handler follows; the descriptor may be closed at once. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    handlers[this.#id] = undefined;
    this.#addon.pollClose(this.#id);
  }
}
