/**
 * The datasheet of the NIC `tn` in code: registers, descriptors, limits. The prose, with diagrams
 * and the rules for each field, is docs/tn-datasheet.md. All registers are 32 bits wide, all
 * descriptors little-endian and 16 bytes long. Prefix TN_, as a FreeBSD if_tnreg.h would have it.
 * The header of the native build is generated from this file: scripts/gen_tnreg.ts.
 */

import {
  R_CAPTURE_FULL,
  R_DEV_BAD_REG,
  R_DEV_BAD_RING,
  R_DEV_DMA_FAULT,
  R_DEV_LINK_DOWN,
  R_DEV_RX_BAD,
  R_DEV_RX_FILTER,
  R_DEV_RX_NODESC,
  R_DEV_RX_OVERSIZE,
  R_DEV_RX_RUNT,
  R_DEV_TX_BAD,
  R_DEV_WIRE_ERROR,
  R_DEV_WIRE_FULL,
  type Reason,
} from '../../sys/reason.ts';

/** Bytes of register space. */
export const TN_REG_SIZE = 0x1000;

// General
export const TN_ID = 0x000; // RO
export const TN_CTRL = 0x004;
export const TN_STATUS = 0x008; // RO
export const TN_FEATURES = 0x00c; // RO
export const TN_MACL = 0x010; // bytes 0 to 3 of the address, byte 0 in bits 7:0
export const TN_MACH = 0x014; // bytes 4 and 5
export const TN_MAXFRM = 0x018; // longest frame received, without FCS; a VLAN tag counts
export const TN_LIMITS = 0x01c; // RO

// Interrupts
export const TN_ICR = 0x020; // causes; write 1 to clear
export const TN_IMS = 0x024; // reads the mask; write 1 to set
export const TN_IMC = 0x028; // write 1 to clear mask bits
export const TN_ICS = 0x02c; // write 1 to set causes, for tests
export const TN_ITR = 0x030; // minimum time between interrupts, µs; 0: no limit
export const TN_ITR_MAX = 0xffff;

// Multicast hash: bit h of the 64 accepts addresses whose hash is h
export const TN_MTA0 = 0x040;
export const TN_MTA1 = 0x044;

// Transmit ring
export const TN_TDBAL = 0x100;
export const TN_TDBAH = 0x104;
export const TN_TDLEN = 0x108; // bytes
export const TN_TDH = 0x10c; // RO
export const TN_TDT = 0x110; // the doorbell

// Receive ring
export const TN_RDBAL = 0x180;
export const TN_RDBAH = 0x184;
export const TN_RDLEN = 0x188; // bytes
export const TN_RDH = 0x18c; // RO
export const TN_RDT = 0x190;
export const TN_RXBSZ = 0x194; // bytes of a receive buffer

// Statistics: 64-bit counters, low half at TN_STATS + 8 * n, high half 4 bytes later. Reading the
// low half latches the high half. Only power-on clears them.
export const TN_STATS = 0x200;
export const TN_ST_TX_FRAMES = 0;
export const TN_ST_TX_BYTES = 1;
export const TN_ST_TX_PACKETS = 2;
export const TN_ST_TX_TSO = 3;
export const TN_ST_TX_SEGMENTS = 4;
export const TN_ST_TX_BAD = 5;
export const TN_ST_TX_WIRE_FULL = 6;
export const TN_ST_TX_WIRE_ERROR = 7;
export const TN_ST_TX_NO_LINK = 8;
export const TN_ST_RX_FRAMES = 9;
export const TN_ST_RX_BYTES = 10;
export const TN_ST_RX_FILTERED = 11;
export const TN_ST_RX_OVERSIZE = 12;
export const TN_ST_RX_RUNT = 13;
export const TN_ST_RX_NODESC = 14;
export const TN_ST_RX_BAD = 15;
export const TN_ST_RX_IP_ERROR = 16;
export const TN_ST_RX_L4_ERROR = 17;
export const TN_ST_DMA_FAULTS = 18;
export const TN_ST_BAD_REG = 19;
export const TN_ST_INTERRUPTS = 20;
export const TN_ST_RX_LRO = 21;
export const TN_ST_RX_LRO_SEGMENTS = 22;
/** Number of statistics. */
export const TN_NSTATS = 23;
/** Offset after the last statistic. */
export const TN_STATS_END = TN_STATS + 8 * TN_NSTATS;

/** Names of the statistics, in the order of their numbers. */
export const tnStatNames = [
  'tx_frames',
  'tx_bytes',
  'tx_packets',
  'tx_tso',
  'tx_segments',
  'tx_bad',
  'tx_wire_full',
  'tx_wire_error',
  'tx_no_link',
  'rx_frames',
  'rx_bytes',
  'rx_filtered',
  'rx_oversize',
  'rx_runt',
  'rx_nodesc',
  'rx_bad',
  'rx_ip_error',
  'rx_l4_error',
  'dma_faults',
  'bad_reg',
  'interrupts',
  'rx_lro',
  'rx_lro_segments',
] as const;

/** TN_ID of revision 1: "TN" and the revision. */
export const TN_ID_REV1 = 0x544e0001;

// TN_CTRL
export const TN_CTRL_RST = 0x1; // resets the device; reads as 0
export const TN_CTRL_TXE = 0x2; // transmit enable: 0 to 1 starts the ring at slot 0
export const TN_CTRL_RXE = 0x4; // receive enable, in the same way
export const TN_CTRL_PROMISC = 0x8;
export const TN_CTRL_ALLMULTI = 0x10;
export const TN_CTRL_VLSTRIP = 0x20; // strip received 802.1Q tags
export const TN_CTRL_RXCSUM = 0x40; // verify received checksums: IPv4, and TCP and UDP over it
export const TN_CTRL_LRO = 0x80; // coalesce received TCP segments that are verified; mode `wire`
export const TN_CTRL_RXCSUM6 = 0x100; // verify received checksums: TCP and UDP over IPv6
export const TN_CTRL_MASK = 0x1fe;

// TN_STATUS
export const TN_STATUS_LU = 0x1; // link up
export const TN_STATUS_VNET = 0x2; // egress mode `vnet`
export const TN_STATUS_TXSTOP = 0x4; // the transmit engine stopped: its ring cannot be used
export const TN_STATUS_RXSTOP = 0x8; // the receive engine stopped: its ring cannot be used

// TN_FEATURES
export const TN_FEAT_IXSM = 0x1;
export const TN_FEAT_TXSM = 0x2;
export const TN_FEAT_TSO4 = 0x4;
export const TN_FEAT_TSO6 = 0x8;
export const TN_FEAT_VLAN = 0x10;
export const TN_FEAT_RXCSUM = 0x20;
export const TN_FEAT_ITR = 0x40;
export const TN_FEAT_LRO = 0x80; // in mode `wire`
export const TN_FEAT_TXSM6 = 0x100; // TXSM with V6
export const TN_FEAT_RXCSUM6 = 0x200;

// Causes: TN_ICR, TN_IMS, TN_IMC, TN_ICS
export const TN_INT_TXDW = 0x1; // transmit descriptors written back
export const TN_INT_RXDW = 0x2; // receive descriptors written back
export const TN_INT_LSC = 0x4; // link status changed
export const TN_INT_RXO = 0x8; // stopped reading the wire: too few receive descriptors
export const TN_INT_TXERR = 0x10; // a transmit descriptor or the ring was bad
export const TN_INT_RXERR = 0x20; // a receive descriptor or the ring was bad
export const TN_INT_MASK = 0x3f;

// Limits
export const TN_DESC_SIZE = 16;
/** Ring base alignment, and granularity of its length (8 descriptors). */
export const TN_RING_ALIGN = 128;
/** Descriptors of the longest ring. */
export const TN_NDESC_MAX = 4096;
/** Maximum number of data descriptors of one packet. */
export const TN_TX_SEGS = 64;
/** Bytes of headers the offload engine can hold, VLAN tag included. */
export const TN_HDR_MAX = 256;
/** Longest frame without FCS, in both directions, except TSO packets and mode `vnet`. */
export const TN_FRAME_MAX = 9216;
/** Longest TSO packet: 65535 bytes after an Ethernet header with a VLAN tag. */
export const TN_TSO_MAX = 65535 + 18;
export const TN_MSS_MIN = 64;
/**
 * Range of TN_MAXFRM: from a minimum-size frame to the largest unsegmented frame of mode `vnet`.
 */
export const TN_MAXFRM_MIN = 60;
export const TN_MAXFRM_MAX = 65535 + 18;
/** TN_MAXFRM after a reset: an Ethernet frame with one VLAN tag. */
export const TN_MAXFRM_RESET = 1518;
/** Bytes of a receive buffer: a power of two from TN_RXBSZ_MIN to TN_RXBSZ_MAX. */
export const TN_RXBSZ_MIN = 2048;
export const TN_RXBSZ_MAX = 16384;
/**
 * Received IPv6: maximum number of extension headers that the device parses, and maximum number of
 * bytes of the IPv6 header together with them.
 */
export const TN_RX_EXTHDRS = 8;
export const TN_RX_L3_MAX = 256;
/**
 * Maximum number of frames that one doorbell sends, and that one drain receives. The rest waits for
 * the next turn of the loop.
 */
export const TN_TX_BUDGET = 256;
export const TN_RX_BUDGET = 128;
/** Shortest frame on a wire without FCS; shorter ones are padded in mode `wire`. */
export const TN_FRAME_MIN = 60;
/** Bytes of on-board memory the device needs. */
export const TN_SRAM_SIZE = 16384;

// Descriptors: byte offsets of their words
export const TN_D_ADDRL = 0;
export const TN_D_ADDRH = 4;
export const TN_D_LEN = 8; // length in 15:0, VLAN tag in 31:16
export const TN_D_STAT = 12; // command, which the device overwrites with the status

// Context descriptor, first of a packet with offloads
export const TN_C_HDRLEN = 0; // Ethernet 7:0, IP 16:8, TCP/UDP 24:17 header bytes
export const TN_C_L2_MASK = 0xff;
export const TN_C_L3_SHIFT = 8;
export const TN_C_L3_MASK = 0x1ff;
export const TN_C_L4_SHIFT = 17;
export const TN_C_L4_MASK = 0xff;
export const TN_C_MSS = 4; // payload bytes of a segment in 15:0
export const TN_C_TAG = 8; // the driver's packet id, for captures only

// Transmit commands
export const TN_TXD_EOP = 0x1; // last descriptor of the packet
export const TN_TXD_RS = 0x2; // report status: write DD to this descriptor; with EOP only
export const TN_TXD_CTX = 0x4; // this is a context descriptor
export const TN_TXD_VLE = 0x8; // insert the VLAN tag; first data descriptor
export const TN_TXD_IXSM = 0x10; // insert the IPv4 header checksum; context
export const TN_TXD_TXSM = 0x20; // insert the TCP or UDP checksum; context
export const TN_TXD_TSE = 0x40; // segment; context
export const TN_TXD_V6 = 0x80; // the packet is IPv6; context
export const TN_TXD_TCP = 0x100; // 1: the packet is TCP, 0: UDP; context

// Transmit status
export const TN_TXS_DD = 0x80000000; // done: the driver owns the buffers again
export const TN_TXS_ERR = 0x40000000; // the packet was bad and has been dropped

// Receive status
export const TN_RXS_EOP = 0x1; // last descriptor of the frame; only this one has the bits below
export const TN_RXS_VP = 0x2; // a VLAN tag was stripped
export const TN_RXS_IPCS = 0x4; // IPv4, and its header checksum was verified
export const TN_RXS_L4CS = 0x8; // the TCP or UDP checksum was verified
export const TN_RXS_IPE = 0x10; // the IPv4 header checksum is wrong
export const TN_RXS_L4E = 0x20; // the TCP or UDP checksum is wrong
/** The device has replaced TN_D_ADDRL with the frame's id, for captures. */
export const TN_RXS_ID = 0x40;
/** Number of coalesced segments, or of segments that the peer would have sent; 0 to 255. */
export const TN_RXS_SEGS_SHIFT = 16;
export const TN_RXS_SEGS_MASK = 0xff;
export const TN_RXS_ERR = 0x40000000; // the buffer could not be used: length 0, no frame
export const TN_RXS_DD = 0x80000000;

// Reasons why the device drops or delays something: indices into tnReasons
export const TN_REASON_BAD_REG = 0;
export const TN_REASON_DMA_FAULT = 1;
export const TN_REASON_TX_BAD = 2;
export const TN_REASON_RX_NODESC = 3;
export const TN_REASON_RX_BAD = 4;
export const TN_REASON_RX_RUNT = 5;
export const TN_REASON_BAD_RING = 6;
export const TN_REASON_RX_OVERSIZE = 7;
export const TN_REASON_RX_FILTER = 8;
export const TN_REASON_WIRE_FULL = 9;
export const TN_REASON_WIRE_ERROR = 10;
export const TN_REASON_LINK_DOWN = 11;
export const TN_REASON_CAPTURE_FULL = 12;
export const TN_REASON_COUNT = 13;

/** The machine's reasons, in the order of the device's numbers. */
export const tnReasons: readonly Reason[] = [
  R_DEV_BAD_REG,
  R_DEV_DMA_FAULT,
  R_DEV_TX_BAD,
  R_DEV_RX_NODESC,
  R_DEV_RX_BAD,
  R_DEV_RX_RUNT,
  R_DEV_BAD_RING,
  R_DEV_RX_OVERSIZE,
  R_DEV_RX_FILTER,
  R_DEV_WIRE_FULL,
  R_DEV_WIRE_ERROR,
  R_DEV_LINK_DOWN,
  R_CAPTURE_FULL,
];
