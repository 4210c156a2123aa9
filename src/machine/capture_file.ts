/** Recording of one capture point of an interface to a pcap file. */

import type { FileSink } from '../host/file_sink.ts';
import type { CaptureSink } from '../sys/capture.ts';
import { type Capture, CAPTURE_SNAPLEN_MAX, captureClose, captureOpen } from '../net/capture.ts';
import type { Ifnet } from '../net/if_var.ts';
import { PcapWriter } from '../pcap/pcap.ts';
import { mem } from '../vm/arena.ts';

/** Writes every record of one point to a file until it is closed. */
export class CaptureFile implements CaptureSink {
  readonly #capture: Capture;
  readonly #sink: FileSink;
  readonly #pcap: PcapWriter;

  /** Takes ownership of `sink`. @param point CAPTURE_* */
  constructor(point: number, ifp: Ifnet, sink: FileSink) {
    this.#sink = sink;
    this.#pcap = new PcapWriter(sink, { snaplen: CAPTURE_SNAPLEN_MAX });
    this.#capture = captureOpen(point, ifp, CAPTURE_SNAPLEN_MAX, this);
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

  /** Why the file is incomplete; null if it is complete. */
  problem(): string | null {
    if (this.#sink.error !== null) return this.#sink.error.message;
    const { drops } = this.#capture;
    return drops === 0
      ? null
      : `${this.#sink.path}: ${drops} packets dropped: the capture ring was full`;
  }

  close(): void {
    captureClose(this.#capture);
    this.#sink.close();
  }
}
