/**
 * The script and the style of the page that html.ts writes. The script runs in a browser: it inflates
 * the data, and draws canvases and a list of only the visible rows. Text of the file goes into the
 * page only by textContent and into canvases, never as markup.
 */

/** CSS of the page, for light and dark. */
export const PAGE_STYLE = `
:root{color-scheme:light dark;--bg:#fff;--fg:#1f2328;--soft:#59636e;--line:#d1d9e0;--panel:#f6f8fa;
--out:#0969da;--in:#1a7f37;--unknown:#8250df;--hot:#bc4c00;--sel:#ffd33d}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#f0f6fc;--soft:#9198a1;--line:#3d444d;
--panel:#151b23;--out:#4493f8;--in:#3fb950;--unknown:#ab7df8;--hot:#db6d28;--sel:#9e6a03}}
*{box-sizing:border-box}
body{margin:0;padding:12px 16px;background:var(--bg);color:var(--fg);font:13px/1.45 system-ui,sans-serif}
h1{font-size:17px;margin:0 0 2px}h2{font-size:14px;margin:14px 0 6px}p{margin:0 0 8px;color:var(--soft)}
canvas{display:block;width:100%;background:var(--panel);border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse}td,th{padding:2px 12px 2px 0;text-align:left;vertical-align:top}
th{color:var(--soft);font-weight:normal}td.n{text-align:right;font-variant-numeric:tabular-nums}
.cols{display:flex;gap:24px;flex-wrap:wrap}
.pair{display:grid;grid-template-columns:minmax(0,3fr) minmax(0,2fr);gap:12px}
@media(max-width:900px){.pair{grid-template-columns:minmax(0,1fr)}}
#list,#detail{height:420px;overflow:auto;border:1px solid var(--line);border-radius:6px;
background:var(--panel);font:12px/20px ui-monospace,monospace}
#rows{position:relative}
.row{position:absolute;left:0;right:0;height:20px;white-space:pre;overflow:hidden;
text-overflow:ellipsis;padding:0 8px;cursor:default}
.row.sel{background:var(--sel)}.row.hot{color:var(--hot)}.row.sel.hot{color:inherit}
#detail{padding:8px 10px;white-space:pre-wrap;overflow-wrap:anywhere;line-height:17px}
#detail b{display:block;margin-top:8px}#detail i{font-style:normal;color:var(--hot)}
input,select{font:inherit;background:var(--bg);color:var(--fg);border:1px solid var(--line);
border-radius:6px;padding:3px 8px;max-width:100%}
input{width:22em}label{margin-right:10px}
`;

/** JavaScript of the page. */
export const PAGE_SCRIPT = String.raw`'use strict';
(async () => {
const $ = (id) => document.getElementById(id);
const ROW = 20, LANE = 26, LEFT = 170;
async function load() {
  const raw = atob($('data').textContent.trim());
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return JSON.parse(await new Response(stream).text());
}
let d;
try { d = await load(); } catch (e) {
  $('about').textContent = 'This browser cannot show the page: ' + e.message;
  return;
}
const n = d.place.length;
const time = new Float64Array(n);
for (let i = 0, t = 0; i < n; i++) time[i] = t += d.time[i];
const order = Uint32Array.from(time.keys()).sort((a, b) => time[a] - time[b] || a - b);
// Times of other programs' files can go back.
let begin = 0, end = 1;
for (const t of time) { if (t > end) end = t; if (t < begin) begin = t; }
const dirs = ['unknown', 'in', 'out'];
const lanes = [];
const laneOf = new Map();
d.places.forEach((name, p) => [2, 1, 0].forEach((dir) => {
  if (d.used[p][dir] === 0) return;
  laneOf.set(p * 3 + dir, lanes.length);
  lanes.push({ name: name + ' ' + dirs[dir], dir });
}));
const byId = new Map();
for (let i = 0; i < n; i++) if (d.id[i] !== 0) {
  const l = byId.get(d.id[i]);
  if (l === undefined) byId.set(d.id[i], [i]); else l.push(i);
}
const comment = (i) => d.comment[i] < 0 ? '' : d.comments[d.comment[i]];
const hot = d.comments.map((c) => /(^|; )why=/.test(c));
const isHot = (i) => d.comment[i] >= 0 && hot[d.comment[i]];
const us = (t) => (t / 1000).toFixed(3);
let selected = -1, shown = null, from = begin, to = end;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function canvas(el, height) {
  const scale = window.devicePixelRatio || 1, w = el.clientWidth;
  el.style.height = height + 'px';
  el.width = Math.round(w * scale);
  el.height = Math.round(height * scale);
  const c = el.getContext('2d');
  c.scale(scale, scale);
  c.font = '11px ui-monospace,monospace';
  return { c, w, h: height };
}
const colors = () => ['--unknown', '--in', '--out'].map(css);
function axis(c, w, h, a, b, left) {
  const step = Math.pow(10, Math.floor(Math.log10(Math.max(1, (b - a) / 4))));
  const each = (b - a) / step > 10 ? step * 2.5 : step;
  c.strokeStyle = css('--line'); c.fillStyle = css('--soft');
  for (let t = Math.ceil(a / each) * each; t <= b; t += each) {
    const x = left + ((t - a) / (b - a)) * (w - left - 10);
    c.beginPath(); c.moveTo(x, 0); c.lineTo(x, h - 16); c.stroke();
    const label = each >= 1e6 ? (t / 1e9).toFixed(3) + ' s' : (t / 1e3).toFixed(each < 1e3 ? 3 : 0) + ' us';
    if (x + label.length * 6.7 < w) c.fillText(label, x + 2, h - 5);
  }
}
const xOf = (t, w) => LEFT + ((t - from) / (to - from)) * (w - LEFT - 10);
function drawTime() {
  const { c, w, h } = canvas($('time'), lanes.length * LANE + 24);
  axis(c, w, h, from, to, LEFT);
  const col = colors(), warm = css('--hot');
  lanes.forEach((lane, y) => {
    c.fillStyle = css('--soft');
    const max = Math.floor((LEFT - 14) / 6.7);
    c.fillText(lane.name.length > max ? lane.name.slice(0, max - 1) + '…' : lane.name, 8, y * LANE + 18);
  });
  for (const k of order) {
    const t = time[k];
    if (t < from || t > to) continue;
    c.fillStyle = isHot(k) ? warm : col[d.dir[k]];
    c.fillRect(xOf(t, w) - 1, laneOf.get(d.place[k] * 3 + d.dir[k]) * LANE + 6, 2, LANE - 10);
  }
  if (selected < 0) return;
  const group = (byId.get(d.id[selected]) || [selected]).slice(0, 400);
  c.strokeStyle = css('--fg'); c.lineWidth = 1.5; c.beginPath();
  group.forEach((i, k) => {
    const x = Math.max(LEFT, xOf(time[i], w)), y = laneOf.get(d.place[i] * 3 + d.dir[i]) * LANE + LANE / 2;
    if (k === 0) c.moveTo(x, y); else c.lineTo(x, y);
  });
  c.stroke();
}
function line(i) {
  const id = d.id[i] === 0 ? '' : String(d.id[i]);
  return String(i + 1).padStart(6) + '  ' + us(time[i]).padStart(13) + '  ' + id.padStart(7) + '  ' +
    d.places[d.place[i]].padEnd(14) + ' ' + dirs[d.dir[i]].padEnd(7) + ' ' +
    String(d.length[i]).padStart(6) + '  ' + d.texts[d.text[i]];
}
const count = () => shown === null ? n : shown.length;
const at = (k) => shown === null ? k : shown[k];
function drawList() {
  const list = $('list'), rows = $('rows');
  rows.style.height = count() * ROW + 'px';
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
  const last = Math.min(count(), first + Math.ceil(list.clientHeight / ROW) + 10);
  rows.textContent = '';
  for (let k = first; k < last; k++) {
    const i = at(k), row = document.createElement('div');
    row.className = 'row' + (i === selected ? ' sel' : '') + (isHot(i) ? ' hot' : '');
    row.style.top = k * ROW + 'px';
    row.textContent = line(i);
    row.addEventListener('click', () => select(i));
    rows.append(row);
  }
}
function put(tag, text) {
  const el = document.createElement(tag);
  el.textContent = text;
  $('detail').append(el);
}
function hexLines(b64) {
  const raw = atob(b64), out = [];
  for (let k = 0; k < raw.length; k += 16) {
    let hex = '', text = '';
    for (let j = k; j < k + 16 && j < raw.length; j++) {
      const v = raw.charCodeAt(j);
      hex += v.toString(16).padStart(2, '0') + ' ';
      text += v >= 32 && v < 127 ? raw[j] : '.';
    }
    out.push(k.toString(16).padStart(4, '0') + '  ' + hex.padEnd(48) + ' ' + text);
  }
  return out.join('\n');
}
function drawDetail() {
  const i = selected;
  $('detail').textContent = '';
  if (i < 0) { $('detail').textContent = 'Click a packet.'; return; }
  const group = byId.get(d.id[i]) || [i];
  put('div', 'Packet ' + (i + 1) + (d.id[i] === 0 ? '' : ', id ' + d.id[i] + ', ' + group.length + ' records'));
  for (const k of group.slice(0, 200)) {
    put('b', (k === i ? '▸ ' : '') + d.places[d.place[k]] + ' ' + dirs[d.dir[k]] + ', packet ' + (k + 1) +
      ', ' + us(time[k]) + ' us, ' + d.length[k] + ' bytes');
    put('div', d.texts[d.text[k]]);
    for (const field of comment(k).split('; ')) {
      if (field === '' || /^(id|point|dir)=/.test(field)) continue;
      const chain = /^chain=\[(.*)\]$/.exec(field);
      if (chain === null) put(/^why=/.test(field) ? 'i' : 'div', '  ' + field);
      else for (const m of chain[1].split(' | ')) put('div', '  mbuf ' + m);
    }
  }
  put('b', 'Bytes');
  put('div', hexLines(d.bytes[i]));
}
function select(i, scroll) {
  selected = i;
  if (scroll) {
    const k = shown === null ? i : shown.indexOf(i);
    if (k >= 0) $('list').scrollTop = Math.max(0, k * ROW - 200);
  }
  drawList(); drawDetail(); drawTime();
}
function filter() {
  const want = $('filter').value.trim().toLowerCase();
  if (want === '') shown = null;
  else {
    const text = d.texts.map((t) => t.toLowerCase().includes(want));
    const note = d.comments.map((t) => t.toLowerCase().includes(want));
    const place = d.places.map((t) => t.toLowerCase().includes(want));
    shown = [];
    for (let i = 0; i < n; i++)
      if (text[d.text[i]] || place[d.place[i]] || (d.comment[i] >= 0 && note[d.comment[i]])) shown.push(i);
  }
  $('found').textContent = count() + ' packets';
  $('list').scrollTop = 0;
  drawList();
}
function drawSeq() {
  const conn = d.conns[Number($('conn').value)];
  const { c, w, h } = canvas($('seq'), 280);
  if (conn === undefined) return;
  const k = conn.at.length, left = 90;
  let a = Infinity, b = -Infinity, lo = Infinity, hi = -Infinity;
  for (let i = 0; i < k; i++) {
    const t = time[conn.at[i]];
    a = Math.min(a, t); b = Math.max(b, t);
    lo = Math.min(lo, conn.seq[i]); hi = Math.max(hi, conn.seq[i] + conn.len[i]);
  }
  if (b - a < 1) b = a + 1;
  if (hi <= lo) hi = lo + 1;
  axis(c, w, h, a, b, left);
  const x = (t) => left + ((t - a) / (b - a)) * (w - left - 10);
  const y = (s) => h - 24 - ((s - lo) / (hi - lo)) * (h - 40);
  c.fillStyle = css('--soft');
  for (let g = 0; g <= 4; g++) {
    const s = Math.round(lo + ((hi - lo) * g) / 4);
    c.fillText(String(s), 8, y(s) + 4);
  }
  const col = colors(), warm = css('--hot');
  for (let i = 0; i < k; i++) {
    const px = x(time[conn.at[i]]);
    if (conn.ack[i] === 1) {
      c.fillStyle = col[1];
      c.fillRect(px - 1.5, y(conn.seq[i]) - 1.5, 3, 3);
      continue;
    }
    c.strokeStyle = conn.again[i] === 1 ? warm : col[2];
    c.lineWidth = 2; c.beginPath();
    c.moveTo(px, y(conn.seq[i])); c.lineTo(px, Math.min(y(conn.seq[i]) - 2, y(conn.seq[i] + conn.len[i])));
    c.stroke();
  }
}
function drawAll() { drawTime(); drawList(); drawSeq(); }
$('about').textContent = d.about;
d.conns.forEach((conn, k) => {
  const option = document.createElement('option');
  option.value = String(k);
  option.textContent = conn.name;
  $('conn').append(option);
});
$('list').addEventListener('scroll', drawList);
$('filter').addEventListener('input', filter);
$('conn').addEventListener('change', drawSeq);
const tl = $('time');
const timeAt = (e) => from + ((e.offsetX - LEFT) / (tl.clientWidth - LEFT - 10)) * (to - from);
tl.addEventListener('wheel', (e) => {
  e.preventDefault();
  const t = Math.min(to, Math.max(from, timeAt(e))), part = (t - from) / (to - from);
  const span = Math.min(end - begin, Math.max(100, (to - from) * (e.deltaY > 0 ? 1.25 : 0.8)));
  from = Math.min(end - span, Math.max(begin, t - part * span));
  to = from + span;
  drawTime();
}, { passive: false });
let drag = null;
tl.addEventListener('pointerdown', (e) => { drag = { x: e.offsetX, from, to, moved: false }; });
window.addEventListener('pointerup', () => { drag = null; });
tl.addEventListener('pointermove', (e) => {
  if (drag === null || e.buttons === 0) return;
  const dt = ((drag.x - e.offsetX) / (tl.clientWidth - LEFT - 10)) * (drag.to - drag.from);
  if (Math.abs(drag.x - e.offsetX) > 3) drag.moved = true;
  const move = Math.min(end - drag.to, Math.max(begin - drag.from, dt));
  from = drag.from + move; to = drag.to + move;
  drawTime();
});
let moved = false;
tl.addEventListener('pointerup', () => { moved = drag !== null && drag.moved; });
tl.addEventListener('click', (e) => {
  if (moved) return;
  const lane = Math.floor(e.offsetY / LANE), t = timeAt(e);
  let best = -1, near = Infinity;
  for (let i = 0; i < n; i++) {
    if (laneOf.get(d.place[i] * 3 + d.dir[i]) !== lane) continue;
    const away = Math.abs(time[i] - t);
    if (away < near) { near = away; best = i; }
  }
  if (best >= 0) select(best, true);
});
tl.addEventListener('dblclick', () => { from = begin; to = end; drawTime(); });
window.addEventListener('resize', drawAll);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll);
filter(); drawAll();
const want = /^#packet=(\d+)$/.exec(location.hash);
if (want !== null && Number(want[1]) >= 1 && Number(want[1]) <= n) select(Number(want[1]) - 1, true);
else drawDetail();
document.documentElement.dataset.ready = String(n);
})();
`;
