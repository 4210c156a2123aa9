/** Line plots as SVG text, readable in light and dark. Left out: everything but lines, marks and axes. */

/** A labelled place on an axis, from 0 to 1. */
export interface Tick {
  readonly at: number;
  readonly label: string;
}

export interface Line {
  readonly name: string;
  /** Places from 0 to 1 on both axes, in order of x. */
  readonly points: readonly (readonly [x: number, y: number])[];
  /** Smallest and largest y at each point, if they are known. */
  readonly bars?: readonly (readonly [low: number, high: number])[];
}

export interface Plot {
  readonly title: string;
  readonly xTitle: string;
  readonly yTitle: string;
  readonly xTicks: readonly Tick[];
  readonly yTicks: readonly Tick[];
  readonly lines: readonly Line[];
}

const WIDTH = 760;
const HEIGHT = 420;
const LEFT = 76;
const RIGHT = 24;
const TOP = 52;
/** Below the plot: ticks and the title of the axis. */
const AXIS = 54;
const LEGEND_LINE = 22;
/** Least distance of two labels on the x axis. */
const LABEL_GAP = 46;

/** Colours with enough contrast to the background; the second one is for dark. */
const COLOURS = [
  ['#1f5fa8', '#6cb0f5'],
  ['#b8500c', '#f5a05a'],
  ['#1f7a3d', '#5fce84'],
  ['#8a2f8f', '#dc8ce0'],
  ['#5a5a5a', '#b8b8b8'],
  ['#a3152d', '#ff8a9a'],
] as const;
/** Dashes differ too, for readers who do not see the colours. */
const DASHES = ['none', '7 4', '2 4', '10 4 2 4', '4 4', '1 3'] as const;

const ESCAPES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ESCAPES[c]!);
}

function styleOf(): string {
  const line = (dark: 0 | 1): string =>
    COLOURS.map((colour, i) => `.l${i}{stroke:${colour[dark]}}.m${i}{fill:${colour[dark]}}`).join(
      '',
    );
  return `<style>
text{font:13px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-size:16px;font-weight:600}.bg{fill:#fff}.grid{stroke:#d0d7de}.axis{stroke:#57606a}
path{fill:none;stroke-width:2}${line(0)}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.bg{fill:#0d1117}.grid{stroke:#30363d}.axis{stroke:#8b949e}${line(1)}}
</style>`;
}

/** The SVG document. */
export function draw(plot: Plot): string {
  const height = HEIGHT + plot.lines.length * LEGEND_LINE;
  const bottom = HEIGHT - AXIS;
  const x = (at: number): number => Math.round((LEFT + at * (WIDTH - LEFT - RIGHT)) * 10) / 10;
  const y = (at: number): number => Math.round((bottom - at * (bottom - TOP)) * 10) / 10;
  const out = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<title>${escaped(plot.title)}</title>`,
    styleOf(),
    `<rect class="bg" width="${WIDTH}" height="${height}"/>`,
    `<text class="title" x="${LEFT}" y="24">${escaped(plot.title)}</text>`,
    `<text x="${LEFT}" y="42">${escaped(plot.yTitle)}</text>`,
    `<text x="${x(0.5)}" y="${HEIGHT - 10}" text-anchor="middle">${escaped(plot.xTitle)}</text>`,
  ];
  for (const { at, label } of plot.yTicks)
    out.push(
      `<line class="grid" x1="${LEFT}" x2="${x(1)}" y1="${y(at)}" y2="${y(at)}"/>`,
      `<text x="${LEFT - 8}" y="${y(at) + 4}" text-anchor="end">${escaped(label)}</text>`,
    );
  out.push(`<line class="axis" x1="${LEFT}" x2="${x(1)}" y1="${bottom}" y2="${bottom}"/>`);
  let last = -Infinity;
  for (const { at, label } of plot.xTicks) {
    out.push(`<line class="axis" x1="${x(at)}" x2="${x(at)}" y1="${bottom}" y2="${bottom + 5}"/>`);
    if (x(at) - last < LABEL_GAP) continue;
    last = x(at);
    out.push(`<text x="${last}" y="${bottom + 20}" text-anchor="middle">${escaped(label)}</text>`);
  }
  plot.lines.forEach((line, i) => out.push(...drawLine(line, i, x, y)));
  return `${out.join('\n')}\n</svg>\n`;
}

type Place = (at: number) => number;

/** A line with its marks, its bars and its entry in the legend. */
function drawLine({ name, points, bars }: Line, i: number, x: Place, y: Place): string[] {
  const n = i % COLOURS.length;
  const path = points.map(([px, py], k) => `${k === 0 ? 'M' : 'L'}${x(px)} ${y(py)}`).join('');
  const dash = n === 0 ? '' : ` stroke-dasharray="${DASHES[n]!}"`;
  const legend = HEIGHT + 4 + i * LEGEND_LINE;
  return [
    `<path class="l${n}"${dash} d="${path}"/>`,
    ...points.map(([px, py]) => `<circle class="m${n}" cx="${x(px)}" cy="${y(py)}" r="3.5"/>`),
    ...(bars ?? []).map(
      ([low, high], k) =>
        `<line class="l${n}" x1="${x(points[k]![0])}" x2="${x(points[k]![0])}" y1="${y(low)}" y2="${y(high)}"/>`,
    ),
    `<path class="l${n}"${dash} d="M${LEFT} ${legend}h36"/>`,
    `<circle class="m${n}" cx="${LEFT + 18}" cy="${legend}" r="3.5"/>`,
    `<text x="${LEFT + 46}" y="${legend + 4}">${escaped(name)}</text>`,
  ];
}
