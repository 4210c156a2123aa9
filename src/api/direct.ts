/**
 * Services inside the stack: echo and discard. They run in the pass that receives the data, so a request
 * takes no turn of the event loop, and they send the received mbufs back without a copy, so it makes no
 * garbage. FreeBSD has such services in programs; its kernel's socket upcalls and UDP tunnels work in this way.
 */

import {
  EAFNOSUPPORT,
  ECONNABORTED,
  ENOBUFS,
  errnoError,
  errnoName,
  type Errno,
} from '../sys/errno.ts';
import type { Task } from '../sys/clock.ts';
import { inPass } from '../sys/pass.ts';
import { count, R_LOG_SUPPRESSED } from '../sys/reason.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { AF_INET, AF_INET6, IPPROTO_UDP, SOCK_DGRAM } from '../kern/protosw.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { m_adj } from '../kern/uipc_mbuf.ts';
import { packetToSend, soDiscard, soEcho, soSendPacket } from '../kern/uipc_move.ts';
import { SBS_CANTRCVMORE, sbavail, taskAdd } from '../kern/uipc_sockbuf.ts';
import {
  SO_LINGER,
  soaccept,
  sobind,
  soclose,
  socreate,
  soreserve,
  type Socket,
  soResult,
  soTakeError,
} from '../kern/uipc_socket.ts';
import type { Vnet } from '../kern/vnet.ts';
import { soSetInt } from '../kern/uipc_sockopt.ts';
import { Udphdr } from '../netinet/udp.ts';
import { udp_set_kernel_tunneling, type UdpTunnel } from '../netinet/udp_usrreq.ts';
import { IPPROTO_IPV6 } from '../netinet6/ip6.ts';
import { IPV6_V6ONLY } from '../netinet6/ip6_ctloutput.ts';
import { addressText, sockaddr } from './address.ts';
import { BACKLOG, listeningSocket } from './server.ts';

/** What a service does with received data. */
export type DirectKind = 'echo' | 'discard';

/** Called when a connection or a datagram failed, with the peer and the code of the error. */
export type DirectFailure = (
  what: 'connection' | 'datagram',
  address: string,
  port: number,
  code: string,
) => void;

export interface DirectOptions {
  readonly kind: DirectKind;
  readonly port: number;
  /** Whether datagrams from this port are ignored. */
  readonly ignores: (port: number) => boolean;
  readonly failed: DirectFailure;
}

/** A datagram to send and four to receive, of any size. */
const DGRAM_MAX = 65535;
const DGRAM_RECEIVE = 4 * DGRAM_MAX;

/** Calls `make` for both families, or for IPv4 if the stack has no IPv6. Throws TapnicError. */
function bound(port: number, make: (family: number, any: string) => Errno): Socket {
  let error = make(AF_INET6, '::');
  if (error === EAFNOSUPPORT) error = make(AF_INET, '0.0.0.0');
  if (error !== 0) throw errnoError(error, `bind ${port}`);
  return soResult.so!;
}

/** Reports per second. A peer that resets many connections must not fill the log. */
const REPORTS_PER_SECOND = 100;
const SECOND_NS = 1e9;

/** One accepted connection. Runs in the pass that received data, or in which room became free. */
class DirectConnection implements Task {
  readonly so: Socket;
  readonly #service: DirectService;

  constructor(so: Socket, service: DirectService) {
    this.so = so;
    this.#service = service;
    so.so_rcv.sb_notes = taskAdd(so.so_rcv.sb_notes, this);
    if (service.kind === 'echo') so.so_snd.sb_notes = taskAdd(so.so_snd.sb_notes, this);
  }

  run(): void {
    const { so } = this;
    const rcv = so.so_rcv;
    let error = 0;
    if (this.#service.kind === 'discard') soDiscard(so);
    else error = soEcho(so);
    if (so.so_error !== 0) error = soTakeError(so);
    if (error !== 0) this.#service.connectionFailed(this, error);
    else if (sbavail(rcv) === 0 && (rcv.sb_state & SBS_CANTRCVMORE) !== 0) this.#service.end(this);
  }
}

/** An echo or discard service over TCP and UDP. */
export class DirectService implements Task, UdpTunnel {
  readonly kind: DirectKind;
  readonly #vnet: Vnet;
  readonly #options: DirectOptions;
  readonly #ignores: (port: number) => boolean;
  /** The listener and the datagram socket; null when closed. */
  #head: Socket | null = null;
  #dgram: Socket | null = null;
  readonly #connections = new Set<DirectConnection>();
  /** Start of the current second of reports, and their number. */
  #secondNs = -SECOND_NS;
  #reports = 0;

  /** Listens at once. Throws TapnicError EADDRINUSE, ENOBUFS. */
  constructor(vnet: Vnet, options: DirectOptions) {
    const { kind, port } = options;
    this.kind = kind;
    this.#vnet = vnet;
    this.#options = options;
    this.#ignores = options.ignores;
    const head = bound(port, (_family, any) =>
      listeningSocket(vnet, sockaddr(vnet, any, port), BACKLOG, false),
    );
    this.#head = head;
    head.so_rcv.sb_notes = taskAdd(head.so_rcv.sb_notes, this);
    try {
      this.#dgram = bound(port, (family, any) => this.#bindDgram(family, any));
    } catch (e) {
      this.close();
      throw e;
    }
  }

  #bindDgram(family: number, any: string): Errno {
    const made = socreate(this.#vnet, family, SOCK_DGRAM, IPPROTO_UDP);
    if (made !== 0) return made;
    const so = soResult.so!;
    if (family === AF_INET6) soSetInt(so, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    const error =
      soreserve(so, DGRAM_MAX, DGRAM_RECEIVE) ||
      sobind(so, sockaddr(this.#vnet, any, this.#options.port));
    if (error !== 0) soclose(so);
    else udp_set_kernel_tunneling(so, this);
    soResult.so = so;
    return error;
  }

  /** Accepts all complete connections. */
  run(): void {
    const head = this.#head;
    if (head === null) return;
    for (;;) {
      const error = soaccept(head);
      if (error === ECONNABORTED) continue;
      if (error !== 0) return;
      const connection = new DirectConnection(soResult.so!, this);
      this.#connections.add(connection);
      // Data, or the end of the connection, may have arrived before.
      connection.run();
    }
  }

  /** A datagram arrived: answers or discards it. */
  udpTunneled(m: Mbuf, hlen: number, from: Sockaddr): void {
    const so = this.#dgram;
    if (so === null || this.kind === 'discard' || from.port === 0 || this.#ignores(from.port)) {
      m_freem(m);
      return;
    }
    m_adj(m, hlen + Udphdr.SIZE);
    packetToSend(m);
    const error = soSendPacket(so, m, from);
    if (error !== 0 && this.#reportAllowed()) this.#report('datagram', from, error);
  }

  /** Counts a failure. Returns whether it is reported. */
  #reportAllowed(): boolean {
    const now = nowNs();
    if (now - this.#secondNs >= SECOND_NS) {
      this.#secondNs = now;
      this.#reports = 0;
    }
    if (++this.#reports <= REPORTS_PER_SECOND) return true;
    count(R_LOG_SUPPRESSED);
    return false;
  }

  #report(what: 'connection' | 'datagram', peer: Sockaddr, error: Errno): void {
    this.#options.failed(what, addressText(this.#vnet, peer), peer.port, errnoName(error));
  }

  /** For connections: `error` ended this one. */
  connectionFailed(connection: DirectConnection, error: Errno): void {
    const { so } = connection;
    const peer = this.#reportAllowed() ? so.so_proto.pr_peeraddr(so) : null;
    // Without memory for the answer the connection is reset.
    if (error === ENOBUFS) reset(so);
    this.end(connection);
    if (peer !== null) this.#report('connection', peer, error);
  }

  /** Closes a connection. The stack still sends the data in its send buffer. */
  end(connection: DirectConnection): void {
    if (this.#connections.delete(connection)) soclose(connection.so);
  }

  #closeDoors(): void {
    const head = this.#head;
    const dgram = this.#dgram;
    this.#head = null;
    this.#dgram = null;
    if (head !== null) soclose(head);
    if (dgram !== null) soclose(dgram);
  }

  #endAll(): void {
    this.#closeDoors();
    for (const connection of this.#connections) this.end(connection);
  }

  /** Stops accepting, and ends the open connections. */
  close(): void {
    inPass(() => this.#endAll());
  }

  /** Stops accepting, and resets the open connections. */
  destroy(): void {
    inPass(() => {
      for (const { so } of this.#connections) reset(so);
      this.#endAll();
    });
  }
}

/** Makes the close of `so` send a RST. */
function reset(so: Socket): void {
  so.so_options |= SO_LINGER;
  so.so_linger = 0;
}
