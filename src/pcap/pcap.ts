/**
 * Classic pcap files, after pcap-savefile(5): a 24-byte file header, then 16 bytes in front of each
 * packet; little-endian here, microseconds or nanoseconds by the magic number. Left out: reading.
 */

/** Microsecond and nanosecond magic numbers. */
const PCAP_MAGIC = 0xa1b2c3d4;
const PCAP_MAGIC_NSEC = 0xa1b23c4d;
const PCAP_VERSION_MAJOR = 2;
const PCAP_VERSION_MINOR = 4;
const LINKTYPE_ETHERNET = 1;

const FILE_HEADER_BYTES = 24;
const PACKET_HEADER_BYTES = 16;

/** The destination of the bytes; the range is valid only until `write` returns. */
export interface ByteSink {
  write(bytes: Uint8Array, off: number, len: number): void;
  /**
   * Begins a record of `len` bytes in several writes. False: write nothing, it is dropped.
   * @param packet false for a block that describes the capture; default true
   */
  begin?(len: number, packet?: boolean): boolean;
  /**
   * Appends a block that a reader needs before the packets after it, even one that begins to read
   * later. False: not taken now, give it again. Without this method `write` takes it.
   */
  header?(bytes: Uint8Array): boolean;
}

export interface PcapOptions {
  /** Longest packet in bytes that the file may hold. */
  readonly snaplen: number;
  /** Default LINKTYPE_ETHERNET. */
  readonly linktype?: number;
  /** Nanosecond time stamps; default false: microseconds, which every reader accepts. */
  readonly nanoseconds?: boolean;
}

/** Writes one file. The constructor writes the header. */
export class PcapWriter {
  readonly #sink: ByteSink;
  readonly #snaplen: number;
  readonly #perFraction: number;
  readonly #header = new Uint8Array(PACKET_HEADER_BYTES);
  readonly #view = new DataView(this.#header.buffer);

  constructor(sink: ByteSink, options: PcapOptions) {
    const { snaplen, linktype = LINKTYPE_ETHERNET, nanoseconds = false } = options;
    this.#sink = sink;
    this.#snaplen = snaplen;
    this.#perFraction = nanoseconds ? 1 : 1000;
    const head = new Uint8Array(FILE_HEADER_BYTES);
    const view = new DataView(head.buffer);
    view.setUint32(0, nanoseconds ? PCAP_MAGIC_NSEC : PCAP_MAGIC, true);
    view.setUint16(4, PCAP_VERSION_MAJOR, true);
    view.setUint16(6, PCAP_VERSION_MINOR, true);
    view.setUint32(16, snaplen, true);
    view.setUint32(20, linktype, true);
    if (sink.header === undefined) sink.write(head, 0, FILE_HEADER_BYTES);
    else sink.header(head);
  }

  /**
   * Appends a packet of `wirelen` bytes, of which `caplen` are in `bytes` at `off`; no more than
   * the snap length is written. Times: seconds since 1970 and nanoseconds. Returns false if the sink
   * dropped it.
   */
  packet(
    sec: number,
    nsec: number,
    bytes: Uint8Array,
    off: number,
    caplen: number,
    wirelen: number,
  ): boolean {
    const n = Math.min(caplen, this.#snaplen);
    if (this.#sink.begin?.(PACKET_HEADER_BYTES + n) === false) return false;
    const view = this.#view;
    view.setUint32(0, sec, true);
    view.setUint32(4, Math.floor(nsec / this.#perFraction), true);
    view.setUint32(8, n, true);
    view.setUint32(12, wirelen, true);
    this.#sink.write(this.#header, 0, PACKET_HEADER_BYTES);
    this.#sink.write(bytes, off, n);
    return true;
  }
}
