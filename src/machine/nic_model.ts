/**
 * The interface of a NIC model to the machine: its description, its modes and builds, how its
 * device is built and how its driver is attached. Each model is a module in models/; nic_models.ts
 * lists them.
 */

import type { MmioRegion } from '../bus/device.ts';
import type { IntrVector } from '../bus/intr.ts';
import type { Clock, Task } from '../sys/clock.ts';
import type { CksumKernel } from '../sys/cksum.ts';
import type { Errno } from '../sys/errno.ts';
import type { Wire } from '../sys/wire.ts';
import type { Ifnet } from '../net/if_var.ts';
import { DEVICE_SRAM_BYTES } from '../vm/arena.ts';

/** Egress mode: `wire` sends complete frames, `vnet` leaves checksums and segmentation to Linux. */
export type NicMode = 'wire' | 'vnet';
/** Build of a device: `ts` is the reference, `native` the fast one in the addon. */
export type NicBuild = 'ts' | 'native';

/** Maximum number of NICs in a machine, and the on-board memory of each, in bytes. */
export const NIC_SLOTS = 16;
export const NIC_SRAM_BYTES = DEVICE_SRAM_BYTES / NIC_SLOTS;

/** The identity of a card in PCI configuration space, with the names of pciconf(8). */
export interface PciIdentity {
  /** 16 bits each. */
  readonly vendor: number;
  readonly device: number;
  readonly subvendor: number;
  readonly subdevice: number;
  /** Base class, subclass and programming interface: 24 bits, 0x020000 for Ethernet. */
  readonly class: number;
  /** 8 bits. */
  readonly revision: number;
}

/** The identity of tapnic's model number `device`. The vendor id, "TN", is invented. */
export function ownPciIdentity(device: number): PciIdentity {
  return {
    vendor: 0x544e,
    device,
    subvendor: 0x544e,
    subdevice: 0,
    class: 0x020000,
    revision: 1,
  };
}

/** The description of a model for users. */
export interface NicModelInfo {
  /** The value of `--nic`. */
  readonly name: string;
  /** Interface name without unit number. Models with the same driver may share it. */
  readonly ifname: string;
  readonly description: string;
  readonly pci: PciIdentity;
  /** Capabilities of the driver, in ifconfig(8)'s words. Initially all are on. */
  readonly capabilities: readonly string[];
  readonly modes: readonly NicMode[];
  /** Available builds of the device, the fastest first. */
  readonly builds: readonly NicBuild[];
  /** The largest MTU, bytes. */
  readonly mtuMax: number;
}

/** The slot of a NIC: everything that the machine provides to a device. */
export interface NicSlot {
  readonly wire: Wire;
  readonly mode: NicMode;
  readonly build: NicBuild;
  /** Ethernet address at power-on, 6 bytes. */
  readonly mac: Uint8Array;
  readonly intr: IntrVector;
  readonly clock: Clock;
  readonly cksum: CksumKernel;
  readonly timer: { schedule(deadlineNs: number, event: Task): void };
  /** Arena offset of the device's on-board memory, NIC_SRAM_BYTES bytes. */
  readonly sramOff: number;
  /** The interface's number in capture records. */
  readonly capunit: number;
}

/** A device on its wire. */
export interface NicDevice extends MmioRegion {
  /** Unplugs the device, which then sends and receives nothing. The wire stays open. */
  close(): void;
}

/** A NIC model that can be plugged in. */
export interface NicModel extends NicModelInfo {
  /**
   * Builds the device in `slot`. The model supports the slot's mode and build. Throws TapnicError.
   */
  build(slot: NicSlot): NicDevice;
  /** Attaches the driver, which sets the interface's address to the device's. */
  attach(ifp: Ifnet, device: NicDevice, intr: IntrVector): Errno;
  /** Detaches the driver, which frees all its buffers. */
  detach(ifp: Ifnet): Errno;
}
