/**
 * A machine with its NICs on this host, for the command line and the public API. Only one exists
 * per isolate at a time, because a machine is module state. src/host/stop.ts defines the order of
 * its stop.
 */

import { sysctlErrorText } from '../ctl/sysctl.ts';
import { refuseConflict } from '../host/addr_conflict.ts';
import { NetnsScope } from '../host/netns_scope.ts';
import { stableHostuuid } from '../host/hostuuid.ts';
import { openedInTime } from '../host/sink_open.ts';
import { stopInstance } from '../host/stop.ts';
import { Tuntap2Wire, type Tuntap2Device } from '../host/tuntap2_wire.ts';
import { timeoutEnd } from '../kern/kern_timeout.ts';
import { ifunit } from '../net/if.ts';
import { type FlowRule, SharedAddress } from '../net/flow_owner.ts';
import { tcpConnections } from '../netinet/tcp_pcblist.ts';
import { errnoName, TapnicError } from '../sys/errno.ts';
import { bootHostMachine, type Machine } from './machine.ts';
import { CaptureFile, type FileSpec } from './capture_file.ts';
import { DhcpWait } from './dhcp/dhcp_wait.ts';
import { AddrWait } from './addr_wait.ts';
import { type HostWire, type Nic, type NicOptions, openNic } from './nic.ts';
import { attachAll, NicStack, type StackUsers } from './nic_stack.ts';
import { withoutPrefix } from './option_values.ts';
import { claimThread } from './thread_claim.ts';

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

/** Limits of the wait for the probes of RFC 5227 (at most 7 s), and for IPv6's detection, seconds. */
const PROBES_S = 10;
const DAD_S = 5;
/** Milliseconds for a local server to read DHCPRELEASE while the interface exists. */
const RELEASE_MS = 50;
/** Milliseconds that other stacks on the same TAP have to stop after this one. */
const OTHERS_MS = 200;

function openPort(machine: Machine, port: NicOptions, captures: readonly CaptureFile[]): Nic {
  return openNic(machine, port, undefined, ({ ifp, model }) => {
    attachAll(captures, ifp, [port.tap, ifp.if_xname], model);
  });
}

export class HostStack extends NicStack {
  readonly #netns: NetnsScope | null;
  readonly #release: () => void;

  private constructor(
    machine: Machine,
    nics: readonly [Nic, ...Nic[]],
    captures: CaptureFile[],
    netns: NetnsScope | null,
    release: () => void,
  ) {
    super(machine, machine.vnet, nics, captures);
    this.#netns = netns;
    this.#release = release;
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
    const release = claimThread('createStack');
    const { nic: options, memory, physBase, iommu, dmaCheck, seed, sysctl } = settings;
    let netns: NetnsScope | null = null;
    let wire: Tuntap2Wire | null = null;
    const nics: Nic[] = [];
    const captures: CaptureFile[] = [];
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
      return new HostStack(machine, [nic, ...nics.slice(1)], captures, netns, release);
    } catch (e) {
      release();
      for (const capture of captures) capture.close();
      for (const nic of nics.toReversed()) nic.stop();
      timeoutEnd();
      netns?.close();
      if (wire === null) device?.release();
      throw e;
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

  protected override get netnsName(): string | null {
    return this.#netns?.name ?? null;
  }

  /** Stops everything within two seconds. */
  override async stop(users: StackUsers): Promise<Record<string, number>> {
    try {
      return await stopInstance({
        finish: () => users.finish(),
        connections: () => tcpConnections(this.vnet) + (users.others?.() ?? 0),
        reset: () => {
          this.resetAll(users);
          if (this.nic.dhcp?.stop() === true) return RELEASE_MS;
          return (users.others?.() ?? 0) > 0 ? OTHERS_MS : 0;
        },
        detach: () => {
          this.detach();
          this.#netns?.close();
        },
        flushed: () => this.captures.every(({ closed }) => closed),
        abandon: () => this.captures.forEach((capture) => capture.abandon()),
        leaked: () => this.machine.leaked(),
      });
    } finally {
      timeoutEnd();
      this.#release();
    }
  }
}
