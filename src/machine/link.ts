/**
 * `createLink`: several stacks of one machine in this thread, joined by a simulated Ethernet, in virtual time
 * and without privileges. Each is a Vnet with a NIC of its own; memory, mbufs and `kern.*` are shared.
 */

import { sysctlErrorText } from '../ctl/sysctl.ts';
import { LinkClock } from '../host/link_clock.ts';
import { SeededPrng } from '../host/prng.ts';
import { openedInTime } from '../host/sink_open.ts';
import type { RealTimers } from '../host/real_timers.ts';
import { SimSwitch } from '../host/sim_switch.ts';
import { doneWithin } from '../host/stop.ts';
import { calloutsPending, timeoutEnd } from '../kern/kern_timeout.ts';
import { machineSysctl } from '../kern/kern_sysctl.ts';
import type { Vnet } from '../kern/vnet.ts';
import { captureUnit } from '../net/capture.ts';
import { ifunit } from '../net/if.ts';
import { errnoName, TapnicError } from '../sys/errno.ts';
import { captureConsole, CaptureFile } from './capture_file.ts';
import { lineOf } from './library_options.ts';
import {
  type CheckedLink,
  checkLink,
  checkWire,
  type LinkOptions,
  refusing,
  type WireOptions,
} from './link_options.ts';
import { LinkNetwork, LinkStack, LinkWire } from './link_stack.ts';
import { bootHostMachine, type Machine } from './machine.ts';
import { openNic } from './nic.ts';
import { attachAll } from './nic_stack.ts';
import { type Leaked, Stack } from './stack.ts';
import { claimThread } from './thread_claim.ts';

/** A frame that a stack sent, as it left the NIC. */
export interface LinkFrame {
  /** The name of the stack. */
  readonly from: string;
  /** When it left, as `link.now`. */
  readonly timeMs: number;
  /** From the Ethernet header on, without FCS. */
  readonly bytes: Uint8Array;
  /** Whether the wire loses it: `lossRate`, a full `queue`. */
  readonly lost: boolean;
}

/** Options of `until`. */
export interface UntilOptions {
  /** Limit of virtual time, ms. Default 600000. */
  readonly limitMs?: number;
}

/** Virtual time after the start in which the network comes up: detection of duplicates, group reports. */
const START_NS = 15e9;
/** Limits of `advance` and `until`: a year. */
const ADVANCE_MAX_MS = 366 * 86_400_000;
const UNTIL_MS = 600_000;
/** Real time that captures have to be written, and disk reads to end, when the link closes, ms. */
const FLUSH_MS = 1000;

/** Several stacks on a simulated Ethernet. Made by `createLink`. */
export class Link<Name extends string = string> implements AsyncDisposable {
  /** The stacks by name. */
  readonly stacks: Readonly<Record<Name, Stack>>;
  readonly #hosts: readonly LinkStack[];
  readonly #machine: Machine;
  readonly #clock: LinkClock;
  readonly #wire: SimSwitch;
  readonly #release: () => void;
  readonly #startNs: number;
  readonly #listeners = new Set<(frame: LinkFrame) => void>();
  readonly #names: readonly string[];
  #up = true;
  #closing: Promise<Leaked> | null = null;

  /** Called by `openLink`. */
  constructor(parts: LinkParts) {
    const { hosts, names, warnings } = parts;
    this.#hosts = hosts;
    this.#names = names;
    this.#machine = parts.machine;
    this.#clock = parts.clock;
    this.#wire = parts.wire;
    this.#release = parts.release;
    this.#startNs = parts.clock.nowNs();
    const stacks = hosts.map((host, i) => [names[i]!, new Stack(host, warnings[i]!)] as const);
    this.stacks = Object.fromEntries(stacks) as Record<Name, Stack>;
    this.#wire.onSent = (station, bytes, lost) => this.#sent(station, bytes, lost);
  }

  /** Milliseconds of virtual time since the link was created; has a fraction. */
  get now(): number {
    return (this.#clock.nowNs() - this.#startNs) / 1e6;
  }

  /**
   * Lets `ms` milliseconds of virtual time pass. Everything that is due in that time happens in its order, and
   * programs react to it. Calls that are made at the same time count from the same moment. Rejects with TapnicError: EINVAL: not a number,
   * or time is real; EBADF: the link is closed; ECANCELED: it was closed meanwhile.
   */
  async advance(ms: number): Promise<void> {
    this.#open('advance');
    if (typeof ms !== 'number' || !(ms >= 0 && ms <= ADVANCE_MAX_MS))
      throw new TapnicError('EINVAL', 'advance', `${ms}: milliseconds from 0 to ${ADVANCE_MAX_MS}`);
    if (this.#clock.mode === 'real')
      throw new TapnicError('EINVAL', 'advance', 'the time of this link is real: wait instead');
    const reached = await this.#clock.advanceTurns(this.#clock.nowNs() + Math.round(ms * 1e6));
    if (!reached) throw new TapnicError('ECANCELED', 'advance', 'the link was closed');
  }

  /**
   * Lets virtual time pass until `promise` settles, and returns its result. While the network is quiet, time passes a
   * thousand times as fast as real time, so that programs can wait for something else. Rejects with
   * TapnicError: ETIMEDOUT after `limitMs`; EBADF, ECANCELED as `advance`.
   */
  async until<T>(promise: T | PromiseLike<T>, options: UntilOptions = {}): Promise<T> {
    this.#open('until');
    const { limitMs = UNTIL_MS } = options;
    if (typeof limitMs !== 'number' || !(limitMs > 0 && limitMs <= ADVANCE_MAX_MS))
      throw new TapnicError('EINVAL', 'until', `limitMs: ${limitMs}: up to ${ADVANCE_MAX_MS}`);
    const clock = this.#clock;
    let settled = false;
    const settle = (): void => {
      settled = true;
      clock.poke();
    };
    Promise.resolve(promise).then(settle, settle);
    const reached = await clock.run('paced', clock.nowNs() + limitMs * 1e6, () => settled);
    if (settled) return promise;
    if (reached)
      throw new TapnicError(
        'ETIMEDOUT',
        'until',
        `not settled after ${limitMs} ms of the link's time`,
      );
    throw new TapnicError('ECANCELED', 'until', 'the link was closed');
  }

  /**
   * Resolves when nothing more happens by itself: with `manual` when everything due now has happened, else when
   * the network is quiet. Rejects with TapnicError EBADF.
   */
  async settle(): Promise<void> {
    this.#open('settle');
    const clock = this.#clock;
    if (clock.mode === 'manual') await clock.advanceTurns(clock.nowNs());
    else await clock.run('active', Infinity, () => false);
  }

  /** Changes the wire, for frames sent from now on. Options that are not given stay. Throws TapnicError. */
  set(options: WireOptions): void {
    this.#open('set');
    this.#wire.setImpair(refusing('set', '', () => checkWire(options)));
  }

  /** Whether the cables of all stacks are connected. Frames on the way are lost when it changes to false. */
  get up(): boolean {
    return this.#up;
  }

  set up(up: boolean) {
    this.#open('up');
    this.#up = up;
    this.#wire.setUp(up);
  }

  /**
   * Calls `listener` with each frame, in the call that sends it. Returns a function that ends this. What a
   * listener throws is thrown in a later turn, as an uncaught exception.
   */
  onFrame(listener: (frame: LinkFrame) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Closes all connections and stacks, in virtual time: FIN, and RST for what is left when the network is quiet. Resolves with
   * the leaked items; a leak is a bug in tapnic.
   */
  close(): Promise<Leaked> {
    this.#closing ??= this.#stop();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #stop(): Promise<Leaked> {
    try {
      await Promise.all(Object.values<Stack>(this.stacks).map((stack) => stack.close()));
      await doneWithin(FLUSH_MS, () => this.#flushed());
      for (const { captures } of this.#hosts) for (const capture of captures) capture.abandon();
      return this.#leaked();
    } finally {
      this.#clock.close();
      timeoutEnd();
      this.#release();
    }
  }

  #flushed(): boolean {
    const written = this.#hosts.every(({ captures }) => captures.every(({ closed }) => closed));
    return written && Object.keys(this.#leaked()).length === 0;
  }

  #leaked(): Leaked {
    const callouts = calloutsPending();
    return { ...this.#machine.leaked(), ...(callouts === 0 ? {} : { callouts }) };
  }

  #sent(station: number, sent: Uint8Array, lost: boolean): void {
    if (this.#listeners.size === 0) return;
    const frame = { from: this.#names[station]!, timeMs: this.now, bytes: sent.slice(), lost };
    for (const listener of this.#listeners)
      try {
        listener(frame);
      } catch (e) {
        // Not through the NIC, which is sending the frame.
        this.#clock.post({
          run: () => {
            throw e;
          },
        });
      }
  }

  #open(call: string): void {
    if (this.#closing !== null) throw new TapnicError('EBADF', call, 'the link is closed');
  }
}

/** What a link consists of. */
interface LinkParts {
  readonly machine: Machine;
  readonly clock: LinkClock;
  readonly wire: SimSwitch;
  readonly hosts: readonly LinkStack[];
  readonly names: readonly string[];
  readonly warnings: readonly (readonly string[])[];
  readonly release: () => void;
}

/** Sets the sysctls of the machine, or of one stack. Throws TapnicError. */
function setSysctls(
  machine: Machine,
  vnet: Vnet | null,
  where: string,
  pairs: readonly (readonly [string, string])[],
): void {
  for (const [name, value] of pairs) {
    const ofMachine = machineSysctl.tree.find(name) !== undefined;
    if (ofMachine !== (vnet === null)) {
      const other = ofMachine
        ? 'of the machine: put it into sysctl of the link'
        : 'of a stack: put it into sysctl of the stacks';
      throw new TapnicError('EINVAL', 'createLink', `${where}: ${name} is ${other}`);
    }
    const error = machine.sysctlWrite(name, value, vnet ?? undefined);
    if (error !== 0)
      throw new TapnicError(
        errnoName(error),
        'createLink',
        `${where}: ${sysctlErrorText(name, value, error)}`,
      );
  }
}

/** Starts the stacks. What it started is in `hosts` if it throws. */
function startStacks(
  { stacks, seed }: CheckedLink,
  machine: Machine,
  wire: SimSwitch,
  network: LinkNetwork,
  hosts: LinkStack[],
): void {
  const seeds = new SeededPrng(seed);
  for (const [i, { name, settings }] of stacks.entries()) {
    const prng = seeds.fork();
    const vnet = i === 0 ? machine.vnet : machine.addVnet(prng);
    setSysctls(machine, vnet, `stacks.${name}.sysctl`, settings.sysctl);
    const captures = settings.captures.map((spec) => new CaptureFile(spec));
    try {
      const lo0 = ifunit(vnet, 'lo0')!;
      // The stacks share the capture ring, so records need the number of an interface.
      lo0.if_capunit = captureUnit();
      attachAll(captures, lo0, ['lo0']);
      const plug = new LinkWire(name, wire.connect());
      const nic = openNic(
        machine,
        settings.nic,
        plug,
        ({ ifp, model }) => attachAll(captures, ifp, [null, name, ifp.if_xname], model),
        vnet,
      );
      vnet.capunit = nic.ifp.if_capunit;
      hosts.push(new LinkStack(machine, vnet, nic, captures, network));
    } catch (e) {
      for (const capture of captures) capture.close();
      throw e;
    }
  }
}

/** `createLink` of src/index.ts. */
export async function openLink<Name extends string>(
  options: LinkOptions<Name>,
  timers: RealTimers,
): Promise<Link<Name>> {
  const checked = await checkLink(options);
  const { memory, seed, time } = checked;
  captureConsole.ended = (line) => process.emitWarning(line);
  const release = claimThread('createLink');
  const clock = new LinkClock(timers);
  const hosts: LinkStack[] = [];
  try {
    const machine = bootHostMachine({ memory, seed }, clock);
    const wire = new SimSwitch({ arena: machine.arena, clock, prng: new SeededPrng(seed) });
    const network = new LinkNetwork(clock);
    setSysctls(machine, null, 'sysctl', checked.sysctl);
    startStacks(checked, machine, wire, network, hosts);
    clock.follow(network);
    await openedInTime(hosts.flatMap(({ captures }) => captures));
    // On a perfect wire, so that the start does not depend on its options.
    await clock.advanceTurns(clock.nowNs() + START_NS);
    for (const { nic } of hosts) nic.ipv6.addGateway();
    wire.setImpair(checked.wire);
    clock.start(time);
    const names = checked.stacks.map(({ name }) => name);
    const warnings = checked.stacks.map(({ settings }) => settings.warnings.map(lineOf));
    return new Link({ machine, clock, wire, hosts, names, warnings, release });
  } catch (e) {
    const none = { finish: () => undefined, reset: () => undefined };
    await Promise.all(hosts.map((host) => host.stop(none)));
    clock.close();
    timeoutEnd();
    release();
    throw e;
  }
}
