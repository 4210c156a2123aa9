/**
 * A machine with its NICs on this host, for the command line and the public API. Only one exists
 * per isolate at a time, because a machine is module state. src/host/stop.ts defines the order of
 * its stop.
 */

import type { FaultPlace } from '../ctl/fault.ts';
import { sysctlErrorText } from '../ctl/sysctl.ts';
import { refuseConflict } from '../host/addr_conflict.ts';
import { NetnsScope } from '../host/netns_scope.ts';
import { stableHostuuid } from '../host/hostuuid.ts';
import { readsPending } from '../host/pager.ts';
import { openedInTime } from '../host/sink_open.ts';
import { stopInstance } from '../host/stop.ts';
import { Tuntap2Wire, type Tuntap2Device } from '../host/tuntap2_wire.ts';
import { timeoutEnd } from '../kern/kern_timeout.ts';
import type { Vnet } from '../kern/vnet.ts';
import { inet_domain_detach } from '../netinet/in_proto.ts';
import { inet6_domain_detach } from '../netinet6/in6_proto.ts';
import { ifnetList, ifunit } from '../net/if.ts';
import type { Ifnet } from '../net/if_var.ts';
import { ifCloneDestroyAll } from '../net/if_clone.ts';
import { type FlowRule, SharedAddress } from '../net/flow_owner.ts';
import { netDetach } from '../net/net_attach.ts';
import { tcp_shutdownVnet, tcpConnections } from '../netinet/tcp_pcblist.ts';
import { inPass } from '../sys/pass.ts';
import { errnoName, TapnicError } from '../sys/errno.ts';
import { bootHostMachine, type Machine } from './machine.ts';
import { CaptureFile, type FileSpec } from './capture_file.ts';
import type { PlaceNames } from './capture_recorder.ts';
import { type CaptureInterface, LiveCaptures } from './live_captures.ts';
import type { DhcpInfo } from './dhcp/dhcp_client.ts';
import { DhcpWait } from './dhcp/dhcp_wait.ts';
import { AddrWait } from './addr_wait.ts';
import { type HostWire, type Nic, type NicOptions, openNic } from './nic.ts';
import { withoutPrefix } from './option_values.ts';

/** The checked settings of a stack. */
export interface StackSettings {
  readonly nic: NicOptions;
  /** Additional NICs, without addresses, for vlan(4) and lagg(4). */
  readonly ports: readonly NicOptions[];
  /** Bytes of RAM. */
  readonly memory: number;
  /** Physical address of the first byte of RAM. */
  readonly physBase: number;
  /** Turns the IOMMU on; turns the checker of the drivers' bus_dma calls on. */
  readonly iommu: boolean;
  readonly dmaCheck: boolean;
  /** Null: chosen by the operating system. */
  readonly seed: number | null;
  /** Names and values, set in this order before the NIC is attached. */
  readonly sysctl: readonly (readonly [string, string])[];
  /** Captures from the start. */
  readonly captures: readonly FileSpec[];
}

/** A sysctl of the settings could not be set. */
export class SysctlSettingError extends TapnicError {
  /** The message without the code. */
  readonly detail: string;
  /** Its place in the settings, for a front end that names the source. */
  readonly index: number;

  constructor(code: string, detail: string, index: number) {
    super(code, 'createStack', `sysctl: ${detail}`);
    this.detail = detail;
    this.index = index;
  }
}

/** The place of a stack among those that share a TAP, one per thread. */
export interface StackPlace {
  readonly rule: FlowRule;
  /** The number of this stack; 0 configures the interface and answers for the addresses. */
  readonly worker: number;
  /** Opens the queue of this stack and joins the exchange. Throws TapnicError. */
  wire(machine: Machine, options: NicOptions): HostWire;
}

/** Opens the queue of a stack that shares its addresses; null if it is the only one. */
function queueOf(machine: Machine, options: NicOptions, place: StackPlace | null): HostWire | null {
  if (place === null) return null;
  machine.vnet.share = new SharedAddress(place.rule, place.worker);
  return place.wire(machine, options);
}

/** The programs on the stack, as `stop` uses them. */
interface StackUsers {
  /** Stops accepting and sends FIN on every connection. */
  finish(): void;
  /** Releases the remaining connections. */
  reset(): void;
  /** Number of other stacks on the same TAP that have not stopped yet. */
  others?(): number;
}

/** A running stack, for output. */
export interface StackInfo {
  readonly tap: string;
  /** False if the interface existed before. */
  readonly created: boolean;
  /** The emulated host's interface. */
  readonly if: string;
  /** Empty while a DHCP client has no address; null: a duplicate. */
  readonly addr: string | null;
  /** Null: no IPv6, not assigned yet, or a duplicate. A link-local address has its zone. */
  readonly addr6: string | null;
  readonly mac: string;
  readonly mode: 'wire' | 'vnet';
  readonly napi: 'off' | 'thread';
  readonly engine: 'ts' | 'native';
  /** The lease of the first NIC; null: its address is fixed. */
  readonly dhcp: DhcpInfo | null;
  readonly seed: number;
  readonly netns: string | null;
  /** The additional NICs. */
  readonly ports: readonly PortInfo[];
}

/** An additional NIC. */
interface PortInfo {
  /** Linux's name of the interface. */
  readonly tap: string;
  /** The emulated host's interface. */
  readonly if: string;
  readonly mac: string;
  /** The model. */
  readonly nic: string;
}

/** Limits of the wait for the probes of RFC 5227 (at most 7 s), and for IPv6's detection, seconds. */
const PROBES_S = 10;
const DAD_S = 5;
/** Milliseconds for a local server to read DHCPRELEASE while the interface exists. */
const RELEASE_MS = 50;
/** Milliseconds that other stacks on the same TAP have to stop after this one. */
const OTHERS_MS = 200;

let current: HostStack | null = null;
/** Whether a stack is being opened. */
let opening = false;

/** Attaches captures to an interface that exists now. */
function attachAll(
  captures: readonly CaptureFile[],
  ifp: Ifnet,
  names: PlaceNames,
  model = '',
): void {
  for (const capture of captures) capture.attach(ifp, names, model);
}

function openPort(machine: Machine, port: NicOptions, captures: readonly CaptureFile[]): Nic {
  return openNic(machine, port, undefined, ({ ifp, model }) => {
    attachAll(captures, ifp, [port.tap, ifp.if_xname], model);
  });
}

export class HostStack {
  readonly machine: Machine;
  readonly nic: Nic;
  readonly ports: readonly Nic[];
  /** The captures to files. `stop` closes them and waits for what they still write. */
  readonly captures: CaptureFile[];
  /** Captures that begin later. */
  readonly live: LiveCaptures;
  readonly #netns: NetnsScope | null;

  private constructor(
    machine: Machine,
    [nic, ...ports]: readonly [Nic, ...Nic[]],
    captures: CaptureFile[],
    netns: NetnsScope | null,
  ) {
    this.machine = machine;
    this.nic = nic;
    this.ports = ports;
    this.captures = captures;
    this.live = new LiveCaptures(() => this.#interfaces());
    this.#netns = netns;
  }

  /**
   * Boots a machine, plugs its NICs in and opens its capture files; undoes everything on an error.
   * Rejects with TapnicError. EBUSY: another stack is open in this isolate, or its disk reads are
   * still pending.
   * @param device the opened interface of driver `tuntap2`, which this call takes over; null: open
   *   a TAP
   * @param place its place among the stacks on the same TAP; null: it is the only one
   */
  static async open(
    settings: StackSettings,
    device: Tuntap2Device | null = null,
    place: StackPlace | null = null,
  ): Promise<HostStack> {
    if (current !== null || opening)
      throw new TapnicError(
        'EBUSY',
        'createStack',
        'a stack is open in this thread: close it first, or use a worker for another one',
      );
    // Pending reads write to the memory of the previous machine.
    if (readsPending() > 0)
      throw new TapnicError(
        'EBUSY',
        'createStack',
        'disk reads of the last stack are still pending: try again later',
      );
    const { nic: options, memory, physBase, iommu, dmaCheck, seed, sysctl } = settings;
    let netns: NetnsScope | null = null;
    let wire: Tuntap2Wire | null = null;
    const nics: Nic[] = [];
    const captures: CaptureFile[] = [];
    opening = true;
    try {
      const machine = bootHostMachine({
        memory,
        base: physBase,
        iommu,
        dmaCheck,
        hostuuid: stableHostuuid(options.tap),
        ...(seed === null ? {} : { seed }),
      });
      for (const [i, [name, value]] of sysctl.entries()) {
        const error = machine.sysctlWrite(name, value);
        if (error !== 0)
          throw new SysctlSettingError(errnoName(error), sysctlErrorText(name, value, error), i);
      }
      if (options.netns !== null) netns = new NetnsScope(options.netns);
      if (device !== null) {
        // The other driver does this itself, in the namespace of the interface.
        refuseConflict(device.name, options.hostAddr, withoutPrefix(options.addr ?? '') || null);
        wire = new Tuntap2Wire(machine.arena, device, options);
        wire.follow();
      }
      captures.push(...settings.captures.map((spec) => new CaptureFile(spec)));
      attachAll(captures, ifunit(machine.vnet, 'lo0')!, ['lo0']);
      const plug = wire ?? queueOf(machine, options, place) ?? undefined;
      const nic = openNic(machine, options, plug, ({ ifp, model }) => {
        attachAll(captures, ifp, [null, options.tap, ifp.if_xname], model);
      });
      nics.push(nic);
      for (const port of settings.ports) nics.push(openPort(machine, port, captures));
      await openedInTime(captures);
      nic.dhcp?.start();
      return (current = new HostStack(machine, [nic, ...nics.slice(1)], captures, netns));
    } catch (e) {
      for (const capture of captures) capture.close();
      for (const nic of nics.toReversed()) nic.stop();
      timeoutEnd();
      netns?.close();
      if (wire === null) device?.release();
      throw e;
    } finally {
      opening = false;
    }
  }

  /**
   * Resolves when the first NIC has its addresses, and the detection of duplicates has ended.
   * Resolves with false if `stopping` is aborted before. Rejects with TapnicError ETIMEDOUT if the
   * network gives no address within 30 seconds. The caller stops the stack in each case.
   */
  async configured(stopping: AbortSignal | null = null): Promise<boolean> {
    const { dhcp, tapName, ifp, ipv4, ipv6 } = this.nic;
    const waits = [
      new AddrWait(ipv4, tapName, ifp, PROBES_S).wait(stopping),
      new AddrWait(ipv6, tapName, ifp, DAD_S).wait(stopping),
    ];
    if (dhcp !== null) waits.push(new DhcpWait(dhcp, tapName, ifp.if_xname).wait(stopping));
    const all = await Promise.all(waits);
    ipv6.addGateway();
    return all.every(Boolean);
  }

  get info(): StackInfo {
    const { nic } = this;
    return {
      tap: nic.tapName,
      created: nic.created,
      if: nic.ifp.if_xname,
      addr: nic.dhcp === null ? nic.ipv4.addr : withoutPrefix(nic.dhcp.info.addr ?? ''),
      addr6: nic.ipv6.addr,
      mac: nic.mac,
      mode: nic.mode,
      napi: nic.napi,
      engine: nic.engine,
      dhcp: nic.dhcp?.info ?? null,
      seed: this.machine.seed,
      netns: this.#netns?.name ?? null,
      ports: this.ports.map((port) => ({
        tap: port.tapName,
        if: port.ifp.if_xname,
        mac: port.mac,
        nic: port.model,
      })),
    };
  }

  /** Options of all NICs that could not be applied, one line each. */
  get warnings(): string[] {
    return [this.nic, ...this.ports].flatMap(({ warnings }) => warnings);
  }

  /** After `configured`: why the first NIC cannot use an address, one line each. */
  get addrProblems(): string[] {
    const { ipv4, ipv6 } = this.nic;
    return [ipv4.problem, ipv6.problem].filter((problem) => problem !== null);
  }

  /** All interfaces, those of NICs first. */
  #interfaces(): CaptureInterface[] {
    const ofNics = [this.nic, ...this.ports].map((nic, i) => ({
      ifp: nic.ifp,
      names: [...(i === 0 ? [null] : []), nic.ifp.if_xname, nic.tapName],
      model: nic.model,
    }));
    const others = ifnetList(this.vnet)
      .filter((ifp) => ofNics.every((one) => one.ifp !== ifp))
      .map((ifp) => ({ ifp, names: [ifp.if_xname], model: '' }));
    return [...ofNics, ...others];
  }

  /** Starts a capture to a file. Throws TapnicError, see LiveCaptures.find. */
  openCaptureFile(spec: FileSpec): CaptureFile {
    const found = this.live.find(spec.places);
    const capture = new CaptureFile(spec);
    for (const { at, place } of found) capture.recorder.attachPlace(place, at.ifp, at.model);
    this.captures.push(capture);
    return capture;
  }

  /** The first problem that made a capture incomplete; null: all are complete. */
  captureProblem(): string | null {
    for (const capture of this.captures) {
      const problem = capture.problem();
      if (problem !== null) return problem;
    }
    return null;
  }

  /** The places where faults can be inserted, the first NIC first. */
  get faultPlaces(): FaultPlace[] {
    return [this.nic, ...this.ports].map((nic) => nic.faultPlace);
  }

  get vnet(): Vnet {
    return this.machine.vnet;
  }

  /** Stops everything within two seconds. Resolves with the leaks: pool names and counts. */
  async stop(users: StackUsers): Promise<Record<string, number>> {
    try {
      return await stopInstance({
        finish: () => users.finish(),
        connections: () => tcpConnections(this.vnet) + (users.others?.() ?? 0),
        reset: () => {
          users.reset();
          tcp_shutdownVnet(this.vnet, 'rst');
          tcp_shutdownVnet(this.vnet, 'discard');
          if (this.nic.dhcp?.stop() === true) return RELEASE_MS;
          return (users.others?.() ?? 0) > 0 ? OTHERS_MS : 0;
        },
        detach: () => {
          ifCloneDestroyAll(this.vnet);
          for (const capture of this.captures) capture.close();
          this.live.closeAll();
          for (const port of this.ports.toReversed()) port.stop();
          this.nic.stop();
          // Free fragments in reassembly and packets that wait for address resolution.
          inPass(() => {
            netDetach(this.vnet);
            inet6_domain_detach(this.vnet);
            inet_domain_detach(this.vnet);
          });
          this.#netns?.close();
        },
        flushed: () => this.captures.every(({ closed }) => closed),
        abandon: () => this.captures.forEach((capture) => capture.abandon()),
        leaked: () => this.machine.leaked(),
      });
    } finally {
      timeoutEnd();
      if (current === this) current = null;
    }
  }
}
