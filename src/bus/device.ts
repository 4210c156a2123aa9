/**
 * What hardware sees of the computer it is plugged into: addresses on the bus, an interrupt line,
 * its own registers. Devices (src/dev) import nothing else of the machine, and drivers access a
 * device only through MmioRegion.
 */

/**
 * A device's registers, 32 bits wide, on its side of the bus. A value may come as signed number.
 */
export interface MmioRegion {
  /** Bytes of register space. */
  readonly size: number;
  /** Reads the register at byte offset `off`. Undefined or unaligned offsets read as 0xffffffff. */
  read32(off: number): number;
  /** Writes it. Undefined, unaligned or read-only: ignored and counted. */
  write32(off: number, value: number): void;
}

/**
 * A bus master's way to host memory. Addresses are checked against RAM and, with the IOMMU on,
 * against what bus_dma has loaded. A device reads and writes at the arena offset it gets back.
 */
export interface DmaPort {
  /**
   * The arena offset of `len` bytes at `addr` (as two 32-bit halves, signed or not: no BigInt, no
   * lost bits, and a signed half is never a number on the heap), or -1 after counting a DMA fault
   * if any byte of it is out of reach.
   */
  map(addrLo: number, addrHi: number, len: number, write: boolean): number;
  /** DMA faults counted. */
  readonly faults: number;
}

/** The wire from the device to the interrupt controller; level-triggered by cause bits. */
export interface IntrLine {
  /** The device has unmasked causes. Never calls back into the device or the driver. */
  raise(): void;
}
