/**
 * A stream protocol without a network. Sent data stays in the send buffer until the test's peer
 * takes it, as TCP's data stays until it is acknowledged. Pending data is handled as in TCP.
 */

import { ECONNABORTED, ECONNRESET, EPIPE, type Errno } from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import { m_freem, mb_free_notready } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_NOWAIT } from '../../src/kern/mbuf.ts';
import {
  AF_INET,
  IPPROTO_TCP,
  PR_CONNREQUIRED,
  type Protosw,
  PRUS_NOTREADY,
  SOCK_STREAM,
} from '../../src/kern/protosw.ts';
import {
  sbappendstream,
  sbavail,
  sbdrop,
  sbready,
  sbsndOff,
  sbsndptr_noadv,
} from '../../src/kern/uipc_sockbuf.ts';
import {
  socreate,
  soisconnected,
  soisdisconnected,
  soisdisconnecting,
  soResult,
  soreserve,
  type Socket,
  sowwakeup,
} from '../../src/kern/uipc_socket.ts';
import { m_copym } from '../../src/kern/uipc_mbuf.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { type Vnet, vnet_alloc } from '../../src/kern/vnet.ts';
import { chainBytes, must } from './chains.ts';

/** The control block. */
export class TestPcb {
  dropped = false;
  aborts = 0;
  readies = 0;
  /** Errnos that the next calls of pr_send return instead of appending. */
  failSends: Errno[] = [];
}

export const pcbOf = (so: Socket): TestPcb => so.so_pcb as TestPcb;

export class TestProto implements Protosw {
  readonly pr_type = SOCK_STREAM;
  readonly pr_domain = AF_INET;
  readonly pr_protocol: number;
  readonly pr_flags = PR_CONNREQUIRED;
  attachError: Errno = 0;

  constructor(protocol = IPPROTO_TCP) {
    this.pr_protocol = protocol;
  }

  pr_attach(so: Socket): Errno {
    if (this.attachError !== 0) return this.attachError;
    so.so_pcb = new TestPcb();
    return 0;
  }
  pr_detach(so: Socket): void {
    so.so_pcb = null;
  }
  pr_bind(): Errno {
    return 0;
  }
  pr_listen(): Errno {
    return 0;
  }
  pr_connect(so: Socket): Errno {
    soisconnected(so);
    return 0;
  }
  pr_send(so: Socket, flags: number, m: Mbuf): Errno {
    const notReady = (flags & PRUS_NOTREADY) !== 0;
    const pcb = pcbOf(so);
    const error = pcb.dropped ? ECONNRESET : (pcb.failSends.shift() ?? 0);
    if (error !== 0) {
      if (!notReady) m_freem(m);
      return error;
    }
    sbappendstream(so.so_snd, m, notReady);
    return 0;
  }
  pr_ready(so: Socket, m: Mbuf, count: number): Errno {
    const pcb = pcbOf(so);
    if (pcb.dropped) {
      mb_free_notready(m, count);
      return ECONNRESET;
    }
    pcb.readies++;
    const error = sbready(so.so_snd, m, count);
    return error;
  }
  pr_rcvd(): Errno {
    return 0;
  }
  pr_shutdown(so: Socket): Errno {
    soisdisconnecting(so);
    return 0;
  }
  pr_disconnect(so: Socket): Errno {
    soisdisconnecting(so);
    return 0;
  }
  pr_abort(so: Socket): void {
    pcbOf(so).aborts++;
    dropConnection(so, ECONNABORTED);
  }
  pr_close(): void {}
  pr_sockaddr(): null {
    return null;
  }
  pr_peeraddr(): null {
    return null;
  }
}

/** Drops the connection, as an RST from the peer or a time-out does. */
export function dropConnection(so: Socket, error: Errno): void {
  if (pcbOf(so).dropped) return;
  pcbOf(so).dropped = true;
  so.so_error = error;
  soisdisconnected(so);
}

/** A network stack with `proto` as its only protocol. */
export function testVnet(proto: Protosw = new TestProto()): Vnet {
  const vnet = vnet_alloc(new SeededPrng(1));
  vnet.protosw.push(proto);
  return vnet;
}

/** A connected socket with buffers of `hiwat` bytes. */
export function connectedSocket(hiwat = 65_536, vnet = testVnet()): Socket {
  if (socreate(vnet, AF_INET, SOCK_STREAM, 0) !== 0) throw new Error('socreate');
  const so = must(soResult.so);
  if (soreserve(so, hiwat, hiwat) !== 0) throw new Error('soreserve');
  soisconnected(so);
  return so;
}

/** The peer: removes bytes from the send buffer as acknowledgements do. */
export class Peer {
  readonly so: Socket;
  readonly #parts: Uint8Array[] = [];

  constructor(so: Socket) {
    this.so = so;
  }

  /** Everything taken so far. */
  get received(): Uint8Array {
    return Uint8Array.from(Buffer.concat(this.#parts));
  }

  /**
   * Takes up to `n` available bytes and returns the count. Reads them by physical address, as a
   * device does, from a shadow that is freed after the acknowledgement.
   */
  take(n = Infinity): number {
    const sb = this.so.so_snd;
    const len = Math.min(n, sbavail(sb));
    if (len === 0) return 0;
    const segment = must(m_copym(sbsndptr_noadv(sb, 0), sbsndOff.off, len, M_NOWAIT));
    inPass(() => {
      sbdrop(sb, len);
      sowwakeup(this.so);
    });
    this.#parts.push(chainBytes(segment));
    inPass(m_freem, segment);
    return len;
  }

  /** Resets the connection. */
  reset(error: Errno = EPIPE): void {
    inPass(dropConnection, this.so, error);
  }
}
