/**
 * Plugs a NIC into this host: opens the wire, plugs a model into it, configures the interface and
 * starts its captures. `stop` undoes all of it in reverse order.
 */

import { NativeTnDevice } from '../host/native_tn.ts';
import {
  openTap,
  type TapOptions,
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_TSO_ECN,
} from '../host/tap.ts';
import type { CapabilityChange } from '../ctl/bits.ts';
import type { FaultPlace } from '../ctl/fault.ts';
import type { FaultSpec } from '../fault/fault.ts';
import { EINVAL, errnoError, type Errno } from '../sys/errno.ts';
import { inPass } from '../sys/pass.ts';
import type { Wire } from '../sys/wire.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifhwioctl, ifSwitchCapabilities } from '../net/if.ts';
import { IFF_UP, type Ifnet, SIOCSIFFLAGS, SIOCSIFMTU } from '../net/if_var.ts';
import { parseInAddr } from '../netinet/in.ts';
import { DhcpClient } from './dhcp/dhcp_client.ts';
import { configureGateway, configureIpv4, NicIpv4 } from './nic_ipv4.ts';
import { configureIpv6, NicIpv6, withoutIpv6 } from './nic_ipv6.ts';
import type { Machine } from './machine.ts';
import type { NicBuild, NicMode } from './nic_model.ts';
import { nicModel } from './nic_models.ts';
import { NicFaults } from './nic_faults.ts';
import { withoutPrefix } from './option_values.ts';
import { PluggedNic } from './plugged_nic.ts';

/** Options of a NIC, checked by `checkOptions` (options.ts). */
export interface NicOptions {
  /** Linux's name of the interface, which may change. */
  readonly tap: string;
  /** Linux's addresses with prefix length; null: none. */
  readonly hostAddr: string | null;
  readonly hostAddr6: string | null;
  /** The emulated host's address with prefix length; null: none. */
  readonly addr: string | null;
  /** The gateway of the emulated host's default route; null: none. */
  readonly gateway: string | null;
  /** The same for IPv6. A link-local gateway is on the link of this NIC. */
  readonly addr6: string | null;
  readonly gateway6: string | null;
  /** Take the IPv6 addresses from router advertisements; the value is as that of `dhcp`. */
  readonly slaac?: { readonly gateway: string | null };
  /**
   * Take the address from the network; `addr` and `gateway` are null then. The value is the gateway
   * to use; null: none; `auto`: the one that the server names.
   */
  readonly dhcp?: { readonly gateway: string | null };
  readonly mac?: string;
  readonly mtu: number;
  /** A name of `nicModels`. */
  readonly nic: string;
  /** Capabilities to switch, in this order. */
  readonly caps: readonly CapabilityChange[];
  readonly mode: NicMode;
  readonly napi: 'off' | 'thread';
  readonly engine: NicBuild;
  readonly netns: string | null;
  /** Faults that are active from the first frame on; only with the ts build. */
  readonly faults?: readonly FaultSpec[];
}

const TAP_OFFLOADS = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;

/** A locally administered unicast address derived from `name`: 02, then bytes of an FNV-1a hash. */
function stableMac(name: string): string {
  const parts = ['02'];
  let hash = 0x811c9dc5;
  for (let i = 0; parts.length < 6; i++) {
    hash = Math.imul(hash ^ (i < name.length ? name.charCodeAt(i) : i), 0x01000193) >>> 0;
    if (i >= name.length) parts.push(((hash >>> 13) & 0xff).toString(16).padStart(2, '0'));
  }
  return parts.join(':');
}

function must(error: Errno, syscall: string, hint = ''): void {
  if (error !== 0) throw errnoError(error, syscall, hint);
}

/** Sets MTU, capabilities, address and default route of `ifp`, and brings it up. */
export function configureInterface(ifp: Ifnet, options: NicOptions): void {
  inPass(configureInPass, ifp, options);
}

function configureInPass(ifp: Ifnet, options: NicOptions): void {
  must(ifhwioctl(ifp, SIOCSIFMTU, options.mtu), 'SIOCSIFMTU');
  for (const { bits, on } of options.caps) must(ifSwitchCapabilities(ifp, bits, on), 'SIOCSIFCAP');
  configureIpv4(ifp, options);
  must(ifhwioctl(ifp, SIOCSIFFLAGS, ifp.if_flags | IFF_UP), 'SIOCSIFFLAGS');
  configureIpv6(ifp, options);
  configureGateway(ifp, options);
}

/** The DHCP client of a NIC, whose default route is by `via`. */
function dhcpClient(ifp: Ifnet, via: string | null): DhcpClient {
  if (via === null || via === 'auto') return new DhcpClient(ifp, via);
  const gateway = parseInAddr(via);
  if (gateway === null) throw errnoError(EINVAL, 'gateway', via);
  return new DhcpClient(ifp, gateway);
}

/** A wire to an interface of this host, and data of the interface for output. */
export interface HostWire extends Wire {
  /** Linux's name of the interface. */
  readonly name: string;
  /** False if the interface existed before. */
  readonly created: boolean;
  readonly napi: 'off' | 'thread';
  /** Options that could not be applied, one line each. */
  readonly warnings: readonly string[];
  /** Whether the emulated host can use IPv6 on this wire. Default true. */
  readonly ipv6?: boolean;
  /** Set by the owner; called once, with the cause, when the interface was deleted or moved away. */
  onGone?: ((why: string) => void) | null;
}

/** A NIC on a TAP interface. */
export class Nic {
  /** False if the interface existed before. */
  readonly created: boolean;
  readonly mac: string;
  /** The model. */
  readonly model: string;
  readonly mode: NicMode;
  readonly napi: 'off' | 'thread';
  readonly engine: NicBuild;
  /** The configured IPv4 address of the emulated host, and its state. */
  readonly ipv4: NicIpv4;
  /** The IPv6 address of the emulated host, and its state. */
  readonly ipv6: NicIpv6;
  /** Options that could not be applied, one line each. */
  readonly warnings: readonly string[];
  /** Resolves with the cause when the interface was deleted or moved away. */
  readonly gone: Promise<string>;
  readonly #wire: HostWire;
  readonly #faults: NicFaults;
  readonly #plugged: PluggedNic;
  /** The DHCP client, not started; null: the address is fixed. */
  readonly dhcp: DhcpClient | null;

  constructor(
    machine: Machine,
    wire: HostWire,
    options: NicOptions,
    onPlugged: ((nic: Nic) => void) | undefined,
    vnet: Vnet,
  ) {
    this.#wire = wire;
    this.created = wire.created;
    this.napi = wire.napi;
    this.warnings = wire.warnings;
    this.mac = options.mac ?? stableMac(options.tap);
    this.model = options.nic;
    this.mode = options.mode;
    this.engine = options.engine;
    this.gone = new Promise((resolve) => (wire.onGone = resolve));
    const model = nicModel(options.nic);
    if (model === null) throw errnoError(EINVAL, 'nic', `${options.nic}: no such model`);
    this.#faults = new NicFaults(machine, wire);
    const plug = this.engine === 'ts' ? this.#faults.wire() : wire;
    this.#plugged = new PluggedNic(machine, model, plug, this.mac, this.engine, vnet);
    const { device } = this.#plugged;
    const native = device instanceof NativeTnDevice ? device : null;
    this.#faults.follow(this.#plugged.ifp.if_capunit, native);
    try {
      for (const spec of options.faults ?? []) {
        this.#faults.prepare();
        this.#faults.stage.add(spec);
      }
      onPlugged?.(this);
      const used = wire.ipv6 === false ? withoutIpv6(options) : options;
      configureInterface(this.ifp, used);
      this.ipv4 = new NicIpv4(this.ifp, used);
      this.ipv6 = new NicIpv6(this.ifp, used);
      this.dhcp = options.dhcp === undefined ? null : dhcpClient(this.ifp, options.dhcp.gateway);
    } catch (e) {
      this.#down();
      throw e;
    }
  }

  /** Linux's name of the interface now. */
  get tapName(): string {
    return this.#wire.name;
  }

  get ifp(): Ifnet {
    return this.#plugged.ifp;
  }

  /** The place where faults can be inserted while the NIC runs. */
  get faultPlace(): FaultPlace {
    const { stage } = this.#faults;
    return { if: this.ifp.if_xname, stage, prepare: () => this.#faults.prepare() };
  }

  #down(): void {
    this.dhcp?.stop();
    this.#plugged.stop();
    this.#faults.close();
  }

  /** Number of frames that faults hold back. */
  get heldFrames(): number {
    return this.#faults.stage.held;
  }

  /** Detaches the driver, and removes the interface unless it existed before. */
  stop(): void {
    this.#down();
    this.#wire.close();
  }
}

/** The options of the TAP of a NIC. @param queues one for each stack that shares the interface */
export function tapOptions(machine: Machine, options: NicOptions, queues = 1): TapOptions {
  const vnetHdr = options.mode === 'vnet';
  return {
    arena: machine.arena,
    queues,
    name: options.tap,
    vnetHdr,
    napi: options.napi,
    offload: vnetHdr ? TAP_OFFLOADS : 0,
    mtu: options.mtu,
    hostAddr: options.hostAddr,
    hostAddr6: options.hostAddr6,
    guestAddr: options.addr === null ? null : withoutPrefix(options.addr),
    guestAddr6: options.addr6 === null ? null : withoutPrefix(options.addr6),
    guestIpv6: options.addr6 !== null || options.slaac !== undefined,
    ...(options.netns === null ? {} : { netns: options.netns }),
  };
}

/** Opens the TAP interface `options.tap`. Throws TapnicError with a hint. */
function openTapWire(machine: Machine, options: NicOptions): HostWire {
  return openTap(tapOptions(machine, options));
}

/**
 * Plugs a NIC into `wire` and takes ownership of it. By default opens a TAP interface of this host.
 * Throws TapnicError with a hint.
 * @param onPlugged called when the interface exists, before its addresses
 * @param vnet the stack that gets the interface
 */
export function openNic(
  machine: Machine,
  options: NicOptions,
  wire: HostWire = openTapWire(machine, options),
  onPlugged?: (nic: Nic) => void,
  vnet: Vnet = machine.vnet,
): Nic {
  try {
    return new Nic(machine, wire, options, onPlugged, vnet);
  } catch (e) {
    wire.close();
    throw e;
  }
}
