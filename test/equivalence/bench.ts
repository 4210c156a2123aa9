/**
 * One arena, one wire, one build of `tn` at a time, and a script of steps by a driver, a peer and
 * an event loop. `play` runs the script and records everything that can be observed of the device.
 */

import { loadAddon } from '../../native-bindings/index.ts';
import { CAPTURE_POINTS_MAX, CaptureRing, type CaptureSink } from '../../src/sys/capture.ts';
import { EIO } from '../../src/sys/errno.ts';
import { reasonCounts, resetReasons } from '../../src/sys/reason.ts';
import type { Wire, WireListener } from '../../src/sys/wire.ts';
import {
  arenaSet,
  captureRingOff,
  deviceSramOff,
  mem,
  memView,
  ramBytes,
} from '../../src/vm/arena.ts';
import { allocArena } from '../../src/host/arena.ts';
import { NativeCksum } from '../../src/host/cksum.ts';
import { resultFromLinux } from '../../src/host/linux_errno.ts';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { NativeTnDevice } from '../../src/host/native_tn.ts';
import { busDmaInit } from '../../src/bus/bus_dma.ts';
import { RamDmaPort } from '../../src/bus/dma_port.ts';
import type { MmioRegion } from '../../src/bus/device.ts';
import { TnDevice } from '../../src/dev/tn/tn.ts';

export type Build = 'ts' | 'native';

/** RAM crosses the 4 GiB line, so that both halves of an address matter. */
export const BASE = 0xffe0_0000;
export const MAC = Uint8Array.from([2, 0, 0, 0, 0, 1]);
/** A small capture ring, whose data area records of 64 bytes fill exactly. */
const CAPTURE_BYTES = 8192;
/** A buffer for the peer's frames: in the region of on-board memory, after the device's own. */
const PEER_OFF = 65536;
const PEER_BYTES = 131072;

/** One step of a script. `reg` is a register offset, `at` an offset into the arena. */
export type Step =
  | { do: 'write'; reg: number; value: number }
  | { do: 'read'; reg: number }
  /** The driver writes memory. */
  | { do: 'words'; at: number; words: number[] }
  | { do: 'bytes'; at: number; bytes: Uint8Array }
  /** The peer sends a frame, with its virtio-net header in mode vnet. */
  | { do: 'send'; frame: Uint8Array }
  /** The peer takes up to `n` frames; wireWritable is called if the device armed it. */
  | { do: 'take'; n: number }
  /** The loop calls wireReadable if the device has enabled it. */
  | { do: 'poll' }
  /** The loop runs its posted turns. */
  | { do: 'turn' }
  | { do: 'link'; up: boolean }
  | { do: 'time'; ns: number }
  /** Captures begin at `points` (bit 1 << point); with a snap length of 0 they end. */
  | { do: 'listen'; snaplen: number; points: number; meta: boolean }
  /** The host drains the capture ring. */
  | { do: 'drain' }
  | { do: 'hangup' };

/** Options of a device and its wire. */
export interface Setup {
  vnet: boolean;
  timer: boolean;
  /** Bytes a socket holds before EAGAIN; 0 for the system's default. */
  room: number;
}

/** Everything observed of a run. */
export interface Outcome {
  /** One line per step: the value read, the interrupt line, requests to the event loop. */
  log: string[];
  frames: string[];
  stats: number[];
  reasons: Record<string, number>;
  captured: string;
}

const scratch = new Uint32Array(2);

/** One end of a socket pair, without an event loop. */
class PairWire implements Wire {
  readonly vnetHdr: boolean;
  readonly fd: number;
  listener: WireListener | null = null;
  readable = false;
  armed = false;
  closed = false;

  constructor(fd: number, vnetHdr: boolean) {
    this.fd = fd;
    this.vnetHdr = vnetHdr;
  }

  writev(iov: Uint32Array, iovcnt: number): number {
    return resultFromLinux(loadAddon().frameWritev(this.fd, iov, iovcnt));
  }

  readv(iov: Uint32Array, iovcnt: number): number {
    const n = loadAddon().frameReadv(this.fd, iov, iovcnt);
    return n === 0 ? -EIO : resultFromLinux(n);
  }

  armWritable(): void {
    this.armed = true;
  }

  setReadable(on: boolean): void {
    this.readable = on;
  }

  setListener(listener: WireListener | null): void {
    this.listener = listener;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    loadAddon().fdClose(this.fd);
  }
}

type Device = MmioRegion & WireListener & { readonly stats: Float64Array; close(): void };

let pristine: Buffer = Buffer.alloc(0);

/**
 * Allocates the arena of 16 MiB and fills it with a pattern that hardly ever forms a valid
 * descriptor. Once per suite.
 */
export function benchInit(): void {
  arenaSet(allocArena(16 << 20), BASE);
  // A machine that ran before in this process may have left its IOMMU or checker on.
  busDmaInit();
  const bytes = Buffer.alloc(ramBytes);
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 167 + (i >>> 12)) & 0xff;
  pristine = bytes;
}

/** RAM as the device and the driver left it. */
export function ramImage(): Buffer {
  return Buffer.from(mem.buffer, 0, ramBytes);
}

class Bench {
  readonly clock = new ManualClock({ startNs: 5_250_000_000, bootSec: 1767225600.9 });
  readonly wire: PairWire;
  readonly peer: PairWire;
  readonly dev: Device;
  readonly ring: CaptureRing;
  readonly frames: string[] = [];
  readonly log: string[] = [];
  #raised = 0;
  #kicked = 0;
  readonly #sink: CaptureSink = {
    captureRecord: (record) => {
      const { off, caplen, metaOff, metaLen } = record;
      const bytes = Buffer.from(mem.buffer, off, caplen).toString('latin1');
      const meta = Buffer.from(mem.buffer, metaOff, metaLen).toString('hex');
      this.log.push(`${Object.values(record).join(' ')} ${meta} ${bytes}`);
    },
  };

  constructor(build: Build, { vnet, timer, room }: Setup) {
    mem.set(pristine, 0);
    mem.fill(0, captureRingOff(), captureRingOff() + CAPTURE_BYTES);
    resetReasons();
    const fds = new Int32Array(2);
    if (loadAddon().socketPair(fds, room) !== 0) throw new Error('socketpair');
    this.wire = new PairWire(fds[0]!, vnet);
    this.peer = new PairWire(fds[1]!, vnet);
    this.ring = new CaptureRing(mem, memView, captureRingOff(), CAPTURE_BYTES, this.clock);
    this.ring.setDrainTask({ run: () => this.#kicked++ });
    const common = {
      intr: { raise: () => void this.#raised++ },
      wire: this.wire,
      clock: this.clock,
      mode: vnet ? ('vnet' as const) : ('wire' as const),
      mac: MAC,
      timer: timer ? this.clock : null,
    };
    if (build === 'native') {
      const capture = {
        off: captureRingOff(),
        bytes: CAPTURE_BYTES,
        unit: 7,
        kick: () => this.ring.kick(),
      };
      this.dev = new NativeTnDevice({ ...common, ramBase: BASE, ramBytes, capture });
    } else {
      this.dev = new TnDevice({
        ...common,
        dma: new RamDmaPort(),
        cksum: new NativeCksum(mem.buffer),
        mem,
        view: memView,
        sramOff: deviceSramOff(),
        capture: this.ring.tap(7),
      });
    }
  }

  step(s: Step): void {
    let seen = '';
    switch (s.do) {
      case 'write':
        this.dev.write32(s.reg, s.value);
        break;
      case 'read':
        seen = this.dev.read32(s.reg).toString(16);
        break;
      case 'words':
        s.words.forEach((w, i) => memView.setUint32(s.at + 4 * i, w >>> 0, true));
        break;
      case 'bytes':
        mem.set(s.bytes, s.at);
        break;
      case 'send':
        seen = String(this.#send(s.frame));
        break;
      case 'take':
        seen = String(this.#take(s.n));
        if (this.wire.armed) {
          this.wire.armed = false;
          this.wire.listener?.wireWritable();
        }
        break;
      case 'poll':
        if (this.wire.readable) this.wire.listener?.wireReadable();
        break;
      case 'turn':
        this.clock.runPosted();
        break;
      case 'link':
        this.wire.listener?.wireState(s.up, 0);
        break;
      case 'time':
        this.clock.advance(s.ns);
        break;
      case 'listen':
        for (let point = 0; point < CAPTURE_POINTS_MAX; point++)
          this.ring.setPoint(point, (s.points & (1 << point)) !== 0 ? s.snaplen : 0);
        this.ring.metaWanted = s.meta && s.snaplen > 0;
        break;
      case 'drain':
        seen = String(this.ring.drain(this.#sink));
        break;
      case 'hangup':
        this.peer.close();
        break;
    }
    const { readable, armed } = this.wire;
    this.log.push(
      `${s.do} ${seen}${this.#raised > 0 ? ' intr' : ''}${readable ? ' rd' : ''}${armed ? ' arm' : ''}${this.clock.idle ? '' : ' busy'}`,
    );
    this.#raised = 0;
  }

  #send(frame: Uint8Array): number {
    if (this.peer.closed) return 0;
    scratch[0] = deviceSramOff() + PEER_OFF;
    scratch[1] = frame.length;
    mem.set(frame, scratch[0]);
    return this.peer.writev(scratch, 1);
  }

  #take(limit: number): number {
    if (this.peer.closed) return 0;
    const off = deviceSramOff() + PEER_OFF;
    for (let n = 0; n < limit; n++) {
      scratch[0] = off;
      scratch[1] = PEER_BYTES;
      const len = this.peer.readv(scratch, 1);
      if (len < 0) return n;
      this.frames.push(Buffer.from(mem.buffer, off, len).toString('latin1'));
    }
    return limit;
  }

  /** Runs turns and takes frames until the device waits for nothing, for at most 100 rounds. */
  settle(): void {
    for (let i = 0; i < 100; i++) {
      this.step({ do: 'turn' });
      this.step({ do: 'take', n: 10_000 });
      this.step({ do: 'poll' });
      if (!this.wire.armed) break;
    }
    this.step({ do: 'turn' });
  }

  outcome(): Outcome {
    const stats = [...this.dev.stats];
    const reasons = Object.fromEntries(
      reasonCounts()
        .filter(({ count }) => count > 0)
        .map(({ layer, reason, count }) => [`${layer}.${reason}`, count]),
    );
    const at = captureRingOff();
    const captured = Buffer.from(mem.buffer, at, CAPTURE_BYTES).toString('latin1');
    return { log: this.log, frames: this.frames, stats, reasons, captured };
  }

  close(): void {
    this.dev.close();
    this.wire.close();
    this.peer.close();
  }
}

/** Runs `steps` on a new device of `build`, and leaves RAM as the device left it. */
export function play(build: Build, setup: Setup, steps: readonly Step[]): Outcome {
  const bench = new Bench(build, setup);
  try {
    for (const s of steps) bench.step(s);
    bench.settle();
    return bench.outcome();
  } finally {
    bench.close();
  }
}
