/**
 * TCP of a stack as management sees it: the connection list of netstat, and the shutdown of all
 * connections.
 */

import type { AddrWords } from '../sys/addr.ts';
import { inPass } from '../sys/pass.ts';
import { ECONNABORTED } from '../sys/errno.ts';
import { socantsendmore, SO_ACCEPTCONN } from '../kern/uipc_socket.ts';
import type { Vnet } from '../kern/vnet.ts';
import { INP_DROPPED, type Inpcb, inpaf } from './in_pcb.ts';
import { type PcbRow, pcbRow, suffixOf } from './in_pcblist.ts';
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
import { tcpHcPurge } from './tcp_hostcache.ts';
import { intotcpcb, tcp_close, tcp_drop } from './tcp_subr.ts';
import { tcp_fastopen_destroy } from './tcp_fastopen.ts';
import { syncacheCount, syncacheFlush, syncacheList } from './tcp_syncache.ts';
import { tcp_timer_active } from './tcp_timer.ts';
import { tcp_usrclosed } from './tcp_usrreq.ts';
import { type Tcpcb, type TcpVnet, TT_DELACK, TT_PERSIST, TT_REXMT, V_tcp } from './tcp_var.ts';

/** TCP's additional fields of a row of `netstat -an`. */
export interface TcpPcbRow extends PcbRow {
  /** Number of retransmitted segments, out-of-order segments received, and zero windows sent. */
  readonly rexmit: number;
  readonly ooorcv: number;
  readonly zerowin: number;
  /** Congestion window, slow-start threshold, peer's window and MSS in bytes; RTT and RTO in ms. */
  readonly cwnd: number;
  readonly ssthresh: number;
  readonly sndwnd: number;
  readonly mss: number;
  readonly srtt: number;
  readonly rto: number;
  /** Listener: connections not accepted yet, and their limit. Otherwise 0. */
  readonly qlen: number;
  readonly qlimit: number;
}

function row(inp: Inpcb): TcpPcbRow {
  const tp = intotcpcb(inp);
  const so = inp.inp_socket;
  const listening = so !== null && (so.so_options & SO_ACCEPTCONN) !== 0;
  return {
    ...pcbRow(
      inp.inp_vnet,
      'tcp',
      inp.inp_inc,
      inp.inp_af,
      tcpstates[tp.t_state],
      so,
      suffixOf(inp),
    ),
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
  };
}

/**
 * Lists all TCP endpoints of a stack, newest first. Syncache entries appear as SYN_RCVD, before the
 * others.
 * @see netstat(1)
 */
export function tcp_pcblist(vnet: Vnet): TcpPcbRow[] {
  const tcp = V_tcp(vnet);
  const rows: TcpPcbRow[] = [];
  for (const inc of syncacheList(tcp)) {
    const af = inpaf(vnet, inc.inc_family);
    rows.push({ ...pcbRow(vnet, 'tcp', inc, af, tcpstates[TCPS_SYN_RECEIVED], null), ...EMPTY });
  }
  for (let inp = tcp.tcbinfo.ipi_listhead; inp !== null; inp = inp.listNext)
    if ((inp.inp_flags & INP_DROPPED) === 0) rows.push(row(inp));
  return rows;
}

/** TCP's additional fields of a syncache entry. */
const EMPTY = {
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
};

/** Calls `f` for each endpoint that is not dropped. `f` may close any of them. */
function forEachLive(tcp: TcpVnet, f: (tp: Tcpcb) => void): void {
  const live: Tcpcb[] = [];
  for (let inp = tcp.tcbinfo.ipi_listhead; inp !== null; inp = inp.listNext)
    if ((inp.inp_flags & INP_DROPPED) === 0) live.push(intotcpcb(inp));
  for (const tp of live) if ((tp.t_inpcb.inp_flags & INP_DROPPED) === 0) f(tp);
}

/** Number of connections from SYN_SENT up to, not including, TIME_WAIT. */
export function tcpConnections(vnet: Vnet): number {
  const { states } = V_tcp(vnet);
  let n = 0;
  for (let s = TCPS_SYN_SENT; s < TCPS_TIME_WAIT; s++) n += states[s]!;
  return n;
}

/**
 * What timers of a stack's connections are waiting for. `fast`: an acknowledgement to receive or to send,
 * which ends by itself; `slow`: a window that the peer's program opens; `none`: neither.
 */
export function tcpUnderWay(vnet: Vnet): 'fast' | 'slow' | 'none' {
  const tcp = V_tcp(vnet);
  if (syncacheCount(tcp) > 0) return 'fast';
  if (tcpConnections(vnet) === 0) return 'none';
  let slow = false;
  for (let inp = tcp.tcbinfo.ipi_listhead; inp !== null; inp = inp.listNext) {
    if ((inp.inp_flags & INP_DROPPED) !== 0) continue;
    const tp = intotcpcb(inp);
    if (tcp_timer_active(tp, TT_REXMT) || tcp_timer_active(tp, TT_DELACK)) return 'fast';
    slow ||= tcp_timer_active(tp, TT_PERSIST);
  }
  return slow ? 'slow' : 'none';
}

/**
 * Drops the connections of a local address that is about to be removed, with RST and ECONNABORTED,
 * and discards those in TIME_WAIT. Returns the number of dropped connections. Listeners stay.
 */
export function tcpDropLaddr(vnet: Vnet, family: number, addr: AddrWords): number {
  let dropped = 0;
  forEachLive(V_tcp(vnet), (tp) => {
    const { inp_inc: inc } = tp.t_inpcb;
    if (inc.inc_family !== family || tp.t_state === TCPS_LISTEN) return;
    if (tp.t_state === TCPS_CLOSED || inc.inc_l0 !== addr.w0 || inc.inc_l1 !== addr.w1) return;
    if (inc.inc_l2 !== addr.w2 || inc.inc_l3 !== addr.w3) return;
    if (tp.t_state === TCPS_TIME_WAIT) {
      tcp_close(tp);
      return;
    }
    dropped++;
    tcp_drop(tp, ECONNABORTED);
  });
  return dropped;
}

/** The phases of a stack's shutdown, in this order. */
type TcpShutdownPhase = 'fin' | 'rst' | 'discard';

/**
 * Ends a stack's connections. `fin`: sends a FIN behind the data of each connection, closes those
 * in SYN_SENT and discards syncache entries. `rst`: drops the remaining connections with RST and
 * ECONNABORTED. `discard`: ends TIME_WAIT. Listeners stay open. The caller waits between the
 * phases.
 */
export function tcp_shutdownVnet(vnet: Vnet, phase: TcpShutdownPhase): void {
  inPass(shutdownInPass, vnet, phase);
}

function shutdownInPass(vnet: Vnet, phase: TcpShutdownPhase): void {
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
      tcp_fastopen_destroy(vnet);
      forEachLive(tcp, (tp) => {
        if (tp.t_state === TCPS_TIME_WAIT) tcp_close(tp);
      });
      tcpHcPurge(tcp);
      return;
  }
}
