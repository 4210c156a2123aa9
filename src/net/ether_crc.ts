/**
 * The CRC-32 with which NICs hash multicast addresses for their filters, after ether_crc32_be and
 * ether_crc32_le of sys/net/if_ethersubr.c. The initial value is all ones; the result is not
 * inverted.
 */

/**
 * The CRC-32 of `buf`, shifting left (highest bit of the polynomial first), as a signed 32-bit
 * number.
 * @see sys/net/if_ethersubr.c
 */
export function ether_crc32_be(buf: Uint8Array): number {
  let crc = -1;
  for (let i = 0; i < buf.length; i++) {
    for (let bit = 0; bit < 8; bit++) {
      const carry = (crc >>> 31) ^ ((buf[i]! >>> bit) & 1);
      crc = (crc << 1) ^ (carry === 1 ? 0x04c11db7 : 0);
    }
  }
  return crc;
}

/**
 * The reflected CRC-32 of `buf`, shifting right (lowest bit first), as a signed 32-bit number.
 * @see sys/net/if_ethersubr.c
 */
export function ether_crc32_le(buf: Uint8Array): number {
  let crc = -1;
  for (let i = 0; i < buf.length; i++) {
    crc ^= buf[i]!;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 1 ? 0xedb88320 : 0);
  }
  return crc;
}
