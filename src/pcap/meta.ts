/**
 * Packet metadata in files: decoding of the items of src/sys/capture_meta.ts, and the comment that
 * says the same to people and to the Wireshark dissector. A comment has one line:
 *
 *   id=17; point=ring; dir=out; csum=nic; chain=[int,pkthdr 54 off=80 refs=1 | nomap,ext,rdonly 4096
 *   off=0 refs=2 pages=0x1000000,0x1003000]; descs=ring 0 slot 12: 00ff00…,00ff00…; link=tso of 16 n=2;
 *   why=conversion mbuf.convert_no_ifcap_nomap 4096
 *
 * Absent fields are left out. The decoder accepts any bytes: it throws an Error that names the fault
 * and its offset, and allocates no more than a fixed multiple of the input.
 */

import { CAPTURE_IN, CAPTURE_OUT, capturePoints } from '../sys/capture.ts';
import {
  META_CHAIN,
  META_CHAIN_BYTES,
  META_CHAIN_CUT,
  META_DESCS,
  META_DESCS_BYTES,
  META_ITEM_BYTES,
  META_LINK,
  META_LINK_BYTES,
  META_MBUF_BYTES,
  META_PACKET,
  META_PACKET_BYTES,
  META_SOCKET,
  META_SOCKET_BYTES,
  META_WHY,
  META_WHY_BYTES,
  metaCsumNames,
  metaFlagNames,
  metaLinkNames,
  metaMbufNames,
  metaWhyNames,
} from '../sys/capture_meta.ts';

/** One mbuf of a chain. */
interface MetaMbuf {
  readonly kind: string;
  /** Names of META_M_* flags. */
  readonly flags: readonly string[];
  readonly refs: number;
  readonly len: number;
  readonly off: number;
  readonly hdr: number;
  readonly trail: number;
  /** Physical addresses. */
  readonly pages: readonly bigint[];
}

interface MetaDescs {
  readonly ring: number;
  readonly slot: number;
  /** Each descriptor in hexadecimal. */
  readonly bytes: readonly string[];
}

interface MetaLink {
  readonly kind: string;
  readonly index: number;
  readonly ids: readonly number[];
}

interface MetaWhy {
  readonly what: string;
  /** `LAYER.NAME`, or the number if the file has no name. */
  readonly reason: string;
  readonly bytes: number;
}

interface MetaSocket {
  readonly id: number;
  /** Position in the stream since the connection began, and number of bytes. */
  readonly first: number;
  readonly bytes: number;
}

/** The metadata of one packet. */
export interface PacketMeta {
  /** 0: unknown. */
  readonly id: number;
  readonly point: string;
  readonly direction: 'out' | 'in' | 'unknown';
  readonly queue: number;
  readonly csum: string;
  readonly chain: readonly MetaMbuf[];
  /** Entries of the chain are missing. */
  readonly chainCut: boolean;
  readonly descs: readonly MetaDescs[];
  readonly links: readonly MetaLink[];
  readonly why: readonly MetaWhy[];
  readonly sockets: readonly MetaSocket[];
}

const NO_PACKET = {
  id: 0,
  point: 'unknown',
  direction: 'unknown',
  queue: 0,
  csum: 'unknown',
} as const;
const latin1 = new TextDecoder('latin1');
const utf8 = new TextDecoder('utf-8');

function nameOf(names: readonly string[], n: number): string {
  return names[n] ?? String(n);
}

/** A value being read; every read checks the end. */
class Value {
  readonly #view: DataView;
  readonly #what: string;
  readonly #base: number;
  #at = 0;

  constructor(bytes: Uint8Array, off: number, len: number, what: string) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset + off, len);
    this.#base = off;
    this.#what = what;
  }

  get left(): number {
    return this.#view.byteLength - this.#at;
  }

  #take(n: number): number {
    if (this.left < n)
      throw new Error(
        `metadata: ${this.#what} at ${this.#base}: ${n} bytes wanted, ${this.left} left`,
      );
    const at = this.#at;
    this.#at += n;
    return at;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  f64(): number {
    return this.#view.getFloat64(this.#take(8), true);
  }

  bytes(n: number): Uint8Array {
    const at = this.#take(n);
    return new Uint8Array(this.#view.buffer, this.#view.byteOffset + at, n);
  }
}

function mbufOf(v: Value): MetaMbuf {
  const kind = nameOf(metaMbufNames, v.u8());
  const bits = v.u8();
  const flags = metaFlagNames.filter((_, bit) => (bits & (1 << bit)) !== 0);
  const refs = v.u16();
  const len = v.u32();
  const off = v.u32();
  const hdr = v.u16();
  const trail = v.u16();
  const npages = v.u16();
  v.u16();
  const pages: bigint[] = [];
  for (let i = 0; i < npages; i++) pages.push(v.u64());
  return { kind, flags, refs, len, off, hdr, trail, pages };
}

function chainOf(v: Value): { chain: MetaMbuf[]; chainCut: boolean } {
  const n = v.u16();
  const chainCut = (v.u16() & META_CHAIN_CUT) !== 0;
  const chain: MetaMbuf[] = [];
  for (let i = 0; i < n; i++) chain.push(mbufOf(v));
  return { chain, chainCut };
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
}

function descsOf(v: Value): MetaDescs {
  const ring = v.u16();
  const slot = v.u16();
  const n = v.u16();
  const size = v.u16();
  const bytes: string[] = [];
  // A size of 0 would let 8 bytes announce 65,535 descriptors.
  if (size > 0) for (let i = 0; i < n; i++) bytes.push(hex(v.bytes(size)));
  return { ring, slot, bytes };
}

function linkOf(v: Value): MetaLink {
  const kind = nameOf(metaLinkNames, v.u16());
  const index = v.u16();
  const ids: number[] = [];
  while (v.left >= 4) ids.push(v.u32());
  return { kind, index, ids };
}

function whyOf(v: Value): MetaWhy {
  const what = nameOf(metaWhyNames, v.u16());
  const number = v.u16();
  const bytes = v.u32();
  const name = utf8.decode(v.bytes(v.left));
  return { what, reason: name === '' ? String(number) : name, bytes };
}

function directionOf(n: number): PacketMeta['direction'] {
  if (n === CAPTURE_OUT) return 'out';
  return n === CAPTURE_IN ? 'in' : 'unknown';
}

/** Decodes a list of items. Throws Error with the offset of the first fault. */
export function decodeMeta(bytes: Uint8Array): PacketMeta {
  let packet: Pick<PacketMeta, keyof typeof NO_PACKET> = NO_PACKET;
  let chain: { chain: MetaMbuf[]; chainCut: boolean } = { chain: [], chainCut: false };
  const descs: MetaDescs[] = [];
  const links: MetaLink[] = [];
  const why: MetaWhy[] = [];
  const sockets: MetaSocket[] = [];
  let at = 0;
  while (at < bytes.length) {
    const head = new Value(bytes, at, Math.min(META_ITEM_BYTES, bytes.length - at), 'item');
    const type = head.u16();
    const length = head.u16();
    const start = at + META_ITEM_BYTES;
    if (start + length > bytes.length)
      throw new Error(
        `metadata: item at ${at}: ${length} bytes announced, ${bytes.length - start} left`,
      );
    const v = new Value(bytes, start, length, `item ${type}`);
    if (type === META_PACKET) {
      const id = v.u32();
      const point = nameOf(capturePoints, v.u8());
      const direction = directionOf(v.u8());
      packet = { id, point, direction, queue: v.u16(), csum: nameOf(metaCsumNames, v.u16()) };
    } else if (type === META_CHAIN) chain = chainOf(v);
    else if (type === META_DESCS) descs.push(descsOf(v));
    else if (type === META_LINK) links.push(linkOf(v));
    else if (type === META_WHY) why.push(whyOf(v));
    else if (type === META_SOCKET) {
      const id = v.u32();
      v.u32();
      sockets.push({ id, first: v.f64(), bytes: v.f64() });
    }
    at = start + ((length + 3) & ~3);
  }
  return { ...packet, ...chain, descs, links, why, sockets };
}

const ID: Uint8Array = new Uint8Array(Buffer.from('id='));
/** Texts that a CommentWriter keeps; more only in files that another program wrote. */
const STATES_MAX = 256;
/** Room for a comment; a longer one ends with `...`. */
export const COMMENT_MAX = 16_384;

/**
 * Writes comments as ASCII without a string and without garbage, because a capture has one for each
 * packet. It reads items that this program wrote, and stops at the first that does not fit.
 */
export class CommentWriter {
  /** The comment is `bytes[0 .. length)` after `write`. */
  readonly bytes = new Uint8Array(COMMENT_MAX);
  length = 0;
  readonly #view: DataView;
  /** Texts of `#state`, by their numbers. */
  readonly #states = new Map<number, Uint8Array>();

  /** @param memory what `write` reads */
  constructor(memory: DataView) {
    this.#view = memory;
  }

  /** The comment of the items in `memory[off .. off + len)`. */
  write(off: number, len: number): void {
    this.length = 0;
    const view = this.#view;
    let at = off;
    const end = off + len;
    while (at + META_ITEM_BYTES <= end) {
      const type = view.getUint16(at, true);
      const length = view.getUint16(at + 2, true);
      const start = at + META_ITEM_BYTES;
      if (start + length > end) return;
      if (type === META_PACKET && length >= META_PACKET_BYTES) this.#packet(start);
      else if (type === META_CHAIN && length >= META_CHAIN_BYTES)
        this.#chain(start, start + length);
      else if (type === META_DESCS && length >= META_DESCS_BYTES)
        this.#descs(start, start + length);
      else if (type === META_LINK && length >= META_LINK_BYTES) this.#link(start, start + length);
      else if (type === META_WHY && length >= META_WHY_BYTES) this.#why(start, start + length);
      else if (type === META_SOCKET && length >= META_SOCKET_BYTES) this.#socket(start);
      at = start + ((length + 3) & ~3);
    }
    if (this.length > COMMENT_MAX) {
      // '...' at the end.
      this.bytes.fill(0x2e, COMMENT_MAX - 3);
      this.length = COMMENT_MAX;
    }
  }

  #field(): void {
    if (this.length > 0) this.#ascii('; ');
  }

  #ascii(text: string): void {
    for (let i = 0; i < text.length; i++) this.#byte(text.charCodeAt(i));
  }

  #byte(c: number): void {
    if (this.length < COMMENT_MAX) this.bytes[this.length] = c;
    this.length++;
  }

  #number(n: number): void {
    let digits = 1;
    for (let unit = 10; n >= unit; unit *= 10) digits++;
    let at = this.length + digits;
    this.length = at;
    if (at > COMMENT_MAX) return;
    let left = n;
    // Integer division while the number fits.
    for (; left > 0x7fffffff; left = Math.floor(left / 10)) this.bytes[--at] = 0x30 + (left % 10);
    for (let i = left | 0; at > this.length - digits;) {
      const tenth = (i / 10) | 0;
      this.bytes[--at] = 0x30 + i - tenth * 10;
      i = tenth;
    }
  }

  #hexByte(n: number): void {
    for (const nibble of NIBBLES) {
      const digit = (n >> nibble) & 15;
      this.#byte(digit < 10 ? 0x30 + digit : 0x57 + digit);
    }
  }

  /** A number without leading zeros. */
  #hexNumber(high: number, low: number): void {
    let started = false;
    for (let i = 15; i >= 0; i--) {
      const digit = ((i >= 8 ? high : low) >>> ((i & 7) * 4)) & 15;
      if (digit === 0 && !started && i > 0) continue;
      started = true;
      this.#byte(digit < 10 ? 0x30 + digit : 0x57 + digit);
    }
  }

  #packet(at: number): void {
    const view = this.#view;
    this.#field();
    this.#put(ID);
    this.#number(view.getUint32(at, true));
    const csum = Math.min(view.getUint16(at + 8, true), metaCsumNames.length);
    const key = (view.getUint8(at + 4) << 16) | (view.getUint8(at + 5) << 8) | csum;
    this.#put(this.#states.get(key) ?? this.#state(at, key, csum));
  }

  /** The text of point, direction and checksum; there are few, so each is made once. */
  #state(at: number, key: number, csum: number): Uint8Array {
    const view = this.#view;
    const dir = view.getUint8(at + 5);
    let text = `; point=${capturePoints[view.getUint8(at + 4)] ?? 'unknown'}`;
    if (dir === CAPTURE_OUT) text += '; dir=out';
    else if (dir === CAPTURE_IN) text += '; dir=in';
    if (csum !== 0) text += `; csum=${metaCsumNames[csum] ?? 'unknown'}`;
    const bytes = new Uint8Array(Buffer.from(text));
    if (this.#states.size < STATES_MAX) this.#states.set(key, bytes);
    return bytes;
  }

  #put(bytes: Uint8Array): void {
    const n = bytes.length;
    if (this.length + n <= COMMENT_MAX) {
      for (let i = 0; i < n; i++) this.bytes[this.length + i] = bytes[i]!;
    }
    this.length += n;
  }

  #chain(start: number, end: number): void {
    const view = this.#view;
    const n = view.getUint16(start, true);
    this.#field();
    this.#ascii('chain=[');
    let at = start + META_CHAIN_BYTES;
    for (let i = 0; i < n && at + META_MBUF_BYTES <= end; i++) {
      if (i > 0) this.#ascii(' | ');
      at = this.#mbuf(at, end);
    }
    if ((view.getUint16(start + 2, true) & META_CHAIN_CUT) !== 0) this.#ascii(' | ...');
    this.#ascii(']');
  }

  #mbuf(at: number, end: number): number {
    const view = this.#view;
    this.#ascii(metaMbufNames[view.getUint8(at)] ?? 'unknown');
    const flags = view.getUint8(at + 1);
    for (let bit = 0; bit < metaFlagNames.length; bit++)
      if ((flags & (1 << bit)) !== 0) {
        this.#byte(0x2c);
        this.#ascii(metaFlagNames[bit]!);
      }
    this.#byte(0x20);
    this.#number(view.getUint32(at + 4, true));
    this.#ascii(' off=');
    this.#number(view.getUint32(at + 8, true));
    this.#ascii(' refs=');
    this.#number(view.getUint16(at + 2, true));
    const hdr = view.getUint16(at + 12, true);
    const trail = view.getUint16(at + 14, true);
    if (hdr > 0) {
      this.#ascii(' hdr=');
      this.#number(hdr);
    }
    if (trail > 0) {
      this.#ascii(' trail=');
      this.#number(trail);
    }
    const npages = view.getUint16(at + 16, true);
    let page = at + META_MBUF_BYTES;
    for (let i = 0; i < npages && page + 8 <= end; i++, page += 8) {
      this.#ascii(i === 0 ? ' pages=0x' : ',0x');
      this.#hexNumber(view.getUint32(page + 4, true), view.getUint32(page, true));
    }
    return page;
  }

  #descs(start: number, end: number): void {
    const view = this.#view;
    const n = view.getUint16(start + 4, true);
    const size = view.getUint16(start + 6, true);
    this.#field();
    this.#ascii('descs=ring ');
    this.#number(view.getUint16(start, true));
    this.#ascii(' slot ');
    this.#number(view.getUint16(start + 2, true));
    this.#ascii(':');
    let at = start + META_DESCS_BYTES;
    for (let i = 0; i < n && at + size <= end; i++) {
      this.#byte(i === 0 ? 0x20 : 0x2c);
      for (const stop = at + size; at < stop; at++) this.#hexByte(view.getUint8(at));
    }
  }

  #link(start: number, end: number): void {
    const view = this.#view;
    this.#field();
    this.#ascii('link=');
    this.#ascii(metaLinkNames[view.getUint16(start, true)] ?? 'unknown');
    this.#ascii(' of ');
    for (let at = start + META_LINK_BYTES; at + 4 <= end; at += 4) {
      if (at > start + META_LINK_BYTES) this.#byte(0x2c);
      this.#number(view.getUint32(at, true));
    }
    this.#ascii(' n=');
    this.#number(view.getUint16(start + 2, true));
  }

  #why(start: number, end: number): void {
    const view = this.#view;
    this.#field();
    this.#ascii('why=');
    this.#ascii(metaWhyNames[view.getUint16(start, true)] ?? 'unknown');
    this.#byte(0x20);
    if (start + META_WHY_BYTES === end) this.#number(view.getUint16(start + 2, true));
    for (let at = start + META_WHY_BYTES; at < end; at++) this.#byte(view.getUint8(at));
    this.#byte(0x20);
    this.#number(view.getUint32(start + 4, true));
  }

  #socket(at: number): void {
    const view = this.#view;
    this.#field();
    this.#ascii('socket=');
    this.#number(view.getUint32(at, true));
    this.#ascii(' first=');
    this.#number(view.getFloat64(at + 8, true));
    this.#ascii(' bytes=');
    this.#number(view.getFloat64(at + 16, true));
  }
}

const NIBBLES = [4, 0] as const;

/** The comment of a list of items, as text. */
export function metaText(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const writer = new CommentWriter(view);
  writer.write(0, bytes.length);
  return latin1.decode(writer.bytes.subarray(0, writer.length));
}
