/** What is seen of TCP from outside: the list behind netstat, and how a stack's connections end. */

import { ECONNABORTED } from '../sys/errno.ts';
import { type Mbuf, M_NOMAP } from '../kern/mbuf.ts';
import { socantsendmore, SO_ACCEPTCONN } from '../kern/uipc_socket.ts';
import type { Vnet } from '../kern/vnet.ts';
import { INP_DROPPED, type Inpcb, inpaf } from './in_pcb.ts';
import {
  TCPS_CLOSE_WAIT,
  TCPS_CLOSED,
  TCPS_ESTABLISHED,
  TCPS_LISTEN,
  TCPS_SYN_RECEIVED,
  TCPS_SYN_SENT,
  TCPS_TIME_WAIT,
  tcpstates,
} from './tcp_fsm.ts';
import { intotcpcb, tcp_close, tcp_drop } from './tcp_subr.ts';
import { syncacheFlush, syncacheList } from './tcp_syncache.ts';
import { tcp_usrclosed } from './tcp_usrreq.ts';
import { type Tcpcb, type TcpVnet, V_tcp } from './tcp_var.ts';

/** One line of `netstat -an`, and what `-x` and `-T` add. Addresses are text, ports 0 for any. */
export interface TcpPcbRow {
  readonly proto: 'tcp4' | 'tcp6';
  readonly recvq: number;
  readonly sendq: number;
  readonly laddr: string;
  readonly lport: number;
  readonly faddr: string;
  readonly fport: number;
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
  /** Retransmitted and out-of-order segments, zero windows sent. */
  readonly rexmit: number;
  readonly ooorcv: number;
  readonly zerowin: number;
  /** Congestion window, slow-start threshold, peer's window, in bytes; segment size; RTT and RTO in ms. */
  readonly cwnd: number;
  readonly ssthresh: number;
  readonly sndwnd: number;
  readonly mss: number;
  readonly srtt: number;
  readonly rto: number;
  /** Of a listener: connections not accepted yet, and the limit; else 0. */
  readonly qlen: number;
  readonly qlimit: number;
  /** The socket's id, 0 for a connection without one. */
  readonly so_id: number;
}

function extPgs(first: Mbuf | null): number {
  let n = 0;
  for (let m = first; m !== null; m = m.m_next) if ((m.m_flags & M_NOMAP) !== 0) n++;
  return n;
}

function row(inp: Inpcb): TcpPcbRow {
  const tp = intotcpcb(inp);
  const so = inp.inp_socket;
  const listening = so !== null && (so.so_options & SO_ACCEPTCONN) !== 0;
  return {
    proto: inp.inp_inc.inc6_laddr === null ? 'tcp4' : 'tcp6',
    recvq: so?.so_rcv.sb_ccc ?? 0,
    sendq: so?.so_snd.sb_ccc ?? 0,
    laddr: inp.inp_af.print(inp.inp_inc, false),
    lport: inp.inp_inc.inc_lport,
    faddr: inp.inp_af.print(inp.inp_inc, true),
    fport: inp.inp_inc.inc_fport,
    state: tcpstates[tp.t_state],
    recv_mbufs: so?.so_rcv.sb_mcnt ?? 0,
    send_mbufs: so?.so_snd.sb_mcnt ?? 0,
    send_clusters: so?.so_snd.sb_ccnt ?? 0,
    send_ext_pgs: extPgs(so?.so_snd.sb_mb ?? null),
    recv_mbcnt: so?.so_rcv.sb_mbcnt ?? 0,
    send_mbcnt: so?.so_snd.sb_mbcnt ?? 0,
    recv_hiwat: so?.so_rcv.sb_hiwat ?? 0,
    send_hiwat: so?.so_snd.sb_hiwat ?? 0,
    rexmit: tp.t_sndrexmitpack,
    ooorcv: tp.t_rcvoopack,
    zerowin: tp.t_sndzerowin,
    cwnd: tp.snd_cwnd,
    ssthresh: tp.snd_ssthresh,
    sndwnd: tp.snd_wnd,
    mss: tp.t_maxseg,
    srtt: tp.t_srtt / 32,
    rto: tp.t_rxtcur,
    qlen: listening ? so.sol_comp.length : 0,
    qlimit: listening ? so.sol_qlimit : 0,
    so_id: so?.so_id ?? 0,
  };
}

/** Every TCP endpoint of a stack, embryonic ones included as SYN_RCVD; newest first. @see netstat(1) */
export function tcp_pcblist(vnet: Vnet): TcpPcbRow[] {
  const tcp = V_tcp(vnet);
  const rows: TcpPcbRow[] = [];
  for (const inc of syncacheList(tcp)) {
    const af = inpaf(vnet, inc.inc_family);
    rows.push({
      ...EMPTY,
      proto: inc.inc6_laddr === null ? 'tcp4' : 'tcp6',
      laddr: af.print(inc, false),
      lport: inc.inc_lport,
      faddr: af.print(inc, true),
      fport: inc.inc_fport,
      state: tcpstates[TCPS_SYN_RECEIVED],
    });
  }
  for (let inp = tcp.tcbinfo.ipi_listhead; inp !== null; inp = inp.listNext)
    if ((inp.inp_flags & INP_DROPPED) === 0) rows.push(row(inp));
  return rows;
}

const EMPTY = {
  recvq: 0,
  sendq: 0,
  recv_mbufs: 0,
  send_mbufs: 0,
  send_clusters: 0,
  send_ext_pgs: 0,
  recv_mbcnt: 0,
  send_mbcnt: 0,
  recv_hiwat: 0,
  send_hiwat: 0,
  rexmit: 0,
  ooorcv: 0,
  zerowin: 0,
  cwnd: 0,
  ssthresh: 0,
  sndwnd: 0,
  mss: 0,
  srtt: 0,
  rto: 0,
  qlen: 0,
  qlimit: 0,
  so_id: 0,
};

/** Runs `f` on every connection that is alive, of which it may end any. */
function forEachLive(tcp: TcpVnet, f: (tp: Tcpcb) => void): void {
  const live: Tcpcb[] = [];
  for (let inp = tcp.tcbinfo.ipi_listhead; inp !== null; inp = inp.listNext)
    if ((inp.inp_flags & INP_DROPPED) === 0) live.push(intotcpcb(inp));
  for (const tp of live) if ((tp.t_inpcb.inp_flags & INP_DROPPED) === 0) f(tp);
}

/** Connections that still have something to say to their peer: neither idle, listening nor done. */
export function tcpConnections(vnet: Vnet): number {
  const { states } = V_tcp(vnet);
  let n = 0;
  for (let s = TCPS_SYN_SENT; s < TCPS_TIME_WAIT; s++) n += states[s]!;
  return n;
}

/** How the stack stops, in this order. */
export type TcpShutdownPhase = 'fin' | 'rst' | 'discard';

/**
 * Ends a stack's connections. `fin`: each one's program sends no more, so FIN follows its data;
 * embryonic ones are forgotten. `rst`: what is left is dropped with RST and ECONNABORTED. `discard`:
 * TIME_WAIT ends now. Listeners stay their programs'. The caller gives time between the phases.
 */
export function tcp_shutdownVnet(vnet: Vnet, phase: TcpShutdownPhase): void {
  const tcp = V_tcp(vnet);
  switch (phase) {
    case 'fin':
      syncacheFlush(tcp);
      forEachLive(tcp, (tp) => {
        if (tp.t_state === TCPS_SYN_SENT) {
          tcp_close(tp);
        } else if (tp.t_state === TCPS_ESTABLISHED || tp.t_state === TCPS_CLOSE_WAIT) {
          socantsendmore(tp.t_inpcb.inp_socket!);
          tcp_usrclosed(tp);
          tp.t_fb.tfb_tcp_output(tp);
        }
      });
      return;
    case 'rst':
      syncacheFlush(tcp);
      forEachLive(tcp, (tp) => {
        if (
          tp.t_state !== TCPS_CLOSED &&
          tp.t_state !== TCPS_LISTEN &&
          tp.t_state !== TCPS_TIME_WAIT
        )
          tcp_drop(tp, ECONNABORTED);
      });
      return;
    case 'discard':
      forEachLive(tcp, (tp) => {
        if (tp.t_state === TCPS_TIME_WAIT) tcp_close(tp);
      });
      return;
  }
}
