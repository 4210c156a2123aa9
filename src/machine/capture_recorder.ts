/**
 * A capture as a pcap or pcapng file: it attaches to interfaces by name, and writes their packets to
 * a sink. Interfaces may appear after the start; their places begin then.
 */

import { hostHardware, hostOs } from '../host/host_facts.ts';
import {
  type Capture,
  CAPTURE_SNAPLEN_MAX,
  captureAddPlace,
  captureClose,
  type CaptureCounts,
  captureOpen,
  captureRing,
} from '../net/capture.ts';
import {
  if_get_counter,
  IFCOUNTER_IERRORS,
  IFCOUNTER_IPACKETS,
  IFCOUNTER_IQDROPS,
  IFCOUNTER_OERRORS,
  IFCOUNTER_OPACKETS,
  IFCOUNTER_OQDROPS,
  type Ifnet,
} from '../net/if_var.ts';
import { type ByteSink, PcapWriter } from '../pcap/pcap.ts';
import { PcapngWriter } from '../pcap/pcapng.ts';
import type { RecordSpec } from '../pcap/record_spec.ts';
import {
  CAPTURE_EVENT,
  CAPTURE_IN,
  CAPTURE_IP,
  capturePoints,
  type CaptureRecord,
  type CaptureSink,
} from '../sys/capture.ts';
import { META_CSUM_UNKNOWN, MetaWriter } from '../sys/capture_meta.ts';
import { captureNotes } from '../sys/capture_notes.ts';
import { reasonCounts, reasonText } from '../sys/reason.ts';
import { mem } from '../vm/arena.ts';

/** Where the records go. */
export interface RecordSink extends ByteSink {
  /** Packets that were given to it and dropped. */
  readonly dropped: number;
}

/** The names of an interface, the first NIC's with `null` among them. */
export type PlaceNames = readonly (string | null)[];

/** What the points show, for interface blocks and for `capture --list`. */
export const POINT_TEXTS: Readonly<Record<(typeof capturePoints)[number], string>> = {
  sockbuf: 'bytes in the socket buffer, behind the headers that they get',
  ip: 'IP packets before conversion to mapped mbufs',
  if: 'frames between stack and driver',
  ring: 'frames as the device fetched them from its descriptor ring',
  wire: 'frames on the wire',
};

const NS = 1_000_000_000n;
/** Room for the metadata of a packet: that of the ring, and notes. */
const META_MAX = 12_000;

/** The metadata of a record with the notes about its packet. */
class RecordMeta {
  readonly #bytes = new Uint8Array(META_MAX);
  readonly view = new DataView(this.#bytes.buffer);
  readonly #writer = new MetaWriter(this.view);

  /** Puts the metadata of `rec` at the start of `view`; returns its length. */
  of(rec: CaptureRecord): number {
    const { pktId, point, metaOff } = rec;
    const n = Math.min(rec.metaLen, META_MAX);
    for (let i = 0; i < n; i++) this.#bytes[i] = mem[metaOff + i]!;
    if (point === CAPTURE_EVENT) return n;
    this.#writer.begin(n, META_MAX - n);
    if (n === 0) this.#writer.packet(pktId, point, rec.flags, 0, META_CSUM_UNKNOWN);
    // A conversion happens after the packet has passed the point `ip`.
    const converted = rec.flags === CAPTURE_IN || point > CAPTURE_IP;
    if (pktId !== 0) captureNotes.write(pktId, converted, this.#writer);
    return n + this.#writer.length;
  }
}

/** One capture in one file or stream. */
export class CaptureRecorder implements CaptureSink {
  readonly spec: RecordSpec;
  readonly #sink: RecordSink;
  readonly #pcapng: PcapngWriter | null = null;
  readonly #pcap: PcapWriter | null = null;
  readonly #capture: Capture;
  /** Packets given to the sink and packets that it took, by place. */
  readonly #delivered: number[] = [];
  /** Counters when the capture began: of reasons, and of the interface of each place. */
  readonly #reasons = new Map(reasonCounts().map((r) => [`${r.layer}.${r.reason}`, r.count]));
  readonly #counters: number[][] = [];
  readonly #meta = new RecordMeta();
  #packets = 0;
  readonly #count: number;
  /** Called when the wanted number of packets was recorded. */
  onFull: (() => void) | null = null;
  #lost = 0;
  #start: bigint | null = null;
  #end = 0n;
  /** Records lost before this capture, after `close`. */
  #ringDrops = -1;

  constructor(spec: RecordSpec, sink: RecordSink) {
    this.spec = spec;
    this.#sink = sink;
    this.#count = spec.count ?? Infinity;
    const snaplen = spec.snaplen ?? CAPTURE_SNAPLEN_MAX;
    if (spec.format === 'pcapng') {
      const section = {
        hardware: hostHardware(),
        os: hostOs(),
        application: 'tapnic',
        comment: spec.comment ?? '',
        ...(spec.pen === undefined ? {} : { pen: spec.pen }),
      };
      this.#pcapng = new PcapngWriter(sink, section, reasonText);
    } else this.#pcap = new PcapWriter(sink, { snaplen, nanoseconds: spec.nanoseconds ?? false });
    this.#capture = captureOpen(
      [],
      { snaplen, filter: spec.filter?.program ?? null, meta: spec.format === 'pcapng' },
      this,
    );
  }

  /** Begins to record the places of an interface. `hardware` is the NIC model, if it is a NIC. */
  attach(ifp: Ifnet, names: PlaceNames, hardware = ''): void {
    for (const place of this.spec.places)
      if (names.includes(place.at)) this.attachPlace(place, ifp, hardware);
  }

  /** Begins to record one place. */
  attachPlace({ point }: RecordSpec['places'][number], ifp: Ifnet, hardware = ''): void {
    captureAddPlace(this.#capture, { point, ifp });
    this.#delivered.push(0);
    this.#counters.push(IF_COUNTERS.map(([, counter]) => if_get_counter(ifp, counter)));
    const name = capturePoints[point]!;
    const { if_lladdr, if_baudrate } = ifp;
    this.#pcapng?.addInterface({
      name: `${ifp.if_xname}@${name}`,
      description: POINT_TEXTS[name],
      snaplen: this.#capture.snaplen,
      ...(if_lladdr.some((byte) => byte !== 0) ? { mac: if_lladdr } : {}),
      ...(if_baudrate > 0 ? { speed: BigInt(if_baudrate) } : {}),
      filter: this.spec.filter?.text ?? '',
      os: 'tapnic',
      hardware,
    });
  }

  captureRecord(rec: CaptureRecord): void {
    if (this.#packets >= this.#count) return;
    if (rec.point === CAPTURE_EVENT) {
      this.#pcapng?.event(this.#meta.view, 0, this.#meta.of(rec));
      return;
    }
    const place = this.#capture.placeOf(rec.point, rec.unit);
    const { sec, nsec, off, caplen, wirelen } = rec;
    if (this.#pcapng === null) {
      if (this.#pcap!.packet(sec, nsec, mem, off, caplen, wirelen)) this.#took(place);
      return;
    }
    const lost = this.#capture.drops + this.#sink.dropped;
    const taken = this.#pcapng.packet(
      place,
      sec,
      nsec,
      rec.flags,
      rec.pktId,
      0,
      lost - this.#lost,
      mem,
      off,
      caplen,
      wirelen,
      this.#meta.view,
      0,
      this.#meta.of(rec),
    );
    if (!taken) return;
    this.#lost = lost;
    this.#took(place);
    if (this.#start === null) this.#start = BigInt(sec) * NS + BigInt(nsec);
  }

  #took(place: number): void {
    this.#delivered[place]!++;
    if (++this.#packets === this.#count) this.onFull?.();
  }

  /** Packets that the sink took. */
  get packets(): number {
    return this.#packets;
  }

  get places(): readonly CaptureCounts[] {
    return this.#capture.places;
  }

  /** Packets that the capture ring had no room for. */
  get ringDrops(): number {
    return this.#ringDrops < 0 ? this.#capture.drops : this.#ringDrops;
  }

  /** Ends the capture: writes the statistics of every place. */
  close(): void {
    if (this.#ringDrops >= 0) return;
    captureClose(this.#capture);
    this.#ringDrops = this.#capture.drops;
    if (this.#pcapng === null) return;
    this.#end = captureRing().nowNs();
    const reasons = countersText(this.#reasons);
    this.#capture.places.forEach((place, i) => {
      const counters = `${ifCountersText(place.ifp, this.#counters[i]!)}${reasons}`;
      this.#pcapng!.statistics(i, {
        start: this.#start ?? this.#end,
        end: this.#end,
        received: BigInt(place.received),
        accepted: BigInt(place.accepted),
        delivered: BigInt(this.#delivered[i]!),
        ringDrops: BigInt(this.#ringDrops),
        slowDrops: BigInt(place.accepted - this.#delivered[i]!),
        counters,
      });
    });
  }
}

/** Counters of an interface that the statistics of a place have. */
const IF_COUNTERS = [
  ['ipackets', IFCOUNTER_IPACKETS],
  ['ierrors', IFCOUNTER_IERRORS],
  ['iqdrops', IFCOUNTER_IQDROPS],
  ['opackets', IFCOUNTER_OPACKETS],
  ['oerrors', IFCOUNTER_OERRORS],
  ['oqdrops', IFCOUNTER_OQDROPS],
] as const;

/** What an interface counted since `before`, as `if.NAME=N`, separated by `; `. */
function ifCountersText(ifp: Ifnet, before: readonly number[]): string {
  return IF_COUNTERS.map(
    ([name, counter], i) => `if.${name}=${if_get_counter(ifp, counter) - before[i]!}`,
  ).join('; ');
}

/** What was counted since `before`, each as `; reason.LAYER.NAME=N`. */
function countersText(before: ReadonlyMap<string, number>): string {
  return reasonCounts()
    .map(({ layer, reason, count }) => {
      const name = `${layer}.${reason}`;
      // A reset in between makes the difference negative.
      const n = count - (before.get(name) ?? 0);
      return n > 0 ? `; reason.${name}=${n}` : '';
    })
    .join('');
}
