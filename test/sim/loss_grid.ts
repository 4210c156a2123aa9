/**
 * Bulk transfer over a line of 100 Mbit/s with a bounded queue, a delay and random loss, in virtual
 * time. Measures the throughput of one connection for each combination of loss, round-trip time,
 * algorithm and SACK.
 */

import { AF_INET, AF_INET6 } from '../../src/kern/protosw.ts';
import {
  SO_RCV,
  SO_SND,
  soclose,
  soreceive,
  sosend,
  type Socket,
  soupcall_set,
} from '../../src/kern/uipc_socket.ts';
import { ccSetDefault } from '../../src/netinet/cc.ts';
import { tcpstat, V_tcp } from '../../src/netinet/tcp_var.ts';
import type { Task } from '../../src/sys/clock.ts';
import { UIO_READ, UIO_WRITE, Uio } from '../../src/vm/uio.ts';
import { Acceptor, connectTo, listenOn, tcpSocket } from './endpoint.ts';
import { ADDR6_B, ADDR_B, SimNet } from './sim_net.ts';

/** Bits per second of the line. */
export const LINE_BPS = 100e6;
export const MSS = 1448;
export const MSS6 = 1428;
const SECOND = 1e9;

export interface Cell {
  /** Probability that a data segment is lost. */
  readonly loss: number;
  readonly rttMs: number;
  readonly cc: 'newreno' | 'cubic';
  readonly sack: boolean;
  /** Over IPv6: a segment carries 20 bytes less. */
  readonly six?: boolean;
}

export interface Measured {
  /** Throughput at the receiving program after the warm-up, bit/s. */
  readonly bps: number;
  readonly timeouts: number;
  /** Retransmitted segments, warm-up included. */
  readonly rexmits: number;
}

export interface MeasureOptions {
  /** Lose exactly every n-th data segment, as the response functions assume. */
  readonly every?: number;
  /** Length of the warm-up that is not measured, s. */
  readonly warmSec?: number;
  /** Measure until this many bytes arrive, or until `limitSec` has passed. */
  readonly bytes?: number;
  readonly limitSec?: number;
  /** Capacity of the queue in frames. */
  readonly queue?: number;
  /** Settings of both stacks, below net.inet.tcp. */
  readonly sysctls?: Readonly<Record<string, number>>;
}

const buf = new Uint8Array(65536);

/** Writes or reads as much as possible and ignores the contents. */
class Pump implements Task {
  readonly so: Socket;
  readonly #write: boolean;
  readonly #uio = new Uio();
  bytes = 0;
  #running = false;
  #again = false;

  constructor(so: Socket, write: boolean) {
    this.so = so;
    this.#write = write;
    soupcall_set(so, write ? SO_SND : SO_RCV, this);
  }

  run(): void {
    this.#again = true;
    if (this.#running) return;
    this.#running = true;
    while (this.#again) {
      this.#again = false;
      for (let moved = -1; moved !== 0; this.bytes += moved) moved = this.#once();
    }
    this.#running = false;
  }

  #once(): number {
    const uio = this.#uio.single(buf, 0, buf.length, this.#write ? UIO_WRITE : UIO_READ);
    if (this.#write) sosend(this.so, uio, null, 0);
    else soreceive(this.so, uio);
    return buf.length - uio.uio_resid;
  }
}

/** Capacity of the line's queue in frames: one bandwidth-delay product, at least 100. */
export function queueFrames(rttMs: number): number {
  return Math.max(100, Math.round((LINE_BPS / 8) * (rttMs / 1000) * (1 / 1514)));
}

/** Runs one cell with one seed. */
export function measure(cell: Cell, seed: number, o: MeasureOptions = {}): Measured {
  const faults = [`rate,rate=${LINE_BPS},burst=${o.queue ?? queueFrames(cell.rttMs)},point=tx`];
  if (o.every !== undefined) faults.unshift(`drop,every=${o.every},point=tx`);
  else if (cell.loss > 0) faults.unshift(`drop,rate=${cell.loss},point=tx`);
  const delayNs = (cell.rttMs * 1e6) / 2;
  const { six = false } = cell;
  const net = new SimNet({ seed, faults, delayNs, offload: 'csum', six });
  const { clock } = net;
  for (const port of [net.a, net.b]) {
    V_tcp(port.vnet).params.sack_enable = cell.sack;
    ccSetDefault(V_tcp(port.vnet), cell.cc);
    for (const [name, v] of Object.entries(o.sysctls ?? {}))
      port.vnet.sysctl.write(`net.inet.tcp.${name}`, String(v));
  }
  const listener = listenOn(net.b.vnet, 80, 8, six);
  const acceptor = new Acceptor(listener);
  let reader: Pump | null = null;
  acceptor.onAccept = (so) => {
    reader = new Pump(so, false);
    clock.post(reader);
  };
  const so = tcpSocket(net.a.vnet, six ? AF_INET6 : AF_INET);
  const writer = new Pump(so, true);
  connectTo(so, six ? ADDR6_B : ADDR_B, 80);
  const got = (): number => reader?.bytes ?? 0;
  clock.advance((o.warmSec ?? 1 + 0.01 * cell.rttMs) * SECOND);
  // The first losses end slow start at a random point. After some more losses that point no longer
  // matters.
  const settled = cell.loss === 0 ? 0 : (6 / cell.loss) * MSS;
  clock.runUntil(() => got() >= settled, 120 * SECOND);
  const stat = tcpstat(net.a.vnet);
  const before = stat.tcps_rexmttimeo;
  const startBytes = got();
  const startNs = clock.nowNs();
  const bytes = o.bytes ?? (cell.loss === 0.001 ? 12e6 : 4e6);
  clock.runUntil(() => got() - startBytes >= bytes, (o.limitSec ?? 60) * SECOND);
  const bps = ((got() - startBytes) * 8 * SECOND) / (clock.nowNs() - startNs);
  const timeouts = stat.tcps_rexmttimeo - before;
  const rexmits = stat.tcps_sndrexmitpack;
  for (const one of [writer, reader as Pump | null]) {
    if (one === null) continue;
    soupcall_set(one.so, SO_RCV, null);
    soupcall_set(one.so, SO_SND, null);
    soclose(one.so);
  }
  soclose(listener);
  net.close();
  return { bps, timeouts, rexmits };
}

export const LOSSES = [0, 0.001, 0.003, 0.01, 0.03, 0.1];
export const RTTS_MS = [1, 20, 100];

export const ALGORITHMS = ['newreno', 'cubic'] as const;

/** The name of a line in the snapshot, and of a value in it. */
export const lineName = (loss: number, rttMs: number, six = false): string =>
  `${loss * 100} %, ${rttMs} ms${six ? ', IPv6' : ''}`;
export const kindName = (cc: string, sack: boolean): string => (sack ? `${cc} sack` : cc);
