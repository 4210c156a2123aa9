/**
 * The files of `tapnic capture`: it gets one capture as a stream and divides it at packets, by size and
 * time as tcpdump does. Every file begins with the headers of the stream.
 */

import { Writable } from 'node:stream';
import { KEY_LOG_MAX } from '../pcap/key_log.ts';
import { PCAPNG_DSB, PCAPNG_EPB, PCAPNG_IDB, PCAPNG_SHB } from '../pcap/pcapng_options.ts';
import { OutFile } from './capture_out_file.ts';

/** When a file ends and another begins. */
export interface Rotation {
  /** `-C`: bytes of a file; null: no limit. */
  readonly bytes: number | null;
  /** `-G`: seconds of a file; null: no limit. */
  readonly seconds: number | null;
  /** `-W`: number of files; null: no limit. */
  readonly files: number | null;
}

const PCAP_HEAD_BYTES = 24;
const PCAP_RECORD_BYTES = 16;
/** First bytes of the pcap files that an instance writes. */
const PCAP_MAGICS = new Set([0xa1b2c3d4, 0xa1b23c4d]);
/** A record is shorter; the stream is not one of an instance otherwise. */
const RECORD_MAX = 1 << 24;

/** Blocks that every file needs. */
const HEADERS = new Set([PCAPNG_SHB, PCAPNG_IDB, PCAPNG_DSB]);

/** Expands the conversions of strftime(3) that tcpdump users write: %Y %m %d %H %M %S %s %j %%. */
export function strftime(format: string, date: Date): string {
  const two = (n: number): string => String(n).padStart(2, '0');
  const yearStart = new Date(date.getFullYear(), 0, 1);
  const values: Record<string, string> = {
    Y: String(date.getFullYear()),
    y: two(date.getFullYear() % 100),
    m: two(date.getMonth() + 1),
    d: two(date.getDate()),
    H: two(date.getHours()),
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    s: String(Math.floor(date.getTime() / 1000)),
    j: String(Math.floor((date.getTime() - yearStart.getTime()) / 86_400_000) + 1).padStart(3, '0'),
    F: `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`,
    T: `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`,
    '%': '%',
  };
  return format.replace(/%(.)/g, (whole, letter: string) => values[letter] ?? whole);
}

/** The file's name with `number` as tcpdump appends it, before `.gz`. */
function numbered(name: string, number: string): string {
  return name.endsWith('.gz') ? `${name.slice(0, -3)}${number}.gz` : `${name}${number}`;
}

/** Handler of what happens to the files. */
interface FilesEvents {
  /** The first file is open, or a FIFO waits for its reader. */
  ready(): void;
  /** No more file may begin, or the reader of a FIFO has left. */
  last(readerLeft: boolean): void;
}

/** Gets the stream of a capture; the files are complete when it has ended. */
export class CaptureFiles extends Writable {
  readonly #name: string;
  readonly #rotation: Rotation;
  readonly #events: FilesEvents;
  readonly #now: () => Date;
  #file: OutFile | null = null;
  /** Files that are not closed yet, also earlier ones. */
  readonly #open = new Set<OutFile>();
  #files = 0;
  #bytes = 0;
  #begun = 0;
  /** Headers for further files. */
  #headers: Buffer[] = [];
  /** Bytes of those that are secrets, and their limit. */
  #secrets = 0;
  readonly #secretsMax: number;
  #rest: Buffer = Buffer.alloc(0);
  #pcap: boolean | null = null;
  #ended = false;
  #whenClosed: ((e?: Error | null) => void) | null = null;
  /** Whether the file takes more now. */
  #room = true;

  constructor(
    name: string,
    rotation: Rotation,
    events: FilesEvents,
    now: () => Date = () => new Date(),
  ) {
    super();
    this.#name = name;
    this.#rotation = rotation;
    this.#events = events;
    this.#now = now;
    const { bytes } = rotation;
    this.#secretsMax = bytes === null ? KEY_LOG_MAX : Math.min(KEY_LOG_MAX, bytes / 4);
    this.#begin();
  }

  /** Discards what waits for the reader of a FIFO; false: it has one, or is a file. */
  discardUnread(): boolean {
    const unread = [...this.#open].filter((file) => file.unread);
    for (const file of unread) {
      this.#leave(file);
      file.abandon();
    }
    return unread.length > 0;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (e?: Error) => void): void {
    try {
      const data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
      const used = this.#records(data);
      this.#rest = Buffer.from(data.subarray(used));
    } catch (e) {
      done(e as Error);
      return;
    }
    if (this.#room || this.#file === null) done();
    else this.#file.drained(done);
  }

  override _final(done: (e?: Error | null) => void): void {
    this.#closeFile();
    this.#whenClosed = done;
    this.#checkClosed();
  }

  override _destroy(e: Error | null, done: (e?: Error | null) => void): void {
    for (const file of this.#open) file.abandon();
    done(e);
  }

  /** Writes the whole records of `data`; returns their length. */
  #records(data: Buffer): number {
    let at = 0;
    this.#room = true;
    // Records between `from` and `at` go into one write.
    let from = 0;
    const put = (): void => {
      if (at > from && this.#file !== null) this.#room = this.#file.write(data.subarray(from, at));
      this.#bytes += at - from;
      from = at;
    };
    for (;;) {
      const length = this.#length(data, at);
      if (length === null || length > data.length - at) break;
      const kind = this.#kind(data, at);
      if (kind === 'header') this.#header(Buffer.from(data.subarray(at, at + length)));
      if (kind === 'packet' && this.#due(this.#bytes + at - from)) {
        put();
        this.#next();
      }
      at += length;
    }
    put();
    return at;
  }

  /** Keeps a header for further files; of secrets, the last ones. */
  #header(header: Buffer): void {
    const secrets = (one: Buffer): boolean =>
      this.#pcap === false && one.readUInt32LE(0) === PCAPNG_DSB;
    this.#headers.push(header);
    if (!secrets(header)) return;
    this.#secrets += header.length;
    while (this.#secrets > this.#secretsMax) {
      const [oldest] = this.#headers.splice(this.#headers.findIndex(secrets), 1);
      this.#secrets -= oldest!.length;
    }
  }

  /** Length of the record at `at`; null: not known yet. */
  #length(data: Buffer, at: number): number | null {
    const left = data.length - at;
    let length: number;
    if (this.#pcap === null) {
      if (left < 4) return null;
      this.#pcap = data.readUInt32LE(at) !== PCAPNG_SHB;
    }
    if (this.#pcap && this.#headers.length === 0) return PCAP_HEAD_BYTES;
    if (this.#pcap) {
      if (left < PCAP_RECORD_BYTES) return null;
      length = PCAP_RECORD_BYTES + data.readUInt32LE(at + 8);
    } else {
      if (left < 8) return null;
      length = data.readUInt32LE(at + 4);
    }
    if (length > RECORD_MAX || length < 12) throw new Error('the stream is not a capture');
    return length;
  }

  #kind(data: Buffer, at: number): 'header' | 'packet' | 'other' {
    if (this.#pcap === true) return this.#headers.length === 0 ? 'header' : 'packet';
    const type = data.readUInt32LE(at);
    if (HEADERS.has(type)) return 'header';
    return type === PCAPNG_EPB ? 'packet' : 'other';
  }

  /** Whether a packet must go into another file, if this one has `bytes` bytes. */
  #due(bytes: number): boolean {
    const { bytes: max, seconds } = this.#rotation;
    if (max !== null && bytes > max) return true;
    return seconds !== null && this.#now().getTime() - this.#begun >= 1000 * seconds;
  }

  #next(): void {
    const { bytes, files } = this.#rotation;
    if (this.#ended) return;
    // As tcpdump: -W with -C is a ring of files, with -G a limit.
    if (files !== null && bytes === null && this.#files >= files) {
      this.#ended = true;
      this.#closeFile();
      this.#events.last(false);
      return;
    }
    this.#closeFile();
    this.#begin();
    for (const header of this.#headers) this.#file!.write(header);
    this.#bytes = this.#headers.reduce((n, header) => n + header.length, 0);
  }

  #closeFile(): void {
    const file = this.#file;
    this.#file = null;
    file?.close(() => {
      this.#open.delete(file);
      this.#checkClosed();
    });
  }

  #checkClosed(): void {
    if (this.#open.size === 0) this.#whenClosed?.();
  }

  #begin(): void {
    const date = this.#now();
    this.#begun = date.getTime();
    const first = this.#files++ === 0;
    const file = new OutFile(this.#path(date), first, (bytes) => this.#recordLength(bytes), {
      ready: () => {
        if (first) this.#events.ready();
      },
      failed: (e) => {
        if (e.code === 'EPIPE') {
          this.#leave(file);
          this.#events.last(true);
        } else this.destroy(e);
      },
    });
    this.#file = file;
    this.#open.add(file);
  }

  /** What follows is discarded. */
  #leave(file: OutFile): void {
    this.#ended = true;
    this.#open.delete(file);
    this.#file = null;
  }

  /** Length of the record at the start of `bytes`. */
  #recordLength(bytes: Uint8Array): number {
    const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    if (this.#pcap === true && data.length >= 4 && PCAP_MAGICS.has(data.readUInt32LE(0)))
      return PCAP_HEAD_BYTES;
    return this.#length(data, 0) ?? Infinity;
  }

  #path(date: Date): string {
    const { bytes, seconds, files } = this.#rotation;
    const name = seconds === null ? this.#name : strftime(this.#name, date);
    if (bytes === null) return name;
    const number = this.#files - 1;
    if (files === null) return number === 0 ? name : numbered(name, String(number));
    const digits = String(files - 1).length;
    return numbered(name, String(number % files).padStart(digits, '0'));
  }
}
