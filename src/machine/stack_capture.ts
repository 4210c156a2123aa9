/** `stack.capture()`: captures of a stack in this process, to a file or as packets. */

import { readCapture as readRequest } from '../ctl/capture_request.ts';
import { ControlFailure } from '../ctl/protocol.ts';
import { compileFilterInsns } from '../host/pcap_filter.ts';
import { StreamSink } from '../host/stream_sink.ts';
import { KeyLogLines, secretsBlocks } from '../pcap/key_log.ts';
import { decodeMeta, type PacketMeta } from '../pcap/meta.ts';
import { type FileItem, readCapture } from '../pcap/read.ts';
import { bpfProgram } from '../sys/bpf_filter.ts';
import { TapnicError } from '../sys/errno.ts';
import { type CaptureFile, fileFormatOf } from './capture_file.ts';
import { KeyLog } from './key_log.ts';
import type { CaptureRecorder } from './capture_recorder.ts';
import type { RecordSpec } from '../pcap/record_spec.ts';
import type { NicStack } from './nic_stack.ts';
import { capturePlacesOf } from './option_texts.ts';

/** What to record, and until when. */
export interface CaptureOptions {
  /** A pcap-filter(7) expression. It is compiled after the call returns; see `ready`. */
  readonly filter?: string;
  /** Bytes kept of a packet. Default 262144. */
  readonly snaplen?: number;
  /** Packets after which the capture ends. */
  readonly count?: number;
  /** Ends the capture, as `close` does. */
  readonly signal?: AbortSignal;
}

/** Options of a capture to a file. */
export interface FileCaptureOptions extends CaptureOptions {
  /** `.pcapng` or `.pcap`, also with `.gz` behind; or a FIFO. */
  readonly file: string;
  readonly comment?: string;
  /** The private enterprise number of the metadata. Default 32473. */
  readonly pen?: number;
  /** Nanoseconds in .pcap files; .pcapng files always have them. */
  readonly nanoseconds?: boolean;
  /**
   * A TLS key log, as `SSLKEYLOGFILE` names it: its keys go into the .pcapng file, also those that are appended
   * later. It may be missing at first. The capture begins when it was read; see `ready`.
   */
  readonly keylog?: string;
}

/** Counts of a capture. */
export interface CaptureResult {
  /** Packets in the file, or given to the reader and waiting for it. */
  readonly packets: number;
  /** Packets that passed the capture points. */
  readonly received: number;
  /** Dropped because the reader or the disk was too slow, or had ended. */
  readonly dropped: number;
  /** Dropped because the capture ring was full. */
  readonly ringDrops: number;
}

/** A packet at a capture point. */
export interface CapturedPacket {
  readonly point: string;
  /** The interface in the stack, such as tn0. */
  readonly if: string;
  readonly direction: 'out' | 'in' | 'unknown';
  /** Nanoseconds since 1970. */
  readonly time: bigint;
  /** The same at all points; 0: none. */
  readonly id: number;
  /** The first `snaplen` bytes, from the Ethernet header on. */
  readonly bytes: Uint8Array;
  /** Bytes of the whole packet. */
  readonly length: number;
  /** Packets that this capture dropped since the packet before. */
  readonly drops: number;
  readonly meta: PacketMeta;
  /** `meta` as text. */
  readonly comment: string;
}

/** A running capture. */
export interface FileCapture extends AsyncDisposable {
  /** Resolves when packets are recorded. Rejects with TapnicError as `closed` does. */
  readonly ready: Promise<void>;
  /**
   * Resolves when the capture has ended, with a file when everything is written. Rejects with TapnicError: EINVAL for a
   * filter that cannot be compiled, the file's error.
   */
  readonly closed: Promise<CaptureResult>;
  /**
   * Adds lines of a TLS key log to the .pcapng file, for `keylog` events: what is not such a line is left out.
   * Throws TapnicError: EINVAL if the packets go to the program or to a .pcap file.
   */
  keylog(lines: string | Uint8Array): void;
  /** Ends the capture. Returns `closed`. */
  close(): Promise<CaptureResult>;
}

/** A running capture whose packets the program reads, once. Leaving the loop ends it. */
export interface PacketCapture extends FileCapture, AsyncIterable<CapturedPacket> {}

/** Where the records go. */
interface Output {
  readonly recorder: CaptureRecorder;
  /** Resolves when everything is written after `end`. */
  readonly done: Promise<void>;
  readonly counts: () => { written: number; dropped: number };
  readonly opened: Promise<void>;
  /** Null: the packets go to the program. */
  readonly file: CaptureFile | null;
  end(): void;
}

/** Chunks from a writer that waits until the reader has taken each. */
class Chunks implements AsyncIterable<Uint8Array> {
  #chunk: Buffer | null = null;
  #taken: (() => void) | null = null;
  #wanted: (() => void) | null = null;
  #ended = false;

  send(bytes: Buffer): Promise<void> {
    if (this.#ended) return Promise.resolve();
    this.#chunk = bytes;
    this.#wanted?.();
    return new Promise((resolve) => (this.#taken = resolve));
  }

  /** No more chunks follow, and none is taken. */
  end(): void {
    this.#ended = true;
    this.#taken?.();
    this.#wanted?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    for (;;) {
      const chunk = this.#chunk;
      if (chunk !== null) {
        this.#chunk = null;
        yield chunk;
        this.#taken?.();
      } else if (this.#ended) return;
      else await new Promise<void>((resolve) => (this.#wanted = resolve));
    }
  }
}

function fileOutput(host: NicStack, spec: RecordSpec, file: string, keys: KeyLog | null): Output {
  const capture = host.openCaptureFile({ ...spec, file });
  if (keys !== null) capture.follow(keys);
  const end = (): void => {
    capture.close();
    const at = host.captures.indexOf(capture);
    if (at >= 0 && !capture.failed) host.captures.splice(at, 1);
  };
  return {
    file: capture,
    recorder: capture.recorder,
    opened: capture.opened,
    counts: () => capture.counts,
    done: new Promise((resolve, reject) => {
      capture.onClosed = () => (capture.error === null ? resolve() : reject(capture.error));
    }),
    end:
      keys === null
        ? end
        : () =>
            // The last packets may need keys that were not read yet.
            void keys
              .poll()
              .then((blocks) => capture.addSecrets(blocks))
              .then(end, end),
  };
}

function streamOutput(host: NicStack, spec: RecordSpec, chunks: Chunks): Output {
  const sink = new StreamSink((bytes) => chunks.send(bytes));
  const recorder = host.live.open(spec, sink);
  const finish = (): void => chunks.end();
  sink.done.then(finish, finish);
  let ended: () => void;
  return {
    file: null,
    recorder,
    opened: Promise.resolve(),
    counts: () => ({ written: sink.accepted, dropped: sink.dropped }),
    // The reader may still take what waits for it.
    done: new Promise((resolve) => (ended = resolve)),
    end: () => {
      host.live.close(recorder);
      sink.end();
      ended();
    },
  };
}

/** The packets of a stream that this program wrote. */
async function* packetsOf(chunks: Chunks): AsyncGenerator<CapturedPacket, void> {
  const places: [string, string][] = [];
  for await (const item of readCapture(chunks)) {
    if (item.kind === 'interface') places.push(item.name.split('@', 2) as [string, string]);
    if (item.kind === 'packet') yield packetOf(item, places[item.iface]!);
  }
}

function packetOf(
  item: Extract<FileItem, { kind: 'packet' }>,
  [name, point]: [string, string],
): CapturedPacket {
  const { time, id, bytes, wirelen, drops, comments } = item;
  const meta = decodeMeta(item.meta ?? new Uint8Array(0));
  const { direction } = meta;
  const comment = comments[0] ?? '';
  return { point, if: name, direction, time, id, bytes, length: wirelen, drops, meta, comment };
}

class RunningCapture implements PacketCapture {
  readonly ready: Promise<void>;
  readonly closed: Promise<CaptureResult>;
  readonly #chunks = new Chunks();
  readonly #packets = packetsOf(this.#chunks);
  readonly #file: string | null;
  readonly #format: RecordSpec['format'];
  readonly #lines = new KeyLogLines();
  /** Secrets that came before the capture began. */
  #secrets: Uint8Array[] = [];
  #output: Output | null = null;
  #ending = false;
  #settle!: { resolve(result: CaptureResult): void; reject(e: unknown): void };

  constructor(
    host: NicStack,
    spec: RecordSpec,
    file: string | null,
    filter: string | null,
    keylog: string | null,
  ) {
    this.#file = file;
    this.#format = spec.format;
    this.closed = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.closed.catch(() => undefined);
    // Without a filter and a key log the capture begins now.
    if (filter === null && keylog === null) this.ready = this.#begin(host, spec, null);
    else this.ready = this.#prepared(host, spec, filter, keylog);
    this.ready.catch((e: unknown) => {
      this.#settle.reject(e);
      this.#chunks.end();
    });
  }

  async #prepared(
    host: NicStack,
    spec: RecordSpec,
    filter: string | null,
    keylog: string | null,
  ): Promise<void> {
    const compiled = filter === null ? null : await compiledFilter(filter);
    const keys = keylog === null ? null : await this.#keyLog(keylog);
    await this.#begin(host, compiled === null ? spec : { ...spec, filter: compiled }, keys);
  }

  async #keyLog(path: string): Promise<KeyLog> {
    const keys = new KeyLog(path);
    this.#secrets.push(...(await keys.poll()));
    if (await keys.isFile(this.#file!))
      throw new TapnicError('EINVAL', 'capture', `${path}: the capture would overwrite it`);
    return keys;
  }

  #begin(host: NicStack, spec: RecordSpec, keys: KeyLog | null): Promise<void> {
    if (this.#ending) {
      this.#chunks.end();
      this.#settle.resolve({ packets: 0, received: 0, dropped: 0, ringDrops: 0 });
      return Promise.resolve();
    }
    const output =
      this.#file === null
        ? streamOutput(host, spec, this.#chunks)
        : fileOutput(host, spec, this.#file, keys);
    this.#output = output;
    output.file?.addSecrets(this.#secrets.splice(0));
    const full = new Promise<void>((resolve) => (output.recorder.onFull = resolve));
    void full.then(() => this.close());
    output.done.then(
      () => {
        const { places, ringDrops } = output.recorder;
        const { written, dropped } = output.counts();
        const received = places.reduce((n, place) => n + place.received, 0);
        this.#settle.resolve({ packets: written, received, dropped, ringDrops });
      },
      (e: unknown) => {
        output.end();
        this.#settle.reject(e);
      },
    );
    return output.opened;
  }

  keylog(lines: string | Uint8Array): void {
    if (this.#file === null || this.#format === 'pcap')
      throw new TapnicError('EINVAL', 'capture', 'keys need a .pcapng file');
    if (this.#ending) return;
    const text = typeof lines === 'string' ? Buffer.from(lines) : lines;
    const bytes = Buffer.concat([text, Buffer.from('\n')]);
    const blocks = secretsBlocks(this.#lines.push(bytes));
    if (this.#output === null) this.#secrets.push(...blocks);
    else this.#output.file?.addSecrets(blocks);
  }

  close(): Promise<CaptureResult> {
    if (!this.#ending) {
      this.#ending = true;
      this.#output?.end();
    }
    return this.closed;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<CapturedPacket, void> {
    if (this.#file !== null)
      throw new TapnicError('EINVAL', 'capture', `the packets go to ${this.#file}`);
    await this.ready;
    const packets = this.#packets;
    try {
      yield* packets;
    } finally {
      // A reader that leaves takes no more: what waits for it is dropped.
      this.#chunks.end();
      await this.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#chunks.end();
    await this.close().catch(() => undefined);
  }
}

async function compiledFilter(text: string): Promise<NonNullable<RecordSpec['filter']>> {
  try {
    return { text, program: bpfProgram(await compileFilterInsns(text)) };
  } catch (e) {
    throw new TapnicError('EINVAL', 'capture', (e as Error).message.replace(/^match: /, ''));
  }
}

const OPTIONS = [
  'file',
  'filter',
  'snaplen',
  'count',
  'signal',
  'comment',
  'pen',
  'nanoseconds',
  'keylog',
];

/** `Stack.capture`. Throws TapnicError and ControlFailure. */
export function openCapture(
  host: NicStack,
  points: string | readonly string[],
  options: CaptureOptions & { readonly file?: string; readonly keylog?: string },
): PacketCapture {
  const stranger = Object.keys(options).find((name) => !OPTIONS.includes(name));
  if (stranger !== undefined)
    throw new ControlFailure('EINVAL', `${stranger}: none of ${OPTIONS.join(', ')}`);
  const { file = null, filter = '', keylog = null, signal, ...values } = options;
  if (typeof filter !== 'string' || (file !== null && (typeof file !== 'string' || file === '')))
    throw new ControlFailure('EINVAL', 'file and filter are texts');
  const places = capturePlacesOf(typeof points === 'string' ? points : points.join(','));
  const format = file === null ? 'pcapng' : fileFormatOf(file);
  if (keylog !== null && (typeof keylog !== 'string' || keylog === ''))
    throw new ControlFailure('EINVAL', 'keylog is the name of a file');
  if (keylog !== null && (file === null || format === 'pcap'))
    throw new ControlFailure('EINVAL', 'keylog: keys need a .pcapng file');
  const spec = readRequest({ id: 0, cmd: 'capture', args: { ...values, places, format } });
  host.live.find(spec.places);
  const text = filter.trim() === '' ? null : filter;
  const capture = new RunningCapture(host, spec, file, text, keylog);
  const stop = (): void => void capture.close().catch(() => undefined);
  if (signal?.aborted === true) stop();
  signal?.addEventListener('abort', stop, { once: true });
  return capture;
}
