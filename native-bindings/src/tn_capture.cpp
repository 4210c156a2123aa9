// Writes capture records of the `wire` point to the arena's capture ring, whose layout
// src/sys/capture.ts defines. The ring is shared memory, so its positions are checked: if one is
// invalid, the record is dropped.
#include <time.h>

#include "tn_device.h"

namespace tapnic::tn {

namespace {

constexpr int64_t kSecond = 1000000000;

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

}  // namespace

bool Device::CaptureWants() const {
  return c_.capture != nullptr && (LoadLe32(c_.capture + CAPTURE_POINTS) & 1u << CAPTURE_WIRE) != 0;
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

// Records one frame of `wirelen` bytes. The pieces have at least that many bytes.
void Device::Capture(uint32_t flags, uint32_t pktId, const iovec* iov, uint32_t niov,
                     uint32_t wirelen) {
  uint8_t* ring = c_.capture;
  const uint32_t snaplen = LoadLe32(ring + CAPTURE_SNAPLEN + 4 * CAPTURE_WIRE);
  const uint32_t caplen = wirelen < snaplen ? wirelen : snaplen;
  const uint32_t size = (CAPTURE_RECORD_BYTES + caplen + 7) & ~7u;
  const uint32_t bytes = c_.captureBytes - CAPTURE_HEADER_BYTES;
  const int64_t at = Room(ring, bytes, size);
  if (at < 0) {
    StoreLe32(ring + CAPTURE_LOST, LoadLe32(ring + CAPTURE_LOST) + 1);
    Count(TN_REASON_CAPTURE_FULL);
    return;
  }
  uint8_t* rec = ring + CAPTURE_HEADER_BYTES + at;
  StoreLe32(rec + CAPTURE_R_SIZE, size);
  PutLe16(rec + CAPTURE_R_POINT, CAPTURE_WIRE);
  PutLe16(rec + CAPTURE_R_FLAGS, flags);
  Stamp(rec);
  StoreLe32(rec + CAPTURE_R_UNIT, c_.captureUnit);
  StoreLe32(rec + CAPTURE_R_PKTID, pktId);
  StoreLe32(rec + CAPTURE_R_CAPLEN, caplen);
  StoreLe32(rec + CAPTURE_R_WIRELEN, wirelen);
  StoreLe32(rec + CAPTURE_R_METALEN, 0);
  uint8_t* dst = rec + CAPTURE_RECORD_BYTES;
  uint32_t left = caplen;
  for (uint32_t i = 0; i < niov && left > 0; i++) {
    const uint32_t n = iov[i].iov_len < left ? static_cast<uint32_t>(iov[i].iov_len) : left;
    memcpy(dst, iov[i].iov_base, n);
    dst += n;
    left -= n;
  }
  const auto next = static_cast<uint32_t>(at) + size;
  StoreLe32(ring + CAPTURE_PROD, next == bytes ? 0 : next);
  flags_ |= TN_DO_CAPTURED;
}

}  // namespace tapnic::tn
