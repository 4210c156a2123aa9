/**
 * A stack with TCP. The test plays the peer: it injects segments as frames and reads the sent
 * frames.
 */

import { expect } from 'chai';
import { AF_INET, SOCK_STREAM } from '../../src/kern/protosw.ts';
import { inSockaddr } from '../../src/netinet/in.ts';
import type { Sockaddr } from '../../src/kern/sockaddr.ts';
import {
  SO_REUSEADDR,
  soaccept,
  sobind,
  soclose,
  soconnect,
  socreate,
  solisten,
  soreceive,
  soResult,
  sosend,
  type Socket,
} from '../../src/kern/uipc_socket.ts';
import type { Inpcb } from '../../src/netinet/in_pcb.ts';
import { type TcpState, tcpstates } from '../../src/netinet/tcp_fsm.ts';
import { tcp_shutdownVnet } from '../../src/netinet/tcp_pcblist.ts';
import { type Tcpcb, type Tcpstat, tcpstat, V_tcp } from '../../src/netinet/tcp_var.ts';
import { port } from '../../src/sys/types.ts';
import { UIO_READ, UIO_WRITE, Uio } from '../../src/vm/uio.ts';
import {
  buildTcp,
  type DecodeOptions,
  decodeFrame,
  type Frame,
  toBytes,
  type TcpFields,
} from '../support/frames.ts';
import { addr, PEER, PEER_MAC, Rig, type RigOptions, US } from './rig.ts';

export { PEER, US };
export const MS = 1e6;
export const SECOND = 1e9;
/** The peer's default port. */
export const PEER_PORT = 40000;

export function sin(text: string, n: number): Sockaddr {
  return inSockaddr(addr(text), port(n));
}

export type Seg = Partial<TcpFields>;

export class TestHost extends Rig {
  readonly sockets: Socket[] = [];
  /** How deep `take` verifies; less for an interface with checksum offload. */
  decode: DecodeOptions = {};

  constructor(options: RigOptions = {}) {
    super(options);
    if ((options.hwassist ?? 0) !== 0) this.decode = { l3: 'none', l4: 'none' };
  }

  get stat(): Tcpstat {
    return tcpstat(this.vnet);
  }

  socket(): Socket {
    expect(socreate(this.vnet, AF_INET, SOCK_STREAM, 0)).to.equal(0);
    this.sockets.push(soResult.so!);
    return soResult.so!;
  }

  listen(n: number, backlog = 8): Socket {
    const so = this.socket();
    so.so_options |= SO_REUSEADDR;
    expect(sobind(so, sin('0.0.0.0', n))).to.equal(0);
    expect(solisten(so, backlog)).to.equal(0);
    return so;
  }

  accept(head: Socket): Socket {
    expect(soaccept(head), 'accept').to.equal(0);
    this.sockets.push(soResult.so!);
    return soResult.so!;
  }

  /** Starts to connect to port `n` of the peer. */
  connect(n: number): Socket {
    const so = this.socket();
    expect(soconnect(so, sin(PEER, n))).to.equal(0);
    return so;
  }

  closeSocket(so: Socket): void {
    const at = this.sockets.indexOf(so);
    expect(at).to.be.at.least(0);
    this.sockets.splice(at, 1);
    soclose(so);
  }

  write(so: Socket, data: string | ArrayLike<number>): number {
    const bytes = toBytes(data);
    return sosend(so, new Uio().single(bytes, 0, bytes.length, UIO_WRITE), null, 0);
  }

  /** Reads up to `max` available bytes as text. Returns null at end of data, or the errno. */
  read(so: Socket, max = 65536): string | number | null {
    const buf = new Uint8Array(max);
    const uio = new Uio().single(buf, 0, max, UIO_READ);
    const error = soreceive(so, uio);
    if (error !== 0) return error;
    const got = max - uio.uio_resid;
    return got === 0 ? null : Buffer.from(buf.subarray(0, got)).toString('latin1');
  }

  /** Delivers a segment from the peer. */
  seg(fields: Seg, piece = 0): void {
    const packet = buildTcp({ src: PEER, dst: US }, { sport: PEER_PORT, dport: 80, ...fields });
    this.injectIp(packet, piece);
  }

  /** Decodes and removes the frames sent since the last call. */
  take(): Frame[] {
    return this.sent.splice(0).map((bytes) => decodeFrame(bytes, this.decode));
  }

  /** Advances the clock and keeps the ARP entry of the peer alive. */
  advance(ms: number): void {
    for (; ms > 600_000; ms -= 600_000) {
      this.clock.advance(600_000 * MS);
      this.arpReply(PEER, PEER_MAC);
    }
    this.clock.advance(ms * MS);
  }

  tp(so: Socket): Tcpcb {
    return (so.so_pcb as Inpcb).inp_ppcb as Tcpcb;
  }

  state(so: Socket): string {
    return tcpstates[this.tp(so).t_state];
  }

  /** The number of connections in `state`. */
  count(state: TcpState): number {
    return V_tcp(this.vnet).states[state]!;
  }

  /**
   * Opens a connection passively. Window scaling and timestamps are used if `options` offers them.
   */
  establish(options: Seg = {}): Conn {
    const head = this.listen(options.dport ?? 80);
    const seq = options.seq ?? 1000;
    this.seg({ mss: 1460, ...options, flags: 'S', seq });
    const synAck = this.take()[0]!.ip!.tcp!;
    expect(synAck.flags).to.equal('S.');
    const c = new Conn(this, options.sport ?? PEER_PORT, seq + 1, synAck.seq + 1);
    if (options.ts !== undefined) c.ts = { val: options.ts.val, ecr: synAck.ts!.val };
    c.dport = options.dport ?? 80;
    c.win = options.win ?? 65535;
    c.seg({});
    c.so = this.accept(head);
    this.sent.length = 0;
    return c;
  }

  override close(): void {
    for (const so of this.sockets.splice(0)) soclose(so);
    tcp_shutdownVnet(this.vnet, 'rst');
    tcp_shutdownVnet(this.vnet, 'discard');
    super.close();
  }
}

/** The peer's side of one connection, with its position in both sequence spaces. */
export class Conn {
  readonly h: TestHost;
  readonly sport: number;
  dport = 80;
  /** The peer's SND.NXT and RCV.NXT. */
  seq: number;
  ack: number;
  so!: Socket;
  win = 65535;
  ts: { val: number; ecr: number } | undefined = undefined;

  constructor(h: TestHost, sport: number, seq: number, ack: number) {
    this.h = h;
    this.sport = sport;
    this.seq = seq >>> 0;
    this.ack = ack >>> 0;
  }

  /** Sends a segment at the peer's position; changes neither number. */
  seg(fields: Seg): void {
    this.h.seg({
      sport: this.sport,
      dport: this.dport,
      flags: '.',
      seq: this.seq,
      ack: this.ack,
      win: this.win,
      ...(this.ts === undefined ? {} : { ts: this.ts }),
      ...fields,
    });
  }

  /** Sends data or a FIN from the peer and advances its sequence number. */
  data(payload: string, fields: Seg = {}): void {
    this.seg({ payload, ...fields });
    const fin = (fields.flags ?? '').includes('F') ? 1 : 0;
    this.seq = (this.seq + payload.length + fin) >>> 0;
  }

  get state(): string {
    return this.h.state(this.so);
  }
}
