// The Internet checksum for the rest of the addon.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace tapnic {

// Converts a 16-bit sum of 16-bit words between big-endian order and the processor's.
inline uint32_t CksumSwap(uint32_t sum) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  return static_cast<uint32_t>(__builtin_bswap16(static_cast<uint16_t>(sum)));
#else
  return sum;
#endif
}

// Swaps the two bytes of a 16-bit sum, for data that begin at an odd byte.
inline uint32_t CksumSwapHalves(uint32_t sum) { return (sum & 0xff) << 8 | sum >> 8; }

// Adds `len` bytes at `p` as big-endian 16-bit words to `sum`, folded to 16 bits.
uint32_t CksumAdd(const uint8_t* p, size_t len, uint32_t sum);

// The same, and copies the bytes to `to`. Each byte is read once: the sum is that of the copy, even
// if the bytes change meanwhile.
uint32_t CksumCopy(uint8_t* to, const uint8_t* p, size_t len, uint32_t sum);

// CksumAdd with the portable loop.
uint32_t CksumAddScalar(const uint8_t* p, size_t len, uint32_t sum);

}  // namespace tapnic
