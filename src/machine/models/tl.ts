/** The model `tl`: docs/tl-datasheet.md. */

import { TL_CAPABILITIES, tl_attach, tl_detach, TL_MTU_MAX } from '../../../drivers/if_tl.ts';
import { RamDmaPort } from '../../bus/dma_port.ts';
import { capabilityKeywords } from '../../ctl/bits.ts';
import { TlDevice } from '../../dev/tl/tl.ts';
import { captureTap } from '../../net/capture.ts';
import { mem, memView } from '../../vm/arena.ts';
import { type NicModel, ownPciIdentity } from '../nic_model.ts';

export const tlModel: NicModel = {
  name: 'tl',
  ifname: 'tl',
  description: '32-bit DMA, four fragments of 512 bytes; checksum offload, no unmapped mbufs',
  pci: ownPciIdentity(3),
  capabilities: capabilityKeywords(TL_CAPABILITIES),
  modes: ['wire'],
  builds: ['ts'],
  mtuMax: TL_MTU_MAX,
  build: ({ wire, intr, clock, cksum, mac, sramOff, capunit }) =>
    new TlDevice({
      wire,
      intr,
      clock,
      cksum,
      mac,
      sramOff,
      dma: new RamDmaPort(),
      mem,
      view: memView,
      capture: captureTap(capunit),
    }),
  attach: (ifp, device, intr) => tl_attach(ifp, device, null, intr),
  detach: tl_detach,
};
