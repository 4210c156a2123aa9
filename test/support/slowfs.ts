/**
 * A directory with one file, `slow.bin`, whose reads and writes take as long as the test wants; what
 * is written is forgotten. It is a FUSE file system that this process serves. Kernel interface: linux/fuse.h, protocol 7.31. Reads are
 * direct, so that the page cache does not answer them. Needs root and /dev/fuse.
 */

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, read, rmdirSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// Operations of linux/fuse.h.
const LOOKUP = 1;
const FORGET = 2;
const GETATTR = 3;
const SETATTR = 4;
const OPEN = 14;
const READ = 15;
const WRITE = 16;
const RELEASE = 18;
const FLUSH = 25;
const INIT = 26;
const OPENDIR = 27;
const READDIR = 28;
const RELEASEDIR = 29;
const INTERRUPT = 36;
const BATCH_FORGET = 42;

const ENOENT = 2;
const EINTR = 4;
const ENOSYS = 38;
const ROOT = 1n;
const FILE = 2n;
const NAME = 'slow.bin';
const IN_HEADER = 40;
const OUT_HEADER = 16;
const REQUEST_MAX = 1 << 17;
const FOPEN_DIRECT_IO = 1;

const live = new Set<SlowDir>();

export class SlowDir implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'tapnic-slow-'));
  /** Duration of each new read or write, in milliseconds. */
  delayMs = 0;
  readonly #content: Buffer;
  readonly #fd: number;
  /** Pending reads and writes, by the number of their request. */
  readonly #waiting = new Map<bigint, NodeJS.Timeout>();
  #mounted = false;
  #ended: Promise<void> = Promise.resolve();

  private constructor(content: Buffer) {
    this.#content = content;
    this.#fd = openSync('/dev/fuse', 'r+');
  }

  /** Mounts the file system, with `content` in its file. */
  static async mount(content: Buffer): Promise<SlowDir> {
    const fs = new SlowDir(content);
    if (live.size === 0) process.on('exit', unmountAll);
    live.add(fs);
    const options = `fd=3,rootmode=40000,user_id=0,group_id=0`;
    const child = spawn('mount', ['-i', '-t', 'fuse', '-o', options, 'slow', fs.dir], {
      stdio: ['ignore', 'ignore', 'inherit', fs.#fd],
    });
    fs.#ended = fs.#serve();
    const [status] = (await once(child, 'close')) as [number | null];
    if (status !== 0) throw new Error(`mount -t fuse: status ${status}`);
    fs.#mounted = true;
    return fs;
  }

  /** Answers requests until the file system is unmounted. */
  async #serve(): Promise<void> {
    const buf = Buffer.alloc(REQUEST_MAX);
    for (;;) {
      const [code, n] = await new Promise<[string | null, number]>((resolve) =>
        read(this.#fd, buf, 0, buf.length, null, (e, got) => resolve([e?.code ?? null, got])),
      );
      if (code === 'ENODEV' || code === 'EBADF') return;
      // On any other error the request was withdrawn before it could be read.
      if (code === null && n >= IN_HEADER) this.#request(Buffer.from(buf.subarray(0, n)));
    }
  }

  #reply(unique: bigint, error: number, data: Buffer = Buffer.alloc(0)): void {
    const head = Buffer.alloc(OUT_HEADER);
    head.writeUInt32LE(OUT_HEADER + data.length, 0);
    head.writeInt32LE(-error, 4);
    head.writeBigUInt64LE(unique, 8);
    try {
      writeSync(this.#fd, Buffer.concat([head, data]));
    } catch {
      // The requester was interrupted, or the file system is being unmounted.
    }
  }

  #request(req: Buffer): void {
    const opcode = req.readUInt32LE(4);
    const unique = req.readBigUInt64LE(8);
    const node = req.readBigUInt64LE(16);
    const body = req.subarray(IN_HEADER);
    switch (opcode) {
      case INIT:
        return this.#reply(unique, 0, initOut());
      case LOOKUP: {
        const name = body.subarray(0, body.indexOf(0)).toString();
        if (name !== NAME) return this.#reply(unique, ENOENT);
        const entry = Buffer.alloc(40);
        entry.writeBigUInt64LE(FILE, 0);
        return this.#reply(unique, 0, Buffer.concat([entry, this.#attr(FILE)]));
      }
      case GETATTR:
      case SETATTR:
        return this.#reply(unique, 0, Buffer.concat([Buffer.alloc(16), this.#attr(node)]));
      case OPEN:
      case OPENDIR: {
        const out = Buffer.alloc(16);
        out.writeUInt32LE(opcode === OPEN ? FOPEN_DIRECT_IO : 0, 8);
        return this.#reply(unique, 0, out);
      }
      case READ:
        return this.#read(unique, Number(body.readBigUInt64LE(8)), body.readUInt32LE(16));
      case WRITE: {
        const out = Buffer.alloc(8);
        out.writeUInt32LE(body.readUInt32LE(16), 0);
        return this.#later(unique, out);
      }
      case READDIR:
        return this.#reply(unique, 0, body.readBigUInt64LE(8) === 0n ? dirent() : undefined);
      case RELEASE:
      case RELEASEDIR:
      case FLUSH:
        return this.#reply(unique, 0);
      case FORGET:
      case BATCH_FORGET:
        return;
      case INTERRUPT:
        // The reading process was killed. Without an answer the kernel would keep it until the read
        // ends.
        return this.#end(body.readBigUInt64LE(0), EINTR);
      default:
        return this.#reply(unique, ENOSYS);
    }
  }

  #read(unique: bigint, off: number, size: number): void {
    this.#later(unique, this.#content.subarray(off, off + size));
  }

  #later(unique: bigint, data: Buffer): void {
    this.#waiting.set(
      unique,
      setTimeout(() => this.#end(unique, 0, data), this.delayMs),
    );
  }

  #end(unique: bigint, error: number, data?: Buffer): void {
    clearTimeout(this.#waiting.get(unique));
    if (this.#waiting.delete(unique)) this.#reply(unique, error, data);
  }

  /** Number of pending reads and writes. */
  get pending(): number {
    return this.#waiting.size;
  }

  /** struct fuse_attr */
  #attr(node: bigint): Buffer {
    const b = Buffer.alloc(88);
    const dir = node === ROOT;
    b.writeBigUInt64LE(node, 0);
    b.writeBigUInt64LE(BigInt(dir ? 0 : this.#content.length), 8);
    b.writeUInt32LE(dir ? 0o40755 : 0o100644, 60);
    b.writeUInt32LE(1, 64);
    b.writeUInt32LE(4096, 80);
    return b;
  }

  /** Unmounts the file system; pending reads fail. */
  unmount(): void {
    if (!live.delete(this)) return;
    for (const timer of this.#waiting.values()) clearTimeout(timer);
    if (this.#mounted) execFileSync('umount', ['--lazy', this.dir]);
    rmdirSync(this.dir);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.unmount();
    // The kernel ends the connection when no process has a file open there.
    const patience = new Promise((resolve) => setTimeout(resolve, 2000).unref());
    await Promise.race([this.#ended, patience]);
    closeSync(this.#fd);
  }
}

function unmountAll(): void {
  for (const fs of live) fs.unmount();
}

/** struct fuse_init_out */
function initOut(): Buffer {
  const b = Buffer.alloc(64);
  b.writeUInt32LE(7, 0);
  b.writeUInt32LE(31, 4);
  b.writeUInt16LE(16, 16);
  b.writeUInt16LE(12, 18);
  b.writeUInt32LE(4096, 20);
  b.writeUInt32LE(1, 24);
  return b;
}

/** struct fuse_dirent of the only file. */
function dirent(): Buffer {
  const b = Buffer.alloc(24 + 8 * Math.ceil(NAME.length / 8));
  b.writeBigUInt64LE(FILE, 0);
  b.writeBigUInt64LE(1n, 8);
  b.writeUInt32LE(NAME.length, 16);
  b.writeUInt32LE(8, 20);
  b.write(NAME, 24);
  return b;
}
