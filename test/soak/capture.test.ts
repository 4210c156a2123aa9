/**
 * Captures under load for a long time, with rotation and with readers that come and go: what is not in
 * a file was counted as dropped, every packet id passes all points, and the instance does not grow.
 */

import { type ChildProcess, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { captureItems } from '../../src/cli/capture_input.ts';
import { Verifier, verdictOk } from '../../src/explain/verify.ts';
import { Instance } from '../support/instance.ts';
import { full, needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { Site } from '../support/served.ts';

const SECONDS = process.env['TAPNIC_SOAK'] === '1' ? 3600 : full ? 600 : 2;
const FILE_BYTES = 1_000_000;
/** Bytes by which the instance may grow after its first fifth of the time. */
const GROWTH_MAX = 32 << 20;

/** The numbers of a summary. */
interface Summary {
  captured: number;
  received: number;
  slow: number;
  ring: number;
}

function summaryOf(stderr: string): Summary {
  const numbers =
    /(\d+) packets? captured\n(\d+) received.*\n(\d+) dropped: reader.*\n(\d+) dropped: capture/.exec(
      stderr,
    );
  if (numbers === null) throw new Error(`no summary: ${stderr}`);
  const [captured, received, slow, ring] = numbers.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
  ];
  return { captured, received, slow, ring };
}

/** A running `tapnic capture`. */
class Client {
  readonly child: ChildProcess;
  stderr = '';
  readonly #closed: Promise<unknown>;

  constructor(instance: Instance, cwd: string, args: string[]) {
    const words = [cliMain, 'capture', ...args, '--control', instance.control];
    this.child = instance.ns.spawn(process.execPath, words, {
      cwd,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child.stderr!.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.#closed = once(this.child, 'close');
  }

  async recording(): Promise<this> {
    for (let i = 0; i < 3000 && !this.stderr.includes('until Ctrl-C'); i++) await sleep(10);
    expect(this.stderr).to.include('until Ctrl-C');
    return this;
  }

  /** Resolves when it has ended and all of its output is in `stderr`. */
  async ended(): Promise<void> {
    await this.#closed;
  }

  async end(signal: NodeJS.Signals): Promise<number | null> {
    this.child.kill(signal);
    await this.#closed;
    return this.child.exitCode;
  }

  /** Ends as Ctrl-C does. What was received is in the file or counted. */
  async stop(): Promise<Summary> {
    const code = await this.end('SIGINT');
    expect(code, this.stderr).to.equal(0);
    const summary = summaryOf(this.stderr);
    expect(summary.received, this.stderr).to.equal(summary.captured + summary.slow);
    return summary;
  }
}

/** Packets of a file, which must be whole. */
function packetsIn(file: string): number {
  const out = execFileSync('capinfos', ['-Mc', file], { encoding: 'utf8', stdio: 'pipe' });
  return Number(/Number of packets: +(\d+)/.exec(out)?.[1]);
}

/** Reads the files of one capture in their order and removes them. */
class Rotated {
  packets = 0;
  files = 0;
  readonly #name: (n: number) => string;
  readonly #verifier: Verifier | null;

  constructor(name: (n: number) => string, verifier: Verifier | null = null) {
    this.#name = name;
    this.#verifier = verifier;
  }

  /** @param last false: the last two files may still be written */
  async take(last: boolean): Promise<void> {
    while (existsSync(this.#name(this.files + (last ? 0 : 2)))) {
      const file = this.#name(this.files);
      for await (const item of captureItems(file)) {
        if (item.kind === 'packet') this.packets++;
        // Every file begins with the same interfaces.
        if (item.kind !== 'interface' || this.files === 0) this.#verifier?.add(item);
      }
      rmSync(file);
      this.files++;
    }
  }
}

describe('soak: captures', function () {
  needs('root', 'tap', 'netns', 'curl', 'tshark');
  this.timeout((SECONDS * 1.2 + 120) * 1000);

  let dir: string;
  let site: Site;
  let ns: Netns;
  let instance: Instance;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-soak-'));
    site = new Site();
    site.file('file', FILE_BYTES);
    ns = new Netns();
    instance = await Instance.start(ns, ['serve', site.dir]);
  });
  after(() => {
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
    rmSync(dir, { recursive: true, force: true });
  });

  const work = { over: false, fetched: 0 };
  let end = 0;

  /** Downloads at a low rate, every tenth at the full one, and pings. */
  async function load(): Promise<void> {
    const ping = ns.spawn('ping', ['-q', '-i', '0.05', '192.0.2.2'], { stdio: 'ignore' });
    for (; !work.over; work.fetched++) {
      const url = instance.urlOf('file', work.fetched % 2 === 0 ? 4 : 6);
      const rate = work.fetched % 10 === 9 ? [] : ['--limit-rate', '2M'];
      const { status, stdout, stderr } = await instance.curl(
        '-o',
        '/dev/null',
        '-w',
        '%{size_download}',
        ...rate,
        url,
      );
      expect({ status, stdout }, stderr).to.deep.equal({ status: 0, stdout: String(FILE_BYTES) });
    }
    ping.kill('SIGINT');
  }

  const rss = (): number =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${instance.pid}/status`, 'utf8'))![1]) * 1024;

  /** One reader, which leaves in one of four ways. */
  async function visit(n: number): Promise<Summary | null> {
    const way = n % 4;
    const file = way === 1 ? 'visit.pcapng.gz' : 'visit.pcapng';
    const args = way === 3 ? ['wire', '-w', '-'] : ['if,wire', '-w', file];
    const client = await new Client(instance, dir, args).recording();
    if (way === 3) {
      await once(client.child.stdout!, 'data');
      client.child.stdout!.destroy();
      await client.ended();
      expect(client.stderr).to.match(/\ncapture: the reader has left\n$/);
      return null;
    }
    await sleep(300);
    if (way === 0) {
      await client.end('SIGKILL');
      return null;
    }
    if (way === 2) {
      client.child.kill('SIGSTOP');
      await sleep(1000);
      client.child.kill('SIGCONT');
    }
    const summary = await client.stop();
    expect(packetsIn(join(dir, file))).to.equal(summary.captured);
    return summary;
  }

  async function visits(): Promise<{ visits: number; slow: number; ring: number }> {
    const sum = { visits: 0, slow: 0, ring: 0 };
    for (; performance.now() < end; sum.visits++) {
      const summary = await visit(sum.visits);
      sum.slow += summary?.slow ?? 0;
      sum.ring += summary?.ring ?? 0;
      await sleep(SECONDS > 10 ? 1000 : 0);
    }
    return sum;
  }

  it(`lose nothing uncounted in ${SECONDS} s`, async () => {
    const verifier = new Verifier();
    const all = new Rotated((n) => join(dir, `all.pcapng${n === 0 ? '' : n}`), verifier);
    const start = (words: string): Promise<Client> =>
      new Client(instance, dir, words.split(' ')).recording();
    const size = SECONDS > 10 ? 16 : 1;
    const keeper = await start(`sockbuf,ip,if,ring,wire -s 96 -C ${size} -w all.pcapng`);
    const ring = await start('wire -s 200 -C 0.5 -W 3 -w ring.pcap');
    const timed = await start('if -s 96 -G 2 -w timed-%s.pcapng.gz');
    let timedPackets = 0;
    const takeTimed = (last: boolean): void => {
      const files = readdirSync(dir)
        .filter((name) => name.startsWith('timed-'))
        .sort();
      for (const file of last ? files : files.slice(0, -2)) {
        timedPackets += packetsIn(join(dir, file));
        rmSync(join(dir, file));
      }
    };
    end = performance.now() + SECONDS * 1000;
    const loading = load();
    const visiting = visits();
    const stop = (): void => void (end = 0);
    loading.catch(stop);
    visiting.catch(stop);
    const samples: number[] = [];
    while (performance.now() < end) {
      await sleep(Math.min(2000, SECONDS * 100));
      samples.push(rss());
      await all.take(false);
      takeTimed(false);
    }
    const visited = await visiting;
    work.over = true;
    await loading;
    await sleep(500);
    const [kept, ringed, inTime] = [await keeper.stop(), await ring.stop(), await timed.stop()];
    await all.take(true);
    takeTimed(true);
    verifier.finish();

    expect(all.packets).to.equal(kept.captured);
    expect(verdictOk(verifier.verdict), JSON.stringify(verifier.verdict, null, 1)).to.equal(true);
    expect(timedPackets).to.equal(inTime.captured);
    const rings = readdirSync(dir)
      .filter((name) => name.startsWith('ring.pcap'))
      .sort();
    expect(rings).to.deep.equal(['ring.pcap0', 'ring.pcap1', 'ring.pcap2'].slice(0, rings.length));
    for (const name of rings) expect(packetsIn(join(dir, name))).to.be.within(1, ringed.captured);
    const list = await instance.json<{ captures: number }[]>('capture', '--list');
    expect(list.map(({ captures }) => captures).every((n) => n === 0)).to.equal(true);
    const early = Math.max(...samples.slice(0, Math.ceil(samples.length / 5)));
    const late = Math.max(...samples.slice(-Math.ceil(samples.length / 5)));
    if (SECONDS > 10) {
      const mb = (n: number): number => Math.round(n / (1 << 20));
      console.log(
        `      ${work.fetched} downloads, ${kept.captured} packets in ${all.files} files, ` +
          `${kept.slow + kept.ring} dropped, counted; ${visited.visits} visits, ` +
          `${visited.slow + visited.ring} dropped, counted; RSS ${mb(early)} MB, then ${mb(late)} MB`,
      );
      expect(late - early).to.be.below(GROWTH_MAX);
    }
    const { code, leaked, stderr } = await instance.stop();
    expect({ code, leaked }, stderr).to.deep.equal({ code: 0, leaked: {} });
  });
});
