/**
 * `netstat -an`, after usr.bin/netstat/inet.c: the sockets of the Internet protocols and, with
 * --json, the contents of their buffers.
 */

import type { Vnet } from '../kern/vnet.ts';
import type { PcbRow } from '../netinet/in_pcblist.ts';
import { TCPS_LISTEN, tcpstates } from '../netinet/tcp_fsm.ts';
import { tcp_pcblist, type TcpPcbRow } from '../netinet/tcp_pcblist.ts';
import { udp_pcblist } from '../netinet/udp_pcblist.ts';

/** Fields of every socket, and further fields of TCP sockets. */
type SocketRow = PcbRow & Partial<Omit<TcpPcbRow, keyof PcbRow>>;

/**
 * A line of `netstat -an --json`: a row of the protocol with its addresses as FreeBSD prints them.
 */
export interface SocketLine extends SocketRow {
  /** Address and port with a dot between them; `*` for any. */
  readonly local: string;
  readonly foreign: string;
}

/** The fields of a socket that `netstat -an` prints. */
export type SocketColumns = Pick<
  SocketLine,
  'proto' | 'recvq' | 'sendq' | 'local' | 'foreign' | 'state'
>;

function endpoint(addr: string, port: number): string {
  const any = addr === '0.0.0.0' || addr === '::';
  return `${any ? '*' : addr}.${port === 0 ? '*' : port}`;
}

/** All TCP sockets, newest first, then all UDP sockets; `all` includes listening sockets. */
export function gatherNetstatAn(vnet: Vnet, all: boolean): SocketLine[] {
  const listening: string = tcpstates[TCPS_LISTEN];
  const rows: SocketRow[] = [...tcp_pcblist(vnet), ...udp_pcblist(vnet)];
  return (
    rows
      .map((row) => ({
        ...row,
        local: endpoint(row.laddr, row.lport),
        foreign: endpoint(row.faddr, row.fport),
      }))
      // Without -a FreeBSD omits sockets without a peer.
      .filter((line) => all || (line.state !== listening && line.foreign !== '*.*'))
  );
}

const HEAD = 'Proto Recv-Q Send-Q Local Address          Foreign Address        (state)';

export function formatNetstatAn(lines: readonly SocketColumns[], all: boolean): string {
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
