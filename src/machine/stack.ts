/**
 * The public API's stack: a machine with its NIC and TAP in this process, its sockets, and a look
 * inside. `openStack` takes the command line's options under camel-case names.
 */

import { Bsd } from '../api/bsd.ts';
import { createSocket, type DgramSocket, type DgramSocketOptions } from '../api/dgram.ts';
import {
  connect as connectOn,
  createServer as createServerOn,
  type TcpServer,
} from '../api/server.ts';
import type { TcpSocket } from '../api/socket.ts';
import { UsageError } from '../cli/command.ts';
import { flagKey, NIC_FLAGS, type RawFlags } from '../cli/nic_flags.ts';
import { resolveNicOptions } from '../cli/nic_options.ts';
import { compileFilterInsns } from '../cli/pcap_filter.ts';
import { handleRequest } from '../ctl/control.ts';
import type { FaultLine } from '../ctl/fault.ts';
import type { InterfaceInfo } from '../ctl/ifconfig.ts';
import type { SocketLine } from '../ctl/netstat_an.ts';
import type { NetstatM } from '../ctl/netstat_m.ts';
import type { NetstatS } from '../ctl/netstat_s.ts';
import type { SysctlLeaf } from '../ctl/sysctl.ts';
import type { FaultKind, FaultPoint } from '../fault/fault.ts';
import { FAULT_OPTIONS } from '../fault/fault_spec.ts';
import { openTuntap2 } from '../host/tuntap2.ts';
import type { SysctlValue } from '../kern/kern_sysctl.ts';
import { TapnicError } from '../sys/errno.ts';
import { HostStack, type StackInfo, type StackSettings } from './host_stack.ts';
import { nicModels } from './nic_models.ts';

/** What a stack is made with; every default is the command line's. */
export interface StackOptions {
  /** Linux's name of the interface. Default `nic0`. */
  readonly tap?: string;
  /** Linux's addresses with prefix length; null for none. Default `192.0.2.1/24`, `2001:db8::1/64`. */
  readonly hostAddr?: string | null;
  readonly hostAddr6?: string | null;
  /** The emulated host's addresses with prefix length. Default `192.0.2.2/24`, `2001:db8::2/64`. */
  readonly addr?: string;
  readonly addr6?: string;
  /** Its default route; null for none. Default: Linux's address. */
  readonly gateway?: string | null;
  /** The NIC's Ethernet address. Default: a local one, the same for the same `tap`. */
  readonly mac?: string;
  /** The largest IP packet, 72 to 9000 bytes as far as the model has it. Default 1500. */
  readonly mtu?: number;
  /** A model of `tapnic nics`. Default `tn`. */
  readonly nic?: string;
  /** Capabilities to switch, in ifconfig's words, such as `-txcsum`. */
  readonly cap?: readonly string[];
  /** `wire`: the NIC segments and sums; `vnet`: Linux does. Default `wire`. */
  readonly mode?: 'wire' | 'vnet';
  /** `thread`: a thread of Linux's takes our frames, where it can be had. Default `off`. */
  readonly napi?: 'off' | 'thread';
  /** The build of the NIC. Default: `native` where the model has it. */
  readonly engine?: 'native' | 'ts';
  /** What opens the interface; `tuntap2` is a package to be installed. Default `native`. */
  readonly driver?: 'native' | 'tuntap2';
  /** A network namespace, made if it is missing. */
  readonly netns?: string;
  /** More NICs, without addresses, for vlan(4) and lagg(4). */
  readonly ports?: readonly PortOptions[];
  /** Capture points and the files they are written to; `if@nic1` is that of another NIC. */
  readonly capture?: Readonly<Record<string, string>>;
  /** On the wire from the start: `drop,rate=0.01,point=rx`. */
  readonly fault?: readonly string[];
  /** Set before the NIC is there, in this order. */
  readonly sysctl?: Readonly<Record<string, string | number>>;
  /** Bytes, or a text such as `64M`. Default `256M`. */
  readonly memory?: number | string;
  /** Physical address of the first byte of memory. Default 0. */
  readonly physBase?: number | string;
  /** The NIC reaches only what its driver has loaded. Selects `engine` `ts`. */
  readonly iommu?: boolean;
  /** The driver's bus_dma calls are checked. Selects `engine` `ts`. */
  readonly dmaCheck?: boolean;
  /** Of every random choice, 0 to 4294967295. Default: random. */
  readonly seed?: number;
}

/** One more NIC. Mode, build and namespace are those of the first where the model has them. */
export interface PortOptions {
  /** Linux's name of the interface. */
  readonly tap: string;
  /** A model of `tapnic nics`. Default `tn`. */
  readonly nic?: string;
  readonly mac?: string;
  /** Bytes. Default: the first NIC's, or the most the model takes. */
  readonly mtu?: number;
  /** Capabilities to switch, in ifconfig's words, such as `-nomap`. */
  readonly cap?: readonly string[];
}

/** Of a fault: `tapnic fault add --help`, times in milliseconds. */
export interface FaultOptions {
  /** The interface, such as tn0. Default: the first. */
  readonly if?: string;
  readonly point?: FaultPoint;
  readonly rate?: number;
  readonly every?: number;
  readonly nth?: number;
  readonly burst?: number;
  readonly delay?: number;
  readonly jitter?: number;
  readonly bits?: number;
  /** In the language of pcap-filter(7). */
  readonly match?: string;
  readonly seed?: number;
}

/** Reports of `netstat` and what they are. */
export interface NetstatReports {
  m: NetstatM;
  an: SocketLine[];
  i: InterfaceInfo[];
  s: NetstatS;
}

/** Pool names to what has not come back; empty when all has. */
export type Leaked = Record<string, number>;

/** A network stack in this process. Made by `createStack`. */
export class Stack {
  readonly #host: HostStack;
  readonly #servers = new Set<TcpServer>();
  readonly #sockets = new Set<TcpSocket>();
  readonly #dgrams = new Set<DgramSocket>();
  readonly #tables = new Set<Bsd>();
  /** Listens to 'close': one function for all sockets, because each `once` takes 300 bytes. */
  readonly #untrack: (this: TcpSocket) => void;
  #closing: Promise<Leaked> | null = null;
  /** What was asked for and could not be had, one line each. */
  readonly warnings: readonly string[];

  /** For `createStack`. */
  constructor(host: HostStack, warnings: readonly string[]) {
    this.#host = host;
    const sockets = this.#sockets;
    this.#untrack = function untrack(this: TcpSocket): void {
      sockets.delete(this);
    };
    this.warnings = [...warnings, ...host.warnings];
  }

  /** What the command line prints as `ready`, without what is its own. */
  get info(): StackInfo {
    return this.#host.info;
  }

  /** A server of the emulated host; `onConnection` listens to 'connection'. */
  createServer(onConnection?: (socket: TcpSocket) => void): TcpServer {
    this.#open('createServer');
    const server = createServerOn(this.#host.vnet);
    this.#servers.add(server);
    server.on('connection', (socket: TcpSocket) => this.#track(socket));
    server.once('close', () => this.#servers.delete(server));
    if (onConnection !== undefined) server.on('connection', onConnection);
    return server;
  }

  /** Connects from the emulated host to an IPv4 address. Rejects with TapnicError (ECONNREFUSED, …). */
  async connect(port: number, host: string): Promise<TcpSocket> {
    this.#open('connect');
    const socket = await connectOn(this.#host.vnet, port, host);
    this.#track(socket);
    return socket;
  }

  /** A UDP socket of the emulated host. Throws TapnicError (ENOBUFS, EINVAL). */
  createSocket(options?: DgramSocketOptions): DgramSocket {
    this.#open('createSocket');
    const socket = createSocket(this.#host.vnet, options);
    this.#dgrams.add(socket);
    socket.once('close', () => this.#dgrams.delete(socket));
    return socket;
  }

  /** BSD sockets by descriptor on this stack: a table of its own. */
  bsd(): Bsd {
    this.#open('bsd');
    const table = new Bsd(this.#host.vnet);
    this.#tables.add(table);
    return table;
  }

  /** All interfaces. */
  ifconfig(): InterfaceInfo[];
  /**
   * One interface, after `words` such as `-txcsum`, `create`, `up` or an address were carried out;
   * null after `destroy`. Throws TapnicError (ENXIO, EINVAL, …) with what ifconfig(8) would print.
   */
  ifconfig(name: string, word: 'destroy'): null;
  ifconfig(name: string, ...words: string[]): InterfaceInfo;
  ifconfig(name?: string, ...words: string[]): InterfaceInfo[] | InterfaceInfo | null {
    const args = name === undefined ? {} : { if: name, words };
    return this.#request('ifconfig', args) as InterfaceInfo[] | InterfaceInfo | null;
  }

  /** The value of a leaf; with `value`, sets it and returns what it was. Throws TapnicError. */
  sysctl(name: string, value?: string | number): SysctlValue {
    const args = value === undefined ? { name } : { name, value: String(value) };
    const [leaf] = this.#request('sysctl', args) as SysctlLeaf[];
    if (leaf?.name !== name) throw new TapnicError('EISDIR', `sysctl ${name}`, 'not a leaf');
    return value === undefined ? leaf.value : (leaf.old ?? leaf.value);
  }

  /**
   * Makes a NIC's wire a bad one, as `tapnic fault add` does. Throws TapnicError (EINVAL; ENXIO: no
   * such interface; ENOMEM, EMFILE).
   */
  addFault(kind: FaultKind, options: FaultOptions = {}): FaultLine {
    const args: Record<string, unknown> = { op: 'add', kind };
    for (const [name, value] of Object.entries(options)) {
      if (name !== 'if' && !FAULT_OPTIONS.some((one) => one === name))
        throw new TapnicError(
          'EINVAL',
          'fault',
          `${name}: none of ${FAULT_OPTIONS.join(', ')}, if`,
        );
      if (value !== undefined) args[name] = String(value);
    }
    if (options.match !== undefined) {
      try {
        args['program'] = compileFilterInsns(options.match);
      } catch (e) {
        throw new TapnicError('EINVAL', 'fault', e instanceof Error ? e.message : String(e));
      }
    }
    return this.#request('fault', args) as FaultLine;
  }

  /** The faults there are, with how often they hit. */
  faults(): FaultLine[] {
    return this.#request('fault', { op: 'list' }) as FaultLine[];
  }

  /** Takes a fault away, or all; what it holds back still arrives. Throws TapnicError (ENOENT). */
  removeFault(id: number | 'all'): void {
    this.#request('fault', { op: 'remove', id: String(id) });
  }

  /** What `tapnic netstat --json` prints, as it is now. */
  netstat<R extends keyof NetstatReports>(report: R): NetstatReports[R] {
    return this.#request('netstat', { report, all: true }) as NetstatReports[R];
  }

  /**
   * FIN to every connection, RST to those that are left after a second, captures flushed, the
   * interface removed; within two seconds. Resolves with what leaked: nothing, or it is a bug.
   */
  close(): Promise<Leaked> {
    this.#closing ??= this.#host.stop({
      finish: () => {
        for (const server of this.#servers) server.close();
        for (const dgram of this.#dgrams) dgram.close();
        for (const socket of this.#sockets) socket.end();
        for (const table of this.#tables) table.closeAll();
      },
      reset: () => {
        for (const socket of this.#sockets) socket.resetAndDestroy();
      },
    });
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** What kept a capture from being whole; null if nothing did. To be asked after `close`. */
  captureProblem(): string | null {
    return this.#host.captureProblem();
  }

  #track(socket: TcpSocket): void {
    this.#sockets.add(socket);
    socket.on('close', this.#untrack);
  }

  #open(call: string): void {
    if (this.#closing !== null) throw new TapnicError('EBADF', call, 'the stack is closed');
  }

  #request(cmd: string, args: Record<string, unknown>): unknown {
    this.#open(cmd);
    const { vnet, faultPlaces: faults } = this.#host;
    const target = { vnet, info: this.info, faults };
    const answer = handleRequest(target, { id: 0, cmd, args });
    if (!answer.ok) throw new TapnicError(answer.err.code, cmd, answer.err.message);
    return answer.data;
  }
}

/** The property that stands for an option of the command line, where `--port` is the server's. */
function keyOf(flag: string): string {
  return flag === 'add-nic' ? 'ports' : flagKey(flag);
}

function wrong(what: string): never {
  throw new TapnicError('EINVAL', 'createStack', what);
}

const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The text of one more NIC. */
function portText(port: unknown): string {
  if (!isMap(port)) wrong('ports: a list of objects is needed, such as [{ tap: "nic1" }]');
  const { tap, cap = [], ...rest } = port;
  if (typeof tap !== 'string') wrong('ports: tap: the name of an interface is needed');
  if (!Array.isArray(cap)) wrong('ports: cap: a list is needed, such as ["-nomap"]');
  const pairs = Object.entries(rest)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `,${name}=${String(value)}`);
  return `${tap}${pairs.join('')}${cap.map((word) => `,cap=${word}`).join('')}`;
}

const LISTS = ['cap', 'fault', 'ports'];
const MAPS = ['capture', 'sysctl'];

/** One option as the command line has it. */
function textOf(key: string, value: unknown, isSwitch: boolean): RawFlags[string] {
  if (LISTS.includes(key)) {
    if (!Array.isArray(value)) wrong(`${key}: a list is needed`);
    return key === 'ports'
      ? value.map(portText)
      : key === 'cap'
        ? value.join(',')
        : value.map(String);
  }
  if (MAPS.includes(key)) {
    if (!isMap(value)) wrong(`${key}: an object is needed, values by name`);
    return Object.entries(value).map(([name, to]) => `${name}=${String(to)}`);
  }
  if (isSwitch) return typeof value === 'boolean' ? value : wrong(`${key}: true or false`);
  if (value === null) return 'none';
  if (typeof value === 'string' || typeof value === 'number') return String(value);
  return wrong(`${key}: not a text, a number or null`);
}

/** The options as texts, the way the command line has them. Throws TapnicError (EINVAL). */
function textsOf(options: unknown): RawFlags {
  if (!isMap(options)) wrong('an object of options is needed');
  const keys = NIC_FLAGS.map(({ name }) => keyOf(name)).filter((key) => key !== 'control');
  const switches = NIC_FLAGS.filter(({ value }) => value === '').map(({ name }) => flagKey(name));
  const texts: RawFlags = {};
  for (const [key, value] of Object.entries(options)) {
    if (!keys.includes(key)) wrong(`${key}: no option: ${keys.join(', ')}`);
    if (value === undefined) continue;
    const flag = key === 'ports' ? flagKey('add-nic') : key;
    texts[flag] = textOf(key, value, switches.includes(key));
  }
  return texts;
}

interface Settings extends StackSettings {
  readonly driver: 'native' | 'tuntap2';
  readonly warnings: string[];
}

function settingsOf(options: StackOptions): Settings {
  try {
    return resolveNicOptions(textsOf(options), nicModels);
  } catch (e) {
    if (!(e instanceof UsageError)) throw e;
    const text = e.message.replace(/--([a-z0-9-]+)/g, (_all, name: string) => keyOf(name));
    throw new TapnicError('EINVAL', 'createStack', text);
  }
}

/** `createStack` of src/index.ts. */
export async function openStack(options: StackOptions): Promise<Stack> {
  const settings = settingsOf(options);
  if (settings.driver !== 'tuntap2') return new Stack(HostStack.open(settings), settings.warnings);
  const device = await openTuntap2();
  const nic = { ...settings.nic, tap: device.name };
  return new Stack(HostStack.open({ ...settings, nic }, device), settings.warnings);
}
