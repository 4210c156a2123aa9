/**
 * The interface between a device and the machine: addresses on the bus, an interrupt line, and the
 * device's registers. Devices (src/dev) import no other file of src/bus. Drivers access a device
 * only through MmioRegion.
 */

/** The registers of a device, each 32 bits wide. A value may be passed as a signed number. */
export interface MmioRegion {
  /** Bytes of register space. */
  readonly size: number;
  /** Reads the register at byte offset `off`. Undefined or unaligned offsets read as 0xffffffff. */
  read32(off: number): number;
  /**
   * Writes the register at `off`. An undefined, unaligned or read-only one is ignored and counted.
   */
  write32(off: number, value: number): void;
}

/**
 * A bus master's way to host memory. Addresses are checked against RAM and, with the IOMMU on,
 * against what bus_dma has loaded. The device reads and writes at the arena offset that `map`
 * returns.
 */
export interface DmaPort {
  /**
   * Returns the arena offset of `len` bytes at a bus address. If any byte is out of reach, counts a
   * DMA fault and returns -1. The address is two 32-bit halves, signed or unsigned: it needs no
   * BigInt and loses no bits, and V8 does not allocate signed halves on its heap.
   */
  map(addrLo: number, addrHi: number, len: number, write: boolean): number;
  /** Number of DMA faults. */
  readonly faults: number;
}

/** The wire from the device to the interrupt controller; level-triggered by cause bits. */
export interface IntrLine {
  /** The device has unmasked causes. Never calls back into the device or the driver. */
  raise(): void;
}
