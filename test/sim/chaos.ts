/**
 * A simulated world drawn from a seed: a wire with mixed faults, two stacks with different
 * settings, and some concurrent connections whose programs are fast or slow, stall, half-close, or
 * close early. `runWorld` returns what went wrong.
 */

import { below, fraction, SeededPrng } from '../../src/host/prng.ts';
import { AF_INET, AF_INET6 } from '../../src/kern/protosw.ts';
import { sbreserve } from '../../src/kern/uipc_sockbuf.ts';
import { type Socket, SO_REUSEADDR, soclose } from '../../src/kern/uipc_socket.ts';
import type { Inpcb } from '../../src/netinet/in_pcb.ts';
import { ccSetDefault } from '../../src/netinet/cc.ts';
import { TCPS_FIN_WAIT_2 } from '../../src/netinet/tcp_fsm.ts';
import { tcp_pcblist } from '../../src/netinet/tcp_pcblist.ts';
import { TF_NODELAY, type Tcpcb, tcpstat, V_tcp } from '../../src/netinet/tcp_var.ts';
import { V_icmp6 } from '../../src/netinet6/icmp6_var.ts';
import { IPV6_MMTU } from '../../src/netinet6/ip6.ts';
import { V_ip6 } from '../../src/netinet6/ip6_var.ts';
import { ECONNRESET, ECONNREFUSED, EHOSTUNREACH, EPIPE, ETIMEDOUT } from '../../src/sys/errno.ts';
import { Acceptor, connectTo, Endpoint, listenOn, type Plan, tcpSocket } from './endpoint.ts';
import { ADDR6_B, ADDR_B, type Offload, SimNet, type SimPort } from './sim_net.ts';

const SECOND = 1e9;
/** Longer than everything takes, except the keepalive of a lost peer. */
const LIMIT_NS = 3600 * SECOND;
/** Time for keepalive and TIME_WAIT: two hours idle, eight probes, 2 MSL. */
const REST_NS = 4 * 3600 * SECOND;

/** The server's IPv4 address for a socket of AF_INET6. */
const MAPPED_B = `::ffff:${ADDR_B}`;

/** Connections per world. */
export const PER_WORLD = 4;

const pick = <T>(prng: SeededPrng, of: readonly T[]): T => of[below(prng, of.length)]!;
const chance = (prng: SeededPrng, p: number): boolean => fraction(prng) < p;

/** Faults of the wire. Frames are damaged only if they carry checksums computed in software. */
function drawFaults(prng: SeededPrng, damage: boolean): string[] {
  const f: string[] = [];
  const point = (): string => pick(prng, ['', '', ',point=tx', ',point=rx']);
  const rate = (max: number): string => `rate=${(fraction(prng) * max).toFixed(5)}${point()}`;
  if (chance(prng, 0.7)) f.push(`drop,${rate(0.08)}`);
  if (chance(prng, 0.3)) f.push(`drop,${rate(0.005)},burst=${2 + below(prng, 5)}`);
  if (chance(prng, 0.2)) f.push(`drop,every=${5 + below(prng, 60)}${point()}`);
  if (chance(prng, 0.5)) f.push(`duplicate,${rate(0.05)}`);
  if (damage && chance(prng, 0.5)) f.push(`corrupt,${rate(0.03)}`);
  if (damage && chance(prng, 0.4)) f.push(`truncate,${rate(0.02)}`);
  if (chance(prng, 0.3))
    f.push(`rate,rate=${Math.round(5e5 * 200 ** fraction(prng))},burst=${5 + below(prng, 100)}`);
  if (chance(prng, 0.4)) f.push(`delay,jitter=${below(prng, 60)}${point()}`);
  if (chance(prng, 0.5)) f.push(`reorder,${rate(0.1)},delay=0,jitter=${1 + below(prng, 80)}`);
  return f;
}

/** Draws the settings of a stack that an administrator can change. */
function setUp(port: SimPort, prng: SeededPrng): void {
  const { params } = V_tcp(port.vnet);
  params.sack_enable = chance(prng, 0.7);
  params.rfc1323 = pick(prng, [0, 0, 1, 1, 1, 1, 2, 3]);
  params.ecn_enable = pick(prng, [0, 1, 2, 3, 4]);
  params.do_prr = chance(prng, 0.8);
  params.rfc3042 = chance(prng, 0.8);
  params.delayed_ack = chance(prng, 0.8);
  params.sack_lrd = chance(prng, 0.8);
  params.sack_revised = chance(prng, 0.8);
  params.abe = chance(prng, 0.2);
  params.abe_frlossreduce = chance(prng, 0.5);
  params.hystart_n_rttsamples = pick(prng, [1, 8]);
  params.syncookies_only = chance(prng, 0.1);
  ccSetDefault(V_tcp(port.vnet), pick(prng, ['newreno', 'cubic']));
}

/** Draws the buffer sizes of a socket: mostly the default, sometimes very small. */
function drawBuffers(so: Socket, prng: SeededPrng): void {
  if (chance(prng, 0.25)) sbreserve(so.so_rcv, 200 + below(prng, 8000));
  if (chance(prng, 0.25)) sbreserve(so.so_snd, 200 + below(prng, 8000));
}

function drawSize(prng: SeededPrng): number {
  return below(prng, pick(prng, [3, 3000, 20_000, 20_000, 150_000]));
}

function drawPlan(prng: SeededPrng, sendKey: number, recvKey: number, slow: boolean): Plan {
  const plan: Plan = {
    sendKey,
    recvKey,
    total: drawSize(prng),
    chunk: 1 + below(prng, pick(prng, [10, 2000, 20_000])),
    closeLast: false,
    early: chance(prng, 0.08),
  };
  if (!slow) return plan;
  const pace = { bytes: 200 + below(prng, 20_000), everyNs: (1 + below(prng, 400)) * 1e6 };
  return { ...plan, pace };
}

/**
 * Draws the destination of each connection of a world with IPv6: always the IPv6 address, or in three
 * of ten worlds any, with a listener for both families. The draws are separate from all others, so
 * that a seed gives the same world over IPv4 as before.
 */
function drawAddrs(seed: number): string[] {
  const prng = new SeededPrng(seed + 0x2_0000_0000);
  const mixed = chance(prng, 0.3);
  const one = (): string => (mixed ? pick(prng, [ADDR_B, ADDR6_B, MAPPED_B]) : ADDR6_B);
  return Array.from({ length: PER_WORLD }, one);
}

/** One connection: its two programs and the expected outcome. */
class Pair {
  readonly near: Endpoint;
  far: Endpoint | null = null;
  /** One program leaves early, so the other may be reset. */
  readonly rude: boolean;
  /**
   * Connections accepted after the end of the real one: with SYN cookies only, an old duplicate of
   * the handshake's last ACK opens another connection.
   */
  readonly #ghosts: Endpoint[] = [];
  readonly #cookies: boolean;
  readonly #port: number;
  readonly #listener: Socket;
  /** Whether its packets are IPv6. */
  readonly #six: boolean;
  /** The programs that stalled. */
  readonly #stalled: Endpoint[] = [];

  constructor(net: SimNet, prng: SeededPrng, n: number, addr: string, six: boolean) {
    const { clock } = net;
    const order = below(prng, 3);
    const slow = below(prng, 8);
    const key = 2 * n + 1;
    const client = { ...drawPlan(prng, key, key + 1, slow === 0), closeLast: order === 1 };
    const server = { ...drawPlan(prng, key + 1, key, slow === 1), closeLast: order === 2 };
    const nodelay = chance(prng, 0.3);
    this.#port = 1000 + n;
    this.#six = addr === ADDR6_B;
    this.#cookies = V_tcp(net.b.vnet).params.syncookies_only;
    this.#listener = listenOn(net.b.vnet, this.#port, 8, six);
    drawBuffers(this.#listener, prng);
    const acceptor = new Acceptor(this.#listener);
    acceptor.onAccept = (so) => {
      if (this.far !== null) {
        this.#ghosts.push(new Endpoint(so, { ...server, total: 0 }, prng, clock));
        return;
      }
      this.far = new Endpoint(so, server, prng, clock);
      clock.post(this.far);
    };
    const so = tcpSocket(net.a.vnet, addr.includes(':') ? AF_INET6 : AF_INET);
    so.so_options |= SO_REUSEADDR;
    drawBuffers(so, prng);
    this.near = new Endpoint(so, client, prng, clock);
    if (nodelay) ((so.so_pcb as Inpcb).inp_ppcb as Tcpcb).t_flags |= TF_NODELAY;
    const startNs = clock.nowNs() + below(prng, 2000) * 1e6;
    clock.schedule(startNs, { run: () => connectTo(so, addr, this.#port) });
    const aborts = chance(prng, 0.12);
    if (aborts) {
      const ofNear = chance(prng, 0.5);
      const atNs = startNs + fraction(prng) ** 3 * 30 * SECOND;
      clock.schedule(atNs, { run: () => (ofNear ? this.near : this.far)?.abort() });
    }
    if (chance(prng, 0.15)) {
      const atNs = startNs + fraction(prng) * 3 * SECOND;
      const forNs = fraction(prng) ** 2 * 90 * SECOND;
      const ofNear = chance(prng, 0.5);
      const set = (stalled: boolean) => (): void => {
        const one = ofNear ? this.near : this.far;
        if (one === null) return;
        one.stalled = stalled;
        this.#stalled.push(one);
        if (!one.closed) one.run();
      };
      clock.schedule(atNs, { run: set(true) });
      clock.schedule(atNs + forNs, { run: set(false) });
    }
    this.rude = aborts || client.early === true || server.early === true;
  }

  /** Both programs have ended, or the client's has and no connection was accepted. */
  get done(): boolean {
    return (
      this.near.done &&
      (this.far === null ? this.rude || this.refused || this.unreached : this.far.done)
    );
  }

  /** The server dropped the connection: all its SYN-ACKs, or all answers to them, were lost. */
  get refused(): boolean {
    const { near, far } = this;
    return far === null && [ECONNRESET, EPIPE].includes(near.errno) && near.received === 0;
  }

  /**
   * The client received nothing while it sent SYNs: EHOSTUNREACH after four failures to find the
   * server's Ethernet address, because all solicitations of 3 s or their answers were lost (RFC 4861,
   * 7.2.2); or ETIMEDOUT after 75 s, if the server failed in the same way and used up its SYN-ACKs.
   * ARP takes no faults here, so that neither occurs with IPv4.
   */
  get unreached(): boolean {
    const { near, far } = this;
    const errors = [EHOSTUNREACH, ETIMEDOUT];
    return this.#six && far === null && errors.includes(near.errno) && near.received === 0;
  }

  /**
   * The server answered data with a reset: it keeps no state before the last ACK of the handshake
   * (syncookies_only), the wire let data overtake that ACK, and only the ACK is a cookie
   * (tcps_sc_failcookie). The ACK that follows may still open the connection there.
   */
  get noCookie(): boolean {
    const { near } = this;
    return this.#cookies && [ECONNRESET, EPIPE].includes(near.errno) && near.received === 0;
  }

  /**
   * The side that gave up in the persist state, or null. As in FreeBSD, a connection whose program has
   * closed its sending side waits 60 s for an answer to a window probe (tcps_persistdrop): a peer
   * whose program stalled keeps its window closed, and the wire lost all its answers.
   */
  get gaveUp(): Endpoint | null {
    const { near, far } = this;
    if (far === null) return null;
    const pairs = [
      [near, far],
      [far, near],
    ] as const;
    const found = pairs.find(
      ([one, peer]) => one.errno === ETIMEDOUT && one.ended && this.#stalled.includes(peer),
    );
    return found?.[0] ?? null;
  }

  /**
   * True if the connection cannot end by itself: one side was reset, the RST was lost, and the
   * other side has sent its FIN and only reads. In FIN_WAIT_2 no timer checks the peer.
   */
  get forgotten(): boolean {
    const open = [this.near, this.far].filter((one) => one !== null && !one.done);
    const waits = (one: Endpoint): boolean =>
      ((one.so.so_pcb as Inpcb).inp_ppcb as Tcpcb).t_state === TCPS_FIN_WAIT_2;
    return (this.rude || this.gaveUp !== null) && open.length === 1 && waits(open[0]!);
  }

  /**
   * Returns what is wrong, or ''. If one program left early or gave up the other may be reset, but its
   * data must be right.
   */
  verdict(): string {
    if (this.#ghosts.length > 0 && !this.#cookies) return 'accepted twice';
    const { gaveUp } = this;
    const { refused, unreached } = this;
    const ends = this.rude || refused || unreached || this.noCookie || gaveUp !== null;
    // A late copy of the cookie's ACK has opened a second connection after the server's program left.
    // It has sent nothing, so it answers what acknowledges more, and takes no data: the client ends
    // by the time-out of its retransmissions.
    const second = this.rude && this.#ghosts.length > 0;
    const allowed = (one: Endpoint): boolean =>
      (second && one === this.near && one.errno === ETIMEDOUT) ||
      one === gaveUp ||
      (one === this.near && unreached) ||
      (ends && [ECONNRESET, EPIPE, ECONNREFUSED].includes(one.errno));
    for (const one of [this.near, this.far])
      if (one !== null && one.error !== '' && !allowed(one)) return one.error;
    if (ends) return '';
    if (this.far === null) return 'never accepted';
    if (this.far.received !== this.near.plan.total) return 'the server received too few bytes';
    if (this.near.received !== this.far.plan.total) return 'the client received too few bytes';
    return '';
  }

  close(): void {
    soclose(this.#listener);
    this.near.close();
    this.far?.close();
    for (const ghost of this.#ghosts) ghost.abort();
  }

  toString(): string {
    return `port ${this.#port}: client ${String(this.near)} server ${String(this.far)}`;
  }
}

export interface ChaosResult {
  /** What went wrong, or ''. */
  readonly wrong: string;
  /** Bytes received, and connections reset. */
  readonly bytes: number;
  readonly resets: number;
  /** Connections that ended without an answer to a SYN, because IPv6 did not find the neighbour. */
  readonly unreached: number;
  readonly frames: number;
}

/** Draws the world of `seed`, runs it to the end and checks for leaks. */
export function runWorld(seed: number, six = false): ChaosResult {
  const addrs = six ? drawAddrs(seed) : Array.from({ length: PER_WORLD }, () => ADDR_B);
  const prng = new SeededPrng(seed);
  const offload = pick<Offload>(prng, ['none', 'none', 'csum', 'tso']);
  const drawMtu = (): number => (chance(prng, 0.6) ? 1500 : 296 + below(prng, 1205));
  const mtu = (): number => Math.max(drawMtu(), six ? IPV6_MMTU : 0);
  const net = new SimNet({
    seed,
    offload,
    six,
    faults: drawFaults(prng, offload === 'none'),
    delayNs: Math.round(20_000 * 5000 ** fraction(prng)),
    mtuA: mtu(),
    mtuB: mtu(),
    mark: chance(prng, 0.3) ? fraction(prng) * 0.1 : 0,
  });
  setUp(net.a, prng);
  setUp(net.b, prng);
  for (const { vnet } of [net.a, net.b]) V_ip6(vnet).params.v6only = false;
  const pairs = addrs.map((addr, n) => new Pair(net, prng, n, addr, six));
  drawOutage(net, prng);
  const vnets = [net.a.vnet, net.b.vnet];
  const states = (): string => JSON.stringify(vnets.map((vnet) => [...tcp_pcblist(vnet)]));
  const told = (what: string): string => `seed ${seed}: ${what}`;
  let wrong = '';
  const all = (): boolean => pairs.every((pair) => pair.done);
  let ended = net.clock.runUntil(all, LIMIT_NS);
  // Keepalive ends a half-open connection after two idle hours: a program left early, or the server
  // gave up.
  const oneLeft = pairs.some((p) => p.rude || p.gaveUp !== null);
  const halfOpen = oneLeft || tcpstat(net.b.vnet).tcps_sc_stale > 0;
  if (!ended && halfOpen) ended = net.clock.runUntil(all, REST_NS);
  const stuck = ended ? undefined : pairs.find((p) => !p.done && !p.forgotten);
  if (stuck !== undefined) wrong = told(`does not end: ${stuck.toString()} ${states()}`);
  const drops = unexplained(net, pairs);
  if (wrong === '' && drops !== '') wrong = told(drops);
  for (const pair of pairs) {
    const verdict = wrong === '' ? pair.verdict() : '';
    if (verdict !== '') wrong = told(`${verdict}: ${pair.toString()}`);
    pair.close();
  }
  // All control blocks must disappear by themselves, even if the last segments are lost.
  const left = (): number => vnets.reduce((n, v) => n + V_tcp(v).tcbinfo.ipi_count, 0);
  if (!net.clock.runUntil(() => left() === 0, REST_NS) && wrong === '')
    wrong = told(`connections left: ${states()}`);
  const ends = pairs.flatMap(({ near, far }) => (far === null ? [near] : [near, far]));
  try {
    net.close();
  } catch (err) {
    if (wrong === '') wrong = told(String(err));
  }
  return {
    wrong,
    bytes: ends.reduce((n, one) => n + one.received, 0),
    resets: ends.filter((one) => one.errno !== 0).length,
    unreached: pairs.filter((pair) => pair.unreached).length,
    frames: net.a.frames + net.b.frames,
  };
}

/** Compares what explains the end of connections with the counters; '' if they agree. */
function unexplained(net: SimNet, pairs: readonly Pair[]): string {
  for (const port of [net.a, net.b]) {
    const sides = pairs.filter(({ gaveUp: one }) => one !== null && one.so.so_vnet === port.vnet);
    const counted = tcpstat(port.vnet).tcps_persistdrop;
    if (sides.length > counted)
      return `${sides.length} sides gave up, and tcps_persistdrop is ${counted}`;
  }
  const failures = [net.a, net.b].reduce(
    (n, { vnet }) => n + V_icmp6(vnet).stat.icp6s_odst_unreach_addr,
    0,
  );
  const unreached = pairs.filter((pair) => pair.unreached).length;
  if (unreached > 0 && failures === 0)
    return `${unreached} clients reached no server, and no address resolution failed`;
  const cookies = pairs.filter((pair) => !pair.rude && !pair.refused && pair.noCookie).length;
  const failed = tcpstat(net.b.vnet).tcps_sc_failcookie;
  if (cookies > failed)
    return `${cookies} resets without cookie, and tcps_sc_failcookie is ${failed}`;
  return '';
}

/** Sometimes cuts the wire for a while, up to three times, in one direction or both. */
function drawOutage(net: SimNet, prng: SeededPrng): void {
  for (let n = 0; n < 3 && chance(prng, 0.15); n++) {
    const atNs = fraction(prng) * 5 * SECOND;
    const forNs = fraction(prng) ** 2 * 20 * SECOND;
    const point = pick(prng, ['wire', 'tx', 'rx']);
    net.clock.schedule(atNs, {
      run: () => {
        const id = net.fault(`drop,rate=1,point=${point}`);
        net.clock.schedule(atNs + forNs, { run: () => net.stage.remove(id) });
      },
    });
  }
}
