/**
 * `netstat -an`, after usr.bin/netstat/inet.c: the sockets of the Internet protocols and, with
 * --json, the contents of their buffers.
 */

import type { Vnet } from '../kern/vnet.ts';
import type { PcbRow } from '../netinet/in_pcblist.ts';
import { rip_pcblist } from '../netinet/raw_pcblist.ts';
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

/**
 * All TCP sockets, newest first, then all UDP sockets, then all raw sockets; `all` includes listening
 * sockets.
 */
export function gatherNetstatAn(vnet: Vnet, all: boolean): SocketLine[] {
  const listening: string = tcpstates[TCPS_LISTEN];
  const rows: SocketRow[] = [...tcp_pcblist(vnet), ...udp_pcblist(vnet), ...rip_pcblist(vnet)];
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

const head = (width: number): string =>
  `Proto Recv-Q Send-Q ${'Local Address'.padEnd(width)} ${'Foreign Address'.padEnd(width)} (state)`;

/** Columns of an address without and with -W, and those of an IPv6 address in it. */
const WIDTH = { normal: 22, wide: 45 };
const ADDR6 = { normal: 16, wide: 39 };

/** Cuts an IPv6 address, so that its port fits into the column. FreeBSD does the same. */
function fitting(text: string, wide: boolean): string {
  const width = wide ? WIDTH.wide : WIDTH.normal;
  const dot = text.lastIndexOf('.');
  const cut = text.includes(':')
    ? text.slice(0, Math.min(dot, wide ? ADDR6.wide : ADDR6.normal))
    : '';
  return (cut === '' ? text : cut + text.slice(dot)).slice(0, width).padEnd(width);
}

/** @param wide print whole IPv6 addresses: -W */
export function formatNetstatAn(
  lines: readonly SocketColumns[],
  all: boolean,
  wide = false,
): string {
  if (lines.length === 0) return '';
  const title = `Active Internet connections${all ? ' (including servers)' : ''}`;
  const rows = lines.map((l) =>
    [
      l.proto.padEnd(5),
      String(l.recvq).padStart(6),
      String(l.sendq).padStart(6),
      fitting(l.local, wide),
      fitting(l.foreign, wide),
      l.state,
    ]
      .join(' ')
      .trimEnd(),
  );
  return [title, head(wide ? WIDTH.wide : WIDTH.normal), ...rows, ''].join('\n');
}
