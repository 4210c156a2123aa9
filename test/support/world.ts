/**
 * A whole host on a simulated wire, in virtual time: machine, stack, driver and device as in
 * `tapnic serve`, a disk under the test's control, a server on port 80, and readers at the far end.
 * Reports of the commands come through the control protocol.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { parseCapability } from '../../src/ctl/bits.ts';
import { handleRequest } from '../../src/ctl/control.ts';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { NetstatS } from '../../src/ctl/netstat_s.ts';
import type { SocketLine } from '../../src/ctl/netstat_an.ts';
import { allocArena } from '../../src/host/arena.ts';
import { TsCksum } from '../../src/host/cksum_ts.ts';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { SimLink } from '../../src/host/sim_wire.ts';
import type { File } from '../../src/kern/kern_descrip.ts';
import { timeoutEnd } from '../../src/kern/kern_timeout.ts';
import { mbParams } from '../../src/kern/kern_mbuf.ts';
import { soclose, type Socket, SS_NOFDREF } from '../../src/kern/uipc_socket.ts';
import type { Vnet } from '../../src/kern/vnet.ts';
import { Machine } from '../../src/machine/machine.ts';
import { configureInterface } from '../../src/machine/nic.ts';
import { nicModel } from '../../src/machine/nic_models.ts';
import type { NicBuild, NicModel } from '../../src/machine/nic_model.ts';
import { PluggedNic } from '../../src/machine/plugged_nic.ts';
import { if_up, ifunit } from '../../src/net/if.ts';
import { ifCloneDestroyAll } from '../../src/net/if_clone.ts';
import type { Ifnet } from '../../src/net/if_var.ts';
import { parseInAddr } from '../../src/netinet/in.ts';
import { in_aifaddr } from '../../src/netinet/in_ifaddr.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { IN6_IFF_NODAD } from '../../src/netinet6/in6_var.ts';
import { tcp_shutdownVnet } from '../../src/netinet/tcp_pcblist.ts';
import { PcapWriter } from '../../src/pcap/pcap.ts';
import { inPass } from '../../src/sys/pass.ts';
import { arenaBytes } from '../../src/vm/arena.ts';
import { vmObjectsFlush } from '../../src/vm/vm_object.ts';
import { fileBytes, HandDisk, type HandFile } from '../kern/disk.ts';
import { Call, type CallOptions } from '../kern/sendfile_rig.ts';
import { Acceptor, listenOn } from '../sim/endpoint.ts';
import { HOST_ADDR6 } from './six.ts';
import { PairLink } from './pair_link.ts';
import {
  HOST_ADDR,
  HOST_MAC,
  READER_ADDR,
  type Reader,
  type ReaderOptions,
  ReaderPort,
} from './reader.ts';

const SECOND = 1e9;
/** One-way delay of the wire. */
const DELAY_NS = 100_000;

export interface WorldOptions {
  /** A NIC model, or its name. Default `tn`. */
  model?: string | NicModel;
  /**
   * Address of the NIC itself, for tests in which a VLAN or lagg has the address in the readers'
   * network.
   */
  addr?: string;
  mode?: 'wire' | 'vnet';
  /** Build of the device; `native` runs on a socket pair. Default `ts`. */
  build?: NicBuild;
  mtu?: number;
  /** Readers use IPv6; the host has an address of each family. */
  six?: boolean;
  /** Capabilities to switch, as words of ifconfig: `-nomap`. */
  caps?: string[];
  useExtPgs?: boolean;
  /** Bytes of RAM; `base` is the physical address of the first byte. */
  memory?: number;
  base?: number;
  /**
   * `dmaCheck` checks the drivers' bus_dma calls; with `iommu` devices reach only loaded memory.
   */
  dmaCheck?: boolean;
  iommu?: boolean;
}

/** A file on the disk, and its bytes. */
export interface WorldFile {
  readonly file: File;
  readonly disk: HandFile;
  readonly bytes: Uint8Array;
}

/** An accepted connection: the server's socket and the reader. */
export interface Conn {
  readonly so: Socket;
  readonly reader: Reader;
}

export class World {
  readonly clock = new ManualClock({ startNs: SECOND });
  readonly disk = new HandDisk();
  readonly machine: Machine;
  readonly link: SimLink;
  readonly nic: PluggedNic;
  readonly port: ReaderPort;
  readonly conns: Conn[] = [];
  readonly calls: Call[] = [];
  /** Whether reads complete as time passes. If false, the test completes them through `disk`. */
  diskWorks = true;
  readonly nics: PluggedNic[] = [];
  readonly #options: WorldOptions;
  readonly #files: File[] = [];
  /** The wire of a native device, which then replaces `link`; otherwise null. */
  readonly #pair: PairLink | null;
  readonly #acceptor: Acceptor;

  constructor(options: WorldOptions = {}) {
    this.#options = { ...options };
    const memory = options.memory ?? 16 << 20;
    const native = options.build === 'native';
    const arena = native ? allocArena(arenaBytes(memory)) : new ArrayBuffer(arenaBytes(memory));
    this.machine = new Machine({
      memory,
      base: options.base ?? 0,
      dmaCheck: options.dmaCheck ?? false,
      iommu: options.iommu ?? false,
      seed: 1,
      clock: this.clock,
      prng: new SeededPrng(1),
      pager: this.disk,
      cksum: new TsCksum(arena),
      arena,
    });
    mbParams.mb_use_ext_pgs = options.useExtPgs ?? true;
    this.link = this.#link();
    this.#pair = native ? new PairLink(arena, options.mode === 'vnet') : null;
    this.port = new ReaderPort(this.#pair?.b ?? this.link.b, this.clock);
    const { model: name = 'tn' } = options;
    const model = typeof name === 'string' ? nicModel(name) : name;
    if (model === null) throw new Error('no such model');
    this.nic = this.#plug(model, this.link, HOST_MAC);
    const six = options.six ?? false;
    if (six) {
      const add = (): number => in6_aifaddr(this.ifp, parseIn6(HOST_ADDR6)!, 64, IN6_IFF_NODAD);
      expect(inPass(add)).to.equal(0);
    }
    this.port.six = six;
    this.#acceptor = new Acceptor(listenOn(this.vnet, 80, 128, six));
  }

  #plug(model: NicModel, link: SimLink, mac: string): PluggedNic {
    const options = this.#options;
    const wire = this.#pair?.a ?? link.a;
    const nic = new PluggedNic(this.machine, model, wire, mac, options.build ?? 'ts');
    const caps = (options.caps ?? []).map((word) => {
      const change = parseCapability(word);
      if (change === null) throw new Error(`${word}: no capability`);
      return change;
    });
    configureInterface(nic.ifp, {
      tap: 'sim',
      hostAddr: null,
      hostAddr6: null,
      addr: options.addr ?? `${HOST_ADDR}/24`,
      gateway: null,
      addr6: null,
      gateway6: null,
      mtu: options.mtu ?? 1500,
      nic: model.name,
      caps,
      mode: options.mode ?? 'wire',
      napi: 'off',
      engine: options.build ?? 'ts',
      netns: null,
    });
    this.nics.push(nic);
    return nic;
  }

  /** Plugs in another NIC on its own link; the same readers receive at its far end. */
  plugAnother(model: NicModel, mac: string, addr: string): { nic: PluggedNic; link: SimLink } {
    const link = this.#link();
    this.port.listen(link.b);
    this.#options.addr = addr;
    return { nic: this.#plug(model, link, mac), link };
  }

  #link(): SimLink {
    return new SimLink({
      arena: this.machine.arena,
      clock: this.clock,
      prng: new SeededPrng(2),
      vnetHdr: this.#options.mode === 'vnet',
      impair: { delayNs: DELAY_NS },
    });
  }

  /** Configures a cloned interface with the address that readers connect to. */
  address(ifp: Ifnet): void {
    inPass(() => {
      expect(in_aifaddr(ifp, parseInAddr(HOST_ADDR)!, 24)).to.equal(0);
      if_up(ifp);
    });
  }

  get vnet(): Vnet {
    return this.machine.vnet;
  }

  get ifp(): Ifnet {
    return this.nic.ifp;
  }

  /** The sockets that the server has accepted. */
  get accepted(): readonly Socket[] {
    return this.#acceptor.accepted;
  }

  interface(name: string): Ifnet | null {
    return ifunit(this.vnet, name);
  }

  /** Returns the data that a client of the control socket gets. */
  ask(cmd: string, args: Record<string, unknown> = {}): unknown {
    const answer = handleRequest({ vnet: this.vnet, info: {} }, { id: 1, cmd, args });
    if (!answer.ok) throw new Error(`${cmd}: ${answer.err.code}: ${answer.err.message}`);
    return answer.data;
  }

  /** `netstat -m --json`. */
  get m(): NetstatM {
    return this.ask('netstat', { report: 'm' }) as NetstatM;
  }

  /** A counter of `netstat -s --json`. */
  stat(protocol: string, field: string): number {
    const { protocols } = this.ask('netstat', { report: 's' }) as NetstatS;
    const value = protocols[protocol]?.[field];
    if (typeof value !== 'number') throw new Error(`netstat -s: no ${protocol} ${field}`);
    return value;
  }

  /** The line of `netstat -an --json` for a connection. */
  line(conn: Conn): SocketLine {
    const lines = this.ask('netstat', { report: 'an', all: false }) as SocketLine[];
    const line = lines.find(({ foreign }) => foreign === `${READER_ADDR}.${conn.reader.sport}`);
    if (line === undefined) throw new Error('netstat -an: no line for the connection');
    return line;
  }

  /** `ifconfig tn0 WORD …`. */
  ifconfig(...words: string[]): void {
    this.ask('ifconfig', { if: this.ifp.if_xname, words });
  }

  file(n: number | Uint8Array): WorldFile {
    const bytes = typeof n === 'number' ? fileBytes(n, n + 1) : n;
    const made = this.disk.file(bytes);
    this.#files.push(made.file);
    return { ...made, bytes };
  }

  /** Lets `ms` milliseconds pass. Reads complete if `diskWorks` is true. */
  pass(ms: number): void {
    this.until(() => false, ms);
  }

  /**
   * Lets time pass until `done()` is true, at most `ms` milliseconds. Returns the last result of
   * `done()`.
   */
  until(done: () => boolean, ms = 60_000): boolean {
    const endNs = this.clock.nowNs() + ms * 1e6;
    for (;;) {
      if (this.diskWorks) this.disk.completeAll();
      if (done()) return true;
      if (this.#pair?.pump() === true) continue;
      if (!this.clock.step(endNs) && (this.disk.pending === 0 || !this.diskWorks)) break;
    }
    this.clock.advanceTo(endNs);
    return done();
  }

  /** Connects a reader and returns both ends. */
  connect(options: ReaderOptions = {}): Conn {
    const { accepted } = this.#acceptor;
    const before = accepted.length;
    const reader = this.port.connect(options);
    expect(
      this.until(() => accepted.length > before, 10_000),
      'accepted',
    ).to.equal(true);
    const conn = { so: accepted[before]!, reader };
    this.conns.push(conn);
    return conn;
  }

  /** Starts a sendfile(2). */
  sendfile(conn: Pick<Conn, 'so'>, file: WorldFile, o: CallOptions = {}): Call {
    const call = inPass(() => new Call(conn.so, file.file, o));
    this.calls.push(call);
    return call;
  }

  /**
   * Sends whole files one after the other on one connection. Returns all data that the reader
   * received.
   */
  transfer(conn: Conn, ...files: WorldFile[]): Uint8Array {
    let total = conn.reader.length;
    for (const file of files) {
      const call = this.sendfile(conn, file);
      total += file.bytes.length;
      expect(
        this.until(() => call.done),
        'the call ends',
      ).to.equal(true);
      call.expectDone(0, file.bytes.length);
    }
    expect(
      this.until(() => conn.reader.length >= total),
      'all data arrives',
    ).to.equal(true);
    return conn.reader.received;
  }

  /**
   * Lets enough time pass that all sent data is acknowledged and the NIC has returned all buffers.
   */
  settle(): void {
    this.pass(500);
  }

  /** Sends a frame to the NIC as it is, with a virtio-net header in mode `vnet`. */
  inject(frame: Uint8Array): void {
    (this.#pair?.b ?? this.link.b).inject(frame);
  }

  /** Closes both ends of a connection from the host to itself. */
  closeLocal(...ends: Socket[]): void {
    inPass(() => {
      for (const so of ends) soclose(so);
    });
  }

  /** Closes a connection in order. */
  closeConn(conn: Conn): void {
    if ((conn.so.so_state & SS_NOFDREF) !== 0) return;
    inPass(soclose, conn.so);
  }

  /** Writes the frames of the host under test to a pcap file and runs `body` on it. */
  async withPcap(body: (file: string) => Promise<void>): Promise<void> {
    const dir = mkdtempSync(join(tmpdir(), 'tapnic-world-'));
    try {
      const file = join(dir, 'wire.pcap');
      const parts: Uint8Array[] = [];
      const pcap = new PcapWriter(
        { write: (bytes, off, len) => void parts.push(bytes.slice(off, off + len)) },
        { snaplen: 262_144 },
      );
      this.port.frames.forEach((frame, i) =>
        pcap.packet(1, i * 1000, frame, 0, frame.length, frame.length),
      );
      writeFileSync(file, Buffer.concat(parts));
      await body(file);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }

  /** Closes everything, and fails unless every pool of the machine is as it was at boot. */
  end(): void {
    this.diskWorks = true;
    for (const conn of this.conns) {
      this.closeConn(conn);
      conn.reader.abort();
    }
    this.pass(2000);
    inPass(() => {
      soclose(this.#acceptor.listener);
      tcp_shutdownVnet(this.vnet, 'rst');
      tcp_shutdownVnet(this.vnet, 'discard');
    });
    this.pass(10);
    for (const file of this.#files) if (file.f_count > 0) file.drop();
    ifCloneDestroyAll(this.vnet);
    for (const nic of this.nics) nic.stop();
    this.pass(10);
    this.#pair?.close();
    vmObjectsFlush();
    timeoutEnd();
    expect(this.machine.leaked(), 'leaked').to.deep.equal({});
    for (const call of this.calls)
      expect(call.heard.length, 'sendfile ended').to.equal(call.started === 0 ? 1 : 0);
  }
}

/**
 * Runs `body` in a world and ends it. If `body` throws, the leak check is skipped, so that it does
 * not hide the error.
 */
export function inWorld(options: WorldOptions, body: (world: World) => void): void {
  const world = new World(options);
  try {
    body(world);
  } catch (e) {
    timeoutEnd();
    throw e;
  }
  world.end();
}

/** Like `inWorld`, for an asynchronous body. */
export async function inWorldAsync(
  options: WorldOptions,
  body: (world: World) => Promise<void>,
): Promise<void> {
  const world = new World(options);
  try {
    await body(world);
  } catch (e) {
    timeoutEnd();
    throw e;
  }
  world.end();
}
