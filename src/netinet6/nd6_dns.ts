/**
 * DNS servers and search domains of router advertisements: RFC 8106. They are stored and shown; nothing
 * resolves names with them. On FreeBSD rtsold(8) does this. The lists are bounded: a full one replaces
 * the entry that expires first.
 */

import type { AddrWords, NetAddr } from '../sys/addr.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import type { Ifnet } from '../net/if_var.ts';
import { in6Addr } from './in6.ts';
import { ND6_INFINITE_LIFETIME } from './in6_var.ts';
import { nd6TimerAt } from './nd6_rtr_var.ts';
import { in6_setscope } from './scope6.ts';

/** Entries per interface and kind: RFC 8106, 5.3.1, recommends at least three. */
const DNS_MAX = 8;
const NAME_MAX = 255;
const LABEL_MAX = 63;
const SEC = 1e9;

/** A server or a domain, from the router `from`. */
interface Nd6Dns {
  readonly ifp: Ifnet;
  readonly kind: 'server' | 'domain';
  /** The server; null for a domain. */
  readonly addr: AddrWords | null;
  readonly domain: string;
  readonly from: AddrWords;
  /** Seconds, as advertised. */
  lifetime: number;
  /** When it expires, ns since boot; Infinity: never. */
  expire: number;
}

const V_nd6dns = VNET_DEFINE((): { list: Nd6Dns[] } => ({ list: [] }));

/** The servers and domains of `ifp` that have not expired, in the order of arrival. */
export function nd6Dnslist(ifp: Ifnet): readonly Nd6Dns[] {
  return V_nd6dns(ifp.if_vnet).list.filter((one) => one.ifp === ifp && one.expire > nowNs());
}

/** Adds or updates an entry; removes it if its lifetime is 0. */
function store(entry: Nd6Dns): void {
  const { ifp, kind, addr, domain } = entry;
  const v = V_nd6dns(ifp.if_vnet);
  const same = v.list.filter((one) => one.ifp === ifp && one.kind === kind);
  const old = same.find((one) =>
    addr === null ? one.domain === domain : (one.addr as NetAddr).equals(addr),
  );
  if (entry.lifetime === 0) {
    if (old !== undefined) v.list.splice(v.list.indexOf(old), 1);
    return;
  }
  if (old !== undefined) {
    v.list[v.list.indexOf(old)] = entry;
  } else {
    if (same.length >= DNS_MAX) {
      const first = same.reduce((a, b) => (b.expire < a.expire ? b : a));
      v.list.splice(v.list.indexOf(first), 1);
    }
    v.list.push(entry);
  }
  nd6TimerAt(ifp.if_vnet, entry.expire);
}

function expiry(lifetime: number): number {
  return lifetime === ND6_INFINITE_LIFETIME ? Infinity : nowNs() + lifetime * SEC;
}

/** Stores the servers of an RDNSS option (RFC 8106, 5.1), all of its bytes. False: it is malformed. */
export function rdnssInput(ifp: Ifnet, from: AddrWords, option: Uint8Array): boolean {
  if (option.length < 24 || (option.length - 8) % 16 !== 0) return false;
  const view = new DataView(option.buffer, option.byteOffset, option.length);
  const lifetime = view.getUint32(4);
  for (let off = 8; off < option.length; off += 16) {
    const words = [0, 4, 8, 12].map((n) => view.getInt32(off + n)) as [
      number,
      number,
      number,
      number,
    ];
    const addr = in6Addr(...words);
    if (addr.w0 >>> 24 === 0xff || addr.isAny()) continue;
    in6_setscope(addr, ifp);
    store({ ifp, kind: 'server', addr, domain: '', from, lifetime, expire: expiry(lifetime) });
  }
  return true;
}

/** The names of a DNSSL option; null: malformed. RFC 1035, 3.1, without compression. */
function namesOf(bytes: Uint8Array): string[] | null {
  const names: string[] = [];
  let labels: string[] = [];
  let size = 0;
  for (let off = 0; off < bytes.length;) {
    const len = bytes[off]!;
    off++;
    if (len === 0) {
      // The rest is padding.
      if (labels.length === 0) break;
      names.push(labels.join('.'));
      labels = [];
      size = 0;
      continue;
    }
    size += len + 1;
    if (len > LABEL_MAX || off + len > bytes.length || size >= NAME_MAX) return null;
    const label = String.fromCharCode(...bytes.subarray(off, off + len));
    if (!/^[\w-]+$/.test(label)) return null;
    labels.push(label);
    off += len;
  }
  return labels.length > 0 ? null : names;
}

/** Stores the domains of a DNSSL option (RFC 8106, 5.2), all of its bytes. False: it is malformed. */
export function dnsslInput(ifp: Ifnet, from: AddrWords, option: Uint8Array): boolean {
  if (option.length < 16) return false;
  const view = new DataView(option.buffer, option.byteOffset, option.length);
  const lifetime = view.getUint32(4);
  const names = namesOf(option.subarray(8));
  if (names === null || names.length === 0) return false;
  for (const domain of names)
    store({ ifp, kind: 'domain', addr: null, domain, from, lifetime, expire: expiry(lifetime) });
  return true;
}

/** Removes expired entries. Returns when the next one expires, ns since boot; Infinity: never. */
export function nd6DnsExpire(vnet: Vnet): number {
  const v = V_nd6dns(vnet);
  const now = nowNs();
  v.list = v.list.filter((one) => one.expire > now);
  return v.list.reduce((next, one) => Math.min(next, one.expire), Infinity);
}

/** Removes the entries of an interface. */
export function nd6DnsPurge(ifp: Ifnet): void {
  const v = V_nd6dns(ifp.if_vnet);
  v.list = v.list.filter((one) => one.ifp !== ifp);
}
