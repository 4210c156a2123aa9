/**
 * The datasheet of the NIC `tp` in code: registers, packet memory, limits. The prose is
 * docs/tp-datasheet.md. All registers are 32 bits wide; packet memory is little-endian and is
 * reached through TP_DATA alone. Prefix TP_, as a FreeBSD if_tpreg.h would have it.
 */

/** Bytes of register space. */
export const TP_REG_SIZE = 0x100;

export const TP_ID = 0x00; // RO
export const TP_CR = 0x04; // commands
export const TP_STATUS = 0x08; // RO
export const TP_ISR = 0x0c; // causes; write 1 to clear
export const TP_IMR = 0x10; // causes that raise the line
export const TP_RCR = 0x14; // which frames are received
// The receive ring, in page numbers
export const TP_PSTART = 0x18; // first page
export const TP_PSTOP = 0x1c; // page after the last one
export const TP_BNRY = 0x20; // first page of the oldest frame that the driver has not read
export const TP_CURR = 0x24; // page where the next frame is stored; read-only while started
// Transmit
export const TP_TPSR = 0x28; // first page of the frame
export const TP_TBCR = 0x2c; // bytes of the frame, without FCS
export const TP_TSR = 0x30; // RO: how the last transmission ended
// The data port
export const TP_RSAR = 0x34; // byte address of the next transfer
export const TP_RBCR = 0x38; // bytes of the next transfer
export const TP_DATA = 0x3c; // the next four bytes of the transfer
// Addresses
export const TP_MACL = 0x40; // bytes 0 to 3, byte 0 in bits 7:0
export const TP_MACH = 0x44; // bytes 4 and 5
export const TP_MTA0 = 0x48; // multicast hash: bit h of the 64 accepts addresses whose hash is h
export const TP_MTA1 = 0x4c;
export const TP_LIMITS = 0x50; // RO: longest frame in 31:16, pages of packet memory in 15:0

// Statistics: 32-bit counters modulo 2^32 at TP_STATS + 4 * n. Only power-on clears them.
export const TP_STATS = 0x80;
export const TP_ST_TX_FRAMES = 0;
export const TP_ST_TX_BYTES = 1;
export const TP_ST_TX_BAD = 2;
export const TP_ST_TX_WIRE_FULL = 3;
export const TP_ST_TX_WIRE_ERROR = 4;
export const TP_ST_TX_NO_LINK = 5;
export const TP_ST_RX_FRAMES = 6;
export const TP_ST_RX_BYTES = 7;
export const TP_ST_RX_FILTERED = 8;
export const TP_ST_RX_OVERSIZE = 9;
export const TP_ST_RX_RUNT = 10;
export const TP_ST_RX_OVERFLOWS = 11;
export const TP_ST_RX_MISSED = 12;
export const TP_ST_PIO_READ = 13;
export const TP_ST_PIO_WRITTEN = 14;
export const TP_ST_BAD_PIO = 15;
export const TP_ST_BAD_REG = 16;
export const TP_ST_INTERRUPTS = 17;
/** Number of statistics. */
export const TP_NSTATS = 18;

/** Names of the statistics, in the order of their numbers. */
export const tpStatNames = [
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
  'rx_overflows',
  'rx_missed',
  'pio_read',
  'pio_written',
  'bad_pio',
  'bad_reg',
  'interrupts',
] as const;

/** TP_ID of revision 1: "TP" and the revision. */
export const TP_ID_REV1 = 0x54500001;

// TP_CR: commands; a read returns those in effect
export const TP_CR_STP = 0x01; // stop receiving
export const TP_CR_STA = 0x02; // start receiving
export const TP_CR_TXP = 0x04; // transmit; reads as 1 until the frame was sent
export const TP_CR_RRD = 0x08; // begin a transfer out of packet memory; 1 until it is complete
export const TP_CR_RWR = 0x10; // begin a transfer into packet memory; 1 until it is complete
export const TP_CR_ABT = 0x20; // abort the current transfer; reads as 0
export const TP_CR_RST = 0x80; // reset; reads as 0
export const TP_CR_MASK = 0xbf;

// TP_STATUS
export const TP_STATUS_LU = 0x1; // link up
export const TP_STATUS_RUN = 0x2; // receiving
export const TP_STATUS_TXB = 0x4; // a frame waits for the wire
export const TP_STATUS_OVF = 0x8; // the ring overflowed: frames are lost until stopped and started

// Causes: TP_ISR, TP_IMR
export const TP_INT_PRX = 0x01; // frames received
export const TP_INT_PTX = 0x02; // frame sent
export const TP_INT_TXE = 0x04; // frame not sent: TP_TSR has the reason
export const TP_INT_OVW = 0x08; // the ring overflowed
export const TP_INT_RDC = 0x10; // transfer complete
export const TP_INT_LSC = 0x20; // link status changed
export const TP_INT_MASK = 0x3f;

// TP_TSR
export const TP_TSR_PTX = 0x1; // sent
export const TP_TSR_BAD = 0x2; // TP_TPSR and TP_TBCR do not describe a valid frame
export const TP_TSR_CRS = 0x4; // no link
export const TP_TSR_ERR = 0x8; // the wire refused the frame

// TP_RCR
export const TP_RCR_AB = 0x1; // broadcasts
export const TP_RCR_AM = 0x2; // group addresses that the hash accepts
export const TP_RCR_ALLMULTI = 0x4; // all group addresses
export const TP_RCR_PRO = 0x8; // everything
export const TP_RCR_MASK = 0xf;

// Packet memory
export const TP_PAGE_SIZE = 256;
export const TP_NPAGES = 128;
export const TP_MEM_SIZE = TP_PAGE_SIZE * TP_NPAGES;
/** Bytes of the header before a received frame: status, next page, length in 31:16. */
export const TP_RXHDR_SIZE = 4;
export const TP_RXHDR_NEXT_SHIFT = 8;
export const TP_RXHDR_LEN_SHIFT = 16;
export const TP_RXS_OK = 0x1;
export const TP_RXS_GROUP = 0x2; // to a group address

// Limits
/** Shortest and longest frame without FCS; shorter ones are padded. */
export const TP_FRAME_MIN = 60;
export const TP_FRAME_MAX = 1518;
/** Minimum length of a frame: an Ethernet header. */
export const TP_FRAME_RUNT = 14;
/** Pages of the smallest ring: those of the longest frame, and one that stays free. */
export const TP_RING_MIN = 7;
/** Maximum number of frames received in one turn of the loop. */
export const TP_RX_BUDGET = 8;
/** Bytes of on-board memory the device needs: packet memory, receive FIFO, padding. */
export const TP_SRAM_SIZE = TP_MEM_SIZE + 4096;
