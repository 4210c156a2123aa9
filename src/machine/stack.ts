/**
 * The public API's stack: a machine with its NIC and TAP in this process, its sockets, and a look
 * inside. `openStack` makes a StackConfig of the library's options; options.ts checks it.
 */

import { Bsd } from '../api/bsd.ts';
import { createSocket, type DgramSocket, type DgramSocketOptions } from '../api/dgram.ts';
import {
  connect as connectOn,
  createServer as createServerOn,
  type TcpServer,
} from '../api/server.ts';
import type { TcpSocket } from '../api/socket.ts';
import { addFault, type FaultLine, listFaults, removeFault } from '../ctl/fault.ts';
import { gatherInterfaces, type InterfaceInfo } from '../ctl/ifconfig.ts';
import { runIfconfig } from '../ctl/ifconfig_verbs.ts';
import { gatherNetstat, type NetstatReports } from '../ctl/netstat.ts';
import { ControlFailure } from '../ctl/protocol.ts';
import { readSysctl, writeSysctl } from '../ctl/sysctl.ts';
import type { FaultKind } from '../fault/fault.ts';
import { FAULT_OPTIONS, type FaultOptions as WireFaultOptions } from '../fault/fault_spec.ts';
import { compileFilterInsns } from '../host/pcap_filter.ts';
import { openTuntap2 } from '../host/tuntap2.ts';
import type { SysctlValue } from '../kern/kern_sysctl.ts';
import { TapnicError } from '../sys/errno.ts';
import { HostStack, type StackInfo } from './host_stack.ts';
import { nicModels } from './nic_models.ts';
import { checking, issueText, OptionError, type OptionIssue } from './option_error.ts';
import { addressOf, capturePointOf, faultOf, sizeOf } from './option_texts.ts';
import { type CheckedOptions, checkOptions, type StackConfig } from './options.ts';

export type { NetstatReports } from '../ctl/netstat.ts';

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
  /** On the wire from the start: `{ kind: 'drop', rate: 0.01 }`, or the text `drop,rate=0.01`. */
  readonly fault?: readonly (string | StartFault)[];
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

/** A fault's kind and options. */
export interface StartFault extends WireFaultOptions {
  readonly kind: FaultKind;
}

/** A fault's options: `tapnic fault add --help`, times in milliseconds. */
export interface FaultOptions extends WireFaultOptions {
  /** The interface, such as tn0. Default: the first. */
  readonly if?: string | undefined;
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
  /** Options that could not be applied, one line each. */
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
    return this.#ctl('ifconfig', ({ vnet }) =>
      name === undefined ? gatherInterfaces(vnet) : runIfconfig(vnet, name, words),
    );
  }

  /** The value of a leaf; with `value`, sets it and returns what it was. Throws TapnicError. */
  sysctl(name: string, value?: string | number): SysctlValue {
    const [leaf] = this.#ctl('sysctl', ({ vnet }) =>
      value === undefined ? readSysctl(vnet, name) : [writeSysctl(vnet, name, String(value))],
    );
    if (leaf?.name !== name) throw new TapnicError('EISDIR', `sysctl ${name}`, 'not a leaf');
    return value === undefined ? leaf.value : (leaf.old ?? leaf.value);
  }

  /**
   * Makes a NIC's wire a bad one, as `tapnic fault add` does. Throws TapnicError (EINVAL; ENXIO: no
   * such interface; ENOMEM, EMFILE).
   */
  addFault(kind: FaultKind, options: FaultOptions = {}): FaultLine {
    const { if: name = null, ...values } = options;
    const known: readonly string[] = FAULT_OPTIONS;
    const stranger = Object.keys(values).find((option) => !known.includes(option));
    return this.#ctl('fault', ({ faultPlaces }) => {
      if (stranger !== undefined)
        throw new ControlFailure('EINVAL', `${stranger}: none of ${known.join(', ')}, if`);
      const program = options.match === undefined ? null : compiled(options.match);
      return addFault(faultPlaces, { if: name, kind, values, program });
    });
  }

  /** The faults there are, with how often they hit. */
  faults(): FaultLine[] {
    return this.#ctl('fault', ({ faultPlaces }) => listFaults(faultPlaces));
  }

  /** Takes a fault away, or all; what it holds back still arrives. Throws TapnicError (ENOENT). */
  removeFault(id: number | 'all'): void {
    this.#ctl('fault', ({ faultPlaces }) => removeFault(faultPlaces, { if: null, id }));
  }

  /** What `tapnic netstat --json` prints, as it is now. */
  netstat<R extends keyof NetstatReports>(report: R): NetstatReports[R] {
    return this.#ctl('netstat', ({ vnet }) => gatherNetstat(vnet, report, true));
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

  /** Why a capture is incomplete; null if all are complete. Call it after `close`. */
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

  /** Runs what the command `call` does. Throws TapnicError: EBADF after `close`, or what failed. */
  #ctl<T>(call: string, run: (host: HostStack) => T): T {
    this.#open(call);
    try {
      return run(this.#host);
    } catch (e) {
      if (!(e instanceof ControlFailure)) throw e;
      throw new TapnicError(e.code, call, e.message);
    }
  }
}

/** The program of a filter. Throws ControlFailure (EINVAL). */
function compiled(filter: string): number[][] {
  try {
    return compileFilterInsns(filter);
  } catch (e) {
    throw new ControlFailure('EINVAL', e instanceof Error ? e.message : String(e));
  }
}

const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The entries of an option that is an object; what is not one is refused. */
function entriesOf(option: string, value: unknown): [string, unknown][] {
  if (isMap(value)) return Object.entries(value);
  throw new OptionError({ path: [option], problem: 'an object is needed, values by name' });
}

/** How the library writes the options that it does not have as a StackConfig does. */
const READ: Readonly<Record<string, (value: unknown) => unknown>> = {
  memory: (value) => (typeof value === 'string' ? sizeOf(value) : value),
  physBase: (value) => (typeof value === 'string' ? addressOf(value) : value),
  capture: (value) =>
    entriesOf('capture', value).map(([point, file]) => ({ ...capturePointOf(point), file })),
  sysctl: (value) => entriesOf('sysctl', value),
  fault: (value) => {
    if (!Array.isArray(value)) return value;
    return value.map((fault: unknown, i) =>
      typeof fault === 'string' ? checking(['fault', i], () => faultOf(fault)) : fault,
    );
  },
};

/** The library's options as data. Their values may be of other types still: checkOptions says so. */
function configOf(options: StackOptions): StackConfig {
  // checkOptions refuses what is not an object.
  if (!isMap(options)) return options as unknown as StackConfig;
  return Object.fromEntries(
    Object.entries(options).map(([name, value]) => {
      const read = value === undefined ? undefined : READ[name];
      return [name, read === undefined ? value : read(value)];
    }),
  );
}

/** One line that names the option as the library does. */
function lineOf(issue: OptionIssue): string {
  const [option] = issue.path;
  const quoted =
    issue.wants === 'number' ? { ...issue, value: JSON.stringify(issue.value) } : issue;
  const text = issueText(quoted, (name) => name);
  return option === undefined ? text : `${option}: ${text}`;
}

function checked(options: StackOptions): CheckedOptions {
  try {
    return checkOptions(configOf(options), nicModels);
  } catch (e) {
    if (!(e instanceof OptionError)) throw e;
    throw new TapnicError('EINVAL', 'createStack', lineOf(e.issue));
  }
}

/** `createStack` of src/index.ts. */
export async function openStack(options: StackOptions): Promise<Stack> {
  const settings = checked(options);
  const warnings = settings.warnings.map(lineOf);
  if (settings.driver !== 'tuntap2') return new Stack(HostStack.open(settings), warnings);
  const device = await openTuntap2();
  const nic = { ...settings.nic, tap: device.name };
  return new Stack(HostStack.open({ ...settings, nic }, device), warnings);
}
