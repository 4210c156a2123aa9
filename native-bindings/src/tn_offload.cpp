// Transmit offloads of `tn`: checks the driver's requests, copies headers to on-board memory and
// changes them there, inserts VLAN tag and checksums, and cuts TSO packets into segments. If it
// computes a checksum, it copies the payload too.
#include "cksum.h"
#include "tn_device.h"

namespace tapnic::tn {

namespace {
uint8_t* Base(const iovec& v) { return static_cast<uint8_t*>(v.iov_base); }
}  // namespace

// Whether the context's header lengths and commands are valid for this packet.
bool Device::TxOffloadsValid() const {
  const Tx& t = tx_;
  const bool tcp = (t.cmd & TN_TXD_TCP) != 0;
  const bool v6 = (t.cmd & TN_TXD_V6) != 0;
  const bool l4Wanted = (t.cmd & (TN_TXD_TXSM | TN_TXD_TSE)) != 0;
  if (t.l2 < ETHER_HDR_LEN || t.l3 % 4 != 0 || t.l3 < (v6 ? 40u : 20u)) return false;
  if (!v6 && t.l3 > 60) return false;
  if (l4Wanted && tcp && (t.l4 < 20 || t.l4 > 60 || t.l4 % 4 != 0)) return false;
  if (l4Wanted && !tcp && t.l4 != 8) return false;
  const uint32_t hdrLen = t.l2 + t.l3 + (l4Wanted ? t.l4 : 0);
  if (hdrLen + 4 > TN_HDR_MAX || hdrLen > t.total) return false;
  if ((t.cmd & TN_TXD_TSE) == 0) return true;
  return tcp && t.mss >= TN_MSS_MIN && hdrLen + 4 + t.mss <= TN_FRAME_MAX && t.total > hdrLen &&
         t.total - t.l2 <= 65535;
}

// Checks the packet and prepares its first frame. Returns false if the packet is bad.
bool Device::TxPrepare() {
  const bool offloads = (tx_.cmd & (TN_TXD_IXSM | TN_TXD_TXSM | TN_TXD_TSE)) != 0;
  const bool tso = (tx_.cmd & TN_TXD_TSE) != 0;
  const uint32_t total = tx_.total + (tx_.vle ? 4 : 0);
  if (tx_.npieces == 0 || tx_.total < ETHER_HDR_LEN) return false;
  if (!tso && total > TN_FRAME_MAX) return false;
  if (offloads && !TxOffloadsValid()) return false;
  tx_.pi = tx_.po = tx_.sent = tx_.segs = tx_.hdrLen = 0;
  tx_.active = true;
  if (offloads) {
    const bool l4Wanted = (tx_.cmd & (TN_TXD_TXSM | TN_TXD_TSE)) != 0;
    // A small frame is copied completely: writing one piece is faster than writing two.
    const bool small = !tso && tx_.total + 4 <= TN_HDR_MAX;
    TxCopyHeaders(small ? tx_.total : tx_.l2 + tx_.l3 + (l4Wanted ? tx_.l4 : 0));
  } else if (tx_.vle) {
    TxCopyHeaders(ETHER_HDR_LEN);
  }
  if (c_.vnet) memset(tx_.vnetHdr, 0, sizeof tx_.vnetHdr);
  if (tso) {
    TxPrepareTso();
  } else {
    TxGather(total - tx_.hdrLen);
    if (offloads) TxInsertCksums();
  }
  return true;
}

// Copies `len` header bytes to on-board memory, with the VLAN tag if one is to be inserted. The
// packet has at least `len` bytes.
void Device::TxCopyHeaders(uint32_t len) {
  uint8_t* hdr = tx_.hdr;
  uint32_t n = 0;
  while (n < len) {
    const iovec& piece = tx_.pieces[tx_.pi];
    const auto left = static_cast<uint32_t>(piece.iov_len) - tx_.po;
    const uint32_t c = left < len - n ? left : len - n;
    memcpy(hdr + n, Base(piece) + tx_.po, c);
    n += c;
    tx_.po += c;
    if (c == left) {
      tx_.pi++;
      tx_.po = 0;
    }
  }
  if (tx_.vle) {
    memmove(hdr + 16, hdr + 12, len - 12);
    PutBe16(hdr + 12, ETHERTYPE_VLAN);
    PutBe16(hdr + 14, tx_.vtag);
    n += 4;
    tx_.l2 += 4;
  }
  tx_.hdrLen = n;
}

// Lists the headers and the next `len` payload bytes as one frame, without advancing the position.
void Device::TxGather(uint32_t len) {
  iovec* frame = tx_.Frame();
  int n = 0;
  if (tx_.hdrLen > 0) frame[n++] = {tx_.hdr, tx_.hdrLen};
  uint32_t po = tx_.po, left = len;
  for (uint32_t pi = tx_.pi; left > 0; pi++, po = 0) {
    const iovec& piece = tx_.pieces[pi];
    const auto rest = static_cast<uint32_t>(piece.iov_len) - po;
    const uint32_t c = rest < left ? rest : left;
    frame[n++] = {Base(piece) + po, c};
    left -= c;
  }
  tx_.frameLen = tx_.hdrLen + len;
  tx_.niov = n;
}

// Advances the position by `len` payload bytes.
void Device::TxAdvance(uint32_t len) {
  while (len > 0) {
    const auto left = static_cast<uint32_t>(tx_.pieces[tx_.pi].iov_len) - tx_.po;
    if (len < left) {
      tx_.po += len;
      return;
    }
    len -= left;
    tx_.pi++;
    tx_.po = 0;
  }
}

// Copies the next `len` payload bytes to on-board memory and lists the frame there, without advancing
// the position; TxPutHeaders completes it. Returns the folded sum of the bytes. The copy costs little
// next to the sum, and Linux takes one contiguous frame in less time than a list of pieces.
uint32_t Device::TxFill(uint32_t len) {
  uint8_t* to = tx_.fifo + Tx::kPayload;
  PieceSum sum(0);
  uint32_t po = tx_.po, left = len;
  for (uint32_t pi = tx_.pi; left > 0; pi++, po = 0) {
    const iovec& piece = tx_.pieces[pi];
    const auto rest = static_cast<uint32_t>(piece.iov_len) - po;
    const uint32_t c = rest < left ? rest : left;
    sum.AddCopy(to, Base(piece) + po, c);
    to += c;
    left -= c;
  }
  tx_.frameLen = tx_.hdrLen + len;
  tx_.Frame()[0] = {tx_.fifo + Tx::kPayload - tx_.hdrLen, tx_.frameLen};
  tx_.niov = 1;
  return sum.Folded();
}

void Device::TxPutHeaders() { memcpy(Base(tx_.Frame()[0]), tx_.hdr, tx_.hdrLen); }

// Prefetches the payload of the next segment while Linux receives the current one. `len` bytes of the
// position belong to the current one.
void Device::TxPrefetch(uint32_t len) const {
  uint32_t pi = tx_.pi, off = tx_.po + len, left = tx_.mss;
  for (; pi < tx_.npieces && off >= tx_.pieces[pi].iov_len; pi++)
    off -= static_cast<uint32_t>(tx_.pieces[pi].iov_len);
  for (; pi < tx_.npieces && left > 0; pi++, off = 0) {
    const uint8_t* p = Base(tx_.pieces[pi]) + off;
    const auto rest = static_cast<uint32_t>(tx_.pieces[pi].iov_len) - off;
    const uint32_t n = rest < left ? rest : left;
    for (uint32_t i = 0; i < n; i += 64) __builtin_prefetch(p + i);
    left -= n;
  }
}

// Requests the TCP or UDP checksum from the peer. The checksum field holds the pseudo-header's sum.
void Device::TxVnetNeedsCsum(uint32_t field) {
  tx_.vnetHdr[0] = VNET_F_NEEDS_CSUM;
  PutLe16(tx_.vnetHdr + 6, tx_.l2 + tx_.l3);
  PutLe16(tx_.vnetHdr + 8, field);
}

void Device::TxIpCksum() {
  uint8_t* ip = tx_.Ip();
  PutBe16(ip + 10, 0);
  PutBe16(ip + 10, ~CksumAdd(ip, tx_.l3, 0));
}

// Inserts the checksums of a packet that is one frame.
void Device::TxInsertCksums() {
  if ((tx_.cmd & (TN_TXD_IXSM | TN_TXD_V6)) == TN_TXD_IXSM) TxIpCksum();
  if ((tx_.cmd & TN_TXD_TXSM) == 0) return;
  const bool tcp = (tx_.cmd & TN_TXD_TCP) != 0;
  const uint32_t field = tcp ? TCP_CKSUM_OFF : UDP_CKSUM_OFF;
  if (c_.vnet) {
    TxVnetNeedsCsum(field);
    return;
  }
  // The field holds the pseudo-header's sum, so this sum includes it.
  const uint32_t data = TxFill(tx_.PayloadLen());
  // All of a small frame is in `hdr`; of others only the headers, whose length is even.
  const uint32_t head = tx_.hdrLen - tx_.l2 - tx_.l3;
  uint32_t sum = ~Fold16(CksumAdd(tx_.L4(), head, 0) + data) & 0xffff;
  if (sum == 0 && !tcp) sum = 0xffff;  // RFC 768, RFC 8200: 0 means no checksum
  PutBe16(tx_.L4() + field, sum);
  TxPutHeaders();
}

// Reads the values for the segments' headers from the packet's headers. Does not use the checksum
// field.
void Device::TxPrepareTso() {
  const uint8_t* ip = tx_.Ip();
  uint8_t* tcp = tx_.L4();
  const bool v6 = (tx_.cmd & TN_TXD_V6) != 0;
  stats[TN_ST_TX_TSO]++;
  tx_.seq0 = Be32(tcp + 4);
  tx_.thFlags = tcp[13];
  tx_.ipId0 = v6 ? 0 : Be16(ip + 4);
  tx_.pseudo = Fold16((v6 ? CksumAdd(ip + 8, 32, 0) : CksumAdd(ip + 12, 8, 0)) + IPPROTO_TCP);
  if (!c_.vnet) {
    PutBe32(tcp + 4, 0);
    tcp[13] = 0;
    PutBe16(tcp + TCP_CKSUM_OFF, 0);
    tx_.l4Sum = tx_.pseudo + tx_.l4 + CksumAdd(tcp, tx_.l4, 0);
    if (v6) return;
    PutBe16(tx_.Ip() + 2, 0);
    PutBe16(tx_.Ip() + 4, 0);
    PutBe16(tx_.Ip() + 10, 0);
    tx_.ipSum = CksumAdd(ip, tx_.l3, 0);
    return;
  }
  const uint32_t payload = tx_.PayloadLen();
  TxGather(payload);
  TxLengths(payload);
  PutBe16(tcp + TCP_CKSUM_OFF, Fold16(tx_.pseudo + tx_.l4 + payload));
  TxVnetNeedsCsum(TCP_CKSUM_OFF);
  if (payload <= tx_.mss) return;
  const uint8_t ecn = (tx_.thFlags & TH_CWR) != 0 ? VNET_GSO_ECN : 0;
  tx_.vnetHdr[1] = (v6 ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4) | ecn;
  PutLe16(tx_.vnetHdr + 2, tx_.hdrLen);
  PutLe16(tx_.vnetHdr + 4, tx_.mss);
}

// Writes the IP lengths for `payload` bytes of TCP data, and the IPv4 header checksum.
void Device::TxLengths(uint32_t payload) {
  uint8_t* ip = tx_.Ip();
  if ((tx_.cmd & TN_TXD_V6) != 0) {
    PutBe16(ip + 4, tx_.l3 - 40 + tx_.l4 + payload);
  } else {
    PutBe16(ip + 2, tx_.l3 + tx_.l4 + payload);
    TxIpCksum();
  }
}

// Makes the next segment of a TSO packet: updates the headers and copies the payload.
void Device::TxSegment(uint32_t payload, bool last) {
  uint8_t* ip = tx_.Ip();
  uint8_t* tcp = tx_.L4();
  uint32_t flags = tx_.thFlags;
  if (!last) flags &= ~(TH_FIN | TH_PUSH);
  if (tx_.segs > 0) flags &= ~TH_CWR;  // RFC 3168, 6.1.2: CWR is set only in the first segment
  const uint32_t len = tx_.l3 + tx_.l4 + payload;
  if ((tx_.cmd & TN_TXD_V6) != 0) {
    PutBe16(ip + 4, len - 40);
  } else {
    const uint32_t id = (tx_.ipId0 + tx_.segs) & 0xffff;
    PutBe16(ip + 2, len);
    PutBe16(ip + 4, id);
    PutBe16(ip + 10, ~Fold16(tx_.ipSum + len + id));
  }
  const uint32_t seq = tx_.seq0 + tx_.sent;
  PutBe32(tcp + 4, seq);
  tcp[13] = static_cast<uint8_t>(flags);
  const uint32_t sum = tx_.l4Sum + payload + (seq >> 16) + (seq & 0xffff) + flags;
  PutBe16(tcp + TCP_CKSUM_OFF, ~Fold16(sum + TxFill(payload)));
  TxPutHeaders();
  if (!last) TxPrefetch(payload);
}

}  // namespace tapnic::tn
