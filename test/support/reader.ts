/**
 * A TCP client at the far end of a simulated wire that stores the received data. It is written from
 * the RFCs with test/support/frames.ts, without code of the stack under test. It acknowledges at
 * once, or when the test calls `ackAll`, and can limit the data by its window. Left out: sending
 * data, retransmission (except of its SYN), SACK.
 */

import type { SimEnd } from '../../src/host/sim_wire.ts';
import type { ManualClock } from '../../src/host/manual_clock.ts';
import {
  buildArp,
  buildEther,
  buildTcp,
  decodeFrame,
  type DecodeOptions,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  type Frame,
  type TcpInfo,
} from './frames.ts';
import { HOST_ADDR, HOST_MAC, READER_ADDR, READER_MAC } from './reader_addrs.ts';
import { advertisementFor, isSix, toFour, toSix } from './six.ts';

export { HOST_ADDR, HOST_MAC, READER_ADDR, READER_MAC };

const VNET_HDR = 12;
/** virtio-net: the checksum field holds the pseudo-header sum; the receiver completes it. */
const NEEDS_CSUM = 1;
const SYN_AGAIN_NS = 1_000_000_000;
/** Window scale for windows above 65535 bytes. */
const WSCALE = 7;

export interface ReaderOptions {
  /** Default 1460. */
  mss?: number;
  /** Receive window in bytes; below 65536 it is exact. Default 1 MiB. */
  window?: number;
  /** Whether it acknowledges received data; default yes. `ackAll` acknowledges later. */
  acks?: boolean;
  sport?: number;
}

/** One connection, from its SYN on. */
export class Reader {
  readonly sport: number;
  window: number;
  acks: boolean;
  established = false;
  /** The peer's FIN or RST was received. */
  eof = false;
  reset = false;
  /** Payload lengths of the received data segments. */
  readonly segments: number[] = [];
  readonly #wire: ReaderPort;
  readonly #mss: number;
  readonly #wscale: number;
  #iss = 0x10000000;
  #rcvNxt = 0;
  #tsRecent = 0;
  readonly #parts: Uint8Array[] = [];
  #length = 0;
  readonly #ahead = new Map<number, Uint8Array>();

  constructor(wire: ReaderPort, options: ReaderOptions) {
    this.#wire = wire;
    this.sport = options.sport ?? 40_000;
    this.#mss = options.mss ?? 1460;
    this.window = options.window ?? 1 << 20;
    this.acks = options.acks ?? true;
    this.#wscale = this.window > 65535 ? WSCALE : 0;
    this.#syn();
  }

  /** Bytes received in order. */
  get length(): number {
    return this.#length;
  }

  get received(): Uint8Array {
    return Uint8Array.from(Buffer.concat(this.#parts));
  }

  #syn(): void {
    if (this.established || this.reset) return;
    this.#send('S', { seq: this.#iss, ack: 0, mss: this.#mss, wscale: this.#wscale });
    this.#wire.clock.schedule(this.#wire.clock.nowNs() + SYN_AGAIN_NS, { run: () => this.#syn() });
  }

  #send(flags: string, more: { seq: number; ack: number; mss?: number; wscale?: number }): void {
    const val = Math.floor(this.#wire.clock.nowNs() / 1e6) >>> 0;
    const win = Math.min(flags === 'S' ? this.window : this.window >>> this.#wscale, 65535);
    this.#wire.send(
      buildEther(
        { src: READER_MAC, dst: HOST_MAC },
        ETHERTYPE_IPV4,
        buildTcp(
          { src: READER_ADDR, dst: HOST_ADDR },
          {
            sport: this.sport,
            dport: 80,
            flags,
            win,
            ts: { val, ecr: this.#tsRecent },
            ...more,
          },
        ),
      ),
    );
  }

  /** Acknowledges all received data, and acknowledges at once from now on. */
  ackAll(): void {
    this.acks = true;
    this.#ack();
  }

  #ack(): void {
    this.#send('.', { seq: (this.#iss + 1) >>> 0, ack: this.#rcvNxt });
  }

  /** Resets the connection. */
  abort(): void {
    this.reset = true;
    this.#send('R', { seq: (this.#iss + 1) >>> 0, ack: 0 });
  }

  /** Handles a received segment. ReaderPort calls it. */
  segment(tcp: TcpInfo): void {
    if (this.reset) return;
    if (tcp.flags.includes('R')) {
      this.reset = true;
      this.eof = true;
      return;
    }
    if (tcp.ts !== undefined) this.#tsRecent = tcp.ts.val;
    if (tcp.flags.includes('S')) {
      this.#rcvNxt = (tcp.seq + 1) >>> 0;
      this.established = true;
      this.#ack();
      return;
    }
    if (!this.established) return;
    if (tcp.payload.length > 0) this.segments.push(tcp.payload.length);
    const before = this.#rcvNxt;
    this.#take(tcp.seq, tcp.payload);
    if (tcp.flags.includes('F') && (tcp.seq + tcp.payload.length) >>> 0 === this.#rcvNxt) {
      if (!this.eof) this.#rcvNxt = (this.#rcvNxt + 1) >>> 0;
      this.eof = true;
    }
    const told = tcp.payload.length > 0 || this.#rcvNxt !== before;
    if (this.acks && told) this.#ack();
  }

  #take(seq: number, payload: Uint8Array): void {
    if (payload.length === 0) return;
    const old = (this.#rcvNxt - seq) | 0;
    if (old >= payload.length) return;
    if (old < 0) {
      this.#ahead.set(seq, payload);
      return;
    }
    const fresh = payload.subarray(old);
    this.#parts.push(fresh);
    this.#length += fresh.length;
    this.#rcvNxt = (this.#rcvNxt + fresh.length) >>> 0;
    // Segments received out of order may be in order now.
    for (const [at, bytes] of this.#ahead) {
      if (((this.#rcvNxt - at) | 0) < 0) continue;
      this.#ahead.delete(at);
      this.#take(at, bytes);
    }
  }
}

/** The test's end of a simulated or real link. */
export type TestEnd = Pick<SimEnd, 'vnetHdr' | 'onFrame' | 'inject'>;

/**
 * The far end of the wire: answers ARP, passes TCP segments to their readers, stores every frame.
 */
export class ReaderPort {
  readonly clock: ManualClock;
  /** Frames of the host under test, without virtio-net headers, as they arrived. */
  readonly frames: Uint8Array[] = [];
  /** With virtio-net: the header of each frame in `frames`. */
  readonly vnetHeaders: Uint8Array[] = [];
  readonly readers = new Map<number, Reader>();
  /** Called with every decoded frame before it is handled. */
  onFrame: ((frame: Frame) => void) | null = null;
  /** Whether the readers' segments are sent over IPv6. */
  six = false;
  /** The VLAN of the readers, or null. Frames with another tag are stored but not handled. */
  vlan: number | null = null;
  /** The end on which frames are sent: the one that received the last frame. */
  #end: TestEnd;

  constructor(end: TestEnd, clock: ManualClock) {
    this.#end = end;
    this.clock = clock;
    this.listen(end);
  }

  /** Also receives frames from another link. */
  listen(end: TestEnd): void {
    end.onFrame = (bytes): void => {
      this.#end = end;
      this.#arrived(bytes);
    };
  }

  connect(options: ReaderOptions = {}): Reader {
    const sport = options.sport ?? 40_000 + this.readers.size;
    const reader = new Reader(this, { ...options, sport });
    this.readers.set(sport, reader);
    return reader;
  }

  send(built: Uint8Array): void {
    const ipv4 = built[12] === 8 && built[13] === 0;
    const bare = this.six && ipv4 ? toSix(built) : built;
    const { vlan } = this;
    const tag = vlan === null ? [] : [0x81, 0, vlan >> 8, vlan & 0xff];
    const frame = Uint8Array.from([...bare.subarray(0, 12), ...tag, ...bare.subarray(12)]);
    if (!this.#end.vnetHdr) this.#end.inject(frame);
    else this.#end.inject(Uint8Array.from([...new Uint8Array(VNET_HDR), ...frame]));
  }

  #arrived(bytes: Uint8Array): void {
    const skip = this.#end.vnetHdr ? VNET_HDR : 0;
    const frame = bytes.slice(skip);
    const partial = skip > 0 && (bytes[0]! & NEEDS_CSUM) !== 0;
    const options: DecodeOptions = { l4: partial ? 'pseudo' : 'full' };
    this.frames.push(frame);
    if (skip > 0) this.vnetHeaders.push(bytes.slice(0, skip));
    if (isSix(frame)) return this.#arrived6(frame, !partial);
    const decoded = decodeFrame(frame, options);
    this.onFrame?.(decoded);
    if ((decoded.vlan ?? null) !== this.vlan) return;
    const { arp, ip } = decoded;
    if (decoded.type === ETHERTYPE_ARP && arp?.op === 1 && arp.tpa === READER_ADDR)
      this.send(
        buildArp(
          { dst: HOST_MAC, src: READER_MAC },
          { op: 2, sha: READER_MAC, spa: READER_ADDR, tha: arp.sha, tpa: arp.spa },
        ),
      );
    if (ip?.tcp !== undefined) this.readers.get(ip.tcp.dport)?.segment(ip.tcp);
  }

  #arrived6(frame: Uint8Array, whole: boolean): void {
    const advertisement = advertisementFor(frame);
    if (advertisement !== null) this.send(advertisement);
    const four = toFour(frame, whole);
    if (four === null) return;
    const { tcp } = decodeFrame(four).ip!;
    this.readers.get(tcp!.dport)?.segment(tcp!);
  }
}
