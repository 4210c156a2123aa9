/**
 * The address filter of a NIC: the station address, broadcasts, and a 64-bit hash of group
 * addresses.
 */

/** Computes the hash, 0 to 63, of the address at arena offset `at`. */
type AddressHash = (mem: Uint8Array, at: number) => number;

/** The upper six bits of the CRC-32, polynomial 0x04c11db7, lowest bit of each byte first. */
export function hashBe(mem: Uint8Array, at: number): number {
  let crc = -1;
  for (let i = 0; i < 6; i++) {
    for (let bit = 0, byte = mem[at + i]!; bit < 8; bit++, byte >>= 1) {
      const carry = (crc >>> 31) ^ (byte & 1);
      crc = (crc << 1) ^ (carry === 1 ? 0x04c11db7 : 0);
    }
  }
  return crc >>> 26;
}

/** The lower six bits of the reflected CRC-32 (IEEE 802.3, before complement). */
export function hashLe(mem: Uint8Array, at: number): number {
  let crc = -1;
  for (let i = 0; i < 6; i++) {
    crc ^= mem[at + i]!;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 1 ? 0xedb88320 : 0);
  }
  return crc & 0x3f;
}

/** The filter's state, as its registers hold it. */
export class AddressFilter {
  /** The station address, 6 bytes. */
  readonly mac = new Uint8Array(6);
  /** Bit h accepts group addresses whose hash is h. */
  readonly bits = new Uint32Array(2);
  readonly #power: Uint8Array;
  readonly #hash: AddressHash;

  /** @param mac the address at power-on */
  constructor(mac: Uint8Array, hash: AddressHash) {
    this.#power = mac.slice(0, 6);
    this.#hash = hash;
    this.reset();
  }

  reset(): void {
    this.mac.set(this.#power);
    this.bits.fill(0);
  }

  /** Bytes 0 to 3 of the station address, byte 0 in bits 7:0. */
  get macLow(): number {
    const { mac } = this;
    return ((mac[3]! << 24) | (mac[2]! << 16) | (mac[1]! << 8) | mac[0]!) >>> 0;
  }

  set macLow(value: number) {
    for (let i = 0; i < 4; i++) this.mac[i] = (value >>> (8 * i)) & 0xff;
  }

  /** Bytes 4 and 5 of the station address. */
  get macHigh(): number {
    return (this.mac[5]! << 8) | this.mac[4]!;
  }

  set macHigh(value: number) {
    for (let i = 0; i < 2; i++) this.mac[4 + i] = (value >>> (8 * i)) & 0xff;
  }

  /** Whether the destination of the frame at `at` is the station address. */
  isOwn(mem: Uint8Array, at: number): boolean {
    for (let i = 0; i < 6; i++) if (mem[at + i] !== this.mac[i]) return false;
    return true;
  }

  isBroadcast(mem: Uint8Array, at: number): boolean {
    for (let i = 0; i < 6; i++) if (mem[at + i] !== 0xff) return false;
    return true;
  }

  /** Whether the hash accepts the group address at `at`. */
  inHash(mem: Uint8Array, at: number): boolean {
    const h = this.#hash(mem, at);
    return ((this.bits[h >>> 5]! >>> (h & 31)) & 1) === 1;
  }

  /**
   * Whether the frame at `at` passes the filter of a NIC that always accepts broadcasts and has the
   * modes promiscuous and all-multicast.
   */
  accepts(mem: Uint8Array, at: number, promisc: boolean, allmulti: boolean): boolean {
    if (promisc) return true;
    if ((mem[at]! & 1) === 0) return this.isOwn(mem, at);
    return allmulti || this.isBroadcast(mem, at) || this.inHash(mem, at);
  }
}
