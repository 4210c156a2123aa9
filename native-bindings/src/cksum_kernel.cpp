// The Internet checksum's inner loops (RFC 1071), without and with a copy: with AVX2 if the processor has it, otherwise in
// 64-bit words.
//
// RFC 1071 section 2 (B): the sum does not depend on the byte order, so the loop adds words in
// memory order and the result is swapped once at the end.
#include <string.h>

#include "cksum.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tapnic {

namespace {

uint32_t Fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint32_t>(sum);
}

// End-around carry addition of 64-bit words is a sum of their 16-bit words modulo 0xffff.
uint64_t AddCarry(uint64_t sum, uint64_t word) {
  sum += word;
  return sum + (sum < word);
}

uint64_t SumScalar(const uint8_t* p, size_t len, uint64_t sum) {
  uint64_t w;
  for (; len >= 32; p += 32, len -= 32) {
    for (int i = 0; i < 4; i++) {
      memcpy(&w, p + 8 * i, 8);
      sum = AddCarry(sum, w);
    }
  }
  for (; len >= 8; p += 8, len -= 8) {
    memcpy(&w, p, 8);
    sum = AddCarry(sum, w);
  }
  w = 0;
  memcpy(&w, p, len);  // fewer than 8 bytes; the missing ones count as 0
  return AddCarry(sum, w);
}

// As SumScalar; `to` and `p` do not overlap.
uint64_t CopyScalar(uint8_t* __restrict to, const uint8_t* __restrict p, size_t len, uint64_t sum) {
  uint64_t w;
  for (; len >= 8; p += 8, to += 8, len -= 8) {
    memcpy(&w, p, 8);
    memcpy(to, &w, 8);
    sum = AddCarry(sum, w);
  }
  w = 0;
  memcpy(&w, p, len);
  memcpy(to, &w, len);
  return AddCarry(sum, w);
}

#if defined(__x86_64__)
// Widens 32-bit lanes to 64 bits. A step adds at most 2 * (2^32-1) to a lane, so lanes cannot
// overflow in 2^31 steps.
__attribute__((target("avx2"))) uint64_t SumAvx2(const uint8_t* p, size_t len, uint64_t sum) {
  const __m256i zero = _mm256_setzero_si256();
  __m256i acc[4] = {zero, zero, zero, zero};
  for (; len >= 128; p += 128, len -= 128) {
    for (int i = 0; i < 4; i++) {
      const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32 * i));
      acc[i] = _mm256_add_epi64(acc[i], _mm256_unpacklo_epi32(v, zero));
      acc[i] = _mm256_add_epi64(acc[i], _mm256_unpackhi_epi32(v, zero));
    }
  }
  const __m256i all =
      _mm256_add_epi64(_mm256_add_epi64(acc[0], acc[1]), _mm256_add_epi64(acc[2], acc[3]));
  alignas(32) uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), all);
  for (const uint64_t lane : lanes) sum = AddCarry(sum, lane);
  return SumScalar(p, len, sum);
}

__attribute__((target("avx2"))) uint64_t CopyAvx2(uint8_t* __restrict to,
                                                  const uint8_t* __restrict p, size_t len,
                                                  uint64_t sum) {
  const __m256i zero = _mm256_setzero_si256();
  __m256i acc[2] = {zero, zero};
  for (; len >= 64; p += 64, to += 64, len -= 64) {
    for (int i = 0; i < 2; i++) {
      const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32 * i));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32 * i), v);
      acc[i] = _mm256_add_epi64(acc[i], _mm256_unpacklo_epi32(v, zero));
      acc[i] = _mm256_add_epi64(acc[i], _mm256_unpackhi_epi32(v, zero));
    }
  }
  alignas(32) uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), _mm256_add_epi64(acc[0], acc[1]));
  for (const uint64_t lane : lanes) sum = AddCarry(sum, lane);
  return CopyScalar(to, p, len, sum);
}
#endif

using Kernel = uint64_t (*)(const uint8_t*, size_t, uint64_t);
using CopyKernel = uint64_t (*)(uint8_t* __restrict, const uint8_t* __restrict, size_t, uint64_t);

#if defined(__x86_64__)
bool HasAvx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2");
}

const Kernel kBest = HasAvx2() ? SumAvx2 : SumScalar;
const CopyKernel kBestCopy = HasAvx2() ? CopyAvx2 : CopyScalar;
#else
const Kernel kBest = SumScalar;
const CopyKernel kBestCopy = CopyScalar;
#endif

}  // namespace

uint32_t CksumAdd(const uint8_t* p, size_t len, uint32_t sum) {
  return CksumSwap(Fold(kBest(p, len, CksumSwap(sum))));
}

uint32_t CksumCopy(uint8_t* to, const uint8_t* p, size_t len, uint32_t sum) {
  return CksumSwap(Fold(kBestCopy(to, p, len, CksumSwap(sum))));
}

uint32_t CksumAddScalar(const uint8_t* p, size_t len, uint32_t sum) {
  return CksumSwap(Fold(SumScalar(p, len, CksumSwap(sum))));
}

}  // namespace tapnic
