// Receive checksums of `tn`: verifies those of a frame, and computes the checksum that a virtio-net
// peer left out.
#include "cksum.h"
#include "tn_device.h"

namespace tapnic::tn {

namespace {
// Whether the device skips IPv6 extension header `proto`, number `n` of its chain. Hop-by-hop
// options are valid only directly after the IPv6 header.
bool Skipped(uint32_t proto, uint32_t n) {
  return (proto == IPPROTO_HOPOPTS && n == 0) || proto == IPPROTO_ROUTING ||
         proto == IPPROTO_DSTOPTS;
}
}  // namespace

// Verifies the checksums of the frame in the listed buffers and returns the status bits, 0 for an
// IP version whose verification is off. The headers are in the first buffer: at most 18 bytes of
// Ethernet, TN_RX_L3_MAX of IP, 8 of UDP.
uint32_t Device::RxVerdict(uint32_t len) {
  const uint8_t* frame = rx_.Buf(0);
  uint32_t l2 = ETHER_HDR_LEN;
  uint32_t type = Be16(frame + 12);
  if (type == ETHERTYPE_VLAN && len >= ETHER_HDR_LEN + 4) {
    type = Be16(frame + 16);
    l2 += 4;
  }
  if (type == ETHERTYPE_IP && rxCsum4_) return RxVerdict4(len, l2);
  if (type == ETHERTYPE_IPV6 && rxCsum6_) return RxVerdict6(len, l2);
  return 0;
}

// `l2` is the offset of the IPv4 header.
uint32_t Device::RxVerdict4(uint32_t len, uint32_t l2) {
  const uint8_t* ip = rx_.Buf(0) + l2;
  if (len < l2 + 20) return 0;
  const uint32_t first = ip[0];
  const uint32_t hlen = (first & 0xf) * 4;
  if (first >> 4 != 4 || hlen < 20 || len < l2 + hlen) return 0;
  if (CksumAdd(ip, hlen, 0) != 0xffff) {
    stats[TN_ST_RX_IP_ERROR]++;
    return TN_RXS_IPCS | TN_RXS_IPE;
  }
  // A fragment's TCP or UDP checksum cannot be verified: it covers the whole datagram.
  if ((Be16(ip + 6) & 0x3fff) != 0) return TN_RXS_IPCS;
  const int64_t payload = int64_t{Be16(ip + 2)} - hlen;
  return RxL4Verdict(len, l2 + hlen, payload, ip[9], CksumAdd(ip + 12, 8, 0), TN_RXS_IPCS);
}

// Skips extension headers, RFC 8200, section 4. A chain past the limits or with an unknown header
// gets no verdict, nor does a fragment: its TCP or UDP checksum covers the whole datagram. `l2` is
// the offset of the IPv6 header.
uint32_t Device::RxVerdict6(uint32_t len, uint32_t l2) {
  const uint8_t* ip = rx_.Buf(0) + l2;
  if (len < l2 + 40 || ip[0] >> 4 != 6) return 0;
  const uint32_t total = 40 + Be16(ip + 4);
  const uint32_t end = total < len - l2 ? total : len - l2;
  uint32_t proto = ip[6], l3 = 40;
  for (uint32_t n = 0; Skipped(proto, n); n++) {
    const uint8_t* at = ip + l3;
    if (n == TN_RX_EXTHDRS || l3 + 8 > end) return 0;
    // With segments left, the pseudo-header has another destination than the IPv6 header.
    if (proto == IPPROTO_ROUTING && at[3] != 0) return 0;
    proto = at[0];
    l3 += (at[1] + 1u) * 8;
    if (l3 > TN_RX_L3_MAX) return 0;
  }
  const int64_t l4Len = int64_t{total} - l3;
  return RxL4Verdict(len, l2 + l3, l4Len, proto, CksumAdd(ip + 8, 32, 0), 0);
}

// `l4` is the offset of the TCP or UDP header. `l4Len` is the length of that header and its data,
// from the IP header.
uint32_t Device::RxL4Verdict(uint32_t len, uint32_t l4, int64_t l4Len, uint32_t proto,
                             uint32_t addrSum, uint32_t status) {
  const bool udp = proto == IPPROTO_UDP;
  if (!udp && proto != IPPROTO_TCP) return status;
  if (l4Len < (udp ? 8 : 20) || l4 + l4Len > len) return status;
  const auto n = static_cast<uint32_t>(l4Len);
  const uint8_t* at = rx_.Buf(0) + l4;
  if (udp && Be16(at + 4) != n) return status;
  if (udp && Be16(at + 6) == 0) return status;  // RFC 768, RFC 8200: none was computed
  // VIRTIO 1.1, 5.1.6.4: either flag means that the data are unchanged since the sender.
  if (c_.vnet && (rx_.vnetHdr[0] & (VNET_F_NEEDS_CSUM | VNET_F_DATA_VALID)) != 0)
    return status | TN_RXS_L4CS;
  if (RxSum(l4, n, Fold16(addrSum + proto + n)) == 0xffff) return status | TN_RXS_L4CS;
  stats[TN_ST_RX_L4_ERROR]++;
  return status | TN_RXS_L4CS | TN_RXS_L4E;
}

// Adds `len` bytes of the frame, starting at byte `off`, to `sum`. Returns the folded sum.
uint32_t Device::RxSum(uint32_t off, uint32_t len, uint32_t sum) {
  const uint32_t size = rx_.bufSize;
  PieceSum s(sum);
  for (uint32_t i = off / size; len > 0; i++) {
    const uint32_t skip = off % size;
    const uint32_t n = size - skip < len ? size - skip : len;
    s.Add(rx_.Buf(i) + skip, n);
    off += n;
    len -= n;
  }
  return s.Folded();
}

// Computes the checksum that the peer left out, for a frame without a TCP or UDP verdict.
void Device::RxFinishCsum(uint32_t len) {
  if ((rx_.vnetHdr[0] & VNET_F_NEEDS_CSUM) == 0) return;
  const uint32_t start = Le16(rx_.vnetHdr + 6);
  const uint32_t field = start + Le16(rx_.vnetHdr + 8);
  const uint32_t room = len < rx_.bufSize ? len : rx_.bufSize;
  if (start < ETHER_HDR_LEN || field + 2 > room) return;
  const uint32_t sum = ~RxSum(start, len - start, 0) & 0xffff;
  PutBe16(rx_.Buf(0) + field, sum == 0 ? 0xffff : sum);
}

}  // namespace tapnic::tn
