/** Polls descriptors on Node's event loop: dispatches the addon's one callback to the handlers. */

import { loadAddon, type NativeAddon } from '../../native-bindings/index.ts';
import { hostPollBegin, hostPollEnd, hostSpin } from './host_event.ts';
import { check } from './linux_errno.ts';

export const POLL_READABLE = 1;
export const POLL_WRITABLE = 2;

/** The handler of a polled descriptor. Called from the event loop. */
export interface PollHandler {
  /**
   * @param status 0, or a negated Linux errno: the descriptor is in error and is no longer polled
   * @param events POLL_READABLE, POLL_WRITABLE or both
   */
  pollEvent(status: number, events: number): void;
}

const handlers: (PollHandler | undefined)[] = [];
let registered = false;

function dispatch(id: number, status: number, events: number): void {
  hostPollBegin();
  try {
    handlers[id]?.pollEvent(status, events);
  } finally {
    hostPollEnd();
  }
}

/** A level-triggered poll of one descriptor of the addon. */
export class FdPoll {
  readonly #addon: NativeAddon;
  readonly #ref: 0 | 1;
  readonly #id: number;
  #events = 0;
  #closed = false;

  /**
   * Starts without events; see `watch`. Throws TapnicError (EBUSY: already polled; ENOMEM).
   * @param ref whether the poll keeps the process alive while it waits for an event
   */
  constructor(fd: number, handler: PollHandler, ref = true) {
    this.#addon = loadAddon();
    this.#ref = ref ? 1 : 0;
    if (!registered) {
      const addon = this.#addon;
      check(addon.pollCallback(dispatch), 'uv_poll_init', 'poll');
      hostSpin((ns) => addon.pollSpin(ns) !== 0);
    }
    registered = true;
    this.#id = check(this.#addon.pollOpen(fd), 'uv_poll_init', 'poll');
    handlers[this.#id] = handler;
  }

  /** Sets the events to wait for; 0 for none. Makes a system call only if they change. */
  watch(events: number): void {
    if (this.#closed || events === this.#events) return;
    check(this.#addon.pollEvents(this.#id, events, this.#ref), 'uv_poll_start', 'poll');
    this.#events = events;
  }

  /** Continues with the same events after libuv stopped polling because of an error. */
  restart(): void {
    const events = this.#events;
    this.watch(0);
    this.watch(events);
  }

  /** Stops polling. No handler call follows, and the descriptor may be closed immediately. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    handlers[this.#id] = undefined;
    this.#addon.pollClose(this.#id);
  }
}
