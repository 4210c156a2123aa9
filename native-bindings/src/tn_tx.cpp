// The transmit engine of `tn`: fetches descriptors, one write per frame, write-back. Copies only
// headers, and the payload of frames whose checksum it computes. The position inside a packet is
// kept while the wire is full and between turns of the loop.
#include <errno.h>

#include "tn_device.h"
#include "tn_wire.h"

namespace tapnic::tn {

namespace {
// Results of TxFetch and TxEmit.
enum { kNothing, kPacket, kDropped, kDone, kMore, kBlocked };
}  // namespace

// Handles the setting of TN_CTRL.TXE: starts at slot 0 of the ring in the registers.
void Device::TxEnable() {
  TxDisable();
  tx_.enabled = true;
  tx_.stopped = false;
  tx_.ndesc = tx_.len / TN_DESC_SIZE;
  if (tx_.Fits()) return;
  tx_.active = false;
  Stop(&tx_, TN_INT_TXERR);
}

// Handles the clearing of TXE, and a reset: clears the ring position and drops the current packet.
void Device::TxDisable() {
  tx_.enabled = false;
  tx_.head = tx_.tail = 0;
  tx_.active = tx_.blocked = tx_.skipping = false;
}

bool Device::TxSetTail(uint32_t slot) {
  if (!tx_.enabled || !tx_.HasSlot(slot)) return false;
  tx_.tail = slot;
  return true;
}

void Device::TxWritable() {
  tx_.blocked = false;
  TxConsume();
}

// Sends the packets on the ring: at most TN_TX_BUDGET frames now, the rest on later turns of the
// loop.
void Device::TxConsume() {
  if (!tx_.enabled || tx_.stopped || tx_.blocked) return;
  if (tx_.head == tx_.tail && !tx_.active) return;
  uint8_t* ring = Map(tx_.baseLo, tx_.baseHi, tx_.len);
  if (ring == nullptr) {
    tx_.active = false;
    Stop(&tx_, TN_INT_TXERR);
    return;
  }
  tx_.causes = 0;
  uint32_t budget = TN_TX_BUDGET;
  for (; budget > 0; budget--) {
    if (!tx_.active) {
      const int found = TxFetch(ring);
      if (found == kNothing) break;
      if (found == kDropped) continue;
    }
    const int did = TxEmit();
    if (did == kBlocked) break;
    if (did == kDone) TxComplete(ring, 0);
  }
  if (budget == 0 && !tx_.posted && (tx_.active || tx_.head != tx_.tail)) {
    tx_.posted = true;
    flags_ |= TN_DO_POST_TX;
  }
  if (tx_.causes != 0) Cause(tx_.causes);
}

// Writes the status back, if requested, and moves the head past the packet's descriptors.
void Device::TxComplete(uint8_t* ring, uint32_t status) {
  if ((tx_.eopStat & TN_TXD_RS) != 0) {
    StoreLe32(ring + tx_.eopSlot * TN_DESC_SIZE + TN_D_STAT, TN_TXS_DD | status);
    tx_.causes |= TN_INT_TXDW;
  }
  tx_.active = false;
  tx_.head = tx_.Next(tx_.eopSlot);
  if (status == 0) stats[TN_ST_TX_PACKETS]++;
}

// Counts a bad packet of `n` descriptors.
void Device::TxBad(const uint8_t* ring, uint32_t n) {
  stats[TN_ST_TX_BAD]++;
  Count(TN_REASON_TX_BAD);
  tx_.causes |= TN_INT_TXERR;
  if (!CaptureEvents()) return;
  Facts facts;
  facts.Descs(ring, tx_.ndesc, tx_.head, n);
  facts.Dropped(TN_REASON_TX_BAD, tx_.total);
  CaptureEvent(CAPTURE_RING, CAPTURE_OUT, tx_.tag, facts);
}

// The checksum state of the packet, for captures.
uint32_t Device::TxCsum() const {
  return (tx_.cmd & (TN_TXD_TXSM | TN_TXD_TSE)) != 0 ? META_CSUM_NIC : META_CSUM_SOFTWARE;
}

// Captures the packet in its `n` descriptors as it was fetched.
void Device::TxCaptureRing(const uint8_t* ring, uint32_t n) {
  Facts facts;
  facts.csum = TxCsum();
  facts.Descs(ring, tx_.ndesc, tx_.head, n);
  Capture(CAPTURE_RING, CAPTURE_OUT, tx_.tag, facts, tx_.pieces, tx_.npieces, tx_.total);
}

int Device::TxDrop(uint8_t* ring, uint32_t n) {
  TxBad(ring, n);
  TxComplete(ring, TN_TXS_ERR);
  return kDropped;
}

// Reads the next packet's descriptors, at most one round of the ring. Returns kDropped if they are
// bad.
int Device::TxFetch(uint8_t* ring) {
  if (tx_.skipping) return TxSkip(ring);
  tx_.npieces = 0;
  tx_.total = 0;
  tx_.cmd = 0;
  tx_.tag = 0;
  tx_.vle = false;
  bool bad = false;
  uint32_t n = 0;
  for (uint32_t slot = tx_.head; slot != tx_.tail; slot = tx_.Next(slot)) {
    const uint8_t* desc = ring + slot * TN_DESC_SIZE;
    const uint32_t stat = LoadLe32(desc + TN_D_STAT);
    n++;
    if ((stat & TN_TXD_CTX) != 0) {
      if (n == 1 && (stat & TN_TXD_EOP) == 0)
        TxContext(desc, stat);
      else
        bad = true;
    } else if (!bad) {
      bad = !TxPiece(desc, stat);
    }
    if ((stat & TN_TXD_EOP) == 0) continue;
    tx_.eopSlot = slot;
    tx_.eopStat = stat;
    if (!bad && CaptureWants(CAPTURE_RING)) TxCaptureRing(ring, n);
    return bad || !TxPrepare() ? TxDrop(ring, n) : kPacket;
  }
  // The packet is not complete yet. Wait, unless it is bad or can never be complete.
  if (!bad && n < tx_.ndesc - 1) return kNothing;
  tx_.skipping = true;
  TxBad(ring, n);
  tx_.head = tx_.tail;
  return kDropped;
}

// Drops descriptors up to the end of a bad packet, which has been counted.
int Device::TxSkip(uint8_t* ring) {
  for (uint32_t slot = tx_.head; slot != tx_.tail; slot = tx_.Next(slot)) {
    const uint32_t stat = LoadLe32(ring + slot * TN_DESC_SIZE + TN_D_STAT);
    if ((stat & TN_TXD_EOP) == 0) continue;
    tx_.skipping = false;
    tx_.eopSlot = slot;
    tx_.eopStat = stat;
    TxComplete(ring, TN_TXS_ERR);
    return kDropped;
  }
  tx_.head = tx_.tail;
  return kNothing;
}

void Device::TxContext(const uint8_t* desc, uint32_t stat) {
  const uint32_t lens = LoadLe32(desc + TN_C_HDRLEN);
  tx_.cmd = stat;
  tx_.l2 = lens & TN_C_L2_MASK;
  tx_.l3 = (lens >> TN_C_L3_SHIFT) & TN_C_L3_MASK;
  tx_.l4 = (lens >> TN_C_L4_SHIFT) & TN_C_L4_MASK;
  tx_.mss = LoadLe32(desc + TN_C_MSS) & 0xffff;
  tx_.tag = LoadLe32(desc + TN_C_TAG);
}

// Adds a data descriptor to the packet. Returns false if it is bad.
bool Device::TxPiece(const uint8_t* desc, uint32_t stat) {
  const uint32_t lenTag = LoadLe32(desc + TN_D_LEN);
  const uint32_t len = lenTag & 0xffff;
  if (len == 0 || tx_.npieces == TN_TX_SEGS) return false;
  if (tx_.npieces == 0) {
    tx_.vle = (stat & TN_TXD_VLE) != 0;
    tx_.vtag = lenTag >> 16;
  }
  uint8_t* p = Map(LoadLe32(desc + TN_D_ADDRL), LoadLe32(desc + TN_D_ADDRH), len);
  if (p == nullptr) return false;
  tx_.pieces[tx_.npieces++] = {p, len};
  tx_.total += len;
  return true;
}

// Sends one frame of the active packet. Returns kDone after the last one, otherwise kMore or
// kBlocked.
int Device::TxEmit() {
  if (!linkUp_) {
    stats[TN_ST_TX_NO_LINK]++;
    Count(TN_REASON_LINK_DOWN);
    CaptureDrop(CAPTURE_WIRE, CAPTURE_OUT, tx_.tag, TN_REASON_LINK_DOWN, tx_.total);
    return kDone;
  }
  const bool cut = !c_.vnet && (tx_.cmd & TN_TXD_TSE) != 0;
  if (!cut) return TxWrite(-1) == kBlocked ? kBlocked : kDone;
  const uint32_t left = tx_.PayloadLen() - tx_.sent;
  const uint32_t payload = left < tx_.mss ? left : tx_.mss;
  const bool last = payload == left;
  TxSegment(payload, last);
  const int did = TxWrite(static_cast<int>(tx_.segs));
  if (did == kBlocked) return kBlocked;
  if (did == kDropped) return kDone;  // drops the rest of the packet, too
  stats[TN_ST_TX_SEGMENTS]++;
  TxAdvance(payload);
  tx_.sent += payload;
  tx_.segs++;
  return last ? kDone : kMore;
}

// Writes the listed frame to the wire. Returns kDone, kBlocked, or kDropped if the wire refuses it.
// `child` is its number among the segments of a TSO packet; -1 if it is no segment.
int Device::TxWrite(int child) {
  iovec* frame = tx_.Frame();
  if (!c_.vnet && tx_.frameLen < TN_FRAME_MIN) {
    frame[tx_.niov++] = {tx_.zero, TN_FRAME_MIN - tx_.frameLen};
    tx_.frameLen = TN_FRAME_MIN;
  }
  const long n =
      c_.vnet ? WireWritev(c_.fd, tx_.iov, tx_.niov + 1) : WireWritev(c_.fd, frame, tx_.niov);
  if (n >= 0) {
    stats[TN_ST_TX_FRAMES]++;
    stats[TN_ST_TX_BYTES] += tx_.frameLen;
    NoteFrame(CAPTURE_OUT, tx_.tag);
    if (CaptureWants(CAPTURE_WIRE)) {
      Facts facts;
      facts.csum = TxCsum();
      if (child >= 0) {
        facts.linkKind = META_LINK_TSO;
        facts.linkIndex = static_cast<uint32_t>(child);
        facts.linkIds = &tx_.tag;
        facts.linkCount = 1;
      }
      Capture(CAPTURE_WIRE, CAPTURE_OUT, tx_.tag, facts, frame, static_cast<uint32_t>(tx_.niov),
              tx_.frameLen);
    }
    return kDone;
  }
  if (n == -EAGAIN) {
    stats[TN_ST_TX_WIRE_FULL]++;
    Count(TN_REASON_WIRE_FULL);
    tx_.blocked = true;
    flags_ |= TN_DO_ARM;
    return kBlocked;
  }
  stats[TN_ST_TX_WIRE_ERROR]++;
  Count(TN_REASON_WIRE_ERROR);
  CaptureDrop(CAPTURE_WIRE, CAPTURE_OUT, tx_.tag, TN_REASON_WIRE_ERROR, tx_.frameLen);
  return kDropped;
}

}  // namespace tapnic::tn
