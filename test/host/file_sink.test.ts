import { execFileSync, spawnSync } from 'node:child_process';
import { linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { FileSink, type SinkEvents } from '../../src/host/file_sink.ts';
import { poolCall, poolCallsPending } from '../../src/host/pool_gate.ts';
import { bytesPerCall } from '../support/alloc.ts';

const quiet: SinkEvents = { sinkEnded: () => undefined };
const HEADER = Buffer.from('header');

async function closed(sink: FileSink): Promise<void> {
  sink.close();
  while (!sink.closed) await sleep(1);
}

describe('file sink', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-sink-'))));
  afterEach(() => rmSync(dir, { recursive: true }));

  const open = (path: string, events = quiet): FileSink => {
    const sink = new FileSink(path, events);
    sink.write(HEADER);
    return sink;
  };
  const record = (sink: FileSink, bytes: Uint8Array): boolean => {
    if (!sink.begin(bytes.length)) return false;
    sink.write(bytes);
    return true;
  };

  it('keeps header and order, and empties an existing file', async () => {
    const path = join(dir, 'a');
    writeFileSync(path, 'x'.repeat(10_000));
    const sink = open(path);
    record(sink, Buffer.from('one,'));
    await sink.opened;
    for (let i = 0; i < 100_000; i++) record(sink, Buffer.from(`${i},`));
    await closed(sink);
    const numbers = Array.from({ length: 100_000 }, (_none, i) => `${i},`).join('');
    expect(readFileSync(path, 'utf8')).to.equal(`headerone,${numbers}`);
    expect(sink).to.include({
      written: 100_001,
      tooSlow: 0,
      noReader: 0,
      afterEnd: 0,
      error: null,
    });
  });

  it('puts blocks in front of the records that are not written yet', async () => {
    for (const delayed of [false, true]) {
      const path = join(dir, `first ${delayed}`);
      const sink = open(path);
      if (delayed) sink.delay();
      sink.headerFirst(Buffer.from('<0>'));
      await sink.opened;
      await sleep(20);
      record(sink, Buffer.from('one,'));
      expect(sink.headerFirst(Buffer.from('<1>'))).to.equal(true);
      while (sink.written < 1) await sleep(1);
      const begin = performance.now();
      record(sink, Buffer.from('two,'));
      record(sink, Buffer.from('three,'));
      // The flush comes 200 ms after the first record; a delay doubles it.
      if (delayed) await sleep(250);
      sink.headerFirst(Buffer.from('<2>'));
      while (sink.written < 3) await sleep(1);
      if (delayed) expect(performance.now() - begin).to.be.above(290);
      record(sink, Buffer.from('four'));
      sink.headerFirst(Buffer.from('<3>'));
      await closed(sink);
      const text = 'header<0><1>one,<2>two,three,<3>four';
      expect(readFileSync(path, 'utf8')).to.equal(text);
      expect(sink.written).to.equal(4);
    }
    const full = open(join(dir, 'limit'));
    await full.opened;
    const block = Buffer.alloc(1 << 20);
    const taken = Array.from({ length: 10 }, () => full.headerFirst(block));
    expect(taken).to.include(false);
    await closed(full);
  });

  it('compresses a path that ends with .gz, and gzip can read what was flushed', async () => {
    const path = join(dir, 'a.gz');
    const sink = open(path);
    await sink.opened;
    record(sink, Buffer.from('one,'));
    sink.flush();
    while (sink.written < 1) await sleep(1);
    // The file has no end yet, as after SIGKILL of its writer: gzip complains, status 1, but reads it.
    const { stdout } = spawnSync('gzip', ['-dc', path], { encoding: 'utf8' });
    expect(stdout).to.equal('headerone,');
    record(sink, Buffer.from('two'));
    await closed(sink);
    expect(execFileSync('gzip', ['-dc', path], { encoding: 'utf8' })).to.equal('headerone,two');
  });

  it('copies: the caller keeps its bytes', async () => {
    const path = join(dir, 'a');
    const sink = open(path);
    for (const len of [100, 5000]) {
      const bytes = Buffer.alloc(len, 'a');
      record(sink, bytes);
      bytes.fill('b');
    }
    await closed(sink);
    expect(readFileSync(path, 'utf8')).to.equal(`header${'a'.repeat(5100)}`);
  });

  it('bounds its memory and counts what does not fit', async () => {
    const sink = open(join(dir, 'a'));
    const bytes = Buffer.alloc(60_000);
    let taken = 0;
    // The file is not open before this turn of the loop ends.
    while (record(sink, bytes)) taken++;
    expect(taken * bytes.length).to.be.within(60_000_000, 64 << 20);
    expect(sink.tooSlow).to.equal(1);
    await closed(sink);
    expect(sink.written).to.equal(taken);
  });

  it('allocates nothing for a record of small pieces', async () => {
    const sink = open(join(dir, 'a'));
    await sink.opened;
    const small = new Uint8Array(100);
    const one = (): void => {
      if (!sink.begin(100)) return;
      sink.write(small, 0, 40);
      sink.write(small, 40, 60);
    };
    expect(bytesPerCall(one)).to.be.below(8);
    await closed(sink);
  });

  it('drops buffered records when it turns out that a FIFO has no reader', async () => {
    const path = join(dir, 'fifo');
    execFileSync('mkfifo', [path]);
    const sink = open(path);
    record(sink, Buffer.from('early'));
    await sink.opened;
    expect(record(sink, Buffer.from('later'))).to.equal(false);
    expect(sink.noReader).to.equal(2);
    await closed(sink);
    expect(sink.error).to.equal(null);
  });

  it('ends when the FIFO that waits for a reader is removed', async () => {
    const path = join(dir, 'fifo');
    execFileSync('mkfifo', [path]);
    const ended: [string, boolean][] = [];
    const sink = open(path, { sinkEnded: (text, failed) => void ended.push([text, failed]) });
    await sink.opened;
    rmSync(path);
    while (ended.length === 0) await sleep(10);
    expect(ended[0]![0]).to.match(/fifo: ENOENT/);
    expect(ended[0]![1]).to.equal(true);
    expect(record(sink, Buffer.from('x'))).to.equal(false);
    expect(sink.afterEnd).to.equal(1);
    await closed(sink);
  });

  it('refuses a FIFO that another sink waits at, until that one is closed', async () => {
    const path = join(dir, 'fifo');
    execFileSync('mkfifo', [path]);
    const first = open(path);
    await first.opened;
    const second = open(path);
    const error = await second.opened.catch((e: unknown) => e);
    expect(error).to.include({ code: 'EBUSY' });
    await closed(first);
    const third = open(path);
    await third.opened;
    await closed(third);
  });

  it('refuses the second of two sinks that open a file by two names at the same time', async () => {
    const names = ['a', 'b/c'].map((name) => join(dir, name));
    mkdirSync(join(dir, 'b'));
    writeFileSync(names[0]!, 'old');
    linkSync(names[0]!, names[1]!);
    const sinks = names.map((name) => open(name));
    const results = await Promise.allSettled(sinks.map(({ opened }) => opened));
    expect(results.map(({ status }) => status).toSorted()).to.deep.equal(['fulfilled', 'rejected']);
    for (const sink of sinks) await closed(sink);
    expect(readFileSync(names[0]!, 'utf8')).to.equal('header');
  });

  it('reports an open that fails after the start has gone on', async () => {
    const ended: string[] = [];
    const sink = open(join(dir, 'no', 'a'), { sinkEnded: (text) => void ended.push(text) });
    sink.openLate();
    await sink.opened.catch(() => undefined);
    expect(ended).to.have.lengthOf(1);
    expect(ended[0]).to.match(/^open .*ENOENT/);
  });

  it('refuses a directory', async () => {
    const sink = open(dir);
    expect(await sink.opened.catch((e: unknown) => e)).to.include({ code: 'EISDIR' });
  });
});

describe('pool gate', () => {
  it('runs one call for each disk and two in all', () => {
    const running = new Map<string, () => void>();
    const start = (disk: string, name: string): void =>
      poolCall(disk, (done) => void running.set(name, done));
    const end = (name: string): void => {
      const done = running.get(name)!;
      running.delete(name);
      done();
    };
    for (const [disk, name] of [
      ['a', 'a1'],
      ['a', 'a2'],
      ['b', 'b1'],
      ['c', 'c1'],
    ] as const)
      start(disk, name);
    expect([...running.keys()]).to.deep.equal(['a1', 'b1']);
    expect(poolCallsPending()).to.equal(2);
    end('b1');
    expect([...running.keys()]).to.deep.equal(['a1', 'c1']);
    end('a1');
    expect([...running.keys()]).to.deep.equal(['c1', 'a2']);
    end('c1');
    end('a2');
    expect(poolCallsPending()).to.equal(0);
  });
});
