/**
 * pcapng files, after draft-ietf-opsawg-pcapng: one section, one interface block for each capture
 * point of an interface, nanosecond time stamps. Every packet has its direction, id, queue and drop
 * count, and, if the capture ring has metadata, a comment for people and a custom option for
 * programs (src/pcap/meta.ts). A packet costs no garbage. Left out: name resolution blocks.
 */

import { CAPTURE_IN, CAPTURE_OUT } from '../sys/capture.ts';
import { META_ITEM_BYTES, META_WHY, META_WHY_BYTES } from '../sys/capture_meta.ts';
import { CommentWriter, COMMENT_MAX } from './meta.ts';
import {
  CUSTOM_HEADER_BYTES,
  CUSTOM_MAGIC,
  CUSTOM_VERSION,
  customData,
  EPB_DROPCOUNT,
  EPB_FLAGS,
  EPB_INBOUND,
  EPB_OUTBOUND,
  EPB_PACKETID,
  EPB_QUEUE,
  IF_DESCRIPTION,
  IF_FILTER,
  IF_HARDWARE,
  IF_MACADDR,
  IF_NAME,
  IF_OS,
  IF_SPEED,
  IF_TSRESOL,
  ISB_ENDTIME,
  ISB_FILTERACCEPT,
  ISB_IFDROP,
  ISB_IFRECV,
  ISB_OSDROP,
  ISB_STARTTIME,
  ISB_USRDELIV,
  OPT_COMMENT,
  OPT_CUSTOM,
  OptionList,
  PCAPNG_BYTE_ORDER,
  PCAPNG_CUSTOM,
  PCAPNG_EPB,
  PCAPNG_IDB,
  PCAPNG_ISB,
  PCAPNG_SHB,
  pcapngBlock,
  PEN_EXAMPLE,
  SHB_HARDWARE,
  SHB_OS,
  SHB_USERAPPL,
} from './pcapng_options.ts';
import type { ByteSink } from './pcap.ts';

const LINKTYPE_ETHERNET = 1;
const NANOSECONDS = 9;
const EPB_HEAD_BYTES = 28;
/** Largest metadata of a packet; what is longer stays out of the file. */
const META_MAX = 12_288;
const SCRATCH_BYTES = 128 + COMMENT_MAX + 2 * META_MAX;

/** What a file says about its origin. */
interface PcapngSection {
  readonly hardware?: string;
  readonly os?: string;
  readonly application?: string;
  readonly comment?: string;
  /** The private enterprise number of custom options and blocks; default PEN_EXAMPLE. */
  readonly pen?: number;
}

/** One capture point of an interface. */
interface PcapngInterface {
  readonly name: string;
  readonly description?: string;
  /** Default LINKTYPE_ETHERNET. */
  readonly linktype?: number;
  /** Bytes kept of a packet. */
  readonly snaplen: number;
  readonly mac?: Uint8Array;
  /** Bits per second. */
  readonly speed?: bigint;
  /** The capture filter as pcap-filter(7) has it. */
  readonly filter?: string;
  readonly os?: string;
  readonly hardware?: string;
}

/** Statistics of an interface at the end of a capture. Times in ns since 1970. */
interface PcapngStatistics {
  readonly start: bigint;
  readonly end: bigint;
  /** Packets that passed the point, that the filter accepted, and that are in the file. */
  readonly received: bigint;
  readonly accepted: bigint;
  readonly delivered: bigint;
  /** Packets lost because the capture ring was full, and because the reader or disk was too slow. */
  readonly ringDrops: bigint;
  readonly slowDrops: bigint;
  /** Text for people and for `capture --verify`. */
  readonly counters?: string;
}

/** Names of reasons for META_WHY items. */
type ReasonName = (reason: number) => string;

/** Writes one file. The constructor writes the section header. */
export class PcapngWriter {
  readonly #sink: ByteSink;
  readonly #pen: number;
  readonly #reasonName: ReasonName;
  readonly #snaplens: number[] = [];
  readonly #head = new Uint8Array(EPB_HEAD_BYTES);
  readonly #headView = new DataView(this.#head.buffer);
  /** What follows the bytes of a packet: padding, options, length. */
  readonly #tail = new Uint8Array(SCRATCH_BYTES);
  readonly #tailView = new DataView(this.#tail.buffer);
  /** The metadata as the file has it. */
  readonly #meta = new Uint8Array(2 * META_MAX);
  readonly #metaView = new DataView(this.#meta.buffer);
  readonly #comment = new CommentWriter(this.#metaView);
  #metaLength = 0;
  /** Blocks that the sink did not take yet. */
  readonly #pending: Uint8Array[] = [];

  /** @param reasonName name of a reason number; its text goes into the file */
  constructor(sink: ByteSink, section: PcapngSection, reasonName: ReasonName) {
    this.#sink = sink;
    this.#pen = section.pen ?? PEN_EXAMPLE;
    this.#reasonName = reasonName;
    const fixed = Buffer.alloc(16);
    fixed.writeUInt32LE(PCAPNG_BYTE_ORDER, 0);
    fixed.writeUInt16LE(1, 4);
    fixed.writeBigInt64LE(-1n, 8);
    const options = new OptionList()
      .text(OPT_COMMENT, section.comment ?? '')
      .text(SHB_HARDWARE, section.hardware ?? '')
      .text(SHB_OS, section.os ?? '')
      .text(SHB_USERAPPL, section.application ?? '');
    this.#header(pcapngBlock(PCAPNG_SHB, fixed, options.bytes()));
  }

  /** Adds an interface; returns its number in the file. */
  addInterface(i: PcapngInterface): number {
    const fixed = Buffer.alloc(8);
    fixed.writeUInt16LE(i.linktype ?? LINKTYPE_ETHERNET, 0);
    fixed.writeUInt32LE(i.snaplen, 4);
    const options = new OptionList()
      .text(IF_NAME, i.name)
      .text(IF_DESCRIPTION, i.description ?? '')
      .add(IF_TSRESOL, Uint8Array.of(NANOSECONDS));
    if (i.mac !== undefined) options.add(IF_MACADDR, i.mac);
    if (i.speed !== undefined) options.u64(IF_SPEED, i.speed);
    // The first byte says that a string follows, as libpcap takes it.
    if (i.filter !== undefined && i.filter !== '')
      options.add(IF_FILTER, Buffer.concat([Buffer.of(0), Buffer.from(i.filter, 'utf8')]));
    options.text(IF_OS, i.os ?? '').text(IF_HARDWARE, i.hardware ?? '');
    this.#header(pcapngBlock(PCAPNG_IDB, fixed, options.bytes()));
    return this.#snaplens.push(i.snaplen) - 1;
  }

  /**
   * Appends a packet of `wirelen` bytes, of which `caplen` are in `bytes` at `off`. Times: seconds
   * since 1970 and nanoseconds. Its metadata are `meta[metaOff .. metaOff + metaLen)`. Returns
   * false if the sink dropped it.
   * @param flags CAPTURE_OUT or CAPTURE_IN
   * @param id 0: none
   * @param drops packets lost since the one before
   */
  packet(
    iface: number,
    sec: number,
    nsec: number,
    flags: number,
    id: number,
    queue: number,
    drops: number,
    bytes: Uint8Array,
    off: number,
    caplen: number,
    wirelen: number,
    meta: DataView,
    metaOff: number,
    metaLen: number,
  ): boolean {
    if (this.#pending.length > 0 && !this.#putPending()) return false;
    const n = Math.min(caplen, this.#snaplens[iface]!);
    const pad = -n & 3;
    this.#tail.fill(0, 0, pad);
    const tail = this.#finish(
      this.#options(pad, flags, id, queue, drops, meta, metaOff, metaLen),
      n,
    );
    const length = EPB_HEAD_BYTES + n + tail;
    if (this.#sink.begin?.(length) === false) return false;
    const head = this.#headView;
    head.setUint32(0, PCAPNG_EPB, true);
    head.setUint32(4, length, true);
    head.setUint32(8, iface, true);
    // sec * 10^9 + nsec has up to 61 bits: multiply in two halves that a number holds exactly.
    const high = Math.floor(sec / 65536) * 1e9;
    const over = Math.floor(high / 65536);
    const low = (high - over * 65536) * 65536 + (sec % 65536) * 1e9 + nsec;
    head.setUint32(12, over + Math.floor(low / 4294967296), true);
    head.setUint32(16, low % 4294967296, true);
    head.setUint32(20, n, true);
    head.setUint32(24, wirelen, true);
    this.#sink.write(this.#head, 0, EPB_HEAD_BYTES);
    if (n > 0) this.#sink.write(bytes, off, n);
    this.#sink.write(this.#tail, 0, tail);
    return true;
  }

  /** Appends an event without bytes of a packet, as a custom block. Returns false if dropped. */
  event(meta: DataView, metaOff: number, metaLen: number): boolean {
    this.#fileMeta(meta, metaOff, metaLen);
    const items = this.#meta.subarray(0, this.#metaLength);
    return this.#block(pcapngBlock(PCAPNG_CUSTOM, customData(this.#pen, items)));
  }

  /** Appends the statistics of an interface. */
  statistics(iface: number, s: PcapngStatistics): boolean {
    const fixed = Buffer.alloc(12);
    fixed.writeUInt32LE(iface, 0);
    fixed.writeUInt32LE(Number(s.end >> 32n), 4);
    fixed.writeUInt32LE(Number(s.end & 0xffffffffn), 8);
    const options = new OptionList()
      .text(OPT_COMMENT, s.counters ?? '')
      .time(ISB_STARTTIME, s.start)
      .time(ISB_ENDTIME, s.end)
      .u64(ISB_IFRECV, s.received)
      .u64(ISB_IFDROP, s.ringDrops)
      .u64(ISB_FILTERACCEPT, s.accepted)
      .u64(ISB_OSDROP, s.slowDrops)
      .u64(ISB_USRDELIV, s.delivered);
    return this.#block(pcapngBlock(PCAPNG_ISB, fixed, options.bytes()));
  }

  #header(block: Uint8Array): void {
    this.#pending.push(block);
    this.#putPending();
  }

  /** Gives pending blocks to the sink, in order. Returns whether it took them all. */
  #putPending(): boolean {
    const sink = this.#sink;
    for (let block = this.#pending[0]; block !== undefined; block = this.#pending[0]) {
      if (sink.header === undefined) sink.write(block, 0, block.length);
      else if (!sink.header(block)) return false;
      this.#pending.shift();
    }
    return true;
  }

  #block(block: Uint8Array): boolean {
    if (!this.#putPending()) return false;
    if (this.#sink.begin?.(block.length, false) === false) return false;
    this.#sink.write(block, 0, block.length);
    return true;
  }

  /** Writes the options of a packet at `at` of the tail; returns where they end. */
  #options(
    at: number,
    flags: number,
    id: number,
    queue: number,
    drops: number,
    meta: DataView,
    metaOff: number,
    metaLen: number,
  ): number {
    const view = this.#tailView;
    let end = at;
    const direction = flags & CAPTURE_OUT ? EPB_OUTBOUND : flags & CAPTURE_IN ? EPB_INBOUND : 0;
    if (direction !== 0) end = this.#u32(end, EPB_FLAGS, direction);
    if (drops > 0) end = this.#u64(end, EPB_DROPCOUNT, drops);
    if (id !== 0) end = this.#u64(end, EPB_PACKETID, id);
    end = this.#u32(end, EPB_QUEUE, queue);
    if (metaLen === 0 || metaLen > META_MAX) return end;
    this.#fileMeta(meta, metaOff, metaLen);
    this.#comment.write(0, this.#metaLength);
    end = this.#value(end, OPT_COMMENT, this.#comment.bytes, this.#comment.length);
    view.setUint16(end, OPT_CUSTOM, true);
    view.setUint16(end + 2, 4 + CUSTOM_HEADER_BYTES + this.#metaLength, true);
    view.setUint32(end + 4, this.#pen, true);
    view.setUint32(end + 8, CUSTOM_MAGIC, true);
    view.setUint32(end + 12, CUSTOM_VERSION, true);
    return this.#copy(end + 16, this.#meta, this.#metaLength);
  }

  /** Ends the tail after its options: the end of options and the length of the block. */
  #finish(at: number, n: number): number {
    this.#tailView.setUint32(at, 0, true);
    this.#tailView.setUint32(at + 4, EPB_HEAD_BYTES + n + at + 8, true);
    return at + 8;
  }

  #u32(at: number, code: number, value: number): number {
    const view = this.#tailView;
    view.setUint16(at, code, true);
    view.setUint16(at + 2, 4, true);
    view.setUint32(at + 4, value, true);
    return at + 8;
  }

  #u64(at: number, code: number, value: number): number {
    const view = this.#tailView;
    view.setUint16(at, code, true);
    view.setUint16(at + 2, 8, true);
    view.setUint32(at + 4, value % 4294967296, true);
    view.setUint32(at + 8, Math.floor(value / 4294967296), true);
    return at + 12;
  }

  #value(at: number, code: number, bytes: Uint8Array, n: number): number {
    this.#tailView.setUint16(at, code, true);
    this.#tailView.setUint16(at + 2, n, true);
    return this.#copy(at + 4, bytes, n);
  }

  /** Copies `n` bytes to `at` of the tail and pads them; returns the end. */
  #copy(at: number, bytes: Uint8Array, n: number): number {
    const tail = this.#tail;
    // A loop needs no view; these are short.
    for (let i = 0; i < n; i++) tail[at + i] = bytes[i]!;
    const end = at + ((n + 3) & ~3);
    for (let i = at + n; i < end; i++) tail[i] = 0;
    return end;
  }

  /** Copies the metadata of the ring to `#meta`, with the names of reasons. */
  #fileMeta(view: DataView, off: number, len: number): void {
    const out = this.#meta;
    let to = 0;
    let at = off;
    const end = off + len;
    while (at + META_ITEM_BYTES <= end) {
      const type = view.getUint16(at, true);
      const length = view.getUint16(at + 2, true);
      const next = at + META_ITEM_BYTES + ((length + 3) & ~3);
      if (next > end) break;
      const start = to;
      for (let i = at; i < next; i++) out[to++] = view.getUint8(i);
      if (type === META_WHY && length === META_WHY_BYTES) to = this.#nameReason(start, to);
      at = next;
    }
    this.#metaLength = to;
  }

  /** Appends the reason's name to the META_WHY item at `start`; returns the new end. */
  #nameReason(start: number, end: number): number {
    const name = this.#reasonName(this.#metaView.getUint16(start + META_ITEM_BYTES + 2, true));
    const max = Math.min(name.length, 64);
    for (let i = 0; i < max; i++) this.#meta[end + i] = name.charCodeAt(i) & 0x7f;
    this.#metaView.setUint16(start + 2, META_WHY_BYTES + max, true);
    const next = end + ((max + 3) & ~3);
    for (let i = end + max; i < next; i++) this.#meta[i] = 0;
    return next;
  }
}
