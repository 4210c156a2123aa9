// The owner of a frame: see flow_owner.h.
#include "flow_owner.h"

#include "tn_device.h"

namespace tapnic {

namespace {

using tn::Be16;
using tn::Be32;

constexpr uint32_t kTcp = 6, kIcmp = 1, kIcmp6 = 58;
constexpr int kHeadersMax = 8;  // IPv6 extension headers that are skipped

uint32_t Rotl(uint32_t v, int n) { return v << n | v >> (32 - n); }

// One step of MurmurHash3 (x86, 32 bits).
uint32_t Mix(uint32_t h, uint32_t word) {
  h ^= Rotl(word * 0xcc9e2d51u, 15) * 0x1b873593u;
  return Rotl(h, 13) * 5 + 0xe6546b64u;
}

// The worker of a connection: addresses of `words` 32-bit words, ours last.
int OfFlow(const FlowRule& rule, const uint8_t* remote, const uint8_t* local, int words,
           uint32_t rport) {
  uint32_t h = rule.seed;
  for (int i = 0; i < words; i++) h = Mix(h, Be32(remote + 4 * i));
  for (int i = 0; i < words; i++) h = Mix(h, Be32(local + 4 * i));
  h = Mix(h, rport << 16 | rule.port);
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  h ^= h >> 16;
  return static_cast<int>(uint64_t{h} * rule.workers >> 32);
}

// A packet of TCP, whose ports are at `l4`. `quoted`: the packet is one that we sent.
int OfTcp(const FlowRule& rule, const uint8_t* p, size_t len, size_t src, int words, size_t l4,
          bool quoted) {
  if (l4 + 4 > len) return 0;
  const size_t dst = src + 4 * static_cast<size_t>(words);
  const uint32_t sport = Be16(p + l4), dport = Be16(p + l4 + 2);
  if ((quoted ? sport : dport) != rule.port) return 0;
  return quoted ? OfFlow(rule, p + dst, p + src, words, dport)
                : OfFlow(rule, p + src, p + dst, words, sport);
}

int OfIp4(const FlowRule& rule, const uint8_t* p, size_t len, size_t ip, bool quoted) {
  if (ip + 20 > len) return 0;
  const size_t l4 = ip + (p[ip] & 15u) * 4u;
  const uint32_t frag = Be16(p + ip + 6), proto = p[ip + 9];
  if (l4 < ip + 20) return 0;
  if (quoted) return proto == kTcp && (frag & 0x1fff) == 0 ? OfTcp(rule, p, len, ip + 12, 1, l4, true) : 0;
  if ((frag & 0x3fff) != 0) return proto == kTcp ? kEveryWorker : 0;
  if (proto == kTcp) return OfTcp(rule, p, len, ip + 12, 1, l4, false);
  if (proto != kIcmp || l4 + 8 > len) return 0;
  const uint32_t type = p[l4];
  const bool error = type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
  return error ? OfIp4(rule, p, len, l4 + 8, true) : 0;
}

int OfIp6(const FlowRule& rule, const uint8_t* p, size_t len, size_t ip, bool quoted) {
  if (ip + 40 > len) return 0;
  uint32_t nxt = p[ip + 6];
  size_t at = ip + 40;
  for (int i = 0; i < kHeadersMax && at + 8 <= len; i++) {
    if (nxt == 44) {
      const uint32_t frag = Be16(p + at + 2);
      if (quoted && (frag & 0xfff8) != 0) return 0;
      if (!quoted && (frag & 0xfff9) != 0) return p[at] == kTcp ? kEveryWorker : 0;
      nxt = p[at];
      at += 8;
    } else if (nxt == 0 || nxt == 43 || nxt == 60) {
      nxt = p[at];
      at += (p[at + 1] + 1u) * 8u;
    } else {
      break;
    }
  }
  if (nxt == kTcp) return OfTcp(rule, p, len, ip + 8, 4, at, quoted);
  if (quoted || nxt != kIcmp6 || at + 8 > len) return 0;
  const uint32_t type = p[at];
  if (type >= 133 && type <= 137) return kEveryWorker;
  return type < 128 ? OfIp6(rule, p, len, at + 8, true) : 0;
}

}  // namespace

int FlowOwner(const FlowRule& rule, const uint8_t* p, size_t len) {
  if (len < 18) return 0;
  const bool tagged = Be16(p + 12) == tn::ETHERTYPE_VLAN;
  const uint32_t type = Be16(p + (tagged ? 16 : 12));
  const size_t l3 = tagged ? 18 : 14;
  if (type == 0x0806) return kEveryWorker;
  if (type == 0x0800) return OfIp4(rule, p, len, l3, false);
  return type == 0x86dd ? OfIp6(rule, p, len, l3, false) : 0;
}

}  // namespace tapnic
