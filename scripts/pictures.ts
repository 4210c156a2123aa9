/**
 * Draws the pictures of the README from real captures: the same download over the default arm and over
 * `-nomap`, one packet of each through all points.
 *
 *   npm run -s build && node dist/scripts/pictures.js     as root; writes docs/pictures
 */

import { createReadStream, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Life, lifeOf } from '../src/explain/life.ts';
import { lifeSvg } from '../src/explain/svg.ts';
import { type FileItem, readCapture } from '../src/pcap/read.ts';
import { Instance } from '../test/support/instance.ts';
import { Netns } from '../test/support/netns.ts';
import { packageRoot } from '../test/support/root.ts';
import { Site } from '../test/support/served.ts';

const FILE_BYTES = 400_000;
const DOWNLOADS = 5;
/** Pages of a packet that fit into a picture. */
const PAGES = { least: 3, most: 5 };

const ARMS = [
  { name: 'default', args: [], title: 'Default: the pages are never mapped and never copied' },
  {
    name: 'nomap',
    args: ['--cap=-nomap'],
    title: '-nomap: ip_output maps the pages, one mbuf for each',
  },
];

const itemsOf = (file: string): AsyncIterable<FileItem> => readCapture(createReadStream(file));

/** The life of the last packet that fits into a picture. */
async function lastOf(file: string): Promise<Life> {
  const ids: number[] = [];
  for await (const item of itemsOf(file))
    if (item.kind === 'packet' && item.iface === 0 && item.id !== 0) ids.push(item.id);
  for (const id of ids.toReversed()) {
    const life = await lifeOf(itemsOf(file), id);
    const pages = life?.stages[0]?.meta.chain.flatMap((m) => m.pages).length ?? 0;
    if (life !== null && pages >= PAGES.least && pages <= PAGES.most) return life;
  }
  throw new Error(`${file}: no packet with ${PAGES.least} to ${PAGES.most} pages`);
}

async function capture(args: readonly string[], file: string): Promise<void> {
  using site = new Site();
  site.file('file.bin', FILE_BYTES);
  using ns = new Netns();
  const places = `sockbuf,ip,if,ring,wire=${file}`;
  const instance = await Instance.start(ns, ['serve', site.dir, ...args, '--capture', places]);
  // The first download is slower, because V8 compiles.
  for (let i = 0; i < DOWNLOADS; i++) {
    const { status } = await instance.curl('-o', '/dev/null', instance.urlOf('file.bin'));
    if (status !== 0) throw new Error(`curl: status ${status}`);
  }
  await instance.stop();
}

const folder = join(packageRoot(), 'docs/pictures');
mkdirSync(folder, { recursive: true });
const dir = mkdtempSync(join(tmpdir(), 'tapnic-pictures-'));
try {
  for (const { name, args, title } of ARMS) {
    const file = join(dir, `${name}.pcapng`);
    await capture(args, file);
    writeFileSync(join(folder, `${name}.svg`), lifeSvg(await lastOf(file), title));
  }
} finally {
  rmSync(dir, { recursive: true });
}
