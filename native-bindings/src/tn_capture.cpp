// Capture records of the `wire` point, written into the arena's capture ring as src/sys/capture.ts
// lays it out. That ring is shared memory: a position that is not one loses the record.
#include <time.h>

#include "tn_device.h"

namespace tapnic::tn {

namespace {

constexpr uint32_t kProd = 0, kCons = 4, kLost = 8, kPoints = 12, kSnaplen = 16, kBoot = 48;
constexpr uint32_t kHeaderBytes = 64, kRecordBytes = 32;
constexpr uint32_t kPointWire = 4, kPointWrap = 0xffff;
constexpr int64_t kSecond = 1000000000;

// Finds `size` bytes in one piece of a data area of `bytes`, wrapping if need be; the ring never
// fills to the last byte. The position, or -1.
int64_t Room(uint8_t* ring, uint32_t bytes, uint32_t size) {
  const uint32_t prod = LoadLe32(ring + kProd), cons = LoadLe32(ring + kCons);
  if (prod >= bytes || cons >= bytes || prod % 8 != 0 || size >= bytes) return -1;
  if (prod < cons) return prod + size < cons ? int64_t{prod} : -1;
  if (size < bytes - prod || (size == bytes - prod && cons > 0)) return prod;
  if (size >= cons) return -1;
  uint8_t* rec = ring + kHeaderBytes + prod;
  StoreLe32(rec, bytes - prod);
  PutLe16(rec + 4, kPointWrap);
  return 0;
}

}  // namespace

bool Device::CaptureWants() const {
  return c_.capture != nullptr && (LoadLe32(c_.capture + kPoints) & 1u << kPointWire) != 0;
}

void Device::Stamp(uint8_t* rec) const {
  int64_t now = nowNs;
  if (!c_.ownTime) {
    timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    now = ts.tv_sec * kSecond + ts.tv_nsec - c_.monotonicBias;
  }
  const int64_t nsec = now % kSecond + LoadLe32(c_.capture + kBoot + 4);
  const int64_t sec = now / kSecond + LoadLe32(c_.capture + kBoot);
  StoreLe32(rec + 8, static_cast<uint32_t>(sec + nsec / kSecond));
  StoreLe32(rec + 12, static_cast<uint32_t>(nsec % kSecond));
}

// Records one frame of `wirelen` bytes, which the pieces have at least.
void Device::Capture(uint32_t flags, uint32_t pktId, const iovec* iov, uint32_t niov,
                     uint32_t wirelen) {
  uint8_t* ring = c_.capture;
  const uint32_t snaplen = LoadLe32(ring + kSnaplen + 4 * kPointWire);
  const uint32_t caplen = wirelen < snaplen ? wirelen : snaplen;
  const uint32_t size = (kRecordBytes + caplen + 7) & ~7u;
  const uint32_t bytes = c_.captureBytes - kHeaderBytes;
  const int64_t at = Room(ring, bytes, size);
  if (at < 0) {
    StoreLe32(ring + kLost, LoadLe32(ring + kLost) + 1);
    Count(kReasonCaptureFull);
    return;
  }
  uint8_t* rec = ring + kHeaderBytes + at;
  StoreLe32(rec, size);
  PutLe16(rec + 4, kPointWire);
  PutLe16(rec + 6, flags);
  Stamp(rec);
  StoreLe32(rec + 16, c_.captureUnit);
  StoreLe32(rec + 20, pktId);
  StoreLe32(rec + 24, caplen);
  StoreLe32(rec + 28, wirelen);
  uint8_t* dst = rec + kRecordBytes;
  uint32_t left = caplen;
  for (uint32_t i = 0; i < niov && left > 0; i++) {
    const uint32_t n = iov[i].iov_len < left ? static_cast<uint32_t>(iov[i].iov_len) : left;
    memcpy(dst, iov[i].iov_base, n);
    dst += n;
    left -= n;
  }
  const auto next = static_cast<uint32_t>(at) + size;
  StoreLe32(ring + kProd, next == bytes ? 0 : next);
  flags_ |= kCaptured;
}

}  // namespace tapnic::tn
