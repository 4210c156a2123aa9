/**
 * A running instance: control socket, namespace, machine, NIC, and what it serves; brought up in
 * that order, taken down in the other. Imported only by what brings a NIC up.
 */

import type { Logger } from 'pino';
import { HttpApp } from '../apps/http/serve.ts';
import { createServer } from '../api/server.ts';
import { handleRequest } from '../ctl/control.ts';
import { sysctlErrorText } from '../ctl/sysctl.ts';
import { bootHostMachine, type Machine } from '../machine/machine.ts';
import { type Nic, nicModels, openNic } from '../machine/nic.ts';
import { ifConsole } from '../net/if.ts';
import { V_tcp, type TcpVnet } from '../netinet/tcp_var.ts';
import { TCPS_CLOSED, TCPS_LISTEN, TCPS_TIME_WAIT } from '../netinet/tcp_fsm.ts';
import { intotcpcb, tcp_close, tcp_drop } from '../netinet/tcp_subr.ts';
import { ECONNABORTED } from '../sys/errno.ts';
import { passEnter, passLeave } from '../sys/pass.ts';
import { UsageError } from './command.ts';
import { checkedPath, defaultControlPath } from './control_path.ts';
import { type ControlServer, openControlServer } from './control_server.ts';
import { makeLogger } from './log.ts';
import { NetnsScope } from './netns_scope.ts';
import type { NicSettings } from './nic_options.ts';
import { stopInstance } from './stop.ts';

export const models = nicModels;

/** The `ready` line without what a command adds. */
export interface ReadyInfo {
  event: 'ready';
  tap: string;
  created: boolean;
  if: string;
  addr: string;
  addr6: string | null;
  mac: string;
  mode: 'wire' | 'vnet';
  napi: 'off' | 'thread';
  engine: 'ts' | 'native';
  control: string;
  pid: number;
  seed: number;
  netns: string | null;
}

/** Connections that are not over: neither closed, listening nor in TIME_WAIT. */
function connectionsLeft({ states }: TcpVnet): number {
  const all = states.reduce((sum, n) => sum + n, 0);
  return all - states[TCPS_CLOSED]! - states[TCPS_LISTEN]! - states[TCPS_TIME_WAIT]!;
}

/** RST to every connection that is left, and an end to TIME_WAIT. */
function abortConnections(tcp: TcpVnet): void {
  passEnter();
  // The list changes underneath: dropping one may close another.
  const pcbs = [];
  for (let inp = tcp.tcbinfo.ipi_listhead; inp !== null; inp = inp.listNext) pcbs.push(inp);
  for (const inp of pcbs) {
    if (inp.inp_ppcb === null) continue;
    const tp = intotcpcb(inp);
    if (tp.t_state === TCPS_TIME_WAIT) tcp_close(tp);
    else if (tp.t_state !== TCPS_LISTEN && tp.t_state !== TCPS_CLOSED) tcp_drop(tp, ECONNABORTED);
  }
  passLeave();
}

const withoutPrefix = (cidr: string): string => cidr.replace(/\/.*$/, '');

export class Instance {
  readonly log: Logger;
  readonly #machine: Machine;
  readonly #nic: Nic;
  readonly #control: ControlServer;
  readonly #netns: NetnsScope | null;
  readonly #tcp: TcpVnet;
  #app: HttpApp | null = null;

  private constructor(
    log: Logger,
    machine: Machine,
    nic: Nic,
    control: ControlServer,
    netns: NetnsScope | null,
  ) {
    this.log = log;
    this.#machine = machine;
    this.#nic = nic;
    this.#control = control;
    this.#netns = netns;
    this.#tcp = V_tcp(machine.vnet);
  }

  /** Brings everything up; what failed halfway is taken down again. Throws CliError, TapnicError. */
  static async open(settings: NicSettings, json: boolean): Promise<Instance> {
    const { nic: options, memory, seed, sysctl, warnings } = settings;
    const log = makeLogger(json, 'info');
    for (const warning of warnings) log.warn(warning);
    const path =
      settings.control === null
        ? defaultControlPath(options.tap, options.netns)
        : checkedPath(settings.control);
    const control = await openControlServer(path);
    let netns: NetnsScope | null = null;
    try {
      const machine = bootHostMachine({ memory, ...(seed === null ? {} : { seed }) });
      for (const [name, value] of sysctl) {
        const error = machine.sysctlWrite(name, value);
        if (error !== 0) throw new UsageError(`--sysctl: ${sysctlErrorText(name, value, error)}`);
      }
      if (options.netns !== null) netns = new NetnsScope(options.netns);
      const nic = openNic(machine, options);
      for (const warning of nic.warnings) log.warn(warning);
      return new Instance(log, machine, nic, control, netns);
    } catch (e) {
      control.close();
      netns?.close();
      throw e;
    }
  }

  /** Serves `dir` over HTTP and returns its URL; from now on requests are answered. */
  serve(dir: string, port: number): string {
    const server = createServer(this.#machine.vnet);
    this.#app = new HttpApp(server, { dir, port, log: this.log });
    const info = this.ready();
    ifConsole.log = (line) => this.log.info(line);
    this.#control.setHandler((req) => handleRequest({ vnet: this.#machine.vnet, info }, req));
    return `http://${info.addr}${port === 80 ? '' : `:${port}`}/`;
  }

  ready(): ReadyInfo {
    const nic = this.#nic;
    return {
      event: 'ready',
      tap: nic.tapName,
      created: nic.created,
      if: nic.ifp.if_xname,
      addr: withoutPrefix(nic.addr),
      addr6: nic.addr6 === null ? null : withoutPrefix(nic.addr6),
      mac: nic.mac,
      mode: nic.mode,
      napi: nic.napi,
      engine: nic.engine,
      control: this.#control.path,
      pid: process.pid,
      seed: this.#machine.seed,
      netns: this.#netns?.name ?? null,
    };
  }

  /** The stop of stop.ts; resolves with what leaked. */
  async stop(): Promise<Record<string, number>> {
    try {
      return await stopInstance({
        finish: () => this.#app?.close(),
        connections: () => connectionsLeft(this.#tcp),
        reset: () => {
          this.#app?.destroy();
          abortConnections(this.#tcp);
        },
        detach: () => {
          this.#nic.stop();
          const problem = this.#nic.captureProblem();
          if (problem !== null) this.log.warn(`capture: ${problem}`);
          this.#netns?.close();
        },
        leaked: () => this.#machine.leaked(),
      });
    } finally {
      this.#control.close();
    }
  }
}
