/**
 * `netstat -an`, after usr.bin/netstat/inet.c: the sockets of the Internet protocols, and, for
 * --json, what is in their buffers.
 */

import { EXT_PGS, type Mbuf, M_EXT } from '../kern/mbuf.ts';
import { AF_INET, SOCK_STREAM } from '../kern/protosw.ts';
import type { Socket } from '../kern/uipc_socket.ts';
import type { Inpcb, Inpcbinfo } from '../netinet/in_pcb.ts';
import { TCPS_LISTEN, tcpstates } from '../netinet/tcp_fsm.ts';
import type { Tcpcb } from '../netinet/tcp_var.ts';

/** A line of `netstat -an --json`. */
export interface SocketLine {
  /** `tcp4`, `udp4`. */
  proto: string;
  /** Bytes waiting in the buffers; on the send side those not acknowledged are included. */
  recvq: number;
  sendq: number;
  /** Address and port with a dot between them, as FreeBSD prints; `*` for any. */
  local: string;
  foreign: string;
  /** As FreeBSD prints it; empty for a protocol without states. */
  state: string;
  recv_mbufs: number;
  send_mbufs: number;
  /** Of the send buffer's mbufs, the unmapped ones. */
  send_ext_pgs: number;
  /** Bytes of memory charged to the buffers, and their limits in bytes of data. */
  recv_mbcnt: number;
  send_mbcnt: number;
  recv_hiwat: number;
  send_hiwat: number;
}

/** The PCBs of one protocol. */
export interface PcbList {
  /** `tcp` or `udp`. */
  readonly proto: string;
  readonly info: Inpcbinfo;
}

function extPgs(first: Mbuf | null): number {
  let n = 0;
  for (let m = first; m !== null; m = m.m_next)
    if ((m.m_flags & M_EXT) !== 0 && m.m_ext.ext_type === EXT_PGS) n++;
  return n;
}

function socketLine(proto: string, inp: Inpcb): SocketLine {
  const so: Socket | null = inp.inp_socket;
  const family = inp.inp_inc.inc_family === AF_INET ? 4 : 6;
  const stream = so === null ? proto === 'tcp' : so.so_type === SOCK_STREAM;
  const tp = stream ? (inp.inp_ppcb as Tcpcb | null) : null;
  return {
    proto: `${proto}${family}`,
    recvq: so?.so_rcv.sb_ccc ?? 0,
    sendq: so?.so_snd.sb_ccc ?? 0,
    local: endpoint(inp, false),
    foreign: endpoint(inp, true),
    state: tp === null ? '' : tcpstates[tp.t_state],
    recv_mbufs: so?.so_rcv.sb_mcnt ?? 0,
    send_mbufs: so?.so_snd.sb_mcnt ?? 0,
    send_ext_pgs: extPgs(so?.so_snd.sb_mb ?? null),
    recv_mbcnt: so?.so_rcv.sb_mbcnt ?? 0,
    send_mbcnt: so?.so_snd.sb_mbcnt ?? 0,
    recv_hiwat: so?.so_rcv.sb_hiwat ?? 0,
    send_hiwat: so?.so_snd.sb_hiwat ?? 0,
  };
}

function endpoint(inp: Inpcb, foreign: boolean): string {
  const { inp_inc: inc, inp_af: af } = inp;
  const any = foreign ? af.faddrAny(inc) : af.laddrAny(inc);
  const port = foreign ? inc.inc_fport : inc.inc_lport;
  return `${any ? '*' : af.print(inc, foreign)}.${port === 0 ? '*' : port}`;
}

/** Every socket of the protocols given, the newest first; `all` includes the listening ones. */
export function gatherNetstatAn(lists: readonly PcbList[], all: boolean): SocketLine[] {
  const listening: string = tcpstates[TCPS_LISTEN];
  const lines: SocketLine[] = [];
  for (const { proto, info } of lists)
    for (let inp = info.ipi_listhead; inp !== null; inp = inp.listNext) {
      const line = socketLine(proto, inp);
      // Without -a FreeBSD leaves out what has no peer.
      if (all || (line.state !== listening && line.foreign !== '*.*')) lines.push(line);
    }
  return lines;
}

const HEAD = 'Proto Recv-Q Send-Q Local Address          Foreign Address        (state)';

export function formatNetstatAn(lines: readonly SocketLine[], all: boolean): string {
  if (lines.length === 0) return '';
  const title = `Active Internet connections${all ? ' (including servers)' : ''}`;
  const rows = lines.map((l) =>
    [
      l.proto.padEnd(5),
      String(l.recvq).padStart(6),
      String(l.sendq).padStart(6),
      l.local.slice(0, 22).padEnd(22),
      l.foreign.slice(0, 22).padEnd(22),
      l.state,
    ]
      .join(' ')
      .trimEnd(),
  );
  return [title, HEAD, ...rows, ''].join('\n');
}
