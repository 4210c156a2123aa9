/** What is seen of UDP from outside: the list behind netstat. */

import type { Vnet } from '../kern/vnet.ts';
import { V_udp } from './udp_var.ts';

/** One line of `netstat -an`. Addresses are text, ports 0 for any. */
export interface UdpPcbRow {
  readonly proto: 'udp4' | 'udp6';
  /** Bytes that wait to be read, their senders' addresses included, as FreeBSD counts them. */
  readonly recvq: number;
  readonly sendq: number;
  readonly laddr: string;
  readonly lport: number;
  readonly faddr: string;
  readonly fport: number;
  /** Datagram sockets have none. */
  readonly state: '';
  readonly recv_mbufs: number;
  readonly send_mbufs: number;
  readonly send_clusters: number;
  readonly send_ext_pgs: number;
  /** Bytes of memory charged to the buffers. */
  readonly recv_mbcnt: number;
  readonly send_mbcnt: number;
  readonly recv_hiwat: number;
  readonly send_hiwat: number;
  readonly so_id: number;
}

/** Every UDP socket of a stack, the newest first. @see netstat(1) */
export function udp_pcblist(vnet: Vnet): UdpPcbRow[] {
  const rows: UdpPcbRow[] = [];
  for (let inp = V_udp(vnet).udbinfo.ipi_listhead; inp !== null; inp = inp.listNext) {
    const so = inp.inp_socket;
    if (so === null) continue;
    const { inp_inc: inc, inp_af: af } = inp;
    rows.push({
      proto: inc.inc6_laddr === null ? 'udp4' : 'udp6',
      recvq: so.so_rcv.sb_ccc,
      sendq: 0, // what is sent goes down at once
      laddr: af.print(inc, false),
      lport: inc.inc_lport,
      faddr: af.print(inc, true),
      fport: inc.inc_fport,
      state: '',
      recv_mbufs: so.so_rcv.sb_mcnt,
      send_mbufs: 0,
      send_clusters: 0,
      send_ext_pgs: 0,
      recv_mbcnt: so.so_rcv.sb_mbcnt,
      send_mbcnt: 0,
      recv_hiwat: so.so_rcv.sb_hiwat,
      send_hiwat: so.so_snd.sb_hiwat,
      so_id: so.so_id,
    });
  }
  return rows;
}
