/** The list of UDP sockets that netstat shows. */

import type { Vnet } from '../kern/vnet.ts';
import { type PcbRow, pcbRow, suffixOf } from './in_pcblist.ts';
import { V_udp } from './udp_var.ts';

/** All UDP sockets of a stack, the newest first. @see netstat(1) */
export function udp_pcblist(vnet: Vnet): PcbRow[] {
  const rows: PcbRow[] = [];
  for (let inp = V_udp(vnet).udbinfo.ipi_listhead; inp !== null; inp = inp.listNext)
    if (inp.inp_socket !== null)
      rows.push(pcbRow(vnet, 'udp', inp.inp_inc, inp.inp_af, '', inp.inp_socket, suffixOf(inp)));
  return rows;
}
