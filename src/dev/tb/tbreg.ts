/**
 * The datasheet of the NIC `tb` in code: registers, descriptors, limits. The prose is
 * docs/tb-datasheet.md. All registers are 32 bits wide, all descriptors little-endian and 16 bytes
 * long. Prefix TB_, as a FreeBSD if_tbreg.h would have it.
 */

/** Bytes of register space. */
export const TB_REG_SIZE = 0x200;

// General
export const TB_ID = 0x00; // RO
export const TB_CMD = 0x04;
export const TB_RXCFG = 0x08;
export const TB_STATUS = 0x0c; // RO
export const TB_ISR = 0x10; // causes; write 1 to clear
export const TB_IMR = 0x14; // which causes raise the line
export const TB_ISET = 0x18; // write 1 to set causes
export const TB_MAC0 = 0x20; // bytes 0 to 3 of the address, byte 0 in bits 7:0
export const TB_MAC1 = 0x24; // bytes 4 and 5
export const TB_HASH0 = 0x28; // multicast hash, bits 0 to 31
export const TB_HASH1 = 0x2c; // multicast hash, bits 32 to 63
export const TB_MAXFRM = 0x30; // longest frame received, without FCS; a VLAN tag counts

// Transmit ring
export const TB_TXBASEL = 0x40;
export const TB_TXBASEH = 0x44;
export const TB_TXCNT = 0x48; // descriptors
export const TB_TXKICK = 0x4c; // any write: the device reads the ring
export const TB_TXPOS = 0x50; // RO: descriptor that the device reads next

// Receive ring, in the same way
export const TB_RXBASEL = 0x60;
export const TB_RXBASEH = 0x64;
export const TB_RXCNT = 0x68;
export const TB_RXKICK = 0x6c;
export const TB_RXPOS = 0x70;

// Statistics: 32-bit counters that wrap, number n at TB_STATS + 4 * n. Only power-on clears them.
export const TB_STATS = 0x100;
export const TB_ST_TX_FRAMES = 0;
export const TB_ST_TX_BYTES = 1;
export const TB_ST_TX_BAD = 2;
export const TB_ST_TX_WIRE_FULL = 3;
export const TB_ST_TX_WIRE_ERROR = 4;
export const TB_ST_TX_NO_LINK = 5;
export const TB_ST_RX_FRAMES = 6;
export const TB_ST_RX_BYTES = 7;
export const TB_ST_RX_FILTERED = 8;
export const TB_ST_RX_OVERSIZE = 9;
export const TB_ST_RX_RUNT = 10;
export const TB_ST_RX_NODESC = 11;
export const TB_ST_RX_BAD = 12;
export const TB_ST_DMA_FAULTS = 13;
export const TB_ST_BAD_REG = 14;
export const TB_ST_INTERRUPTS = 15;
/** Number of statistics. */
export const TB_NSTATS = 16;

/** Names of the statistics, in the order of their numbers. */
export const tbStatNames = [
  'tx_frames',
  'tx_bytes',
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
  'dma_faults',
  'bad_reg',
  'interrupts',
] as const;

/** TB_ID of revision 1: "TB" and the revision. */
export const TB_ID_REV1 = 0x54420001;

// TB_CMD
export const TB_CMD_RST = 0x1; // resets the device; reads as 0
export const TB_CMD_TXE = 0x2; // transmit enable: 0 to 1 starts the ring at descriptor 0
export const TB_CMD_RXE = 0x4; // receive enable, in the same way
export const TB_CMD_MASK = 0x6;

// TB_RXCFG
export const TB_RXCFG_PROMISC = 0x1;
export const TB_RXCFG_ALLMULTI = 0x2;
export const TB_RXCFG_MASK = 0x3;

// TB_STATUS
export const TB_STATUS_LINK = 0x1;
export const TB_STATUS_TXSTOP = 0x2; // the transmit engine stopped: its ring cannot be used
export const TB_STATUS_RXSTOP = 0x4; // the receive engine stopped: its ring cannot be used

// Causes: TB_ISR, TB_IMR, TB_ISET
export const TB_INT_TX = 0x1; // a descriptor with INT was returned
export const TB_INT_RX = 0x2; // frames were received
export const TB_INT_LINK = 0x4; // link status changed
export const TB_INT_RXEMPTY = 0x8; // stopped reading the wire: too few receive descriptors
export const TB_INT_TXERR = 0x10; // a transmit descriptor or the ring was bad
export const TB_INT_RXERR = 0x20; // a receive descriptor or the ring was bad
export const TB_INT_MASK = 0x3f;

// Limits
export const TB_DESC_SIZE = 16;
/** Ring base alignment. */
export const TB_RING_ALIGN = 256;
export const TB_NDESC_MIN = 8;
export const TB_NDESC_MAX = 1024;
/** Maximum number of descriptors of one packet. */
export const TB_TX_SEGS = 32;
/** Bytes of a descriptor's buffer: transmit maximum, receive minimum and maximum. */
export const TB_TX_SEGSIZE_MAX = 16383;
export const TB_RXBUF_MIN = 1024;
export const TB_RXBUF_MAX = 16383;
/**
 * Longest frame without FCS, in both directions: an MTU of 9000, an Ethernet header, a VLAN tag.
 */
export const TB_FRAME_MAX = 9018;
/** Shortest frame on a wire without FCS; shorter ones are padded. */
export const TB_FRAME_MIN = 60;
/**
 * Maximum number of frames that one doorbell sends, and that one drain receives. The rest waits for
 * the next turn of the loop.
 */
export const TB_TX_BUDGET = 256;
export const TB_RX_BUDGET = 128;
/** Bytes of on-board memory the device needs. */
export const TB_SRAM_SIZE = 64;

// Descriptors: byte offsets of their words
export const TB_D_ADDRL = 0;
export const TB_D_ADDRH = 4;
export const TB_D_LEN = 8; // 13:0: bytes to send, or bytes of the receive buffer
export const TB_D_CTL = 12;

// TB_D_CTL
export const TB_CTL_OWN = 0x80000000; // device owns it; the device clears the bit to return it
export const TB_CTL_ERR = 0x40000000; // the descriptor was bad and was dropped
export const TB_CTL_EOP = 0x1; // last descriptor of packet or frame
export const TB_CTL_INT = 0x2; // transmit: set cause TX when this descriptor is returned
