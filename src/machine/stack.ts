/**
 * The public API's stack: a machine with its NIC and TAP in this process, its sockets, and its
 * management functions. library_options.ts converts the library's options to a StackConfig; options.ts
 * checks it.
 */

import { Bsd } from '../api/bsd.ts';
import type { DgramHandle } from '../api/dgram_handle.ts';
import { type StackNet, stackNet, type StackSocketOptions } from '../api/net.ts';
import type { ConnectOptions } from '../api/net_args.ts';
import { type AnyServer, NetHost, netHost, type SocketStack } from '../api/net_host.ts';
import {
  connect as connectOn,
  type ConnectionListener,
  createServer as createServerOn,
  listen as listenOn,
  type ListenOptions,
  type Server,
  type ServerOptions,
} from '../api/server.ts';
import type { Socket } from '../api/socket.ts';
import { addFault, type FaultLine, listFaults, PendingFault, removeFault } from '../ctl/fault.ts';
import { gatherInterfaces, type InterfaceInfo } from '../ctl/ifconfig.ts';
import { runIfconfig } from '../ctl/ifconfig_verbs.ts';
import { gatherNetstat, type NetstatReports } from '../ctl/netstat.ts';
import { ControlFailure } from '../ctl/protocol.ts';
import { readSysctl, writeSysctl } from '../ctl/sysctl.ts';
import type { FaultKind } from '../fault/fault.ts';
import { FAULT_OPTIONS, type FaultOptions as WireFaultOptions } from '../fault/fault_spec.ts';
import { lookup, nodeNet, type NodeNet, openPath } from '../host/node_net.ts';
import {
  type AgentOptions,
  type DispatcherOptions,
  httpAgent,
  type HttpAgent,
  httpsAgent,
  type HttpsAgent,
  type HttpsAgentOptions,
  type LoadedDispatcher,
  type Undici,
  undiciAgent,
} from '../host/node_agents.ts';
import { openTuntap2 } from '../host/tuntap2.ts';
import type { SysctlValue } from '../kern/kern_sysctl.ts';
import { TapnicError } from '../sys/errno.ts';
import { captureConsole } from './capture_file.ts';
import {
  closeDgram,
  DgramSocket,
  type DgramSocketOptions,
  type DgramType,
  type DgramUser,
  type MessageListener,
} from './dgram.ts';
import { dhcpConsole, type DhcpEvent } from './dhcp/dhcp_client.ts';
import { compiledFilter } from './fault_filter.ts';
import { HostStack } from './host_stack.ts';
import type { NicStack, StackInfo } from './nic_stack.ts';
import { checkedStack, lineOf } from './library_options.ts';
import type { CheckedOptions } from './options.ts';
import {
  type CaptureOptions,
  type FileCapture,
  type FileCaptureOptions,
  openCapture,
  type PacketCapture,
} from './stack_capture.ts';

export type {
  CapturedPacket,
  CaptureOptions,
  CaptureResult,
  FileCapture,
  FileCaptureOptions,
  PacketCapture,
} from './stack_capture.ts';
export type { NetstatReports } from '../ctl/netstat.ts';

/** Options of a stack. The defaults are those of the command line. */
export interface StackOptions {
  /** Linux's name of the interface. Default `nic0`. */
  readonly tap?: string;
  /**
   * Linux's addresses with prefix length; null: no address. Default `192.0.2.1/24`,
   * `2001:db8::1/64`.
   */
  readonly hostAddr?: string | null;
  readonly hostAddr6?: string | null;
  /**
   * The emulated host's addresses with prefix length. Default `192.0.2.2/24`, `2001:db8::2/64`.
   * `addr` `dhcp`: from a DHCP server; then `hostAddr` has no default. `addr6` `auto`: from router
   * advertisements; null: no IPv6 address.
   */
  readonly addr?: string;
  readonly addr6?: string | null;
  /**
   * The emulated host's default route; null: no route. Default: Linux's address, or the router that
   * the DHCP server names.
   */
  readonly gateway?: string | null;
  /** The same for IPv6; with `addr6` `auto` the default is the router that advertises itself. */
  readonly gateway6?: string | null;
  /** The NIC's Ethernet address. Default: a local address derived from `tap`. */
  readonly mac?: string;
  /** The largest IP packet, 72 to 9000 bytes; a model may have a lower limit. Default 1500. */
  readonly mtu?: number;
  /** A model that `tapnic nics` lists. Default `tn`. */
  readonly nic?: string;
  /** Capabilities to switch, in ifconfig's words, such as `-txcsum`. */
  readonly cap?: readonly string[];
  /** `wire`: the NIC does segmentation and checksums; `vnet`: Linux does. Default `wire`. */
  readonly mode?: 'wire' | 'vnet';
  /**
   * `thread`: a Linux NAPI thread receives our frames, if the kernel supports it. Default `off`.
   */
  readonly napi?: 'off' | 'thread';
  /** The build of the NIC. Default: `native` if the model has it. */
  readonly engine?: 'native' | 'ts';
  /** What opens the interface; `tuntap2` needs that package to be installed. Default `native`. */
  readonly driver?: 'native' | 'tuntap2';
  /** The network namespace of the interface; created if it is missing. */
  readonly netns?: string;
  /** Additional NICs without addresses, for vlan(4) and lagg(4). */
  readonly ports?: readonly PortOptions[];
  /** Capture points and their files; `if@nic1` is the point `if` of the NIC `nic1`. */
  readonly capture?: Readonly<Record<string, string>>;
  /** Initial faults on the wire: `{ kind: 'drop', rate: 0.01 }`, or the text `drop,rate=0.01`. */
  readonly fault?: readonly (string | StartFault)[];
  /** Sysctls, set in this order before the NIC is plugged in. */
  readonly sysctl?: Readonly<Record<string, string | number>>;
  /** Memory of the machine in bytes, or a text such as `64M`. Default `256M`. */
  readonly memory?: number | string;
  /** Physical address of the first byte of memory. Default 0. */
  readonly physBase?: number | string;
  /** The NIC can access only memory that its driver has loaded. Selects `engine` `ts`. */
  readonly iommu?: boolean;
  /** Checks the driver's bus_dma calls. Selects `engine` `ts`. */
  readonly dmaCheck?: boolean;
  /** Seed of every random choice, 0 to 4294967295. Default: random. */
  readonly seed?: number;
}

/**
 * An additional NIC. It has the first NIC's mode, build and namespace if the model supports them.
 */
export interface PortOptions {
  /** Linux's name of the interface. */
  readonly tap: string;
  /** A model that `tapnic nics` lists. Default `tn`. */
  readonly nic?: string;
  readonly mac?: string;
  /** Bytes. Default: the first NIC's MTU, or the model's largest if less. */
  readonly mtu?: number;
  /** Capabilities to switch, in ifconfig's words, such as `-nomap`. */
  readonly cap?: readonly string[];
}

/** A fault's kind and options. */
export interface StartFault extends WireFaultOptions {
  readonly kind: FaultKind;
}

/** A fault's options, as in `tapnic fault add --help`. Times are in milliseconds. */
export interface FaultOptions extends WireFaultOptions {
  /** The interface, such as tn0. Default: the first. */
  readonly if?: string | undefined;
}

/** A fault that was added: its entry of `faults()`. */
export interface AddedFault extends FaultLine {
  /**
   * Resolves when the fault applies to frames: at once without `match`, else when its filter is
   * compiled. Rejects with TapnicError: EINVAL for a filter that cannot be compiled, which removes
   * the fault; ECANCELED if the fault was removed, or the stack closed, before. Not enumerable.
   */
  readonly ready: Promise<void>;
}

/** Number of leaked items by pool name; empty if nothing leaked. */
export type Leaked = Record<string, number>;

/** The machine's side of a stack, for src/testing. */
export let hostOf: (stack: Stack) => NicStack;

/** A network stack in this process. Made by `createStack`. */
export class Stack implements SocketStack {
  static {
    hostOf = (stack) => stack.#host;
  }

  readonly #host: NicStack;
  /** The servers that listen. */
  readonly #servers = new Set<AnyServer>();
  readonly #sockets = new Set<Socket>();
  readonly #dgrams = new Map<DgramSocket, DgramHandle>();
  readonly #tables = new Set<Bsd>();
  readonly #captures = new Set<FileCapture>();
  readonly #netHost: NetHost;
  #net: (StackNet & NodeNet) | null = null;
  readonly #dgramUser: DgramUser = {
    opened: (socket, handle) => this.#dgrams.set(socket, handle),
    closed: (socket) => this.#dgrams.delete(socket),
  };
  /** Aborted by `close`. */
  readonly #stopping = new AbortController();
  #closing: Promise<Leaked> | null = null;
  readonly #warnings: readonly string[];

  /** Called by `createStack`. */
  constructor(host: NicStack, warnings: readonly string[]) {
    this.#host = host;
    const user = {
      listens: (server: AnyServer) => this.#servers.add(server),
      closed: (server: AnyServer) => this.#servers.delete(server),
      connection: (socket: Socket) => this.#sockets.add(socket),
      disconnected: (socket: Socket) => this.#sockets.delete(socket),
    };
    const check = (call: string): void => this.#open(call);
    this.#netHost = new NetHost(host.vnet, {
      user,
      check,
      lookup,
      openPath,
      autoSelect: {
        enabled: nodeNet.getDefaultAutoSelectFamily,
        attemptMs: nodeNet.getDefaultAutoSelectFamilyAttemptTimeout,
      },
    });
    this.#warnings = [...warnings, ...host.warnings];
  }

  /** Options that could not be applied, one line each. */
  get warnings(): readonly string[] {
    return [...this.#warnings, ...this.#host.addrProblems];
  }

  /** The fields of the command line's `ready` line, without those that a command adds. */
  get info(): StackInfo {
    return this.#host.info;
  }

  /** For the option `stack` of `Socket` and `Server`. */
  get [netHost](): NetHost {
    return this.#netHost;
  }

  /**
   * The names of node:net, with this stack in the place of Linux's: for programs and libraries that take
   * such a module.
   */
  get net(): StackNet & NodeNet {
    return (this.#net ??= { ...nodeNet, ...stackNet(this) });
  }

  /**
   * Creates a server on the emulated host. `onConnection` is added as a listener of 'connection'.
   * Throws TapnicError EBADF, ERR_INVALID_ARG_TYPE.
   */
  createServer(onConnection?: ConnectionListener): Server;
  createServer(options: ServerOptions, onConnection?: ConnectionListener): Server;
  createServer(
    options?: ServerOptions | ConnectionListener,
    onConnection?: ConnectionListener,
  ): Server {
    this.#open('createServer');
    return createServerOn(this, options, onConnection);
  }

  /**
   * Makes a server of node:net, node:http, node:https, node:http2 or `createServer` accept
   * connections to the emulated host, as its own `listen` does on Linux and with the same arguments.
   * Its sockets are those of the stack. 'listening' is emitted later, or 'error' with TapnicError
   * EADDRINUSE, EADDRNOTAVAIL, ENOBUFS. `listener` is added as a listener of 'listening'. Throws
   * TapnicError EBADF, ERR_SERVER_ALREADY_LISTEN, and errors of wrong arguments as net.Server does.
   */
  listen<S extends AnyServer>(server: S, options?: ListenOptions, listener?: () => void): S;
  listen<S extends AnyServer>(
    server: S,
    port: number | string,
    host?: string,
    backlog?: number,
    listener?: () => void,
  ): S;
  listen<S extends AnyServer>(
    server: S,
    port: number | string,
    host: string,
    listener: () => void,
  ): S;
  listen<S extends AnyServer>(server: S, port: number | string, listener: () => void): S;
  listen<S extends AnyServer>(server: S, ...args: unknown[]): S {
    listenOn(this.#netHost, server, args);
    return server;
  }

  /**
   * Connects from the emulated host. The arguments are those of `Socket.connect`. Resolves when the
   * connection is established. Rejects with TapnicError, or the error of a wrong argument.
   */
  connect(options: ConnectOptions & StackSocketOptions): Promise<Socket>;
  connect(port: number | string, host?: string): Promise<Socket>;
  connect(...args: unknown[]): Promise<Socket> {
    return connectOn(this, ...args);
  }

  /**
   * Creates a UDP socket on the emulated host, as dgram.createSocket does on Linux. `onMessage` is added
   * as a listener of 'message'. Throws as that: ERR_SOCKET_BAD_TYPE, ERR_INVALID_ARG_TYPE; EBADF: the
   * stack is closed.
   */
  createSocket(options: DgramSocketOptions | DgramType, onMessage?: MessageListener): DgramSocket {
    this.#open('createSocket');
    return new DgramSocket(this.#host.vnet, options, onMessage, this.#dgramUser);
  }

  /**
   * A new agent for http.request and https.request, and libraries that take an http.Agent: its
   * connections go through the stack. Requests with `https:` need `protocol: 'https:'`.
   */
  agent(options: HttpsAgentOptions & { readonly protocol: 'https:' }): HttpsAgent;
  agent(options?: AgentOptions & { readonly protocol?: 'http:' }): HttpAgent;
  agent({ protocol, ...options }: AgentOptions & { readonly protocol?: string } = {}): HttpAgent {
    this.#open('agent');
    if (protocol === 'https:') return httpsAgent(this.#dial, options);
    if (protocol === undefined || protocol === 'http:') return httpAgent(this.#dial, options);
    throw new TapnicError('EINVAL', 'agent', `protocol ${protocol}: 'http:' or 'https:' is needed`);
  }

  /**
   * A new Agent of undici, a Dispatcher whose connections go through the stack. `options` are those of
   * that class, with `connect` for tls.connect. Without `undici`, the module that is installed beside
   * tapnic is loaded. Throws TapnicError ENOENT if undici is not installed.
   */
  dispatcher<A>(options: DispatcherOptions | undefined, undici: Undici<A>): A;
  dispatcher(options?: DispatcherOptions): LoadedDispatcher;
  dispatcher(options: DispatcherOptions = {}, undici?: Undici<unknown>): unknown {
    this.#open('dispatcher');
    return undiciAgent(this.#dial, options, undici);
  }

  readonly #dial = (options: { host: string; port: number }): Promise<Socket> =>
    this.connect(options);

  /** Returns a new descriptor table for BSD sockets on this stack. */
  bsd(): Bsd {
    this.#open('bsd');
    const table = new Bsd(this.#host.vnet);
    this.#tables.add(table);
    return table;
  }

  /** All interfaces. */
  ifconfig(): InterfaceInfo[];
  /**
   * Applies `words`, such as `-txcsum`, `create`, `up` or an address, and returns the interface;
   * null after `destroy`. Throws TapnicError (ENXIO, EINVAL, …) with the message of ifconfig(8).
   */
  ifconfig(name: string, word: 'destroy'): null;
  ifconfig(name: string, ...words: string[]): InterfaceInfo;
  ifconfig(name?: string, ...words: string[]): InterfaceInfo[] | InterfaceInfo | null {
    return this.#ctl('ifconfig', ({ vnet }) =>
      name === undefined ? gatherInterfaces(vnet) : runIfconfig(vnet, name, words),
    );
  }

  /**
   * Returns the value of a leaf. With `value`, sets it and returns the old value. Throws
   * TapnicError.
   */
  sysctl(name: string, value?: string | number): SysctlValue {
    const [leaf] = this.#ctl('sysctl', ({ vnet }) =>
      value === undefined ? readSysctl(vnet, name) : [writeSysctl(vnet, name, String(value))],
    );
    if (leaf?.name !== name) throw new TapnicError('EISDIR', `sysctl ${name}`, 'not a leaf');
    return value === undefined ? leaf.value : (leaf.old ?? leaf.value);
  }

  /**
   * Adds a fault to a NIC's wire, as `tapnic fault add` does. A filter is compiled after the call
   * returns; see `AddedFault.ready`. Throws TapnicError (EINVAL; ENXIO: no such interface; ENOMEM,
   * EMFILE).
   */
  addFault(kind: FaultKind, options: FaultOptions = {}): AddedFault {
    const { if: name = null, ...values } = options;
    const known: readonly string[] = FAULT_OPTIONS;
    const stranger = Object.keys(values).find((option) => !known.includes(option));
    return this.#ctl('fault', ({ faultPlaces }) => {
      if (stranger !== undefined)
        throw new ControlFailure('EINVAL', `${stranger}: none of ${known.join(', ')}, if`);
      const { match } = values;
      if (typeof match === 'string') {
        const pending = new PendingFault(faultPlaces, { if: name, kind, values });
        return added(pending.line, this.#activated(pending, match));
      }
      const line = addFault(faultPlaces, { if: name, kind, values, program: null });
      return added(line, Promise.resolve());
    });
  }

  /** Compiles the filter of `pending`. The result is that of `AddedFault.ready`. */
  #activated(pending: PendingFault, match: string): Promise<void> {
    const { signal } = this.#stopping;
    const ready = new Promise<void>((resolve, reject) => {
      const canceled = (): void => {
        // The caller knows of it, and need not have a handler.
        ready.catch(() => undefined);
        reject(new TapnicError('ECANCELED', 'fault', `${pending.line.id}: it was removed`));
      };
      compiledFilter(match, signal).then(
        (program) => {
          if (!signal.aborted && pending.activate(program)) resolve();
          else canceled();
        },
        (e: unknown) => {
          if (!pending.remove() || signal.aborted) canceled();
          else reject(new TapnicError('EINVAL', 'fault', (e as Error).message));
        },
      );
    });
    return ready;
  }

  /** Lists the faults and how often each was applied. */
  faults(): FaultLine[] {
    return this.#ctl('fault', ({ faultPlaces }) => listFaults(faultPlaces));
  }

  /** Removes a fault, or all. Frames that it delays still arrive. Throws TapnicError (ENOENT). */
  removeFault(id: number | 'all'): void {
    this.#ctl('fault', ({ faultPlaces }) => removeFault(faultPlaces, { if: null, id }));
  }

  /** Returns the data that `tapnic netstat --json` prints. */
  netstat<R extends keyof NetstatReports>(report: R): NetstatReports[R] {
    return this.#ctl('netstat', ({ vnet }) => gatherNetstat(vnet, report, true));
  }

  /**
   * Closes the stack within two seconds: sends FIN on every connection and RST on those that are
   * left after a second, flushes captures and removes the interface. Resolves with the leaked
   * items; a leak is a bug in tapnic.
   */
  close(): Promise<Leaked> {
    this.#stopping.abort();
    this.#closing ??= this.#stop();
    return this.#closing;
  }

  async #stop(): Promise<Leaked> {
    const leaked = await this.#host.stop({
      finish: () => {
        for (const server of this.#servers) server.close();
        for (const [socket, handle] of this.#dgrams) closeDgram(socket, handle);
        for (const socket of this.#sockets) {
          if (socket.connecting) socket.destroy();
          else socket.end();
        }
        for (const table of this.#tables) table.closeAll();
      },
      reset: () => {
        for (const socket of this.#sockets) socket.resetAndDestroy();
      },
    });
    for (const capture of this.#captures) void capture.close().catch(() => undefined);
    return leaked;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * Records capture points while the stack runs: `wire`, or several such as `ip,if@nic1`. With `file`, into
   * that file; else the capture is an async iterable of packets, at most 8 MiB of which wait for the reader;
   * more are dropped and counted. Throws TapnicError: EINVAL, ENXIO (no such interface), EBADF.
   */
  capture(points: string | readonly string[], options: FileCaptureOptions): FileCapture;
  capture(points: string | readonly string[], options?: CaptureOptions): PacketCapture;
  capture(
    points: string | readonly string[],
    options: CaptureOptions & { readonly file?: string } = {},
  ): FileCapture {
    return this.#ctl('capture', (host) => {
      const capture = openCapture(host, points, options);
      this.#captures.add(capture);
      const forget = (): void => void this.#captures.delete(capture);
      capture.closed.then(forget, forget);
      return capture;
    });
  }

  /** Why a capture is incomplete; null if all are complete so far. Final after `close`. */
  captureProblem(): string | null {
    return this.#host.captureProblem();
  }

  #open(call: string): void {
    if (this.#closing !== null) throw new TapnicError('EBADF', call, 'the stack is closed');
  }

  /** Runs the command `call`. Throws TapnicError: EBADF after `close`, or the command's error. */
  #ctl<T>(call: string, run: (host: NicStack) => T): T {
    this.#open(call);
    try {
      return run(this.#host);
    } catch (e) {
      if (!(e instanceof ControlFailure)) throw e;
      throw new TapnicError(e.code, call, e.message);
    }
  }
}

/** Returns the entry of a fault with `ready`, which is not enumerable: the entry is JSON data. */
function added(line: FaultLine, ready: Promise<void>): AddedFault {
  return Object.defineProperty(line, 'ready', { value: ready }) as AddedFault;
}

async function openHost(settings: CheckedOptions): Promise<HostStack> {
  if (settings.driver !== 'tuntap2') return HostStack.open(settings);
  const device = await openTuntap2();
  const nic = { ...settings.nic, tap: device.name };
  return HostStack.open({ ...settings, nic }, device);
}

/** Changes of a lease that a program should know of: it loses its connections. */
const DHCP_WARNINGS = new Set<DhcpEvent['event']>(['expired', 'refused', 'declined', 'problem']);

/** `createStack` of src/index.ts. */
export async function openStack(options: StackOptions): Promise<Stack> {
  const settings = await checkedStack(options);
  const warnings = settings.warnings.map(lineOf);
  captureConsole.ended = (line) => process.emitWarning(line);
  dhcpConsole.log = (event) => {
    if (DHCP_WARNINGS.has(event.event)) process.emitWarning(`dhcp: ${event.if}: ${event.text}`);
  };
  const host = await openHost(settings);
  const stack = new Stack(host, warnings);
  try {
    await host.configured();
    return stack;
  } catch (e) {
    await stack.close();
    throw e;
  }
}
