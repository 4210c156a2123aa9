/**
 * The TCP host cache, after sys/netinet/tcp_hostcache.c: round-trip time, slow-start threshold and
 * path MTU per peer, measured by earlier connections. The number of entries is limited per bucket
 * and in total. An entry expires `expire` seconds after its last use. A timer removes expired entries
 * every `prune` seconds; until then a look-up clears them.
 */

import type { Task } from '../sys/clock.ts';
import {
  Callout,
  callout_pending,
  callout_reset,
  callout_stop,
  nowNs,
} from '../kern/kern_timeout.ts';
import { VNET_DEFINE } from '../kern/vnet.ts';
import { count, R_TCP_HC_EVICTED } from '../sys/reason.ts';
import { InConninfo, type InpAf, inpaf } from './in_pcb.ts';
import { TCP_RTT_SHIFT, TCP_RTTVAR_SHIFT, type TcpVnet, V_tcp } from './tcp_var.ts';

const HASHSIZE = 512;

/** The metrics of one peer; 0: unknown. @see sys/netinet/tcp_var.h */
export class HcMetrics {
  rmx_mtu = 0;
  /** Bytes, headers included. */
  rmx_ssthresh = 0;
  /** Scaled as in Tcpcb: rtt in 1/32 ms, rttvar in 1/16 ms. */
  rmx_rtt = 0;
  rmx_rttvar = 0;
  rmx_cwnd = 0;

  clear(): void {
    this.rmx_mtu = 0;
    this.rmx_ssthresh = 0;
    this.rmx_rtt = 0;
    this.rmx_rttvar = 0;
    this.rmx_cwnd = 0;
  }
}

class Entry {
  readonly inc = new InConninfo();
  readonly metrics = new HcMetrics();
  hits = 0;
  updates = 0;
  expiresNs = 0;
  next: Entry | null = null;

  clear(): void {
    this.metrics.clear();
    this.hits = 0;
    this.updates = 0;
  }
}

class HostCache implements Task {
  readonly buckets: (Entry | null)[] = Array.from({ length: HASHSIZE }, () => null);
  count = 0;
  enable = true;
  cachelimit = 30 * HASHSIZE;
  bucketlimit = 30;
  /** Seconds. */
  expire = 3600;
  /** Seconds between two runs of the timer. */
  prune = 300;
  /** Remove all entries at the next run. */
  purge = 0;
  readonly callout = new Callout(this);

  /** Starts the timer if there are entries and it does not run. */
  arm(): void {
    if (this.count > 0 && !callout_pending(this.callout))
      callout_reset(this.callout, this.prune * 1e9);
  }

  /** Timer: removes expired entries, or all with `purge`. */
  run(): void {
    const all = this.purge !== 0;
    this.purge = 0;
    const now = nowNs();
    for (let b = 0; b < HASHSIZE; b++) {
      let prev: Entry | null = null;
      for (let e = this.buckets[b] ?? null; e !== null; e = e.next) {
        if (!all && e.expiresNs > now) {
          prev = e;
          continue;
        }
        if (prev === null) this.buckets[b] = e.next;
        else prev.next = e.next;
        this.count--;
      }
    }
    this.arm();
  }
}

const V_hc = VNET_DEFINE((vnet) => {
  const hc = new HostCache();
  sysctls(V_tcp(vnet), hc);
  return hc;
});

function bucketOf(af: InpAf, inc: InConninfo): number {
  let h = Math.imul(af.hash(inc) ^ af.family, 0x9e3779b1);
  h ^= h >>> 15;
  return h & (HASHSIZE - 1);
}

// The key: entries are compared by the peer's address only.
const $peer = new InConninfo();

/** Sets `$peer` from `inc`, with the local address 0. Returns the family's table. */
function aim(tcp: TcpVnet, inc: InConninfo): InpAf {
  const af = inpaf(tcp.vnet, inc.inc_family);
  $peer.copyFrom(inc);
  $peer.setLaddr(0);
  return af;
}

/** The entry of `$peer`, moved to the front of its bucket, or null. Clears an expired entry. */
function lookup(hc: HostCache, af: InpAf): Entry | null {
  const b = bucketOf(af, $peer);
  let prev: Entry | null = null;
  let e = hc.buckets[b] ?? null;
  for (; e !== null; prev = e, e = e.next)
    if (e.inc.inc_family === $peer.inc_family && e.inc.faddrEquals($peer)) break;
  if (e === null) return null;
  if (prev !== null) {
    prev.next = e.next;
    e.next = hc.buckets[b] ?? null;
    hc.buckets[b] = e;
  }
  if (e.expiresNs <= nowNs()) e.clear();
  return e;
}

/**
 * Removes the least recently used entry from bucket `b` and returns it cleared, if the bucket or
 * the cache is full. Returns null if there is room.
 */
function evict(hc: HostCache, b: number): Entry | null {
  let n = 1;
  let prev: Entry | null = null;
  let last = hc.buckets[b] ?? null;
  if (last === null) return null;
  for (; last.next !== null; n++) {
    prev = last;
    last = last.next;
  }
  if (n < hc.bucketlimit && hc.count < hc.cachelimit) return null;
  if (prev === null) hc.buckets[b] = null;
  else prev.next = null;
  last.clear();
  hc.count--;
  count(R_TCP_HC_EVICTED);
  return last;
}

/** Finds or creates the entry of `$peer` and restarts its expiry. */
function entryFor(hc: HostCache, af: InpAf): Entry {
  let e = lookup(hc, af);
  if (e === null) {
    const b = bucketOf(af, $peer);
    e = evict(hc, b) ?? new Entry();
    hc.count++;
    e.inc.copyFrom($peer);
    e.next = hc.buckets[b] ?? null;
    hc.buckets[b] = e;
    hc.arm();
  }
  e.expiresNs = nowNs() + hc.expire * 1e9;
  return e;
}

const NOTHING = new HcMetrics();

/**
 * The metrics of inc's peer; all zeros if unknown. The result is borrowed until the next call.
 * @see sys/netinet/tcp_hostcache.c
 */
export function tcp_hc_get(tcp: TcpVnet, inc: InConninfo): Readonly<HcMetrics> {
  const hc = V_hc(tcp.vnet);
  if (!hc.enable || hc.count === 0) return NOTHING;
  const e = lookup(hc, aim(tcp, inc));
  if (e === null) return NOTHING;
  e.hits++;
  e.expiresNs = nowNs() + hc.expire * 1e9;
  return e.metrics;
}

/** The path MTU to inc's peer that ICMP reported; 0: unknown. @see sys/netinet/tcp_hostcache.c */
export function tcp_hc_getmtu(tcp: TcpVnet, inc: InConninfo): number {
  return tcp_hc_get(tcp, inc).rmx_mtu;
}

/** Records the path MTU to inc's peer that ICMP reported. @see sys/netinet/tcp_hostcache.c */
export function tcp_hc_updatemtu(tcp: TcpVnet, inc: InConninfo, mtu: number): void {
  const hc = V_hc(tcp.vnet);
  if (!hc.enable) return;
  const e = entryFor(hc, aim(tcp, inc));
  e.metrics.rmx_mtu = mtu;
  e.updates++;
}

/** The mean of the old and the new value; 0 means unknown and is left out. */
const mean = (old: number, now: number): number =>
  now === 0 ? old : old === 0 ? now : Math.floor((old + now) / 2);

/**
 * Averages the metrics of a closing connection to inc's peer into its entry.
 * @see sys/netinet/tcp_hostcache.c
 */
export function tcp_hc_update(tcp: TcpVnet, inc: InConninfo, m: Readonly<HcMetrics>): void {
  const hc = V_hc(tcp.vnet);
  if (!hc.enable) return;
  const e = entryFor(hc, aim(tcp, inc));
  e.updates++;
  const was = e.metrics;
  was.rmx_rtt = mean(was.rmx_rtt, m.rmx_rtt);
  was.rmx_rttvar = mean(was.rmx_rttvar, m.rmx_rttvar);
  was.rmx_ssthresh = mean(was.rmx_ssthresh, m.rmx_ssthresh);
  was.rmx_cwnd = mean(was.rmx_cwnd, m.rmx_cwnd);
}

/** Removes all entries: net.inet.tcp.hostcache.purgenow. */
export function tcpHcPurge(tcp: TcpVnet): void {
  const hc = V_hc(tcp.vnet);
  hc.buckets.fill(null);
  hc.count = 0;
  callout_stop(hc.callout);
}

/** The table that `sysctl net.inet.tcp.hostcache.list` prints. */
function list(tcp: TcpVnet, hc: HostCache): string {
  const lines = ['\nIP address        MTU  SSTRESH      RTT   RTTVAR     CWND HITS  UPD  EXP'];
  const now = nowNs();
  for (const first of hc.buckets)
    for (let e = first; e !== null; e = e.next) {
      const m = e.metrics;
      const ms = (v: number, shift: number): string => `${(v / (1 << shift)).toFixed(0)}ms`;
      const cols = [
        String(m.rmx_mtu).padStart(5),
        String(m.rmx_ssthresh).padStart(8),
        ms(m.rmx_rtt, TCP_RTT_SHIFT).padStart(8),
        ms(m.rmx_rttvar, TCP_RTTVAR_SHIFT).padStart(8),
        String(m.rmx_cwnd).padStart(8),
        String(e.hits).padStart(4),
        String(e.updates).padStart(4),
        String(Math.max(Math.round((e.expiresNs - now) / 1e9), 0)).padStart(4),
      ];
      const name = inpaf(tcp.vnet, e.inc.inc_family).print(tcp.vnet, e.inc, true);
      lines.push(`${name.padEnd(15)} ${cols.join(' ')}`);
    }
  return lines.join('\n');
}

function sysctls(tcp: TcpVnet, hc: HostCache): void {
  const { sysctl: tree } = tcp.vnet;
  const name = (leaf: string): string => `net.inet.tcp.hostcache.${leaf}`;
  tree.boolField(name('enable'), 'Enable the TCP hostcache', hc, 'enable');
  tree.int(name('cachelimit'), 'Overall entry limit for hostcache', () => hc.cachelimit, null);
  tree.int(name('hashsize'), 'Size of TCP hostcache hashtable', () => HASHSIZE, null);
  tree.int(name('bucketlimit'), 'Per-bucket hash limit for hostcache', () => hc.bucketlimit, null);
  tree.int(name('count'), 'Current number of entries in hostcache', () => hc.count, null);
  tree.intField(
    name('expire'),
    'Expire time of TCP hostcache entries, s',
    hc,
    'expire',
    1,
    0x7fffffff,
  );
  tree.intField(name('prune'), 'Time between purge runs, s', hc, 'prune', 1, 0x7fffffff);
  tree.intField(name('purge'), 'Expire all entries on next purge run', hc, 'purge', 0, 2);
  tree.int(
    name('purgenow'),
    'Immediately purge all entries',
    () => 0,
    (v) => {
      if (v !== 0) tcpHcPurge(tcp);
    },
    0,
    1,
  );
  tree.string(name('list'), 'List of all hostcache entries', () => list(tcp, hc));
}

/** Creates the host cache of a stack and its sysctls. @see sys/netinet/tcp_hostcache.c */
export function tcp_hc_init(tcp: TcpVnet): void {
  V_hc(tcp.vnet);
}
