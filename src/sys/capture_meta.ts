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

/** Names for texts, by number. */
export const metaCsumNames = ['unknown', 'nic', 'verified', 'bad', 'software'] as const;
export const metaMbufNames = ['int', 'clust', 'nomap', 'sfbuf', 'ext'] as const;
export const metaLinkNames = ['none', 'tso', 'fragment', 'retransmission', 'lro'] as const;
export const metaWhyNames = ['none', 'conversion', 'copy', 'drop', 'map', 'fault'] as const;
/** Names of an mbuf's flags, by bit. */
export const metaFlagNames = ['pkthdr', 'ext', 'nomap', 'rdonly', 'notready'] as const;
