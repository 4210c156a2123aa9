/**
 * The metadata of a capture record: what the bytes of the packet do not show. The stack and both
 * builds of the device write it into the capture ring; `src/pcap` copies it into files. The format is
 * a list of items, little-endian, each padded with zeros to a multiple of 4 bytes:
 *
 *   0  u16 type      META_*
 *   2  u16 length    of the value, without padding
 *   4  value
 *
 * A reader skips types that it does not know. docs/capture.md describes the values for other programs.
 */

export const META_ITEM_BYTES = 4;

/**
 * The packet: u32 id, u8 point, u8 direction (CAPTURE_OUT or CAPTURE_IN), u16 queue, u16 checksum
 * state (META_CSUM_*), u16 zero.
 */
export const META_PACKET = 1;
/**
 * The mbuf chain: u16 number of entries, u16 flags (META_CHAIN_CUT), then for each mbuf: u8 kind
 * (META_MBUF_*), u8 flags (META_M_*), u16 reference count, u32 m_len, u32 offset in the storage or in
 * the first page, u16 header bytes, u16 trailer bytes, u16 number of pages, u16 zero, and one u64
 * physical address for each page.
 */
export const META_CHAIN = 2;
/** Descriptors: u16 ring, u16 first slot, u16 number, u16 bytes of each, then their bytes. */
export const META_DESCS = 3;
/** A relation to other packets: u16 kind (META_LINK_*), u16 index, then one u32 id for each. */
export const META_LINK = 4;
/**
 * Why bytes were copied, mapped or dropped: u16 what (META_WHY_*), u16 reason of src/sys/reason.ts, u32
 * bytes. In a file the reason's name follows: the numbers differ between versions.
 */
export const META_WHY = 5;
/** The socket: u32 number, u32 zero, f64 position of the first byte in the stream, f64 bytes. */
export const META_SOCKET = 6;

export const META_PACKET_BYTES = 12;
export const META_CHAIN_BYTES = 4;
export const META_MBUF_BYTES = 20;
export const META_DESCS_BYTES = 8;
export const META_LINK_BYTES = 4;
export const META_WHY_BYTES = 8;
export const META_SOCKET_BYTES = 24;
/** Largest value of a META_CHAIN; a longer chain is cut after a whole entry. */
export const META_CHAIN_MAX = 8192;

// Checksum states of META_PACKET.
export const META_CSUM_UNKNOWN = 0;
/** The stack left the checksum to the NIC, or the NIC to the kernel. */
export const META_CSUM_NIC = 1;
/** The NIC verified a received checksum. */
export const META_CSUM_VERIFIED = 2;
export const META_CSUM_BAD = 3;
/** The CPU computed it. */
export const META_CSUM_SOFTWARE = 4;

/** Flag of META_CHAIN: entries are missing. */
export const META_CHAIN_CUT = 1;

// Kinds of storage of an mbuf.
export const META_MBUF_INTERNAL = 0;
export const META_MBUF_CLUSTER = 1;
export const META_MBUF_EXTPGS = 2;
export const META_MBUF_SFBUF = 3;
export const META_MBUF_OTHER = 4;

// Flags of an mbuf, by bit.
export const META_M_PKTHDR = 1;
export const META_M_EXT = 2;
export const META_M_NOMAP = 4;
export const META_M_RDONLY = 8;
export const META_M_NOTREADY = 16;

/** One segment of the TSO packet `id`. */
export const META_LINK_TSO = 1;
/** One fragment of the datagram `id`. */
export const META_LINK_FRAGMENT = 2;
/** A retransmission of bytes that packet `id` carried first. */
export const META_LINK_RETRANSMISSION = 3;
/** A packet coalesced from the frames `id`... */
export const META_LINK_LRO = 4;

export const META_WHY_CONVERSION = 1;
export const META_WHY_COPY = 2;
export const META_WHY_DROP = 3;
export const META_WHY_MAP = 4;
/** A fault delayed or changed the packet. */
export const META_WHY_FAULT = 5;
/** The packet, or its data, waited. */
export const META_WHY_WAIT = 6;

/** Names for texts, by number. */
export const metaCsumNames = ['unknown', 'nic', 'verified', 'bad', 'software'] as const;
export const metaMbufNames = ['int', 'clust', 'nomap', 'sfbuf', 'ext'] as const;
export const metaLinkNames = ['none', 'tso', 'fragment', 'retransmission', 'lro'] as const;
export const metaWhyNames = ['none', 'conversion', 'copy', 'drop', 'map', 'fault', 'wait'] as const;
/** Names of an mbuf's flags, by bit. */
export const metaFlagNames = ['pkthdr', 'ext', 'nomap', 'rdonly', 'notready'] as const;

/**
 * Writes items into memory without allocation. `begin` sets the place; `length` is what was written.
 * An item that does not fit is left out, and a chain is cut after a whole mbuf.
 */
export class MetaWriter {
  readonly #view: DataView;
  #begin = 0;
  #at = 0;
  #end = 0;
  /** Where the chain under way begins; -1: no room for it. */
  #chain = -1;
  #mbufs = 0;
  #cut = false;

  constructor(view: DataView) {
    this.#view = view;
  }

  /** Begins a list of items in `[off .. off + max)`. */
  begin(off: number, max: number): void {
    this.#begin = this.#at = off;
    this.#end = off + max;
  }

  /** Bytes of the items so far. */
  get length(): number {
    return this.#at - this.#begin;
  }

  /** Begins an item with a value of `length` bytes; returns its offset, or -1 without room. */
  #item(type: number, length: number): number {
    const at = this.#at;
    const next = at + META_ITEM_BYTES + ((length + 3) & ~3);
    if (next > this.#end) return -1;
    const view = this.#view;
    view.setUint16(at, type, true);
    view.setUint16(at + 2, length, true);
    if ((length & 3) !== 0) view.setUint32(next - 4, 0, true);
    this.#at = next;
    return at + META_ITEM_BYTES;
  }

  /** META_PACKET. */
  packet(id: number, point: number, direction: number, queue: number, csum: number): void {
    const at = this.#item(META_PACKET, META_PACKET_BYTES);
    if (at < 0) return;
    const view = this.#view;
    view.setUint32(at, id, true);
    view.setUint8(at + 4, point);
    view.setUint8(at + 5, direction);
    view.setUint16(at + 6, queue, true);
    view.setUint16(at + 8, csum, true);
    view.setUint16(at + 10, 0, true);
  }

  /** META_LINK to one packet. */
  link(kind: number, index: number, id: number): void {
    const at = this.#item(META_LINK, META_LINK_BYTES + 4);
    if (at < 0) return;
    this.#view.setUint16(at, kind, true);
    this.#view.setUint16(at + 2, index, true);
    this.#view.setUint32(at + 4, id, true);
  }

  /** META_LINK to the packets `ids[0 .. n)`. */
  links(kind: number, index: number, ids: Uint32Array, n: number): void {
    const at = this.#item(META_LINK, META_LINK_BYTES + 4 * n);
    if (at < 0) return;
    this.#view.setUint16(at, kind, true);
    this.#view.setUint16(at + 2, index, true);
    for (let i = 0; i < n; i++) this.#view.setUint32(at + META_LINK_BYTES + 4 * i, ids[i]!, true);
  }

  /** META_WHY. */
  why(what: number, reason: number, bytes: number): void {
    const at = this.#item(META_WHY, META_WHY_BYTES);
    if (at < 0) return;
    this.#view.setUint16(at, what, true);
    this.#view.setUint16(at + 2, reason, true);
    this.#view.setUint32(at + 4, bytes, true);
  }

  /** META_SOCKET. */
  socket(id: number, first: number, bytes: number): void {
    const at = this.#item(META_SOCKET, META_SOCKET_BYTES);
    if (at < 0) return;
    this.#view.setUint32(at, id, true);
    this.#view.setUint32(at + 4, 0, true);
    this.#view.setFloat64(at + 8, first, true);
    this.#view.setFloat64(at + 16, bytes, true);
  }

  /** Begins META_DESCS of `n` descriptors; returns where their bytes go, or -1 without room. */
  descs(ring: number, slot: number, n: number, size: number): number {
    const at = this.#item(META_DESCS, META_DESCS_BYTES + n * size);
    if (at < 0) return -1;
    const view = this.#view;
    view.setUint16(at, ring, true);
    view.setUint16(at + 2, slot, true);
    view.setUint16(at + 4, n, true);
    view.setUint16(at + 6, size, true);
    return at + META_DESCS_BYTES;
  }

  /** Begins META_CHAIN; `mbuf` and `page` calls follow, then `chainEnd`. */
  chain(): void {
    this.#chain = this.#item(META_CHAIN, META_CHAIN_BYTES);
    this.#mbufs = 0;
    this.#cut = false;
  }

  /**
   * Adds an mbuf to the chain, with `npages` calls of `page` after it. Returns false if the chain was
   * cut: then do not call `page`.
   */
  mbuf(
    kind: number,
    flags: number,
    refs: number,
    len: number,
    off: number,
    hdr: number,
    trail: number,
    npages: number,
  ): boolean {
    if (this.#chain < 0 || this.#cut) return false;
    const at = this.#at;
    const next = at + META_MBUF_BYTES + 8 * npages;
    if (next > this.#end || next - this.#chain > META_CHAIN_MAX) {
      this.#cut = true;
      return false;
    }
    const view = this.#view;
    view.setUint8(at, kind);
    view.setUint8(at + 1, flags);
    view.setUint16(at + 2, Math.min(refs, 0xffff), true);
    view.setUint32(at + 4, len, true);
    view.setUint32(at + 8, off, true);
    view.setUint16(at + 12, hdr, true);
    view.setUint16(at + 14, trail, true);
    view.setUint16(at + 16, npages, true);
    view.setUint16(at + 18, 0, true);
    this.#at = at + META_MBUF_BYTES;
    this.#mbufs++;
    return true;
  }

  /** Adds a page of the mbuf: its physical address, below 2^53. */
  page(address: number): void {
    this.#view.setUint32(this.#at, address % 4294967296, true);
    this.#view.setUint32(this.#at + 4, Math.floor(address / 4294967296), true);
    this.#at += 8;
  }

  /** Ends the chain. */
  chainEnd(): void {
    if (this.#chain < 0) return;
    const view = this.#view;
    view.setUint16(this.#chain - 2, this.#at - this.#chain, true);
    view.setUint16(this.#chain, this.#mbufs, true);
    view.setUint16(this.#chain + 2, this.#cut ? META_CHAIN_CUT : 0, true);
    this.#chain = -1;
  }
}
