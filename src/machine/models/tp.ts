/** The model `tp`: docs/tp-datasheet.md. Programmed I/O: it cannot access host memory. */

import { TP_CAPABILITIES, tp_attach, tp_detach } from '../../../drivers/if_tp.ts';
import { capabilityKeywords } from '../../ctl/bits.ts';
import { TpDevice } from '../../dev/tp/tp.ts';
import { captureTap } from '../../net/capture.ts';
import { mem, memView } from '../../vm/arena.ts';
import { type NicModel, ownPciIdentity } from '../nic_model.ts';

export const tpModel: NicModel = {
  name: 'tp',
  ifname: 'tp',
  description: 'programmed I/O: the CPU copies every byte; no DMA, no offloads, mapped mbufs only',
  pci: ownPciIdentity(4),
  capabilities: capabilityKeywords(TP_CAPABILITIES),
  modes: ['wire'],
  builds: ['ts'],
  mtuMax: 1500,
  build: ({ wire, intr, clock, mac, sramOff, capunit }) =>
    new TpDevice({
      wire,
      intr,
      clock,
      mac,
      sramOff,
      mem,
      view: memView,
      capture: captureTap(capunit),
    }),
  attach: tp_attach,
  detach: tp_detach,
};
