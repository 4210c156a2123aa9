/**
 * TCP's protocol switch for stream sockets, after sys/netinet/tcp_usrreq.c. Socket options are in
 * tcp_sockopt.ts.
 */

import {
  EALREADY,
  ECONNABORTED,
  ECONNREFUSED,
  ECONNRESET,
  EINVAL,
  EISCONN,
  ENOBUFS,
  ENOTCONN,
  type Errno,
} from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { mb_free_notready, m_freem } from '../kern/kern_mbuf.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import {
  IPPROTO_TCP,
  PR_CONNREQUIRED,
  PR_IMPLOPCL,
  type Protosw,
  PRUS_EOF,
  PRUS_MORETOCOME,
  PRUS_NOTREADY,
  PRUS_OOB,
  PR_WANTRCVD,
  SOCK_STREAM,
} from '../kern/protosw.ts';
import { Sockaddr } from '../kern/sockaddr.ts';
import {
  SB_AUTOSIZE,
  sbappendstream,
  sbflush,
  sbready,
  sbspace,
  sbused,
} from '../kern/uipc_sockbuf.ts';
import {
  socantsendmore,
  soisconnecting,
  soisdisconnected,
  soisdisconnecting,
  SO_LINGER,
  soref,
  soreserve,
  type Socket,
} from '../kern/uipc_socket.ts';
import { INP_DROPPED, in_pcballoc, in_pcbfree, INP_SOCKREF, type Inpcb, inpaf } from './in_pcb.ts';
import { in_pcbbind, in_pcbconnect } from './in_pcbbind.ts';
import { in6_mapped_sockaddr, peer, peerFamily } from './in_mapped.ts';
import {
  tcp_state_change,
  TCPS_CLOSE_WAIT,
  TCPS_CLOSED,
  TCPS_CLOSING,
  TCPS_ESTABLISHED,
  TCPS_FIN_WAIT_1,
  TCPS_FIN_WAIT_2,
  TCPS_HAVEESTABLISHED,
  TCPS_LAST_ACK,
  TCPS_LISTEN,
  TCPS_SYN_RECEIVED,
  TCPS_SYN_SENT,
  TCPS_TIME_WAIT,
} from './tcp_fsm.ts';
import { tcp_new_isn, tcp_new_ts_offset } from './tcp_isn.ts';
import {
  intotcpcb,
  tcp_close,
  tcp_discardcb,
  tcp_drop,
  tcp_mss,
  tcp_newtcpcb,
  tcpRoom,
  tcpTwClosed,
} from './tcp_subr.ts';
import { tcp_fastopen_connect, tfoClientEnabled, tfoListener } from './tcp_fastopen.ts';
import { tcp_usr_rcvoob } from './tcp_oob.ts';
import { seqAdd } from './tcp_seq.ts';
import { tcp_ctloutput } from './tcp_sockopt.ts';
import { tcp_timer_activate } from './tcp_timer.ts';
import {
  finwait2Ms,
  type Tcpcb,
  TF_FASTOPEN,
  TF_FORCEDATA,
  TF_MORETOCOME,
  TF2_PASSOUT,
  TF_NEEDFIN,
  TP_KEEPINIT,
  TT_2MSL,
  TT_KEEP,
  V_tcp,
} from './tcp_var.ts';

/** The peer's window before its SYN-ACK, for an implied connect. @see sys/netinet/tcp_var.h */
const TTCP_CLIENT_SND_WND = 4096;

/** The socket's connection; null if the socket has no PCB or the connection was dropped. */
function sototcpcb(so: Socket): Tcpcb | null {
  const inp = so.so_pcb as Inpcb | null;
  return inp === null || (inp.inp_flags & INP_DROPPED) !== 0 ? null : intotcpcb(inp);
}

function attach(so: Socket): Errno {
  const vnet = so.so_vnet;
  const tcp = V_tcp(vnet);
  if (so.so_snd.sb_hiwat === 0 || so.so_rcv.sb_hiwat === 0) {
    const error = soreserve(so, tcp.params.sendspace, tcp.params.recvspace);
    if (error !== 0) return error;
  }
  if (!tcpRoom(tcp)) return ENOBUFS;
  so.so_snd.sb_flags |= SB_AUTOSIZE;
  so.so_rcv.sb_flags |= SB_AUTOSIZE;
  const inp = in_pcballoc(so, tcp.tcbinfo, inpaf(vnet, so.so_proto.pr_domain));
  tcp_newtcpcb(inp);
  so.so_pcb = inp;
  return 0;
}

function detach(so: Socket): void {
  const inp = so.so_pcb as Inpcb;
  const tp = intotcpcb(inp);
  KASSERT(tp.t_state < TCPS_SYN_SENT, 'tcp_usr_detach: connection alive');
  tcp_discardcb(tp);
  in_pcbfree(inp);
  so.so_pcb = null;
}

function bind(so: Socket, nam: Sockaddr): Errno {
  const tp = sototcpcb(so);
  if (tp === null) return EINVAL;
  return in_pcbbind(tp.t_inpcb, nam);
}

function listen(so: Socket): Errno {
  const tp = sototcpcb(so);
  if (tp === null || tp.t_state > TCPS_LISTEN) return EINVAL;
  if (tp.t_inpcb.inp_inc.inc_lport === 0) {
    const error = in_pcbbind(tp.t_inpcb, null);
    if (error !== 0) return error;
  }
  if (tp.t_state === TCPS_CLOSED) tcp_state_change(tp, TCPS_LISTEN);
  if ((tp.t_flags & TF_FASTOPEN) !== 0) tfoListener(tp);
  return 0;
}

function connect(so: Socket, nam: Sockaddr): Errno {
  const error = tcp_connect(so, nam);
  if (error !== 0) return error;
  const tp = sototcpcb(so)!;
  const sent = tp.t_fb.tfb_tcp_output(tp);
  if (sent !== 0) tcp_close(tp);
  return sent;
}

/** `connect` up to its SYN, which the caller sends. @see sys/netinet/tcp_usrreq.c */
function tcp_connect(so: Socket, nam: Sockaddr): Errno {
  const tp = sototcpcb(so);
  // The connection ended. A socket can connect only once: ECONNREFUSED for every reason, as on
  // FreeBSD.
  if (tp === null) return ECONNREFUSED;
  if (tp.t_state !== TCPS_CLOSED) return tp.t_state === TCPS_SYN_SENT ? EALREADY : EISCONN;
  const inp = tp.t_inpcb;
  let error = peerFamily(inp, nam);
  if (error === 0) error = peer.af!.connectable(so.so_vnet, peer.nam);
  if (error === 0) error = in_pcbconnect(inp, nam);
  if (error !== 0) return error;
  const tcp = tp.t_tcp;
  soisconnecting(so);
  tcp.stat.tcps_connattempt++;
  tcp_state_change(tp, TCPS_SYN_SENT);
  tp.iss = tcp_new_isn(tcp, inp.inp_inc);
  tp.ts_offset = tcp_new_ts_offset(tcp, inp.inp_inc);
  tp.snd_una = tp.iss;
  tp.snd_nxt = tp.iss;
  tp.snd_max = tp.iss;
  tp.snd_up = tp.iss;
  tp.snd_recover = tp.iss;
  if (!tfoClientEnabled(so.so_vnet)) tp.t_flags &= ~TF_FASTOPEN;
  tcp_timer_activate(tp, TT_KEEP, TP_KEEPINIT(tp));
  return 0;
}

/**
 * Connects for a send with an address. The window and MSS of the peer are unknown, except for a path
 * in Fast Open's cache.
 */
function impliedConnect(so: Socket, tp: Tcpcb, nam: Sockaddr): Errno {
  const error = tcp_connect(so, nam);
  if (error !== 0) return error;
  if ((tp.t_flags & TF_FASTOPEN) !== 0) {
    tcp_mss(tp, tcp_fastopen_connect(tp));
    tp.snd_wnd = tp.t_maxseg;
  } else {
    tp.snd_wnd = TTCP_CLIENT_SND_WND;
    tcp_mss(tp, -1);
  }
  return 0;
}

/**
 * The program closed its sending side: moves to the next state, RFC 9293, 3.10.4.
 * @see sys/netinet/tcp_usrreq.c
 */
export function tcp_usrclosed(tp: Tcpcb): void {
  switch (tp.t_state) {
    case TCPS_CLOSED:
    case TCPS_LISTEN:
      tcp_close(tp);
      return;
    case TCPS_SYN_SENT:
    case TCPS_SYN_RECEIVED:
      tp.t_flags |= TF_NEEDFIN;
      return;
    case TCPS_ESTABLISHED:
      tcp_state_change(tp, TCPS_FIN_WAIT_1);
      return;
    case TCPS_CLOSE_WAIT:
      tcp_state_change(tp, TCPS_LAST_ACK);
      return;
    case TCPS_FIN_WAIT_2:
      soisdisconnected(tp.t_inpcb.inp_socket!);
      tcp_timer_activate(tp, TT_2MSL, finwait2Ms(tp));
      return;
    case TCPS_FIN_WAIT_1:
    case TCPS_CLOSING:
    case TCPS_LAST_ACK:
    case TCPS_TIME_WAIT:
      return;
  }
}

/**
 * Ends a connection on behalf of the program. Before ESTABLISHED closes it at once; with SO_LINGER
 * of 0 s sends RST; else sends FIN.
 */
function disconnect(tp: Tcpcb): void {
  const so = tp.t_inpcb.inp_socket!;
  const fast = tp.t_state > TCPS_LISTEN && (tp.t_flags & TF_FASTOPEN) !== 0;
  if (!TCPS_HAVEESTABLISHED(tp.t_state) && !fast) {
    tcp_close(tp);
  } else if ((so.so_options & SO_LINGER) !== 0 && so.so_linger === 0) {
    tcp_drop(tp, 0);
  } else {
    soisdisconnecting(so);
    sbflush(so.so_rcv);
    tcp_usrclosed(tp);
    if ((tp.t_inpcb.inp_flags & INP_DROPPED) === 0) tp.t_fb.tfb_tcp_output(tp);
  }
}

function usrDisconnect(so: Socket): Errno {
  const tp = sototcpcb(so);
  if (tp === null) return ECONNRESET;
  if (tp.t_state !== TCPS_TIME_WAIT) disconnect(tp);
  return 0;
}

function send(so: Socket, flags: number, m: Mbuf, nam: Sockaddr | null): Errno {
  const notReady = (flags & PRUS_NOTREADY) !== 0;
  const tp = sototcpcb(so);
  if (tp === null || tp.t_state === TCPS_TIME_WAIT) {
    if (!notReady) m_freem(m);
    return ECONNRESET;
  }
  const oob = (flags & PRUS_OOB) !== 0;
  if (oob && sbspace(so.so_snd) < -512) {
    m_freem(m);
    return ENOBUFS;
  }
  sbappendstream(so.so_snd, m, notReady);
  if (nam !== null && tp.t_state < TCPS_LISTEN) {
    const error = impliedConnect(so, tp, nam);
    if (error !== 0) {
      sbflush(so.so_snd);
      return error;
    }
  }
  if ((flags & PRUS_EOF) !== 0) {
    socantsendmore(so);
    tcp_usrclosed(tp);
  }
  if (notReady) return 0;
  if (oob) {
    // RFC 6093, 4: the urgent pointer is the byte after the urgent data, as in all implementations.
    tp.snd_up = seqAdd(tp.snd_una, sbused(so.so_snd));
    tp.t_flags |= TF_FORCEDATA;
    const forced = tp.t_fb.tfb_tcp_output(tp);
    tp.t_flags &= ~TF_FORCEDATA;
    return forced;
  }
  if ((tp.t_flags2 & TF2_PASSOUT) !== 0) return 0;
  if ((flags & PRUS_MORETOCOME) !== 0) tp.t_flags |= TF_MORETOCOME;
  const error = tp.t_fb.tfb_tcp_output(tp);
  tp.t_flags &= ~TF_MORETOCOME;
  return error;
}

function ready(so: Socket, m: Mbuf, count: number): Errno {
  const tp = sototcpcb(so);
  if (tp === null || tp.t_state === TCPS_TIME_WAIT) {
    mb_free_notready(m, count);
    return ECONNRESET;
  }
  const error = sbready(so.so_snd, m, count);
  return error === 0 ? tp.t_fb.tfb_tcp_output(tp) : error;
}

function rcvoob(so: Socket, m: Mbuf, flags: number): Errno {
  const tp = sototcpcb(so);
  return tp === null ? ECONNRESET : tcp_usr_rcvoob(so, tp, m, flags);
}

function rcvd(so: Socket): Errno {
  const tp = sototcpcb(so);
  if (tp === null || tp.t_state === TCPS_TIME_WAIT) return ECONNRESET;
  // A window update would send the SYN-ACK before the program answers.
  if (tp.t_state === TCPS_SYN_RECEIVED && (tp.t_flags & TF_FASTOPEN) !== 0) return 0;
  return tp.t_fb.tfb_tcp_output(tp);
}

function shutdown(so: Socket): Errno {
  const tp = sototcpcb(so);
  if (tp === null) return ECONNRESET;
  if (tp.t_state < TCPS_SYN_SENT) return ENOTCONN;
  socantsendmore(so);
  tcp_usrclosed(tp);
  if (tp.t_state === TCPS_TIME_WAIT) return 0;
  return tp.t_fb.tfb_tcp_output(tp);
}

function abort(so: Socket): void {
  const tp = sototcpcb(so);
  if (tp === null) return;
  if (tp.t_state === TCPS_TIME_WAIT) tcpTwClosed(tp.t_inpcb);
  else tcp_drop(tp, ECONNABORTED);
}

function close(so: Socket): void {
  const tp = sototcpcb(so);
  if (tp === null) return;
  const inp = tp.t_inpcb;
  if (tp.t_state === TCPS_TIME_WAIT) {
    tcpTwClosed(inp);
    return;
  }
  disconnect(tp);
  if ((inp.inp_flags & INP_DROPPED) !== 0) return;
  // Data or FIN is still unacknowledged: the connection holds a reference to the socket until it
  // ends.
  soref(so);
  inp.inp_flags |= INP_SOCKREF;
}

/** The protocol switch of a family's stream sockets. @see sys/netinet/tcp_usrreq.c */
export function tcpProtosw(family: number): Protosw {
  const name = (so: Socket, foreign: boolean): Sockaddr | null => {
    const inp = so.so_pcb as Inpcb | null;
    if (inp === null || (foreign && inp.inp_inc.inc_fport === 0)) return null;
    return in6_mapped_sockaddr(inp, inp.inp_inc, foreign, new Sockaddr());
  };
  return {
    pr_type: SOCK_STREAM,
    pr_domain: family,
    pr_protocol: IPPROTO_TCP,
    pr_flags: PR_CONNREQUIRED | PR_IMPLOPCL | PR_WANTRCVD,
    pr_attach: attach,
    pr_detach: detach,
    pr_bind: bind,
    pr_listen: listen,
    pr_connect: connect,
    pr_send: send,
    pr_ready: ready,
    pr_rcvoob: rcvoob,
    pr_rcvd: rcvd,
    pr_shutdown: shutdown,
    pr_disconnect: usrDisconnect,
    pr_abort: abort,
    pr_close: close,
    pr_sockaddr: (so) => name(so, false),
    pr_peeraddr: (so) => name(so, true),
    pr_ctloutput: tcp_ctloutput,
  };
}
