/** Recording of one capture point of an interface to a pcap file. */

import { FileSink } from '../host/file_sink.ts';
import type { CaptureSink } from '../sys/capture.ts';
import { type Capture, CAPTURE_SNAPLEN_MAX, captureClose, captureOpen } from '../net/capture.ts';
import type { Ifnet } from '../net/if_var.ts';
import { PcapWriter } from '../pcap/pcap.ts';
import { mem } from '../vm/arena.ts';

/** Receives one line for each capture that ends early. The code that opens a stack sets it. */
export const captureConsole: { ended(line: string, failed: boolean): void } = {
  ended: () => undefined,
};

/** Writes every record of one point to a file until it is closed. */
export class CaptureFile implements CaptureSink {
  readonly #capture: Capture;
  readonly #sink: FileSink;
  readonly #pcap: PcapWriter;
  #failed = false;
  /** Records lost between the interface and this file, after `close`. */
  #ringDrops = -1;

  /** Starts to open `file`, see `opened`. @param point CAPTURE_* */
  constructor(point: number, ifp: Ifnet, file: string) {
    this.#sink = new FileSink(file, {
      sinkEnded: (message, failed) => {
        this.#failed = failed;
        captureConsole.ended(`capture: ${message}: this capture has ended`, failed);
      },
    });
    this.#pcap = new PcapWriter(this.#sink, { snaplen: CAPTURE_SNAPLEN_MAX });
    this.#capture = captureOpen(point, ifp, CAPTURE_SNAPLEN_MAX, this);
  }

  /** See FileSink.opened. */
  get opened(): Promise<void> {
    return this.#sink.opened;
  }

  /** See FileSink.openLate. */
  openLate(): void {
    this.#sink.openLate();
  }

  captureRecord(
    _point: number,
    _flags: number,
    sec: number,
    nsec: number,
    _unit: number,
    _pktId: number,
    off: number,
    caplen: number,
    wirelen: number,
  ): void {
    this.#pcap.packet(sec, nsec, mem, off, caplen, wirelen);
  }

  /** Whether a write failed. A reader that left is not a failure. */
  get failed(): boolean {
    return this.#failed;
  }

  /** `FILE: N packets, M dropped (…)`; null if every packet was written. */
  get losses(): string | null {
    const { path, written, noReader, tooSlow, afterEnd } = this.#sink;
    const ringFull = this.#ringDrops < 0 ? this.#capture.drops : this.#ringDrops;
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
    captureClose(this.#capture);
    if (this.#ringDrops < 0) this.#ringDrops = this.#capture.drops;
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
