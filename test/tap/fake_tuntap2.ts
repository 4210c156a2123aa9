/**
 * A stand-in for the npm package tuntap2 0.9.1. It has exactly the members of that package's `Tap`,
 * and its difficult behaviour: it throws strings, returns addresses only while the link is up,
 * cannot choose its name, and cannot be iterated. It uses our own Tap, so that tests run against
 * the real kernel.
 */

import { EventEmitter } from 'node:events';
import { Tap as OwnTap } from '../../src/index.ts';

const EVENTS = ['close', 'data', 'drain', 'end', 'error', 'finish', 'open', 'pause', 'ready'];

/** Every member that the package documents, and those of its base class EventEmitter. */
export const TUNTAP2_MEMBERS: readonly string[] = `name isTap isTun isUp mtu mac ipv4 ipv6 release
   write end cork uncork pipe unpipe pause resume unshift read
   on once off addListener removeListener emit listenerCount`.split(/\s+/);

function failing(what: string, change: () => void): void {
  try {
    change();
  } catch (e) {
    // tuntap2 throws strings, and the adapter must handle them.
    const thrown: unknown = `${what}: ${(e as Error).message}`;
    throw thrown;
  }
}

export class Tap extends EventEmitter {
  readonly #own: OwnTap;
  #up = false;

  constructor() {
    super();
    let own: OwnTap | undefined;
    failing('open', () => (own = new OwnTap()));
    this.#own = own!;
    for (const event of EVENTS)
      this.#own.on(event, (arg: unknown) => {
        if (event !== 'error' || this.listenerCount('error') > 0) this.emit(event, arg);
      });
    // As in tuntap2, the stream flows as soon as there is a listener.
    this.#own.pause();
    this.on('newListener', (event: string) => {
      if (event === 'data') this.#own.resume();
    });
  }

  get name(): string {
    return this.#own.name;
  }

  get isTap(): boolean {
    return true;
  }

  get isTun(): boolean {
    return false;
  }

  get isUp(): boolean {
    return this.#up;
  }

  set isUp(up: boolean) {
    failing('isUp', () => (this.#own.isUp = up));
    this.#up = up;
  }

  get mtu(): number {
    return this.#own.mtu;
  }

  set mtu(mtu: number) {
    failing('mtu', () => (this.#own.mtu = mtu));
  }

  get ipv4(): string {
    return this.#needsUp(this.#own.ipv4);
  }

  set ipv4(cidr: string) {
    failing('ipv4', () => (this.#own.ipv4 = cidr));
  }

  get ipv6(): string {
    return this.#needsUp(this.#own.ipv6);
  }

  set ipv6(cidr: string) {
    failing('ipv6', () => (this.#own.ipv6 = cidr));
  }

  get mac(): string {
    return this.#needsUp(this.#own.mac);
  }

  set mac(mac: string) {
    failing('mac', () => (this.#own.mac = mac));
  }

  #needsUp(value: string | undefined): string {
    const thrown: unknown = 'the interface is down';
    if (!this.#up || value === undefined) throw thrown;
    return value;
  }

  write(frame: Uint8Array, done?: (error?: Error | null) => void): boolean {
    return this.#own.write(frame, done);
  }

  pause(): void {
    this.#own.pause();
  }

  resume(): void {
    this.#own.resume();
  }

  release(done?: () => void): void {
    this.#own.release(done);
  }
}
