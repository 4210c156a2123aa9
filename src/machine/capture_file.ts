/** Recording of capture points to a file; the ending of its name says which format. */

import { FileSink } from '../host/file_sink.ts';
import { Repeated } from '../host/key_log_file.ts';
import type { Ifnet } from '../net/if_var.ts';
import { CaptureRecorder, type PlaceNames, type RecordSink } from './capture_recorder.ts';
import { KEY_LOG_MAX } from '../pcap/key_log.ts';
import type { RecordSpec } from '../pcap/record_spec.ts';
import type { KeyLog } from './key_log.ts';

/** Receives one line for each capture that ends early. The code that opens a stack sets it. */
export const captureConsole: { ended(line: string, failed: boolean): void } = {
  ended: () => undefined,
};

/** A capture and its file. */
export type FileSpec = Omit<RecordSpec, 'format'> & { readonly file: string };

/** `pcapng` for a name that ends so, with or without `.gz`; else `pcap`. */
export function fileFormatOf(file: string): RecordSpec['format'] {
  return /\.pcapng(\.gz)?$/.test(file) ? 'pcapng' : 'pcap';
}

/** FileSink as a RecordSink. */
class DroppingSink extends FileSink implements RecordSink {
  get dropped(): number {
    return this.noReader + this.tooSlow + this.afterEnd;
  }
}

/** Writes every record of its places to a file until it is closed. */
export class CaptureFile {
  readonly #recorder: CaptureRecorder;
  readonly #sink: DroppingSink;
  #failed = false;
  /** Decryption Secrets Blocks that the sink had no room for. */
  readonly #secrets: Uint8Array[] = [];
  #secretsBytes = 0;
  #following: Repeated | null = null;
  /** Called when `closed` becomes true. */
  onClosed: (() => void) | null = null;

  /** Starts to open the file, see `opened`. */
  constructor(spec: FileSpec) {
    this.#sink = new DroppingSink(spec.file, {
      sinkEnded: (message, failed) => {
        this.#failed = failed;
        captureConsole.ended(`capture: ${message}: this capture has ended`, failed);
      },
      sinkClosed: () => this.onClosed?.(),
    });
    this.#recorder = new CaptureRecorder({ ...spec, format: fileFormatOf(spec.file) }, this.#sink);
  }

  /** See CaptureRecorder.attach. */
  attach(ifp: Ifnet, names: PlaceNames, hardware = ''): void {
    this.#recorder.attach(ifp, names, hardware);
  }

  /** The capture, for its counts. */
  get recorder(): CaptureRecorder {
    return this.#recorder;
  }

  /**
   * Puts Decryption Secrets Blocks in front of the packets that are not written yet. Of those that a slow file
   * does not take, the last ones wait.
   */
  addSecrets(blocks: readonly Uint8Array[]): void {
    for (const block of blocks) {
      this.#secrets.push(block);
      this.#secretsBytes += block.length;
    }
    while (this.#secrets.length > 0 && this.#sink.headerFirst(this.#secrets[0]!))
      this.#secretsBytes -= this.#secrets.shift()!.length;
    while (this.#secretsBytes > KEY_LOG_MAX) this.#secretsBytes -= this.#secrets.shift()!.length;
  }

  /** Adds the keys that come to `keys`. Packets wait a little longer for them. */
  follow(keys: KeyLog): void {
    this.#sink.delay();
    this.#following = new Repeated(
      async () => this.addSecrets(await keys.poll()),
      (e) =>
        captureConsole.ended(`capture: ${(e as Error).message}: no more keys are added`, false),
    );
  }

  /** Packets that the file has, and packets that it did not take. */
  get counts(): { written: number; dropped: number } {
    return { written: this.#sink.written, dropped: this.#sink.dropped };
  }

  /** Why the capture ended early; null if it did not. */
  get error(): Error | null {
    return this.#sink.error;
  }

  /** See FileSink.opened. */
  get opened(): Promise<void> {
    return this.#sink.opened;
  }

  /** See FileSink.openLate. */
  openLate(): void {
    this.#sink.openLate();
  }

  /** Whether a write failed. A reader that left is not a failure. */
  get failed(): boolean {
    return this.#failed;
  }

  /** `FILE: N packets, M dropped (…)`; null if every packet was written. */
  get losses(): string | null {
    const { path, written, noReader, tooSlow, afterEnd } = this.#sink;
    const ringFull = this.#recorder.ringDrops;
    const dropped = noReader + tooSlow + afterEnd + ringFull;
    if (dropped === 0) return null;
    const why = [
      [noReader, 'without a reader'],
      [tooSlow, 'reader or disk too slow'],
      [afterEnd, 'after the end of the capture'],
      [ringFull, 'capture ring full'],
    ] as const;
    const parts = why.filter(([n]) => n > 0).map(([n, text]) => `${n} ${text}`);
    return `${path}: ${written} packets, ${dropped} dropped (${parts.join(', ')})`;
  }

  /** Why the file is incomplete; null if it is complete. */
  problem(): string | null {
    return this.#sink.error?.message ?? this.losses;
  }

  /** Ends the capture and starts to write what is left; see `closed`. */
  close(): void {
    this.#following?.stop();
    this.#recorder.close();
    this.#sink.close();
  }

  /** Whether everything was written, or dropped, after `close`. */
  get closed(): boolean {
    return this.#sink.closed;
  }

  /** Drops what is not yet written. */
  abandon(): void {
    this.#sink.abandon();
  }
}
