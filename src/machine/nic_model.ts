/**
 * What a NIC model is to the machine: how it is described, what it can be plugged in with, and how
 * its device is built and its driver attached. One module per model in models/, all of them in
 * nic_models.ts.
 */

import type { MmioRegion } from '../bus/device.ts';
import type { IntrVector } from '../bus/intr.ts';
import type { Clock, Task } from '../sys/clock.ts';
import type { CksumKernel } from '../sys/cksum.ts';
import type { Errno } from '../sys/errno.ts';
import type { Wire } from '../sys/wire.ts';
import type { Ifnet } from '../net/if_var.ts';
import { DEVICE_SRAM_BYTES } from '../vm/arena.ts';

/** Egress mode: `wire` sends finished frames, `vnet` leaves checksums and segmenting to the peer. */
export type NicMode = 'wire' | 'vnet';
/** Build of a device: `ts` is the reference, `native` the fast one in the addon. */
export type NicBuild = 'ts' | 'native';

/** NICs a machine takes, and the on-board memory each of them has. */
export const NIC_SLOTS = 16;
export const NIC_SRAM_BYTES = DEVICE_SRAM_BYTES / NIC_SLOTS;

/** What a card says of itself in PCI configuration space, in the words of pciconf(8). */
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

/** The identity of our own model number `device`: its vendor id, "TN", is made up. */
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

/** A model as users see it. */
export interface NicModelInfo {
  /** What `--nic` takes. */
  readonly name: string;
  /** Name of its interfaces before the unit number; models of one driver may share it. */
  readonly ifname: string;
  readonly description: string;
  readonly pci: PciIdentity;
  /** What its driver can do, in ifconfig's words; all of it is on at the start. */
  readonly capabilities: readonly string[];
  readonly modes: readonly NicMode[];
  /** Builds of the device there are, the fastest first. */
  readonly builds: readonly NicBuild[];
  /** The largest MTU. */
  readonly mtuMax: number;
}

/** The place a NIC is plugged into: everything a device gets from the computer around it. */
export interface NicSlot {
  readonly wire: Wire;
  readonly mode: NicMode;
  readonly build: NicBuild;
  /** Address it has at power-on, 6 bytes. */
  readonly mac: Uint8Array;
  readonly intr: IntrVector;
  readonly clock: Clock;
  readonly cksum: CksumKernel;
  readonly timer: { schedule(deadlineNs: number, event: Task): void };
  /** Arena offset of NIC_SRAM_BYTES that are the device's own. */
  readonly sramOff: number;
  /** The interface's number in capture records. */
  readonly capunit: number;
}

/** A device on its wire. */
export interface NicDevice extends MmioRegion {
  /** Unplugs it: nothing is sent or received any more. The wire stays open. */
  close(): void;
}

/** A NIC one can plug in. */
export interface NicModel extends NicModelInfo {
  /** Builds the device in `slot`, whose mode and build are ones it has. Throws TapnicError. */
  build(slot: NicSlot): NicDevice;
  /** Attaches the driver; the interface's address becomes the device's. */
  attach(ifp: Ifnet, device: NicDevice, intr: IntrVector): Errno;
  /** Takes it away again; every buffer is back afterwards. */
  detach(ifp: Ifnet): Errno;
}
