/** stack.capture(): packets for a loop, and files that tshark reads. */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  type CapturedPacket,
  createStack,
  type PacketCapture,
  type Stack,
  TapnicError,
} from '../../src/index.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { tsharkFields } from '../support/tshark.ts';

async function rejection(promise: Promise<unknown>): Promise<TapnicError> {
  try {
    await promise;
  } catch (e) {
    if (e instanceof TapnicError) return e;
    throw e;
  }
  throw new Error('did not reject');
}

describe('api: captures', function () {
  needs('root', 'tap', 'netns', 'tshark', 'tcpdump');
  this.timeout(60_000);
  let ns: Netns;
  let dir: string;
  let stack: Stack;
  beforeEach(async () => {
    ns = new Netns('capture');
    dir = mkdtempSync(join(tmpdir(), 'tapnic-capture-api-'));
    stack = await createStack({ netns: ns.name, memory: '32M', addr6: null });
  });
  afterEach(async () => {
    expect(await stack.close()).to.deep.equal({});
    ns[Symbol.dispose]();
    rmSync(dir, { recursive: true });
  });

  const ping = async (count = 1): Promise<void> => {
    await ns.execAsync('ping', ['-q', '-c', String(count), '-i', '0.01', '192.0.2.2']);
  };

  it('gives packets with point, time, id, bytes and metadata', async () => {
    const capture = stack.capture(['ip', 'if', 'wire'], { filter: 'icmp', snaplen: 50 });
    await capture.ready;
    const begin = BigInt(Date.now()) * 1_000_000n;
    await ping();
    const { packets, received, dropped } = await capture.close();
    expect({ packets, dropped }).to.deep.equal({ packets: 6, dropped: 0 });
    expect(received).to.be.at.least(6);
    const got: CapturedPacket[] = [];
    for await (const packet of capture) got.push(packet);
    const places = got.map((p) => `${p.if} ${p.point} ${p.direction}`);
    const out = ['tn0 ip out', 'tn0 if out', 'tn0 wire out'];
    expect(places).to.have.members([...out, 'tn0 ip in', 'tn0 if in', 'tn0 wire in']);
    expect(places.filter((place) => place.endsWith('out'))).to.deep.equal(out);
    for (const { bytes, length, time, comment, point, meta } of got) {
      expect([bytes.length, length]).to.deep.equal([50, 98]);
      expect(Buffer.from(bytes.subarray(12, 15)).toString('hex')).to.equal('080045');
      expect(time >= begin && time - begin < 30_000_000_000n).to.equal(true);
      expect(comment).to.match(new RegExp(`^id=\\d+; point=${point}; dir=`));
      if (point !== 'wire') expect(meta.chain).to.not.deep.equal([]);
    }
  });

  it('ends when the loop does, at a signal, after a count, and with `await using`', async () => {
    const first = stack.capture('wire');
    const pinged = ping(5);
    for await (const packet of first) {
      expect(packet.point).to.equal('wire');
      break;
    }
    expect((await first.closed).received).to.be.at.least(1);
    await pinged;
    const abort = new AbortController();
    const second = stack.capture('wire', { signal: abort.signal });
    abort.abort();
    expect(await second.closed).to.deep.equal({
      packets: 0,
      received: 0,
      dropped: 0,
      ringDrops: 0,
    });
    for await (const packet of second) throw new Error(packet.comment);
    const third = stack.capture('if', { count: 3 });
    await ping(5);
    expect((await third.closed).packets).to.equal(3);
    let last: PacketCapture;
    {
      await using used = stack.capture('if');
      last = used;
    }
    expect((await last.closed).packets).to.equal(0);
  });

  it('a loop that does not read loses packets, counted, and delays nothing', async () => {
    await using slow = stack.capture('ip,if,wire');
    await ns.execAsync('ping', ['-q', '-f', '-s', '1400', '-c', '2000', '192.0.2.2']);
    const result = await slow.close();
    let packets = 0;
    let drops = 0;
    for await (const packet of slow) {
      packets++;
      drops += packet.drops;
    }
    expect(result.packets).to.equal(packets);
    expect(result.dropped).to.be.above(100);
    expect(result.received).to.equal(packets + result.dropped + result.ringDrops);
    expect(drops).to.be.at.most(result.dropped + result.ringDrops);
  });

  it('writes files, and resolves with their counts', async () => {
    const file = join(dir, 'a.pcapng.gz');
    const capture = stack.capture('if,wire', { file, filter: 'icmp', comment: 'a test' });
    await capture.ready;
    await ping(3);
    expect(await capture.close()).to.deep.include({ packets: 12, dropped: 0, ringDrops: 0 });
    expect(await tsharkFields(file, ['frame.number'])).to.have.lengthOf(12);
    expect(stack.captureProblem()).to.equal(null);
    const counted = stack.capture('wire', { file: join(dir, 'b.pcap'), count: 4 });
    await ping(3);
    expect((await counted.closed).packets).to.equal(4);
    const lines = execFileSync('tcpdump', ['-nr', join(dir, 'b.pcap')], { stdio: 'pipe' });
    expect(lines.toString().trim().split('\n')).to.have.lengthOf(4);
  });

  it('the close of the stack completes a file and ends a loop', async () => {
    const file = join(dir, 'a.pcapng');
    const written = stack.capture('wire', { file });
    const read = stack.capture('wire');
    await written.ready;
    await ping(2);
    await stack.close();
    const { packets } = await written.closed;
    expect(packets).to.be.at.least(4);
    expect(await tsharkFields(file, ['frame.number'])).to.have.lengthOf(packets);
    let n = 0;
    for await (const packet of read) n += packet.bytes.length > 0 ? 1 : 0;
    expect(n).to.equal(packets);
    expect(() => stack.capture('wire')).to.throw(TapnicError, /EBADF/);
  });

  it('refuses what it cannot record', async () => {
    const cases: [() => unknown, RegExp][] = [
      [() => stack.capture('nowhere'), /EINVAL.*nowhere: not a capture point/],
      [() => stack.capture('wire@tn7'), /ENXIO.*tn7: no such interface: there is tn0/],
      [() => stack.capture('wire@lo0'), /EINVAL.*lo0 has no point wire/],
      [() => stack.capture('wire', { snaplen: 0 }), /EINVAL.*snaplen/],
      [() => stack.capture('wire', { nonesuch: 1 } as object), /EINVAL.*nonesuch: none of/],
      [() => stack.capture('wire,if', { file: 'a.pcap' }), /EINVAL.*one interface/],
    ];
    for (const [call, text] of cases) expect(call).to.throw(TapnicError, text);
    const filter = stack.capture('wire', { filter: 'prt' });
    expect((await rejection(filter.ready)).message).to.match(
      /^capture: EINVAL: prt: .*syntax error/,
    );
    expect(await rejection(filter.closed)).to.include({ code: 'EINVAL' });
    const missing = stack.capture('wire', { file: join(dir, 'no/a.pcap') });
    expect(await rejection(missing.ready)).to.include({ code: 'ENOENT' });
    expect(await rejection(missing.closed)).to.include({ code: 'ENOENT' });
    const folder = stack.capture('wire', { file: dir });
    expect(await rejection(folder.closed)).to.include({ code: 'EISDIR' });
    const a = stack.capture('wire', { file: join(dir, 'a.pcap') });
    await a.ready;
    const b = stack.capture('if', { file: join(dir, 'a.pcap') });
    expect(await rejection(b.closed)).to.include({ code: 'EBUSY' });
    await a.close();
  });
});
