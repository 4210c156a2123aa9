/** The model `tb`: docs/tb-datasheet.md. */

import { TB_CAPABILITIES, tb_attach, tb_detach, TB_MTU_MAX } from '../../../drivers/if_tb.ts';
import { RamDmaPort } from '../../bus/dma_port.ts';
import { capabilityKeywords } from '../../ctl/bits.ts';
import { TbDevice } from '../../dev/tb/tb.ts';
import { captureTap } from '../../net/capture.ts';
import { mem, memView } from '../../vm/arena.ts';
import { type NicModel, ownPciIdentity } from '../nic_model.ts';

export const tbModel: NicModel = {
  name: 'tb',
  ifname: 'tb',
  description: 'multi-segment DMA, unmapped mbufs; checksums in software',
  pci: ownPciIdentity(2),
  capabilities: capabilityKeywords(TB_CAPABILITIES),
  modes: ['wire'],
  builds: ['ts'],
  mtuMax: TB_MTU_MAX,
  build: ({ wire, intr, clock, mac, sramOff, capunit }) =>
    new TbDevice({
      wire,
      intr,
      clock,
      mac,
      sramOff,
      dma: new RamDmaPort(),
      mem,
      view: memView,
      capture: captureTap(capunit),
    }),
  attach: (ifp, device, intr) => tb_attach(ifp, device, null, intr),
  detach: tb_detach,
};
