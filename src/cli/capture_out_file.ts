/**
 * One file of `tapnic capture`. Bytes wait until the file takes them: the caller stops when `write`
 * returns false. The file has whole records only, also after an error, and a FIFO without a reader is tried
 * until one opens it. A name that ends with `.gz` is compressed.
 */

import { getSystemErrorMap } from 'node:util';
import { linuxErrnoName, loadAddon } from '../../native-bindings/index.ts';
import { GzipTarget } from '../host/gzip_target.ts';
import { openTarget } from '../host/sink_open.ts';
import { PipeTarget, type SinkTarget } from '../host/sink_target.ts';

/** Bytes that wait for the file before `write` returns false. */
const ROOM_BYTES = 1 << 20;
/** Time for which compressed files collect records, ms. */
const GZIP_MS = 500;
const READER_MS = 100;

/** The file failed; `code` is EPIPE if its reader has left. */
class OutFileError extends Error {
  readonly code: string;

  constructor(path: string, code: string) {
    const known = [...getSystemErrorMap().values()].find(([name]) => name === code)?.[1];
    const words = code === 'EBUSY' ? 'another capture writes to this file' : known;
    super(`${path}: ${code}${words === undefined ? '' : `: ${words}`}`);
    this.code = code;
  }
}

/** Handler of a file's events. */
interface OutFileEvents {
  /** It is open, or waits for the reader of a FIFO. */
  ready(): void;
  failed(e: OutFileError): void;
}

export class OutFile {
  readonly path: string;
  readonly #claim: boolean;
  readonly #events: OutFileEvents;
  /** Length of the record at the start of `bytes`, which begin with one. */
  readonly #recordLength: (bytes: Uint8Array) => number;
  #target: SinkTarget | null = null;
  readonly #queue: Uint8Array[] = [];
  #queued = 0;
  /** Bytes of the file after the last complete write. */
  #size = 0;
  #writing = false;
  #timer: NodeJS.Timeout | null = null;
  #drained: (() => void) | null = null;
  #closed: (() => void) | null = null;
  #ended = false;
  #unread = false;
  /** A write to it may wait without end. */
  #pipe = false;
  /** A FIFO that is being written does not keep the process alive. */
  #alive: NodeJS.Timeout | null = null;

  /**
   * Starts to open `path`.
   * @param claim whether it fails if another process's capture writes the file
   */
  constructor(
    path: string,
    claim: boolean,
    recordLength: (bytes: Uint8Array) => number,
    events: OutFileEvents,
  ) {
    this.path = path;
    this.#claim = claim;
    this.#recordLength = recordLength;
    this.#events = events;
    this.#open(true);
  }

  #open(create: boolean): void {
    openTarget(this.path, create, (_id, fd) => !this.#claim || lock(fd), {
      opened: (target) => this.#opened(target),
      noReader: () => this.#noReader(),
      failed: ({ code }) => this.#fail(code),
    });
  }

  #opened(target: SinkTarget): void {
    if (this.#ended) return target.close();
    this.#pipe = target instanceof PipeTarget;
    this.#target = this.path.endsWith('.gz') ? new GzipTarget(target) : target;
    if (!this.#unread) this.#events.ready();
    this.#unread = false;
    this.#pump();
  }

  #noReader(): void {
    if (this.#ended) return;
    if (!this.#unread) this.#events.ready();
    this.#unread = true;
    this.#timer = setTimeout(() => this.#open(false), READER_MS);
  }

  /** Whether it is a FIFO that no program has opened for reading. */
  get unread(): boolean {
    return this.#unread;
  }

  /** Takes whole records, which it owns from now on. False: wait for `drained`. */
  write(bytes: Uint8Array): boolean {
    if (this.#ended) return true;
    this.#queue.push(bytes);
    this.#queued += bytes.length;
    if (!this.path.endsWith('.gz') || this.#queued >= ROOM_BYTES) this.#pump();
    else if (this.#target !== null) this.#timer ??= setTimeout(() => this.#pump(), GZIP_MS);
    return this.#queued < ROOM_BYTES;
  }

  /** Calls `done` when there is room again. */
  drained(done: () => void): void {
    if (this.#ended || this.#queued < ROOM_BYTES) done();
    else this.#drained = done;
  }

  #pump(): void {
    const target = this.#target;
    if (target === null || this.#writing) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#queue.length === 0) {
      if (this.#closed !== null) this.#finish(target);
      return;
    }
    const bufs = this.#queue.splice(0);
    const bytes = this.#queued;
    this.#writing = true;
    target.write(bufs, (e, n) => {
      this.#writing = false;
      if (e !== null) {
        target.cut(this.#size + this.#whole(Buffer.concat(bufs).subarray(0, n)));
        return this.#fail(e.code ?? 'EIO');
      }
      this.#size += bytes;
      this.#queued -= bytes;
      const drained = this.#drained;
      this.#drained = null;
      drained?.();
      this.#pump();
    });
  }

  /** Bytes of the whole records in `bytes`. */
  #whole(bytes: Uint8Array): number {
    let at = 0;
    for (
      let length = 0;
      length <= bytes.length - at;
      length = this.#recordLength(bytes.subarray(at))
    )
      at += length;
    return at;
  }

  /** Writes what waits and closes the file, then calls `done`, also after a failure. */
  close(done: () => void): void {
    if (this.#ended) return done();
    this.#closed = done;
    this.#alive = setInterval(() => undefined, 1000);
    this.#pump();
  }

  #finish(target: SinkTarget): void {
    if (target.finish === undefined) return this.#end();
    this.#writing = true;
    target.finish((e) => (e === null ? this.#end() : this.#fail(e.code ?? 'EIO')));
  }

  /** Closes the file without what waits. A write in flight ends first, because it may fail, too. */
  abandon(): void {
    if (this.#ended) return;
    this.#queue.length = 0;
    this.#closed ??= () => undefined;
    if (!this.#writing || this.#pipe) this.#end();
  }

  #fail(code: string): void {
    if (this.#ended) return;
    this.#events.failed(new OutFileError(this.path, code));
    this.#end();
  }

  #end(): void {
    this.#ended = true;
    clearTimeout(this.#timer ?? undefined);
    clearInterval(this.#alive ?? undefined);
    this.#target?.close();
    this.#queue.length = 0;
    this.#drained?.();
    this.#closed?.();
  }
}

/** Whether no other process's capture writes the open file. */
function lock(fd: number | undefined): boolean {
  if (fd === undefined) return true;
  const error = loadAddon().fileLock(fd);
  return error === 0 || linuxErrnoName(-error) !== 'EAGAIN';
}
