/**
 * The life of one packet: its records in the order of the points that it passed, and what changed
 * between them.
 */

import { capturePoints } from '../sys/capture.ts';
import type { FileItem } from '../pcap/read.ts';
import { headOf, type Metadata, metaOf, Numbering, type PacketRecord } from './records.ts';
import { timeText } from './summary.ts';

/** Records of one packet that are kept; a TSO packet has up to about 50 frames. */
const RECORDS_MAX = 1024;

/** A record of the packet at one point. */
interface LifeFrame {
  readonly number: number;
  readonly time: bigint;
  readonly wirelen: number;
  readonly caplen: number;
  readonly text: string;
  readonly payload: number;
}

/** A point that the packet passed. */
export interface Stage {
  readonly place: string;
  /** Empty in files of other programs. */
  readonly point: string;
  readonly direction: 'out' | 'in' | 'unknown';
  /** Metadata of the first record. */
  readonly meta: Metadata;
  readonly frames: LifeFrame[];
  /** What happened since the stage before. */
  readonly changes: string[];
}

/** Another packet that is linked with this one. */
interface LifeLink {
  readonly kind: string;
  /** Whether the other packet is the older one: this packet is `kind` of it. */
  readonly of: boolean;
  readonly ids: readonly number[];
}

/** What a file says about one packet. */
export interface Life {
  readonly id: number;
  readonly direction: 'out' | 'in' | 'unknown';
  readonly stages: Stage[];
  readonly links: LifeLink[];
  /** Drops, faults and conversions without a record of the packet. */
  readonly events: string[];
  /** Records that were left out. */
  readonly cut: number;
}

function whyText({ what, reason, bytes }: Metadata['why'][number]): string {
  return `${what}: ${reason}, ${bytes} bytes`;
}

/** Pages of the mbufs that have external storage. */
function pagesOf(meta: Metadata): Set<bigint> {
  return new Set(meta.chain.filter(({ kind }) => kind !== 'int').flatMap(({ pages }) => pages));
}

function kindsOf(meta: Metadata): string {
  const kinds = meta.chain.filter(({ kind }) => kind !== 'int').map(({ kind }) => kind);
  return [...new Set(kinds)].join(' and ');
}

function sum(meta: Metadata, ok: (m: Metadata['chain'][number]) => boolean): number {
  return meta.chain.filter((m) => ok(m)).reduce((n, { len }) => n + len, 0);
}

/** What differs between the chains of two stages. */
function chainChanges(before: Metadata, after: Metadata): string[] {
  if (before.chain.length === 0 || after.chain.length === 0) return [];
  const changes: string[] = [];
  const old = pagesOf(before);
  const now = pagesOf(after);
  const kept = [...now].filter((page) => old.has(page)).length;
  if (old.size > 0 && kept > 0)
    changes.push(`${kept} of ${old.size} pages kept by reference, without a copy`);
  if (old.size > kept && now.size > 0 && !before.chainCut && !after.chainCut)
    changes.push(`${old.size - kept} of ${old.size} pages no longer referred to`);
  const copied = sum(after, (m) => m.kind !== 'int' && !m.pages.some((page) => old.has(page)));
  const length = (meta: Metadata): number => sum(meta, () => true);
  if (old.size > 0 && copied > 0) changes.push(`${copied} bytes copied into other storage`);
  const kinds = [kindsOf(before), kindsOf(after)];
  if (kinds[0] !== '' && kinds[1] !== '' && kinds[0] !== kinds[1])
    changes.push(`payload was ${kinds[0]}, is ${kinds[1]}`);
  const grown = length(after) - length(before);
  if (grown > 0) changes.push(`${grown} bytes of headers added`);
  if (grown < 0) changes.push(`${-grown} bytes of headers removed`);
  return changes;
}

/** Sets `changes` of each stage. */
function compareStages(stages: readonly Stage[]): void {
  stages.forEach((stage, i) => {
    const seen = new Set(stages.slice(0, i).flatMap((s) => s.meta.why.map(whyText)));
    for (const why of stage.meta.why) if (!seen.has(whyText(why))) stage.changes.push(whyText(why));
    const before = stages[i - 1];
    if (before === undefined) return;
    stage.changes.push(...chainChanges(before.meta, stage.meta));
    if (before.meta.csum !== stage.meta.csum && stage.meta.csum !== 'unknown')
      stage.changes.push(`checksum: ${before.meta.csum}, then ${stage.meta.csum}`);
    const payload = before.frames[0]!.payload;
    const total = stage.frames.reduce((n, frame) => n + frame.payload, 0);
    if (stage.frames.length > 1)
      stage.changes.push(
        `cut into ${stage.frames.length} frames with ${total} of ${payload} bytes of payload`,
      );
  });
}

/** Order of the points; unknown points keep the order of their first records. */
function orderOf({ point, direction }: Stage): number {
  const at = (capturePoints as readonly string[]).indexOf(point);
  return direction === 'in' ? -at : at;
}

/** Collects the records of one packet. */
class Collector {
  readonly #id: number;
  readonly #stages = new Map<string, Stage>();
  readonly #links = new Map<string, LifeLink>();
  readonly #events: string[] = [];
  #records = 0;
  #cut = 0;

  constructor(id: number) {
    this.#id = id;
  }

  record(rec: PacketRecord, meta: Metadata): void {
    if (++this.#records > RECORDS_MAX) {
      this.#cut++;
      return;
    }
    const { place, packet, direction, number } = rec;
    const key = `${place.index} ${direction}`;
    let stage = this.#stages.get(key);
    if (stage === undefined) {
      const { name, point } = place;
      stage = { place: name, point, direction, meta, frames: [], changes: [] };
      this.#stages.set(key, stage);
    }
    const { text, payload } = headOf(rec);
    const { time, wirelen, bytes } = packet;
    stage.frames.push({ number, time, wirelen, caplen: bytes.length, text, payload });
  }

  /** Takes the links of a packet that may be another one. */
  links(id: number, meta: Metadata): void {
    for (const { kind, ids } of meta.links) {
      const own = ids.every((one) => one === this.#id);
      if (id === this.#id && !own) this.#link(kind, true, ids);
      else if (id !== this.#id && ids.includes(this.#id)) this.#link(kind, false, [id]);
    }
  }

  #link(kind: string, of: boolean, ids: readonly number[]): void {
    const key = `${kind} ${of} ${ids.join(',')}`;
    if (this.#links.size < RECORDS_MAX) this.#links.set(key, { kind, of, ids });
  }

  event(meta: Metadata): void {
    const at = meta.point === 'unknown' ? '' : `at ${meta.point}: `;
    for (const why of meta.why)
      if (this.#events.length < RECORDS_MAX) this.#events.push(at + whyText(why));
  }

  get life(): Life | null {
    if (this.#stages.size === 0 && this.#events.length === 0) return null;
    const stages = [...this.#stages.values()];
    // Sorting is stable.
    stages.sort((a, b) => orderOf(a) - orderOf(b));
    compareStages(stages);
    const direction = stages[0]?.direction ?? 'unknown';
    const links = [...this.#links.values()];
    return { id: this.#id, direction, stages, links, events: this.#events, cut: this.#cut };
  }
}

/**
 * Reads a whole capture for the packet with id `wanted`; in a file without ids `wanted` is the number
 * of a packet. Null: there is no such packet.
 */
export async function lifeOf(items: AsyncIterable<FileItem>, wanted: number): Promise<Life | null> {
  const numbering = new Numbering();
  const byId = new Collector(wanted);
  const byNumber = new Collector(wanted);
  let ids = false;
  for await (const item of items) {
    if (item.kind === 'interface') numbering.addInterface(item);
    else if (item.kind === 'packet') {
      const rec = numbering.packet(item);
      if (rec.id !== 0) ids = true;
      const meta = metaOf(item.offset, item.meta);
      if (rec.id === wanted) byId.record(rec, meta);
      else if (rec.number === wanted) byNumber.record(rec, meta);
      if (meta.links.length > 0) byId.links(rec.id, meta);
    } else if (item.kind === 'event') {
      const meta = metaOf(item.offset, item.meta);
      if (meta.id === wanted) byId.event(meta);
      byId.links(meta.id, meta);
    }
  }
  return byId.life ?? (ids ? null : byNumber.life);
}

/** A link as a sentence. */
export function linkText(id: number, { kind, of, ids }: LifeLink): string {
  const names: Readonly<Record<string, string>> = { tso: 'a segment', fragment: 'a fragment' };
  const what = names[kind] ?? (kind === 'lro' ? 'merged' : `a ${kind}`);
  const others = ids.length === 1 ? `packet ${ids[0]}` : `packets ${ids.join(', ')}`;
  return of ? `packet ${id} is ${what} of ${others}` : `${others} is ${what} of packet ${id}`;
}

/** Pages of an mbuf in one line, neighbours joined. */
function pagesText(pages: readonly bigint[]): string {
  const runs: { from: bigint; n: number }[] = [];
  for (const page of pages) {
    const run = runs.at(-1);
    if (run !== undefined && run.from + BigInt(run.n) * 4096n === page) run.n++;
    else runs.push({ from: page, n: 1 });
  }
  return runs
    .map(({ from, n }) =>
      n === 1 ? `0x${from.toString(16)}` : `0x${from.toString(16)} (${n} pages)`,
    )
    .join(', ');
}

/** One mbuf in one line. */
function mbufText(m: Metadata['chain'][number]): string {
  const flags = m.flags.length === 0 ? '' : ` <${m.flags.join(',')}>`;
  const edges =
    (m.hdr > 0 ? `, header ${m.hdr}` : '') + (m.trail > 0 ? `, trailer ${m.trail}` : '');
  const pages = m.pages.length === 0 ? '' : `, at ${pagesText(m.pages)}`;
  return `${m.kind} ${m.len} bytes${flags} offset ${m.off}, references ${m.refs}${edges}${pages}`;
}

function stageText(stage: Stage, begin: bigint): string {
  const { place, frames, meta, changes, direction } = stage;
  const first = frames[0]!;
  const after = Number(first.time - begin) / 1000;
  let text = `\n${place} ${direction}, +${after.toFixed(3)} us, checksum ${meta.csum}\n`;
  for (const change of changes) text += `  * ${change}\n`;
  for (const { id, first: from, bytes } of meta.sockets)
    text += `  socket ${id}: bytes ${from} to ${from + bytes - 1} of the stream\n`;
  for (const m of meta.chain) text += `  mbuf ${mbufText(m)}\n`;
  if (meta.chainCut) text += '  ... more mbufs\n';
  for (const { ring, slot, bytes } of meta.descs)
    bytes.forEach((one, i) => (text += `  descriptor ring ${ring} slot ${slot + i}: ${one}\n`));
  for (const { number, wirelen, caplen, text: line } of frames) {
    const cut = caplen < wirelen ? ` (${caplen} captured)` : '';
    text += `  packet ${number}: ${wirelen} bytes${cut}: ${line}\n`;
  }
  return text;
}

/** The life of a packet as text. */
export function lifeText(life: Life): string {
  const { id, direction, stages, links, events, cut } = life;
  const begin = stages[0]?.frames[0]?.time ?? 0n;
  let text = `packet ${id}, ${direction}`;
  if (stages.length > 0) text += `, at ${timeText(begin)} UTC`;
  text += '\n';
  for (const link of links) text += `${linkText(id, link)}\n`;
  for (const stage of stages) text += stageText(stage, begin);
  if (events.length > 0) text += '\n';
  for (const event of events) text += `event ${event}\n`;
  if (cut > 0) text += `\n${cut} more records of this packet\n`;
  return text;
}

/** The life as data for JSON: big numbers as text. */
export function lifeJson(life: Life): unknown {
  return JSON.parse(
    JSON.stringify(life, (_, value: unknown) =>
      typeof value === 'bigint' ? `0x${value.toString(16)}` : value,
    ),
  );
}
