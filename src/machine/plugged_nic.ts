/**
 * A NIC of any model, plugged into a machine: a slot with on-board memory, an interrupt line and a
 * capture number; the device on its wire; its driver; and an interface with the lowest free unit
 * number.
 */

import { IntrVector } from '../bus/intr.ts';
import type { Task } from '../sys/clock.ts';
import { EBUSY, EINVAL, errnoError, type Errno } from '../sys/errno.ts';
import { inPass } from '../sys/pass.ts';
import type { Wire } from '../sys/wire.ts';
import { Callout, callout_reset, callout_stop, nowNs } from '../kern/kern_timeout.ts';
import type { Vnet } from '../kern/vnet.ts';
import { captureUnit } from '../net/capture.ts';
import { if_alloc, if_down } from '../net/if.ts';
import type { Ifnet } from '../net/if_var.ts';
import { deviceSramOff } from '../vm/arena.ts';
import type { Machine } from './machine.ts';
import {
  NIC_SLOTS,
  NIC_SRAM_BYTES,
  type NicBuild,
  type NicDevice,
  type NicModel,
} from './nic_model.ts';

/** The device's interrupt moderation timer, on the machine's callouts. */
class DeviceTimer {
  readonly #callout = new Callout({ run: () => this.#event?.run() });
  #event: Task | null = null;

  schedule(deadlineNs: number, event: Task): void {
    this.#event = event;
    callout_reset(this.#callout, Math.max(deadlineNs - nowNs(), 0));
  }

  stop(): void {
    callout_stop(this.#callout);
  }
}

/** The NICs of each machine, by slot; null: a free slot. */
const plugged = new WeakMap<Machine, (PluggedNic | null)[]>();

function slotsOf(machine: Machine): (PluggedNic | null)[] {
  let slots = plugged.get(machine);
  if (slots === undefined) {
    slots = Array.from({ length: NIC_SLOTS }, () => null);
    plugged.set(machine, slots);
  }
  return slots;
}

/** Returns the lowest unit number that no interface of `vnet` named `ifname` has. */
function freeUnit(slots: readonly (PluggedNic | null)[], vnet: Vnet, ifname: string): number {
  const taken = slots.filter((nic) => nic?.ifp.if_vnet === vnet && nic.model.ifname === ifname);
  let unit = 0;
  while (taken.some((nic) => nic!.unit === unit)) unit++;
  return unit;
}

function macBytes(text: string): Uint8Array {
  return Uint8Array.from(text.split(':'), (part) => Number.parseInt(part, 16));
}

function must(error: Errno, syscall: string, hint = ''): void {
  if (error !== 0) throw errnoError(error, syscall, hint);
}

/** A device, its driver and its interface, on a TAP or a simulated link. */
export class PluggedNic {
  readonly model: NicModel;
  /** Unit number in the interface's name: 0 for `tn0` or `tb0`. */
  readonly unit: number;
  readonly ifp: Ifnet;
  readonly device: NicDevice;
  readonly #slots: (PluggedNic | null)[];
  readonly #slot: number;
  readonly #timer = new DeviceTimer();

  /**
   * Builds the device, attaches its driver and adds the interface to a stack of the machine. The mode
   * is that of the wire. Throws TapnicError (EBUSY: no slot is free; EINVAL: the model does not
   * have the mode or build; ENOMEM).
   * @param mac such as 02:00:5e:00:53:01
   * @param build of the device; `native` needs a wire with a descriptor
   * @param vnet default: the first stack of the machine
   */
  constructor(
    machine: Machine,
    model: NicModel,
    wire: Wire,
    mac: string,
    build: NicBuild = 'ts',
    vnet: Vnet = machine.vnet,
  ) {
    const mode = wire.vnetHdr ? 'vnet' : 'wire';
    if (!model.modes.includes(mode))
      throw errnoError(EINVAL, 'mode', `${model.name} has only ${model.modes.join(', ')}`);
    if (!model.builds.includes(build))
      throw errnoError(EINVAL, 'engine', `${model.name} has only ${model.builds.join(', ')}`);
    const slots = slotsOf(machine);
    const slot = slots.indexOf(null);
    if (slot < 0) throw errnoError(EBUSY, 'nic', `a machine takes ${NIC_SLOTS} NICs`);
    this.model = model;
    this.unit = freeUnit(slots, vnet, model.ifname);
    this.#slots = slots;
    this.#slot = slot;
    const intr = new IntrVector(machine.clock);
    const capunit = captureUnit();
    this.device = model.build({
      wire,
      mode,
      build,
      mac: macBytes(mac),
      intr,
      clock: machine.clock,
      cksum: machine.cksum,
      timer: this.#timer,
      sramOff: deviceSramOff() + slot * NIC_SRAM_BYTES,
      capunit,
    });
    this.ifp = if_alloc(vnet, `${model.ifname}${this.unit}`);
    this.ifp.if_capunit = capunit;
    const error = inPass(() => model.attach(this.ifp, this.device, intr));
    if (error !== 0) this.device.close();
    must(error, `${model.ifname}_attach`, 'not enough memory: give the machine more');
    slots[slot] = this;
  }

  /**
   * Detaches the driver, which frees all its buffers, and unplugs the device. The wire stays open.
   */
  stop(): void {
    inPass(() => {
      if_down(this.ifp);
      must(this.model.detach(this.ifp), `${this.model.ifname}_detach`);
    });
    this.#timer.stop();
    this.device.close();
    this.#slots[this.#slot] = null;
  }
}
