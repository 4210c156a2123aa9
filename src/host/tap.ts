/**
 * A TAP interface as a wire, and its Linux side: addresses, MTU, link. It is opened with one queue, or
 * with several, one for each stack (exchange.ts), without packet information. An existing persistent TAP is attached: its addresses and link are
 * not changed, and `close` does not remove it. Not implemented: TUN.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { loadAddon } from '../../native-bindings/index.ts';
import { ENXIO } from '../sys/errno.ts';
import type { WireListener } from '../sys/wire.ts';
import { findConflict, onNetwork, refuseConflict, unsetText } from './addr_conflict.ts';
import { atExit } from './at_exit.ts';
import { macText, parseCidr, parseMac } from './addr_text.ts';
import type { Call } from './cause.ts';
import { FdWire } from './fd_wire.ts';
import { LinkWatch, openRouteSockets, type RouteSockets } from './link_watch.ts';
import { check } from './linux_errno.ts';
import { withNetns } from './netns.ts';

// Offloads that the reader of a TAP accepts, TUNSETOFFLOAD: linux/if_tun.h.
export const TUN_F_CSUM = 0x01;
export const TUN_F_TSO4 = 0x02;
export const TUN_F_TSO6 = 0x04;
export const TUN_F_TSO_ECN = 0x08;

const IFF_UP = 1;
const IFNAMSIZ = 16;
/** With a NAPI thread the kernel would queue without bound: performance notes, "edges". */
const NAPI_SNDBUF = 4 << 20;

export interface TapOptions {
  /** The arena that `allocArena` returned last. */
  readonly arena: ArrayBuffer;
  /** Linux's name for it, 1 to 15 bytes. */
  readonly name: string;
  /** The name of an existing network namespace. Default: the current one. */
  readonly netns?: string;
  /** Frames carry the 12-byte virtio-net header. Default false. */
  readonly vnetHdr?: boolean;
  /** The number of queues. The wire is the first one; `openQueue` opens the others. Default 1. */
  readonly queues?: number;
  /** `thread`: IFF_NAPI with a NAPI thread if sysfs permits it, else a warning. Default `off`. */
  readonly napi?: 'off' | 'thread';
  /** TUN_F_* bits; only with `vnetHdr`. Default 0. */
  readonly offload?: number;
  /** Bytes Linux queues before `writev` returns -EAGAIN. Default: no limit, 4 MiB with `napi`. */
  readonly sndbuf?: number;
  /**
   * Linux's own MAC address on it. Default: the kernel's choice. Like `mtu`, `hostAddr` and
   * `hostAddr6`, only for a new interface.
   */
  readonly hostMac?: string;
  /** Default 1500. */
  readonly mtu?: number;
  /** Linux's addresses with prefix length; null for none. Default null. */
  readonly hostAddr?: string | null;
  readonly hostAddr6?: string | null;
  /** The IPv4 address of the host behind the wire, which Linux must not have. Default null. */
  readonly guestAddr?: string | null;
  /** Its IPv6 address. If another interface has it, `ipv6` is false. Default null. */
  readonly guestAddr6?: string | null;
  /** Whether it uses IPv6; then a warning says why `ipv6` is false. Default false. */
  readonly guestIpv6?: boolean;
  /** Whether the wire keeps the process alive. Default true. */
  readonly ref?: boolean;
}

/** The current state of the Linux side. */
interface TapLink {
  readonly ifindex: number;
  readonly up: boolean;
  readonly mtu: number;
  /** Colon form. */
  readonly mac: string;
  readonly txqueuelen: number;
  /** Whether the kernel has IPv6 and the interface does not disable it. */
  readonly ipv6: boolean;
}

interface Handles {
  readonly fd: number;
  readonly created: boolean;
  /** In the interface's namespace. */
  readonly route: RouteSockets;
}

/** Runs `fn` in the namespace `name`; undefined: the current one. */
function inNetns<T>(name: string | undefined, fn: () => T): T {
  return name === undefined ? fn() : withNetns(name, fn);
}

/** Checks the addresses before an interface is created. Throws TapnicError (EADDRINUSE). */
function checkAddresses({ name, hostAddr = null, guestAddr = null }: TapOptions): void {
  const addon = loadAddon();
  const nl = check(addon.netlinkOpen(0), 'netlink', 'route socket');
  const exists = addon.linkGet(nl, new TextEncoder().encode(name), new Float64Array(6)) === 0;
  addon.fdClose(nl);
  // An existing interface keeps its own addresses.
  refuseConflict(name, exists ? null : hostAddr, guestAddr);
}

const NAPI = 1;
const MULTI_QUEUE = 2;

/** Attaches the descriptor `fd` to the interface. Returns the addon's result. */
function attach(fd: number, options: TapOptions, napi: boolean): number {
  const name = new TextEncoder().encode(options.name);
  const flags = (napi ? NAPI : 0) | ((options.queues ?? 1) > 1 ? MULTI_QUEUE : 0);
  return loadAddon().tapAttach(fd, name, options.vnetHdr === true ? 12 : 0, flags);
}

function openHandles(options: TapOptions, napi: boolean): Handles {
  const addon = loadAddon();
  const opened: number[] = [];
  const own = (fd: number, syscall: string, call: Call): number => {
    opened.push(check(fd, syscall, call));
    return fd;
  };
  try {
    // Everything that can fail for lack of descriptors comes before the interface is touched.
    const fd = own(addon.tunOpen(), '/dev/net/tun', 'tun open');
    const route = openRouteSockets();
    const { nl, events } = route;
    opened.push(nl, events);
    const name = new TextEncoder().encode(options.name);
    const made = attach(fd, options, napi);
    const exists = made < 0 && addon.linkGet(nl, name, new Float64Array(6)) === 0;
    check(made, `TUNSETIFF ${options.name}`, 'tun attach', { ...options, exists });
    return { fd, created: made === 1, route };
  } catch (e) {
    for (const each of opened) addon.fdClose(each);
    throw e;
  }
}

export class TapWire extends FdWire {
  /** False for a persistent interface that existed before. */
  readonly created: boolean;
  readonly ifindex: number;
  /** Options that could not be satisfied, one line each. */
  readonly warnings: string[] = [];
  /** Whether the host behind the wire can use IPv6 and its IPv6 address. */
  ipv6 = true;
  /**
   * Called once when the interface was deleted or moved to another namespace; `why` says which.
   */
  onGone: ((why: string) => void) | null = null;
  /** Called when Linux sets the interface up or down. */
  onLink: ((up: boolean) => void) | null = null;
  #napi: 'off' | 'thread' = 'off';
  readonly #nl: number;
  readonly #watch: LinkWatch;
  /** An interface that still exists would keep its namespace, see NetnsScope. */
  readonly #stay = atExit(() => this.close());

  /** For openTap. Takes over the handles: `close` closes them. */
  constructor(options: TapOptions, handles: Handles) {
    super(options.arena, handles.fd, options.vnetHdr === true, options.ref ?? true);
    this.created = handles.created;
    this.#nl = handles.route.nl;
    const bytes = new Uint8Array(IFNAMSIZ);
    const exists = (): boolean => this.addon.tapName(this.fd, bytes) >= 0;
    try {
      this.#watch = new LinkWatch(handles.route, options.name, exists);
    } catch (e) {
      this.#stay();
      super.close();
      throw e;
    }
    this.ifindex = this.#watch.ifindex;
  }

  /** Linux's name for the interface. It changes when the interface is renamed. */
  get name(): string {
    return this.#watch.name;
  }

  /** `thread` if a NAPI thread receives the frames that we write. */
  get napi(): 'off' | 'thread' {
    return this.#napi;
  }

  /** Reads the state of the Linux side. Throws TapnicError (ENODEV: the interface was deleted). */
  link(): TapLink {
    check(this.#watch.read(), `link get ${this.name}`, 'link', { name: this.name });
    const { state: out, up } = this.#watch;
    return {
      ifindex: out[0]!,
      up,
      mtu: out[2]!,
      mac: macText(out[3]!),
      txqueuelen: out[4]!,
      ipv6: out[5] === 1,
    };
  }

  /**
   * Sets the Linux side up or down. This and the next setters throw TapnicError (EPERM, ENODEV).
   */
  setUp(up: boolean): void {
    this.#check(this.addon.linkSet(this.#nl, this.ifindex, up ? IFF_UP : 0, IFF_UP, 0), 'link set');
  }

  /** Bytes, without the Ethernet header. EINVAL below 68 or above 65521. */
  setMtu(mtu: number): void {
    this.#check(this.addon.linkSet(this.#nl, this.ifindex, 0, 0, mtu), 'mtu set');
  }

  /** Colon form. EADDRNOTAVAIL for a multicast address. */
  setMac(mac: string): void {
    this.#check(this.addon.linkSetMac(this.#nl, this.ifindex, parseMac(mac)), 'mac set');
  }

  /** Adds an address as `192.0.2.1/24`. EEXIST, EACCES (IPv6 disabled), EINVAL. */
  addAddr(cidr: string): void {
    const { bytes, prefixLen } = parseCidr(cidr);
    this.#check(
      this.addon.addrSet(this.#nl, this.ifindex, bytes, prefixLen, 1),
      `add ${cidr}`,
      'address',
    );
  }

  /** Removes an address. EADDRNOTAVAIL if the interface does not have it. */
  removeAddr(cidr: string): void {
    const { bytes, prefixLen } = parseCidr(cidr);
    this.#check(
      this.addon.addrSet(this.#nl, this.ifindex, bytes, prefixLen, 0),
      `remove ${cidr}`,
      'address',
    );
  }

  /** Adds a route through the interface; without `gateway` the network is on the link. */
  addRoute(cidr: string, gateway?: string): void {
    const { bytes, prefixLen } = parseCidr(cidr);
    const via = gateway === undefined ? new Uint8Array(0) : parseCidr(`${gateway}/0`).bytes;
    this.#check(
      this.addon.routeAdd(this.#nl, this.ifindex, bytes, prefixLen, via),
      `route add ${cidr}`,
      'address',
    );
  }

  /**
   * Sets the TUN_F_* bits: frames may be received unsegmented or without checksum. EINVAL: TSO
   * without CSUM.
   */
  setOffload(bits: number): void {
    this.#check(this.addon.tapSet(this.fd, 0, bits), 'TUNSETOFFLOAD');
  }

  /** Sets the bytes that Linux queues before `writev` returns -EAGAIN. EINVAL for 0 or less. */
  setSndbuf(bytes: number): void {
    this.#check(this.addon.tapSet(this.fd, 1, bytes), 'TUNSETSNDBUF');
  }

  /**
   * Opens another queue of the interface, which `options` describes, and returns its descriptor, which
   * another thread may adopt (QueueWire). Throws TapnicError (E2BIG, EPERM).
   */
  openQueue(options: TapOptions): number {
    const napi = this.#napi === 'thread';
    const open = (): number => {
      const fd = check(this.addon.tunOpen(), '/dev/net/tun', 'tun open');
      const made = attach(fd, { ...options, name: this.name }, napi);
      if (made < 0) this.addon.fdClose(fd);
      check(made, `TUNSETIFF ${this.name}`, 'tun attach', { ...options, exists: true });
      return fd;
    };
    const fd = inNetns(options.netns, open);
    const sndbuf = sndbufOf(options, napi);
    if (sndbuf > 0) check(this.addon.tapSet(fd, 1, sndbuf), 'TUNSETSNDBUF');
    check(this.addon.fdRelease(fd), 'fdRelease');
    return fd;
  }

  /** Sets whether Linux sees a carrier: the cable of the emulated NIC. */
  setCarrier(on: boolean): void {
    this.#check(this.addon.tapSet(this.fd, 2, on ? 1 : 0), 'TUNSETCARRIER');
  }

  /** Also calls `wireState` of the listener when Linux sets the interface up or down. */
  override setListener(listener: WireListener | null): void {
    super.setListener(listener);
    if (listener === null || this.closed) return;
    this.#watch.start({
      linkUp: (up) => {
        this.listener?.wireState(up, 0);
        this.onLink?.(up);
      },
      linkGone: (why) => {
        this.listener?.wireState(false, ENXIO);
        this.onGone?.(why);
      },
    });
  }

  override close(): void {
    if (this.closed) return;
    this.#stay();
    this.#watch.close();
    super.close();
  }

  /**
   * For openTap: throws TapnicError (EADDRINUSE) if an older interface has the addresses. Of two
   * that are configured at once, the newer one gives up; its IPv6 address is only removed.
   */
  checkOlder(options: TapOptions): void {
    const { netns, name, hostAddr = null, guestAddr = null, hostAddr6 = null } = options;
    const older = (dev: string): boolean => {
      const link = new Float64Array(6);
      const error = this.addon.linkGet(this.#nl, new TextEncoder().encode(dev), link);
      return error === 0 && link[0]! < this.ifindex;
    };
    inNetns(netns, () => refuseConflict(name, hostAddr, guestAddr, older));
    if (hostAddr6 !== null && this.ipv6 && this.#conflict6(options, hostAddr6, older))
      this.removeAddr(hostAddr6);
  }

  /** For openTap: configures a new interface. */
  configure(options: TapOptions): void {
    if (options.hostMac !== undefined) this.setMac(options.hostMac);
    if (options.mtu !== undefined && options.mtu !== this.link().mtu) this.setMtu(options.mtu);
    this.setUp(true);
    if (typeof options.hostAddr === 'string') this.addAddr(options.hostAddr);
  }

  /** For openTap: sets Linux's IPv6 address on a new interface, and sets `ipv6`. */
  configure6(options: TapOptions): void {
    const hostAddr6 = this.created ? (options.hostAddr6 ?? null) : null;
    if (hostAddr6 === null && options.guestIpv6 !== true) return;
    if (!this.link().ipv6) {
      this.ipv6 = false;
      const unset = hostAddr6 === null ? '' : `: ${hostAddr6} not set`;
      this.warnings.push(
        `IPv6 is disabled on ${this.name}${unset}; sysctl net.ipv6.conf.all.disable_ipv6=0 enables it`,
      );
    } else if (!this.#conflict6(options, hostAddr6) && hostAddr6 !== null) {
      this.addAddr(hostAddr6);
    }
  }

  /**
   * Whether another interface has one of the IPv6 addresses or their network; then adds a warning, and
   * clears `ipv6` if the address of the host behind the wire cannot be reached.
   */
  #conflict6(
    { netns, name, guestAddr6 = null }: TapOptions,
    hostAddr6: string | null,
    counts?: (dev: string) => boolean,
  ): boolean {
    const used = inNetns(netns, () => findConflict(name, hostAddr6, guestAddr6, counts));
    if (used === null) return false;
    const near = hostAddr6 !== null && guestAddr6 !== null && onNetwork(guestAddr6, hostAddr6);
    if (used.addr === guestAddr6 || near) this.ipv6 = false;
    this.warnings.push(unsetText(used));
    return true;
  }

  /**
   * For openTap: starts a NAPI thread for the interface. Returns the reason if that failed, or an
   * empty string.
   */
  startNapiThread(): string {
    const dir = `/sys/class/net/${this.name}`;
    try {
      // sysfs shows the namespace of its mount. Do not change another interface of the same name
      // there.
      const { ifindex, mac } = this.link();
      const text = (file: string) => readFileSync(`${dir}/${file}`, 'utf8').trim();
      if (text('ifindex') !== String(ifindex) || text('address') !== mac)
        return `sysfs belongs to another network namespace`;
      writeFileSync(`${dir}/threaded`, '1');
    } catch (e) {
      return `${dir}/threaded: ${(e as NodeJS.ErrnoException).code ?? 'not writable'}`;
    }
    this.#napi = 'thread';
    return '';
  }

  /** Called by poll.ts. An error on the descriptor means that the interface may be gone. */
  override pollEvent(status: number, events: number): void {
    super.pollEvent(status, events);
    if (status < 0 && !this.closed) this.#watch.reread();
  }

  #check(n: number, what: string, call: Call = 'link'): void {
    check(n, `${what} ${this.name}`, call, { name: this.name });
  }
}

/** TUNSETSNDBUF; 0: no limit. */
function sndbufOf({ sndbuf }: TapOptions, napi: boolean): number {
  return sndbuf ?? (napi ? NAPI_SNDBUF : 0);
}

/**
 * Opens or attaches the TAP interface `options.name`. A new interface is configured and set up.
 * Throws TapnicError with a hint: EACCES, EPERM, ENOENT (no device node or no privilege),
 * EBUSY (the name is in use), EADDRINUSE (another interface has an address or the network of
 * `hostAddr`), EINVAL (bad name or address).
 */
export function openTap(options: TapOptions): TapWire {
  const { napi = 'off', netns } = options;
  for (const cidr of [options.hostAddr, options.hostAddr6])
    if (typeof cidr === 'string') parseCidr(cidr); // checked before the interface is created
  inNetns(netns, () => checkAddresses(options));
  const open = (withNapi: boolean): Handles => inNetns(netns, () => openHandles(options, withNapi));

  let tap = new TapWire(options, open(napi === 'thread'));
  try {
    if (napi === 'thread') {
      const why = tap.startNapiThread();
      if (why !== '') {
        tap.close();
        tap = new TapWire(options, open(false));
        tap.warnings.push(`no NAPI thread: ${why}`);
      }
    }
    const sndbuf = sndbufOf(options, tap.napi === 'thread');
    if (sndbuf > 0) tap.setSndbuf(sndbuf);
    if (options.vnetHdr === true) tap.setOffload(options.offload ?? 0);
    if (tap.created) tap.configure(options);
    tap.configure6(options);
    if (tap.created) tap.checkOlder(options);
    return tap;
  } catch (e) {
    tap.close();
    throw e;
  }
}
