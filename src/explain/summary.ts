/** What a capture contains, in numbers. */

import type { FileItem } from '../pcap/read.ts';
import { metaOf, type Metadata, Numbering, type PacketRecord } from './records.ts';

/** Ids and reasons that are counted exactly; more are reported as "at least". */
const IDS_MAX = 1 << 20;
const REASONS_MAX = 4096;

interface PlaceSummary {
  readonly name: string;
  readonly point: string;
  out: number;
  in: number;
  unknown: number;
  /** Bytes on the wire. */
  bytes: number;
  /** Lost by the ring or by a slow reader, as the statistics say; null without statistics. */
  lost: number | null;
}

interface ReasonSummary {
  readonly what: string;
  readonly reason: string;
  packets: number;
  bytes: number;
}

/** The summary of a file. */
export interface Summary {
  packets: number;
  events: number;
  readonly places: PlaceSummary[];
  /** Distinct packet ids. */
  ids: number;
  /** Whether there are more ids than were counted. */
  idsCut: boolean;
  /** Nanoseconds since 1970, as text; null without packets. */
  first: string | null;
  last: string | null;
  seconds: number;
  /** Reasons, each once per packet id and not once per record. */
  reasons: ReasonSummary[];
  links: { kind: string; packets: number }[];
}

/** Counts reasons and links, once per packet. */
class Counter {
  readonly ids = new Set<number>();
  readonly #seen = new Map<string, Set<number>>();
  readonly reasons = new Map<string, ReasonSummary>();
  readonly links = new Map<string, number>();
  idsCut = false;

  #first(key: string, id: number): boolean {
    if (id === 0) return true;
    let seen = this.#seen.get(key);
    if (seen === undefined) {
      if (this.#seen.size >= REASONS_MAX) return true;
      this.#seen.set(key, (seen = new Set()));
    }
    if (seen.has(id)) return false;
    if (seen.size < IDS_MAX) seen.add(id);
    return true;
  }

  add(id: number, meta: Metadata): void {
    if (id !== 0 && !this.ids.has(id)) {
      if (this.ids.size < IDS_MAX) this.ids.add(id);
      else this.idsCut = true;
    }
    for (const { what, reason, bytes } of meta.why) {
      const key = `${what} ${reason}`;
      if (!this.#first(key, id)) continue;
      let sum = this.reasons.get(key);
      if (sum === undefined) {
        if (this.reasons.size >= REASONS_MAX) continue;
        this.reasons.set(key, (sum = { what, reason, packets: 0, bytes: 0 }));
      }
      sum.packets++;
      sum.bytes += bytes;
    }
    for (const { kind, index } of meta.links)
      // Children of a packet share its id: each is one.
      if (this.#first(`link ${kind} ${index}`, id))
        this.links.set(kind, (this.links.get(kind) ?? 0) + 1);
  }
}

/** Sums up the items of a file. */
export class Summarizer {
  readonly #numbering = new Numbering();
  readonly #counter = new Counter();
  readonly #places: PlaceSummary[] = [];
  #events = 0;
  #first: bigint | null = null;
  #last = 0n;

  /** Takes the next item; returns it if it is a packet. */
  add(item: FileItem): PacketRecord | null {
    if (item.kind === 'interface') {
      const { name, point } = this.#numbering.addInterface(item);
      this.#places.push({ name, point, out: 0, in: 0, unknown: 0, bytes: 0, lost: null });
    } else if (item.kind === 'packet') return this.#packet(item);
    else if (item.kind === 'event') {
      this.#events++;
      const meta = metaOf(item.offset, item.meta);
      this.#counter.add(meta.id, meta);
    } else if (item.kind === 'statistics') {
      const { ringDrops, slowDrops } = item;
      const place = this.#places[item.iface]!;
      if (ringDrops !== null || slowDrops !== null)
        place.lost = Number((ringDrops ?? 0n) + (slowDrops ?? 0n));
    }
    return null;
  }

  #packet(item: Extract<FileItem, { kind: 'packet' }>): PacketRecord {
    const rec = this.#numbering.packet(item);
    const place = this.#places[item.iface]!;
    place[rec.direction]++;
    place.bytes += item.wirelen;
    this.#counter.add(rec.id, metaOf(item.offset, item.meta));
    if (this.#first === null || item.time < this.#first) this.#first = item.time;
    if (item.time > this.#last) this.#last = item.time;
    return rec;
  }

  result(): Summary {
    const counter = this.#counter;
    const first = this.#first;
    return {
      packets: this.#numbering.packets,
      events: this.#events,
      places: this.#places,
      ids: counter.ids.size,
      idsCut: counter.idsCut,
      first: first === null ? null : String(first),
      last: first === null ? null : String(this.#last),
      seconds: first === null ? 0 : Number(this.#last - first) / 1e9,
      reasons: [...counter.reasons.values()],
      links: [...counter.links].map(([kind, packets]) => ({ kind, packets })),
    };
  }
}

/** Reads a whole capture. */
export async function summarize(items: AsyncIterable<FileItem>): Promise<Summary> {
  const summarizer = new Summarizer();
  for await (const item of items) summarizer.add(item);
  return summarizer.result();
}

/** Columns of text, the first at the left and the others at the right. */
export function columns(rows: readonly (readonly string[])[], left = 1): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, i) => (i < left ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join('  ');
  return rows.map((row) => `${line(row).trimEnd()}\n`).join('');
}

/** The time as text, UTC. */
export function timeText(ns: bigint): string {
  const ms = Number(ns / 1_000_000n);
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return `${ns} ns`;
  return `${date.toISOString().slice(0, 19).replace('T', ' ')}.${String(ns % 1_000_000_000n).padStart(9, '0')}`;
}

/** The summary as text. */
export function summaryText(s: Summary): string {
  const rows = [
    ['interface', 'out', 'in', 'unknown', 'bytes', 'lost'],
    ...s.places.map((p) => [
      p.name,
      String(p.out),
      String(p.in),
      String(p.unknown),
      String(p.bytes),
      p.lost === null ? '?' : String(p.lost),
    ]),
  ];
  let text = `${s.packets} packets`;
  if (s.events > 0) text += `, ${s.events} events`;
  if (s.first !== null)
    text += ` in ${s.seconds.toFixed(6)} s from ${timeText(BigInt(s.first))} UTC`;
  text += `; ${s.idsCut ? 'at least ' : ''}${s.ids} packet ids\n\n`;
  if (s.places.length > 0) text += columns(rows);
  if (s.reasons.length > 0) {
    const lines = s.reasons.map((r) => [r.what, r.reason, String(r.packets), String(r.bytes)]);
    text += `\n${columns([['what', 'reason', 'packets', 'bytes'], ...lines], 2)}`;
  }
  if (s.links.length > 0) {
    const lines = s.links.map(({ kind, packets }) => [kind, String(packets)]);
    text += `\n${columns([['link', 'packets'], ...lines])}`;
  }
  return text;
}
