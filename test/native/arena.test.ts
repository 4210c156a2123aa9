import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, ftruncateSync, openSync, readSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { addonPaths, linuxErrnoName, loadAddon } from '../../native-bindings/index.ts';

const MIB = 1024 * 1024;
const EINVAL = -22;
const addon = loadAddon();
const addonFile = addonPaths().find((p) => existsSync(p));

function alloc(bytes: number): ArrayBuffer {
  const arena = addon.arenaAlloc(bytes);
  if (typeof arena === 'number') throw new Error(linuxErrnoName(-arena));
  return arena;
}

describe('addon: arena', () => {
  it('is zeroed memory of the requested size', () => {
    const arena = alloc(16 * MIB);
    expect(arena.byteLength).to.equal(16 * MIB);
    expect(new Uint8Array(arena).every((b) => b === 0)).to.equal(true);
  });

  it('is the memory that its descriptor maps', () => {
    const bytes = new Uint8Array(alloc(16 * MIB));
    bytes.set([1, 2, 3], 5 * MIB);
    const got = new Uint8Array(3);
    readSync(addon.arenaFd(), got, 0, 3, 5 * MIB);
    expect([...got]).to.deep.equal([1, 2, 3]);
  });

  it('accepts sizes at its limits and refuses sizes past them', () => {
    expect(addon.arenaAlloc(16 * MIB - 4096)).to.equal(EINVAL);
    expect(addon.arenaAlloc(16 * MIB + 1)).to.equal(EINVAL);
    expect(addon.arenaAlloc(4096 * MIB + 4096)).to.equal(EINVAL);
    const most = new Uint8Array(alloc(4096 * MIB)); // pages are allocated on first access
    most[4096 * MIB - 1] = 1;
    expect(addon.cksum(4096 * MIB - 1, 1, 0, 0)).to.equal(0x100);
    expect(addon.cksum(4096 * MIB - 1, 2, 0, 0)).to.equal(-14);
    for (const bad of [-1, 0, NaN, Infinity, 1.5, '16777216', null, undefined, {}, [], 16777216n])
      expect(addon.arenaAlloc(bad as number)).to.equal(EINVAL);
  });

  it('cannot be truncated while it is mapped', () => {
    alloc(16 * MIB);
    expect(() => ftruncateSync(addon.arenaFd(), 0)).to.throw('EPERM');
  });

  it('can be attached by its descriptor, but only if it is sealed', () => {
    const first = new Uint8Array(alloc(16 * MIB));
    const second = addon.arenaAttach(addon.arenaFd());
    if (typeof second === 'number') throw new Error(linuxErrnoName(-second));
    first[12345] = 77;
    expect(new Uint8Array(second)[12345]).to.equal(77);

    const plain = openSync(import.meta.filename, 'r');
    expect(addon.arenaAttach(plain)).to.equal(EINVAL); // no seals on such a file
    closeSync(plain);
    expect(addon.arenaAttach(-1)).to.equal(-9);
  });

  it('stays usable after a newer one, as long as its ArrayBuffer lives', () => {
    const old = new Uint8Array(alloc(16 * MIB));
    old[0] = 9;
    alloc(16 * MIB);
    old[16 * MIB - 1] = 8;
    expect([old[0], old.at(-1)]).to.deep.equal([9, 8]);
  });

  it('is freed with its worker while reads and polls are pending', async () => {
    const code = `
      const { parentPort } = require('node:worker_threads');
      const addon = require(${JSON.stringify(addonFile)});
      const arena = addon.arenaAlloc(16 * 1024 * 1024);
      addon.readCallback(() => {});
      addon.pollCallback(() => {});
      const fds = new Int32Array(2);
      addon.socketPair(fds, 0);
      const id = addon.pollOpen(fds[0]);
      addon.pollEvents(id, 1, 1);
      const fd = require('node:fs').openSync(process.execPath, 'r');
      let n = 0;
      for (; n < 64; n++) if (addon.filePread(n, fd, 0, new Uint32Array([0, 8 << 20]), 1) !== 0) break;
      parentPort.postMessage(n);
      setInterval(() => {}, 1000);`;
    for (let round = 0; round < 5; round++) {
      const worker = new Worker(code, { eval: true });
      const started = await new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
      expect(started).to.equal(64);
      await worker.terminate();
    }
  });

  it('lets process.exit succeed while reads and polls are pending', () => {
    const code = `
      const addon = require(${JSON.stringify(addonFile)});
      addon.arenaAlloc(16 * 1024 * 1024);
      addon.readCallback(() => {});
      addon.pollCallback(() => {});
      const fds = new Int32Array(2);
      addon.socketPair(fds, 0);
      addon.pollEvents(addon.pollOpen(fds[0]), 1, 1);
      const fd = require('node:fs').openSync(process.execPath, 'r');
      for (let n = 0; n < 64; n++) addon.filePread(n, fd, 0, new Uint32Array([0, 8 << 20]), 1);
      setImmediate(() => process.exit(7));`;
    let status: number | null = 0;
    try {
      execFileSync(process.execPath, ['-e', code], { stdio: 'pipe' });
    } catch (e) {
      status = (e as { status: number | null }).status;
    }
    expect(status).to.equal(7);
  });
});
