/**
 * Reading of pcap and pcapng files of any program, of either byte order. A file is read once, from
 * beginning to end, with bounded memory. Left out: name resolution and simple packet blocks of
 * files without a snap length; unknown blocks are skipped.
 */

import { BlockStream, CaptureFormatError } from './block_stream.ts';
import {
  customItems,
  EPB_DROPCOUNT,
  EPB_FLAGS,
  EPB_PACKETID,
  EPB_QUEUE,
  IF_DESCRIPTION,
  IF_FILTER,
  IF_MACADDR,
  IF_NAME,
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
  OPT_END,
  PCAPNG_BYTE_ORDER,
  PCAPNG_CUSTOM,
  PCAPNG_CUSTOM_NOCOPY,
  PCAPNG_DSB,
  PCAPNG_EPB,
  PCAPNG_IDB,
  PCAPNG_ISB,
  PCAPNG_SHB,
  PCAPNG_SPB,
} from './pcapng_options.ts';

export { CaptureFormatError } from './block_stream.ts';

/** Limits that keep memory bounded; longer pieces are format errors. */
const PACKET_MAX = 1 << 20;
const BLOCK_MAX = 1 << 24;
const INTERFACES_MAX = 65_536;

const PCAP_MAGICS = new Map([
  [0xa1b2c3d4, { little: true, perFraction: 1000 }],
  [0xa1b23c4d, { little: true, perFraction: 1 }],
  [0xd4c3b2a1, { little: false, perFraction: 1000 }],
  [0x4d3cb2a1, { little: false, perFraction: 1 }],
]);
const PCAP_HEAD_BYTES = 24;
const PCAP_RECORD_BYTES = 16;

interface FileInterface {
  readonly kind: 'interface';
  readonly index: number;
  readonly name: string;
  readonly description: string;
  readonly linktype: number;
  /** 0: no limit. */
  readonly snaplen: number;
  readonly mac: Uint8Array | null;
  readonly speed: bigint | null;
  readonly filter: string;
}

/** A packet. Its bytes belong to the caller. */
interface FilePacket {
  readonly kind: 'packet';
  /** Offset of the record in the file. */
  readonly offset: number;
  readonly iface: number;
  /** Nanoseconds since 1970. */
  readonly time: bigint;
  readonly bytes: Uint8Array;
  readonly wirelen: number;
  /** epb_flags; 0: unknown. */
  readonly flags: number;
  /** epb_packetid; 0: none. */
  readonly id: number;
  readonly queue: number;
  readonly drops: number;
  readonly comments: readonly string[];
  /** Items for `decodeMeta`; null without ours. */
  readonly meta: Uint8Array | null;
}

/** An event in a custom block of ours. */
interface FileEvent {
  readonly kind: 'event';
  readonly offset: number;
  readonly meta: Uint8Array;
}

interface FileStatistics {
  readonly kind: 'statistics';
  readonly iface: number;
  readonly comments: readonly string[];
  /** Values by option; null where the file has none. Times in ns since 1970. */
  readonly start: bigint | null;
  readonly end: bigint | null;
  readonly received: bigint | null;
  readonly ringDrops: bigint | null;
  readonly accepted: bigint | null;
  readonly slowDrops: bigint | null;
  readonly delivered: bigint | null;
}

/** Secrets, for example of a TLS key log. */
interface FileSecrets {
  readonly kind: 'secrets';
  readonly type: number;
  readonly bytes: Uint8Array;
}

export type FileItem = FileInterface | FilePacket | FileEvent | FileStatistics | FileSecrets;

/**
 * Reads a capture, without compression. Yields what precedes a fault, then throws
 * CaptureFormatError with its offset and reason.
 */
export async function* readCapture(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<FileItem, void> {
  const stream = new BlockStream(chunks);
  try {
    const magic = await stream.take(4, 'the magic number');
    if (magic === null) throw new CaptureFormatError(0, 'the file is empty');
    const first = magic.readUInt32LE(0);
    const pcap = PCAP_MAGICS.get(first);
    if (pcap !== undefined) yield* new PcapReader(stream, pcap).read();
    else if (first === PCAPNG_SHB) yield* new PcapngReader(stream).read();
    else throw new CaptureFormatError(0, 'neither a pcap nor a pcapng file');
  } finally {
    await stream.close();
  }
}

/** Numbers of one byte order. */
class Numbers {
  readonly little: boolean;
  constructor(little: boolean) {
    this.little = little;
  }

  u16(b: Buffer, at: number): number {
    return this.little ? b.readUInt16LE(at) : b.readUInt16BE(at);
  }

  u32(b: Buffer, at: number): number {
    return this.little ? b.readUInt32LE(at) : b.readUInt32BE(at);
  }

  u64(b: Buffer, at: number): bigint {
    return this.little ? b.readBigUInt64LE(at) : b.readBigUInt64BE(at);
  }

  /** A time: the high half first, in either byte order. */
  time(b: Buffer, at: number): bigint {
    return (BigInt(this.u32(b, at)) << 32n) | BigInt(this.u32(b, at + 4));
  }
}

class PcapReader {
  readonly #stream: BlockStream;
  readonly #n: Numbers;
  readonly #perFraction: bigint;

  constructor(stream: BlockStream, form: { little: boolean; perFraction: number }) {
    this.#stream = stream;
    this.#n = new Numbers(form.little);
    this.#perFraction = BigInt(form.perFraction);
  }

  async *read(): AsyncGenerator<FileItem, void> {
    const head = await this.#stream.need(PCAP_HEAD_BYTES - 4, 'the file header', 0);
    const major = this.#n.u16(head, 0);
    if (major !== 2) throw new CaptureFormatError(4, `version ${major} of pcap is not known`);
    const linktype = this.#n.u32(head, 16) & 0xffff;
    const snaplen = this.#n.u32(head, 12);
    const none = { name: '', description: '', mac: null, speed: null, filter: '' };
    yield { kind: 'interface', index: 0, linktype, snaplen, ...none };
    for (;;) {
      const packet = await this.#packet();
      if (packet === null) return;
      yield packet;
    }
  }

  async #packet(): Promise<FilePacket | null> {
    const { offset } = this.#stream;
    const head = await this.#stream.take(PCAP_RECORD_BYTES, 'a packet header');
    if (head === null) return null;
    const n = this.#n;
    const caplen = n.u32(head, 8);
    const wirelen = n.u32(head, 12);
    const fraction = BigInt(n.u32(head, 4)) * this.#perFraction;
    const time = BigInt(n.u32(head, 0)) * 1_000_000_000n + fraction;
    if (caplen > PACKET_MAX)
      throw new CaptureFormatError(
        offset,
        `a packet of ${caplen} bytes is longer than ${PACKET_MAX}`,
      );
    const bytes = Uint8Array.from(await this.#stream.need(caplen, 'a packet', offset));
    const none = { flags: 0, id: 0, queue: 0, drops: 0, comments: [], meta: null };
    return { kind: 'packet', offset, iface: 0, time, bytes, wirelen, ...none };
  }
}

/** What times of an interface mean. */
interface Clock {
  readonly linktype: number;
  readonly snaplen: number;
  /** Nanoseconds of a count of units. */
  ns(units: bigint): bigint;
}

/** An option of a block. */
interface Option {
  readonly code: number;
  readonly value: Buffer;
}

class PcapngReader {
  readonly #stream: BlockStream;
  #n = new Numbers(true);
  #interfaces: Clock[] = [];
  /** Number of the section's first interface, because numbers start at 0 in each section. */
  #firstInterface = 0;

  constructor(stream: BlockStream) {
    this.#stream = stream;
  }

  async *read(): AsyncGenerator<FileItem, void> {
    await this.#section(0);
    for (;;) {
      const { offset } = this.#stream;
      const head = await this.#stream.take(8, 'a block header');
      if (head === null) return;
      const type = this.#n.u32(head, 0);
      // The type of a section header reads the same in both byte orders.
      if (type === PCAPNG_SHB) {
        await this.#section(offset, head);
        continue;
      }
      const item = this.#item(type, offset, await this.#body(offset, this.#n.u32(head, 4)));
      if (item !== null) yield item;
    }
  }

  /** Reads the rest of a section header. @param head its first 8 bytes; absent: 4 were read */
  async #section(offset: number, head?: Buffer): Promise<void> {
    const length =
      head?.subarray(4, 8) ?? (await this.#stream.need(4, 'the section header', offset));
    // A view of the stream's buffer, which the next read replaces.
    const lengthCopy = Buffer.from(length);
    const order = await this.#stream.need(4, 'the section header', offset);
    if (order.readUInt32LE(0) === PCAPNG_BYTE_ORDER) this.#n = new Numbers(true);
    else if (order.readUInt32BE(0) === PCAPNG_BYTE_ORDER) this.#n = new Numbers(false);
    else throw new CaptureFormatError(offset, 'the byte-order magic of the section is wrong');
    const total = this.#n.u32(lengthCopy, 0);
    if (total < 28) throw new CaptureFormatError(offset, `a section header of ${total} bytes`);
    const body = await this.#body(offset, total, 12);
    const major = this.#n.u16(body, 0);
    if (major !== 1)
      throw new CaptureFormatError(offset, `version ${major} of pcapng is not known`);
    this.#firstInterface += this.#interfaces.length;
    this.#interfaces = [];
  }

  /** The body of a block of `total` bytes, of which `before` were read. */
  async #body(offset: number, total: number, before = 8): Promise<Buffer> {
    if (total % 4 !== 0 || total < before + 4)
      throw new CaptureFormatError(offset, `a block of ${total} bytes`);
    if (total > BLOCK_MAX)
      throw new CaptureFormatError(offset, `a block of ${total} bytes is longer than ${BLOCK_MAX}`);
    const rest = await this.#stream.need(total - before, 'a block', offset);
    const end = this.#n.u32(rest, rest.length - 4);
    if (end !== total)
      throw new CaptureFormatError(offset, `a block of ${total} bytes ends with the length ${end}`);
    return rest.subarray(0, rest.length - 4);
  }

  #item(type: number, offset: number, body: Buffer): FileItem | null {
    switch (type) {
      case PCAPNG_IDB:
        return this.#interface(offset, body);
      case PCAPNG_EPB:
        return this.#enhanced(offset, body);
      case PCAPNG_SPB:
        return this.#simple(offset, body);
      case PCAPNG_ISB:
        return this.#statistics(offset, body);
      case PCAPNG_DSB:
        return this.#secrets(offset, body);
      case PCAPNG_CUSTOM:
      case PCAPNG_CUSTOM_NOCOPY:
        return this.#custom(offset, body);
      default:
        return null;
    }
  }

  #fixed(offset: number, body: Buffer, n: number, what: string): void {
    if (body.length < n)
      throw new CaptureFormatError(offset, `${what} of ${body.length} bytes; ${n} are needed`);
  }

  *#options(offset: number, body: Buffer, from: number): Generator<Option, void> {
    let at = from;
    while (at + 4 <= body.length) {
      const code = this.#n.u16(body, at);
      const length = this.#n.u16(body, at + 2);
      if (code === OPT_END) return;
      if (at + 4 + length > body.length)
        throw new CaptureFormatError(offset, `option ${code} of ${length} bytes exceeds its block`);
      yield { code, value: body.subarray(at + 4, at + 4 + length) };
      at += 4 + ((length + 3) & ~3);
    }
  }

  #interface(offset: number, body: Buffer): FileInterface {
    this.#fixed(offset, body, 8, 'an interface block');
    if (this.#interfaces.length >= INTERFACES_MAX)
      throw new CaptureFormatError(offset, `more than ${INTERFACES_MAX} interfaces`);
    let name = '';
    let description = '';
    let mac: Uint8Array | null = null;
    let speed: bigint | null = null;
    let filter = '';
    let resolution = 6;
    for (const { code, value } of this.#options(offset, body, 8)) {
      if (code === IF_NAME) name = value.toString('utf8');
      else if (code === IF_DESCRIPTION) description = value.toString('utf8');
      else if (code === IF_MACADDR && value.length === 6) mac = Uint8Array.from(value);
      else if (code === IF_SPEED && value.length === 8) speed = this.#n.u64(value, 0);
      else if (code === IF_TSRESOL && value.length === 1) resolution = value[0]!;
      else if (code === IF_FILTER && value[0] === 0) filter = value.toString('utf8', 1);
    }
    const linktype = this.#n.u16(body, 0);
    const snaplen = this.#n.u32(body, 4);
    this.#interfaces.push({ linktype, snaplen, ns: clockOf(offset, resolution) });
    const index = this.#firstInterface + this.#interfaces.length - 1;
    return { kind: 'interface', index, name, description, linktype, snaplen, mac, speed, filter };
  }

  #clock(offset: number, index: number): Clock {
    const clock = this.#interfaces[index];
    if (clock === undefined)
      throw new CaptureFormatError(offset, `interface ${index} is not defined`);
    return clock;
  }

  #enhanced(offset: number, body: Buffer): FilePacket {
    this.#fixed(offset, body, 20, 'a packet block');
    const index = this.#n.u32(body, 0);
    const clock = this.#clock(offset, index);
    const caplen = this.#n.u32(body, 12);
    if (caplen > body.length - 20)
      throw new CaptureFormatError(
        offset,
        `a packet of ${caplen} bytes in a block of ${body.length}`,
      );
    let flags = 0;
    let id = 0;
    let queue = 0;
    let drops = 0;
    let meta: Uint8Array | null = null;
    const comments: string[] = [];
    for (const { code, value } of this.#options(offset, body, 20 + ((caplen + 3) & ~3))) {
      if (code === EPB_FLAGS && value.length === 4) flags = this.#n.u32(value, 0);
      else if (code === EPB_PACKETID && value.length === 8) id = Number(this.#n.u64(value, 0));
      else if (code === EPB_QUEUE && value.length === 4) queue = this.#n.u32(value, 0);
      else if (code === EPB_DROPCOUNT && value.length === 8) drops = Number(this.#n.u64(value, 0));
      else if (code === OPT_COMMENT) comments.push(value.toString('utf8'));
      else if (code === OPT_CUSTOM && value.length >= 4) meta = ownedItems(value) ?? meta;
    }
    return {
      kind: 'packet',
      offset,
      iface: this.#firstInterface + index,
      time: clock.ns(this.#n.time(body, 4)),
      bytes: Uint8Array.from(body.subarray(20, 20 + caplen)),
      wirelen: this.#n.u32(body, 16),
      flags,
      id,
      queue,
      drops,
      comments,
      meta,
    };
  }

  /** A packet without time, of the section's first interface. */
  #simple(offset: number, body: Buffer): FilePacket {
    this.#fixed(offset, body, 4, 'a simple packet block');
    const { snaplen } = this.#clock(offset, 0);
    const wirelen = this.#n.u32(body, 0);
    const caplen = Math.min(wirelen, snaplen === 0 ? wirelen : snaplen, body.length - 4);
    const none = { time: 0n, flags: 0, id: 0, queue: 0, drops: 0, comments: [], meta: null };
    const bytes = Uint8Array.from(body.subarray(4, 4 + caplen));
    return { kind: 'packet', offset, iface: this.#firstInterface, bytes, wirelen, ...none };
  }

  #statistics(offset: number, body: Buffer): FileStatistics {
    this.#fixed(offset, body, 12, 'a statistics block');
    const index = this.#n.u32(body, 0);
    const clock = this.#clock(offset, index);
    const comments: string[] = [];
    const counts = new Map<number, bigint>();
    const times = new Map<number, bigint>();
    for (const { code, value } of this.#options(offset, body, 12)) {
      if (code === OPT_COMMENT) comments.push(value.toString('utf8'));
      else if (value.length !== 8) continue;
      else if (code === ISB_STARTTIME || code === ISB_ENDTIME)
        times.set(code, clock.ns(this.#n.time(value, 0)));
      else counts.set(code, this.#n.u64(value, 0));
    }
    return {
      kind: 'statistics',
      iface: this.#firstInterface + index,
      comments,
      start: times.get(ISB_STARTTIME) ?? null,
      end: times.get(ISB_ENDTIME) ?? null,
      received: counts.get(ISB_IFRECV) ?? null,
      ringDrops: counts.get(ISB_IFDROP) ?? null,
      accepted: counts.get(ISB_FILTERACCEPT) ?? null,
      slowDrops: counts.get(ISB_OSDROP) ?? null,
      delivered: counts.get(ISB_USRDELIV) ?? null,
    };
  }

  #secrets(offset: number, body: Buffer): FileSecrets {
    this.#fixed(offset, body, 8, 'a secrets block');
    const length = this.#n.u32(body, 4);
    if (length > body.length - 8)
      throw new CaptureFormatError(
        offset,
        `secrets of ${length} bytes in a block of ${body.length}`,
      );
    const bytes = Uint8Array.from(body.subarray(8, 8 + length));
    return { kind: 'secrets', type: this.#n.u32(body, 0), bytes };
  }

  #custom(offset: number, body: Buffer): FileEvent | null {
    this.#fixed(offset, body, 4, 'a custom block');
    const meta = ownedItems(body);
    return meta === null ? null : { kind: 'event', offset, meta };
  }
}

/** A copy of our items in custom data that begins with an enterprise number; null if not ours. */
function ownedItems(value: Buffer): Uint8Array | null {
  const items = customItems(value.subarray(4));
  return items === null ? null : Uint8Array.from(items);
}

/** What a unit of time of `if_tsresol` is: a power of 10, or of 2 if the highest bit is set. */
function clockOf(offset: number, resolution: number): Clock['ns'] {
  const exponent = resolution & 0x7f;
  if (exponent > 63) throw new CaptureFormatError(offset, `a time resolution of ${resolution}`);
  const perSecond = (resolution & 0x80) === 0 ? 10n ** BigInt(exponent) : 1n << BigInt(exponent);
  return (units) => (units * 1_000_000_000n) / perSecond;
}
