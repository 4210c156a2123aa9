// Registers, interrupts and link of the NIC `tn`. The datasheet describes the registers.
#include "tn_device.h"

#include "cksum.h"

namespace tapnic::tn {

namespace {
// TN_FEATURES without the bits that depend on timer and mode.
constexpr uint32_t kFeatures = TN_FEAT_IXSM | TN_FEAT_TXSM | TN_FEAT_TXSM6 | TN_FEAT_TSO4 |
                               TN_FEAT_TSO6 | TN_FEAT_VLAN | TN_FEAT_RXCSUM | TN_FEAT_RXCSUM6;
}  // namespace

void PieceSum::Add(const uint8_t* p, size_t len) { AddSum(CksumAdd(p, len, 0), len); }

void PieceSum::AddCopy(uint8_t* to, const uint8_t* p, size_t len) {
  AddSum(CksumCopy(to, p, len, 0), len);
}

void PieceSum::AddSum(uint32_t sum, size_t len) {
  sum_ += odd_ ? CksumSwapHalves(sum) : sum;
  odd_ ^= (len & 1) != 0;
}

Device::Device(const Config& config) : c_(config) {
  tx_.iov[0] = {tx_.vnetHdr, VNET_HDR_LEN};
  rx_.iov[0] = {rx_.vnetHdr, VNET_HDR_LEN};
  Reset();
  flags_ = 0;
}

uint32_t Device::Flags() {
  const uint32_t flags = flags_;
  flags_ = 0;
  return flags;
}

void Device::Count(uint32_t why) {
  reasons[why]++;
  flags_ |= TN_DO_REASONS;
}

// Only the last call before the device returns has an effect.
void Device::SetReadable(bool on) {
  flags_ &= ~(TN_DO_READ_ON | TN_DO_READ_OFF);
  flags_ |= on ? TN_DO_READ_ON : TN_DO_READ_OFF;
}

// Returns the address of `len` bytes of RAM at a bus address. Counts a DMA fault and returns null
// if they are not all in RAM. Page 0 is never used.
uint8_t* Device::Map(uint32_t lo, uint32_t hi, uint32_t len) {
  const uint64_t addr = uint64_t{hi} << 32 | lo;
  const uint64_t off = addr - c_.ramBase;
  if (addr >= c_.ramBase && off >= 4096 && off <= c_.ramBytes && len <= c_.ramBytes - off)
    return c_.mem + off;
  stats[TN_ST_DMA_FAULTS]++;
  Count(TN_REASON_DMA_FAULT);
  return nullptr;
}

void Device::SetModes(uint32_t ctrl) {
  promisc_ = (ctrl & TN_CTRL_PROMISC) != 0;
  allmulti_ = (ctrl & TN_CTRL_ALLMULTI) != 0;
  vlStrip_ = (ctrl & TN_CTRL_VLSTRIP) != 0;
  rxCsum4_ = (ctrl & TN_CTRL_RXCSUM) != 0;
  rxCsum6_ = (ctrl & TN_CTRL_RXCSUM6) != 0;
  // Without a verdict no frame can be coalesced.
  lro_ = (ctrl & TN_CTRL_LRO) != 0 && !c_.vnet;
}

void Device::Cause(uint32_t bits) {
  icr_ |= bits & TN_INT_MASK;
  if ((bits & ims_) != 0) UpdateLine();
}

void Device::SetLink(bool up) {
  if (linkUp_ == up) return;
  linkUp_ = up;
  Cause(TN_INT_LSC);
}

// Updates the interrupt line: raises it, also repeatedly, while an unmasked cause is set.
void Device::UpdateLine() {
  if ((icr_ & ims_) == 0) {
    asserted_ = false;
    return;
  }
  if (itr_ > 0 && c_.hasTimer) {
    const int64_t dueNs = lastIntrNs_ + int64_t{itr_} * 1000;
    if (everRaised_ && nowNs < dueNs) {
      if (timerArmed_) return;
      timerArmed_ = true;
      timerNs = dueNs;
      flags_ |= TN_DO_TIMER;
      return;
    }
    everRaised_ = true;
    lastIntrNs_ = nowNs;
  }
  if (!asserted_) stats[TN_ST_INTERRUPTS]++;
  asserted_ = true;
  flags_ |= TN_DO_INTR;
}

void Device::Stop(Ring* ring, uint32_t cause) {
  ring->stopped = true;
  Count(TN_REASON_BAD_RING);
  Cause(cause);
}

uint32_t Device::OnEvent(uint32_t event) {
  switch (event) {
    case TN_EV_READABLE:
      RxDrain();
      break;
    case TN_EV_WRITABLE:
      TxWritable();
      break;
    case TN_EV_LINK_UP:
      SetLink(true);
      RxWireBack();
      break;
    case TN_EV_LINK_DOWN:
      SetLink(false);
      // Drop the packets that wait for room on the wire, so that the driver gets their buffers
      // back.
      TxWritable();
      break;
    case TN_EV_TX:
      tx_.posted = false;
      TxConsume();
      break;
    case TN_EV_RX:
      rx_.posted = false;
      RxDrain();
      break;
    case TN_EV_TIMER:
      timerArmed_ = false;
      UpdateLine();
      break;
    case TN_EV_RESET:
      Reset();
      break;
    default:
      break;
  }
  return Flags();
}

uint32_t Device::ReadStatus() const {
  return (linkUp_ ? TN_STATUS_LU : 0) | (c_.vnet ? TN_STATUS_VNET : 0) |
         (tx_.stopped ? TN_STATUS_TXSTOP : 0) | (rx_.stopped ? TN_STATUS_RXSTOP : 0);
}

uint32_t Device::Read(uint32_t off) {
  if (off >= TN_STATS && off < TN_STATS_END && off % 4 == 0) return ReadStat(off);
  const uint8_t* mac = rx_.mac;
  switch (off) {
    case TN_ID:
      return TN_ID_REV1;
    case TN_CTRL:
      return ctrl_;
    case TN_STATUS:
      return ReadStatus();
    case TN_FEATURES:
      return kFeatures | (c_.hasTimer ? TN_FEAT_ITR : 0) | (c_.vnet ? 0 : TN_FEAT_LRO);
    case TN_MACL:
      return Le16(mac + 2) << 16 | Le16(mac);
    case TN_MACH:
      return Le16(mac + 4);
    case TN_MAXFRM:
      return rx_.frameMax;
    case TN_LIMITS:
      return TN_FRAME_MAX << 16 | TN_TX_SEGS;
    case TN_ICR:
      return icr_;
    case TN_IMS:
      return ims_;
    case TN_ITR:
      return itr_;
    case TN_MTA0:
    case TN_MTA1:
      return rx_.mta[(off - TN_MTA0) / 4];
    default:
      return ReadRing(off);
  }
}

uint32_t Device::ReadRing(uint32_t off) {
  const bool isTx = off < TN_RDBAL;
  const Ring& ring = isTx ? static_cast<const Ring&>(tx_) : rx_;
  switch (off) {
    case TN_TDBAL:
    case TN_RDBAL:
      return ring.baseLo;
    case TN_TDBAH:
    case TN_RDBAH:
      return ring.baseHi;
    case TN_TDLEN:
    case TN_RDLEN:
      return ring.len;
    case TN_TDH:
    case TN_RDH:
      return ring.head;
    case TN_TDT:
    case TN_RDT:
      return ring.tail;
    case TN_RXBSZ:
      return rx_.bufSize;
    default:
      stats[TN_ST_BAD_REG]++;
      reasons[TN_REASON_BAD_REG]++;
      return 0xffffffff;
  }
}

uint32_t Device::ReadStat(uint32_t off) {
  if (off % 8 != 0) return statHigh_;
  const auto n = static_cast<uint64_t>(stats[(off - TN_STATS) / 8]);
  statHigh_ = static_cast<uint32_t>(n >> 32);
  return static_cast<uint32_t>(n);
}

uint32_t Device::Write(uint32_t off, uint32_t value) {
  if (!WriteReg(off, value)) {
    stats[TN_ST_BAD_REG]++;
    Count(TN_REASON_BAD_REG);
  }
  return Flags();
}

// Writes one register. Returns false if it does not exist or cannot take the value now.
bool Device::WriteReg(uint32_t off, uint32_t value) {
  switch (off) {
    case TN_TDT:
      if (!TxSetTail(value)) return false;
      TxConsume();
      RxDrain();
      return true;
    case TN_RDT:
      return RxSetTail(value);
    case TN_ICR:
      icr_ &= ~value;
      UpdateLine();
      return true;
    case TN_ICS:
      Cause(value);
      return true;
    case TN_IMS:
      ims_ |= value & TN_INT_MASK;
      UpdateLine();
      return true;
    case TN_IMC:
      ims_ &= ~value;
      UpdateLine();
      return true;
    case TN_ITR:
      if (value > (c_.hasTimer ? TN_ITR_MAX : 0)) return false;
      itr_ = value;
      return true;
    case TN_CTRL:
      return WriteCtrl(value);
    case TN_MACL:
    case TN_MACH:
      WriteMac(off, value);
      return true;
    case TN_MTA0:
    case TN_MTA1:
      rx_.mta[(off - TN_MTA0) / 4] = value;
      return true;
    case TN_MAXFRM:
      if (value < TN_MAXFRM_MIN || value > (c_.vnet ? TN_MAXFRM_MAX : TN_FRAME_MAX)) return false;
      rx_.frameMax = value;
      return true;
    default:
      return WriteRing(off, value);
  }
}

void Device::WriteMac(uint32_t off, uint32_t value) {
  const int first = off == TN_MACH ? 4 : 0, end = off == TN_MACH ? 6 : 4;
  for (int i = first; i < end; i++) rx_.mac[i] = static_cast<uint8_t>(value >> (8 * (i - first)));
}

// Writes a ring register. Returns false if the engine is enabled or the value is invalid.
bool Device::WriteRing(uint32_t off, uint32_t value) {
  Ring& ring = off < TN_RDBAL ? static_cast<Ring&>(tx_) : rx_;
  if (ring.enabled) return false;
  switch (off) {
    case TN_TDBAL:
    case TN_RDBAL:
      ring.baseLo = value;
      return true;
    case TN_TDBAH:
    case TN_RDBAH:
      ring.baseHi = value;
      return true;
    case TN_TDLEN:
    case TN_RDLEN:
      ring.len = value;
      return true;
    case TN_RXBSZ:
      if (value < TN_RXBSZ_MIN || value > TN_RXBSZ_MAX || (value & (value - 1)) != 0) return false;
      rx_.bufSize = value;
      return true;
    default:
      return false;
  }
}

bool Device::WriteCtrl(uint32_t value) {
  if ((value & TN_CTRL_RST) != 0) {
    Reset();
    return true;
  }
  const uint32_t next = value & TN_CTRL_MASK;
  const uint32_t changed = next ^ ctrl_;
  ctrl_ = next;
  SetModes(next);
  if ((changed & TN_CTRL_TXE) != 0) {
    if ((next & TN_CTRL_TXE) != 0)
      TxEnable();
    else
      TxDisable();
  }
  if ((changed & TN_CTRL_RXE) != 0) {
    if ((next & TN_CTRL_RXE) != 0)
      RxEnable();
    else
      RxDisable();
  }
  return (value & ~TN_CTRL_MASK) == 0;
}

// Resets everything except the statistics.
void Device::Reset() {
  TxDisable();
  RxDisable();
  Ring* const rings[] = {&tx_, &rx_};
  for (Ring* ring : rings) {
    ring->baseLo = ring->baseHi = ring->len = 0;
    ring->stopped = false;
  }
  rx_.bufSize = TN_RXBSZ_MIN;
  rx_.frameMax = TN_MAXFRM_RESET;
  memcpy(rx_.mac, c_.mac, sizeof rx_.mac);
  rx_.mta[0] = rx_.mta[1] = 0;
  ctrl_ = 0;
  SetModes(0);
  itr_ = ims_ = icr_ = 0;
  UpdateLine();
}

}  // namespace tapnic::tn
