/**
 * Runs a script in packetdrill's language against the stack on virtual time. Differences from
 * packetdrill: times are exact unless the script sets a tolerance, every sent packet must be
 * expected, echoed timestamps are compared, and segments are never merged.
 */

import { SeededPrng } from '../../src/host/prng.ts';
import { ipcSysctlInit } from '../../src/kern/kern_ipc_sysctl.ts';
import { PD_BLOCK, PdHost } from '../../src/packetdrill/host.ts';
import { LINUX_ERRNO } from '../../src/packetdrill/linux.ts';
import { runShim } from '../../src/packetdrill/shim.ts';
import { parseInAddr } from '../../src/netinet/in.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { decodeIp4 } from '../support/frames.ts';
import { bootMachine, expectMachineClean } from '../support/machine.ts';
import { beginCall, type CallContext } from './calls.ts';
import {
  type CallSpec,
  type Event,
  type IcmpSpec,
  parseScript,
  type Script,
  ScriptError,
  type ShellSpec,
  type TcpSpec,
  type UdpSpec,
} from './parser.ts';
import { type IpVersion, ipVersionOf, PEER, US, US6 } from './ip_version.ts';
import {
  buildDatagram,
  buildReceived,
  Conn,
  datagramFaults,
  faultsOf,
  segmentText,
} from './segments.ts';

const BIND_PORT = 8080;
const CONNECT_PORT = 8080;
/** The peer's port of the first connection to us; each further connection uses the next port. */
const EPHEMERAL = 40000;
/** How long to wait for a packet with time `*`. */
const PATIENCE_US = 24 * 3600e6;
/** Scripts start on a whole millisecond, the tick of TCP's timers. */
const START_NS = 1e9;

const errnoNames = new Map(Object.entries(LINUX_ERRNO).map(([name, n]) => [n, name]));
errnoNames.set(LINUX_ERRNO['EAGAIN']!, 'EAGAIN');

const seconds = (us: number): string => (us / 1e6).toFixed(6);

interface Blocked {
  readonly event: Event;
  readonly endUs: number;
}

class Runner {
  readonly #script: Script;
  readonly #host: PdHost;
  readonly #ctx: CallContext;
  readonly #tolerance: number;
  readonly #tick: number;
  readonly #ip: IpVersion;
  /** The time of the previous event, in microseconds of the script. */
  #lastUs = 0;
  /** The connection under test, or null before its first packet. `#conns` holds all connections. */
  #conn: Conn | null = null;
  readonly #conns: Conn[] = [];
  #active = false;
  #nextPort = EPHEMERAL;
  #blocked: Blocked | null = null;
  #failure: Error | null = null;

  constructor(script: Script) {
    this.#script = script;
    const clock = bootMachine();
    ipcSysctlInit();
    clock.advanceTo(START_NS);
    const option = (name: string, other: number): number =>
      Number(script.options.get(name) ?? other);
    this.#tolerance = option('tolerance_usecs', 0);
    this.#tick = option('tcp_ts_tick_usecs', 0);
    this.#host = new PdHost({
      clock,
      prng: new SeededPrng(1),
      addr: parseInAddr(US)!,
      addr6: parseIn6(US6)!,
      mtu: option('mtu', 1500),
    });
    this.#ip = ipVersionOf(script.options.get('ip_version') ?? 'ipv4');
    this.#ctx = {
      host: this.#host,
      fds: new Map(),
      domain: this.#ip.domain,
      bindAddress: this.#ip.sockaddr(true, BIND_PORT),
      connectAddress: this.#ip.sockaddr(false, CONNECT_PORT),
    };
  }

  run(): void {
    try {
      for (const event of this.#script.events) this.#event(event);
      this.#finish();
    } finally {
      this.#host.close();
    }
    expectMachineClean();
  }

  fail(event: Event, message: string): never {
    const { line, column } = event.at;
    throw new ScriptError(this.#script.file, line, column, message);
  }

  get #nowUs(): number {
    return (this.#host.nowNs - START_NS) / 1e3;
  }

  #advanceTo(us: number): void {
    this.#host.advanceTo(START_NS + us * 1e3);
    if (this.#failure !== null) throw this.#failure;
  }

  #event(event: Event): void {
    const { what, when } = event;
    if ((what.type === 'tcp' || what.type === 'udp') && what.out) {
      this.#sent(event, what);
      return;
    }
    const us = when.rel ? this.#lastUs + when.us : when.us;
    if (us < this.#lastUs) this.fail(event, `goes back in time, to ${seconds(us)}`);
    this.#advanceTo(us);
    this.#lastUs = us;
    switch (what.type) {
      case 'tcp':
        this.#received(event, what);
        break;
      case 'udp':
        this.#host.inject(this.#ip.received(buildDatagram(what, this.#current())));
        break;
      case 'icmp':
        this.#icmp(event, what);
        break;
      case 'call':
        this.#call(event, what);
        break;
      case 'shell':
        this.#shell(event, what);
        break;
    }
    if (this.#failure !== null) throw this.#failure;
  }

  // Packets.

  /** The connection with the ports of the packet, or the one under test if it names none. */
  #connOf(spec: TcpSpec): Conn {
    if (spec.ports === null) return this.#current();
    const [lport, rport] = spec.out ? spec.ports : [spec.ports[1], spec.ports[0]];
    const known = this.#conns.find((c) => c.lport === lport && c.rport === rport);
    this.#conn = known ?? this.#newConn(lport, rport);
    return this.#conn;
  }

  #current(): Conn {
    this.#conn ??= this.#newConn(BIND_PORT, this.#nextPort++);
    return this.#conn;
  }

  #newConn(lport: number, rport: number): Conn {
    const conn = new Conn(US, PEER, lport, rport);
    this.#conns.push(conn);
    return conn;
  }

  #received(event: Event, spec: TcpSpec): void {
    try {
      this.#host.inject(this.#ip.received(buildReceived(spec, this.#connOf(spec))));
    } catch (e) {
      if (e instanceof Error) this.fail(event, e.message);
      throw e;
    }
  }

  #icmp(event: Event, spec: IcmpSpec): void {
    if (this.#conn === null) this.fail(event, 'no connection for the quoted segment');
    this.#host.inject(this.#ip.icmp(spec, this.#conn));
  }

  #sent(event: Event, spec: TcpSpec | UdpSpec): void {
    const { when } = event;
    const fromUs = when.any ? this.#lastUs : (when.rel ? this.#lastUs : 0) + when.us;
    const toUs = when.any
      ? this.#lastUs + PATIENCE_US
      : when.toUs === null
        ? fromUs
        : (when.rel ? this.#lastUs : 0) + when.toUs;
    const packet = this.#host.receive(START_NS + (toUs + this.#tolerance) * 1e3);
    if (this.#failure !== null) throw this.#failure;
    if (packet === null) this.fail(event, `no packet was sent by ${seconds(toUs)}`);
    const { timeNs } = packet;
    const bytes = this.#ip.sent(packet.bytes);
    const atUs = (timeNs - START_NS) / 1e3;
    const ip = decodeIp4(bytes);
    const ports = ip.tcp ?? ip.udp;
    // Our port is in the SYN that connect() sent.
    if (this.#conn === null && this.#active && ports !== undefined)
      this.#conn = this.#newConn(ports.sport, CONNECT_PORT);
    const conn = spec.type === 'udp' ? this.#current() : this.#connOf(spec);
    const faults =
      spec.type === 'udp' ? datagramFaults(spec, bytes) : faultsOf(spec, bytes, conn, this.#tick);
    if (ip.src !== US || ip.dst !== PEER) faults.push(`from ${ip.src} to ${ip.dst}`);
    else if (ports !== undefined && (ports.sport !== conn.lport || ports.dport !== conn.rport))
      faults.push(`ports ${ports.sport} > ${ports.dport}, not ${conn.lport} > ${conn.rport}`);
    if (atUs < fromUs - this.#tolerance || atUs > toUs + this.#tolerance)
      faults.push(`sent at ${seconds(atUs)}, not ${seconds(fromUs)}`);
    if (faults.length > 0)
      this.fail(
        event,
        `${faults.join('; ')}\n  sent at ${seconds(atUs)}: ${segmentText(ip, conn)}`,
      );
    this.#lastUs = when.any || when.toUs !== null ? atUs : fromUs;
  }

  // Calls.

  #call(event: Event, spec: CallSpec): void {
    if (this.#blocked !== null && event.when.endUs !== null)
      this.fail(event, 'a second call that blocks');
    if (spec.name === 'socket') {
      this.#conn = null;
      this.#active = false;
    }
    if (spec.name === 'connect' || spec.name === 'sendto') this.#active = true;
    let begun;
    try {
      begun = beginCall(this.#ctx, spec);
    } catch (e) {
      return this.fail(event, e instanceof Error ? e.message : String(e));
    }
    const { result, check } = begun;
    if (event.when.endUs === null) {
      if (result === PD_BLOCK) this.fail(event, `${spec.name} blocks`);
      this.#result(event, spec, result, check);
      return;
    }
    const { when } = event;
    const endUs = (when.rel ? this.#lastUs - when.us : 0) + when.endUs!;
    if (result !== PD_BLOCK) this.fail(event, `${spec.name} does not block: ${result}`);
    this.#blocked = { event, endUs };
    this.#host.wait(this.#host.takeStep(), (late) => {
      this.#blocked = null;
      try {
        if (Math.abs(this.#nowUs - endUs) > this.#tolerance)
          this.fail(event, `returned at ${seconds(this.#nowUs)}, not ${seconds(endUs)}: ${late}`);
        this.#result(event, spec, late, check);
      } catch (e) {
        this.#failure ??= e as Error;
      }
    });
  }

  #result(event: Event, spec: CallSpec, result: number, check: () => string): void {
    if (spec.result === null) return;
    const errno = result < 0 ? (errnoNames.get(-result) ?? `errno ${-result}`) : '';
    const got = result < 0 ? -1 : result;
    const shown = result < 0 ? `-1 ${errno}` : String(result);
    if ((spec.name === 'socket' || spec.name === 'accept') && got >= 0 && spec.result >= 0) {
      this.#ctx.fds.set(spec.result, got);
      return;
    }
    if (got !== spec.result) this.fail(event, `${spec.name}: ${shown}, not ${spec.result}`);
    if (spec.errno !== '' && spec.errno !== errno)
      this.fail(event, `${spec.name}: ${shown}, not -1 ${spec.errno}`);
    const fault = result < 0 ? '' : check();
    if (fault !== '') this.fail(event, `${spec.name}: ${fault}`);
  }

  // Commands.

  #shell(event: Event, { text }: ShellSpec): void {
    for (const line of text.split(/\n|;|&&/))
      if (line.trim() !== '') this.#command(event, line.trim());
  }

  /** Runs one of our commands, piped into any number of greps. */
  #command(event: Event, line: string): void {
    const [first, ...filters] = line.split('|').map((part) => part.trim().split(/\s+/));
    const { status, out, err } = runShim(this.#host, first!);
    if (filters.length === 0 && status !== 0)
      this.fail(event, `${line}: exit status ${status}: ${err.trim()}`);
    let lines = out.split('\n').filter((l) => l !== '');
    for (const [name, ...words] of filters) {
      const pattern = words.findLast((word) => !word.startsWith('-'));
      if (name !== 'grep' || pattern === undefined) this.fail(event, `| ${name}: only grep`);
      lines = lines.filter((l) => l.includes(pattern));
      if (words.includes('-c')) lines = [String(lines.length)];
    }
    if (filters.length > 0 && lines.length === 0)
      this.fail(event, `${line}: exit status 1; there was:\n${out}`);
  }

  #finish(): void {
    const blocked = this.#blocked;
    if (blocked !== null) {
      this.#advanceTo(blocked.endUs + this.#tolerance);
      if (this.#blocked !== null) this.fail(blocked.event, 'has not returned');
    }
    const left = this.#host.wire.sent;
    if (left.length === 0) return;
    const last = this.#script.events.at(-1)!;
    const conn = this.#conn ?? new Conn(US, PEER, BIND_PORT, EPHEMERAL);
    const texts = left.map(({ bytes, timeNs }) => {
      const text = segmentText(decodeIp4(this.#ip.sent(bytes)), conn);
      return `\n  sent at ${seconds((timeNs - START_NS) / 1e3)}: ${text}`;
    });
    this.fail(last, `unexpected packets after this:${texts.join('')}`);
  }
}

/** Runs a script from its text. Throws ScriptError with file, line and column. */
export function runScript(file: string, text: string): void {
  new Runner(parseScript(file, text)).run();
}
