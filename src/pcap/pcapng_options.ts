/** Blocks and options of pcapng, after draft-ietf-opsawg-pcapng. All numbers are little-endian. */

export const PCAPNG_SHB = 0x0a0d0d0a;
export const PCAPNG_IDB = 1;
export const PCAPNG_SPB = 3;
export const PCAPNG_ISB = 5;
export const PCAPNG_EPB = 6;
export const PCAPNG_DSB = 10;
export const PCAPNG_CUSTOM = 0xbad;
/** A custom block that editors must not copy. */
export const PCAPNG_CUSTOM_NOCOPY = 0x40000bad;

export const PCAPNG_BYTE_ORDER = 0x1a2b3c4d;

export const OPT_END = 0;
export const OPT_COMMENT = 1;
/** A custom option with binary contents that editors may copy: u32 enterprise number, then bytes. */
export const OPT_CUSTOM = 2989;
export const SHB_HARDWARE = 2;
export const SHB_OS = 3;
export const SHB_USERAPPL = 4;
export const IF_NAME = 2;
export const IF_DESCRIPTION = 3;
export const IF_MACADDR = 6;
export const IF_SPEED = 8;
export const IF_TSRESOL = 9;
export const IF_FILTER = 11;
export const IF_OS = 12;
export const IF_HARDWARE = 15;
export const EPB_FLAGS = 2;
export const EPB_DROPCOUNT = 4;
export const EPB_PACKETID = 5;
export const EPB_QUEUE = 6;
export const ISB_STARTTIME = 2;
export const ISB_ENDTIME = 3;
export const ISB_IFRECV = 4;
export const ISB_IFDROP = 5;
export const ISB_FILTERACCEPT = 6;
export const ISB_OSDROP = 7;
export const ISB_USRDELIV = 8;

/** Type of TLS key log lines in a Decryption Secrets Block. */
export const DSB_TLS_KEYLOG = 0x544c534b;

// epb_flags: direction in bits 0 and 1.
export const EPB_INBOUND = 1;
export const EPB_OUTBOUND = 2;

/** RFC 5612: the enterprise number for documentation. A site that has a number of its own sets it. */
export const PEN_EXAMPLE = 32473;
/** Our custom data begins with `TPNC`, u8 version, three zero bytes. */
export const CUSTOM_MAGIC = 0x434e5054;
export const CUSTOM_VERSION = 1;
export const CUSTOM_HEADER_BYTES = 8;

/** Largest value of an option. */
const OPTION_MAX = 0xffff;

/** A growing list of options. */
export class OptionList {
  #bytes = Buffer.alloc(256);
  #length = 0;

  #room(n: number): number {
    const at = this.#length;
    const need = at + n;
    if (need > this.#bytes.length) {
      const bytes = Buffer.alloc(2 * need);
      this.#bytes.copy(bytes, 0, 0, at);
      this.#bytes = bytes;
    }
    this.#length = need;
    return at;
  }

  /** Adds an option; a value above OPTION_MAX is cut. */
  add(code: number, value: Uint8Array): this {
    const n = Math.min(value.length, OPTION_MAX);
    const at = this.#room(4 + ((n + 3) & ~3));
    this.#bytes.fill(0, at, this.#length);
    this.#bytes.writeUInt16LE(code, at);
    this.#bytes.writeUInt16LE(n, at + 2);
    this.#bytes.set(value.subarray(0, n), at + 4);
    return this;
  }

  /** Adds a text in UTF-8; nothing for an empty one. */
  text(code: number, text: string): this {
    return text === '' ? this : this.add(code, cutText(text, OPTION_MAX));
  }

  u64(code: number, value: bigint): this {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    return this.add(code, bytes);
  }

  /** Adds a time as ISB_STARTTIME has it: the high half first. */
  time(code: number, ns: bigint): this {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(Number(ns >> 32n), 0);
    bytes.writeUInt32LE(Number(ns & 0xffffffffn), 4);
    return this.add(code, bytes);
  }

  /** Adds our custom option with `items` of src/sys/capture_meta.ts. */
  custom(pen: number, items: Uint8Array): this {
    return this.add(OPT_CUSTOM, customData(pen, items));
  }

  /** The options with their end; empty without options. */
  bytes(): Uint8Array {
    if (this.#length === 0) return this.#bytes.subarray(0, 0);
    return Buffer.concat([this.#bytes.subarray(0, this.#length), Buffer.alloc(4)]);
  }
}

/** The UTF-8 of `text`, without a character that is cut at `max` bytes. */
function cutText(text: string, max: number): Uint8Array {
  const bytes = Buffer.from(text, 'utf8');
  if (bytes.length <= max) return bytes;
  let end = max;
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}

/** Enterprise number, header and items of a custom option or block. */
export function customData(pen: number, items: Uint8Array): Buffer {
  const bytes = Buffer.alloc(4 + CUSTOM_HEADER_BYTES + items.length);
  bytes.writeUInt32LE(pen, 0);
  bytes.writeUInt32LE(CUSTOM_MAGIC, 4);
  bytes.writeUInt8(CUSTOM_VERSION, 8);
  bytes.set(items, 4 + CUSTOM_HEADER_BYTES);
  return bytes;
}

/** The items in the data of a custom option or block after the enterprise number; null if not ours. */
export function customItems(data: Uint8Array): Uint8Array | null {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
  if (bytes.length < CUSTOM_HEADER_BYTES || bytes.readUInt32LE(0) !== CUSTOM_MAGIC) return null;
  return bytes.readUInt8(4) === CUSTOM_VERSION ? bytes.subarray(CUSTOM_HEADER_BYTES) : null;
}

/** A whole block: type, body padded to 4 bytes, and the length at both ends. */
export function pcapngBlock(type: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = parts.reduce((n, part) => n + part.length, 0);
  const length = 12 + ((body + 3) & ~3);
  const block = Buffer.alloc(length);
  block.writeUInt32LE(type, 0);
  block.writeUInt32LE(length, 4);
  let at = 8;
  for (const part of parts) {
    block.set(part, at);
    at += part.length;
  }
  block.writeUInt32LE(length, length - 4);
  return block;
}
