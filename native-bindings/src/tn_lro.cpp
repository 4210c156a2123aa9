// Receive coalescing of `tn`, datasheet section 6.5: consecutive segments of one TCP connection
// become one frame, and so do consecutive acknowledgments without data. The headers of the current
// frame are kept in on-board memory. Its data stay in the buffers that received them. The data of each
// further segment are moved to their end.
#include "cksum.h"
#include "tn_device.h"

namespace tapnic::tn {

namespace {
constexpr uint32_t kHdrMin = 14 + 20 + 20;
constexpr uint32_t kIpLenMax = 65535;
// First word of options that are NOP, NOP and a time stamp, RFC 7323, appendix A.
constexpr uint32_t kTsWord = 0x0101080a;

// Sums a pseudo-header and the TCP header, not folded.
uint32_t HeaderSum(const uint8_t* hdr, uint32_t l3, uint32_t l4, uint32_t l4Len) {
  const uint8_t* ip = hdr + ETHER_HDR_LEN;
  const uint32_t addrs = l3 == 20 ? CksumAdd(ip + 12, 8, 0) : CksumAdd(ip + 8, 32, 0);
  return addrs + IPPROTO_TCP + l4Len + CksumAdd(ip + l3, l4, 0);
}

// The sum of the `len` bytes of a header, a multiple of 4, as CksumAdd computes it.
uint32_t SumWords(const uint8_t* p, uint32_t len) {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < len; i += 2) sum += Be16(p + i);
  return Fold16(sum);
}

// Whether the 32-bit number at `a` is equal to or after the one at `b`, modulo 2^32.
bool NotBefore(const uint8_t* a, const uint8_t* b) {
  return static_cast<int32_t>(Be32(a) - Be32(b)) >= 0;
}
}  // namespace

// Whether the headers of the frame of `len` bytes allow coalescing. The buffer may be longer than
// `len`.
bool Lro::Eligible(const uint8_t* frame, uint32_t len, uint32_t verdict) {
  if ((verdict & ~TN_RXS_IPCS) != TN_RXS_L4CS || len < kHdrMin) return false;
  memcpy(seg, frame, len < sizeof seg ? len : sizeof seg);
  const uint32_t type = Be16(seg + 12);
  const uint8_t* ip = seg + ETHER_HDR_LEN;
  const bool v4 = type == ETHERTYPE_IP;
  if (!v4 && type != ETHERTYPE_IPV6) return false;
  if (v4 ? ip[0] != 0x45 : ip[0] >> 4 != 6) return false;
  if (ip[v4 ? 9 : 6] != IPPROTO_TCP) return false;
  const uint32_t ipLen = v4 ? Be16(ip + 2) : Be16(ip + 4) + 40;
  if (ETHER_HDR_LEN + ipLen != len) return false;
  const uint32_t hlen = v4 ? 20 : 40;
  const uint8_t* th = ip + hlen;
  const uint32_t thLen = (th[12] >> 4) * 4u;
  if ((th[12] & 0xf) != 0 || (thLen != 20 && thLen != 32)) return false;
  if (ipLen < hlen + thLen) return false;
  if (thLen == 32 && Be32(th + 20) != kTsWord) return false;
  if ((th[13] & ~TH_PUSH) != TH_ACK) return false;
  segL3 = hlen;
  segL4 = thLen;
  segLen = len;
  segStatus = verdict;
  pushed = (th[13] & TH_PUSH) != 0;
  return true;
}

// The sum of the segment's data, computed from its headers: the sum of a verified segment is
// 0xffff.
uint32_t Lro::PayloadSum() const {
  return ~Fold16(HeaderSum(seg, segL3, segL4, segLen - ETHER_HDR_LEN - segL3)) & 0xffff;
}

// Starts a frame with the segment in `from`.
void Lro::Hold(const iovec* from, uint32_t bufSize) {
  memcpy(hdr, seg, sizeof hdr);
  l3 = segL3;
  l4 = segL4;
  len = segLen;
  segs = 1;
  ids[0] = segId;
  status = segStatus;
  nbufs = (len + bufSize - 1) / bufSize;
  for (uint32_t i = 0; i < nbufs; i++) bufs[i] = static_cast<uint8_t*>(from[i].iov_base);
  next = Be32(hdr + ETHER_HDR_LEN + l3 + 4) + SegPayload();
  sum = PayloadSum();
  const uint8_t* ip = hdr + ETHER_HDR_LEN;
  pseudo = (l3 == 20 ? CksumAdd(ip + 12, 8, 0) : CksumAdd(ip + 8, 32, 0)) + IPPROTO_TCP;
}

// Whether the segment is the next one of the current frame.
bool Lro::Continues() const {
  if (segL3 != l3 || segL4 != l4 || segs >= TN_RXS_SEGS_MASK) return false;
  if (len - ETHER_HDR_LEN + SegPayload() > kIpLenMax) return false;
  const uint8_t* a = seg + ETHER_HDR_LEN + l3;
  const uint8_t* b = hdr + ETHER_HDR_LEN + l3;
  if (Be32(a + 4) != next || !SameFlow() || !SameKind(SegPayload(), a)) return false;
  return NotBefore(a + 8, b + 8) && (l4 == 20 || NotBefore(a + 24, b + 24));
}

// Data continue data. An acknowledgment continues one if it acknowledges more: equal ones are duplicates,
// which the receiver counts, or window updates.
bool Lro::SameKind(uint32_t payload, const uint8_t* th) const {
  if (len > ETHER_HDR_LEN + l3 + l4) return payload > 0;
  return payload == 0 && Be32(th + 8) != Be32(hdr + ETHER_HDR_LEN + l3 + 8);
}

// Compares the Ethernet header, the first word of the IP header without the length, then flags,
// offset, TTL, addresses and ports.
bool Lro::SameFlow() const {
  const auto same = [this](uint32_t off, uint32_t n) {
    return memcmp(seg + off, hdr + off, n) == 0;
  };
  return l3 == 20 ? same(0, 16) && same(20, 3) && same(26, 12) : same(0, 18) && same(21, 37);
}

// Moves `n` bytes at offset `at` of the segment to the end of the current frame.
void Lro::Append(const iovec* from, uint32_t bufSize, uint32_t at, uint32_t n) {
  uint32_t to = len;
  while (n > 0) {
    const uint32_t src = at % bufSize, dst = to % bufSize;
    uint32_t k = bufSize - (src > dst ? src : dst);
    if (k > n) k = n;
    memmove(bufs[to / bufSize] + dst,
            static_cast<const uint8_t*>(from[at / bufSize].iov_base) + src, k);
    at += k;
    to += k;
    n -= k;
  }
}

// Appends the segment, which is in the `count` buffers `from` after those of the current frame.
// Returns false, without a change, if the segment does not continue the frame.
bool Lro::Merge(const iovec* from, uint32_t count, uint32_t bufSize) {
  if (!Continues()) return false;
  const uint32_t payload = SegPayload();
  for (uint32_t i = 0; i < count; i++) bufs[nbufs + i] = static_cast<uint8_t*>(from[i].iov_base);
  Append(from, bufSize, segLen - payload, payload);
  Advance(payload, PayloadSum(), bufSize);
  return true;
}

// Updates the current frame after `payload` bytes of the segment were appended.
void Lro::Advance(uint32_t payload, uint32_t s, uint32_t bufSize) {
  sum = Fold16(sum + ((len & 1) != 0 ? CksumSwapHalves(s) : s));  // headers are even
  len += payload;
  ids[segs] = segId;
  segs++;
  nbufs = (len + bufSize - 1) / bufSize;
  next += payload;
  uint8_t* to = hdr + ETHER_HDR_LEN + l3;
  const uint8_t* th = seg + ETHER_HDR_LEN + l3;
  memcpy(to + 8, th + 8, 4);  // acknowledgement
  to[13] |= th[13];
  memcpy(to + 14, th + 14, 2);  // window
  if (l4 == 32) memcpy(to + 24, th + 24, 8);
}

// Does the same as verification, Eligible and Merge, at less cost, for the most frequent case: a valid
// segment that continues the current frame, is in one buffer, and whose data fit the frame's last
// buffer. Returns false, without a change, in every other case.
bool Lro::MergeNext(const uint8_t* frame, uint32_t frameLen, uint32_t bufSize) {
  const uint32_t headers = ETHER_HDR_LEN + l3 + l4;
  if (frameLen < headers || frameLen > bufSize || segs >= TN_RXS_SEGS_MASK) return false;
  const uint32_t payload = frameLen - headers, at = len % bufSize;
  if (at == 0 || payload > bufSize - at || len - ETHER_HDR_LEN + payload > kIpLenMax) return false;
  memcpy(seg, frame, sizeof seg);  // a buffer is longer
  const uint8_t* ip = seg + ETHER_HDR_LEN;
  const uint8_t* th = ip + l3;
  const uint32_t ipLen = frameLen - ETHER_HDR_LEN;
  if (Be32(th + 4) != next || !SameFlow() || !SameKind(payload, th)) return false;
  if (l3 == 20) {
    if (Be16(ip + 2) != ipLen || ip[9] != IPPROTO_TCP || SumWords(ip, 20) != 0xffff) return false;
  } else if (Be16(ip + 4) + 40 != ipLen || ip[6] != IPPROTO_TCP) {
    return false;
  }
  if (th[12] != l4 / 4 << 4 || (th[13] & ~TH_PUSH) != TH_ACK) return false;
  const uint8_t* held = hdr + ETHER_HDR_LEN + l3;
  if (!NotBefore(th + 8, held + 8)) return false;
  if (l4 == 32 && (Be32(th + 20) != kTsWord || !NotBefore(th + 24, held + 24))) return false;
  const uint32_t headerSum = Fold16(pseudo + ipLen - l3 + SumWords(th, l4));
  if (CksumAdd(frame + headers, payload, headerSum) != 0xffff) return false;
  memmove(bufs[nbufs - 1] + at, frame + headers, payload);
  segL3 = l3;
  segL4 = l4;
  segLen = frameLen;
  segStatus = status;
  pushed = (th[13] & TH_PUSH) != 0;
  Advance(payload, ~headerSum & 0xffff, bufSize);
  return true;
}

// Completes the headers of the current frame and ends it. Returns its status bits.
uint32_t Lro::Finish() {
  nbufs = 0;
  if (segs == 1) return status;
  uint8_t* ip = hdr + ETHER_HDR_LEN;
  const uint32_t ipLen = len - ETHER_HDR_LEN;
  if (l3 == 20) {
    PutBe16(ip + 2, ipLen);
    PutBe16(ip + 10, 0);
    PutBe16(ip + 10, ~CksumAdd(ip, 20, 0) & 0xffff);
  } else {
    PutBe16(ip + 4, ipLen - 40);
  }
  uint8_t* th = ip + l3;
  PutBe16(th + 16, 0);
  PutBe16(th + 16, ~Fold16(HeaderSum(hdr, l3, l4, ipLen - l3) + sum) & 0xffff);
  memcpy(bufs[0], hdr, ETHER_HDR_LEN + l3 + l4);
  return status | segs << TN_RXS_SEGS_SHIFT;
}

// Receives a frame that simply continues the one being coalesced. Returns false, without a change,
// for every other frame.
bool Device::RxMergeNext(uint8_t* ring, uint32_t len) {
  Lro& lro = rx_.lro;
  if (len > rx_.frameMax || CaptureWants(CAPTURE_WIRE)) return false;
  if (!lro.MergeNext(rx_.Buf(0), len, rx_.bufSize)) return false;
  if (lro.pushed) RxFlush(ring);
  return true;
}

// Tries to coalesce a frame. Returns false if the caller must deliver it; a frame being coalesced
// was then delivered first.
bool Device::RxCoalesce(uint8_t* ring, uint32_t len, uint32_t status) {
  Lro& lro = rx_.lro;
  if (!lro.Eligible(rx_.Buf(0), len, status)) {
    RxFlush(ring);
    return false;
  }
  if (lro.nbufs > 0) {
    if (lro.Merge(rx_.Bufs(), rx_.nbufs, rx_.bufSize)) {
      if (lro.pushed) RxFlush(ring);
      return true;
    }
    RxFlush(ring);
  }
  if (lro.pushed) return false;
  lro.Hold(rx_.Bufs(), rx_.bufSize);
  return true;
}

// Delivers the frame being coalesced, if any.
void Device::RxFlush(uint8_t* ring) {
  Lro& lro = rx_.lro;
  if (lro.nbufs == 0) return;
  uint32_t id = lro.ids[0];
  if (lro.segs > 1) {
    stats[TN_ST_RX_LRO]++;
    stats[TN_ST_RX_LRO_SEGMENTS] += lro.segs;
    if (id != 0) id = RxId();
  }
  rx_.merged = true;
  RxDeliver(ring, lro.len, lro.Finish(), id);
  rx_.merged = false;
}

}  // namespace tapnic::tn
