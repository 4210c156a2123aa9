// The receive engine of `tn`: one scatter read per frame directly into the buffers that the driver
// posted, then address filter, checksum verification, VLAN stripping and write-back. It reads the
// wire only while enough buffers for the longest frame are posted, so frames wait on the wire, and
// are not lost, while the driver is slow.
#include <errno.h>

#include "tn_device.h"
#include "tn_wire.h"

namespace tapnic::tn {

namespace {

// The upper six bits of the address's big-endian CRC-32: its bit number in the filter.
uint32_t HashOf(const uint8_t* addr) {
  uint32_t crc = 0xffffffff;
  for (int i = 0; i < 6; i++) {
    uint32_t byte = addr[i];
    for (int bit = 0; bit < 8; bit++, byte >>= 1) {
      const uint32_t carry = (crc >> 31) ^ (byte & 1);
      crc <<= 1;
      if (carry != 0) crc ^= 0x04c11db7;
    }
  }
  return crc >> 26;
}

}  // namespace

// Handles the setting of TN_CTRL.RXE: starts at slot 0 of the ring in the registers.
void Device::RxEnable() {
  RxDisable();
  rx_.enabled = true;
  rx_.stopped = false;
  rx_.ndesc = rx_.len / TN_DESC_SIZE;
  if (!rx_.Fits()) {
    SetReadable(false);
    Stop(&rx_, TN_INT_RXERR);
    return;
  }
  // No buffers are posted yet: the first write of TN_RDT starts reception.
  rx_.stalled = true;
}

// Handles the clearing of RXE, and a reset.
void Device::RxDisable() {
  if (rx_.enabled) SetReadable(false);
  rx_.enabled = false;
  rx_.head = rx_.tail = 0;
  rx_.stalled = false;
}

bool Device::RxSetTail(uint32_t slot) {
  if (!rx_.enabled || !rx_.HasSlot(slot)) return false;
  rx_.tail = slot;
  if (rx_.stalled && !rx_.stopped && rx_.Avail() >= rx_.Needed()) {
    rx_.stalled = false;
    SetReadable(true);
    RxDrain();
  }
  return true;
}

// Receives waiting frames: at most TN_RX_BUDGET now, the rest on later turns of the loop.
void Device::RxDrain() {
  if (!rx_.enabled || rx_.stopped || rx_.stalled) return;
  uint8_t* ring = Map(rx_.baseLo, rx_.baseHi, rx_.len);
  if (ring == nullptr) {
    SetReadable(false);
    Stop(&rx_, TN_INT_RXERR);
    return;
  }
  rx_.causes = 0;
  uint32_t budget = TN_RX_BUDGET;
  for (; budget > 0; budget--) {
    if (rx_.Avail() < rx_.lro.nbufs + rx_.Needed()) {
      RxStall();
      break;
    }
    if (!RxGather(ring)) continue;
    const long n = RxRead();
    if (n < 0) {
      if (n != -EAGAIN) RxWireGone();
      break;
    }
    const long hdr = c_.vnet ? VNET_HDR_LEN : 0;
    RxReceive(ring, n > hdr ? static_cast<uint32_t>(n - hdr) : 0);
  }
  RxFlush(ring);
  if (budget == 0 && !rx_.posted) {
    rx_.posted = true;
    flags_ |= TN_DO_POST_RX;
  }
  if (rx_.causes != 0) Cause(rx_.causes);
}

// Reads one frame into the listed buffers. Returns its length, or -errno.
long Device::RxRead() {
  const iovec* iov = c_.vnet ? rx_.iov : rx_.Bufs();
  const int iovcnt = static_cast<int>(rx_.nbufs) + (c_.vnet ? 1 : 0);
  return c_.source != nullptr ? c_.source->Readv(iov, iovcnt) : WireReadv(c_.fd, iov, iovcnt);
}

void Device::RxWireBack() {
  if (rx_.enabled && !rx_.stopped && !rx_.stalled) SetReadable(true);
}

// Handles a read error: stops polling the wire, because the loop would report it as readable again
// and again.
void Device::RxWireGone() {
  Count(TN_REASON_WIRE_ERROR);
  SetReadable(false);
  SetLink(false);
}

void Device::RxStall() {
  rx_.stalled = true;
  SetReadable(false);
  stats[TN_ST_RX_NODESC]++;
  Count(TN_REASON_RX_NODESC);
  rx_.causes |= TN_INT_RXO;
}

// Lists the buffers for one frame, after those of a frame being coalesced. Returns false if one
// cannot be used; it and those before it are then written back with an error, because descriptors
// are consumed in order.
bool Device::RxGather(uint8_t* ring) {
  const uint32_t n = rx_.Needed();
  uint32_t slot = rx_.head + rx_.lro.nbufs;
  if (slot >= rx_.ndesc) slot -= rx_.ndesc;
  for (uint32_t i = 0; i < n; i++, slot = rx_.Next(slot)) {
    const uint8_t* desc = ring + slot * TN_DESC_SIZE;
    uint8_t* buf = Map(LoadLe32(desc + TN_D_ADDRL), LoadLe32(desc + TN_D_ADDRH), rx_.bufSize);
    if (buf == nullptr) {
      stats[TN_ST_RX_BAD]++;
      Count(TN_REASON_RX_BAD);
      RxFlush(ring);
      for (uint32_t k = 0; k <= i; k++) RxWriteBack(ring, 0, TN_RXS_ERR);
      rx_.causes |= TN_INT_RXERR;
      return false;
    }
    rx_.Bufs()[i] = {buf, rx_.bufSize};
  }
  rx_.nbufs = n;
  return true;
}

void Device::RxWriteBack(uint8_t* ring, uint32_t len, uint32_t status) {
  uint8_t* desc = ring + rx_.head * TN_DESC_SIZE;
  const uint32_t tag = (status & TN_RXS_VP) != 0 ? rx_.vtag : 0;
  StoreLe32(desc + TN_D_LEN, tag << 16 | len);
  StoreLe32(desc + TN_D_STAT, TN_RXS_DD | status);
  rx_.head = rx_.Next(rx_.head);
  rx_.causes |= TN_INT_RXDW;
}

// Filters and verifies a frame of `len` bytes in the listed buffers and hands it to the driver.
void Device::RxReceive(uint8_t* ring, uint32_t len) {
  if (rx_.lro.nbufs > 0 && RxMergeNext(ring, len)) return;
  if (len < ETHER_HDR_LEN) {
    stats[TN_ST_RX_RUNT]++;
    Count(TN_REASON_RX_RUNT);
    return;
  }
  if (len > rx_.frameMax) {
    stats[TN_ST_RX_OVERSIZE]++;
    Count(TN_REASON_RX_OVERSIZE);
    return;
  }
  if (CaptureWants()) Capture(CAPTURE_IN, 0, rx_.Bufs(), rx_.nbufs, len);
  const uint8_t* frame = rx_.Buf(0);
  if (!RxAccepts(frame)) {
    stats[TN_ST_RX_FILTERED]++;
    Count(TN_REASON_RX_FILTER);
    return;
  }
  uint32_t status = RxVerdict(len);
  if (c_.vnet && (status & TN_RXS_L4CS) == 0) RxFinishCsum(len);
  if (lro_ && RxCoalesce(ring, len, status)) return;
  if (c_.vnet) status |= RxSegments(len) << TN_RXS_SEGS_SHIFT;
  if (vlStrip_ && len >= ETHER_HDR_LEN + 4 && Be16(frame + 12) == ETHERTYPE_VLAN) {
    status |= TN_RXS_VP;
    RxStrip(len);
    len -= 4;
  }
  RxDeliver(ring, len, status);
}

void Device::RxDeliver(uint8_t* ring, uint32_t len, uint32_t status) {
  stats[TN_ST_RX_FRAMES]++;
  stats[TN_ST_RX_BYTES] += len;
  for (; len > rx_.bufSize; len -= rx_.bufSize) RxWriteBack(ring, rx_.bufSize, 0);
  RxWriteBack(ring, len, status | TN_RXS_EOP);
}

// Whether the frame passes the address filter: station address, broadcast, multicast hash, and the
// two modes.
bool Device::RxAccepts(const uint8_t* frame) const {
  if (promisc_) return true;
  if ((frame[0] & 1) == 0) return memcmp(frame, rx_.mac, 6) == 0;
  if (allmulti_) return true;
  uint8_t all = 0xff;
  for (int i = 0; i < 6; i++) all &= frame[i];
  if (all == 0xff) return true;
  const uint32_t hash = HashOf(frame);
  return (rx_.mta[hash >> 5] >> (hash & 31) & 1) == 1;
}

// Number of segments that the peer would have sent for this frame; 0 for an ordinary one.
uint32_t Device::RxSegments(uint32_t len) const {
  const uint32_t size = Le16(rx_.vnetHdr + 4), hdrLen = Le16(rx_.vnetHdr + 2);
  if (rx_.vnetHdr[1] == 0 || size == 0) return 0;
  const uint32_t n = len > hdrLen ? (len - hdrLen + size - 1) / size : 1;
  return n < TN_RXS_SEGS_MASK ? n : TN_RXS_SEGS_MASK;
}

// Removes the four bytes of the VLAN tag and moves the following bytes forward, buffer by buffer.
void Device::RxStrip(uint32_t len) {
  const uint32_t size = rx_.bufSize;
  uint8_t* frame = rx_.Buf(0);
  rx_.vtag = Be16(frame + 14);
  memmove(frame + 12, frame + 16, (len < size ? len : size) - 16);
  for (uint32_t i = 1; i * size < len; i++) {
    uint8_t* buf = rx_.Buf(i);
    const uint32_t n = len - i * size < size ? len - i * size : size;
    memmove(rx_.Buf(i - 1) + size - 4, buf, n < 4 ? n : 4);
    if (n > 4) memmove(buf, buf + 4, n - 4);
  }
}

}  // namespace tapnic::tn
