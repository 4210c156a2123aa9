/**
 * The life of a packet as a picture: for each point the mbufs with their pages, the descriptors and the
 * frames, and between the points what changed. Pages of the first point have one colour, so that a
 * copy, which has other pages, is visible. Texts are cut to their boxes. All text of the file is
 * escaped.
 */

import { linkText, type Life, type Stage } from './life.ts';

const WIDTH = 960;
const LEFT = 150;
const PAD = 16;
const LINE = 16;
/** Width of a character of the 11 px font: 0.602 em. */
const CHAR = 6.63;
const CELL_W = 78;
const CELL_H = 20;
const MBUF_H = 52;
const GAP = 8;
const FRAME_W = 62;
/** Pages, mbufs, frames and descriptors drawn of one; the rest is a number. */
const PAGES_MAX = 6;
const MBUFS_MAX = 10;
const FRAMES_MAX = 30;
const DESCS_MAX = 8;
const CHANGES_MAX = 6;

const STYLE = `
svg{background:#fff;color-scheme:light dark}
text{font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2328}
.t{font-size:15px;font-weight:bold}.s{fill:#59636e}.c{fill:#9a3412}
.band{fill:#f6f8fa;stroke:#d1d9e0}.m{fill:#fff;stroke:#59636e}.nomap{stroke-dasharray:4 3}
.page{fill:#b6e3ff;stroke:#0969da}.new{fill:#ffd8b5;stroke:#bc4c00}.int{fill:#eaeef2;stroke:#818b98}
.frame{fill:#dafbe1;stroke:#1a7f37}.desc{fill:#fbefff;stroke:#8250df}.a{stroke:#59636e;fill:none}
@media(prefers-color-scheme:dark){
svg{background:#0d1117}text{fill:#f0f6fc}.s{fill:#9198a1}.c{fill:#ffb77c}
.band{fill:#151b23;stroke:#3d444d}.m{fill:#0d1117;stroke:#9198a1}
.page{fill:#0c2d6b;stroke:#4493f8}.new{fill:#5a1e02;stroke:#db6d28}.int{fill:#2a313c;stroke:#656c76}
.frame{fill:#033a16;stroke:#3fb950}.desc{fill:#3c1e70;stroke:#ab7df8}.a{stroke:#9198a1}}
`;

/** Escapes text for XML; characters that XML forbids become U+FFFD. */
export function xmlText(text: string): string {
  return text
    .replace(/[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/gu, '\ufffd')
    .replace(/&/g, '&amp;')
    .replace(/</g, '&lt;')
    .replace(/>/g, '&gt;')
    .replace(/"/g, '&quot;')
    .replace(/'/g, '&#39;');
}

/** Collects shapes from top to bottom. */
class Drawing {
  #body = '';
  y = PAD;

  /** Text at `x` that is not wider than `room`. */
  text(x: number, y: number, text: string, room: number, cls = '', size = 1): void {
    const max = Math.floor(room / (CHAR * size));
    const cut = text.length > max ? `${text.slice(0, Math.max(1, max - 1))}…` : text;
    const c = cls === '' ? '' : ` class="${cls}"`;
    this.#body += `<text x="${x}" y="${y}"${c}>${xmlText(cut)}</text>\n`;
  }

  rect(x: number, y: number, w: number, h: number, cls: string): void {
    this.#body += `<rect x="${x}" y="${y}" width="${w}" height="${h}" rx="3" class="${cls}"/>\n`;
  }

  /** An arrow downwards. */
  arrow(x: number, from: number, to: number): void {
    this.#body += `<path class="a" d="M${x} ${from}V${to}m-4 -6l4 6l4 -6"/>\n`;
  }

  /** Inserts what `draw` adds after a background of its height. */
  band(draw: () => void): void {
    const before = this.#body;
    const top = this.y;
    this.#body = '';
    draw();
    const inner = this.#body;
    this.#body = before;
    this.rect(PAD, top, WIDTH - 2 * PAD, this.y - top, 'band');
    this.#body += inner;
  }

  svg(title: string): string {
    return (
      `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${this.y + PAD}" ` +
      `viewBox="0 0 ${WIDTH} ${this.y + PAD}" role="img">\n<title>${xmlText(title)}</title>\n` +
      `<style>${STYLE}</style>\n${this.#body}</svg>\n`
    );
  }
}

/** Places boxes in rows. */
class Rows {
  readonly #d: Drawing;
  readonly #height: number;
  #x = LEFT;

  constructor(d: Drawing, height: number) {
    this.#d = d;
    this.#height = height;
  }

  /** The place of a box of width `w`. */
  next(w: number): { x: number; y: number } {
    if (this.#x > LEFT && this.#x + w > WIDTH - 2 * PAD) {
      this.#x = LEFT;
      this.#d.y += this.#height + GAP;
    }
    const at = { x: this.#x, y: this.#d.y };
    this.#x += w + GAP;
    return at;
  }

  end(): void {
    this.#d.y += this.#height + GAP;
  }
}

type Mbuf = Stage['meta']['chain'][number];

function drawMbuf(d: Drawing, rows: Rows, m: Mbuf, old: ReadonlySet<bigint>): void {
  const pages = m.pages.slice(0, PAGES_MAX);
  const more = m.pages.length - pages.length;
  const title = `${m.kind} ${m.len} B  refs ${m.refs}`;
  const cells = pages.length + (more > 0 ? 1 : 0);
  const w = Math.max(cells * (CELL_W + 4) + 12, title.length * CHAR + 20);
  const { x, y } = rows.next(w);
  d.rect(x, y, w, MBUF_H, m.flags.includes('nomap') ? 'm nomap' : 'm');
  d.text(x + 8, y + 16, title, w - 12);
  pages.forEach((page, i) => {
    const cx = x + 8 + i * (CELL_W + 4);
    const kind = m.kind === 'int' ? 'int' : old.has(page) ? 'page' : 'new';
    d.rect(cx, y + 24, CELL_W, CELL_H, kind);
    d.text(cx + 4, y + 38, `0x${page.toString(16)}`, CELL_W - 4);
  });
  if (more > 0) d.text(x + 12 + pages.length * (CELL_W + 4), y + 38, `+${more} pages`, CELL_W);
}

function drawMbufs(d: Drawing, { meta }: Stage, old: ReadonlySet<bigint>): void {
  if (meta.chain.length === 0) return;
  const rows = new Rows(d, MBUF_H);
  for (const m of meta.chain.slice(0, MBUFS_MAX)) drawMbuf(d, rows, m, old);
  const more = meta.chain.length - MBUFS_MAX;
  if (more > 0 || meta.chainCut) {
    const text = more > 0 ? `+${more} mbufs` : 'more mbufs';
    const { x, y } = rows.next(90);
    d.text(x, y + 30, text, 90, 's');
  }
  rows.end();
}

function drawDescs(d: Drawing, { meta }: Stage): void {
  for (const { ring, slot, bytes } of meta.descs)
    bytes.slice(0, DESCS_MAX).forEach((desc, i) => {
      d.rect(LEFT, d.y, WIDTH - 2 * PAD - LEFT, CELL_H, 'desc');
      const text = `ring ${ring} slot ${slot + i}: ${desc}`;
      d.text(LEFT + 6, d.y + 14, text, WIDTH - 2 * PAD - LEFT - 12);
      d.y += CELL_H + 2;
      if (i === DESCS_MAX - 1 && bytes.length > DESCS_MAX) {
        d.text(LEFT, d.y + 12, `+${bytes.length - DESCS_MAX} descriptors`, 200, 's');
        d.y += LINE;
      }
    });
  if (meta.descs.length > 0) d.y += GAP;
}

function drawFrames(d: Drawing, { frames }: Stage): void {
  if (frames.length > 1) {
    const rows = new Rows(d, CELL_H);
    for (const { wirelen } of frames.slice(0, FRAMES_MAX)) {
      const { x, y } = rows.next(FRAME_W);
      d.rect(x, y, FRAME_W, CELL_H, 'frame');
      d.text(x + 6, y + 14, `${wirelen} B`, FRAME_W - 8);
    }
    const more = frames.length - FRAMES_MAX;
    if (more > 0) {
      const { x, y } = rows.next(90);
      d.text(x, y + 14, `+${more} frames`, 90, 's');
    }
    rows.end();
  }
  const { text, number, wirelen } = frames[0]!;
  const line = `packet ${number}: ${wirelen} B  ${text}`;
  d.text(LEFT, d.y + 10, line, WIDTH - 2 * PAD - LEFT, 's');
  d.y += LINE + 4;
}

function drawStage(d: Drawing, stage: Stage, begin: bigint, old: ReadonlySet<bigint>): void {
  d.band(() => {
    const top = d.y;
    const name = stage.point === '' ? stage.place : stage.point;
    const room = LEFT - PAD - 20;
    d.text(PAD + 12, top + 26, name, room, 't', 15 / 11);
    d.text(PAD + 12, top + 44, `${stage.place} ${stage.direction}`, room, 's');
    const after = Number(stage.frames[0]!.time - begin) / 1000;
    d.text(PAD + 12, top + 60, `+${after.toFixed(1)} us`, room, 's');
    if (stage.meta.csum !== 'unknown')
      d.text(PAD + 12, top + 76, `csum ${stage.meta.csum}`, room, 's');
    d.y += 12;
    drawMbufs(d, stage, old);
    drawDescs(d, stage);
    drawFrames(d, stage);
    d.y = Math.max(d.y, top + 88);
  });
}

function drawChanges(d: Drawing, { changes }: Stage): void {
  const top = d.y;
  d.y += 4;
  const lines = changes.slice(0, CHANGES_MAX);
  if (changes.length > CHANGES_MAX) lines.push(`and ${changes.length - CHANGES_MAX} more changes`);
  for (const line of lines) {
    d.text(
      LEFT,
      d.y + 12,
      line,
      WIDTH - 2 * PAD - LEFT,
      /copied|conver|drop/.test(line) ? 'c' : '',
    );
    d.y += LINE;
  }
  d.y = Math.max(d.y + 6, top + 24);
  d.arrow(PAD + 40, top + 2, d.y - 3);
}

function legend(d: Drawing): void {
  const items = [
    ['page', 'page of the payload'],
    ['new', 'other storage: a copy'],
    ['int', 'mbuf itself: headers'],
    ['m nomap', 'unmapped mbuf'],
  ] as const;
  items.forEach(([cls, text], i) => {
    const x = PAD + 12 + i * 215;
    d.rect(x, d.y + 6, 18, 12, cls);
    d.text(x + 24, d.y + 16, text, 185, 's');
  });
  d.y += 24;
}

/** Draws the life of a packet as SVG. @param title default: the id of the packet */
export function lifeSvg(life: Life, title = `Packet ${life.id}, ${life.direction}`): string {
  const d = new Drawing();
  const room = WIDTH - 2 * PAD;
  d.text(PAD, d.y + 14, title, room, 't', 15 / 11);
  d.y += 26;
  for (const link of life.links.slice(0, CHANGES_MAX)) {
    d.text(PAD, d.y + 10, linkText(life.id, link), room, 's');
    d.y += LINE;
  }
  const begin = life.stages[0]?.frames[0]?.time ?? 0n;
  // Pages that the payload has at the first point.
  const first = life.stages.find(({ meta }) => meta.chain.some(({ kind }) => kind !== 'int'));
  const old = new Set(first?.meta.chain.flatMap(({ pages }) => pages));
  life.stages.forEach((stage, i) => {
    if (i > 0) drawChanges(d, stage);
    drawStage(d, stage, begin, old);
  });
  for (const event of life.events.slice(0, CHANGES_MAX)) {
    d.text(PAD, d.y + 18, `event ${event}`, room, 'c');
    d.y += LINE;
  }
  legend(d);
  return d.svg(title);
}
