// The datasheet of the NIC `tn` in code: src/dev/tn/tnreg.ts for the addon, same names, same
// values. What the fields mean is in docs/tn-datasheet.md.
#pragma once

#include <stdint.h>

namespace tapnic::tn {

enum Register : uint32_t {
  TN_ID = 0x000,
  TN_CTRL = 0x004,
  TN_STATUS = 0x008,
  TN_FEATURES = 0x00c,
  TN_MACL = 0x010,
  TN_MACH = 0x014,
  TN_MAXFRM = 0x018,
  TN_LIMITS = 0x01c,
  TN_ICR = 0x020,
  TN_IMS = 0x024,
  TN_IMC = 0x028,
  TN_ICS = 0x02c,
  TN_ITR = 0x030,
  TN_MTA0 = 0x040,
  TN_MTA1 = 0x044,
  TN_TDBAL = 0x100,
  TN_TDBAH = 0x104,
  TN_TDLEN = 0x108,
  TN_TDH = 0x10c,
  TN_TDT = 0x110,
  TN_RDBAL = 0x180,
  TN_RDBAH = 0x184,
  TN_RDLEN = 0x188,
  TN_RDH = 0x18c,
  TN_RDT = 0x190,
  TN_RXBSZ = 0x194,
  TN_STATS = 0x200,
};

enum Stat : uint32_t {
  TN_ST_TX_FRAMES,
  TN_ST_TX_BYTES,
  TN_ST_TX_PACKETS,
  TN_ST_TX_TSO,
  TN_ST_TX_SEGMENTS,
  TN_ST_TX_BAD,
  TN_ST_TX_WIRE_FULL,
  TN_ST_TX_WIRE_ERROR,
  TN_ST_TX_NO_LINK,
  TN_ST_RX_FRAMES,
  TN_ST_RX_BYTES,
  TN_ST_RX_FILTERED,
  TN_ST_RX_OVERSIZE,
  TN_ST_RX_RUNT,
  TN_ST_RX_NODESC,
  TN_ST_RX_BAD,
  TN_ST_RX_IP_ERROR,
  TN_ST_RX_L4_ERROR,
  TN_ST_DMA_FAULTS,
  TN_ST_BAD_REG,
  TN_ST_INTERRUPTS,
  TN_ST_RX_LRO,
  TN_ST_RX_LRO_SEGMENTS,
  TN_NSTATS,
};

constexpr uint32_t TN_STATS_END = TN_STATS + 8 * TN_NSTATS;
constexpr uint32_t TN_ID_REV1 = 0x544e0001;

constexpr uint32_t TN_CTRL_RST = 0x1, TN_CTRL_TXE = 0x2, TN_CTRL_RXE = 0x4, TN_CTRL_PROMISC = 0x8,
                   TN_CTRL_ALLMULTI = 0x10, TN_CTRL_VLSTRIP = 0x20, TN_CTRL_RXCSUM = 0x40,
                   TN_CTRL_LRO = 0x80, TN_CTRL_MASK = 0xfe;

constexpr uint32_t TN_STATUS_LU = 0x1, TN_STATUS_VNET = 0x2, TN_STATUS_TXSTOP = 0x4,
                   TN_STATUS_RXSTOP = 0x8;

// IXSM, TXSM, TSO4, TSO6, VLAN, RXCSUM; ITR where there is a timer, LRO in mode `wire`.
constexpr uint32_t TN_FEAT_ALWAYS = 0x3f, TN_FEAT_ITR = 0x40, TN_FEAT_LRO = 0x80;

constexpr uint32_t TN_INT_TXDW = 0x1, TN_INT_RXDW = 0x2, TN_INT_LSC = 0x4, TN_INT_RXO = 0x8,
                   TN_INT_TXERR = 0x10, TN_INT_RXERR = 0x20, TN_INT_MASK = 0x3f;

constexpr uint32_t TN_DESC_SIZE = 16;
constexpr uint32_t TN_RING_ALIGN = 128;
constexpr uint32_t TN_NDESC_MAX = 4096;
constexpr uint32_t TN_TX_SEGS = 64;
constexpr uint32_t TN_HDR_MAX = 256;
constexpr uint32_t TN_FRAME_MAX = 9216;
constexpr uint32_t TN_FRAME_MIN = 60;
constexpr uint32_t TN_MSS_MIN = 64;
constexpr uint32_t TN_MAXFRM_MIN = 60;
constexpr uint32_t TN_MAXFRM_MAX = 65535 + 18;
constexpr uint32_t TN_ITR_MAX = 0xffff;
constexpr uint32_t TN_TX_BUDGET = 256;
constexpr uint32_t TN_RX_BUDGET = 128;

// Descriptor words.
constexpr uint32_t TN_D_ADDRL = 0, TN_D_ADDRH = 4, TN_D_LEN = 8, TN_D_STAT = 12;
constexpr uint32_t TN_C_MSS = 4, TN_C_TAG = 8;

constexpr uint32_t TN_TXD_EOP = 0x1, TN_TXD_RS = 0x2, TN_TXD_CTX = 0x4, TN_TXD_VLE = 0x8,
                   TN_TXD_IXSM = 0x10, TN_TXD_TXSM = 0x20, TN_TXD_TSE = 0x40, TN_TXD_V6 = 0x80,
                   TN_TXD_TCP = 0x100;
constexpr uint32_t TN_TXS_DD = 0x80000000, TN_TXS_ERR = 0x40000000;
constexpr uint32_t TN_RXS_EOP = 0x1, TN_RXS_VP = 0x2, TN_RXS_IPCS = 0x4, TN_RXS_L4CS = 0x8,
                   TN_RXS_IPE = 0x10, TN_RXS_L4E = 0x20, TN_RXS_ERR = 0x40000000,
                   TN_RXS_DD = 0x80000000;
constexpr uint32_t TN_RXS_SEGS_SHIFT = 16, TN_RXS_SEGS_MASK = 0xff;

}  // namespace tapnic::tn
