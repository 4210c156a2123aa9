/**
 * A directory whose files are looked up, read and closed on threads of the addon. A look-up that the
 * kernel can answer from its cache, on a local file system, needs no thread. One file system that does
 * not answer must not delay the others: jobs on the directory's own file system and on file systems
 * mounted below it have separate limits, and each job has a time-out.
 */

import { linuxErrnoName, loadAddon, type NativeAddon } from '../../native-bindings/index.ts';
import type { Entries, FileStamp, Folder, LookedUp } from '../sys/folder.ts';
import { check } from './linux_errno.ts';
import { remoteReadDone } from './pager.ts';
import { FdPoll, POLL_READABLE } from './poll.ts';

/** Concurrent jobs on the directory's own file system, and on what is mounted below one name. */
const OWN_MAX = 16;
const MOUNT_MAX = 8;
/** Concurrent jobs on all mounted file systems. */
const MOUNTS_MAX = 64;
/** Limit of waiting jobs. */
const WAITING_MAX = 2048;
/** Time-out of a job, milliseconds. */
const TIMEOUT_MS = 5000;
const SWEEP_MS = 500;

const LOOKUP = 0;
const READ_DIR = 1;
const CLOSE = 2;
/** The type of a result that belongs to the pager. */
const PAGE_IN = 4;
const CROSS = 1;
const OPEN_DIR = 2;
const DATA_BYTES = 32768;
/** Numbers of a FileStamp, and of the addon's fileStat, which begins with them. */
const STAMP_LENGTH = 7;
const STAT_LENGTH = 8;
const KINDS = ['other', 'file', 'directory', 'other'] as const;

/** Jobs that share a limit, because the same hung file system may block them. */
class Lane {
  readonly mounted: boolean;
  readonly max: number;
  running = 0;
  waiting: Job[] = [];

  constructor(mounted: boolean, max: number) {
    this.mounted = mounted;
    this.max = max;
  }
}

interface Job {
  readonly kind: 0 | 1 | 2;
  readonly flags: number;
  readonly fd: number;
  readonly path: Buffer;
  readonly rootLen: number;
  readonly lane: Lane;
  readonly startedMs: number;
  /** Called with the result or an error code. After ETIMEDOUT a late result may follow. */
  readonly finish: (code: string | null, out: Float64Array, data: Buffer) => void;
  givenUp: boolean;
}

/** The result of a look-up, from what the addon returns. */
function foundIn(code: string | null, out: Float64Array, data: Buffer): LookedUp {
  const kind = KINDS[out[3]!] ?? 'other';
  const mtimeMs = out[5]! * 1000 + out[6]! / 1e6;
  const fd = code === null ? out[2]! : -1;
  return { code, kind, fd, size: out[4]!, mtimeMs, path: data.toString('latin1') };
}

const NOTHING = Buffer.alloc(0);
const SLASH = Buffer.from('/');
const noResult = new Float64Array(7);

/** The jobs of the isolate: the addon has one queue. */
class Jobs {
  readonly #addon: NativeAddon;
  readonly #out = new Float64Array(7);
  readonly #data = Buffer.alloc(DATA_BYTES);
  readonly #running = new Map<number, Job>();
  readonly #lanes = new Set<Lane>();
  #waiting = 0;
  #mounts = 0;
  #lastId = 0;
  #sweep: NodeJS.Timeout | null = null;

  constructor() {
    this.#addon = loadAddon();
    const fd = check(this.#addon.fileJobsOpen(), 'eventfd');
    new FdPoll(fd, { pollEvent: () => this.#fetch() }, false).watch(POLL_READABLE);
  }

  start(job: Job): void {
    if (this.#waiting >= WAITING_MAX && job.kind !== CLOSE) {
      job.finish('EAGAIN', noResult, NOTHING);
      return;
    }
    job.lane.waiting.push(job);
    this.#waiting++;
    this.#lanes.add(job.lane);
    this.#sweep ??= setInterval(() => this.#expire(), SWEEP_MS).unref();
    this.#pump(job.lane);
  }

  /** Looks `path` up if nothing on the way can block, else returns null. */
  lookupCached(flags: number, path: Buffer, rootLen: number): LookedUp | null {
    const out = this.#out;
    const bytes = this.#addon.fileLookupCached(flags, path, rootLen, out, this.#data);
    return bytes < 0 ? null : foundIn(null, out, this.#data.subarray(0, bytes));
  }

  statCached(path: Uint8Array, out: Float64Array): boolean {
    return this.#addon.fileStatCached(path, out) === 0;
  }

  stat(fd: number, out: Float64Array): boolean {
    return this.#addon.fileStat(fd, out) === 0;
  }

  #pump(lane: Lane): void {
    while (lane.waiting.length > 0 && lane.running < lane.max) {
      if (lane.mounted && this.#mounts >= MOUNTS_MAX) return;
      const job = lane.waiting.shift()!;
      this.#waiting--;
      const id = this.#freeId();
      const { kind, flags, fd, path, rootLen } = job;
      const error = this.#addon.fileJob(id, kind, flags, fd, path, rootLen);
      if (error === 1) continue; // closed
      if (error !== 0) {
        job.finish(linuxErrnoName(-error), noResult, NOTHING);
        continue;
      }
      this.#running.set(id, job);
      lane.running++;
      if (lane.mounted) this.#mounts++;
    }
    this.#rest(lane);
  }

  #freeId(): number {
    do this.#lastId = (this.#lastId + 1) & 0x7fffffff;
    while (this.#running.has(this.#lastId));
    return this.#lastId;
  }

  #fetch(): void {
    const out = this.#out;
    for (;;) {
      const bytes = this.#addon.fileJobNext(out, this.#data);
      if (bytes < 0) return;
      if (out[3] === PAGE_IN) {
        remoteReadDone(out[0]!, out[1]!, out[4]!);
        continue;
      }
      const job = this.#running.get(out[0]!)!;
      this.#running.delete(out[0]!);
      const { lane } = job;
      lane.running--;
      if (lane.mounted) this.#mounts--;
      const code = out[1] === 0 ? null : linuxErrnoName(-out[1]!);
      job.finish(code, out, this.#data.subarray(0, bytes));
      if (lane.mounted) for (const other of this.#lanes) this.#pump(other);
      else this.#pump(lane);
    }
  }

  /** Ends the sweep when no lane has a job. */
  #rest(lane: Lane): void {
    if (lane.running === 0 && lane.waiting.length === 0) this.#lanes.delete(lane);
    if (this.#lanes.size > 0 || this.#sweep === null) return;
    clearInterval(this.#sweep);
    this.#sweep = null;
  }

  /** Reports ETIMEDOUT for jobs that take too long. Threads continue the ones they have started. */
  #expire(): void {
    const before = performance.now() - TIMEOUT_MS;
    const late = (job: Job): boolean =>
      job.kind !== CLOSE && !job.givenUp && job.startedMs < before;
    for (const job of this.#running.values()) if (late(job)) this.#giveUp(job);
    for (const lane of this.#lanes) {
      const lates = lane.waiting.filter(late);
      lane.waiting = lane.waiting.filter((job) => !late(job));
      this.#waiting -= lates.length;
      for (const job of lates) this.#giveUp(job);
    }
  }

  #giveUp(job: Job): void {
    job.givenUp = true;
    job.finish('ETIMEDOUT', noResult, NOTHING);
  }
}

let jobs: Jobs | null = null;

/** A directory of the real file system. */
export class NativeFolder implements Folder {
  readonly #root: Buffer;
  readonly #jobs: Jobs;
  readonly #own = new Lane(false, OWN_MAX);
  /** By the first component of the name. */
  readonly #mounted = new Map<string, Lane>();
  readonly #now = new Float64Array(STAMP_LENGTH);
  /** The lane of each open descriptor. */
  readonly #open = new Map<number, Lane>();

  /** @param root the real path of the directory. Throws TapnicError if the addon has no descriptor. */
  constructor(root: string) {
    this.#root = Buffer.from(root);
    jobs ??= new Jobs();
    this.#jobs = jobs;
  }

  async lookup(name: Buffer, openDir: boolean): Promise<LookedUp> {
    const flags = openDir ? OPEN_DIR : 0;
    const found = await this.#lookupIn(this.#own, name, flags);
    // EXDEV: a mount, or a link with an absolute target, is on the way.
    return found.code === 'EXDEV' ? this.#lookupIn(this.#mount(name), name, flags | CROSS) : found;
  }

  #mount(name: Buffer): Lane {
    const slash = name.indexOf(0x2f);
    const key = name.toString('latin1', 0, slash < 0 ? name.length : slash);
    let lane = this.#mounted.get(key);
    if (lane === undefined) {
      for (const [old, { running, waiting }] of this.#mounted)
        if (running === 0 && waiting.length === 0) this.#mounted.delete(old);
      lane = new Lane(true, MOUNT_MAX);
      this.#mounted.set(key, lane);
    }
    return lane;
  }

  #lookupIn(lane: Lane, name: Buffer, flags: number): Promise<LookedUp> {
    const path = Buffer.concat([this.#root, name]);
    if ((flags & CROSS) === 0) {
      const cached = this.#jobs.lookupCached(flags, path, this.#root.length);
      if (cached !== null) {
        if (cached.fd >= 0) this.#open.set(cached.fd, lane);
        return Promise.resolve(cached);
      }
    }
    return new Promise((resolve) => {
      let answered = false;
      this.#start(LOOKUP, flags, -1, path, lane, (code, out, data) => {
        const found = foundIn(code, out, data);
        if (found.fd >= 0) this.#open.set(found.fd, lane);
        if (answered) {
          if (found.fd >= 0) this.close(found.fd);
          return;
        }
        answered = true;
        resolve(found);
      });
    });
  }

  stamp(name: Buffer, fd: number): FileStamp | null {
    const path = Buffer.concat([this.#root, SLASH, name]);
    const stat = new Float64Array(STAT_LENGTH);
    const stamp = { path, stat };
    return this.#jobs.stat(fd, stat) && this.unchanged(stamp) ? stamp : null;
  }

  unchanged({ path, stat }: FileStamp): boolean {
    const now = this.#now;
    if (!this.#jobs.statCached(path, now)) return false;
    for (let i = 0; i < STAMP_LENGTH; i++) if (now[i] !== stat[i]) return false;
    return true;
  }

  readDir(fd: number): Promise<Entries> {
    return new Promise((resolve) => {
      this.#start(READ_DIR, 0, fd, this.#root, this.#laneOf(fd), (code, out, data) =>
        resolve({ code, bytes: Buffer.from(data), end: out[3] === 1 }),
      );
    });
  }

  close(fd: number): void {
    const lane = this.#laneOf(fd);
    this.#open.delete(fd);
    this.#start(CLOSE, 0, fd, NOTHING, lane, () => undefined);
  }

  #laneOf(fd: number): Lane {
    return this.#open.get(fd) ?? this.#own;
  }

  #start(
    kind: Job['kind'],
    flags: number,
    fd: number,
    path: Buffer,
    lane: Lane,
    finish: Job['finish'],
  ): void {
    const rootLen = kind === LOOKUP ? this.#root.length : 0;
    const startedMs = performance.now();
    this.#jobs.start({ kind, flags, fd, path, rootLen, lane, startedMs, givenUp: false, finish });
  }
}
