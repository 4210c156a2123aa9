/**
 * Runs inside `tapnic serve`, before its program: `node --import write_probe.js`. Replaces `sendfile`
 * of its connections by read(2) and write(2) of pieces of 64 KB, as a server without sendfile sends a
 * file. The rest of the server stays the same. The arm `write` of the bench `sendfile` uses it.
 */

import { readSync } from 'node:fs';
import { Conn, type ConnUser } from '../../src/api/conn.ts';
import type { File } from '../../src/api/file.ts';
import { EWOULDBLOCK, type Errno } from '../../src/sys/errno.ts';

const PIECE = 65536;

/** Stands between a connection and its program, and sends files. */
class Writer implements ConnUser {
  readonly #conn: Conn;
  readonly #user: ConnUser;
  /** The file being sent; null: none. */
  #file: File | null = null;
  #off = 0;
  #left = 0;
  #sent = 0;
  /** Bytes that were read and do not fit yet. */
  #piece: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(conn: Conn, user: ConnUser) {
    this.#conn = conn;
    this.#user = user;
  }

  ready(): void {
    if (this.#file !== null) this.#pump(this.#file);
    this.#user.ready();
  }

  sent(error: Errno, bytes: number): void {
    this.#user.sent(error, bytes);
  }

  /** The head and the first bytes of the file leave together. */
  begin(file: File, offset: number, nbytes: number, head: Buffer): void {
    file.f_count++;
    this.#file = file;
    this.#off = offset;
    this.#left = nbytes;
    this.#sent = 0;
    this.#read(file, head);
    this.#pump(file);
  }

  #read(file: File, head: Buffer): void {
    const piece = Buffer.allocUnsafe(head.length + Math.min(this.#left, PIECE));
    head.copy(piece);
    const n = readSync(file.f_fd, piece, head.length, piece.length - head.length, this.#off);
    this.#off += n;
    this.#left = n === 0 ? 0 : this.#left - n;
    this.#piece = piece.subarray(0, head.length + n);
    this.#at = 0;
  }

  #pump(file: File): void {
    for (;;) {
      while (this.#at < this.#piece.length) {
        const n = this.#conn.send(this.#piece, this.#at);
        if (n === -EWOULDBLOCK) {
          this.#conn.wantRoom();
          return;
        }
        if (n < 0) {
          this.#end(file, -n);
          return;
        }
        this.#at += n;
        this.#sent += n;
      }
      if (this.#left === 0) {
        this.#end(file, 0);
        return;
      }
      this.#read(file, Buffer.alloc(0));
    }
  }

  #end(file: File, error: Errno): void {
    this.#file = null;
    file.drop();
    this.#user.sent(error, this.#sent);
  }
}

const writers = new WeakMap<Conn, Writer>();
type Open = (this: Conn, user: ConnUser) => void;
const open: Open = Object.getOwnPropertyDescriptor(Conn.prototype, 'open')!.value;

Conn.prototype.open = function openWithWriter(this: Conn, user: ConnUser): void {
  const writer = new Writer(this, user);
  writers.set(this, writer);
  open.call(this, writer);
};

Conn.prototype.sendfile = function readAndWrite(this: Conn, file, offset, nbytes, hdtr): Errno {
  writers.get(this)!.begin(file, offset, nbytes, Buffer.concat(hdtr.headers));
  return 0;
};
