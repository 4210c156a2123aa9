/**
 * TCP connections for a program that is driven by events, as with kqueue, and answers many short
 * requests. Unlike a Socket, a Conn is not a stream: the program reads into its own buffer when there is
 * something to read, and a call returns at once. All connections that become ready in a pass are
 * served in one turn of the event loop and in one pass, so their answers share a doorbell.
 */

import type { Task } from '../sys/clock.ts';
import { EBADF, EPIPE, type Errno } from '../sys/errno.ts';
import { inPass, passUpcall, type Upcall } from '../sys/pass.ts';
import { sendfile, type SendfileListener, type SfHdtr } from '../kern/kern_sendfile.ts';
import { ioResult, soRead, soWrite } from '../kern/sys_generic.ts';
import {
  SHUT_WR,
  SO_LINGER,
  soaccept,
  soclose,
  type Socket as KernSocket,
  soResult,
  soshutdown,
} from '../kern/uipc_socket.ts';
import { sbavail, SBS_CANTRCVMORE, taskAdd } from '../kern/uipc_sockbuf.ts';
import type { Vnet } from '../kern/vnet.ts';
import { addressText } from './address.ts';
import type { File } from './file.ts';
import { sendProgress, type SendProgress } from './send_progress.ts';
import { portNumber } from './node_errors.ts';
import { BACKLOG, type ListenOptions, openListener } from './server.ts';

/** Connections that one turn of the event loop serves. */
const TURN_CONNS = 32;

/** The program of a connection. Its functions run inside a pass and must not throw. */
export interface ConnUser {
  /**
   * Called when there is something to read, the end of the data or an error, when room that `wantRoom`
   * waits for is there, and after `again`. It may also be called without a cause.
   */
  ready(): void;
  /** A `sendfile` ended; possibly called before it returns. @param bytes as `Socket.sendfile` resolves with */
  sent(error: Errno, bytes: number): void;
}

/** Connections that are ready, in the order in which they became ready. */
class ReadyQueue implements Upcall {
  #conns: Conn[] = [];
  #spare: Conn[] = [];
  #posted = false;

  /** Call it inside a pass. */
  add(conn: Conn): void {
    this.#conns.push(conn);
    this.#post();
  }

  #post(): void {
    if (this.#posted) return;
    this.#posted = true;
    passUpcall(this);
  }

  upcall(): void {
    this.#posted = false;
    inPass(serveInPass, this);
  }

  /** Serves the connections that are ready now, but not too many at once. */
  serve(): void {
    const conns = this.#conns;
    const n = Math.min(conns.length, TURN_CONNS);
    this.#conns = this.#spare;
    for (let i = n; i < conns.length; i++) this.#conns.push(conns[i]!);
    let next = 0;
    try {
      while (next < n) conns[next++]!.serve();
    } finally {
      // After an exception the others have a later turn.
      while (next < n) this.#conns.push(conns[next++]!);
      if (this.#conns.length > 0) this.#post();
      conns.length = 0;
      this.#spare = conns;
    }
  }
}

function serveInPass(queue: ReadyQueue): void {
  queue.serve();
}

/** A connection. */
export class Conn implements Task, SendfileListener {
  readonly inPass = true;
  readonly #vnet: Vnet;
  readonly #queue: ReadyQueue;
  #so: KernSocket | null;
  #user: ConnUser | null = null;
  #queued = false;

  constructor(vnet: Vnet, queue: ReadyQueue, so: KernSocket) {
    this.#vnet = vnet;
    this.#queue = queue;
    this.#so = so;
  }

  /** Begins to call `user`. */
  open(user: ConnUser): void {
    this.#user = user;
    const { so_rcv: sb } = this.#so!;
    sb.sb_notes = taskAdd(sb.sb_notes, this);
    inPass(runConn, this);
  }

  /** The socket has become ready: called inside a pass. */
  run(): void {
    if (this.#queued || this.#so === null) return;
    this.#queued = true;
    this.#queue.add(this);
  }

  serve(): void {
    this.#queued = false;
    if (this.#so !== null) this.#user!.ready();
  }

  /** Calls `ready` in a later turn. */
  again(): void {
    inPass(runConn, this);
  }

  get closed(): boolean {
    return this.#so === null;
  }

  /** Whether `recv` would return something else than -EWOULDBLOCK. */
  get readable(): boolean {
    const so = this.#so;
    if (so === null) return false;
    const { so_rcv: sb } = so;
    return sbavail(sb) > 0 || (sb.sb_state & SBS_CANTRCVMORE) !== 0 || so.so_error !== 0;
  }

  /** Reads at most `buf.length` bytes. Returns their number, 0 at the end of the data, or -errno. */
  recv(buf: Uint8Array): number {
    const so = this.#so;
    if (so === null) return -EBADF;
    const error = soRead(so, buf, 0, buf.length);
    return error !== 0 ? -error : ioResult.n;
  }

  /** Sends what fits of `buf` from `off` on. Returns the number of bytes, or -errno. */
  send(buf: Uint8Array, off: number): number {
    const so = this.#so;
    if (so === null) return -EPIPE;
    const error = soWrite(so, buf, off, buf.length - off, false);
    return error !== 0 ? -error : ioResult.n;
  }

  /** Calls `ready`, once, when there is room in the send buffer. */
  wantRoom(): void {
    const so = this.#so;
    if (so === null) return;
    so.so_snd.sb_waiters = taskAdd(so.so_snd.sb_waiters, this);
  }

  /**
   * Sends `nbytes` bytes of `file` from `offset` on, behind the headers of `hdtr`. 0: `sent` is called.
   * Otherwise the errno of sendfile(2).
   */
  sendfile(file: File, offset: number, nbytes: number, hdtr: SfHdtr): Errno {
    const so = this.#so;
    return so === null ? EPIPE : sendfile(file, so, offset, nbytes, hdtr, 0, false, this);
  }

  sendfileDone(error: Errno, bytes: number): void {
    this.#user!.sent(error, bytes);
  }

  /** Ends our side: FIN after all data. */
  shutdown(): void {
    // Ignore an error: the peer may have reset the connection already.
    if (this.#so !== null) soshutdown(this.#so, SHUT_WR);
  }

  /** Closes it. A socket that is closed with unread bytes sends a RST. */
  close(): void {
    const so = this.#so;
    this.#so = null;
    if (so !== null) soclose(so);
  }

  /** Drops the connection with a RST. */
  reset(): void {
    if (this.#so === null) return;
    this.#so.so_options |= SO_LINGER;
    this.#so.so_linger = 0;
    this.close();
  }

  get progress(): SendProgress {
    return sendProgress(this.#so);
  }

  /** The peer's address and port; null once closed. */
  peer(): { address: string; port: number } | null {
    const so = this.#so;
    const name = so === null || so.so_pcb === null ? null : so.so_proto.pr_peeraddr(so);
    return name === null ? null : { address: addressText(this.#vnet, name), port: name.port };
  }
}

function runConn(conn: Conn): void {
  conn.run();
}

/** A listening socket, whose connections are Conns. */
export class ConnListener implements Task {
  readonly #vnet: Vnet;
  readonly #accepted: (conn: Conn) => void;
  readonly #queue = new ReadyQueue();
  #so: KernSocket | null;

  /**
   * @param accepted is called with each connection, and calls `open`. It must not throw.
   * Throws ERR_SOCKET_BAD_PORT; TapnicError: EINVAL (address), EADDRINUSE, EADDRNOTAVAIL, ENOBUFS.
   */
  constructor(vnet: Vnet, options: ListenOptions, accepted: (conn: Conn) => void) {
    const { port, host, backlog = BACKLOG, ipv6Only = false } = options;
    const place = { port: portNumber(port ?? 0), host: host ?? null, backlog, ipv6Only };
    const { so, failure } = openListener(vnet, place);
    if (so === null) throw failure;
    this.#vnet = vnet;
    this.#accepted = accepted;
    this.#so = so;
    so.sol_upcall = this;
  }

  /** Accepts the connections that are complete. Called as an upcall. */
  run(): void {
    inPass(acceptInPass, this);
  }

  accept(): void {
    for (let head = this.#so; head !== null && head.sol_comp.length > 0; head = this.#so) {
      // A connection that ended before it was accepted is not reported.
      if (soaccept(head) !== 0) continue;
      this.#accepted(new Conn(this.#vnet, this.#queue, soResult.so!));
    }
  }

  /** Stops accepting. */
  close(): void {
    const so = this.#so;
    this.#so = null;
    if (so !== null) soclose(so);
  }
}

function acceptInPass(listener: ConnListener): void {
  listener.accept();
}
