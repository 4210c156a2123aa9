/**
 * `serve --workers N`: N stacks with one address, each in a thread of its own with its own memory and
 * its own queue of the TAP. The main thread is worker 0, which configures the interface, answers for
 * the addresses, and serves the control socket.
 */

import { openExchange } from '../host/exchange.ts';
import { OsPrng } from '../host/prng.ts';
import { openTap, type TapWire } from '../host/tap.ts';
import {
  ControlFailure,
  type ControlRequest,
  type ControlResponse,
  errResponse,
} from '../ctl/protocol.ts';
import type { HostStack, StackPlace, StackSettings } from '../machine/host_stack.ts';
import type { Machine } from '../machine/machine.ts';
import { type NicOptions, tapOptions } from '../machine/nic.ts';
import type { FlowRule } from '../net/flow_owner.ts';
import { UsageError } from './command.ts';
import type { StreamHandlers } from './control_server.ts';
import type { NicSettings } from './nic_options.ts';
import type { ServeJob } from './serve_app.ts';
import { WorkerGroup } from './worker_group.ts';
import type { WorkerStart } from './worker_messages.ts';

const MEMORY_MIN = 16 << 20;
const PAGE = 4096;

/** What several workers serve. */
export interface WorkersJob {
  readonly workers: number;
  readonly serve: ServeJob;
}

/** The memory of each of `workers`: a part of --memory in whole pages. */
const memoryOf = (memory: number, workers: number): number =>
  Math.floor(memory / workers / PAGE) * PAGE;

/** The bound of connections of each worker. */
function jobOf({ workers, serve }: WorkersJob): ServeJob {
  const { limits } = serve;
  return {
    ...serve,
    limits: { ...limits, connections: Math.ceil(limits.connections / workers) },
  };
}

/** Throws UsageError for options that several workers do not support. */
export function checkWorkers(settings: NicSettings, { workers }: WorkersJob): void {
  const { nic, ports, captures, driver, memory } = settings;
  const refuse = (option: string, remedy: string): never => {
    throw new UsageError(`--workers ${workers}: not with ${option}: ${remedy}, or use --workers 1`);
  };
  if (driver !== 'native') refuse(`--driver ${driver}`, 'use --driver native');
  if (nic.dhcp !== undefined) refuse('--addr dhcp', 'give a fixed address');
  if (nic.slaac !== undefined) refuse('--addr6 auto', 'give a fixed address, or none');
  if (ports.length > 0) refuse('--add-nic', 'use one NIC');
  if (captures.length > 0) refuse('--capture', `run tcpdump -i ${nic.tap}`);
  const unshared = nic.faults?.find(({ kind, nth }) => kind === 'rate' || nth !== null);
  if (unshared !== undefined)
    refuse(`--fault ${unshared.kind}${unshared.nth === null ? '' : ',nth'}`, UNSHARED);
  if (memoryOf(memory, workers) < MEMORY_MIN)
    throw new UsageError(
      `--workers ${workers}: each worker needs 16M: give --memory ${workers * 16}M, or use fewer workers`,
    );
}

const UNSHARED = 'each worker would count its own frames: use rate or every of another kind';

/** Requests whose answers `mergeAnswers` can join. */
const JOINED = new Set('arp fault ifconfig info ndp netstat route sysctl vmstat'.split(' '));
/** Streamed requests that concern only worker 0, from whose stack they run. */
const STREAMED = new Set(['ping', 'fetch']);

const notShared = (cmd: string): string =>
  `${cmd}: not with several workers: ${cmd === 'capture' ? 'run tcpdump on the TAP, or ' : ''}use --workers 1`;

/** The streamed requests that an instance of several workers accepts; it refuses the others. */
export function sharedStreams(handlers: StreamHandlers): StreamHandlers {
  const shared = new Map(handlers);
  for (const cmd of handlers.keys())
    if (!STREAMED.has(cmd))
      shared.set(cmd, () => Promise.reject(new ControlFailure('EOPNOTSUPP', notShared(cmd))));
  return shared;
}

/** Why several workers cannot execute a request; null: they can. */
function refusal({ id, cmd, args }: ControlRequest): ControlResponse | null {
  if (!JOINED.has(cmd)) return errResponse(id, 'EOPNOTSUPP', notShared(cmd));
  if (cmd !== 'fault' || args['op'] !== 'add') return null;
  if (args['kind'] !== 'rate' && args['nth'] === undefined) return null;
  const what = args['kind'] === 'rate' ? 'rate' : 'nth';
  return errResponse(id, 'EOPNOTSUPP', `fault ${what}: ${UNSHARED}, or use --workers 1`);
}

/** The TAP and the stacks on it. `HostStack.open` takes it as the place of worker 0. */
export class SharedTap implements StackPlace {
  readonly worker = 0;
  readonly rule: FlowRule;
  readonly workers: number;
  /** Those of worker 0. */
  readonly settings: StackSettings;
  readonly job: ServeJob;
  readonly #logLine: (line: string) => void;
  #exchange = -1;
  #tap: TapWire | null = null;
  #group: WorkerGroup | null = null;
  #died: (why: string) => void = () => undefined;
  /** Resolves with one line when a worker ends unexpectedly. */
  readonly died: Promise<string>;

  constructor(settings: StackSettings, job: WorkersJob, logLine: (line: string) => void) {
    const { workers } = job;
    const seed = settings.seed ?? new OsPrng().next32();
    this.workers = workers;
    this.rule = { workers, port: job.serve.port, seed };
    this.settings = { ...settings, seed, memory: memoryOf(settings.memory, workers) };
    this.job = jobOf(job);
    this.#logLine = logLine;
    this.died = new Promise((resolve) => (this.#died = resolve));
  }

  wire(machine: Machine, options: NicOptions): TapWire {
    const { workers, port, seed } = this.rule;
    this.#exchange = openExchange(workers, port, seed);
    const tap = openTap(tapOptions(machine, options, this.workers));
    try {
      tap.joinExchange(this.#exchange, 0);
    } catch (e) {
      tap.close();
      throw e;
    }
    return (this.#tap = tap);
  }

  /** The settings of another worker: worker 0 has configured the interface and tried its addresses. */
  #settingsOf(worker: number, { nic: { mac }, info, machine }: HostStack): StackSettings {
    const { settings } = this;
    const { nic, sysctl, memory, physBase, iommu, dmaCheck } = settings;
    const four = info.addr === null ? { addr: null, gateway: null } : {};
    const six = info.addr6 === null ? { addr6: null, gateway6: null } : {};
    return {
      nic: { ...nic, ...four, ...six, mac, netns: null, hostAddr: null, hostAddr6: null },
      ports: [],
      captures: [],
      memory,
      physBase,
      iommu,
      dmaCheck,
      sysctl,
      seed: (machine.seed + worker) >>> 0,
    };
  }

  /** Starts the other workers when worker 0 serves. Rejects with TapnicError, CliError. */
  async start(stack: HostStack): Promise<void> {
    const tap = this.#tap!;
    const options = tapOptions(stack.machine, this.settings.nic, this.workers);
    const starts: WorkerStart[] = [];
    for (let worker = 1; worker < this.workers; worker++)
      starts.push({
        worker,
        rule: this.rule,
        exchange: this.#exchange,
        queue: {
          fd: tap.openQueue(options),
          name: tap.name,
          vnetHdr: tap.vnetHdr,
          napi: tap.napi,
          ipv6: tap.ipv6,
        },
        settings: this.#settingsOf(worker, stack),
        job: this.job,
      });
    const group = new WorkerGroup(starts, this.#logLine);
    this.#group = group;
    tap.onLink = (up) => group.linkChanged(up);
    await group.ready();
    void group.died.then(this.#died);
  }

  /** Answers a control request for all workers. @param own answers it for worker 0 */
  async answer(
    req: ControlRequest,
    own: (req: ControlRequest) => ControlResponse,
  ): Promise<ControlResponse> {
    const refused = refusal(req);
    if (refused !== null) return refused;
    const first = own(req);
    return this.#group === null ? first : this.#group.complete(req, first);
  }

  /** Number of other workers that still stop. */
  get unfinished(): number {
    return this.#group?.unfinished ?? 0;
  }

  /** Starts to stop the other workers. */
  stop(): void {
    this.#group?.stop();
  }

  /** Resolves with `own` and the leaks of the other workers, at `deadline` (performance.now) at last. */
  async leaked(own: Record<string, number>, deadline: number): Promise<Record<string, number>> {
    const others = (await this.#group?.leaked(deadline)) ?? {};
    const sum = { ...own };
    for (const [pool, n] of Object.entries(others)) sum[pool] = (sum[pool] ?? 0) + n;
    return sum;
  }
}
