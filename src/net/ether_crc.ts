/**
 * The CRC-32 of link-level addresses that multicast filters of NICs hash by, after ether_crc32_be and
 * ether_crc32_le of sys/net/if_ethersubr.c: from all ones, not inverted at the end.
 */

/** Of the bytes of `buf`, the polynomial's highest bit first; signed. @see sys/net/if_ethersubr.c */
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

/** Of the bytes of `buf`, reflected: the lowest bit first; signed. @see sys/net/if_ethersubr.c */
export function ether_crc32_le(buf: Uint8Array): number {
  let crc = -1;
  for (let i = 0; i < buf.length; i++) {
    crc ^= buf[i]!;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 1 ? 0xedb88320 : 0);
  }
  return crc;
}
