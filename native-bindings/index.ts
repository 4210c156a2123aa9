/**
 * The addon's functions with types, and the loader. Arguments and results are integers and typed
 * arrays. A negative result is a negated Linux errno, which src/host translates. The comment at
 * each definition in `src/*.cpp` gives the checks and results of a function.
 */

import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { getSystemErrorName } from 'node:util';
import { ADDON_ABI } from './tn_abi.ts';

export interface NativeAddon {
  readonly abi: number;

  // arena.cpp. Every offset below is into the arena allocated or attached last.
  /** 16 MiB to 4 GiB, a multiple of 4096. */
  arenaAlloc(bytes: number): ArrayBuffer | number;
  arenaAttach(fd: number): ArrayBuffer | number;
  arenaFd(): number;

  // io.cpp. `iov` holds `iovcnt` (arena offset, length) pairs, 1 to 1024.
  frameWritev(fd: number, iov: Uint32Array, iovcnt: number): number;
  frameReadv(fd: number, iov: Uint32Array, iovcnt: number): number;
  socketPair(fds: Int32Array, bufBytes: number): number;
  fdClose(fd: number): number;
  fdRelease(fd: number): number;

  // exchange.cpp: workers, each with a queue of one TAP.
  exchangeOpen(workers: number, port: number, seed: number): number;
  exchangeJoin(id: number, worker: number, tap: number, vnetHdr: 0 | 12): number;
  exchangeStats(out: Float64Array): number;
  exchangeLeave(): number;
  flowOwner(frame: Uint8Array, workers: number, port: number, seed: number): number;

  // stream_io.cpp
  fdWrite(fd: number, frame: Uint8Array): number;
  fdRead(fd: number, room: Uint8Array): number;

  // tap.cpp
  tunOpen(): number;
  /** `flags`: 1 NAPI, 2 several queues. */
  tapAttach(fd: number, name: Uint8Array, vnetHdr: 0 | 12, flags: number): number;
  /** `flags`: 1 TUN, 2 several queues. With an empty name the kernel chooses one. */
  tunAttach(fd: number, name: Uint8Array, vnetHdr: 0 | 12, flags: number): number;
  tapAdopt(fd: number): number;
  tapName(fd: number, name: Uint8Array): number;
  /** `what`: 0 offloads, 1 send buffer, 2 carrier, 3 persistence. */
  tapSet(fd: number, what: 0 | 1 | 2 | 3, value: number): number;

  // netlink.cpp
  netlinkOpen(linkEvents: 0 | 1): number;
  linkGet(nl: number, name: Uint8Array, out: Float64Array): number;
  linkSet(nl: number, ifindex: number, flags: number, change: number, mtu: number): number;
  linkSetMac(nl: number, ifindex: number, mac: Uint8Array): number;
  addrSet(nl: number, ifindex: number, addr: Uint8Array, prefixLen: number, add: 0 | 1): number;
  addrGet(nl: number, ifindex: number, addr: Uint8Array): number;
  routeAdd(
    nl: number,
    ifindex: number,
    dst: Uint8Array,
    prefixLen: number,
    gateway: Uint8Array,
  ): number;
  linkByIndex(nl: number, ifindex: number, out: Float64Array, name: Uint8Array): number;
  linkNext(nl: number, ifindex: number): number;

  // netns.cpp
  netnsCreate(name: Uint8Array): number;
  netnsRemove(name: Uint8Array): number;
  netnsOpen(name: Uint8Array): number;
  netnsEnter(fd: number): number;

  // ipc.cpp
  /** Writes pid, uid and gid. */
  peerCred(fd: number, out: Uint32Array): number;
  fileLock(fd: number): number;
  fileShare(fd: number): number;

  // pager.cpp
  readCallback(fn: (id: number, error: number, nbytes: number) => void): number;
  filePread(id: number, fd: number, off: number, iov: Uint32Array, iovcnt: number): number;
  fileStat(fd: number, out: Float64Array): number;
  fileSeek(fd: number, off: number, whence: number): number;
  exitNow(status: number): number;

  // file_jobs.cpp. Kinds: 0 lookup, 1 read a directory, 2 close.
  fileJobsOpen(): number;
  fileLookupCached(
    flags: number,
    path: Uint8Array,
    rootLen: number,
    out: Float64Array,
    data: Uint8Array,
  ): number;
  fileStatCached(path: Uint8Array, out: Float64Array): number;
  fileJob(
    id: number,
    kind: 0 | 1 | 2,
    flags: number,
    fd: number,
    path: Uint8Array,
    rootLen: number,
  ): number;
  fileJobNext(out: Float64Array, data: Uint8Array): number;

  // pcap_filter.cpp
  filterCompile(text: Uint8Array, done: () => void): number;
  filterResult(program: Uint32Array, why: Uint8Array): number;

  // cksum.cpp
  cksum(off: number, len: number, sum: number, scalar: 0 | 1): number;

  // tn_napi.cpp: the NIC `tn`, device build `native`. tn_abi.ts defines the numbers.
  tnOpen(fd: number, mac: Uint8Array, params: Float64Array): number;
  tnClose(id: number): number;
  tnRewire(id: number, fd: number): number;
  /** The register's 32 bits, unsigned. Also 0xffffffff if the device does not exist. */
  tnRead(id: number, off: number): number;
  /** Returns TN_DO_* flags: what the loop must do next. */
  tnWrite(id: number, off: number, value: number): number;
  tnEvent(id: number, event: number): number;
  tnTime(id: number, nowNs: number): number;
  tnTimer(id: number): number;
  tnStats(id: number, out: Float64Array): number;
  tnReasons(id: number, out: Float64Array): number;

  // poll.cpp. Events: 1 readable, 2 writable.
  pollCallback(fn: (id: number, status: number, events: number) => void): number;
  pollOpen(fd: number): number;
  pollEvents(id: number, events: number, ref: 0 | 1): number;
  pollClose(id: number): number;
  /** 1: the event loop has something to do; 0: not within `ns`, at most 1e6. */
  pollSpin(ns: number): number;
}

/**
 * The folders at and above this file that have tapnic's package.json. The compiled file may be one
 * or two folders below the package's.
 */
function packageRoots(): string[] {
  const roots: string[] = [];
  for (let dir = dirname(fileURLToPath(import.meta.url)); ; dir = dirname(dir)) {
    const manifest = join(dir, 'package.json');
    if (existsSync(manifest)) {
      const { name } = JSON.parse(readFileSync(manifest, 'utf8')) as { name?: string };
      if (name === 'tapnic') roots.push(dir);
    }
    if (dirname(dir) === dir) return roots;
  }
}

/**
 * Paths of the addon, in search order: `TAPNIC_ADDON` alone if it is set; otherwise the local
 * build, then the prebuilt one. The local build is first, because in a checkout the prebuilt one
 * may be older.
 */
export function addonPaths(): string[] {
  const override = process.env['TAPNIC_ADDON'];
  if (override !== undefined && override !== '') return [override];
  const prebuilt = `native-bindings/prebuilds/${process.platform}-${process.arch}/tapnic.node`;
  return packageRoots().flatMap((root) => [join(root, 'build/tapnic.node'), join(root, prebuilt)]);
}

/**
 * The command that builds the addon for this system, relative to the working directory if possible.
 */
function buildCommand(force: boolean): string {
  const script = join(packageRoots()[0] ?? '.', 'scripts/build-addon.mjs');
  const near = relative(process.cwd(), script);
  return `node ${near.startsWith('..') ? script : near}${force ? ' --force' : ''}`;
}

let loaded: NativeAddon | undefined;

/**
 * Returns the addon and loads it at the first call. Throws an Error that names the command to run
 * if it is not built, cannot be loaded, or was built from other sources.
 */
export function loadAddon(): NativeAddon {
  if (loaded !== undefined) return loaded;
  const path = addonPaths().find((p) => existsSync(p));
  if (path === undefined)
    throw new Error(`tapnic's addon is not built: run \`${buildCommand(false)}\``);
  let addon: NativeAddon;
  try {
    addon = createRequire(import.meta.url)(path) as NativeAddon;
  } catch (cause) {
    throw new Error(`${path} cannot be loaded: run \`${buildCommand(true)}\``, { cause });
  }
  if (addon.abi !== ADDON_ABI)
    throw new Error(`${path} is of another version: run \`${buildCommand(true)}\``);
  loaded = addon;
  return addon;
}

// libuv has its own names for some numbers, and Node's table has aliases: use the kernel's first
// name.
const preferred: Record<number, string> = { 11: 'EAGAIN', 77: 'EBADFD', 95: 'EOPNOTSUPP' };

/** Returns the symbolic name of a Linux errno, e.g. `EAGAIN` for 11; `E<n>` if it has no name. */
export function linuxErrnoName(errno: number): string {
  const known = preferred[errno];
  if (known !== undefined) return known;
  const alias = Object.entries(constants.errno).find(([, n]) => n === errno);
  if (alias !== undefined) return alias[0];
  try {
    const name = getSystemErrorName(-errno);
    return name.startsWith('Unknown') ? `E${errno}` : name;
  } catch {
    return `E${errno}`;
  }
}
