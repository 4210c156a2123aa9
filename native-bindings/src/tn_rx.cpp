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
      const uint32_t first = rx_.head;
      for (uint32_t k = 0; k <= i; k++) RxWriteBack(ring, 0, TN_RXS_ERR, 0);
      if (CaptureEvents()) {
        Facts facts;
        facts.Descs(ring, rx_.ndesc, first, i + 1);
        facts.Dropped(TN_REASON_RX_BAD, 0);
        CaptureEvent(CAPTURE_RING, CAPTURE_IN, 0, facts);
      }
      rx_.causes |= TN_INT_RXERR;
      return false;
    }
    rx_.Bufs()[i] = {buf, rx_.bufSize};
  }
  rx_.nbufs = n;
  return true;
}

// `id` is the frame's id with its last descriptor, otherwise 0.
void Device::RxWriteBack(uint8_t* ring, uint32_t len, uint32_t status, uint32_t id) {
  uint8_t* desc = ring + rx_.head * TN_DESC_SIZE;
  const uint32_t tag = (status & TN_RXS_VP) != 0 ? rx_.vtag : 0;
  if (id != 0) {
    StoreLe32(desc + TN_D_ADDRL, id);
    status |= TN_RXS_ID;
  }
  StoreLe32(desc + TN_D_LEN, tag << 16 | len);
  StoreLe32(desc + TN_D_STAT, TN_RXS_DD | status);
  rx_.head = rx_.Next(rx_.head);
  rx_.causes |= TN_INT_RXDW;
}

// The id of a frame that arrives: 0 without captures.
uint32_t Device::RxId() {
  if (CapturePoints() == 0) return 0;
  received_ = (received_ + 1) & CAPTURE_RX_COUNT_MASK;
  return CAPTURE_RX_ID | (c_.captureUnit & CAPTURE_RX_UNIT_MASK) << CAPTURE_RX_UNIT_SHIFT |
         received_;
}

// The checksum state of a frame with the verdict `status`, for captures.
uint32_t Device::RxCsum(uint32_t status) const {
  if ((status & (TN_RXS_IPE | TN_RXS_L4E)) != 0) return META_CSUM_BAD;
  if (c_.vnet && (rx_.vnetHdr[0] & VNET_F_NEEDS_CSUM) != 0) return META_CSUM_NIC;
  return (status & TN_RXS_L4CS) != 0 ? META_CSUM_VERIFIED : META_CSUM_UNKNOWN;
}

// Counts and captures a frame that the address filter rejects.
void Device::RxReject(uint32_t id, uint32_t len) {
  stats[TN_ST_RX_FILTERED]++;
  Count(TN_REASON_RX_FILTER);
  if (!CaptureWants(CAPTURE_WIRE)) {
    CaptureDrop(CAPTURE_WIRE, CAPTURE_IN, id, TN_REASON_RX_FILTER, len);
    return;
  }
  Facts facts;
  facts.Dropped(TN_REASON_RX_FILTER, len);
  Capture(CAPTURE_WIRE, CAPTURE_IN, id, facts, rx_.Bufs(), rx_.nbufs, len);
}

// Filters and verifies a frame of `len` bytes in the listed buffers and hands it to the driver.
void Device::RxReceive(uint8_t* ring, uint32_t len) {
  const uint32_t id = RxId();
  NoteFrame(CAPTURE_IN, id);
  rx_.lro.segId = id;
  if (rx_.lro.nbufs > 0 && RxMergeNext(ring, len)) return;
  if (len < ETHER_HDR_LEN) {
    stats[TN_ST_RX_RUNT]++;
    Count(TN_REASON_RX_RUNT);
    CaptureDrop(CAPTURE_WIRE, CAPTURE_IN, id, TN_REASON_RX_RUNT, len);
    return;
  }
  if (len > rx_.frameMax) {
    stats[TN_ST_RX_OVERSIZE]++;
    Count(TN_REASON_RX_OVERSIZE);
    CaptureDrop(CAPTURE_WIRE, CAPTURE_IN, id, TN_REASON_RX_OVERSIZE, len);
    return;
  }
  const uint8_t* frame = rx_.Buf(0);
  if (!RxAccepts(frame)) {
    RxReject(id, len);
    return;
  }
  uint32_t status = RxVerdict(len);
  if (CaptureWants(CAPTURE_WIRE)) {
    Facts facts;
    facts.csum = RxCsum(status);
    Capture(CAPTURE_WIRE, CAPTURE_IN, id, facts, rx_.Bufs(), rx_.nbufs, len);
  }
  if (c_.vnet && (status & TN_RXS_L4CS) == 0) RxFinishCsum(len);
  if (lro_ && RxCoalesce(ring, len, status)) return;
  if (c_.vnet) status |= RxSegments(len) << TN_RXS_SEGS_SHIFT;
  if (vlStrip_ && len >= ETHER_HDR_LEN + 4 && Be16(frame + 12) == ETHERTYPE_VLAN) {
    status |= TN_RXS_VP;
    RxStrip(len);
    len -= 4;
  }
  RxDeliver(ring, len, status, id);
}

void Device::RxDeliver(uint8_t* ring, uint32_t len, uint32_t status, uint32_t id) {
  stats[TN_ST_RX_FRAMES]++;
  stats[TN_ST_RX_BYTES] += len;
  const uint32_t first = rx_.head;
  uint32_t left = len, n = 1;
  for (; left > rx_.bufSize; left -= rx_.bufSize, n++) RxWriteBack(ring, rx_.bufSize, 0, 0);
  RxWriteBack(ring, left, status | TN_RXS_EOP, id);
  if (CaptureWants(CAPTURE_RING)) RxCaptureRing(ring, first, n, len, status, id);
}

// Captures a frame that was written back to `n` descriptors.
void Device::RxCaptureRing(const uint8_t* ring, uint32_t first, uint32_t n, uint32_t len,
                           uint32_t status, uint32_t id) {
  Facts facts;
  facts.csum = RxCsum(status);
  facts.Descs(ring, rx_.ndesc, first, n);
  const Lro& lro = rx_.lro;
  if (!rx_.merged) {
    Capture(CAPTURE_RING, CAPTURE_IN, id, facts, rx_.Bufs(), n, len);
    return;
  }
  iovec bufs[kRxBufsMax];
  // The longest merged frame fits.
  if (n > kRxBufsMax) n = kRxBufsMax;
  for (uint32_t i = 0; i < n; i++) bufs[i] = {lro.bufs[i], rx_.bufSize};
  if (lro.segs > 1 && id != 0) {
    facts.linkKind = META_LINK_LRO;
    facts.linkIds = lro.ids;
    facts.linkCount = lro.segs;
  }
  Capture(CAPTURE_RING, CAPTURE_IN, id, facts, bufs, n, len);
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
