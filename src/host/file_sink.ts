/**
 * A file or FIFO that is written record by record, for captures, and never blocks the event loop.
 *
 *   const sink = new FileSink(path, events); // starts to open
 *   sink.write(header);                      // bytes before the first record: the file's header
 *   if (sink.begin(n)) sink.write(record);   // false: dropped, and counted if it is a packet
 *   sink.close();                            // writes what was accepted; see `closed`
 *
 * The header is written when the file is open, records at most FLUSH_MS later. The file has whole
 * records only, also after an error. `write` copies, so the caller keeps its bytes. The sink owns at most
 * FILE_CHUNKS or PIPE_CHUNKS chunks; a target owns those of one write until that write is done.
 *
 * A path that ends with `.gz` is compressed.
 *
 * A FIFO without a reader is tried every READER_MS; until a reader opens it, records are dropped. A
 * reader that leaves ends the sink, as it ends tcpdump. Left out: another reader after that one.
 */

import { KASSERT } from '../sys/kassert.ts';
import { TapnicError } from '../sys/errno.ts';
import { count, R_CAPTURE_ENDED, R_CAPTURE_NO_READER, R_CAPTURE_SLOW } from '../sys/reason.ts';
import { GzipTarget } from './gzip_target.ts';
import { openTarget, whyNot } from './sink_open.ts';
import { PipeTarget, type SinkTarget } from './sink_target.ts';

/** A record fits: CAPTURE_SNAPLEN_MAX and its header. */
const CHUNK_BYTES = 1 << 19;
const CHUNK_RECORDS = 8192;
/** Bounds of the memory: 64 MiB, and 8 MiB for a FIFO. A turn of the loop may drain 8 MiB. */
const FILE_CHUNKS = 128;
const PIPE_CHUNKS = 16;
/** Chunks that are kept for reuse when nothing waits; others are freed one by one. */
const SPARE_CHUNKS = 4;
/** Chunks of one write. A FIFO gets one: what a reader has not taken at the end counts as dropped. */
const WRITE_CHUNKS = 16;
/** Bytes of blocks for `headerFirst` that wait. */
const FIRST_BYTES = 8 << 20;
/** Bytes up to which a loop copies. */
const LOOP_BYTES = 128;
const FLUSH_MS = 200;
const READER_MS = 100;
/** Milliseconds between checks that the file still has a name. */
const UNLINKED_MS = 1000;

/** Handler of a sink's events. */
export interface SinkEvents {
  /**
   * The sink has ended before `close`. Called when that happens.
   * @param failed false: the reader of a FIFO has left
   */
  sinkEnded(message: string, failed: boolean): void;
  /** `closed` has become true. */
  sinkClosed?(): void;
}

/** Whole records in the order of the file. */
class Chunk {
  readonly buf = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  /** Offset of the end of each record. */
  readonly ends = new Uint32Array(CHUNK_RECORDS);
  /** 1 for a packet; 0 for a record that describes the capture. */
  readonly packet = new Uint8Array(CHUNK_RECORDS);
  records = 0;
  packets = 0;
  used = 0;
}

/** `opening` and `open` accept records, `waiting` (for a reader) and `ended` drop them. */
type State = 'opening' | 'waiting' | 'open' | 'ended';

/** The files and FIFOs that sinks of this isolate write, by device and inode. */
const inUse = new Map<string, FileSink>();

export class FileSink {
  readonly path: string;
  /**
   * Resolves when the header was written or refused, or a FIFO waits for its reader. Rejects with
   * TapnicError if the file cannot be opened.
   */
  readonly opened: Promise<void>;
  /** The error that ended the sink; null before an error. */
  error: TapnicError | null = null;
  /** Records that were written. */
  written = 0;
  /** Records that were dropped: no reader, reader or disk too slow, after the end. */
  noReader = 0;
  tooSlow = 0;
  afterEnd = 0;
  readonly #events: SinkEvents;
  #settle!: { resolve(): void; reject(e: Error): void };
  #state: State = 'opening';
  #late = false;
  #closing = false;
  #closed = false;
  #target: SinkTarget | null = null;
  #id: string | null = null;
  #chunksMax = FILE_CHUNKS;
  #header: Uint8Array = new Uint8Array(0);
  /** Bytes of the record under way that are still to come. */
  #left = 0;
  #filling = new Chunk();
  #chunks = 1;
  readonly #full: Chunk[] = [];
  /** Chunks of the write in flight, and the blocks in front of them. */
  #flight: Chunk[] = [];
  #flightFirst: Uint8Array[] = [];
  /** Blocks that go in front of the next write. */
  #first: Uint8Array[] = [];
  #firstBytes = 0;
  /** For `delay`: when the last of `#full` was queued, and that the next tick writes it. */
  #delay = false;
  #heldAt: number | null = null;
  #writing = false;
  /** Bytes of the file after the last complete write. */
  #size = 0;
  readonly #spare: Chunk[] = [];
  #timed = false;
  #flushNext = false;
  #flushTimer: NodeJS.Timeout | null = null;
  #readerTimer: NodeJS.Timeout | null = null;
  #checkedAt = performance.now();

  /** Starts to open `path`, which is created or emptied. */
  constructor(path: string, events: SinkEvents) {
    this.path = path;
    this.#events = events;
    this.opened = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.opened.catch(() => undefined);
    this.#open(true);
  }

  /** Reports an error of the open by `sinkEnded` from now on: nothing waits for `opened`. */
  openLate(): void {
    this.#late = true;
  }

  /**
   * From now on records wait for FLUSH_MS longer, if there is room: for blocks that `headerFirst` puts in front
   * of them.
   */
  delay(): void {
    this.#delay = true;
  }

  /**
   * Starts a record of `len` bytes, which `write` calls must follow. False: it is dropped.
   * @param packet false for a record that describes the capture: it is not counted
   */
  begin(len: number, packet = true): boolean {
    KASSERT(this.#left === 0, 'FileSink: record under way');
    if (this.#state === 'waiting') {
      if (packet) this.noReader++;
      if (packet) count(R_CAPTURE_NO_READER);
      return false;
    }
    if (this.#state === 'ended' || this.#closing) {
      if (packet) this.afterEnd++;
      if (packet) count(R_CAPTURE_ENDED);
      return false;
    }
    const { used, records } = this.#filling;
    if ((len > CHUNK_BYTES - used || records === CHUNK_RECORDS) && !this.#nextChunk(len)) {
      if (packet) this.tooSlow++;
      if (packet) count(R_CAPTURE_SLOW);
      return false;
    }
    const chunk = this.#filling;
    chunk.packet[chunk.records] = packet ? 1 : 0;
    if (packet) chunk.packets++;
    chunk.ends[chunk.records++] = chunk.used + len;
    this.#left = len;
    if (!this.#timed) this.#armFlush();
    return true;
  }

  /** Copies `bytes[off .. off + len)`: a part of the record, or of the header before the first one. */
  write(bytes: Uint8Array, off = 0, len = bytes.length - off): void {
    if (this.#left === 0) {
      KASSERT(this.#state === 'opening', 'FileSink: header after the open');
      this.#header = Buffer.concat([this.#header, bytes.subarray(off, off + len)]);
      return;
    }
    KASSERT(len <= this.#left, 'FileSink: record longer than begun');
    const chunk = this.#filling;
    // set() needs a view, 97 bytes of garbage; a loop is as fast up to this length and needs none.
    if (len > LOOP_BYTES) chunk.buf.set(bytes.subarray(off, off + len), chunk.used);
    else for (let i = 0; i < len; i++) chunk.buf[chunk.used + i] = bytes[off + i]!;
    chunk.used += len;
    this.#left -= len;
  }

  /**
   * Appends a block of the format that every reader needs, also one that opens a FIFO later. Returns
   * false if there is no room for it now.
   */
  header(bytes: Uint8Array): boolean {
    if (this.#state === 'waiting' || (this.#state === 'opening' && this.#filling.records === 0)) {
      this.#header = Buffer.concat([this.#header, bytes]);
      return true;
    }
    if (!this.begin(bytes.length, false)) return false;
    this.write(bytes);
    return true;
  }

  /** As `header`, but in front of all records that are not being written yet. */
  headerFirst(bytes: Uint8Array): boolean {
    if (this.#state === 'ended' || this.#closing) return true;
    const size = this.#firstBytes + bytes.length;
    if (this.#state === 'open') {
      if (size > FIRST_BYTES) return false;
      this.#first.push(bytes);
      this.#firstBytes = size;
      if (!this.#timed) this.#armFlush();
      return true;
    }
    if (this.#header.length + bytes.length > FIRST_BYTES) return false;
    this.#header = Buffer.concat([this.#header, bytes]);
    return true;
  }

  /** Writes what has waited for FLUSH_MS; what came since then waits until the next tick. */
  #tick(): void {
    this.#timed = false;
    if (!this.#delay || this.#closing || this.#state !== 'open') return this.flush();
    const now = performance.now();
    if (this.#heldAt !== null && now - this.#heldAt < FLUSH_MS / 2) return this.#armFlush();
    this.#heldAt = null;
    this.#writeFull();
    if (this.#filling.used > 0) {
      this.#heldAt = now;
      if (!this.#nextChunk(0)) this.#heldAt = null;
      this.#armFlush();
    } else if (this.#first.length > 0 || this.#full.length > 0) this.#armFlush();
  }

  /** Starts to write what was accepted, or does so after the write in flight. */
  flush(): void {
    if (this.#state !== 'open') return;
    this.#heldAt = null;
    if (this.#writing) {
      this.#flushNext = true;
      return;
    }
    this.#flushNext = false;
    if (this.#filling.used > 0 && !this.#nextChunk(0)) this.#flushNext = true;
    this.#writeFull();
  }

  /** Accepts no more records, writes those that were accepted, then closes the file. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#state === 'waiting' || this.#state === 'ended') this.#shut();
    else this.#closeIfDone();
  }

  /** Whether everything accepted was written or dropped, and the file is closed. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Closes without waiting; what is not yet written counts as dropped. */
  abandon(): void {
    if (this.#closed) return;
    this.#closing = true;
    if (this.#writing) this.#countWritten(this.#target!.taken());
    const lost = this.#discard();
    this.tooSlow += lost;
    count(R_CAPTURE_SLOW, lost);
    this.#shut();
  }

  #open(create: boolean): void {
    openTarget(this.path, create, (id) => this.#claim(id), {
      opened: (target) => this.#opened(target),
      noReader: () => this.#waitForReader(),
      failed: (error) => {
        if (this.#closed) return;
        this.#settle.reject(error);
        this.#end(error, true);
      },
    });
  }

  /** Reserves the file `id` for this sink; false if another one writes it. */
  #claim(id: string): boolean {
    if (this.#closed) return false;
    const user = inUse.get(id);
    if (user !== undefined && user !== this) return false;
    this.#unclaim();
    this.#id = id;
    inUse.set(id, this);
    return true;
  }

  #unclaim(): void {
    if (this.#id !== null) inUse.delete(this.#id);
    this.#id = null;
  }

  #opened(target: SinkTarget): void {
    if (this.#closed) {
      target.close();
      return;
    }
    if (target instanceof PipeTarget) this.#chunksMax = PIPE_CHUNKS;
    this.#target = this.path.endsWith('.gz') ? new GzipTarget(target) : target;
    this.#state = 'open';
    this.#flushNext = true;
    this.#put([this.#header], this.#header.length);
  }

  #waitForReader(): void {
    if (this.#closed) return;
    if (this.#state === 'opening') {
      const lost = this.#discard();
      this.noReader += lost;
      count(R_CAPTURE_NO_READER, lost);
      this.#state = 'waiting';
    }
    this.#settle.resolve();
    if (this.#closing) this.#shut();
    else this.#readerTimer = setTimeout(() => this.#open(false), READER_MS).unref();
  }

  /** Queues the chunk under way for the next write. False: no chunk is free to continue in. */
  #nextChunk(len: number): boolean {
    if (len > CHUNK_BYTES) return false;
    let chunk = this.#spare.pop();
    if (chunk === undefined) {
      if (this.#chunks >= this.#chunksMax) return false;
      this.#chunks++;
      chunk = new Chunk();
    }
    this.#full.push(this.#filling);
    this.#filling = chunk;
    // A full chunk does not wait.
    if (len > 0) this.#heldAt = null;
    this.#writeFull();
    return true;
  }

  #armFlush(): void {
    this.#timed = true;
    this.#flushTimer ??= setTimeout(() => this.#tick(), FLUSH_MS).unref();
    this.#flushTimer.refresh();
  }

  #writeFull(): void {
    if (this.#writing || this.#state !== 'open' || this.#heldAt !== null) return;
    if (this.#full.length === 0 && this.#first.length === 0) return;
    this.#flightFirst = this.#first;
    this.#first = [];
    this.#firstBytes = 0;
    this.#flight = this.#full.splice(0, this.#chunksMax === PIPE_CHUNKS ? 1 : WRITE_CHUNKS);
    let bytes = 0;
    for (const { length } of this.#flightFirst) bytes += length;
    for (const { used } of this.#flight) bytes += used;
    const records = this.#flight.map(({ buf, used }) => buf.subarray(0, used));
    this.#put([...this.#flightFirst, ...records], bytes);
  }

  #put(bufs: Uint8Array[], bytes: number): void {
    this.#writing = true;
    this.#target!.write(bufs, (e, n) => {
      this.#writing = false;
      // After a first write, records or not, the header is in the file.
      this.#settle.resolve();
      if (e !== null) this.#writeFailed(e, n);
      else this.#wrote(bytes);
    });
  }

  #wrote(bytes: number): void {
    this.#size += bytes;
    for (const chunk of this.#flight) {
      this.written += chunk.packets;
      this.#recycle(chunk);
    }
    this.#flight = [];
    this.#flightFirst = [];
    if (this.#full.length === 0 && this.#spare.length > SPARE_CHUNKS) {
      this.#spare.pop();
      this.#chunks--;
    }
    if (this.#flushNext) this.flush();
    else this.#writeFull();
    if (this.#closing) this.#closeIfDone();
    else this.#checkName();
  }

  #recycle(chunk: Chunk): void {
    chunk.used = 0;
    chunk.records = 0;
    chunk.packets = 0;
    this.#spare.push(chunk);
  }

  /** Ends the sink after `n` bytes of the write in flight; the file keeps whole records. */
  #writeFailed(e: NodeJS.ErrnoException, n: number): void {
    this.#target!.cut(this.#size + this.#countWritten(n));
    const gone = e.code === 'EPIPE';
    const what = gone ? 'the reader has left' : whyNot(e);
    this.#end(new TapnicError(e.code ?? 'EIO', `write ${this.path}`, what), !gone);
  }

  /** Counts the records in the first `n` bytes of the write in flight; returns where they end. */
  #countWritten(n: number): number {
    let whole = 0;
    let left = n;
    for (const { length } of this.#flightFirst) {
      if (length > left) return whole;
      whole += length;
      left -= length;
    }
    for (const chunk of this.#flight) {
      let i = 0;
      let packets = 0;
      while (i < chunk.records && chunk.ends[i]! <= left) packets += chunk.packet[i++]!;
      if (i > 0) whole += chunk.ends[i - 1]!;
      this.written += packets;
      chunk.packets -= packets; // for #discard
      if (i < chunk.records) break;
      left -= chunk.used;
    }
    return whole;
  }

  /** Reports a file that was removed: no program could open what is written to it. */
  #checkName(): void {
    const now = performance.now();
    if (now - this.#checkedAt < UNLINKED_MS || this.#state !== 'open') return;
    this.#checkedAt = now;
    this.#target!.unlinked((yes) => {
      if (yes && this.#state === 'open')
        this.#end(new TapnicError('ENOENT', `write ${this.path}`, 'the file was removed'), true);
    });
  }

  #end(error: TapnicError, failed: boolean): void {
    if (this.#state === 'ended') return;
    const report = this.#state !== 'opening' || this.#late;
    this.error = error;
    const lost = this.#discard();
    this.afterEnd += lost;
    count(R_CAPTURE_ENDED, lost);
    this.#shut();
    // An error of the open goes to `opened` while the start waits for that.
    if (report) this.#events.sinkEnded(error.message, failed);
  }

  /** Forgets all records that are not written; returns how many. */
  #discard(): number {
    let lost = this.#filling.packets;
    for (const { packets } of this.#full) lost += packets;
    for (const { packets } of this.#flight) lost += packets;
    this.#filling.used = 0;
    this.#filling.records = 0;
    this.#filling.packets = 0;
    this.#full.length = 0;
    this.#flight = [];
    return lost;
  }

  #closeIfDone(): void {
    if (this.#state !== 'open' || this.#writing) return;
    if (this.#filling.used > 0 || this.#full.length > 0 || this.#first.length > 0) this.flush();
    else this.#finish();
  }

  /** Writes the end of the format, then closes. */
  #finish(): void {
    const target = this.#target!;
    if (target.finish === undefined) return this.#shut();
    this.#writing = true;
    target.finish((e) => {
      this.#writing = false;
      if (e === null) this.#shut();
      else this.#end(new TapnicError(e.code ?? 'EIO', `write ${this.path}`, whyNot(e)), true);
    });
  }

  #shut(): void {
    this.#state = 'ended';
    clearTimeout(this.#flushTimer ?? undefined);
    clearTimeout(this.#readerTimer ?? undefined);
    this.#unclaim();
    this.#target?.close();
    const first = !this.#closed;
    this.#closed = true;
    this.#settle.resolve();
    if (first) this.#events.sinkClosed?.();
  }
}
