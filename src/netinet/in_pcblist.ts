/** The rows of `netstat -an`, for all protocols. */

import { type Mbuf, M_NOMAP } from '../kern/mbuf.ts';
import type { Socket } from '../kern/uipc_socket.ts';
import type { Vnet } from '../kern/vnet.ts';
import { type InConninfo, INP_IPV4, INP_IPV6, type InpAf, type Inpcb } from './in_pcb.ts';

/** One row of `netstat -an` and the columns of `-x`. Addresses are text; port 0: any. */
export interface PcbRow {
  /** Such as `tcp4`. */
  readonly proto: string;
  /** Bytes in the buffers; for datagrams including the senders' addresses, as on FreeBSD. */
  readonly recvq: number;
  readonly sendq: number;
  readonly laddr: string;
  readonly lport: number;
  readonly faddr: string;
  readonly fport: number;
  /** Empty for protocols without states. */
  readonly state: string;
  readonly recv_mbufs: number;
  readonly send_mbufs: number;
  /** Number of mbufs with external storage in the send buffer, and of unmapped ones among them. */
  readonly send_clusters: number;
  readonly send_ext_pgs: number;
  /** Bytes of memory charged to the buffers. */
  readonly recv_mbcnt: number;
  readonly send_mbcnt: number;
  readonly recv_hiwat: number;
  readonly send_hiwat: number;
  /** The id of the socket; 0: a connection without a socket. */
  readonly so_id: number;
}

function extPgs(first: Mbuf | null): number {
  let n = 0;
  for (let m = first; m !== null; m = m.m_next) if ((m.m_flags & M_NOMAP) !== 0) n++;
  return n;
}

/** What netstat appends to the protocol of `inp`: `4`, `6`, or `46` for both families. */
export function suffixOf({ inp_vflag, inp_af }: Inpcb): string {
  const both = INP_IPV4 | INP_IPV6;
  return (inp_vflag & both) === both ? '46' : inp_af.suffix;
}

/** The row of the connection `inc` and its socket `so`, which may be null. */
export function pcbRow(
  vnet: Vnet,
  proto: 'tcp' | 'udp' | 'icm',
  inc: InConninfo,
  af: InpAf,
  state: string,
  so: Socket | null,
  suffix = af.suffix,
): PcbRow {
  const rcv = so?.so_rcv;
  const snd = so?.so_snd;
  return {
    proto: `${proto}${suffix}`,
    recvq: rcv?.sb_ccc ?? 0,
    sendq: snd?.sb_ccc ?? 0,
    laddr: af.print(vnet, inc, false),
    lport: inc.inc_lport,
    faddr: af.print(vnet, inc, true),
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
