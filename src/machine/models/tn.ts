/** The model `tn`: docs/tn-datasheet.md. The device has two builds; both use the same driver. */

import { TN_CAPABILITIES, tn_attach, tn_detach } from '../../../drivers/if_tn.ts';
import { FdWire } from '../../host/fd_wire.ts';
import { NativeTnDevice } from '../../host/native_tn.ts';
import { dmaStats } from '../../bus/bus_dma.ts';
import { RamDmaPort } from '../../bus/dma_port.ts';
import { capabilityKeywords } from '../../ctl/bits.ts';
import { TnDevice } from '../../dev/tn/tn.ts';
import { EINVAL, errnoError } from '../../sys/errno.ts';
import { captureRing, captureTap } from '../../net/capture.ts';
import {
  CAPTURE_RING_BYTES,
  captureRingOff,
  mem,
  memView,
  ramBase,
  ramBytes,
} from '../../vm/arena.ts';
import { type NicDevice, type NicModel, type NicSlot, ownPciIdentity } from '../nic_model.ts';

function buildNative(slot: NicSlot): NicDevice {
  const { wire, intr, clock, mode, mac, timer, capunit } = slot;
  if (!(wire instanceof FdWire)) throw errnoError(EINVAL, 'engine', 'native: not a descriptor');
  return new NativeTnDevice({
    wire,
    intr,
    clock,
    mode,
    mac,
    timer,
    ramBase,
    ramBytes,
    capture: {
      off: captureRingOff(),
      bytes: CAPTURE_RING_BYTES,
      unit: capunit,
      kick: () => captureRing().kick(),
    },
    dmaFaults: (n) => (dmaStats.faults += n),
  });
}

function buildTs(slot: NicSlot): NicDevice {
  const { wire, intr, clock, cksum, mode, mac, timer, sramOff, capunit } = slot;
  return new TnDevice({
    wire,
    intr,
    clock,
    cksum,
    mode,
    mac,
    timer,
    sramOff,
    dma: new RamDmaPort(),
    mem,
    view: memView,
    capture: captureTap(capunit),
  });
}

export const tnModel: NicModel = {
  name: 'tn',
  ifname: 'tn',
  description: 'multi-segment DMA, unmapped mbufs, checksum and TCP segmentation offload',
  pci: ownPciIdentity(1),
  capabilities: capabilityKeywords(TN_CAPABILITIES),
  modes: ['wire', 'vnet'],
  builds: ['native', 'ts'],
  mtuMax: 9000,
  build: (slot) => (slot.build === 'native' ? buildNative(slot) : buildTs(slot)),
  attach: (ifp, device, intr) => tn_attach(ifp, device, null, intr),
  detach: tn_detach,
};
