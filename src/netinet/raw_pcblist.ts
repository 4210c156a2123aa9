/** The list of raw sockets that netstat shows. */

import type { Vnet } from '../kern/vnet.ts';
import { type PcbRow, pcbRow } from './in_pcblist.ts';
import { V_rip } from './raw_ip.ts';

/**
 * All raw sockets of a stack, those of IPv4 first, and of a family the newest first. The protocol is
 * `icm4` or `icm6`: netstat cuts the name of the protocol after three characters.
 * @see netstat(1)
 */
export function rip_pcblist(vnet: Vnet): PcbRow[] {
  const rows: PcbRow[] = [];
  for (let inp = V_rip(vnet).ripcbinfo.ipi_listhead; inp !== null; inp = inp.listNext)
    if (inp.inp_socket !== null)
      rows.push(pcbRow(vnet, 'icm', inp.inp_inc, inp.inp_af, '', inp.inp_socket));
  return rows.sort((a, b) => (a.proto < b.proto ? -1 : Number(a.proto > b.proto)));
}
