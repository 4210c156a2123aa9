// Writes capture records of the points `ring` and `wire`, and events, to the arena's capture ring,
// whose layout src/sys/capture.ts defines. The ring is shared memory, so its positions are checked:
// if one is invalid, the record is dropped.
#include <time.h>

#include "tn_device.h"

namespace tapnic::tn {

namespace {

constexpr int64_t kSecond = 1000000000;
// Descriptors of a record: META_DESCS_MAX of src/sys/capture_facts.ts.
constexpr uint32_t kDescsMax = 65;
static_assert(TN_TX_SEGS + 1 <= kDescsMax && kRxBufsMax <= kDescsMax);

// Finds `size` contiguous free bytes in the ring's data area of `bytes` bytes, at its start if the
// end is too short. At least one byte always stays free. Returns the position, or -1 if there is no
// room.
int64_t Room(uint8_t* ring, uint32_t bytes, uint32_t size) {
  const uint32_t prod = LoadLe32(ring + CAPTURE_PROD), cons = LoadLe32(ring + CAPTURE_CONS);
  if (prod >= bytes || cons >= bytes || prod % 8 != 0 || size >= bytes) return -1;
  if (prod < cons) return prod + size < cons ? int64_t{prod} : -1;
  if (size < bytes - prod || (size == bytes - prod && cons > 0)) return prod;
  if (size >= cons) return -1;
  uint8_t* rec = ring + CAPTURE_HEADER_BYTES + prod;
  StoreLe32(rec + CAPTURE_R_SIZE, bytes - prod);
  PutLe16(rec + CAPTURE_R_POINT, CAPTURE_WRAP);
  return 0;
}

uint32_t Pad8(uint32_t n) { return (n + 7) & ~7u; }

// Begins a metadata item. Returns where its value goes; `*at` is then after it.
uint8_t* Item(uint8_t** at, uint32_t type, uint32_t length) {
  uint8_t* item = *at;
  PutLe16(item, type);
  PutLe16(item + 2, length);
  *at = item + META_ITEM_BYTES + length;
  return item + META_ITEM_BYTES;
}

}  // namespace

void Facts::Descs(const uint8_t* base, uint32_t slots, uint32_t first, uint32_t count) {
  descBase = base;
  descSlots = slots;
  descFirst = first;
  descCount = count < kDescsMax ? count : kDescsMax;
}

void Facts::Dropped(uint32_t why, uint32_t len) {
  dropped = true;
  reason = why;
  bytes = len;
}

uint32_t Facts::MetaLen() const {
  uint32_t n = META_ITEM_BYTES + META_PACKET_BYTES;
  if (descCount > 0) n += META_ITEM_BYTES + META_DESCS_BYTES + descCount * TN_DESC_SIZE;
  if (linkCount > 0) n += META_ITEM_BYTES + META_LINK_BYTES + 4 * linkCount;
  if (dropped) n += META_ITEM_BYTES + META_WHY_BYTES;
  return n;
}

// Bit 1 << point for each point at which capture is on.
uint32_t Device::CapturePoints() const {
  return c_.capture == nullptr ? 0 : LoadLe32(c_.capture + CAPTURE_POINTS);
}

// Notes that frame `id` was sent (CAPTURE_OUT) or received (CAPTURE_IN), behind the ring, if faults are
// in use.
void Device::NoteFrame(uint32_t flags, uint32_t id) {
  if (c_.capture == nullptr) return;
  const uint32_t unit = c_.captureUnit % CAPTURE_IDS_UNITS;
  if ((LoadLe32(c_.capture + CAPTURE_IDS) & 1u << unit) == 0) return;
  uint8_t* ids = c_.capture + c_.captureBytes + unit * CAPTURE_IDS_BYTES;
  if (flags == CAPTURE_IN) ids += CAPTURE_IDS_IN;
  const uint32_t n = LoadLe32(ids);
  StoreLe32(ids + 4 + 4 * (n % CAPTURE_IDS_SLOTS), id);
  StoreLe32(ids, n + 1);
}

bool Device::CaptureEvents() const {
  return c_.capture != nullptr && LoadLe32(c_.capture + CAPTURE_META) != 0;
}

void Device::Stamp(uint8_t* rec) const {
  int64_t now = nowNs;
  if (!c_.ownTime) {
    timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    now = ts.tv_sec * kSecond + ts.tv_nsec - c_.monotonicBias;
  }
  const int64_t nsec = now % kSecond + LoadLe32(c_.capture + CAPTURE_BOOT + 4);
  const int64_t sec = now / kSecond + LoadLe32(c_.capture + CAPTURE_BOOT);
  StoreLe32(rec + CAPTURE_R_SEC, static_cast<uint32_t>(sec + nsec / kSecond));
  StoreLe32(rec + CAPTURE_R_NSEC, static_cast<uint32_t>(nsec % kSecond));
}

// Begins a record. Returns null, after counting it, if the ring has no room.
uint8_t* Device::BeginRecord(uint32_t point, uint32_t caplen, uint32_t metaLen) {
  uint8_t* ring = c_.capture;
  const uint32_t bytes = c_.captureBytes - CAPTURE_HEADER_BYTES;
  const uint32_t size = Pad8(Pad8(CAPTURE_RECORD_BYTES + caplen) + metaLen);
  const int64_t at = Room(ring, bytes, size);
  if (at < 0) {
    StoreLe32(ring + CAPTURE_LOST, LoadLe32(ring + CAPTURE_LOST) + 1);
    Count(TN_REASON_CAPTURE_FULL);
    return nullptr;
  }
  uint8_t* rec = ring + CAPTURE_HEADER_BYTES + at;
  StoreLe32(rec + CAPTURE_R_SIZE, size);
  PutLe16(rec + CAPTURE_R_POINT, point);
  Stamp(rec);
  StoreLe32(rec + CAPTURE_R_UNIT, c_.captureUnit);
  StoreLe32(rec + CAPTURE_R_CAPLEN, caplen);
  StoreLe32(rec + CAPTURE_R_METALEN, metaLen);
  return rec;
}

// Ends a record of `size` bytes that BeginRecord returned.
void Device::EndRecord(const uint8_t* rec, uint32_t size) {
  uint8_t* ring = c_.capture;
  const auto next = static_cast<uint32_t>(rec - (ring + CAPTURE_HEADER_BYTES)) + size;
  StoreLe32(ring + CAPTURE_PROD, next == c_.captureBytes - CAPTURE_HEADER_BYTES ? 0 : next);
  flags_ |= TN_DO_CAPTURED;
}

// Writes the metadata, facts.MetaLen() bytes.
void Device::PutMeta(uint8_t* to, const Facts& facts, uint32_t point, uint32_t flags,
                     uint32_t pktId) const {
  uint8_t* v = Item(&to, META_PACKET, META_PACKET_BYTES);
  StoreLe32(v, pktId);
  v[4] = static_cast<uint8_t>(point);
  v[5] = static_cast<uint8_t>(flags);
  PutLe16(v + 6, 0);
  PutLe16(v + 8, facts.csum);
  PutLe16(v + 10, 0);
  if (facts.descCount > 0) {
    v = Item(&to, META_DESCS, META_DESCS_BYTES + facts.descCount * TN_DESC_SIZE);
    PutLe16(v, 0);
    PutLe16(v + 2, facts.descFirst);
    PutLe16(v + 4, facts.descCount);
    PutLe16(v + 6, TN_DESC_SIZE);
    for (uint32_t i = 0; i < facts.descCount; i++) {
      const uint32_t slot = (facts.descFirst + i) % facts.descSlots;
      memcpy(v + META_DESCS_BYTES + i * TN_DESC_SIZE, facts.descBase + slot * TN_DESC_SIZE,
             TN_DESC_SIZE);
    }
  }
  if (facts.linkCount > 0) {
    v = Item(&to, META_LINK, META_LINK_BYTES + 4 * facts.linkCount);
    PutLe16(v, facts.linkKind);
    PutLe16(v + 2, facts.linkIndex);
    for (uint32_t i = 0; i < facts.linkCount; i++)
      StoreLe32(v + META_LINK_BYTES + 4 * i, facts.linkIds[i]);
  }
  if (facts.dropped) {
    v = Item(&to, META_WHY, META_WHY_BYTES);
    PutLe16(v, META_WHY_DROP);
    PutLe16(v + 2, c_.reasons[facts.reason]);
    StoreLe32(v + 4, facts.bytes);
  }
}

// Records one frame of `wirelen` bytes. The pieces have at least that many bytes.
void Device::Capture(uint32_t point, uint32_t flags, uint32_t pktId, const Facts& facts,
                     const iovec* iov, uint32_t niov, uint32_t wirelen) {
  const uint32_t snaplen = LoadLe32(c_.capture + CAPTURE_SNAPLEN + 4 * point);
  const uint32_t caplen = wirelen < snaplen ? wirelen : snaplen;
  const uint32_t metaLen = CaptureEvents() ? facts.MetaLen() : 0;
  uint8_t* rec = BeginRecord(point, caplen, metaLen);
  if (rec == nullptr) return;
  PutLe16(rec + CAPTURE_R_FLAGS, flags);
  StoreLe32(rec + CAPTURE_R_PKTID, pktId);
  StoreLe32(rec + CAPTURE_R_WIRELEN, wirelen);
  uint8_t* dst = rec + CAPTURE_RECORD_BYTES;
  uint32_t left = caplen;
  for (uint32_t i = 0; i < niov && left > 0; i++) {
    const uint32_t n = iov[i].iov_len < left ? static_cast<uint32_t>(iov[i].iov_len) : left;
    memcpy(dst, iov[i].iov_base, n);
    dst += n;
    left -= n;
  }
  const uint32_t metaAt = Pad8(CAPTURE_RECORD_BYTES + caplen);
  if (metaLen > 0) PutMeta(rec + metaAt, facts, point, flags, pktId);
  EndRecord(rec, Pad8(metaAt + metaLen));
}

// Records an event, if anything records events.
void Device::CaptureEvent(uint32_t point, uint32_t flags, uint32_t pktId, const Facts& facts) {
  if (!CaptureEvents()) return;
  const uint32_t metaLen = facts.MetaLen();
  uint8_t* rec = BeginRecord(CAPTURE_EVENT, 0, metaLen);
  if (rec == nullptr) return;
  PutLe16(rec + CAPTURE_R_FLAGS, flags);
  StoreLe32(rec + CAPTURE_R_PKTID, pktId);
  StoreLe32(rec + CAPTURE_R_WIRELEN, 0);
  PutMeta(rec + CAPTURE_RECORD_BYTES, facts, point, flags, pktId);
  EndRecord(rec, Pad8(CAPTURE_RECORD_BYTES + metaLen));
}

// Records that a packet of `len` bytes, which has no record at `point`, was dropped.
void Device::CaptureDrop(uint32_t point, uint32_t flags, uint32_t pktId, uint32_t why,
                         uint32_t len) {
  if (!CaptureEvents()) return;
  Facts facts;
  facts.Dropped(why, len);
  CaptureEvent(point, flags, pktId, facts);
}

}  // namespace tapnic::tn
