/** Records of point `sockbuf` for what UDP and raw sockets send. */

import { captureRing } from '../net/capture.ts';
import { captureSockbufOut } from '../net/capture_layers.ts';
import { Sockaddr } from '../kern/sockaddr.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import type { InConninfo, InpAf, Inpcb } from './in_pcb.ts';

const $to = new Sockaddr();

/** The number of the interface to which `inp` sends to inc's foreign address, as far as it is known. */
function unitOf(inp: Inpcb, af: InpAf, inc: InConninfo): number {
  const { inp_vnet: vnet, inp_moptions } = inp;
  const group = af.isGroup(inc.faddrTo($to));
  const ifp = (group ? inp_moptions?.imo_multicast_ifp : null) ?? af.outgoing(vnet, inc);
  return ifp?.if_capunit ?? vnet.capunit;
}

/**
 * Records the datagram `m`, which has its headers and `bytes` bytes of data, at the interface of the route to
 * inc's foreign address. An interface that a control message chooses is not considered.
 */
export function captureDgramOut(
  inp: Inpcb,
  af: InpAf,
  inc: InConninfo,
  m: Mbuf,
  bytes: number,
): void {
  const { so_id } = inp.inp_socket!;
  captureSockbufOut(captureRing(), unitOf(inp, af, inc), m, af.family, so_id, 0, bytes);
}
