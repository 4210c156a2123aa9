import { expect } from 'chai';
import { File } from '../../src/kern/kern_descrip.ts';
import {
  SF_FLAGS,
  SF_NOCACHE,
  SF_NODISKIO,
  SF_SYNC,
  SF_USER_READAHEAD,
} from '../../src/kern/sendfile_flags.ts';
import { m_freem, mbParams, mbufZones } from '../../src/kern/kern_mbuf.ts';
import { M_NOWAIT } from '../../src/kern/mbuf.ts';
import { m_copym } from '../../src/kern/uipc_mbuf.ts';
import type { UmaZone } from '../../src/kern/uma.ts';
import { sbavail, sbdrop, sbsndOff, sbsndptr_noadv } from '../../src/kern/uipc_sockbuf.ts';
import { soclose, type Socket, sowwakeup, SS_NOFDREF } from '../../src/kern/uipc_socket.ts';
import { sfstat } from '../../src/kern/sendfile_io.ts';
import { ECANCELED, EPIPE } from '../../src/sys/errno.ts';
import { counted, R_SF_IOERR, R_VM_WAIT } from '../../src/sys/reason.ts';
import { inPass } from '../../src/sys/pass.ts';
import type { ManualClock } from '../../src/host/manual_clock.ts';
import { below, SeededPrng } from '../../src/host/prng.ts';
import { SimPager } from '../../src/host/sim_pager.ts';
import { mem } from '../../src/vm/arena.ts';
import { vm_page_alloc_noobj, vm_page_unwire, vmPageCounts } from '../../src/vm/vm_page.ts';
import { bootDisk, bootKern, expectAllBack } from './boot.ts';
import { chainBytes, must } from './chains.ts';
import { fileBytes } from './disk.ts';
import { Call, expectNoPayloadReads } from './sendfile_rig.ts';
import { connectedSocket, dropConnection, pcbOf } from './testproto.ts';

const SEEDS = 200;

/** Grows a zone to `n` items and makes that its limit. */
function growZone<T>(zone: UmaZone<T>, n: number): void {
  const items = Array.from({ length: n }, () => must(zone.alloc()));
  for (const item of items) zone.free(item);
  zone.max = n;
}

/** A call, and the bytes it sends if it completes. */
interface Made {
  call: Call;
  would: Uint8Array;
  /** Bytes that may be missing without an error: the trailers of a non-blocking call. */
  less: number;
}

/** One connection: its calls, and a peer that takes data at random times. */
class Conn {
  readonly so: Socket;
  readonly made: Made[] = [];
  readonly received: Uint8Array[] = [];
  readonly #world: World;
  /**
   * False once the connection is reset, closed or failed. While true, all accepted bytes must
   * arrive.
   */
  alive = true;
  inFlight = 0;

  constructor(world: World) {
    this.#world = world;
    this.so = connectedSocket(8192 << world.below(6));
  }

  /**
   * Takes a segment and acknowledges it; the mbufs of the segment stay in use for some time after
   * that.
   */
  take(): void {
    const sb = this.so.so_snd;
    const len = Math.min(sbavail(sb), 1 + this.#world.below(30_000));
    if (len > 0) {
      const m = must(m_copym(sbsndptr_noadv(sb, 0), sbsndOff.off, len, M_NOWAIT));
      const bytes = chainBytes(m);
      this.received.push(bytes);
      this.inFlight++;
      this.#world.later(3_000_000, () => {
        expect(Buffer.compare(chainBytes(m), bytes), 'a segment changed in flight').to.equal(0);
        m_freem(m);
        this.inFlight--;
      });
      sbdrop(sb, len);
      sowwakeup(this.so);
    }
    if (!this.#world.over) this.#world.later(1_000_000, () => this.take());
  }

  check(): void {
    const said = this.made.map(({ call, would, less }) => {
      expect(call.heard, 'the call ended once').to.have.lengthOf(1);
      expect(call.heard[0]!.sbytes).to.be.at.most(would.length);
      if (call.heard[0]!.error === 0)
        expect(call.heard[0]!.sbytes).to.be.at.least(would.length - less);
      return would.subarray(0, call.heard[0]!.sbytes);
    });
    const accepted = Buffer.concat(said);
    const got = Buffer.concat(this.received);
    if (this.alive) expect(got.length, 'all accepted bytes').to.equal(accepted.length);
    expect(got.length).to.be.at.most(accepted.length);
    expect(Buffer.compare(got, accepted.subarray(0, got.length)), 'bytes').to.equal(0);
  }
}

/** One run: files, connections, a disk with random delays and errors, and random accidents. */
class World {
  readonly clock: ManualClock;
  readonly prng: SeededPrng;
  readonly pager: SimPager;
  readonly files: { file: File; bytes: Uint8Array }[] = [];
  readonly conns: Conn[] = [];
  readonly hogged: number[] = [];
  over = false;
  holes = 0;

  constructor(seed: number) {
    this.prng = new SeededPrng(seed);
    this.clock = bootKern(this.below(3) === 0 ? 8 + this.below(30) : 4096);
    this.clock.advance(1_000_000_000);
    mbParams.mb_use_ext_pgs = this.below(4) !== 0;
    this.pager = bootDisk(
      new SimPager({
        arena: mem.buffer,
        clock: this.clock,
        prng: this.prng,
        latencyMinNs: 1000,
        latencyMaxNs: 1 + this.below(5_000_000),
        errorRate: this.below(3) === 0 ? 0.1 : 0,
      }),
    );
    for (let i = 0; i < 4; i++) this.addFile();
    this.clock.advance(1_000_000_000); // the files are old enough to stay cached
    for (let i = 0; i < 4; i++) this.conns.push(new Conn(this));
    if (this.below(2) === 0) this.hog();
  }

  below(n: number): number {
    return below(this.prng, n);
  }

  /** Runs `fn` in its own pass within `maxNs`. */
  later(maxNs: number, fn: () => void): void {
    const run = (): void => {
      inPass(() => {
        fn();
      });
    };
    this.clock.schedule(this.clock.nowNs() + 1 + this.below(maxNs), { run });
  }

  addFile(): void {
    const size = [0, 1, 4096, 77_824, 150_000][this.below(8)] ?? this.below(300_000);
    const bytes = fileBytes(size, 1 + this.below(1e6));
    const fd = this.pager.open(bytes);
    const disk = this.pager.file(fd);
    if (this.below(3) === 0) {
      const from = this.below(size);
      disk.punch(from, from + this.below(size - from + 1) + 1);
      this.holes++;
    }
    this.files.push({ file: new File(fd, (n) => this.pager.close(n)), bytes: disk.bytes });
  }

  /** Takes memory: the zones cannot grow, and few pages are left for files. */
  hog(): void {
    const { mbuf, clust, jumbop, extpgs } = mbufZones();
    growZone(mbuf, 300);
    growZone(extpgs, 100);
    growZone(clust, 20);
    growZone(jumbop, 20);
    const left = 5 + this.below(100);
    while (vmPageCounts().free > left) this.hogged.push(vm_page_alloc_noobj());
  }

  request(conn: Conn): void {
    if (!conn.alive) return;
    const { file, bytes } = this.files[this.below(this.files.length)]!;
    const offset = this.below(2) === 0 ? 0 : this.below(bytes.length + 10);
    const nbytes = this.below(2) === 0 ? 0 : 1 + this.below(100_000);
    const hdr = this.below(2) === 0 ? [] : [fileBytes(this.below(5000), 3)];
    const trl = this.below(4) !== 0 ? [] : [fileBytes(this.below(500), 4)];
    let flags = [0, 0, 0, SF_SYNC, SF_NOCACHE, SF_NODISKIO][this.below(6)]!;
    if (this.below(3) === 0) flags |= SF_FLAGS(this.below(40), SF_USER_READAHEAD);
    const data = bytes.subarray(offset, nbytes === 0 ? undefined : offset + nbytes);
    const would = Buffer.concat([...(data.length > 0 ? hdr : []), data, ...trl]);
    const nonblocking = this.below(8) === 0;
    const o = { offset, nbytes, flags, nonblocking, headers: hdr, trailers: trl };
    const call = new Call(conn.so, file, o);
    if (call.started !== 0) return;
    const less = nonblocking && trl.length > 0 ? Math.max(trl[0]!.length - 1, 0) : 0;
    conn.made.push({ call, would, less });
  }

  accident(): void {
    const conn = this.conns[this.below(this.conns.length)]!;
    if (!conn.alive) return;
    switch (this.below(5)) {
      case 0:
        conn.alive = false;
        return dropConnection(conn.so, EPIPE);
      case 1:
        conn.alive = false;
        soclose(conn.so);
        return;
      case 2: {
        const made = conn.made[this.below(conn.made.length + 1)];
        made?.call.call?.cancel(ECANCELED);
        return;
      }
      case 3: {
        // The program closes one of its files; calls and reads in flight continue.
        const i = this.below(this.files.length);
        this.files[i]!.file.drop();
        this.files.splice(i, 1);
        this.addFile();
        return;
      }
      default:
        mbParams.mb_use_ext_pgs = !mbParams.mb_use_ext_pgs;
    }
  }

  run(): void {
    for (const conn of this.conns) {
      conn.take();
      for (let i = 3 + this.below(4); i > 0; i--) this.later(20_000_000, () => this.request(conn));
    }
    for (let i = this.below(6); i > 0; i--) this.later(30_000_000, () => this.accident());
    const quiet = (): boolean =>
      this.conns.every((c) => c.made.every((m) => m.call.done) && sbavail(c.so.so_snd) === 0);
    this.clock.advance(30_000_000);
    expect(this.clock.runUntil(quiet, 60e9), 'every call ends within a minute').to.equal(true);
    this.over = true;
    expect(this.clock.runUntilIdle(10e9)).to.equal(true);
    for (const conn of this.conns) this.close(conn);
    expect(this.clock.runUntilIdle(10e9)).to.equal(true);
    for (const { file } of this.files) file.drop();
    for (const p of this.hogged) vm_page_unwire(p, false);
  }

  close(conn: Conn): void {
    // A failed read has aborted the connection.
    if ((conn.so.so_state & SS_NOFDREF) !== 0) return;
    if (pcbOf(conn.so).dropped) conn.alive = false;
    // Take the data that became ready after the last `take`.
    while (conn.alive && sbavail(conn.so.so_snd) > 0) {
      this.over = true;
      conn.take();
      this.clock.runUntilIdle(10e9);
    }
    soclose(conn.so);
  }
}

/** Counts over all worlds. A low count means that the runs did not exercise that path. */
const seen = { waits: 0, busy: 0, ioErrors: 0, sfWaits: 0, calls: 0, cut: 0, bogus: 0, holes: 0 };

function tally(world: World): void {
  seen.waits += counted(R_VM_WAIT);
  seen.busy += sfstat.sf_busy;
  seen.ioErrors += counted(R_SF_IOERR);
  seen.sfWaits += sfstat.sf_allocwait;
  seen.bogus += sfstat.sf_pages_bogus;
  seen.holes += world.holes;
  for (const { made } of world.conns) {
    seen.calls += made.length;
    seen.cut += made.filter(({ call }) => call.heard[0]!.error !== 0).length;
  }
}

describe(`sendfile: ${SEEDS} random worlds`, function () {
  this.timeout(60_000);

  it('the peer receives the accepted bytes, every call ends, nothing leaks', () => {
    const first = Number(process.env['TAPNIC_SEED'] ?? 1);
    const seeds = process.env['TAPNIC_SEED'] === undefined ? SEEDS : 1;
    for (let seed = first; seed < first + seeds; seed++) {
      try {
        const world = new World(seed);
        world.run();
        for (const conn of world.conns) {
          expect(conn.inFlight).to.equal(0);
          conn.check();
        }
        expectNoPayloadReads();
        expectAllBack();
        tally(world);
      } catch (error) {
        throw new Error(`TAPNIC_SEED=${seed}: ${String(error)}`, { cause: error });
      }
    }
    if (seeds > 1)
      for (const [what, n] of Object.entries(seen)) expect(n, what).to.be.above(SEEDS / 10);
  });
});
