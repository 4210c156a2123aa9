/**
 * A running instance: control socket, namespace, machine, NIC and app, started in this order and
 * stopped in reverse. Only commands that bring up a NIC import this file.
 */

import type { Logger } from 'pino';
import type { Limits } from '../apps/http/limits.ts';
import { HttpApp } from '../apps/http/serve.ts';
import { handleRequest } from '../ctl/control.ts';
import { NativeFolder } from '../host/native_folder.ts';
import { NetnsScope } from '../host/netns_scope.ts';
import { openTuntap2 } from '../host/tuntap2.ts';
import { captureConsole } from '../machine/capture_file.ts';
import { dhcpConsole, type DhcpEvent } from '../machine/dhcp/dhcp_client.ts';
import { HostStack, type StackInfo, SysctlSettingError } from '../machine/host_stack.ts';
import { nicModels } from '../machine/nic_models.ts';
import type { Vnet } from '../kern/vnet.ts';
import { dmaCheck } from '../bus/busdma_check.ts';
import { ifConsole } from '../net/if.ts';
import { UsageError } from './command.ts';
import { streamHandlers } from './control_jobs.ts';
import { checkedPath, defaultControlPath, netnsInode } from './control_path.ts';
import { type ControlServer, openControlServer } from './control_server.ts';
import { makeLogger } from './log.ts';
import type { NicSettings } from './nic_options.ts';

export const models = nicModels;

/**
 * A program on an instance: `close` ends it gracefully, `destroy` drops its remaining connections.
 */
export interface App {
  close(): void;
  destroy(): void;
}

/** The URLs of the served directory. */
interface ServeUrls {
  readonly url: string | null;
  readonly url6: string | null;
}

/** The `ready` line without the fields that a command adds. */
export interface ReadyInfo extends StackInfo {
  readonly event: 'ready';
  readonly control: string;
  /** Inode of the network namespace of the interface; null if it cannot be read. */
  readonly netnsInode: number | null;
  readonly pid: number;
}

/** The network namespace of the interface, opened before the control socket, which it names. */
interface Place {
  readonly inode: number | null;
  readonly netns: NetnsScope | null;
  /** The path of the control socket. */
  readonly control: string;
}

/** Throws CliError, TapnicError. @param control --control, or null */
function openPlace({ tap, netns: name }: NicSettings['nic'], control: string | null): Place {
  const netns = name === null ? null : new NetnsScope(name);
  try {
    if (control === null) {
      const inode = netnsInode(name);
      return { inode, netns, control: defaultControlPath(tap, inode) };
    }
    return { inode: inodeOrNull(name), netns, control: checkedPath(control) };
  } catch (e) {
    netns?.close();
    throw e;
  }
}

/** The inode of the namespace; null where /proc is missing. */
function inodeOrNull(name: string | null): number | null {
  try {
    return netnsInode(name);
  } catch {
    return null;
  }
}

/** Logs a change of the lease: `{"dhcp":"bound","addr":…}` with --json. */
function logLease(log: Logger, { event, text, ...fields }: DhcpEvent): void {
  const quiet = ['bound', 'renewed', 'rebound', 'released'].includes(event);
  const entry = { dhcp: event, ...fields };
  if (quiet) log.info(entry, `dhcp: ${text}`);
  else log.warn(entry, `dhcp: ${text}`);
}

export class Instance {
  readonly log: Logger;
  readonly #stack: HostStack;
  readonly #control: ControlServer;
  readonly #place: Place;
  #app: App | null = null;

  private constructor(log: Logger, stack: HostStack, control: ControlServer, place: Place) {
    this.log = log;
    this.#stack = stack;
    this.#control = control;
    this.#place = place;
  }

  /**
   * Starts everything. On an error, stops the parts that were started. Throws CliError,
   * TapnicError.
   */
  static async open(settings: NicSettings, json: boolean): Promise<Instance> {
    const { warnings, driver } = settings;
    const log = makeLogger(json, 'info');
    for (const warning of warnings) log.warn(warning);
    // With tuntap2 the kernel chooses the interface name, which is part of the control socket's
    // name.
    const device = driver === 'tuntap2' ? await openTuntap2() : null;
    const nic = device === null ? settings.nic : { ...settings.nic, tap: device.name };
    let control: ControlServer;
    let place: Place | null = null;
    try {
      place = openPlace(nic, settings.control);
      control = await openControlServer(place.control);
    } catch (e) {
      place?.netns?.close();
      device?.release();
      throw e;
    }
    try {
      dmaCheck.console = (line) => log.warn(line);
      captureConsole.ended = (line, failed) => (failed ? log.error(line) : log.warn(line));
      dhcpConsole.log = (event) => logLease(log, event);
      const stack = await HostStack.open({ ...settings, nic }, device);
      for (const warning of stack.warnings) log.warn(warning);
      for (const port of stack.ports)
        void port.gone.then((why) =>
          log.warn(
            `${port.tapName}: the interface is gone: ${why}: ${port.ifp.if_xname} has no link`,
          ),
        );
      return new Instance(log, stack, control, place);
    } catch (e) {
      control.close();
      place.netns?.close();
      if (!(e instanceof SysctlSettingError)) throw e;
      throw new UsageError(`${settings.sysctlWhere[e.index]}: ${e.detail}`);
    }
  }

  /** See HostStack.configured. */
  async configured(stopping: AbortSignal): Promise<boolean> {
    const done = await this.#stack.configured(stopping);
    if (done) for (const problem of this.#stack.addrProblems) this.log.warn(problem);
    return done;
  }

  /** The emulated host's stack. */
  get vnet(): Vnet {
    return this.#stack.vnet;
  }

  /** Resolves with the cause when the interface was deleted or moved: the instance must stop. */
  get gone(): Promise<string> {
    return this.#stack.nic.gone;
  }

  /** Takes ownership of `app`: `stop` ends it. Starts answering requests on the control socket. */
  run(app: App): void {
    this.#app = app;
    ifConsole.log = (line) => this.log.info(line);
    const faults = this.#stack.faultPlaces;
    const { vnet, live } = this.#stack;
    // The state is read per request: the interface may have been renamed.
    this.#control.setHandler(
      (req) =>
        handleRequest({ vnet, info: this.ready(), faults, captures: () => live.list() }, req),
      streamHandlers(vnet, live),
    );
  }

  /**
   * Serves `dir`, a real path, over HTTP. Returns the URLs; each is null without an address of its family.
   * Rejects with TapnicError EADDRINUSE.
   */
  async serve(dir: string, port: number, limits: Limits): Promise<ServeUrls> {
    const options = { folder: new NativeFolder(dir), log: this.log, limits };
    this.run(new HttpApp(this.#stack.vnet, { port }, options));
    const { addr, addr6, tap } = this.#stack.info;
    const at = port === 80 ? '' : `:${port}`;
    // On Linux's side the zone of a link-local address is the name of its own interface.
    const url6 = addr6 === null ? null : `http://[${addr6.replace(/%.*/, `%25${tap}`)}]${at}/`;
    return { url: addr === null ? null : `http://${addr}${at}/`, url6 };
  }

  ready(): ReadyInfo {
    const { info } = this.#stack;
    return {
      event: 'ready',
      ...info,
      control: this.#control.path,
      netnsInode: this.#place.inode,
      pid: process.pid,
    };
  }

  /** Whether a capture file could not be written. */
  get captureFailed(): boolean {
    return this.#stack.captures.some(({ failed }) => failed);
  }

  /** Stops everything. Resolves with the leaked items by pool name. */
  async stop(): Promise<Record<string, number>> {
    try {
      const leaked = await this.#stack.stop({
        finish: () => {
          this.#control.stopStreams();
          this.#app?.close();
        },
        reset: () => this.#app?.destroy(),
      });
      for (const { losses } of this.#stack.captures)
        if (losses !== null) this.log.warn(`capture: ${losses}`);
      return leaked;
    } finally {
      this.#control.close();
      this.#place.netns?.close();
    }
  }
}
