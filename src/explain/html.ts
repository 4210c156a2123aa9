/**
 * A page of a whole capture: one file without external parts. The packets are in it as compressed
 * data; the script of page_script.ts shows them. Left out of the page, and said there: packets after
 * the first PACKETS_MAX, comments after COMMENT_CHARS_MAX characters.
 */

import { gzipSync } from 'node:zlib';
import { sha256 } from '../sys/sha256.ts';
import type { FileItem } from '../pcap/read.ts';
import type { FrameHead } from './headers.ts';
import { PAGE_SCRIPT, PAGE_STYLE } from './page_script.ts';
import { headOf, type PacketRecord } from './records.ts';
import { Summarizer, type Summary, timeText } from './summary.ts';
import { xmlText } from './svg.ts';

const PACKETS_MAX = 200_000;
const COMMENT_CHARS_MAX = 64 << 20;
/** Bytes of each packet that the page shows. */
const BYTES_SHOWN = 96;
const CONNECTIONS_MAX = 500;
const SYN_FIN = 0x03;
const SEQ_SPACE = 2 ** 32;

/** Numbers for strings. */
class Strings {
  readonly list: string[] = [];
  readonly #numbers = new Map<string, number>();

  number(text: string): number {
    let at = this.#numbers.get(text);
    if (at === undefined) {
      at = this.list.push(text) - 1;
      this.#numbers.set(text, at);
    }
    return at;
  }
}

/** Segments with data of one direction of a connection, and the ACKs of the other one. */
class Flow {
  readonly name: string;
  /** Only records of this place: each segment passes several. */
  readonly place: number;
  readonly at: number[] = [];
  readonly seq: number[] = [];
  readonly len: number[] = [];
  /** 1: an ACK. */
  readonly ack: number[] = [];
  /** 1: a retransmission. */
  readonly again: number[] = [];
  #base = -1;
  #high = 0;

  constructor(name: string, place: number) {
    this.name = name;
    this.place = place;
  }

  /** Position relative to the first segment, beyond 4 GB too. */
  #position(seq: number): number {
    if (this.#base < 0) this.#base = seq;
    const low = (seq - this.#base + SEQ_SPACE) % SEQ_SPACE;
    const turns = Math.round((this.#high - low) / SEQ_SPACE);
    return low + Math.max(0, turns) * SEQ_SPACE;
  }

  data(at: number, seq: number, len: number): void {
    const from = this.#position(seq);
    const again = len > 0 && from + len <= this.#high ? 1 : 0;
    this.#high = Math.max(this.#high, from + len);
    this.#add(at, from, len, 0, again);
  }

  acked(at: number, ack: number): void {
    if (this.#base >= 0) this.#add(at, this.#position(ack), 0, 1, 0);
  }

  #add(at: number, seq: number, len: number, ack: number, again: number): void {
    this.at.push(at);
    this.seq.push(seq);
    this.len.push(len);
    this.ack.push(ack);
    this.again.push(again);
  }
}

/** The columns of the packets, in the order of the file. */
class PageData {
  readonly place: number[] = [];
  readonly dir: number[] = [];
  readonly id: number[] = [];
  /** Nanoseconds after the packet before. */
  readonly time: number[] = [];
  readonly length: number[] = [];
  readonly text: number[] = [];
  readonly comment: number[] = [];
  readonly bytes: string[] = [];
  readonly texts = new Strings();
  readonly comments = new Strings();
  readonly flows = new Map<string, Flow>();
  /** Packets by place and direction. */
  readonly used: number[][] = [];
  #commentChars = 0;
  #first: bigint | null = null;
  #last = 0n;
  left = 0;

  add(rec: PacketRecord): void {
    if (this.place.length >= PACKETS_MAX) {
      this.left++;
      return;
    }
    const { packet, place, direction } = rec;
    const head = headOf(rec);
    const dir = ['unknown', 'in', 'out'].indexOf(direction);
    const { time } = packet;
    if (this.#first === null) this.#first = this.#last = time;
    this.time.push(Number(time - this.#last));
    this.#last = time;
    this.place.push(place.index);
    this.dir.push(dir);
    this.id.push(rec.id);
    this.length.push(packet.wirelen);
    this.text.push(this.texts.number(head.text));
    this.comment.push(this.#comment(packet.comments.join('; ')));
    const shown = packet.bytes.subarray(0, BYTES_SHOWN);
    this.bytes.push(Buffer.from(shown).toString('base64'));
    while (this.used.length <= place.index) this.used.push([0, 0, 0]);
    this.used[place.index]![dir]!++;
    this.#flow(this.place.length - 1, rec, head);
  }

  /** The time of the first packet is 0; earlier packets are negative. */
  #comment(text: string): number {
    if (text === '') return -1;
    // The id and the point have columns of their own.
    const fields = text.replace(/^id=\d+; point=\w+; dir=\w+(; |$)/, '');
    this.#commentChars += fields.length;
    return fields === '' || this.#commentChars > COMMENT_CHARS_MAX
      ? -1
      : this.comments.number(fields);
  }

  #flow(at: number, { place }: PacketRecord, head: FrameHead): void {
    const { tcp, payload, from, to } = head;
    if (tcp === null) return;
    const extra = (tcp.flags & SYN_FIN) === 0 ? 0 : 1;
    if (payload + extra > 0)
      this.#flowOf(from, to, place.index)?.data(at, tcp.seq, payload + extra);
    const back = this.flows.get(`${place.index} ${to} ${from}`);
    if ((tcp.flags & 0x10) !== 0) back?.acked(at, tcp.ack);
  }

  #flowOf(from: string, to: string, place: number): Flow | null {
    const key = `${place} ${from} ${to}`;
    const known = this.flows.get(key);
    if (known !== undefined) return known;
    // Flows of all points; html() chooses.
    if (this.flows.size >= 8 * CONNECTIONS_MAX) return null;
    const flow = new Flow(`${from} > ${to}`, place);
    this.flows.set(key, flow);
    return flow;
  }
}

/** The flows of the point that is nearest to the wire, those with the most segments first. */
function flowsOf(data: PageData, points: readonly string[]): Flow[] {
  const order = ['wire', 'if', 'ring', 'ip', 'sockbuf'];
  const rank = (place: number): number => {
    const at = order.indexOf(points[place] ?? '');
    return at < 0 ? order.length : at;
  };
  const best = new Map<string, Flow>();
  for (const flow of data.flows.values()) {
    const known = best.get(flow.name);
    if (known === undefined || rank(flow.place) < rank(known.place)) best.set(flow.name, flow);
  }
  const flows = [...best.values()].sort((a, b) => b.at.length - a.at.length);
  return flows.slice(0, CONNECTIONS_MAX);
}

function cells(tag: string, row: readonly (string | number)[]): string {
  const all = row.map((cell) => {
    const cls = typeof cell === 'number' ? ' class="n"' : '';
    return `<${tag}${cls}>${xmlText(String(cell))}</${tag}>`;
  });
  return `<tr>${all.join('')}</tr>`;
}

function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  return `<table>${cells('th', head)}${rows.map((row) => cells('td', row)).join('')}</table>`;
}

function hashOf(text: string): string {
  return `'sha256-${Buffer.from(sha256([Buffer.from(text, 'utf8')])).toString('base64')}'`;
}

function tablesOf(s: Summary): string {
  const places = s.places.map((p) => [p.name, p.out, p.in, p.unknown, p.bytes, p.lost ?? '?']);
  const why = s.reasons.map((r) => [r.what, r.reason, r.packets, r.bytes]);
  const links = s.links.map((l) => [l.kind, l.packets]);
  const whyTable =
    why.length === 0
      ? '<p>No packet was converted, copied or dropped, as far as the file says.</p>'
      : table(['what', 'reason', 'packets', 'bytes'], why);
  return (
    `<div class="cols"><section><h2>Interfaces and points</h2>` +
    `${table(['interface', 'out', 'in', 'unknown', 'bytes', 'lost'], places)}</section>` +
    `<section><h2>What was converted, copied or dropped, and why</h2>${whyTable}</section>` +
    (links.length === 0
      ? ''
      : `<section><h2>Links</h2>${table(['link', 'packets'], links)}</section>`) +
    `</div>`
  );
}

function aboutText(s: Summary, left: number): string {
  const begin =
    s.first === null ? '' : ` in ${s.seconds.toFixed(6)} s from ${timeText(BigInt(s.first))} UTC`;
  const cut = left === 0 ? '' : `; the last ${left} packets are not on this page`;
  return `${s.packets} packets${begin}, ${s.ids} packet ids${cut}`;
}

/** Reads a whole capture and returns its page. @param name shown as its title */
export async function capturePage(items: AsyncIterable<FileItem>, name: string): Promise<string> {
  const summarizer = new Summarizer();
  const page = new PageData();
  for await (const item of items) {
    const rec = summarizer.add(item);
    if (rec !== null) page.add(rec);
  }
  const summary = summarizer.result();
  const points = summary.places.map(({ point }) => point);
  const { place, dir, id, time, length, text, comment, bytes, texts, comments, used } = page;
  const data = {
    about: aboutText(summary, page.left),
    places: summary.places.map((p) => p.name),
    used: summary.places.map((_, i) => used[i] ?? [0, 0, 0]),
    place,
    dir,
    id,
    time,
    length,
    text,
    comment,
    bytes,
    texts: texts.list,
    comments: comments.list,
    conns: flowsOf(page, points),
  };
  const packed = gzipSync(JSON.stringify(data)).toString('base64');
  const title = xmlText(name);
  const policy = `default-src 'none'; script-src ${hashOf(PAGE_SCRIPT)}; style-src 'unsafe-inline'`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width">
<title>${title}</title><style>${PAGE_STYLE}</style></head>
<body><h1>${title}</h1><p id="about">Loading …</p>
${tablesOf(summary)}
<h2>Packets by point on a time line</h2>
<p>Wheel: zoom. Drag: move. Double click: all. Click: details; a line joins the records of one packet.
Orange: converted, copied or dropped.</p>
<canvas id="time"></canvas>
<h2>Packets</h2>
<p><label>Filter <input id="filter" type="search" placeholder="text, point, reason"></label>
<span id="found"></span></p>
<div class="pair"><div id="list"><div id="rows"></div></div><div id="detail"></div></div>
<h2>Sequence numbers</h2>
<p><label>Connection <select id="conn"></select></label>
Blue: data. Green: ACKs of the peer. Orange: sent again.</p>
<canvas id="seq"></canvas>
<script type="application/octet-stream" id="data">${packed}</script>
<script>${PAGE_SCRIPT}</script></body></html>
`;
}
