/**
 * Addresses of a new interface that another interface of the namespace has, or whose network it has.
 * Linux accepts such addresses, but sends packets only through one of the interfaces. Allowed: a
 * route with a gateway to a larger network, because the network of the new interface is more
 * specific. Not seen: interfaces that are down, and routing tables other than `main`.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { TapnicError } from '../sys/errno.ts';
import { parseCidr } from './addr_text.ts';
import { tunFds } from './tun_fds.ts';

/** A network that Linux reaches through an interface. */
interface Net {
  readonly dev: string;
  readonly bytes: Uint8Array;
  readonly prefixLen: number;
  /** The address itself is one of Linux's. */
  readonly own: boolean;
  /** It is reached through a gateway. */
  readonly via: boolean;
}

/** What is in use, for a message. */
interface Conflict {
  /** The address of the new interface, or of the emulated host. */
  readonly addr: string;
  readonly dev: string;
  /** `has this address`, or the network that it has. */
  readonly why: string;
}

const RTF_GATEWAY = 2;
const hexBytes = (text: string): Uint8Array =>
  Uint8Array.from(Buffer.from(text, 'hex').toReversed());
const textOf = (bytes: Uint8Array): string =>
  bytes.length === 4
    ? bytes.join('.')
    : Buffer.from(bytes)
        .toString('hex')
        .replace(/.{4}(?=.)/g, '$&:');

/** `192.0.2.0/24`: the bits after the prefix are 0. */
function networkText({ bytes, prefixLen }: Net): string {
  const masked = bytes.map((b, i) => b & (0xff00 >> Math.min(8, Math.max(0, prefixLen - 8 * i))));
  return `${textOf(masked)}/${prefixLen}`;
}

/** Whether the first `bits` bits are equal. */
function samePrefix(a: Uint8Array, b: Uint8Array, bits: number): boolean {
  for (let i = 0; i < bits; i++)
    if (((a[i >> 3]! ^ b[i >> 3]!) & (0x80 >> (i & 7))) !== 0) return false;
  return true;
}

/** The addresses of the calling thread's namespace. */
function addresses(): Net[] {
  return Object.entries(networkInterfaces()).flatMap(([dev, list = []]) =>
    list
      .filter(({ cidr }) => cidr !== null)
      .map(({ cidr }) => ({ dev, ...parseCidr(cidr!), own: true, via: false })),
  );
}

/** The IPv4 routes of the table `main` of that namespace; none without /proc. */
function routes(): Net[] {
  let text: string;
  try {
    text = readFileSync('/proc/thread-self/net/route', 'utf8');
  } catch {
    return [];
  }
  return text
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((words) => words.length > 7 && words[7] !== '00000000')
    .map(([dev = '', dst = '', , flags = '', , , , mask = '']) => ({
      dev,
      bytes: hexBytes(dst),
      prefixLen: Buffer.from(mask, 'hex').reduce(
        (n, b) => n + b.toString(2).replaceAll('0', '').length,
        0,
      ),
      own: false,
      via: (Number.parseInt(flags, 16) & RTF_GATEWAY) !== 0,
    }));
}

/** Whether `addr` is on the network of `cidr`. */
export function onNetwork(addr: string, cidr: string): boolean {
  const { bytes, prefixLen } = parseCidr(cidr);
  const own = bareBytes(addr);
  return own.length === bytes.length && samePrefix(own, bytes, prefixLen);
}

const bareBytes = (addr: string): Uint8Array =>
  parseCidr(`${addr}/${isIPv4(addr) ? 32 : 128}`).bytes;

/** Whether an address is valid only on its link: other interfaces may have it. */
const isLinkLocal = (bytes: Uint8Array): boolean =>
  bytes.length === 16 && bytes[0] === 0xfe && (bytes[1]! & 0xc0) === 0x80;

/** How `net` conflicts with the address `host`/`prefixLen` of a new interface; '' if it does not. */
function clash(net: Net, host: Uint8Array, prefixLen: number, guest: Uint8Array | null): string {
  const bits = net.bytes.length * 8;
  if (net.bytes.length !== host.length) return '';
  if (net.own && samePrefix(net.bytes, host, bits)) return 'has this address';
  // Addresses of single hosts, and networks of one address, do not take part in a network.
  if (net.prefixLen === bits || prefixLen === bits) return '';
  const network = `has the network ${networkText(net)}`;
  if (net.via)
    return net.prefixLen >= prefixLen &&
      guest !== null &&
      samePrefix(net.bytes, guest, net.prefixLen)
      ? network
      : '';
  return samePrefix(net.bytes, host, Math.min(net.prefixLen, prefixLen)) ? network : '';
}

/**
 * Returns the first conflict of a new interface `dev` in the calling thread's namespace; null:
 * no conflict.
 * @param hostAddr its address with prefix length; null: none
 * @param guest the address of the host behind it; null: none
 * @param counts whether another interface counts
 */
export function findConflict(
  dev: string,
  hostAddr: string | null,
  guest: string | null,
  counts: (dev: string) => boolean = () => true,
): Conflict | null {
  let nets: Net[];
  try {
    nets = [...addresses(), ...routes()].filter(
      (net) => net.dev !== dev && !isLinkLocal(net.bytes) && counts(net.dev),
    );
  } catch {
    return null; // a sandbox without a list of interfaces
  }
  const bare = guest === null ? null : bareBytes(guest);
  for (const net of nets)
    if (bare !== null && net.own && net.bytes.length === bare.length)
      if (samePrefix(net.bytes, bare, bare.length * 8))
        return { addr: guest!, dev: net.dev, why: 'has this address' };
  if (hostAddr === null) return null;
  const { bytes, prefixLen } = parseCidr(hostAddr);
  for (const net of nets) {
    const why = clash(net, bytes, prefixLen, bare);
    if (why !== '') return { addr: hostAddr, dev: net.dev, why };
  }
  return null;
}

/**
 * Returns the process that has the TAP `dev` open; null if none or several could be it. A process
 * of this namespace comes first; one of another namespace may have an interface in this one.
 */
function holder(dev: string): string | null {
  try {
    const own = readlinkSync('/proc/thread-self/ns/net');
    const pids = readdirSync('/proc').filter(
      (pid) => /^\d+$/.test(pid) && tunFds(pid, dev).length > 0,
    );
    const near = pids.filter((pid) => readlinkSync(`/proc/${pid}/ns/net`) === own);
    const found = near.length > 0 ? near : pids;
    return found.length === 1 ? found[0]! : null;
  } catch {
    return null; // no /proc, or a process ended meanwhile
  }
}

/** The interface of a conflict, with the process behind it if there is exactly one. */
function conflictText({ dev, why }: Conflict): string {
  const pid = holder(dev);
  return `interface ${dev}${pid === null ? '' : ` of process ${pid}`} ${why}`;
}

/** Throws TapnicError (EADDRINUSE) for what `findConflict` returns. */
export function refuseConflict(...given: Parameters<typeof findConflict>): void {
  const conflict = findConflict(...given);
  if (conflict === null) return;
  throw new TapnicError(
    'EADDRINUSE',
    `address ${conflict.addr}`,
    `${conflictText(conflict)}: choose another addr and hostAddr (--addr, --host-addr)`,
  );
}

/** The warning for an IPv6 address that is not set because of `conflict`. */
export function unsetText(conflict: Conflict): string {
  return (
    `${conflict.addr} not set: ${conflictText(conflict)}: ` +
    'choose another addr6 and hostAddr6 (--addr6, --host-addr6), or none'
  );
}
