/** `tapnic capture` as its users run it: pipes, signals, disks, slow readers, several at once, rotation. */

import { type ChildProcess, execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns, type Result } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { Site } from '../support/served.ts';

const FILE_BYTES = 1_000_000;
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function until(what: string, done: () => boolean, ms = 20_000): Promise<void> {
  for (const end = performance.now() + ms; !done(); await sleep(20))
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
}

/** A running `tapnic capture`. */
interface Client {
  readonly child: ChildProcess;
  /** Its stderr so far. */
  readonly said: () => string;
  readonly ended: Promise<{ code: number | null; stderr: string }>;
}

/** Number of packets of a file, without events; the file must be undamaged. */
function packetsIn(file: string): number {
  const out = execFileSync('capinfos', ['-Mc', file], { encoding: 'utf8', stdio: 'pipe' });
  return Number(/Number of packets: +(\d+)/.exec(out)?.[1]);
}

/** The numbers of the summary. */
function summary(stderr: string): {
  captured: number;
  received: number;
  slow: number;
  ring: number;
} {
  const [, captured, received, slow, ring] =
    /(\d+) packets? captured\n(\d+) received.*\n(\d+) dropped: reader.*\n(\d+) dropped: capture/.exec(
      stderr,
    ) ?? [];
  return {
    captured: Number(captured),
    received: Number(received),
    slow: Number(slow),
    ring: Number(ring),
  };
}

describe('netns: live captures', function () {
  needs('root', 'tap', 'netns', 'curl', 'tcpdump', 'tshark');
  this.timeout(120_000);

  let dir: string;
  let site: Site;
  let ns: Netns;
  let instance: Instance;
  const start = async (...args: string[]): Promise<void> => {
    instance = await Instance.start(ns, ['serve', site.dir, ...args]);
  };
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-live-'));
    site = new Site();
    site.file('a.bin', FILE_BYTES);
    ns = new Netns();
  });
  afterEach(async () => {
    const { leaked } = await instance.stop();
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
    rmSync(dir, { recursive: true, force: true });
    expect(leaked).to.deep.equal({});
  });

  const shell = (script: string): Promise<Result> =>
    ns.run('bash', ['-c', script], {
      env: {
        ...process.env,
        T: `${process.execPath} ${cliMain} capture --control ${instance.control}`,
      },
      cwd: dir,
      timeoutMs: 60_000,
    });
  /** Starts a capture and resolves when it records. */
  const capture = async (...args: string[]): Promise<Client> => {
    const child = ns.spawn(
      process.execPath,
      [cliMain, 'capture', ...args, '--control', instance.control],
      { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] },
    );
    let stderr = '';
    child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    const ended = new Promise<{ code: number | null; stderr: string }>((resolve) =>
      child.once('close', (code) => resolve({ code, stderr })),
    );
    await until('the capture begins', () => stderr.includes('until Ctrl-C'));
    return { child, said: () => stderr, ended };
  };
  const stop = async ({ child, ended }: Client): Promise<ReturnType<typeof summary>> => {
    child.kill('SIGINT');
    const { code, stderr } = await ended;
    expect(code, stderr).to.equal(0);
    return summary(stderr);
  };
  const fetch = async (path = 'a.bin', bytes = FILE_BYTES): Promise<void> => {
    const { status, stdout, stderr } = await instance.curl(
      '-o',
      '/dev/null',
      '-w',
      '%{size_download}',
      instance.urlOf(path),
    );
    expect({ status, stdout }, stderr).to.deep.equal({ status: 0, stdout: String(bytes) });
  };

  it('Ctrl-C ends it; its counts are those of the file; two at once are alike', async () => {
    await start();
    const two = [await capture('if', '-w', 'a.pcapng'), await capture('if', '-w', 'b.pcap')];
    await fetch();
    const counts = await Promise.all(two.map(stop));
    const files = [packetsIn(join(dir, 'a.pcapng')), packetsIn(join(dir, 'b.pcap'))];
    expect(counts.map(({ captured }) => captured)).to.deep.equal(files);
    for (const { received, captured, slow, ring } of counts)
      expect([received, slow, ring]).to.deep.equal([captured, 0, 0]);
    expect(files[0]).to.be.above(30);
    expect(Math.abs(files[0]! - files[1]!)).to.be.below(10);
  });

  it('-w - feeds tshark; a reader that leaves ends it with one line', async () => {
    await start();
    const load = { over: false };
    const traffic = (async () => {
      while (!load.over) await fetch();
    })();
    const [piped, head] = await Promise.all([
      shell('$T ip,wire tcp -c 40 -w - | tshark -n -r - -T fields -e frame.interface_name'),
      shell('$T wire -w - | head -c 100 | wc -c; echo ${PIPESTATUS[0]}'),
    ]);
    load.over = true;
    await traffic;
    expect(piped.status, piped.stderr).to.equal(0);
    expect(piped.stdout.trim().split('\n')).to.have.lengthOf(40);
    for (const name of ['tn0@ip', 'tn0@wire']) expect(piped.stdout).to.include(name);
    expect(head.stdout).to.match(/^100\n0\n$/);
    expect(head.stderr).to.equal(
      'capture: wire, pcapng: until Ctrl-C\ncapture: the reader has left\n',
    );
  });

  it('a FIFO works as a pipe does', async () => {
    await start();
    execFileSync('mkfifo', [join(dir, 'fifo')]);
    const reader = ns.run('tshark', [
      '-n',
      '-r',
      join(dir, 'fifo'),
      '-T',
      'fields',
      '-e',
      'frame.len',
    ]);
    const client = await capture('wire', '-w', 'fifo', '-c', '30');
    await fetch();
    expect((await client.ended).code).to.equal(0);
    const { status, stdout, stderr } = await reader;
    expect(status, stderr).to.equal(0);
    expect(stdout.trim().split('\n')).to.have.lengthOf(30);
  });

  it('a FIFO without a reader, and a reader that takes nothing, do not keep it', async () => {
    await start();
    execFileSync('mkfifo', [join(dir, 'none'), join(dir, 'stalled')]);
    const unread = await capture('wire', '-w', 'none');
    const reader = ns.spawn('sh', ['-c', 'exec 3<stalled; exec sleep 60'], { cwd: dir });
    const stalled = await capture('wire', '-w', 'stalled');
    await fetch();
    unread.child.kill('SIGINT');
    stalled.child.kill('SIGINT');
    expect(await unread.ended).to.deep.equal({
      code: 0,
      stderr: 'capture: wire, pcapng: until Ctrl-C\ncapture: no program has read none\n',
    });
    const { code, stderr } = await stalled.ended;
    expect(code).to.equal(1);
    expect(stderr).to.match(/\ntapnic: capture: the reader takes no bytes: what waited .* lost\n$/);
    reader.kill('SIGKILL');
    // The end waits for the reader.
    const counted = await capture('wire', '-w', 'none', '-c', '5');
    await fetch();
    const five = await ns.run('tcpdump', ['-nr', join(dir, 'none')]);
    expect(five.stdout.trimEnd().split('\n'), five.stderr).to.have.lengthOf(5);
    expect((await counted.ended).code).to.equal(0);
    // When the reader leaves, one line.
    const late = await capture('wire', '-w', 'none');
    await fetch();
    const dump = await ns.run('tcpdump', ['-nr', join(dir, 'none'), '-c', '3']);
    expect(dump.stdout.trimEnd().split('\n'), dump.stderr).to.have.lengthOf(3);
    await fetch();
    const last = await late.ended;
    expect(last.code).to.equal(0);
    expect(last.stderr).to.match(/Ctrl-C\ncapture: the reader has left\n$/);
  });

  it('a file of another capture is refused and stays; a full disk leaves whole records', async () => {
    await start();
    const client = await capture('wire', '-w', 'a.pcapng');
    const second = await shell('$T if -w a.pcapng');
    expect(second).to.deep.include({
      status: 1,
      stderr: 'tapnic: capture: a.pcapng: EBUSY: another capture writes to this file\n',
    });
    const disk = shell(
      "exec unshare -m sh -c 'mkdir d && mount -t tmpfs -o size=400k t d && " +
        "{ $T wire -C 0.15 -w d/x.pcapng; echo $?; for f in d/*; do test ! -s $f || capinfos -Mc $f; done; }'",
    );
    const load = { over: false };
    void disk.then(() => (load.over = true));
    while (!load.over) await fetch();
    const { stdout, stderr } = await disk;
    expect(stderr).to.match(
      /\ntapnic: capture: d\/x\.pcapng\d: ENOSPC: no space left on device\n$/,
    );
    expect(stdout).to.match(/^1\n/);
    expect(stdout.match(/Number of packets: +[1-9]/g)?.length).to.be.within(2, 4);
    const { captured } = await stop(client);
    expect(packetsIn(join(dir, 'a.pcapng'))).to.equal(captured);
  });

  it('a full disk, a directory and unknown places are one line each', async () => {
    await start();
    const full = shell('$T wire -w /dev/full');
    await sleep(1500);
    await fetch();
    const { status, stderr } = await full;
    expect(status).to.equal(1);
    expect(stderr).to.match(/\ntapnic: capture: \/dev\/full: ENOSPC: no space left on device\n$/);
    const cases: [string, number, RegExp][] = [
      [`wire -w ${dir}`, 1, /EISDIR: illegal operation on a directory/],
      ['wire -w no/a.pcapng', 1, /ENOENT: no such file or directory/],
      ['nowhere -w a', 2, /nowhere: not a capture point: sockbuf, ip, if, ring, wire/],
      ['wire@tn9 -w a', 1, /tn9: no such interface: there is tn0, lo0/],
      ['wire@lo0 -w a', 1, /lo0 has no point wire/],
      ['wire,if -w a.pcap', 1, /a pcap file has one interface/],
      ['wire prt 80 -w a', 2, /syntax error/],
      ['wire', 2, /-w FILE is needed/],
    ];
    for (const [args, code, text] of cases) {
      const result = await shell(`$T ${args}`);
      expect(result.stderr, args).to.match(text);
      expect(result.status, args).to.equal(code);
      expect(result.stderr.match(/^tapnic: /gm), args).to.have.lengthOf(1);
    }
    await fetch();
  });

  it('SIGKILL leaves every flushed block readable, also compressed', async () => {
    await start();
    const plain = await capture('wire', '-w', 'a.pcapng');
    const zipped = await capture('wire', '-w', 'b.pcapng.gz');
    await fetch();
    await sleep(2500);
    for (const { child } of [plain, zipped]) child.kill('SIGKILL');
    await plain.ended;
    await zipped.ended;
    expect(packetsIn(join(dir, 'a.pcapng'))).to.be.above(600);
    // gzip reports the missing end, after it has written everything.
    const { stdout } = await shell(
      'gzip -dc b.pcapng.gz 2>/dev/null > c.pcapng; tshark -n -r c.pcapng -T fields -e frame.number | tail -1',
    );
    expect(Number(stdout)).to.be.above(600);
    await until('the instance ends the captures', () => !instance.stderr.includes('panic'));
    await fetch();
    const list = await instance.json<{ place: string; captures: number }[]>('capture', '--list');
    expect(list.map(({ captures }) => captures).every((n) => n === 0)).to.equal(true);
  });

  it('the stop of the instance completes the file', async () => {
    await start();
    const client = await capture('wire', '-w', 'a.pcapng');
    await fetch();
    const { code } = await instance.stop();
    const { stderr } = await client.ended;
    expect(code, stderr).to.equal(0);
    expect(packetsIn(join(dir, 'a.pcapng'))).to.be.above(600);
    const facts = execFileSync('capinfos', ['-M', '-c', join(dir, 'a.pcapng')], {
      encoding: 'utf8',
    });
    expect(facts).to.match(/Number of packets/);
  });

  it('rotates files by the names of tcpdump', async () => {
    await start();
    execFileSync('mkdir', [join(dir, 'ours'), join(dir, 'theirs')]);
    const tcpdump = ns.spawn(
      'tcpdump',
      ['-n', '-Z', 'root', '-i', 'nic0', '-C', '1', '-W', '12', '-w', join(dir, 'theirs/x.pcap')],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    await new Promise((resolve) => tcpdump.stderr?.once('data', resolve));
    const client = await capture('wire', '-C', '1', '-W', '12', '-w', 'ours/x.pcap');
    for (let i = 0; i < 4; i++) await fetch();
    await sleep(500);
    await stop(client);
    const gone = new Promise((resolve) => tcpdump.once('exit', resolve));
    tcpdump.kill('SIGINT');
    await gone;
    const ours = readdirSync(join(dir, 'ours')).sort();
    expect(ours).to.deep.equal(readdirSync(join(dir, 'theirs')).sort());
    expect(ours.slice(0, 3)).to.deep.equal(['x.pcap00', 'x.pcap01', 'x.pcap02']);
    for (const name of ours) {
      expect(statSync(join(dir, 'ours', name)).size).to.be.below(1_100_000);
      expect(packetsIn(join(dir, 'ours', name))).to.be.above(0);
    }
    // Without -W the first name has no number.
    const plain = await capture('wire', '-C', '0.3', '-w', 'y.pcapng');
    await fetch();
    await stop(plain);
    const files = readdirSync(dir).filter((name) => name.startsWith('y'));
    expect(files.sort().slice(0, 3)).to.deep.equal(['y.pcapng', 'y.pcapng1', 'y.pcapng2']);
    const timed = await capture('wire', '-G', '1', '-W', '2', '-w', 'z-%s.pcapng.gz');
    let over = false;
    void timed.ended.then(() => (over = true));
    await until('the end after two files', () => {
      void instance.curl('-o', '/dev/null', instance.urlOf('a.bin'));
      return over;
    });
    const times = readdirSync(dir).filter((name) => /^z-\d{10}\.pcapng\.gz$/.test(name));
    expect(times).to.have.lengthOf(2);
    for (const name of times) expect(packetsIn(join(dir, name))).to.be.above(0);
  });

  it('a stopped client loses packets, counted, and slows no transfer', async () => {
    site.file('big.bin', 40_000_000);
    await start();
    const client = await capture('if,wire', '-w', 'a.pcapng');
    client.child.kill('SIGSTOP');
    await fetch('big.bin', 40_000_000);
    client.child.kill('SIGCONT');
    await sleep(500);
    const { captured, received, slow, ring } = await stop(client);
    expect(slow + ring).to.be.above(1000);
    expect(received).to.equal(captured + slow);
    expect(packetsIn(join(dir, 'a.pcapng'))).to.equal(captured);
  });

  it('serve --capture records several points and interfaces, from options and YAML', async () => {
    const config = join(dir, 'tapnic.yaml');
    const [a, b, c, d] = ['a.pcapng', 'b.pcapng.gz', 'c.pcap', 'd.pcapng'].map((name) =>
      join(dir, name),
    ) as [string, string, string, string];
    writeFileSync(config, `capture:\n  - sockbuf,ip,if=${a}\n  - wire@nic1,if@tn0=${d}\n`);
    const captures = ['--capture', `if,wire@nic0=${b}`, '--capture', `wire=${c}`];
    await start('--config', config, '--add-nic', 'nic1', ...captures);
    await fetch();
    const { code, stderr } = await instance.stop();
    expect(code, stderr).to.equal(0);
    expect(packetsIn(b)).to.be.above(packetsIn(c));
    expect(packetsIn(c)).to.be.above(600);
    const names = (file: string): string[] => {
      const args = ['-n', '-r', file, '-T', 'fields', '-e', 'frame.interface_name'];
      const out = execFileSync('tshark', args, { encoding: 'utf8', stdio: 'pipe' });
      return [...new Set(out.trim().split('\n'))].sort();
    };
    expect(names(b)).to.deep.equal(['tn0@if', 'tn0@wire']);
  });
});
