/**
 * A running instance: control socket, namespace, machine, NIC and app, started in this order and
 * stopped in reverse. Only commands that bring up a NIC import this file.
 */

import type { Logger } from 'pino';
import { handleRequest } from '../ctl/control.ts';
import { NetnsScope } from '../host/netns_scope.ts';
import { openTuntap2 } from '../host/tuntap2.ts';
import { captureConsole } from '../machine/capture_file.ts';
import { dhcpConsole, type DhcpEvent } from '../machine/dhcp/dhcp_client.ts';
import { HostStack, SysctlSettingError } from '../machine/host_stack.ts';
import type { StackInfo } from '../machine/nic_stack.ts';
import { nicModels } from '../machine/nic_models.ts';
import type { Vnet } from '../kern/vnet.ts';
import { dmaCheck } from '../bus/busdma_check.ts';
import { ifConsole } from '../net/if.ts';
import { UsageError } from './command.ts';
import { streamHandlers } from './control_jobs.ts';
import { checkedPath, defaultControlPath, netnsInode } from './control_path.ts';
import { type ControlServer, openControlServer } from './control_server.ts';
import { makeLog } from './log.ts';
import type { NicSettings } from './nic_options.ts';
import { type ServeJob, startServe } from './serve_app.ts';
import { checkWorkers, SharedTap, sharedStreams, type WorkersJob } from './serve_workers.ts';
import { workerAnswer } from './worker_control.ts';

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

/** Milliseconds that other workers have to stop. */
const WORKERS_STOP_MS = 1850;

/** The `ready` line without the fields that a command adds. */
export interface ReadyInfo extends StackInfo {
  readonly event: 'ready';
  readonly control: string;
  /** Inode of the network namespace of the interface; null if it cannot be read. */
  readonly netnsInode: number | null;
  readonly pid: number;
  /** Number of stacks that share the address. */
  readonly workers: number;
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
  readonly #shared: SharedTap | null;
  #app: App | null = null;

  private constructor(
    log: Logger,
    stack: HostStack,
    control: ControlServer,
    place: Place,
    shared: SharedTap | null,
  ) {
    this.log = log;
    this.#stack = stack;
    this.#control = control;
    this.#place = place;
    this.#shared = shared;
  }

  /**
   * Starts everything. On an error, stops the parts that were started. Throws CliError,
   * TapnicError.
   * @param job what several workers serve, or null: one stack
   */
  static async open(
    settings: NicSettings,
    json: boolean,
    job: WorkersJob | null = null,
  ): Promise<Instance> {
    const { warnings, driver } = settings;
    if (job !== null) checkWorkers(settings, job);
    const { log, line: logLine } = makeLog(json, 'info');
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
      const shared = job === null ? null : new SharedTap({ ...settings, nic }, job, logLine);
      const stack = await HostStack.open(shared?.settings ?? { ...settings, nic }, device, shared);
      for (const warning of stack.warnings) log.warn(warning);
      for (const port of stack.ports)
        void port.gone.then((why) =>
          log.warn(
            `${port.tapName}: the interface is gone: ${why}: ${port.ifp.if_xname} has no link`,
          ),
        );
      return new Instance(log, stack, control, place, shared);
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

  /** Resolves with one line when a worker ended unexpectedly: the instance must stop. */
  get died(): Promise<string> | null {
    return this.#shared?.died ?? null;
  }

  /** Takes ownership of `app`: `stop` ends it. Starts answering requests on the control socket. */
  run(app: App): void {
    this.#app = app;
    ifConsole.log = (line) => this.log.info(line);
    const faults = this.#stack.faultPlaces;
    const { vnet, live } = this.#stack;
    const shared = this.#shared;
    // The state is read per request: the interface may have been renamed.
    const target = () => ({ vnet, info: this.ready(), faults, captures: () => live.list() });
    const streams = streamHandlers(vnet, live);
    this.#control.setHandler(
      shared === null
        ? (req) => handleRequest(target(), req)
        : (req) => shared.answer(req, (own) => workerAnswer(target(), own)),
      shared === null ? streams : sharedStreams(streams),
    );
  }

  /**
   * Serves a directory over HTTP. Returns the URLs; each is null without an address of its family.
   * Rejects with TapnicError EADDRINUSE, and with CliError if a worker cannot start.
   */
  async serve(job: ServeJob): Promise<ServeUrls> {
    const app = startServe(this.#stack.vnet, this.#shared?.job ?? job, this.log);
    this.#app = app;
    await this.#shared?.start(this.#stack);
    this.run(app);
    const { port } = job;
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
      workers: this.#shared?.workers ?? 1,
    };
  }

  /** Whether a capture file could not be written. */
  get captureFailed(): boolean {
    return this.#stack.captures.some(({ failed }) => failed);
  }

  /** Stops everything. Resolves with the leaked items by pool name. */
  async stop(): Promise<Record<string, number>> {
    const begun = performance.now();
    const shared = this.#shared;
    try {
      const leaked = await this.#stack.stop({
        finish: () => {
          this.#control.stopStreams();
          this.#app?.close();
          shared?.stop();
        },
        reset: () => this.#app?.destroy(),
        others: () => shared?.unfinished ?? 0,
      });
      for (const { losses } of this.#stack.captures)
        if (losses !== null) this.log.warn(`capture: ${losses}`);
      return shared === null ? leaked : await shared.leaked(leaked, begun + WORKERS_STOP_MS);
    } finally {
      this.#control.close();
      this.#place.netns?.close();
    }
  }
}
