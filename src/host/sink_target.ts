/**
 * Where the bytes of a FileSink go: a file, device or terminal by calls on libuv's thread pool, or
 * a FIFO by libuv's own polling. Neither blocks the event loop, and a FIFO occupies no pool thread.
 */

import { close, ftruncate, fstat, writev } from 'node:fs';
import { Socket } from 'node:net';
import { poolCall } from './pool_gate.ts';

/** Milliseconds until a terminal or another device that took no bytes is tried again. */
const RETRY_MS = 50;
/** Bytes that a FIFO gets at a time: its usual capacity. */
const PIECE_BYTES = 1 << 16;

/** Called with the error, or null, and with the number of bytes that were written. */
export type Written = (error: NodeJS.ErrnoException | null, n: number) => void;

/** An open destination. One `write` at a time. */
export interface SinkTarget {
  /** Writes all of `bufs`. The target owns the buffers until it calls `done`. */
  write(bufs: readonly Uint8Array[], done: Written): void;
  /** Bytes of the write in flight that are known to be written. */
  taken(): number;
  /** Removes what follows the first `size` bytes, if the destination can do that. */
  cut(size: number): void;
  /** Calls `done` with true if the file has lost its last name. */
  unlinked(done: (yes: boolean) => void): void;
  /** Writes what the format needs at the end; no write is in flight. Absent: nothing. */
  finish?(done: Written): void;
  /** Closes the descriptor, after a call in flight has returned. */
  close(): void;
}

/** A regular file, a device or a terminal. The descriptor is non-blocking where that has a meaning. */
export class FileTarget implements SinkTarget {
  readonly #fd: number;
  readonly #disk: string;
  readonly #regular: boolean;
  #calls = 0;
  #closing = false;
  #retry: NodeJS.Timeout | null = null;

  /** Takes over `fd`. @param disk see `poolCall` */
  constructor(fd: number, disk: string, regular: boolean) {
    this.#fd = fd;
    this.#disk = disk;
    this.#regular = regular;
  }

  write(bufs: readonly Uint8Array[], done: Written): void {
    this.#writeRest(bufs, 0, done);
  }

  /** @param before bytes of this write that are written */
  #writeRest(bufs: readonly Uint8Array[], before: number, done: Written): void {
    this.#call((returned) => {
      writev(this.#fd, bufs, (e, n) => {
        returned();
        if (this.#closing) return;
        if (e?.code === 'EAGAIN') {
          this.#retry = setTimeout(() => this.#writeRest(bufs, before, done), RETRY_MS).unref();
          return;
        }
        if (e !== null) return done(e, before);
        const rest = afterBytes(bufs, n);
        if (rest.length === 0) done(null, before + n);
        else this.#writeRest(rest, before + n, done);
      });
    });
  }

  taken(): number {
    return 0;
  }

  cut(size: number): void {
    if (!this.#regular) return;
    this.#call((returned) => ftruncate(this.#fd, size, returned));
  }

  unlinked(done: (yes: boolean) => void): void {
    if (!this.#regular) return;
    this.#call((returned) => {
      fstat(this.#fd, (e, st) => {
        returned();
        if (!this.#closing) done(e === null && st.nlink === 0);
      });
    });
  }

  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    if (this.#calls === 0) this.#closeNow();
  }

  /** Runs a call that uses the descriptor; a close waits for it. */
  #call(start: (returned: () => void) => void): void {
    this.#calls++;
    poolCall(this.#disk, (done) => {
      start(() => {
        done();
        if (--this.#calls === 0 && this.#closing) this.#closeNow();
      });
    });
  }

  #closeNow(): void {
    poolCall(this.#disk, (done) => close(this.#fd, done));
  }
}

/** The part of `bufs` after the first `n` bytes. */
function afterBytes(bufs: readonly Uint8Array[], n: number): readonly Uint8Array[] {
  let left = n;
  let i = 0;
  while (i < bufs.length && left >= bufs[i]!.length) left -= bufs[i++]!.length;
  if (i === bufs.length) return [];
  return [bufs[i]!.subarray(left), ...bufs.slice(i + 1)];
}

/** A FIFO with a reader. Written in pieces, so that what the reader got is known to a piece. */
export class PipeTarget implements SinkTarget {
  readonly #socket: Socket;
  #bufs: readonly Uint8Array[] = [];
  #done: Written | null = null;
  /** Next byte to write: in which buffer, and where. */
  #buf = 0;
  #off = 0;
  /** Bytes of the piece in flight, and those of this write before it. */
  #piece = 0;
  #before = 0;

  /** Takes over `fd`, the write end. */
  constructor(fd: number) {
    this.#socket = new Socket({ fd, readable: false, writable: true });
    this.#socket.unref();
    // A failed write is reported here, too.
    this.#socket.on('error', (e) => this.#finish(e));
  }

  write(bufs: readonly Uint8Array[], done: Written): void {
    this.#bufs = bufs;
    this.#done = done;
    this.#buf = this.#off = this.#piece = this.#before = 0;
    this.#next();
  }

  #next(): void {
    const buf = this.#bufs[this.#buf];
    if (buf === undefined) return this.#finish(null);
    const piece = buf.subarray(this.#off, this.#off + PIECE_BYTES);
    this.#piece = piece.length;
    this.#off += piece.length;
    if (this.#off === buf.length) {
      this.#buf++;
      this.#off = 0;
    }
    this.#socket.write(piece, (e) => {
      if (e || this.#done === null) return;
      this.#before += piece.length;
      this.#piece = 0;
      this.#next();
    });
  }

  #finish(error: NodeJS.ErrnoException | null): void {
    const done = this.#done;
    this.#done = null;
    this.#bufs = [];
    done?.(error, this.#before);
  }

  taken(): number {
    // The handle has what libuv could not write yet. Node's own socket time-outs read it, too.
    const handle: unknown = Reflect.get(this.#socket, '_handle');
    const queued: unknown =
      typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'writeQueueSize') : null;
    const piece = typeof queued === 'number' ? Math.max(this.#piece - queued, 0) : 0;
    return this.#before + piece;
  }

  cut(): void {
    // Bytes in a FIFO cannot be taken back.
  }

  unlinked(): void {
    // The reader still has the FIFO.
  }

  close(): void {
    this.#done = null;
    this.#socket.destroy();
  }
}
