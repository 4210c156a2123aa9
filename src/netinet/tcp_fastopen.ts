/**
 * TCP Fast Open (RFC 7413), after sys/netinet/tcp_fastopen.c: cookies and keys of the server, its
 * limit of pending connections per listener, the client's cache of cookies and disabled paths, and
 * the pre-shared keys (PSK) of FreeBSD. A cookie is the SipHash-2-4 of the client's address. Left
 * out: the number of buckets as a tunable.
 */

import type { Task } from '../sys/clock.ts';
import { EINVAL, type Errno } from '../sys/errno.ts';
import { Callout, callout_reset, callout_stop, nowNs } from '../kern/kern_timeout.ts';
import { type Vnet, VNET_DEFINE } from '../kern/vnet.ts';
import { mem } from '../vm/arena.ts';
import type { SysctlTree } from '../kern/kern_sysctl.ts';
import { InConninfo, type InpAf, inpaf } from './in_pcb.ts';
import { siphash24, siphashHigh } from './tcp_isn.ts';
import {
  mssDefaults,
  type Tcpcb,
  type TcpSegment,
  TF_FASTOPEN,
  TOF_FASTOPEN,
  TOF_MSS,
} from './tcp_var.ts';

/** Bytes of our cookies, of any cookie that we store, and of a key. */
export const TCP_FASTOPEN_COOKIE_LEN = 8;
const TCP_FASTOPEN_MIN_COOKIE_LEN = 4;
const TCP_FASTOPEN_MAX_COOKIE_LEN = 16;
export const TCP_FASTOPEN_PSK_LEN = 16;
const TCP_FASTOPEN_MAX_KEYS = 2;
const TCP_FASTOPEN_MAX_PSKS = 2;
/** Buckets of the client's cache, sys/netinet/tcp_fastopen.c. */
const CCACHE_BUCKETS = 2048;

/** Connections of a listener that are not established yet, plus 1 for the listener itself. */
interface TfoPending {
  n: number;
}

/** Fast Open's part of a connection or listener. */
export class TfoConn {
  /** The cookie to send. */
  readonly cookie = new Uint8Array(TCP_FASTOPEN_MAX_COOKIE_LEN);
  cookieLen = 0;
  /** The pre-shared key of TCP_FASTOPEN, or null. */
  psk: Uint32Array | null = null;
  /** Of a listener, or of a passive connection until it is established. */
  pending: TfoPending | null = null;
}

/** An entry of the client's cache: a path and its cookie. */
interface CacheEntry {
  readonly inc: InConninfo;
  mss: number;
  readonly cookie: Uint8Array;
  cookieLen: number;
  /** When the path was disabled, ns; below 0: it is enabled. */
  disabledNs: number;
}

/** Reads a key of 16 bytes as SipHash's words. */
function keyWords(bytes: Uint8Array): Uint32Array {
  const words = new Uint32Array(4);
  for (let i = 0; i < 16; i++) words[i >> 2]! |= bytes[i]! << (8 * (i & 3));
  return words;
}

/** Fast Open's part of a stack. */
class TfoVnet implements Task {
  readonly vnet: Vnet;
  acceptany = false;
  /** Seconds; 0: never. */
  autokey = 120;
  bucketLimit = 16;
  clientEnable = true;
  /** Seconds. */
  pathDisableTime = 900;
  pskEnable = false;
  serverEnable = false;
  /** The newest first. */
  keys: Uint32Array[] = [];
  psks: Uint32Array[] = [];
  /** The client's cache, the newest entry of a bucket first. */
  readonly cache = new Map<number, CacheEntry[]>();
  readonly seed: number;
  readonly callout = new Callout(this);

  constructor(vnet: Vnet) {
    this.vnet = vnet;
    this.seed = vnet.prng.next32() | 0;
  }

  /** The callout: generates a new key. */
  run(): void {
    const key = new Uint32Array(4);
    for (let i = 0; i < 4; i++) key[i] = this.vnet.prng.next32();
    addKey(this.keys, key, TCP_FASTOPEN_MAX_KEYS);
    callout_reset(this.callout, this.autokey * 1e9);
  }
}

const V_tfo = VNET_DEFINE((vnet) => new TfoVnet(vnet));

function addKey(keys: Uint32Array[], key: Uint32Array, max: number): void {
  keys.unshift(key);
  if (keys.length > max) keys.length = max;
}

// Scratch: input of the hash, and a cookie.
const hashIn = new Uint8Array(16);
const hashView = new DataView(hashIn.buffer);

/** The response cookie that `tcp_fastopen_check_cookie` computed. */
export const tfoResponse = new Uint8Array(TCP_FASTOPEN_COOKIE_LEN);
const made = new Uint8Array(TCP_FASTOPEN_COOKIE_LEN);

function putHash(key: Uint32Array, data: Uint8Array, len: number, out: Uint8Array): void {
  const lo = siphash24(key, data, len);
  const hi = siphashHigh();
  for (let i = 0; i < 4; i++) {
    out[i] = lo >>> (8 * i);
    out[4 + i] = hi >>> (8 * i);
  }
}

/** Writes the cookie for the client at `inc`'s foreign address to `made`. */
function makeCookie(af: InpAf, key: Uint32Array, inc: InConninfo): void {
  hashView.setInt32(0, inc.inc_f0);
  hashView.setInt32(4, inc.inc_f1);
  hashView.setInt32(8, inc.inc_f2);
  hashView.setInt32(12, inc.inc_f3);
  putHash(key, hashIn, 4 * af.addrWords, made);
}

const pskCookie = new Uint8Array(TCP_FASTOPEN_COOKIE_LEN);

/** Whether the cookie at `at` is `made`, or with PSKs its hash under one of them. */
function cookieMatches(v: TfoVnet, at: number): boolean {
  if (!v.pskEnable) return sameBytes(at, made);
  for (const psk of v.psks) {
    putHash(psk, made, TCP_FASTOPEN_COOKIE_LEN, pskCookie);
    if (sameBytes(at, pskCookie)) return true;
  }
  return false;
}

function sameBytes(at: number, bytes: Uint8Array): boolean {
  let diff = 0;
  for (let i = 0; i < bytes.length; i++) diff |= mem[at + i]! ^ bytes[i]!;
  return diff === 0;
}

/**
 * Checks the cookie of the SYN in `seg`. Returns 1 if it is valid and 0 if not, with the newest
 * cookie in `tfoResponse`; -1 if it is not valid and there is no key.
 * @see sys/netinet/tcp_fastopen.c
 */
function tcp_fastopen_check_cookie(vnet: Vnet, inc: InConninfo, seg: TcpSegment): number {
  const v = V_tfo(vnet);
  const af = inpaf(vnet, inc.inc_family);
  if (v.acceptany) {
    tfoResponse.fill(0);
    return 1;
  }
  if (v.keys.length === 0) return -1;
  for (let i = 0; i < v.keys.length; i++) {
    makeCookie(af, v.keys[i]!, inc);
    if (i === 0) tfoResponse.set(made);
    if (seg.to_tfo_len !== TCP_FASTOPEN_COOKIE_LEN) return 0;
    if (cookieMatches(v, seg.to_tfo_cookie)) return 1;
  }
  return 0;
}

/** Result of tfoListen: no Fast Open option, or none that counts. */
const TFO_NONE = 0;
/** Answer the SYN as usual, with the cookie in `tfoResponse`. */
export const TFO_COOKIE = 1;
/** The cookie is valid: create the connection. `pending` of the listener counts it already. */
export const TFO_VALID = 2;

/**
 * Decides what the Fast Open option of the SYN in `seg` means to the listener `ltp` with a backlog
 * of `qlimit`. At most about half of the backlog may be connections that are not established yet:
 * RFC 7413, 4.2.2.
 */
export function tfoListen(inc: InConninfo, seg: TcpSegment, ltp: Tcpcb, qlimit: number): number {
  const vnet = ltp.t_inpcb.inp_vnet;
  const pending = ltp.t_tfo?.pending ?? null;
  if ((seg.to_flags & TOF_FASTOPEN) === 0 || pending === null) return TFO_NONE;
  if (!V_tfo(vnet).serverEnable || (ltp.t_flags & TF_FASTOPEN) === 0) return TFO_NONE;
  if (pending.n > qlimit >> 1) return TFO_NONE;
  const result = tcp_fastopen_check_cookie(vnet, inc, seg);
  if (result < 0) return TFO_NONE;
  if (result === 0) return TFO_COOKIE;
  pending.n++;
  return TFO_VALID;
}

/** Makes `tp`, created for a SYN with a valid cookie, a Fast Open connection of the listener `ltp`. */
export function tfoAccepted(tp: Tcpcb, ltp: Tcpcb): void {
  const t = new TfoConn();
  t.cookie.set(tfoResponse);
  t.cookieLen = TCP_FASTOPEN_COOKIE_LEN;
  t.pending = ltp.t_tfo!.pending;
  tp.t_tfo = t;
  tp.t_flags |= TF_FASTOPEN;
  // The SYN-ACK is not sent yet: it waits for the program's data, or for the delayed ACK.
  tp.snd_nxt = tp.iss;
  tp.snd_max = tp.iss;
  tp.t_tcp.stat.tcps_tfo_passive++;
}

/** The connection is established or closed: it no longer counts as pending. */
export function tfoSettled(tp: Tcpcb): void {
  const pending = tp.t_tfo?.pending;
  if (pending === null || pending === undefined) return;
  pending.n--;
  tp.t_tfo!.pending = null;
}

/** Turns Fast Open on for the listener `tp`. @see sys/netinet/tcp_usrreq.c */
export function tfoListener(tp: Tcpcb): void {
  tp.t_tfo ??= new TfoConn();
  tp.t_tfo.pending ??= { n: 1 };
}

/** Stores the pre-shared key of TCP_FASTOPEN, 16 bytes, or null. */
export function tfoSetPsk(tp: Tcpcb, psk: Uint8Array | null): void {
  tp.t_tfo ??= new TfoConn();
  tp.t_tfo.psk = psk === null ? null : keyWords(psk);
}

/** Whether the client, and whether the server, may use Fast Open. */
export const tfoClientEnabled = (vnet: Vnet): boolean => V_tfo(vnet).clientEnable;
export const tfoServerEnabled = (vnet: Vnet): boolean => V_tfo(vnet).serverEnable;

// The client.

function bucketOf(v: TfoVnet, inc: InConninfo): number {
  let h = v.seed;
  h = Math.imul(h ^ inc.inc_l0 ^ inc.inc_l1 ^ inc.inc_l2 ^ inc.inc_l3, 0x9e3779b1);
  h = Math.imul(h ^ inc.inc_f0 ^ inc.inc_f1 ^ inc.inc_f2 ^ inc.inc_f3, 0x735a2d97);
  h = Math.imul(h ^ inc.inc_fport ^ (h >>> 15), 0x9e3779b1);
  return (h ^ (h >>> 16)) & (CCACHE_BUCKETS - 1);
}

/** Returns the entry of the path of `inc`: both addresses and the server's port. */
function lookup(v: TfoVnet, inc: InConninfo): CacheEntry | null {
  for (const e of v.cache.get(bucketOf(v, inc)) ?? [])
    if (
      e.inc.inc_family === inc.inc_family &&
      e.inc.inc_fport === inc.inc_fport &&
      e.inc.laddrEquals(inc) &&
      e.inc.faddrEquals(inc)
    )
      return e;
  return null;
}

/** Returns the entry of the path of `inc`; creates it if it is missing, for the oldest if necessary. */
function entryOf(v: TfoVnet, inc: InConninfo): CacheEntry {
  const old = lookup(v, inc);
  if (old !== null) return old;
  const copy = new InConninfo();
  copy.inc_family = inc.inc_family;
  copy.copyFrom(inc);
  const cookie = new Uint8Array(TCP_FASTOPEN_MAX_COOKIE_LEN);
  const entry = { inc: copy, mss: 0, cookie, cookieLen: 0, disabledNs: -1 };
  const b = bucketOf(v, inc);
  const list = v.cache.get(b) ?? [];
  list.unshift(entry);
  list.length = Math.min(list.length, v.bucketLimit);
  v.cache.set(b, list);
  return entry;
}

/**
 * The connection `tp` is about to send its SYN with data: takes the path's cookie from the cache, or
 * turns Fast Open off if the path is disabled. Returns the MSS to begin with, -1 if it is unknown.
 * @see sys/netinet/tcp_fastopen.c
 */
export function tcp_fastopen_connect(tp: Tcpcb): number {
  const inp = tp.t_inpcb;
  const v = V_tfo(inp.inp_vnet);
  const t = tp.t_tfo!;
  t.cookieLen = 0;
  const e = lookup(v, inp.inp_inc);
  if (e === null) return -1;
  if (e.disabledNs >= 0) {
    if (nowNs() - e.disabledNs <= v.pathDisableTime * 1e9) {
      tp.t_flags &= ~TF_FASTOPEN;
      return -1;
    }
    // The time is over. Request a new cookie and forget the MSS, which may be wrong by now.
    e.disabledNs = -1;
    e.mss = 0;
    e.cookieLen = 0;
    return -1;
  }
  if (e.cookieLen > 0 && t.psk !== null) {
    putHash(t.psk, e.cookie, e.cookieLen, t.cookie);
    t.cookieLen = TCP_FASTOPEN_COOKIE_LEN;
  } else {
    t.cookie.set(e.cookie);
    t.cookieLen = e.cookieLen;
  }
  return e.mss > 0 ? e.mss : -1;
}

function disable(e: CacheEntry): void {
  e.mss = 0;
  e.cookieLen = 0;
  // A path that is disabled keeps the time at which it was.
  if (e.disabledNs < 0) e.disabledNs = nowNs();
}

/**
 * Fast Open failed on the path of `tp`: new connections do without for a while.
 * @see sys/netinet/tcp_fastopen.c
 */
export function tcp_fastopen_disable_path(tp: Tcpcb): void {
  const { inp_vnet, inp_inc } = tp.t_inpcb;
  disable(entryOf(V_tfo(inp_vnet), inp_inc));
  tp.t_flags &= ~TF_FASTOPEN;
  tp.t_tcp.stat.tcps_tfo_disabled++;
}

/**
 * Updates the cache from the SYN-ACK in `seg`: stores its cookie, or disables the path. Unlike
 * FreeBSD: a SYN-ACK without a cookie that acknowledges data of our SYN leaves the path enabled.
 * Linux sends the cookie only when it is new, so Fast Open works (RFC 7413, 4.2.1).
 * @see sys/netinet/tcp_fastopen.c
 */
export function tcp_fastopen_update_cache(tp: Tcpcb, seg: TcpSegment, dataAcked: boolean): void {
  const { inp_vnet, inp_inc, inp_af } = tp.t_inpcb;
  if (dataAcked) tp.t_tcp.stat.tcps_tfo_active++;
  if ((seg.to_flags & TOF_FASTOPEN) === 0) {
    if (!dataAcked) tcp_fastopen_disable_path(tp);
    return;
  }
  const e = entryOf(V_tfo(inp_vnet), inp_inc);
  const len = seg.to_tfo_len;
  if (len < TCP_FASTOPEN_MIN_COOKIE_LEN || len > TCP_FASTOPEN_MAX_COOKIE_LEN || (len & 1) !== 0) {
    disable(e);
    return;
  }
  e.mss = (seg.to_flags & TOF_MSS) !== 0 ? seg.to_mss : mssDefaults(tp.t_tcp, inp_af).mssdflt;
  for (let i = 0; i < len; i++) e.cookie[i] = mem[seg.to_tfo_cookie + i]!;
  e.cookieLen = len;
  e.disabledNs = -1;
}

// The sysctls.

/** The client's cache as sysctl prints it. */
function cacheList(v: TfoVnet): string {
  const lines = ['', 'Local IP address     Remote IP address     Port   MSS Disabled Cookie'];
  for (const list of v.cache.values())
    for (const e of list) {
      const af = inpaf(v.vnet, e.inc.inc_family);
      const left = v.pathDisableTime - (nowNs() - e.disabledNs) / 1e9;
      const off = e.disabledNs >= 0 && left > 0 ? `${Math.floor(left)}s` : 'No';
      const hex = Buffer.from(e.cookie.subarray(0, e.cookieLen)).toString('hex');
      const [l, f] = [
        af.print(v.vnet, e.inc, false).padEnd(20),
        af.print(v.vnet, e.inc, true).padEnd(20),
      ];
      const [p, m] = [String(e.inc.inc_fport).padStart(5), String(e.mss).padStart(5)];
      lines.push(`${l} ${f} ${p} ${m} ${off.padStart(8)} ${hex}`);
    }
  return `${lines.join('\n')}\n`;
}

function setServerEnable(v: TfoVnet, on: boolean): void {
  if (v.serverEnable && !on) {
    v.keys = [];
    v.psks = [];
    callout_stop(v.callout);
  } else if (!v.serverEnable && on && v.autokey > 0 && v.keys.length === 0) {
    v.run();
  }
  v.serverEnable = on;
}

function setAutokey(v: TfoVnet, seconds: number): void {
  v.autokey = seconds;
  if (!v.serverEnable) return;
  if (seconds === 0) callout_stop(v.callout);
  else callout_reset(v.callout, seconds * 1e9);
}

const leafName = (leaf: string): string => `net.inet.tcp.fastopen.${leaf}`;

/** A write-only key: 16 bytes as 32 hexadecimal digits. Unlike FreeBSD, where it is opaque. */
function keyOid(
  tree: SysctlTree,
  leaf: string,
  descr: string,
  add: (k: Uint32Array) => void,
): void {
  const set = (text: string): Errno => {
    if (!/^[0-9a-f]{32}$/i.test(text)) return EINVAL;
    add(keyWords(Buffer.from(text, 'hex')));
    return 0;
  };
  tree.string(leafName(leaf), descr, () => '', set);
}

/** A switch, an unsigned integer as in FreeBSD. */
function flagOid(
  tree: SysctlTree,
  leaf: string,
  descr: string,
  get: () => boolean,
  set: (on: boolean) => void,
): void {
  const read = (): number => (get() ? 1 : 0);
  tree.int(leafName(leaf), descr, read, (n) => set(n !== 0), 0);
}

function serverSysctls(v: TfoVnet, tree: SysctlTree): void {
  const acceptAny = (on: boolean): void => void (v.acceptany = on);
  flagOid(tree, 'acceptany', 'Accept any non-empty cookie', () => v.acceptany, acceptAny);
  const autokey = 'Number of seconds between auto-generation of a new key; zero disables';
  const setAuto = (n: number): void => setAutokey(v, n);
  tree.int(leafName('autokey'), autokey, () => v.autokey, setAuto, 0, 2147483);
  flagOid(
    tree,
    'psk_enable',
    'Enable/disable TCP Fast Open server pre-shared key mode',
    () => v.pskEnable,
    (on) => {
      if (!on) v.psks = [];
      v.pskEnable = on;
    },
  );
  flagOid(
    tree,
    'server_enable',
    'Enable/disable TCP Fast Open server functionality',
    () => v.serverEnable,
    (on) => setServerEnable(v, on),
  );
  keyOid(tree, 'setkey', 'Install a new key', (k) => addKey(v.keys, k, TCP_FASTOPEN_MAX_KEYS));
  keyOid(tree, 'setpsk', 'Install a new pre-shared key', (k) =>
    addKey(v.psks, k, TCP_FASTOPEN_MAX_PSKS),
  );
}

function clientSysctls(v: TfoVnet, tree: SysctlTree): void {
  const setLimit = (n: number): void => {
    v.bucketLimit = n;
    for (const list of v.cache.values()) list.length = Math.min(list.length, n);
  };
  const limit = 'Max entries per bucket in client cookie cache';
  tree.int(leafName('ccache_bucket_limit'), limit, () => v.bucketLimit, setLimit, 1);
  const list = 'List of all client cookie cache entries';
  tree.string(leafName('ccache_list'), list, () => cacheList(v));
  flagOid(
    tree,
    'client_enable',
    'Enable/disable TCP Fast Open client functionality',
    () => v.clientEnable,
    (on) => {
      if (!on) v.cache.clear();
      v.clientEnable = on;
    },
  );
  const time = 'Seconds a TFO failure disables a {client_ip, server_ip, server_port} path';
  const setTime = (n: number): void => void (v.pathDisableTime = n);
  tree.int(leafName('path_disable_time'), time, () => v.pathDisableTime, setTime, 0);
}

/** Adds net.inet.tcp.fastopen. @see sys/netinet/tcp_fastopen.c */
export function tcp_fastopen_init(vnet: Vnet): void {
  const v = V_tfo(vnet);
  const tree = vnet.sysctl;
  serverSysctls(v, tree);
  clientSysctls(v, tree);
  const ro = (leaf: string, descr: string, get: () => number): void =>
    tree.int(leafName(leaf), descr, get, null);
  ro('ccache_buckets', 'Client cookie cache number of buckets', () => CCACHE_BUCKETS);
  ro('keylen', 'Key length in bytes', () => TCP_FASTOPEN_PSK_LEN);
  ro('maxkeys', 'Maximum number of keys supported', () => TCP_FASTOPEN_MAX_KEYS);
  ro('maxpsks', 'Maximum number of pre-shared keys supported', () => TCP_FASTOPEN_MAX_PSKS);
  ro('numkeys', 'Number of keys installed', () => v.keys.length);
  ro('numpsks', 'Number of pre-shared keys installed', () => v.psks.length);
}

/**
 * Stops the key timer and empties the cache, when the stack stops.
 * @see sys/netinet/tcp_fastopen.c
 */
export function tcp_fastopen_destroy(vnet: Vnet): void {
  const v = V_tfo(vnet);
  callout_stop(v.callout);
  v.cache.clear();
}
