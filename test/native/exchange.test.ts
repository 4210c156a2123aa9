/** The exchange between workers: who receives a frame, and what an inbox holds. */

import { expect } from 'chai';
import { Worker } from 'node:worker_threads';
import { once } from 'node:events';
import { addonPaths, loadAddon } from '../../native-bindings/index.ts';
import { flowOwner } from '../../src/net/flow_owner.ts';

const SIZE = 16 << 20;
const EAGAIN = -11;
const EBADF = -9;
const EBUSY = -16;
const EINVAL = -22;
const ENOENT = -2;
const ENXIO = -6;
const LEN = 60;
const rule = { workers: 2, port: 80, seed: 7 };

/** A frame of a connection to port 80 of `worker`; of `all`: ARP. */
function frameOf(worker: number, all = false): Uint8Array {
  const frame = new Uint8Array(LEN);
  frame.set([0x08, all ? 0x06 : 0x00, 0x45], 12);
  frame[23] = 6;
  frame.set([192, 0, 2, 1, 192, 0, 2, 2], 26);
  frame.set([0, 80], 36);
  if (all) return frame;
  for (let port = 1024; ; port++) {
    frame.set([port >> 8, port & 255], 34);
    if (flowOwner(rule, frame) === worker) return frame;
  }
}

describe('addon: exchange', () => {
  const addon = loadAddon();
  /** The queue of worker 0, and the kernel's end of it. */
  const fds = new Int32Array(2);
  let mem: Uint8Array;
  let id = -1;
  let inbox = -1;
  const stats = new Float64Array(3);
  const at = new Uint32Array([4096, LEN]);

  function feed(frame: Uint8Array): void {
    mem.set(frame, 8192);
    expect(addon.frameWritev(fds[1]!, new Uint32Array([8192, LEN]), 1)).to.equal(LEN);
  }

  beforeEach(() => {
    const arena = addon.arenaAlloc(SIZE);
    if (typeof arena === 'number') throw new Error(`arena ${arena}`);
    mem = new Uint8Array(arena);
    expect(addon.socketPair(fds, 0)).to.equal(0);
    id = addon.exchangeOpen(rule.workers, rule.port, rule.seed);
    expect(id).to.be.at.least(0);
    inbox = addon.exchangeJoin(id, 0, fds[0]!, 0);
    expect(inbox).to.be.at.least(0);
  });

  afterEach(() => {
    addon.exchangeLeave();
    for (const fd of [...fds, inbox]) addon.fdClose(fd);
  });

  it('returns the frames of its worker and hands the others over', () => {
    const mine = frameOf(0);
    feed(frameOf(1));
    feed(mine);
    expect(addon.frameReadv(fds[0]!, at, 1)).to.equal(LEN);
    expect(mem.slice(4096, 4096 + LEN)).to.deep.equal(mine);
    expect(addon.frameReadv(fds[0]!, at, 1)).to.equal(EAGAIN);
    expect(addon.exchangeStats(stats)).to.equal(3);
    expect([...stats]).to.deep.equal([1, 0, 0]);
  });

  it('keeps ARP and copies it to the other workers', () => {
    feed(frameOf(0, true));
    expect(addon.frameReadv(fds[0]!, at, 1)).to.equal(LEN);
    addon.exchangeStats(stats);
    expect([...stats]).to.deep.equal([1, 0, 0]);
  });

  it('drops and counts frames while an inbox is full, and never blocks', () => {
    const theirs = frameOf(1);
    let n = 0;
    for (; stats[1] === 0 && n < 100_000; n++) {
      feed(theirs);
      expect(addon.frameReadv(fds[0]!, at, 1)).to.equal(EAGAIN);
      addon.exchangeStats(stats);
    }
    expect(stats[1]).to.equal(1);
    expect(stats[0]).to.equal(n - 1);
    expect(n).to.be.above(100);
  });

  it('receives from its inbox what another thread of the process hands over', async () => {
    const mine = frameOf(0);
    const code = `
      const { workerData, parentPort } = require('node:worker_threads');
      const addon = require(workerData.path);
      const mem = new Uint8Array(addon.arenaAlloc(${SIZE}));
      const fds = new Int32Array(2);
      addon.socketPair(fds, 0);
      const joined = addon.exchangeJoin(workerData.id, 1, fds[0], 0);
      mem.set(workerData.frame, 8192);
      addon.frameWritev(fds[1], new Uint32Array([8192, ${LEN}]), 1);
      const read = addon.frameReadv(fds[0], new Uint32Array([4096, ${LEN}]), 1);
      parentPort.postMessage({ joined, read });`;
    const path = addonPaths()[0];
    const worker = new Worker(code, { eval: true, workerData: { path, id, frame: mine } });
    const [{ joined, read }] = (await once(worker, 'message')) as [
      { joined: number; read: number },
    ];
    await once(worker, 'exit');
    expect(joined).to.be.at.least(0);
    expect(read).to.equal(EAGAIN);
    expect(addon.frameReadv(fds[0]!, at, 1)).to.equal(LEN);
    expect(mem.slice(4096, 4096 + LEN)).to.deep.equal(mine);
    addon.exchangeStats(stats);
    expect([...stats]).to.deep.equal([0, 0, 1]);
  });

  it('rejects wrong workers, descriptors and a second place', () => {
    expect(addon.exchangeJoin(id, 1, fds[1]!, 0)).to.equal(EBUSY);
    expect(addon.exchangeOpen(2, 80, 1)).to.equal(EBUSY);
    addon.exchangeLeave();
    expect(addon.exchangeStats(stats)).to.equal(ENXIO);
    expect(addon.exchangeJoin(id, 0, fds[0]!, 0)).to.equal(ENOENT);
    expect(addon.exchangeJoin(id, 0, 1, 0)).to.equal(EBADF);
    for (const workers of [0, 1, 65, 2.5])
      expect(addon.exchangeOpen(workers, 80, 1)).to.equal(EINVAL);
    expect(addon.exchangeOpen(2, 0, 1)).to.equal(EINVAL);
    expect(addon.fdRelease(1)).to.equal(EBADF);
  });

  it('reads the queue alone after it has left', () => {
    addon.exchangeLeave();
    const theirs = frameOf(1);
    feed(theirs);
    expect(addon.frameReadv(fds[0]!, at, 1)).to.equal(LEN);
    expect(mem.slice(4096, 4096 + LEN)).to.deep.equal(theirs);
  });
});
