/** Captures of a running instance: FIFOs, failing disks, and what is in a file at which time. */

import { execFileSync } from 'node:child_process';
import {
  existsSync,
  linkSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import type { BpfLine } from '../../src/ctl/netstat_b.ts';
import { Instance } from '../support/instance.ts';
import { needs, needsHere } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { readPcap } from '../support/pcap.ts';
import { Site } from '../support/served.ts';
import { SlowDir } from '../support/slowfs.ts';

/** The contract of a stop, and slack for a loaded machine. */
const STOP_MS = 2000 + 700;
const FILE_BYTES = 1_000_000;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function until(what: string, done: () => boolean, ms = 10_000): Promise<void> {
  for (const end = performance.now() + ms; !done(); await sleep(20))
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
}

/** Number of packets that tcpdump reads; throws if it finds the file damaged. */
function tcpdumpCount(file: string, filter = ''): number {
  const lines = execFileSync('tcpdump', ['-nr', file, filter], { encoding: 'utf8', stdio: 'pipe' });
  return lines.trimEnd() === '' ? 0 : lines.trimEnd().split('\n').length;
}

describe('commands: captures', function () {
  needs('root', 'tap', 'netns', 'curl', 'tcpdump');
  this.timeout(60_000);

  let dir: string;
  let site: Site;
  let ns: Netns;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-capture-'));
    site = new Site();
    site.file('a.bin', FILE_BYTES);
    ns = new Netns();
  });
  afterEach(() => {
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
    rmSync(dir, { recursive: true, force: true });
  });

  const fifo = (): string => {
    const path = join(dir, 'fifo');
    execFileSync('mkfifo', [path]);
    return path;
  };
  const serve = (captures: string[], wrapper: string[] = []): Promise<Instance> =>
    Instance.start(
      ns,
      ['serve', site.dir, ...captures.flatMap((capture) => ['--capture', capture])],
      wrapper,
    );
  const fetch = async (tapnic: Instance): Promise<void> => {
    const { status, stdout, stderr } = await tapnic.curl(
      '-o',
      '/dev/null',
      '-w',
      '%{size_download}',
      tapnic.urlOf('a.bin'),
    );
    expect({ status, stdout }, stderr).to.deep.equal({ status: 0, stdout: String(FILE_BYTES) });
  };
  const stop = async (tapnic: Instance): Promise<{ code: number | null; stderr: string }> => {
    const begin = performance.now();
    const { code, stderr, leaked } = await tapnic.stop();
    expect(performance.now() - begin, 'duration of the stop').to.be.below(STOP_MS);
    expect(leaked).to.deep.equal({});
    return { code, stderr };
  };

  it('start, stop and control socket do not wait for the reader of a FIFO; netstat -B', async () => {
    const tapnic = await serve([`wire=${fifo()}`]);
    await fetch(tapnic);
    const [line, ...more] = await tapnic.json<BpfLine[]>('netstat', '-B');
    expect(more).to.deep.equal([]);
    expect(line).to.include({ pid: tapnic.pid, if: 'tn0', point: 'wire', dropped: 0 });
    expect(line!.received).to.be.above(600);
    expect((await tapnic.command('netstat', '-B')).stdout).to.match(
      new RegExp(
        `^ +Pid +Netif +Flags +Recv +Drop +Match Sblen Hblen Command\\n *${tapnic.pid} tn0@wire -ifs--- +\\d+ +0 +\\d+ +0 +0 tapnic\\n$`,
      ),
    );
    const { stdout } = await tapnic.command('netstat', '-B', '-I', 'lo0');
    expect(stdout).to.match(/^[^\n]+Command\n$/);
    const { code, stderr } = await stop(tapnic);
    expect(code, stderr).to.equal(0);
    expect(stderr).to.match(/fifo: 0 packets, [1-9]\d* dropped \(\d+ without a reader\)/);
  });

  it('a FIFO gets header and records when a reader opens it; earlier ones are dropped', async () => {
    const path = fifo();
    const tapnic = await serve([`wire=${path}`]);
    await fetch(tapnic);
    const out = join(dir, 'out.pcap');
    const reader = ns.spawn('sh', ['-c', 'exec cat "$0" > "$1"', path, out]);
    const ended = new Promise((resolve) => reader.once('exit', resolve));
    await until('header', () => existsSync(out) && statSync(out).size >= 24);
    await fetch(tapnic);
    const { code, stderr } = await stop(tapnic);
    await ended;
    expect(code, stderr).to.equal(0);
    const [, written, noReader] =
      /fifo: (\d+) packets, \d+ dropped \((\d+) without a reader\)/.exec(stderr) ?? [];
    expect(Number(noReader)).to.be.above(100);
    expect(Number(written)).to.be.above(100);
    expect(tcpdumpCount(out)).to.equal(Number(written));
  });

  it('a reader that stalls delays neither the host nor its stop', async () => {
    site.file('big.bin', 30_000_000);
    const path = fifo();
    const tapnic = await serve([`wire=${path}`]);
    // Opens the FIFO and reads nothing.
    const reader = ns.spawn('sh', ['-c', 'exec 3<"$0"; echo open; exec sleep 60', path]);
    await new Promise((resolve) => reader.stdout?.once('data', resolve));
    await sleep(300);
    const curl = await tapnic.curl('-o', '/dev/null', tapnic.urlOf('big.bin'));
    expect(curl.status, curl.stderr).to.equal(0);
    const { stderr, code } = await stop(tapnic);
    reader.kill('SIGKILL');
    expect(code, stderr).to.equal(0);
    const [, written, slow] =
      /(\d+) packets, \d+ dropped \((?:\d+ without a reader, )?(\d+) reader or disk too slow/.exec(
        stderr,
      ) ?? [];
    expect(Number(slow)).to.be.above(10_000);
    // What the FIFO itself holds.
    expect(Number(written)).to.be.within(1, 1000);
  });

  it('a reader that leaves ends its capture with one line, not the instance', async () => {
    const path = fifo();
    const whole = join(dir, 'whole.pcap');
    const tapnic = await serve([`wire=${path}`, `if=${whole}`]);
    const reader = ns.run('tcpdump', ['-nr', path, '-c', '3']);
    await sleep(500);
    await fetch(tapnic);
    expect((await reader).stdout.trimEnd().split('\n')).to.have.lengthOf(3);
    await fetch(tapnic);
    await until('the line', () => tapnic.stderr.includes('the reader has left'));
    await fetch(tapnic);
    const { code, stderr } = await stop(tapnic);
    expect(code, stderr).to.equal(0);
    expect(stderr.split('the reader has left')).to.have.lengthOf(2);
    expect(tcpdumpCount(whole)).to.be.above(100);
  });

  const tmpfs = (bytes: string, at: string): string[] => [
    'unshare',
    '--mount',
    'sh',
    '-c',
    'mount -t tmpfs -o size=$0 tmpfs "$1" && shift && exec "$@"',
    bytes,
    at,
  ];

  it('a full disk is reported when it is full, and in the exit status', async () => {
    const file = join(dir, 'a.pcap');
    const tapnic = await serve([`wire=${file}`], tmpfs('64k', dir));
    await fetch(tapnic);
    await until('the line', () => tapnic.stderr.includes('ENOSPC'));
    expect(tapnic.stderr).to.match(/a\.pcap: ENOSPC: no space left on device/);
    await fetch(tapnic);
    // The disk is mounted in the instance's mount namespace only.
    const prefix = join(dir, 'prefix.pcap');
    execFileSync('cp', [`/proc/${tapnic.pid}/root${file}`, prefix]);
    expect(statSync(prefix).size).to.be.within(60_000, 65_536);
    const { packets } = await readPcap(prefix);
    expect(packets.length).to.equal(tcpdumpCount(prefix));
    expect(packets.length).to.be.above(20);
    const { code, stderr } = await stop(tapnic);
    expect(code).to.equal(1);
    expect(stderr.split('ENOSPC')).to.have.lengthOf(2);
    expect(stderr).to.include(`a.pcap: ${packets.length} packets, `);
  });

  it('the file size limit is a failure like a full disk', async function () {
    needsHere(this, 'prlimit');
    const file = join(dir, 'a.pcap');
    const tapnic = await serve([`if=${file}`], ['prlimit', '--fsize=100000']);
    await fetch(tapnic);
    await until('the line', () => tapnic.stderr.includes('EFBIG'));
    const { code, stderr } = await stop(tapnic);
    expect(code, stderr).to.equal(1);
    expect(statSync(file).size).to.be.within(24, 100_000);
    expect(stderr).to.include(`a.pcap: ${tcpdumpCount(file)} packets, `);
  });

  it('/dev/full fails at the header; /dev/null takes everything', async () => {
    const tapnic = await serve(['wire=/dev/full', 'if=/dev/null']);
    await fetch(tapnic);
    expect(tapnic.stderr).to.match(/\/dev\/full: ENOSPC/);
    const { code, stderr } = await stop(tapnic);
    expect(code).to.equal(1);
    expect(stderr).to.match(/\/dev\/full: 0 packets, [1-9]/);
    expect(stderr).not.to.include('/dev/null');
  });

  it('a file that is removed is reported, and in the exit status', async () => {
    const file = join(dir, 'sub', 'a.pcap');
    execFileSync('mkdir', [join(dir, 'sub')]);
    const tapnic = await serve([`wire=${file}`]);
    rmSync(join(dir, 'sub'), { recursive: true });
    await sleep(1100);
    await fetch(tapnic);
    await until('the line', () => tapnic.stderr.includes('the file was removed'));
    expect((await stop(tapnic)).code).to.equal(1);
  });

  it('the header is in the file at ready, records within a second', async () => {
    const file = join(dir, 'a.pcap');
    const tapnic = await serve([`wire=${file}`]);
    expect(readFileSync(file)).to.have.lengthOf.at.least(24);
    await fetch(tapnic);
    // Little traffic does not fill a buffer.
    ns.exec('ping', ['-c', '2', '-i', '0.2', '192.0.2.2']);
    await sleep(1000);
    expect(tcpdumpCount(file, 'icmp')).to.equal(4);
    expect(await stop(tapnic)).to.deep.include({ code: 0 });
    const { packets } = await readPcap(file);
    expect(tcpdumpCount(file)).to.equal(packets.length);
  });

  it('SIGKILL loses at most the last second', async () => {
    const file = join(dir, 'a.pcap');
    const tapnic = await serve([`wire=${file}`]);
    await fetch(tapnic);
    ns.exec('ping', ['-c', '2', '-i', '0.2', '192.0.2.2']);
    await sleep(1000);
    tapnic.kill('SIGKILL');
    await tapnic.exited();
    expect(tcpdumpCount(file, 'icmp')).to.equal(4);
    expect(tcpdumpCount(file)).to.be.above(FILE_BYTES / 1448);
  });

  it('two captures to one file by two names are refused', async () => {
    const file = join(dir, 'a.pcap');
    const name = join(dir, 'b.pcap');
    execFileSync('touch', [file]);
    linkSync(file, name);
    const error = await serve([`wire=${file}`, `if=${name}`]).then(
      () => '',
      (e: Error) => e.message,
    );
    expect(error).to.match(/ended \(1\).*b\.pcap: EBUSY: another capture writes to this file/s);
  });

  it('a file that cannot be opened fails the start', async () => {
    const error = await serve([`wire=${join(dir, 'no', 'a.pcap')}`]).then(
      () => '',
      (e: Error) => e.message,
    );
    expect(error).to.match(/ended \(1\).*open .*a\.pcap: ENOENT/s);
    expect(ns.exec('ip', ['-br', 'link'])).not.to.include('nic0');
  });

  it('a disk that does not answer stops neither the host nor other captures', async function () {
    needsHere(this, '/dev/fuse');
    await using slow = await SlowDir.mount(Buffer.alloc(10));
    slow.delayMs = 60_000;
    const good = join(dir, 'good.pcap');
    const hung = join(dir, 'hung.pcap');
    symlinkSync(join(slow.dir, 'slow.bin'), hung);
    const tapnic = await serve([`wire=${hung}`, `if=${good}`]);
    for (let i = 0; i < 3; i++) {
      site.file(`${i}.bin`, FILE_BYTES, i);
      const { status, stderr } = await tapnic.curl('-o', '/dev/null', tapnic.urlOf(`${i}.bin`));
      expect(status, stderr).to.equal(0);
    }
    const { code, stderr } = await stop(tapnic);
    expect(code, stderr).to.equal(0);
    expect(stderr).to.match(/hung\.pcap: 0 packets, \d+ dropped \(\d+ reader or disk too slow\)/);
    expect(tcpdumpCount(good)).to.be.above(100);
  });
});
