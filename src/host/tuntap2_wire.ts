/**
 * A TAP that tuntap2 opened, as a wire. tuntap2 passes frames as Buffers, so every frame allocates
 * a Buffer and is copied once between it and the arena. This driver is not fast; it is for
 * comparison and for hosts that trust only that package. tuntap2 cannot set a name, a namespace,
 * the virtio-net header or NAPI, and it does not work with the native build.
 */

import { EAGAIN, EIO, ENXIO, type Errno } from '../sys/errno.ts';
import type { Wire, WireListener } from '../sys/wire.ts';
import { iovGather, iovLength, iovScatter } from '../sys/wire_iov.ts';
import { assertCurrentArena } from './arena.ts';
import { LinkWatch, openRouteSockets } from './link_watch.ts';
import { tunFds, tunName } from './tun_fds.ts';
import { type Tuntap2Device, tuntap2Error } from './tuntap2.ts';

export type { Tuntap2Device } from './tuntap2.ts';

/** Received frames in the queue at which tuntap2 is paused. */
const QUEUE_MAX = 256;

interface Tuntap2Options {
  readonly mtu: number;
  /** Linux's addresses with prefix length; null for none. */
  readonly hostAddr: string | null;
  readonly hostAddr6: string | null;
}

export class Tuntap2Wire implements Wire {
  readonly created = true;
  readonly napi = 'off' as const;
  readonly vnetHdr = false;
  readonly warnings: string[] = [];
  /** Whether Linux's interface has IPv6. */
  ipv6 = true;
  onGone: ((why: string) => void) | null = null;
  readonly #device: Tuntap2Device;
  readonly #openName: string;
  #watch: LinkWatch | null = null;
  readonly #mem: Uint8Array;
  readonly #queue: Uint8Array[] = [];
  #listener: WireListener | null = null;
  #readable = false;
  #flowing = false;
  #paused = false;
  #full = false;
  #armed = false;
  #dead = false;
  #closed = false;
  #kicked = false;

  /**
   * Takes over `device`: `close` releases it, and so does a failed configuration. Throws
   * TapnicError.
   * @param arena the one `allocArena` returned last
   */
  constructor(arena: ArrayBuffer, device: Tuntap2Device, options: Tuntap2Options) {
    assertCurrentArena(arena);
    this.#mem = new Uint8Array(arena);
    this.#device = device;
    this.#openName = device.name;
    device.on('error', (e) => {
      const text = e instanceof Error ? e.message : String(e);
      this.#die(`tuntap2 reported an error: ${text}`);
    });
    device.on('close', () => this.#die('tuntap2 closed it'));
    device.on('drain', () => this.#drained());
    try {
      this.#configure(options);
    } catch (e) {
      this.close();
      throw e;
    }
  }

  #configure({ mtu, hostAddr, hostAddr6 }: Tuntap2Options): void {
    const device = this.#device;
    const set = (what: string, change: () => void): void => {
      try {
        change();
      } catch (e) {
        throw tuntap2Error(e, what);
      }
    };
    set('mtu', () => (device.mtu = mtu));
    set('up', () => (device.isUp = true));
    if (hostAddr !== null) set(hostAddr, () => (device.ipv4 = hostAddr));
    if (hostAddr6 === null) return;
    try {
      set(hostAddr6, () => (device.ipv6 = hostAddr6));
    } catch (e) {
      // As with our own TAP, a host without IPv6 gets a warning, not an error.
      this.warnings.push((e as Error).message);
      this.ipv6 = false;
    }
  }

  /** Linux's name for the interface. It changes when a followed interface is renamed. */
  get name(): string {
    return this.#watch?.name ?? this.#openName;
  }

  /**
   * Follows the interface by its index from now on. tuntap2 reports neither a new name, nor the
   * link state, nor a move to another namespace. Throws TapnicError (EMFILE; ENODEV: it is gone)
   * and then closes the wire.
   */
  follow(): void {
    try {
      const [fd] = tunFds('self', this.#openName);
      const exists = (): boolean | null =>
        fd === undefined ? null : (tunName('self', fd) ?? '') !== '';
      this.#watch = new LinkWatch(openRouteSockets(), this.#openName, exists);
      this.#watch.start({
        linkUp: (up) => this.#listener?.wireState(up, 0),
        linkGone: (why) => this.#lost(ENXIO, why),
      });
    } catch (e) {
      this.close();
      throw e;
    }
  }

  writev(iov: Uint32Array, iovcnt: number): number {
    if (this.#dead || this.#isDown()) return -EIO;
    if (this.#full) return -EAGAIN;
    const length = iovLength(this.#mem, iov, iovcnt);
    if (length < 0) return length;
    const frame = Buffer.allocUnsafe(length);
    iovGather(this.#mem, iov, frame);
    this.#full = !this.#device.write(frame);
    return length;
  }

  readv(iov: Uint32Array, iovcnt: number): number {
    if (this.#dead) return -EIO;
    const room = iovLength(this.#mem, iov, iovcnt);
    if (room < 0) return room;
    const frame = this.#queue.shift();
    if (frame === undefined) return -EAGAIN;
    if (this.#paused && this.#queue.length < QUEUE_MAX / 2) {
      this.#paused = false;
      this.#device.resume();
    }
    return iovScatter(this.#mem, iov, room, frame);
  }

  armWritable(): void {
    this.#armed = true;
    if (!this.#full) this.#kick();
  }

  setReadable(on: boolean): void {
    this.#readable = on;
    if (on && !this.#flowing && !this.#closed) {
      this.#flowing = true;
      this.#device.on('data', (frame) => this.#received(frame));
    }
    if (on && this.#queue.length > 0) this.#kick();
  }

  setListener(listener: WireListener | null): void {
    this.#listener = listener;
  }

  /** Releases the device, which removes the interface. No listener call follows. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#dead = true;
    this.#listener = null;
    this.#queue.length = 0;
    this.#watch?.close();
    try {
      this.#device.release();
    } catch {
      // The interface was already removed.
    }
  }

  /**
   * Asks Linux, because the event about the link may still wait. tuntap2 ends its stream when the
   * write of a frame fails with EIO, and then Linux removes the interface.
   */
  #isDown(): boolean {
    return this.#watch !== null && (this.#watch.read() !== 0 || !this.#watch.up);
  }

  #received(frame: Uint8Array): void {
    if (this.#dead) return;
    this.#queue.push(frame);
    if (this.#queue.length >= QUEUE_MAX && !this.#paused) {
      this.#paused = true;
      this.#device.pause();
    }
    this.#kick();
  }

  #drained(): void {
    this.#full = false;
    if (this.#armed) this.#kick();
  }

  /**
   * Calls the listener once per turn for all pending events, never from inside a call of the wire.
   */
  #kick(): void {
    if (this.#kicked || this.#closed) return;
    this.#kicked = true;
    setImmediate(() => {
      this.#kicked = false;
      if (this.#armed && !this.#full) {
        this.#armed = false;
        this.#listener?.wireWritable();
      }
      if (!this.#readable || this.#queue.length === 0) return;
      this.#listener?.wireReadable();
      if (this.#readable && this.#queue.length > 0) this.#kick();
    });
  }

  /** tuntap2 does not work any more. The cause may be that the interface is gone. */
  #die(why: string): void {
    this.#watch?.reread();
    this.#lost(EIO, why);
  }

  #lost(error: Errno, why: string): void {
    if (this.#dead) return;
    this.#dead = true;
    this.#listener?.wireState(false, error);
    this.onGone?.(why);
  }
}
