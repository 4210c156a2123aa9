/**
 * A TUN or TAP interface with one or more queues, and its link configuration: the lower layer of
 * `Tap` and `Tun`. The NIC of a machine uses its own wire (tap.ts), which works with arena offsets.
 */

import { loadAddon, type NativeAddon } from '../../native-bindings/index.ts';
import { TapnicError } from '../sys/errno.ts';
import { addrText, macText, parseCidr, parseMac } from './addr_text.ts';
import { type Call, explain } from './cause.ts';
import { ifNameText } from './link_watch.ts';
import { check } from './linux_errno.ts';
import { withNetns } from './netns.ts';
import { TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 } from './tap.ts';

const IFF_UP = 1;
const IFNAMSIZ = 16;
const QUEUES_MAX = 32;
/** Most addresses that setting an IPv4 address removes. */
const ADDRS_MAX = 64;
const LINUX_ENODEV = -19;
const LINUX_EEXIST = -17;
const LINUX_EADDRNOTAVAIL = -99;

/** Work that the reader of frames takes over from Linux; each needs `vnetHdr`. */
export type TunOffload = 'csum' | 'tso4' | 'tso6';

export interface TunOptions {
  /** Linux's name for it, 1 to 15 bytes. Default: the kernel picks one, such as `tap0`. */
  readonly name?: string;
  /** Frames start with the 12-byte virtio-net header. Default false. */
  readonly vnetHdr?: boolean;
  /** With `vnetHdr`: work that Linux may leave to the reader of its frames. Default none. */
  readonly offloads?: readonly TunOffload[];
  /** Queues, 1 to 32. More than one makes a multi-queue interface. Default 1. */
  readonly queues?: number;
  /**
   * Whether the interface remains after release. Default: unchanged; a new interface does not
   * remain.
   */
  readonly persist?: boolean;
  /** The name of an existing network namespace. Default: the current one. */
  readonly netns?: string;
  /** Bytes that Linux queues before a write has to wait. Default: no limit. */
  readonly sndbuf?: number;
}

const OFFLOAD_BITS: Record<TunOffload, number> = {
  csum: TUN_F_CSUM,
  tso4: TUN_F_TSO4,
  tso6: TUN_F_TSO6,
};

function invalid(what: string, hint: string): TapnicError {
  return new TapnicError('EINVAL', what, hint);
}

/** Checked options. The check runs before the interface is created. */
interface Checked {
  readonly name: Uint8Array;
  readonly queues: number;
  readonly offloads: number;
}

function checked(options: TunOptions): Checked {
  const { name, queues = 1, offloads = [], vnetHdr = false, sndbuf } = options;
  if (name !== undefined && (typeof name !== 'string' || name === ''))
    throw invalid('name', 'an interface name has 1 to 15 bytes');
  if (!Number.isInteger(queues) || queues < 1 || queues > QUEUES_MAX)
    throw invalid('queues', `a whole number from 1 to ${QUEUES_MAX}`);
  if (sndbuf !== undefined && (!Number.isInteger(sndbuf) || sndbuf < 1 || sndbuf > 0x7fffffff))
    throw invalid('sndbuf', 'a whole number of bytes, at least 1');
  let bits = 0;
  for (const offload of offloads) {
    if (!Object.hasOwn(OFFLOAD_BITS, offload)) throw invalid('offloads', 'csum, tso4 and tso6');
    bits |= OFFLOAD_BITS[offload];
  }
  if (bits !== 0 && !vnetHdr) throw invalid('offloads', 'only with vnetHdr');
  return { name: new TextEncoder().encode(name ?? ''), queues, offloads: bits };
}

export class TunLink {
  readonly kind: 'TAP' | 'TUN';
  readonly ifindex: number;
  /** False for a persistent interface that existed before. */
  readonly created: boolean;
  /** One descriptor per queue. */
  readonly fds: readonly number[];
  readonly #addon: NativeAddon = loadAddon();
  /** A route socket in the interface's namespace. */
  readonly #route: number;
  #name: string;
  readonly #nameBytes = new Uint8Array(IFNAMSIZ);
  readonly #state = new Float64Array(6);
  #closed = false;

  /**
   * Opens or attaches the interface; a new one is down. Throws TapnicError with a hint: EACCES,
   * EPERM, ENOENT (no device node or no privilege), EBUSY (the name is in use), EINVAL.
   */
  constructor(kind: 'TAP' | 'TUN', options: TunOptions) {
    const wanted = checked(options);
    this.kind = kind;
    const { netns } = options;
    const opened: number[] = [];
    try {
      const open = (): [number, boolean] => this.#open(options, wanted, opened);
      const [nl, created] = netns === undefined ? open() : withNetns(netns, open);
      this.#route = nl;
      this.created = created;
      this.fds = opened.filter((fd) => fd !== nl);
      const bytes = this.#nameBytes;
      check(this.#addon.tapName(this.fds[0]!, bytes), 'TUNGETIFF');
      this.#name = ifNameText(bytes);
      const name = bytes.subarray(0, bytes.indexOf(0));
      check(this.#addon.linkGet(nl, name, this.#state), `link get ${this.#name}`);
      this.ifindex = this.#state[0]!;
      this.#setUp(options, wanted.offloads);
    } catch (e) {
      for (const fd of opened) this.#addon.fdClose(fd);
      throw e;
    }
  }

  /** Opens all descriptors in the thread's namespace and appends each to `opened`. */
  #open(options: TunOptions, wanted: Checked, opened: number[]): [number, boolean] {
    const addon = this.#addon;
    const many = wanted.queues > 1;
    const flags = (this.kind === 'TUN' ? 1 : 0) | (many ? 2 : 0);
    let { name } = wanted;
    const own = (fd: number, syscall: string, call: Call): number => {
      opened.push(check(fd, syscall, call));
      return fd;
    };
    // Open all descriptors first: a queue set that does not fit leaves no interface behind.
    const nl = own(addon.netlinkOpen(0), 'netlink', 'route socket');
    const fds = Array.from({ length: wanted.queues }, () =>
      own(addon.tunOpen(), '/dev/net/tun', 'tun open'),
    );
    // The multi-queue interface of another program accepts more queues, so look for it before
    // attaching.
    const there = name.length > 0 && addon.linkGet(nl, name, this.#state) !== LINUX_ENODEV ? 1 : 0;
    let made = 0;
    for (let i = 0; i < wanted.queues; i++) {
      const fd = fds[i]!;
      const result = addon.tunAttach(fd, name, options.vnetHdr === true ? 12 : 0, flags);
      const subject = { ...options, kind: this.kind, exists: there === 1 };
      const syscall = `TUNSETIFF ${options.name ?? ''}`.trimEnd();
      check(result, syscall, 'tun attach', subject);
      if (i > 0) continue;
      made = result;
      if (made === 1 && there === 1)
        throw new TapnicError('EBUSY', syscall, explain('tun attach', 'EBUSY', subject));
      if (many && name.length === 0) {
        const picked = new Uint8Array(IFNAMSIZ);
        check(addon.tapName(fd, picked), 'TUNGETIFF');
        name = picked.subarray(0, picked.indexOf(0));
      }
    }
    return [nl, made === 1];
  }

  #setUp(options: TunOptions, offloads: number): void {
    const addon = this.#addon;
    for (const fd of this.fds) {
      if (options.vnetHdr === true) check(addon.tapSet(fd, 0, offloads), 'TUNSETOFFLOAD');
      if (options.sndbuf !== undefined) check(addon.tapSet(fd, 1, options.sndbuf), 'TUNSETSNDBUF');
    }
    if (options.persist !== undefined)
      check(addon.tapSet(this.fds[0]!, 3, options.persist ? 1 : 0), 'TUNSETPERSIST');
  }

  /** The route socket. Throws EBADF after `close`, because the descriptor number may be reused. */
  get #nl(): number {
    if (this.#closed) throw new TapnicError('EBADF', this.name, 'the interface was released');
    return this.#route;
  }

  /** Reads index, flags, MTU and MAC in one request. */
  #link(): Float64Array {
    const error = this.#addon.linkByIndex(this.#nl, this.ifindex, this.#state, this.#nameBytes);
    this.#check(error, 'link get');
    this.#name = ifNameText(this.#nameBytes);
    return this.#state;
  }

  /** Linux's name for the interface now; after it was deleted or released, its last name. */
  get name(): string {
    const bytes = this.#nameBytes;
    if (!this.#closed && this.#addon.tapName(this.fds[0]!, bytes) >= 0)
      this.#name = ifNameText(bytes);
    return this.#name;
  }

  get up(): boolean {
    return (this.#link()[1]! & IFF_UP) !== 0;
  }

  setUp(up: boolean): void {
    const flags = up ? IFF_UP : 0;
    this.#check(this.#addon.linkSet(this.#nl, this.ifindex, flags, IFF_UP, 0), 'link set');
  }

  get mtu(): number {
    return this.#link()[2]!;
  }

  /** Bytes. EINVAL if the kernel does not accept the value; a TAP accepts 68 to 65521. */
  setMtu(mtu: number): void {
    // The addon treats 0 as no change.
    if (!Number.isInteger(mtu) || mtu < 1 || mtu > 0xffffffff)
      throw invalid(`mtu set ${this.name}`, 'a whole number of bytes');
    this.#check(this.#addon.linkSet(this.#nl, this.ifindex, 0, 0, mtu), 'mtu set');
  }

  /** Colon form; zeros for a TUN, which has no MAC address. */
  get mac(): string {
    return macText(this.#link()[3]!);
  }

  /** EINVAL, EADDRNOTAVAIL (a group address), EOPNOTSUPP (a TUN). */
  setMac(mac: string): void {
    if (this.kind === 'TUN')
      throw new TapnicError('EOPNOTSUPP', `mac set ${this.name}`, 'a TUN has no MAC address');
    const bytes = parseMac(mac);
    const error = this.#addon.linkSetMac(this.#nl, this.ifindex, bytes);
    if (error === LINUX_EADDRNOTAVAIL)
      throw new TapnicError(
        'EADDRNOTAVAIL',
        `mac set ${this.name}`,
        `${mac} is a group address, not a host's`,
      );
    this.#check(error, 'mac set');
  }

  /** The first address as `192.0.2.1/24`; undefined without an address. */
  addr(family: 4 | 6): string | undefined {
    const bytes = new Uint8Array(family === 4 ? 4 : 16);
    const prefix = this.#addon.addrGet(this.#nl, this.ifindex, bytes);
    if (prefix === LINUX_EADDRNOTAVAIL) return undefined;
    this.#check(prefix, 'addr get');
    return `${addrText(bytes)}/${prefix}`;
  }

  /** Adds an address; an IPv4 address replaces all existing ones. EINVAL, EACCES. */
  setAddr(family: 4 | 6, cidr: string): void {
    const { bytes, prefixLen } = parseCidr(cidr);
    if (bytes.length !== (family === 4 ? 4 : 16))
      throw invalid(`ipv${family} set ${this.name}`, `${cidr} is not an IPv${family} address`);
    if (family === 4) this.#removeAddrs();
    const error = this.#addon.addrSet(this.#nl, this.ifindex, bytes, prefixLen, 1);
    // The address is already set.
    if (error !== LINUX_EEXIST) this.#check(error, `add ${cidr}`, 'address');
  }

  #removeAddrs(): void {
    const bytes = new Uint8Array(4);
    for (let i = 0; i < ADDRS_MAX; i++) {
      const prefix = this.#addon.addrGet(this.#nl, this.ifindex, bytes);
      if (prefix === LINUX_EADDRNOTAVAIL) return;
      this.#check(prefix, 'addr get');
      this.#check(this.#addon.addrSet(this.#nl, this.ifindex, bytes, prefix, 0), 'addr remove');
    }
  }

  #check(n: number, what: string, call: Call = 'link'): void {
    check(n, `${what} ${this.name}`, call, { name: this.name });
  }

  /**
   * Closes all queues; Linux then removes the interface unless it is persistent. Close all polls
   * first.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const fd of this.fds) this.#addon.fdClose(fd);
    this.#addon.fdClose(this.#route);
  }
}
