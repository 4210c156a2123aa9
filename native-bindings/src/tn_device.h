// The NIC `tn`, device build `native`: docs/tn-datasheet.md in C++, without Node. A register access
// or an event runs the device until it has no work left, and returns TN_DO_* flags. The device
// never calls the driver, never blocks and never allocates. tn_device.cpp has the registers and the
// interrupt line, tn_tx.cpp and tn_offload.cpp transmit, tn_rx.cpp, tn_verdict.cpp and tn_lro.cpp
// receive, tn_capture.cpp records, tn_napi.cpp has the functions for JavaScript. tn_regs.h defines
// the numbers and is generated. src/dev/tn is the reference and behaves in the same way.
//
// Registers and host memory are not trusted. They may have any value, and host memory may change
// while the device reads it, because other threads fill file pages. Therefore the device reads each
// word on which a decision depends only once, and checks each length and address from memory
// against RAM before use.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

#include "tn_regs.h"

namespace tapnic::tn {

class WireSource;

// Reads and writes big- and little-endian fields at any address.
inline uint32_t Be16(const uint8_t* p) { return static_cast<uint32_t>(p[0] << 8 | p[1]); }
inline uint32_t Be32(const uint8_t* p) { return Be16(p) << 16 | Be16(p + 2); }
inline void PutBe16(uint8_t* p, uint32_t v) {
  p[0] = static_cast<uint8_t>(v >> 8);
  p[1] = static_cast<uint8_t>(v);
}
inline void PutBe32(uint8_t* p, uint32_t v) {
  PutBe16(p, v >> 16);
  PutBe16(p + 2, v);
}
inline uint32_t Le16(const uint8_t* p) { return static_cast<uint32_t>(p[1] << 8 | p[0]); }
inline void PutLe16(uint8_t* p, uint32_t v) {
  p[0] = static_cast<uint8_t>(v);
  p[1] = static_cast<uint8_t>(v >> 8);
}

inline uint32_t HostOfLe32(uint32_t v) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  return v;
#else
  return __builtin_bswap32(v);
#endif
}
// Reads or writes a 4-aligned word of a descriptor or of the capture ring with one access.
inline uint32_t LoadLe32(const uint8_t* p) {
  return HostOfLe32(__atomic_load_n(reinterpret_cast<const uint32_t*>(p), __ATOMIC_RELAXED));
}
inline void StoreLe32(uint8_t* p, uint32_t v) {
  __atomic_store_n(reinterpret_cast<uint32_t*>(p), HostOfLe32(v), __ATOMIC_RELAXED);
}

// Folds a sum of 16-bit words to 16 bits, RFC 1071.
inline uint32_t Fold16(uint32_t n) {
  n = (n & 0xffff) + (n >> 16);
  return (n & 0xffff) + (n >> 16);
}

// Sums consecutive pieces of data. If a piece starts at an odd byte, the two bytes of its sum are
// swapped.
class PieceSum {
 public:
  explicit PieceSum(uint32_t sum) : sum_(sum) {}
  void Add(const uint8_t* p, size_t len);
  // Adds the bytes and copies them to `to`.
  void AddCopy(uint8_t* to, const uint8_t* p, size_t len);
  uint32_t Folded() const { return Fold16(sum_); }

 private:
  void AddSum(uint32_t sum, size_t len);

  uint32_t sum_;
  bool odd_ = false;
};

// The environment of the device. `mem` outlives it and is page-aligned.
struct Config {
  int fd;  // descriptor of the wire; -1 after it was closed
  WireSource* source;  // what is received; null: the frames of `fd`
  bool vnet;
  bool hasTimer;
  uint8_t mac[6];
  uint8_t* mem;
  uint64_t ramBase;   // bus address of mem[0]
  uint64_t ramBytes;  // the first page is never used
  uint8_t* capture;   // the capture ring (src/sys/capture.ts), 8-aligned; null for none
  uint32_t captureBytes;
  uint32_t captureUnit;
  bool ownTime;           // capture time stamps are `nowNs`, otherwise the monotonic clock
  int64_t monotonicBias;  // CLOCK_MONOTONIC minus the machine's time
  uint16_t reasons[TN_REASON_COUNT];  // the machine's numbers of the device's reasons
};

// What a capture record says about a frame besides its bytes: src/sys/capture_facts.ts.
struct Facts {
  uint32_t csum = META_CSUM_UNKNOWN;
  uint32_t linkKind = 0, linkIndex = 0, linkCount = 0;
  const uint32_t* linkIds = nullptr;
  const uint8_t* descBase = nullptr;
  uint32_t descSlots = 0, descFirst = 0, descCount = 0;
  bool dropped = false;
  uint32_t reason = 0, bytes = 0;  // TN_REASON_*

  void Descs(const uint8_t* base, uint32_t slots, uint32_t first, uint32_t count);
  void Dropped(uint32_t why, uint32_t len);
  uint32_t MetaLen() const;
};

struct Ring {
  uint32_t baseLo = 0, baseHi = 0, len = 0;  // as in the registers; len in bytes
  uint32_t head = 0, tail = 0;
  uint32_t ndesc = 0;
  bool enabled = false;
  bool stopped = false;  // the ring cannot be used until the engine is enabled again
  bool posted = false;   // a turn was requested

  bool Fits() const {
    return len > 0 && len % TN_RING_ALIGN == 0 && baseLo % TN_RING_ALIGN == 0 &&
           len / TN_DESC_SIZE <= TN_NDESC_MAX;
  }
  // Whether the slot begins inside the ring. A ring whose length is not a multiple of the slot size
  // is stopped.
  bool HasSlot(uint32_t slot) const { return uint64_t{slot} * TN_DESC_SIZE < len; }
  uint32_t Next(uint32_t slot) const { return slot + 1 == ndesc ? 0 : slot + 1; }
};

struct Tx : Ring {
  bool blocked = false;   // the wire is full; wait for TN_EV_WRITABLE
  bool skipping = false;  // a bad packet is incomplete: drop up to its last descriptor
  uint32_t causes = 0;

  // The packet that was fetched, and is being sent if `active`. Undefined before the first fetch.
  bool active = false;
  uint32_t eopSlot = 0, eopStat = 0;
  uint32_t npieces = 0;
  iovec pieces[TN_TX_SEGS];
  uint32_t total = 0, cmd = 0;
  bool vle = false;
  uint32_t vtag = 0, l2 = 0, l3 = 0, l4 = 0, mss = 0, tag = 0;
  uint32_t hdrLen = 0;  // bytes of headers in `hdr`; 0 if the frame is sent without changes
  // Position in the payload: piece, byte in it, bytes and segments sent.
  uint32_t pi = 0, po = 0, sent = 0, segs = 0;
  // Values from which each segment's headers are computed; in mode `wire` also the sums of the fields
  // that are the same in all segments.
  uint32_t seq0 = 0, ipId0 = 0, thFlags = 0, pseudo = 0, ipSum = 0, l4Sum = 0;

  // One frame. The first element is the virtio-net header, used only in mode `vnet`.
  iovec iov[TN_TX_SEGS + 3];
  int niov = 0;  // without the virtio-net header
  uint32_t frameLen = 0;

  // On-board memory. `fifo` holds a frame whose checksum the device computes: its headers end, and its
  // payload begins, at kPayload, which is aligned.
  static constexpr uint32_t kPayload = (TN_HDR_MAX + 63) / 64 * 64;
  uint8_t vnetHdr[VNET_HDR_LEN] = {};
  uint8_t hdr[TN_HDR_MAX] = {};
  alignas(64) uint8_t fifo[kPayload + TN_FRAME_MAX];
  uint8_t zero[TN_FRAME_MIN] = {};

  iovec* Frame() { return iov + 1; }
  uint8_t* Ip() { return hdr + l2; }
  uint8_t* L4() { return hdr + l2 + l3; }
  uint32_t PayloadLen() const { return total + (vle ? 4 : 0) - hdrLen; }
};

constexpr uint32_t kRxBufsMax = TN_MAXFRM_MAX / TN_RXBSZ_MIN + 1;

// Coalescing: the current frame, which exists only while a drain runs, and the current segment. All
// decisions use the copy of the headers in on-board memory, never host memory.
struct Lro {
  uint32_t nbufs = 0;  // number of buffers of the frame; 0: no frame
  uint32_t len = 0, segs = 0, status = 0;
  uint32_t l3 = 0, l4 = 0;
  uint32_t next = 0;  // sequence number after the frame
  uint32_t sum = 0;   // sum of the frame's data
  uint32_t pseudo = 0;  // sum of its addresses and its protocol number, not folded
  uint8_t* bufs[2 * kRxBufsMax] = {};
  uint8_t hdr[14 + 40 + 32] = {};
  // The current segment.
  uint8_t seg[sizeof hdr] = {};
  uint32_t segL3 = 0, segL4 = 0, segLen = 0, segStatus = 0;
  bool pushed = false;
  // For captures: the id of the current segment, and those of the frame's segments.
  uint32_t segId = 0;
  uint32_t ids[TN_RXS_SEGS_MASK] = {};

  bool Eligible(const uint8_t* frame, uint32_t len, uint32_t verdict);
  void Hold(const iovec* from, uint32_t bufSize);
  bool Merge(const iovec* from, uint32_t count, uint32_t bufSize);
  bool MergeNext(const uint8_t* frame, uint32_t len, uint32_t bufSize);
  uint32_t Finish();

 private:
  uint32_t SegPayload() const { return segLen - ETHER_HDR_LEN - segL3 - segL4; }
  uint32_t PayloadSum() const;
  bool Continues() const;
  bool SameFlow() const;
  bool SameKind(uint32_t payload, const uint8_t* th) const;
  void Advance(uint32_t payload, uint32_t payloadSum, uint32_t bufSize);
  void Append(const iovec* from, uint32_t bufSize, uint32_t at, uint32_t n);
};

struct Rx : Ring {
  uint32_t bufSize = TN_RXBSZ_MIN;
  uint32_t frameMax = TN_MAXFRM_RESET;
  uint8_t mac[6] = {};
  uint32_t mta[2] = {};
  bool stalled = false;  // too few buffers: not reading the wire until TN_RDT moves
  uint32_t causes = 0;
  // One frame, as in Tx. All but the first element have bufSize bytes.
  iovec iov[kRxBufsMax + 1];
  uint32_t nbufs = 0;
  uint32_t vtag = 0;
  uint8_t vnetHdr[VNET_HDR_LEN] = {};
  Lro lro;
  // The buffers of the frame being delivered, for captures: those of `lro`, or Bufs().
  bool merged = false;

  iovec* Bufs() { return iov + 1; }
  uint8_t* Buf(uint32_t i) { return static_cast<uint8_t*>(iov[i + 1].iov_base); }
  uint32_t Avail() const { return tail >= head ? tail - head : tail + ndesc - head; }
  // Number of buffers for one byte more than the longest frame, so that a longer one is detected.
  uint32_t Needed() const { return frameMax / bufSize + 1; }
};

class Device {
 public:
  explicit Device(const Config& config);

  // Write and OnEvent run the device until it has no work left, and return TN_DO_* flags. `event`
  // is one of TN_EV_*.
  uint32_t Write(uint32_t off, uint32_t value);
  uint32_t OnEvent(uint32_t event);
  uint32_t Read(uint32_t off);

  // Disconnects the device from its wire, which was closed. Every later send fails.
  void Unplug() {
    c_.fd = -1;
    c_.source = nullptr;
  }
  // Connects the device to another wire.
  void Rewire(int fd, WireSource* source) {
    c_.fd = fd;
    c_.source = source;
  }
  const WireSource* source() const { return c_.source; }
  int fd() const { return c_.fd; }

  double stats[TN_NSTATS] = {};
  uint32_t reasons[TN_REASON_COUNT] = {};  // counts since the loop last fetched them
  int64_t nowNs = 0;                 // the machine's time, set by the loop where it matters
  int64_t timerNs = 0;

 private:
  // tn_device.cpp
  uint32_t Flags();
  bool WriteReg(uint32_t off, uint32_t value);
  bool WriteRing(uint32_t off, uint32_t value);
  bool WriteCtrl(uint32_t value);
  void WriteMac(uint32_t off, uint32_t value);
  uint32_t ReadRing(uint32_t off);
  uint32_t ReadStat(uint32_t off);
  uint32_t ReadStatus() const;
  void Reset();
  void SetModes(uint32_t ctrl);
  void Cause(uint32_t bits);
  void SetLink(bool up);
  void UpdateLine();
  void Count(uint32_t why);
  void Stop(Ring* ring, uint32_t cause);
  void SetReadable(bool on);
  uint8_t* Map(uint32_t lo, uint32_t hi, uint32_t len);

  // tn_tx.cpp
  void TxEnable();
  void TxDisable();
  bool TxSetTail(uint32_t slot);
  void TxWritable();
  void TxConsume();
  int TxFetch(uint8_t* ring);
  int TxSkip(uint8_t* ring);
  int TxDrop(uint8_t* ring, uint32_t n);
  void TxBad(const uint8_t* ring, uint32_t n);
  uint32_t TxCsum() const;
  void TxCaptureRing(const uint8_t* ring, uint32_t n);
  void TxComplete(uint8_t* ring, uint32_t status);
  void TxContext(const uint8_t* desc, uint32_t stat);
  bool TxPiece(const uint8_t* desc, uint32_t stat);
  int TxEmit();
  int TxWrite(int child);

  // tn_offload.cpp
  bool TxOffloadsValid() const;
  bool TxPrepare();
  void TxCopyHeaders(uint32_t len);
  void TxGather(uint32_t len);
  void TxAdvance(uint32_t len);
  uint32_t TxFill(uint32_t len);
  void TxPutHeaders();
  void TxPrefetch(uint32_t len) const;
  void TxVnetNeedsCsum(uint32_t field);
  void TxIpCksum();
  void TxInsertCksums();
  void TxPrepareTso();
  void TxLengths(uint32_t payload);
  void TxSegment(uint32_t payload, bool last);

  // tn_rx.cpp
  void RxEnable();
  void RxDisable();
  bool RxSetTail(uint32_t slot);
  void RxDrain();
  long RxRead();
  void RxWireBack();
  void RxWireGone();
  void RxStall();
  bool RxGather(uint8_t* ring);
  void RxWriteBack(uint8_t* ring, uint32_t len, uint32_t status, uint32_t id);
  void RxReceive(uint8_t* ring, uint32_t len);
  void RxDeliver(uint8_t* ring, uint32_t len, uint32_t status, uint32_t id);
  uint32_t RxId();
  uint32_t RxCsum(uint32_t status) const;
  void RxReject(uint32_t id, uint32_t len);
  void RxCaptureRing(const uint8_t* ring, uint32_t first, uint32_t n, uint32_t len, uint32_t status,
                     uint32_t id);
  bool RxAccepts(const uint8_t* frame) const;
  uint32_t RxSegments(uint32_t len) const;
  void RxStrip(uint32_t len);

  // tn_verdict.cpp
  uint32_t RxVerdict(uint32_t len);
  uint32_t RxVerdict4(uint32_t len, uint32_t l2);
  uint32_t RxVerdict6(uint32_t len, uint32_t l2);
  uint32_t RxL4Verdict(uint32_t len, uint32_t l4, int64_t l4Len, uint32_t proto, uint32_t addrSum,
                       uint32_t status);
  uint32_t RxSum(uint32_t off, uint32_t len, uint32_t sum);
  void RxFinishCsum(uint32_t len);

  // tn_lro.cpp
  bool RxMergeNext(uint8_t* ring, uint32_t len);
  bool RxCoalesce(uint8_t* ring, uint32_t len, uint32_t status);
  void RxFlush(uint8_t* ring);

  // tn_capture.cpp
  uint32_t CapturePoints() const;
  bool CaptureWants(uint32_t point) const { return (CapturePoints() & 1u << point) != 0; }
  bool CaptureEvents() const;
  void NoteFrame(uint32_t flags, uint32_t id);
  void Capture(uint32_t point, uint32_t flags, uint32_t pktId, const Facts& facts, const iovec* iov,
               uint32_t niov, uint32_t wirelen);
  void CaptureEvent(uint32_t point, uint32_t flags, uint32_t pktId, const Facts& facts);
  void CaptureDrop(uint32_t point, uint32_t flags, uint32_t pktId, uint32_t why, uint32_t len);
  uint8_t* BeginRecord(uint32_t point, uint32_t caplen, uint32_t metaLen);
  void EndRecord(const uint8_t* rec, uint32_t size);
  void PutMeta(uint8_t* to, const Facts& facts, uint32_t point, uint32_t flags,
               uint32_t pktId) const;
  void Stamp(uint8_t* rec) const;

  Config c_;
  Tx tx_;
  Rx rx_;
  uint32_t flags_ = 0;
  uint32_t ctrl_ = 0;
  uint32_t statHigh_ = 0;  // upper half of the counter whose lower half was read last
  uint32_t icr_ = 0, ims_ = 0;
  uint32_t itr_ = 0;  // TN_ITR in us
  bool linkUp_ = true;
  bool promisc_ = false, allmulti_ = false, vlStrip_ = false;
  bool rxCsum4_ = false, rxCsum6_ = false;
  bool lro_ = false;  // coalescing is enabled and possible
  bool asserted_ = false, timerArmed_ = false;
  bool everRaised_ = false;
  uint32_t received_ = 0;  // counter of the ids of received frames
  int64_t lastIntrNs_ = 0;
};

}  // namespace tapnic::tn
