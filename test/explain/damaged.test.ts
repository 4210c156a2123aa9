/**
 * Damaged and hostile files, given to everything that reads captures: each either is read, or ends
 * with one line that has the offset and the reason. Memory stays bounded.
 */

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { createGzip, gzipSync } from 'node:zlib';
import { expect } from 'chai';
import { capturePage } from '../../src/explain/html.ts';
import { WireFrames } from '../../src/explain/frames.ts';
import { lifeOf, lifeText } from '../../src/explain/life.ts';
import { summarize, summaryText } from '../../src/explain/summary.ts';
import { lifeSvg } from '../../src/explain/svg.ts';
import { Verifier } from '../../src/explain/verify.ts';
import { CaptureFormatError, readCapture } from '../../src/pcap/read.ts';
import { PCAPNG_SHB } from '../../src/pcap/pcapng_options.ts';
import { full } from '../support/needs.ts';
import { cliMain } from '../support/root.ts';
import { builtCapture, captureBytes } from './captures.ts';

const RUNS = Number(process.env['TAPNIC_FUZZ_RUNS'] ?? 400);
const RSS_MAX = 400 << 20;
/** The same for tiny packets: 50 bytes kept of each would be more. */
const RSS_TINY_MAX = full ? RSS_MAX : 220 << 20;
/** Megabytes of the decompression bomb: more than the limit. */
const BOMB_MB = full ? 1200 : 480;

/** A generator of numbers below 1, the same for the same seed (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** A changed copy: bits, numbers at a limit, cuts, repeated and moved pieces. */
function mutate(original: Buffer, rnd: () => number): Buffer {
  let file = Buffer.from(original);
  const below = (n: number): number => Math.floor(rnd() * n);
  for (let n = 1 + below(4); n > 0 && file.length > 8; n--) {
    const at = below(file.length - 4);
    const what = below(6);
    if (what === 0) file[at]! ^= 1 << below(8);
    else if (what === 1)
      file.writeUInt32LE([0, 1, 3, 0xffffffff, 0x7fffffff, 0x1000000][below(6)]!, at & ~3);
    else if (what === 2) file = file.subarray(0, at);
    else if (what === 3) file.writeUInt16LE([0, 0xffff, 0x8000, 2989][below(4)]!, at & ~1);
    else {
      const piece = file.subarray(at, at + below(300));
      const to = below(file.length);
      file = Buffer.concat([
        file.subarray(0, to),
        piece,
        file.subarray(what === 4 ? to : to + piece.length),
      ]);
    }
  }
  return file;
}

async function* chunks(file: Buffer, size: number): AsyncGenerator<Buffer, void> {
  for (let at = 0; at < file.length; at += size) yield file.subarray(at, at + size);
}

/** Gives a file to every reader; returns the texts of their errors. */
async function readAll(file: Buffer, size: number): Promise<(string | null)[]> {
  const items = (): ReturnType<typeof readCapture> => readCapture(chunks(file, size));
  const readers: (() => Promise<unknown>)[] = [
    async () => summaryText(await summarize(items())),
    async () => {
      const life = await lifeOf(items(), 2);
      return life === null ? '' : lifeText(life) + lifeSvg(life);
    },
    () => capturePage(items(), 'x'),
    async () => {
      const verifier = new Verifier();
      const frames = new WireFrames(65535);
      for await (const item of items()) {
        const rec = verifier.add(item);
        if (rec !== null) frames.add(rec);
      }
      verifier.finish();
      const bad = await frames.read(items());
      if (bad === null) frames.compare(verifier.verdict);
    },
  ];
  return Promise.all(
    readers.map(async (read) => {
      try {
        await read();
        return null;
      } catch (e) {
        if (!(e instanceof CaptureFormatError)) throw e;
        expect(e.message).to.match(/^at offset \d+: [^\n]+$/);
        expect(e.offset).to.be.within(0, file.length);
        return e.message;
      }
    }),
  );
}

describe('explain: damaged files', function () {
  this.timeout(300_000);
  const originals = ['nomap.pcapng', 'default.pcapng', 'tcpdump.pcap'] as const;

  it('seeded mutations of real captures are read or refused with offset and reason', async () => {
    let refused = 0;
    for (const [i, name] of originals.entries()) {
      const original = captureBytes(name);
      for (let run = 0; run < RUNS / originals.length; run++) {
        const seed = 1000 * i + run;
        const rnd = random(seed);
        const file = mutate(original, rnd);
        try {
          const errors = await readAll(file, 1 + Math.floor(rnd() * 5000));
          if (errors[0] !== null) refused++;
        } catch (e) {
          throw new Error(`${name}, seed ${seed}: ${(e as Error).stack}`, { cause: e });
        }
      }
    }
    // Most mutations hit a length or cut the file; the others only change a packet.
    expect(refused).to.be.within(RUNS / 10, RUNS * 0.95);
  });

  it('a cut at every byte of the first blocks is an error with its offset', async () => {
    const file = captureBytes('nomap.pcapng');
    let errors = 0;
    for (let length = 1; length < 1500; length++)
      if ((await readAll(file.subarray(0, length), 4096))[0] !== null) errors++;
    expect(errors).to.be.above(1450);
  });

  it('a hostile section does not grow memory', async () => {
    const section = builtCapture([], []);
    const lengths = [0xfffffffc, 0x7ffffffc, 0x1000004, 13, 8, 0];
    for (const length of lengths) {
      const block = Buffer.alloc(12);
      block.writeUInt32LE(6, 0);
      block.writeUInt32LE(length, 4);
      const [error] = await readAll(Buffer.concat([section, block]), 4096);
      expect(error, String(length)).to.match(/^at offset \d+: a block of \d+ bytes/);
    }
    expect(section.readUInt32LE(0)).to.equal(PCAPNG_SHB);
  });

  describe('the commands', () => {
    let dir: string;
    before(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-damaged-'))));
    after(() => rmSync(dir, { recursive: true }));

    const commands = (file: string): string[][] => [
      ['explain', file],
      ['explain', file, '--packet', '2'],
      ['explain', file, '--html', join(dir, 'page.html')],
      ['capture', '--verify', file],
    ];

    it('print file, offset and reason in one line', () => {
      const cut = captureBytes('nomap.pcapng').subarray(0, 3001);
      const files: [string, Buffer, RegExp][] = [
        [
          'cut.pcapng',
          cut,
          /: at offset \d+: the file ends within a block: \d+ bytes wanted, \d+ left\n$/,
        ],
        ['empty', Buffer.alloc(0), /: at offset 0: the file is empty\n$/],
        ['text', Buffer.from('hello world'), /: at offset 0: neither a pcap nor a pcapng file\n$/],
        ['cut.gz', gzipSync(cut).subarray(0, 400), /: gzip: unexpected end of file\n$/],
        [
          'bad.gz',
          Buffer.concat([Buffer.from([0x1f, 0x8b, 9]), cut]),
          /: gzip: unknown compression method\n$/,
        ],
      ];
      for (const [name, bytes, pattern] of files) {
        const file = join(dir, name);
        writeFileSync(file, bytes);
        for (const args of commands(file)) {
          const run = spawnSync(process.execPath, [cliMain, ...args], { encoding: 'utf8' });
          expect(run, args.join(' ')).to.include({ status: 1, stdout: '' });
          expect(run.stderr, args.join(' '))
            .to.match(pattern)
            .and.match(/^tapnic: [^\n]+\n$/);
        }
      }
      for (const args of commands(dir)) {
        const run = spawnSync(process.execPath, [cliMain, ...args], { encoding: 'utf8' });
        expect(run.stderr).to.equal(`tapnic: ${dir}: EISDIR: illegal operation on a directory\n`);
      }
    });

    /** Runs a command on what `feed` writes to its input; returns the largest resident size. */
    async function memoryOf(
      args: readonly string[],
      feed: (write: (bytes: Buffer) => Promise<void>) => Promise<void>,
    ): Promise<{ code: number; rss: number; stderr: string }> {
      const program = `process.on('exit', () => require('fs').writeSync(2, '\\nrss=' + process.resourceUsage().maxRSS))`;
      const preload = join(dir, 'rss.cjs');
      writeFileSync(preload, program);
      const child = spawn(process.execPath, ['-r', preload, cliMain, ...args], {
        stdio: ['pipe', 'ignore', 'pipe'],
      });
      let stderr = '';
      child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
      const ended = once(child, 'exit');
      child.stdin.on('error', () => undefined);
      await feed(async (bytes) => {
        if (child.exitCode === null && !child.stdin.write(bytes))
          await Promise.race([once(child.stdin, 'drain'), ended]);
      });
      child.stdin.end();
      const [code] = (await ended) as [number];
      return { code, rss: Number(/rss=(\d+)/.exec(stderr)![1]) * 1024, stderr };
    }

    const tiny = (n: number): Buffer => {
      const record = Buffer.alloc(17);
      record.writeUInt32LE(1, 8);
      record.writeUInt32LE(60, 12);
      return Buffer.concat(Array.from({ length: n }, () => record));
    };

    const million = full ? 10 : 2;
    it(`${million} million tiny packets fit into bounded memory`, async () => {
      const head = captureBytes('tcpdump.pcap').subarray(0, 24);
      const part = tiny(100_000);
      const { code, rss, stderr } = await memoryOf(['explain', '-'], async (write) => {
        await write(head);
        for (let i = 0; i < 10 * million; i++) await write(part);
      });
      expect(code, stderr).to.equal(0);
      expect(rss).to.be.below(RSS_TINY_MAX);
    });

    it('a decompression bomb fits into bounded memory', async () => {
      const block = Buffer.alloc(12 << 20);
      block.writeUInt32LE(0x0bad_beef, 0);
      block.writeUInt32LE(block.length, 4);
      block.writeUInt32LE(block.length, block.length - 4);
      const gzip = createGzip({ level: 9 });
      const out = buffer(gzip);
      gzip.write(builtCapture(['eth0'], [{}]));
      // Blocks that no reader knows: compressed, a thousandth.
      for (let i = 0; i < BOMB_MB / 12; i++) if (!gzip.write(block)) await once(gzip, 'drain');
      gzip.end();
      const bomb = await out;
      for (const args of commands('-').filter((one) => !one.includes('--html'))) {
        const { code, rss, stderr } = await memoryOf(args, (write) => write(bomb));
        expect(code, stderr).to.be.within(0, 1);
        expect(rss, args.join(' ')).to.be.below(RSS_MAX);
      }
    });
  });
});
