/**
 * `Tap` and `Tun`: an interface of this host as a stream of frames or packets, with the property
 * names of the npm package tuntap2. A chunk is one frame in both directions. It needs no machine.
 */

import { Duplex } from 'node:stream';
import { linuxErrnoName, loadAddon } from '../../native-bindings/index.ts';
import { TapnicError } from '../sys/errno.ts';
import { FdPoll, POLL_READABLE, POLL_WRITABLE, type PollHandler } from './poll.ts';
import { TunLink, type TunOptions } from './tun_link.ts';

export type { TunOffload, TunOptions } from './tun_link.ts';

/** The largest frame: virtio-net header, Ethernet header with tags, 64 KiB. */
const FRAME_MAX = 12 + 22 + 65536;
/** Frames written or read in one turn of the loop. */
const BATCH = 256;
/** High-water marks: frames waiting to be read, and bytes waiting to be written. */
const READ_MARK = 256;
const WRITE_MARK = 1 << 20;
const LINUX_EAGAIN = -11;
const LINUX_EIO = -5;
/** The error of a descriptor whose interface was deleted. */
const LINUX_EBADFD = -77;

type Done = (error?: Error | null) => void;
/** An element of the array that Node passes to _writev; the encoding is ignored. */
interface Chunk {
  chunk: Uint8Array;
}

/** Shared by all streams: each frame is copied out before the next is read. */
const room = new Uint8Array(FRAME_MAX);

/**
 * A stream of frames over descriptors of the addon, one frame per chunk. `Tap` and `Tun` use it,
 * and tests use it over a socket pair. Writes go through the first descriptor in order. Reads take
 * up to `BATCH` frames per turn from each descriptor.
 */
export class FrameStream extends Duplex {
  readonly #addon = loadAddon();
  readonly #fds: readonly number[];
  readonly #polls: FdPoll[] = [];
  readonly #what: string;
  readonly #close: () => void;
  #reading = false;
  // The frames being written, and the callback for when all are written.
  #frames: readonly Chunk[] = [];
  #next = 0;
  #done: Done | null = null;

  /**
   * Takes over the descriptors; the callback `close` must close them.
   * @param what name for error messages
   */
  constructor(fds: readonly number[], what: string, close: () => void) {
    super({
      allowHalfOpen: false,
      readableObjectMode: true,
      readableHighWaterMark: READ_MARK,
      writableHighWaterMark: WRITE_MARK,
    });
    this.#fds = fds;
    this.#what = what;
    this.#close = close;
    try {
      fds.forEach((fd, i) => {
        const handler: PollHandler = {
          pollEvent: (status, events) => this.#event(i, status, events),
        };
        this.#polls.push(new FdPoll(fd, handler));
      });
    } catch (e) {
      this.#closeAll();
      throw e;
    }
  }

  #closeAll(): void {
    for (const poll of this.#polls) poll.close();
    this.#close();
  }

  #watch(): void {
    const read = this.#reading ? POLL_READABLE : 0;
    this.#polls.forEach((poll, i) => {
      poll.watch(read | (i === 0 && this.#done !== null ? POLL_WRITABLE : 0));
    });
  }

  #event(queue: number, status: number, events: number): void {
    if (status < 0) {
      // libuv has stopped polling: the interface of the descriptor was deleted.
      this.destroy(new TapnicError('ENODEV', `read ${this.#what}`, 'the interface was deleted'));
      return;
    }
    if ((events & POLL_WRITABLE) !== 0) this.#pump();
    if ((events & POLL_READABLE) !== 0 && this.#reading) this.#receive(this.#fds[queue]!);
  }

  override _read(): void {
    this.#reading = true;
    this.#watch();
  }

  #receive(fd: number): void {
    for (let i = 0; i < BATCH && this.#reading && !this.destroyed; i++) {
      const n = this.#addon.fdRead(fd, room);
      if (n === LINUX_EAGAIN) return;
      if (n <= 0) {
        if (n === 0) this.#readEnd();
        else this.destroy(this.#error(n, 'read'));
        return;
      }
      if (!this.push(Buffer.from(room.subarray(0, n)))) this.#reading = false;
    }
    if (!this.destroyed) this.#watch();
  }

  /** Ends reading: the other end of a socket pair was closed. */
  #readEnd(): void {
    this.#reading = false;
    this.#watch();
    this.push(null);
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: Done): void {
    this._writev([{ chunk }], done);
  }

  override _writev(chunks: readonly Chunk[], done: Done): void {
    this.#frames = chunks;
    this.#next = 0;
    this.#done = done;
    this.#pump();
  }

  /** Writes the next batch of the pending frames. */
  #pump(): void {
    const done = this.#done;
    if (done === null) return;
    const end = Math.min(this.#next + BATCH, this.#frames.length);
    while (this.#next < end) {
      const n = this.#addon.fdWrite(this.#fds[0]!, this.#frames[this.#next]!.chunk);
      if (n === LINUX_EAGAIN) break;
      if (n < 0) {
        this.#settle(this.#error(n, 'write'));
        return;
      }
      this.#next++;
    }
    if (this.#next === this.#frames.length) this.#settle(null);
    else this.#watch();
  }

  #settle(error: Error | null): void {
    const done = this.#done!;
    this.#frames = [];
    this.#done = null;
    this.#watch();
    done(error);
  }

  #error(n: number, syscall: 'read' | 'write'): TapnicError {
    const call = `${syscall} ${this.#what}`;
    if (n === LINUX_EBADFD) return new TapnicError('ENODEV', call, 'the interface was deleted');
    const hint = n === LINUX_EIO ? 'the link is down: set isUp first' : '';
    return new TapnicError(linuxErrnoName(-n), call, hint);
  }

  /** Ends reading when the last frame is written: an interface cannot be half closed. */
  override _final(done: Done): void {
    this.#reading = false;
    this.#watch();
    this.push(null);
    // Discard frames of a stream without a reader, so that they do not keep it open.
    if (this.readableFlowing === null && this.listenerCount('readable') === 0) this.resume();
    done();
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#reading = false;
    this.#closeAll();
    const pending = this.#done;
    this.#done = null;
    this.#frames = [];
    pending?.(error ?? new TapnicError('ECANCELED', `write ${this.#what}`, 'it was closed'));
    done(error);
  }

  /** Not supported, because a frame is bytes: throws TapnicError (EOPNOTSUPP). */
  override setEncoding(_encoding: BufferEncoding): this {
    throw new TapnicError('EOPNOTSUPP', 'setEncoding', 'a frame is bytes');
  }

  override setDefaultEncoding(_encoding: BufferEncoding): this {
    throw new TapnicError('EOPNOTSUPP', 'setDefaultEncoding', 'a frame is bytes');
  }
}

/** The common part of `Tap` and `Tun`. */
abstract class TunTap extends FrameStream {
  readonly #link: TunLink;

  protected constructor(link: TunLink) {
    super(link.fds, link.name, () => link.close());
    this.#link = link;
    process.nextTick(() => {
      if (this.destroyed) return;
      this.emit('open');
      this.emit('ready');
    });
  }

  /** The interface's name in Linux. */
  get name(): string {
    return this.#link.name;
  }

  /** False for a persistent interface that existed before. */
  get created(): boolean {
    return this.#link.created;
  }

  get isTap(): boolean {
    return this.#link.kind === 'TAP';
  }

  get isTun(): boolean {
    return this.#link.kind === 'TUN';
  }

  /**
   * Whether the link is up. A new interface is down. While the link is down, a write fails with
   * EIO.
   */
  get isUp(): boolean {
    return !this.destroyed && this.#link.up;
  }

  set isUp(up: boolean) {
    this.#link.setUp(up);
  }

  /** The largest IP packet, in bytes. */
  get mtu(): number {
    return this.#link.mtu;
  }

  set mtu(mtu: number) {
    this.#link.setMtu(mtu);
  }

  /**
   * Linux's own MAC address, in colon form. On a `Tun` it reads as zeros; setting throws
   * EOPNOTSUPP.
   */
  get mac(): string {
    return this.#link.mac;
  }

  set mac(mac: string) {
    this.#link.setMac(mac);
  }

  /** Linux's first IPv4 address as `192.0.2.1/24`. Setting replaces all IPv4 addresses. */
  get ipv4(): string | undefined {
    return this.#link.addr(4);
  }

  set ipv4(cidr: string) {
    this.#link.setAddr(4, cidr);
  }

  /** Linux's first IPv6 address. Setting adds an address, without duplicate address detection. */
  get ipv6(): string | undefined {
    return this.#link.addr(6);
  }

  set ipv6(cidr: string) {
    this.#link.setAddr(6, cidr);
  }

  /**
   * Writes the queued frames, then closes the interface. Unread frames are lost. Linux removes the
   * interface unless it is persistent. Calls `done` when the stream is closed.
   */
  release(done?: () => void): void {
    if (this.closed) {
      if (done !== undefined) process.nextTick(done);
      return;
    }
    if (done !== undefined) this.once('close', () => done());
    if (this.destroyed) return;
    this.once('finish', () => this.destroy());
    if (!this.writableEnded) this.end();
    else if (this.writableFinished) this.destroy();
  }

  /** @deprecated Does nothing; listen to 'data'. */
  onReceive(..._args: unknown[]): void {}

  /** @deprecated Does nothing; use `write`. */
  writePacket(..._args: unknown[]): void {}
}

/**
 * A TAP interface: Ethernet frames without preamble and frame check sequence.
 * Throws TapnicError with a hint: EACCES, EPERM, ENOENT (no device node or no privilege), EBUSY
 * (the name is in use), EINVAL.
 */
export class Tap extends TunTap {
  constructor(options: TunOptions = {}) {
    super(new TunLink('TAP', options));
  }
}

/** A TUN interface: IP packets. Throws as `Tap` does. */
export class Tun extends TunTap {
  constructor(options: TunOptions = {}) {
    super(new TunLink('TUN', options));
  }
}

/** Options of `tuntap`; others are ignored. */
export interface LegacyOptions {
  /** Default `tun`. */
  readonly type?: 'tun' | 'tap';
  readonly mtu?: number;
  /** IPv4 address. */
  readonly addr?: string;
  /** Dotted decimal; default 255.255.255.255. */
  readonly mask?: string;
  readonly up?: boolean;
  readonly [other: string]: unknown;
}

/** The prefix length of a dotted mask. Throws TapnicError (EINVAL). */
function prefixOf(mask: string): number {
  const parts = mask.split('.').map(Number);
  const bits = parts.reduce((sum, part) => sum * 256 + part, 0);
  const ok = parts.length === 4 && parts.every((n) => Number.isInteger(n) && n >= 0 && n <= 255);
  const prefix = ok ? Math.clz32(~bits) : 0;
  if (!ok || (prefix < 32 && (bits << prefix) >>> 0 !== 0))
    throw new TapnicError('EINVAL', `mask ${mask}`, 'such as 255.255.255.0');
  return prefix;
}

/**
 * The function that older programs call. Throws EINVAL if a name is given (use `new Tap({ name
 * })`), and the errors of `Tap`.
 */
export function tuntap(options: LegacyOptions = {}): Tap | Tun {
  const { type = 'tun', mtu, addr, mask = '255.255.255.255', up } = options;
  if (options['name'] !== undefined)
    throw new TapnicError(
      'EINVAL',
      'tuntap',
      'tuntap does not accept a name: use `new Tap({ name })`',
    );
  if (type !== 'tun' && type !== 'tap')
    throw new TapnicError('EINVAL', `type ${String(type)}`, "'tun' or 'tap'");
  const cidr = addr === undefined ? undefined : `${addr}/${prefixOf(mask)}`;
  const made = type === 'tap' ? new Tap() : new Tun();
  try {
    if (mtu !== undefined) made.mtu = mtu;
    if (cidr !== undefined) made.ipv4 = cidr;
    if (up !== undefined) made.isUp = up;
  } catch (e) {
    made.destroy();
    throw e;
  }
  return made;
}
