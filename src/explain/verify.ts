/**
 * The check of a capture by itself: packets against the statistics of the file, each packet at one
 * point against the next point, segments against the packet that they were cut from, the counters of
 * the interfaces. `frames.ts` compares with a second file.
 */

import type { FileItem } from '../pcap/read.ts';
import { headOf, metaOf, Numbering, type PacketRecord, type Place } from './records.ts';

/** Packet ids that are followed; later ones are not checked, which the table says. */
const IDS_MAX = 1 << 20;
/** Mismatches that are reported one by one. */
const MISMATCHES_MAX = 50;
/** Points that an outgoing packet passes in the device and above it, by bit. */
const OUT_POINTS = ['ip', 'if', 'ring', 'wire'];

/** Counters of outgoing packets that passed `ip` and do not reach `if`. */
const DROPS_BELOW_IP = [
  'if.oqdrops',
  'if.oerrors',
  'reason.arp.hold_queue_full',
  'reason.arp.unresolved',
  'reason.nd6.hold_queue_full',
  'reason.nd6.unresolved',
  'reason.ip.no_buffers',
  'reason.ip6.no_buffers',
];

/** A line of the table. */
export interface Check {
  readonly name: string;
  readonly expected: number;
  readonly found: number;
  readonly ok: boolean;
  readonly note: string;
}

/** A packet or block that does not agree. */
interface Mismatch {
  /** 0: not one packet. */
  readonly packet: number;
  readonly reason: string;
}

/** What the check found. */
export interface Verdict {
  readonly checks: Check[];
  readonly mismatches: Mismatch[];
  /** Mismatches that are not in the list. */
  more: number;
}

export function addMismatch(verdict: Verdict, packet: number, reason: string): void {
  if (verdict.mismatches.length < MISMATCHES_MAX) verdict.mismatches.push({ packet, reason });
  else verdict.more++;
}

/** An outgoing packet of an interface. */
interface Sent {
  /** Number of its first record at each point of OUT_POINTS; 0: not seen. */
  readonly at: number[];
  /** Bytes of TCP payload at `if`, and in frames at `wire`. */
  payload: number;
  wire: number;
  /** Dropped, changed by a fault, or cut into fragments. */
  excused: boolean;
}

type Statistics = Extract<FileItem, { kind: 'statistics' }>;

/** Counters in comments: `NAME=N` between `; `. */
function countersOf({ comments }: Statistics): Map<string, number> {
  const counters = new Map<string, number>();
  for (const comment of comments)
    for (const field of comment.split('; ', 1000)) {
      const [, name, n] = /^([\w.]+)=(\d{1,15})$/.exec(field) ?? [];
      if (name !== undefined) counters.set(name, Number(n));
    }
  return counters;
}

/** Takes the items of a capture in their order. */
export class Verifier {
  readonly verdict: Verdict = { checks: [], mismatches: [], more: 0 };
  readonly #numbering = new Numbering();
  readonly #records: number[] = [];
  readonly #statistics = new Map<number, Statistics>();
  readonly #sent = new Map<string, Sent>();
  /** Last outgoing record at each point, by interface and point. */
  readonly #last = new Map<string, number>();
  /** Outgoing records without an id, such as ARP, by interface and point. */
  readonly #nameless = new Map<string, number>();
  #idsLeft = 0;
  #lost = 0;

  get places(): readonly Place[] {
    return this.#numbering.places;
  }

  /** Takes the next item; returns it if it is a packet. */
  add(item: FileItem): PacketRecord | null {
    if (item.kind === 'interface') {
      this.#numbering.addInterface(item);
      this.#records.push(0);
    } else if (item.kind === 'statistics') {
      this.#statistics.set(item.iface, item);
    } else if (item.kind === 'event') this.#event(item.offset, item.meta);
    else if (item.kind === 'packet') {
      const rec = this.#numbering.packet(item);
      this.#records[item.iface]!++;
      this.#packet(rec);
      return rec;
    }
    return null;
  }

  #entry(ifname: string, id: number): Sent | null {
    const key = `${ifname} ${id}`;
    let sent = this.#sent.get(key);
    if (sent !== undefined) return sent;
    if (this.#sent.size >= IDS_MAX) {
      this.#idsLeft++;
      return null;
    }
    sent = { at: [0, 0, 0, 0], payload: 0, wire: 0, excused: false };
    this.#sent.set(key, sent);
    return sent;
  }

  #event(offset: number, bytes: Uint8Array): void {
    const { id, why } = metaOf(offset, bytes);
    if (!why.some(({ what }) => what === 'drop' || what === 'fault')) return;
    for (const { ifname } of this.places) {
      const sent = this.#sent.get(`${ifname} ${id}`);
      if (sent !== undefined) sent.excused = true;
    }
  }

  #packet(rec: PacketRecord): void {
    const { place, id, direction, number, packet } = rec;
    const bit = OUT_POINTS.indexOf(place.point);
    if (direction !== 'out' || bit < 0) return;
    this.#last.set(`${place.ifname} ${bit}`, number);
    if (id === 0) {
      const key = `${place.ifname} ${bit}`;
      this.#nameless.set(key, (this.#nameless.get(key) ?? 0) + 1);
      return;
    }
    const sent = this.#entry(place.ifname, id);
    if (sent === null) return;
    const meta = metaOf(packet.offset, packet.meta);
    if (meta.why.some(({ what }) => what === 'drop' || what === 'fault')) sent.excused = true;
    for (const { kind, ids } of meta.links) {
      const datagram =
        kind === 'fragment' ? this.#sent.get(`${place.ifname} ${ids[0]}`) : undefined;
      if (datagram !== undefined) datagram.excused = true;
    }
    if (sent.at[bit] === 0) sent.at[bit] = number;
    const { tcp, payload } = headOf(rec);
    if (tcp === null) return;
    if (place.point === 'if') sent.payload = payload;
    else if (place.point === 'wire') sent.wire += payload;
  }

  /** Adds the results to the verdict. */
  finish(): void {
    this.#statisticsChecks();
    const names = [...new Set(this.places.map(({ ifname }) => ifname))];
    for (const name of names) this.#idChecks(name);
    if (this.#idsLeft > 0)
      this.#check('packet ids', IDS_MAX, IDS_MAX, `${this.#idsLeft} more records not followed`);
  }

  #check(name: string, expected: number, found: number, note = ''): boolean {
    const ok = expected === found;
    this.verdict.checks.push({ name, expected, found, ok, note });
    return ok;
  }

  #statisticsChecks(): void {
    this.#records.forEach((records, i) => {
      const { name, point, ifname } = this.places[i]!;
      const s = this.#statistics.get(i);
      if (s === undefined) {
        this.verdict.checks.push({
          name: `${name}: statistics`,
          expected: 1,
          found: 0,
          ok: false,
          note: 'the capture did not end, or another program wrote the file',
        });
        addMismatch(this.verdict, 0, `${name}: the file has no statistics`);
        return;
      }
      const delivered = Number(s.delivered ?? 0n);
      const slow = Number(s.slowDrops ?? 0n);
      const accepted = Number(s.accepted ?? 0n);
      const received = Number(s.received ?? 0n);
      this.#lost = Math.max(this.#lost, Number(s.ringDrops ?? 0n));
      this.#lost += slow;
      if (!this.#check(`${name}: packets in the file`, delivered, records))
        addMismatch(this.verdict, 0, `${name}: ${delivered} were written, ${records} are here`);
      if (!this.#check(`${name}: accepted = written + dropped`, accepted, delivered + slow))
        addMismatch(this.verdict, 0, `${name}: ${accepted - delivered - slow} packets are missing`);
      if (received < accepted)
        addMismatch(this.verdict, 0, `${name}: ${accepted} accepted of ${received} received`);
      if (point === 'if') this.#counterCheck(ifname, name, received, s);
    });
  }

  /** Packets at point `if` are those that the interface counted. */
  #counterCheck(ifname: string, name: string, received: number, s: Statistics): void {
    const counters = countersOf(s);
    const [ip, op] = [counters.get('if.ipackets'), counters.get('if.opackets')];
    if (ip === undefined || op === undefined) return;
    const lost = Number(s.ringDrops ?? 0n);
    const errors = counters.get('if.oerrors') ?? 0;
    const passed = received + (lost > 0 ? Math.min(lost, Math.max(0, ip + op - received)) : 0);
    const note =
      lost > 0 ? `${lost} lost by the capture ring` : errors > 0 ? `${errors} oerrors` : '';
    // A packet that the driver refused passed the point and is counted as an error.
    const found = passed - Math.min(errors, Math.max(0, passed - ip - op));
    if (!this.#check(`${name}: counted by ${ifname}`, ip + op, found, note))
      addMismatch(this.verdict, 0, `${name}: ${ifname} counted ${ip} in and ${op} out`);
  }

  #idChecks(ifname: string): void {
    const here = this.places.filter((place) => place.ifname === ifname);
    if (here.some(({ filter }) => filter !== '')) return;
    const bits = OUT_POINTS.map((point, bit) => (here.some((p) => p.point === point) ? bit : -1));
    const points = bits.filter((bit) => bit >= 0);
    for (let i = 1; i < points.length; i++) this.#pairCheck(ifname, points[i - 1]!, points[i]!);
    if (points.includes(1) && points.includes(3)) this.#segmentCheck(ifname);
  }

  #sentOf(ifname: string): Sent[] {
    const all: Sent[] = [];
    for (const [key, sent] of this.#sent) if (key.startsWith(`${ifname} `)) all.push(sent);
    return all;
  }

  /** Every id at one point is at the next one, too, or was dropped. */
  #pairCheck(ifname: string, from: number, to: number): void {
    const end = this.#last.get(`${ifname} ${to}`) ?? 0;
    let expected = 0;
    let found = 0;
    let excused = 0;
    let flying = 0;
    const missing: number[] = [];
    for (const { at, excused: drop } of this.#sentOf(ifname)) {
      if (at[from] === 0) continue;
      expected++;
      if (at[to] !== 0) found++;
      else if (drop) excused++;
      else if (at[from]! > end) flying++;
      else missing.push(at[from]!);
    }
    const lost = Math.min(this.#lost, missing.length);
    const nameless = Math.min(this.#namelessMore(ifname, from, to), missing.length - lost);
    const dropped = Math.min(
      from === 0 ? this.#droppedBelowIp(ifname) : 0,
      missing.length - lost - nameless,
    );
    const notes = [
      [nameless, 'without an id'],
      [dropped, 'dropped, as the counters say'],
      [excused, 'dropped or cut into fragments'],
      [flying, 'after the last record'],
      [lost, 'lost by the capture'],
    ] as const;
    const note = notes.filter(([n]) => n > 0).map(([n, text]) => `${n} ${text}`);
    const name = `${ifname}: ids at ${OUT_POINTS[from]} that are at ${OUT_POINTS[to]}`;
    const all = found + excused + flying + lost + nameless + dropped;
    if (this.#check(name, expected, all, note.join(', '))) return;
    for (const number of missing)
      addMismatch(this.verdict, number, `it did not reach ${ifname}@${OUT_POINTS[to]}`);
  }

  /** Packets that the interface and the layers between `ip` and `if` counted as dropped. */
  #droppedBelowIp(ifname: string): number {
    for (const [i, s] of this.#statistics) {
      if (this.places[i]!.ifname !== ifname) continue;
      const counters = countersOf(s);
      return DROPS_BELOW_IP.reduce((n, name) => n + (counters.get(name) ?? 0), 0);
    }
    return 0;
  }

  /** Records at `to` that have no id there and had one at `from`: frames without offload. */
  #namelessMore(ifname: string, from: number, to: number): number {
    const at = (bit: number): number => this.#nameless.get(`${ifname} ${bit}`) ?? 0;
    return from === 0 ? 0 : Math.max(0, at(to) - at(from));
  }

  /** The frames of a packet have its payload. */
  #segmentCheck(ifname: string): void {
    const end = this.#last.get(`${ifname} 3`) ?? 0;
    let expected = 0;
    let found = 0;
    for (const { at, payload, wire, excused } of this.#sentOf(ifname)) {
      if (payload === 0 || at[3] === 0 || excused) continue;
      // Frames of the last packets may not be on the wire yet.
      const cut = at[3]! > end - 64 && wire < payload;
      expected += payload;
      found += cut ? payload : wire;
      if (!cut && wire !== payload && this.#lost === 0)
        addMismatch(this.verdict, at[1]!, `${payload} bytes of payload, ${wire} in its frames`);
    }
    if (this.#lost === 0) this.#check(`${ifname}: payload at if = at wire`, expected, found);
  }
}

/** Whether everything agrees. */
export function verdictOk({ checks, mismatches, more }: Verdict): boolean {
  return checks.every(({ ok }) => ok) && mismatches.length === 0 && more === 0;
}
