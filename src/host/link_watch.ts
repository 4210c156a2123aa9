/**
 * Follows one interface of Linux by its index while the process runs: its name, whether it is up,
 * and its end: it was deleted, or moved to another network namespace.
 */

import { loadAddon, type NativeAddon } from '../../native-bindings/index.ts';
import { check } from './linux_errno.ts';
import { FdPoll, POLL_READABLE, type PollHandler } from './poll.ts';

const IFF_UP = 1;
const IFNAMSIZ = 16;
const LINUX_ENODEV = -19;
const LINUX_EAGAIN = -11;

/** The text of an interface name that the kernel stored, zero-padded. */
export function ifNameText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** Route sockets in one namespace: `nl` for requests, `events` for link changes. */
export interface RouteSockets {
  readonly nl: number;
  readonly events: number;
}

/** Opens both in the thread's namespace. Throws TapnicError (EMFILE, ENOBUFS). */
export function openRouteSockets(): RouteSockets {
  const addon = loadAddon();
  const nl = check(addon.netlinkOpen(0), 'netlink', 'route socket');
  const events = addon.netlinkOpen(1);
  if (events < 0) addon.fdClose(nl);
  return { nl, events: check(events, 'netlink', 'route socket') };
}

/** Receives the changes of an interface, from the event loop. */
interface LinkListener {
  /** Linux set the interface up or down. */
  linkUp(up: boolean): void;
  /** Called once, with the cause. */
  linkGone(why: string): void;
}

export class LinkWatch implements PollHandler {
  readonly ifindex: number;
  /** Index, IFF_* flags, MTU, MAC address, txqueuelen, IPv6: of the last `read`. */
  readonly state = new Float64Array(6);
  readonly #addon: NativeAddon = loadAddon();
  readonly #sockets: RouteSockets;
  readonly #exists: () => boolean | null;
  readonly #nameBytes = new Uint8Array(IFNAMSIZ);
  #name: string;
  #poll: FdPoll | null = null;
  #listener: LinkListener | null = null;
  #up = false;
  #gone: string | null = null;
  #closed = false;

  /**
   * Takes over the sockets, also if it throws TapnicError (ENODEV).
   * @param exists whether the interface exists, in any namespace; null: unknown
   */
  constructor(sockets: RouteSockets, name: string, exists: () => boolean | null) {
    this.#sockets = sockets;
    this.#exists = exists;
    this.#name = name;
    const error = this.#addon.linkGet(sockets.nl, new TextEncoder().encode(name), this.state);
    if (error < 0) this.close();
    check(error, `link get ${name}`, 'link', { name });
    this.ifindex = this.state[0]!;
  }

  /** Linux's name of the interface when its state was read last. */
  get name(): string {
    return this.#name;
  }

  /** Why the interface is gone; null while it is there. */
  get gone(): string | null {
    return this.#gone;
  }

  /** Whether the interface was up when its state was read last. */
  get up(): boolean {
    return (this.state[1]! & IFF_UP) !== 0;
  }

  /** Reads `state` and the name. Returns 0 or a negated Linux errno. */
  read(): number {
    const { nl } = this.#sockets;
    const error = this.#addon.linkByIndex(nl, this.ifindex, this.state, this.#nameBytes);
    if (error === 0) this.#name = ifNameText(this.#nameBytes);
    return error;
  }

  /** Starts to report changes. Does not keep the process alive. */
  start(listener: LinkListener): void {
    this.#listener = listener;
    if (this.#closed || this.#poll !== null) return;
    check(this.read(), `link get ${this.name}`, 'link', { name: this.name });
    this.#up = this.up;
    this.#poll = new FdPoll(this.#sockets.events, this, false);
    this.#poll.watch(POLL_READABLE);
  }

  /** Called by poll.ts. */
  pollEvent(status: number): void {
    // An overflow of the route socket is an error for libuv, which then stops polling.
    if (status < 0) this.#poll?.restart();
    if (this.#addon.linkNext(this.#sockets.events, this.ifindex) !== LINUX_EAGAIN) this.reread();
  }

  /**
   * Reads the state again after any change, also after changes were lost (ENOBUFS), and reports
   * what is different. `exists` shows whether the interface exists, the route socket whether it is
   * in our namespace.
   */
  reread(): void {
    if (this.#gone !== null || this.#closed) return;
    const exists = this.#exists();
    if (exists === false) return this.#lost('it was deleted');
    const error = this.read();
    const moved = 'moved to another network namespace';
    if (error === LINUX_ENODEV)
      return this.#lost(exists === null ? `it was deleted, or ${moved}` : `it was ${moved}`);
    // Another error, such as ENOMEM, says nothing about the interface; the next change retries.
    if (error !== 0 || this.up === this.#up) return;
    this.#up = this.up;
    this.#listener?.linkUp(this.#up);
  }

  /** Closes the sockets. No call of the listener follows. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener = null;
    this.#poll?.close();
    this.#addon.fdClose(this.#sockets.events);
    this.#addon.fdClose(this.#sockets.nl);
  }

  #lost(why: string): void {
    this.#gone = why;
    this.#up = false;
    this.#poll?.watch(0);
    this.#listener?.linkGone(why);
  }
}
