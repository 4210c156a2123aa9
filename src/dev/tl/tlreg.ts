/**
 * The datasheet of the NIC `tl` in code: registers, transmit blocks, receive descriptors, limits.
 * The prose is docs/tl-datasheet.md. All registers are 32 bits wide, memory structures
 * little-endian. Prefix TL_, as a FreeBSD if_tlreg.h would have it.
 */

/** Bytes of register space. */
export const TL_REG_SIZE = 0x100;

// General
export const TL_ID = 0x00; // RO
export const TL_CTRL = 0x04;
export const TL_STATUS = 0x08; // RO
export const TL_INTR = 0x0c; // causes; write 1 to clear
export const TL_INTEN = 0x10; // which causes raise the line
export const TL_INTSET = 0x14; // write 1 to set causes
export const TL_ADDR0 = 0x18; // bytes 0 to 3 of the address, byte 0 in bits 7:0
export const TL_ADDR1 = 0x1c; // bytes 4 and 5

// Transmit ring of blocks
export const TL_TXBASE = 0x20;
export const TL_TXSIZE = 0x24; // blocks, a power of two
export const TL_TXPUT = 0x28; // block after the last one filled; the doorbell
export const TL_TXGET = 0x2c; // RO: next block of the device; earlier ones are the driver's

// Receive ring of descriptors, in the same way
export const TL_RXBASE = 0x30;
export const TL_RXSIZE = 0x34;
export const TL_RXPUT = 0x38;
export const TL_RXGET = 0x3c;

// Statistics: 32-bit counters that wrap, number n at TL_STATS + 4 * n. Only power-on clears them.
export const TL_STATS = 0x40;
export const TL_ST_TX_FRAMES = 0;
export const TL_ST_TX_BYTES = 1;
export const TL_ST_TX_BAD = 2;
export const TL_ST_TX_WIRE_FULL = 3;
export const TL_ST_TX_WIRE_ERROR = 4;
export const TL_ST_TX_NO_LINK = 5;
export const TL_ST_RX_FRAMES = 6;
export const TL_ST_RX_BYTES = 7;
export const TL_ST_RX_FILTERED = 8;
export const TL_ST_RX_OVERSIZE = 9;
export const TL_ST_RX_RUNT = 10;
export const TL_ST_RX_NODESC = 11;
export const TL_ST_RX_BAD = 12;
export const TL_ST_RX_IP_ERROR = 13;
export const TL_ST_RX_L4_ERROR = 14;
export const TL_ST_DMA_FAULTS = 15;
export const TL_ST_BAD_REG = 16;
export const TL_ST_INTERRUPTS = 17;
/** Number of statistics. */
export const TL_NSTATS = 18;

/** Names of the statistics, in the order of their numbers. */
export const tlStatNames = [
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
  'rx_ip_error',
  'rx_l4_error',
  'dma_faults',
  'bad_reg',
  'interrupts',
] as const;

/** TL_ID of revision 1: "TL" and the revision. */
export const TL_ID_REV1 = 0x544c0001;

// TL_CTRL
export const TL_CTRL_RST = 0x1; // resets the device; reads as 0
export const TL_CTRL_TXE = 0x2; // transmit enable: 0 to 1 starts the ring at block 0
export const TL_CTRL_RXE = 0x4; // receive enable, in the same way
export const TL_CTRL_PROMISC = 0x8;
export const TL_CTRL_MULTI = 0x10; // accept every multicast frame
export const TL_CTRL_RXSUM = 0x20; // verify received checksums
export const TL_CTRL_MASK = 0x3e;

// TL_STATUS
export const TL_STATUS_LINK = 0x1;
export const TL_STATUS_TXHALT = 0x2; // the transmit engine stopped: its ring cannot be used
export const TL_STATUS_RXHALT = 0x4; // the receive engine stopped: its ring cannot be used

// Causes: TL_INTR, TL_INTEN, TL_INTSET
export const TL_INT_TX = 0x1; // TL_TXGET moved over a block with INT
export const TL_INT_RX = 0x2; // TL_RXGET moved
export const TL_INT_LINK = 0x4; // link status changed
export const TL_INT_RXEMPTY = 0x8; // stopped reading the wire: no receive descriptor
export const TL_INT_TXERR = 0x10; // a block or the ring was bad
export const TL_INT_RXERR = 0x20; // a receive descriptor or the ring was bad
export const TL_INT_MASK = 0x3f;

// Limits
/** Ring base alignment. */
export const TL_RING_ALIGN = 64;
export const TL_RING_MIN = 8;
export const TL_RING_MAX = 256;
/** Maximum number of fragments of a frame, and maximum bytes of one: the size of the bus FIFO. */
export const TL_FRAGS = 4;
export const TL_FRAG_MAX = 512;
/**
 * The address counter has 16 bits: fragments and receive buffers must not cross a multiple of this.
 */
export const TL_BOUNDARY = 0x10000;
/** Bytes of a receive buffer. */
export const TL_RXBUF_SIZE = 2048;
/**
 * Longest frame without FCS, in both directions: an MTU of 1500, an Ethernet header, a VLAN tag.
 */
export const TL_FRAME_MAX = 1518;
/** Shortest frame on a wire without FCS; shorter ones are padded. */
export const TL_FRAME_MIN = 60;
/**
 * Maximum number of frames that one doorbell sends, and that one drain receives. The rest waits for
 * the next turn of the loop.
 */
export const TL_TX_BUDGET = 128;
export const TL_RX_BUDGET = 64;
/** Bytes of on-board memory the device needs: the transmit FIFO. */
export const TL_SRAM_SIZE = 2048;

// Transmit block: byte offsets of its words. Fragment i: address at TL_B_FRAG + 8 * i, length at + 4.
export const TL_BLOCK_SIZE = 64;
export const TL_B_CMD = 0; // fragments in 2:0, TL_CMD_*; the device overwrites it with the status
export const TL_B_SUM = 4; // offset of the first summed byte in 15:0, of the field in 31:16
export const TL_B_TAG = 8; // the driver's packet id, for captures only
export const TL_B_FRAG = 16;
export const TL_CMD_NFRAGS = 0x7;
export const TL_CMD_SUM = 0x10; // insert a checksum as TL_B_SUM says
export const TL_CMD_UDP = 0x20; // UDP: send a checksum of 0 as 0xffff
export const TL_CMD_INT = 0x40; // set cause TX when this block is done
export const TL_CMD_ERR = 0x40000000; // status: the block was bad and was dropped
export const TL_CMD_DONE = 0x80000000; // status: the device has finished the block

// Receive descriptor: byte offsets of its words
export const TL_RXD_SIZE = 16;
export const TL_R_ADDR = 0;
export const TL_R_LEN = 4; // written by the device
export const TL_R_STATUS = 8; // written by the device
export const TL_R_ID = 12; // the frame's id, for captures only; 0: none; written by the device
export const TL_RXS_IP4 = 0x1; // IPv4, and its header checksum was verified
export const TL_RXS_IPBAD = 0x2; // the IPv4 header checksum is wrong
export const TL_RXS_L4 = 0x4; // the TCP or UDP checksum was verified
export const TL_RXS_L4BAD = 0x8; // the TCP or UDP checksum is wrong
export const TL_RXS_ERR = 0x40000000; // the buffer could not be used: no frame
export const TL_RXS_DONE = 0x80000000;
