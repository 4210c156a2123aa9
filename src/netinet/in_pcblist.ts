/** The list behind netstat, as far as it is the same for all protocols of sockets. */

import { type Mbuf, M_NOMAP } from '../kern/mbuf.ts';
import type { Socket } from '../kern/uipc_socket.ts';
import type { InConninfo, InpAf } from './in_pcb.ts';

/** One line of `netstat -an`, and what `-x` adds. Addresses are text, ports 0 for any. */
export interface PcbRow {
  /** Such as `tcp4`. */
  readonly proto: string;
  /** Bytes in the buffers; of datagrams with their senders' addresses, as FreeBSD counts them. */
  readonly recvq: number;
  readonly sendq: number;
  readonly laddr: string;
  readonly lport: number;
  readonly faddr: string;
  readonly fport: number;
  /** Empty where there are none. */
  readonly state: string;
  readonly recv_mbufs: number;
  readonly send_mbufs: number;
  /** mbufs with external storage in the send buffer, and of those the unmapped ones. */
  readonly send_clusters: number;
  readonly send_ext_pgs: number;
  /** Bytes of memory charged to the buffers. */
  readonly recv_mbcnt: number;
  readonly send_mbcnt: number;
  readonly recv_hiwat: number;
  readonly send_hiwat: number;
  /** The socket's id, 0 for a connection without one. */
  readonly so_id: number;
}

function extPgs(first: Mbuf | null): number {
  let n = 0;
  for (let m = first; m !== null; m = m.m_next) if ((m.m_flags & M_NOMAP) !== 0) n++;
  return n;
}

/** The line of a connection `inc`, and of its socket if it has one. */
export function pcbRow(
  proto: 'tcp' | 'udp',
  inc: InConninfo,
  af: InpAf,
  state: string,
  so: Socket | null,
): PcbRow {
  const rcv = so?.so_rcv;
  const snd = so?.so_snd;
  return {
    proto: `${proto}${af.suffix}`,
    recvq: rcv?.sb_ccc ?? 0,
    sendq: snd?.sb_ccc ?? 0,
    laddr: af.print(inc, false),
    lport: inc.inc_lport,
    faddr: af.print(inc, true),
    fport: inc.inc_fport,
    state,
    recv_mbufs: rcv?.sb_mcnt ?? 0,
    send_mbufs: snd?.sb_mcnt ?? 0,
    send_clusters: snd?.sb_ccnt ?? 0,
    send_ext_pgs: extPgs(snd?.sb_mb ?? null),
    recv_mbcnt: rcv?.sb_mbcnt ?? 0,
    send_mbcnt: snd?.sb_mbcnt ?? 0,
    recv_hiwat: rcv?.sb_hiwat ?? 0,
    send_hiwat: snd?.sb_hiwat ?? 0,
    so_id: so?.so_id ?? 0,
  };
}
