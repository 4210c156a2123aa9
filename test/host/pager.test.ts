import { expect } from 'chai';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { allocArena } from '../../src/host/arena.ts';
import { NativePager } from '../../src/host/pager.ts';
import { EBADF, EFAULT, EINVAL, EISDIR, type Errno } from '../../src/sys/errno.ts';
import { FileStat } from '../../src/sys/pager.ts';
import { needsHere, skipHere } from '../support/needs.ts';

const SIZE = 16 * 1024 * 1024;

describe('host: NativePager', () => {
  const dir = mkdtempSync(join(tmpdir(), 'tapnic-pager-'));
  const path = join(dir, 'file');
  const content = Buffer.alloc(100_000).map((_, i) => (i * 7 + (i >> 8)) & 0xff);
  let mem: Uint8Array;
  let pager: NativePager;
  let fd = -1;

  before(() => {
    const arena = allocArena(SIZE);
    mem = new Uint8Array(arena);
    pager = new NativePager(arena);
    writeFileSync(path, content);
    fd = openSync(path, 'r');
  });
  beforeEach(() => mem.fill(0xee, 0, 1 << 20));
  afterEach(() => expect(pager.pending).to.equal(0));
  after(() => {
    closeSync(fd);
    rmSync(dir, { recursive: true });
  });

  /**
   * Starts a read; resolves with the result of the request, or with the errno that `pread`
   * returned.
   */
  function read(
    file: number,
    off: number,
    ...iov: number[]
  ): Promise<{ error: Errno; nbytes: number }> {
    return new Promise((resolve) => {
      const list = new Uint32Array(iov);
      const pagerDone = (error: Errno, nbytes: number) => resolve({ error, nbytes });
      const error = pager.pread(file, off, list, iov.length / 2, { pagerDone });
      list.fill(0xffffffff); // pread has copied the list
      if (error !== 0) resolve({ error, nbytes: -1 });
    });
  }

  it('reports holes and readability, and leaves the file offset unchanged', function () {
    const st = new FileStat();
    const holey = join(dir, 'holey');
    writeFileSync(holey, content);
    truncateSync(holey, 5_000_000);
    const rw = openSync(holey, 'r+');
    writeSync(rw, content, 0, 1000, 2_000_000);
    readSync(rw, Buffer.alloc(10), 0, 10, null);
    expect(pager.fstat(rw, st)).to.equal(0);
    expect(st).to.include({ isFile: true, readable: true, size: 5_000_000 });
    if (!st.sparse) skipHere(this, `holes: the file system of ${tmpdir()} stores zeros`);
    const hole = -pager.extent(rw, 200_000);
    expect(hole).to.be.within(2_000_000 - 200_000 - 65_536, 1_800_000);
    expect(pager.extent(rw, 200_000 + hole)).to.be.within(1000, 131_072);
    expect(pager.extent(rw, 0)).to.be.within(100_000, 200_000);
    expect(pager.extent(rw, 4_000_000)).to.equal(-Number.MAX_SAFE_INTEGER);
    expect(pager.extent(-1, 0)).to.equal(Number.MAX_SAFE_INTEGER);
    const next = Buffer.alloc(10);
    readSync(rw, next, 0, 10, null);
    expect(next.equals(content.subarray(10, 20))).to.equal(true);
    closeSync(rw);
    const wo = openSync(holey, 'a');
    expect(pager.fstat(wo, st)).to.equal(0);
    expect(st.readable).to.equal(false);
    closeSync(wo);
  });

  it('reads consecutive bytes into scattered pages', async () => {
    expect(await read(fd, 5000, 8192, 4096, 65536, 10, 100, 1)).to.deep.equal({
      error: 0,
      nbytes: 4107,
    });
    expect(Buffer.compare(mem.subarray(8192, 12288), content.subarray(5000, 9096))).to.equal(0);
    expect(Buffer.compare(mem.subarray(65536, 65546), content.subarray(9096, 9106))).to.equal(0);
    expect(mem[100]).to.equal(content[9106]);
    expect([mem[8191], mem[12288], mem[65546], mem[101]]).to.deep.equal([0xee, 0xee, 0xee, 0xee]);
  });

  it('reads short only at the end of the file', async () => {
    expect(await read(fd, 98_000, 0, 4096)).to.deep.equal({ error: 0, nbytes: 2000 });
    expect([mem[1999], mem[2000]]).to.deep.equal([content[99_999], 0xee]);
    expect(await read(fd, 100_000, 0, 4096)).to.deep.equal({ error: 0, nbytes: 0 });
    expect(await read(fd, 2 ** 40, 0, 4096)).to.deep.equal({ error: 0, nbytes: 0 });
  });

  it('continues after a short read of the kernel', async function () {
    needsHere(this, '/proc/kallsyms');
    // The kernel returns generated text a page at a time, and this file has some megabytes of it.
    const symbols = openSync('/proc/kallsyms', 'r');
    const want = Buffer.alloc(300_000);
    for (let at = 0; at < want.length;) at += readSync(symbols, want, at, want.length - at, at);
    const sizes = [1, 4095, 5000, 3, 100_000, 0, 4096, 186_805];
    const iov: number[] = [];
    let to = 4096;
    for (const len of sizes) {
      iov.push(to, len);
      to += len + 8;
    }
    expect(await read(symbols, 0, ...iov)).to.deep.equal({ error: 0, nbytes: 300_000 });
    closeSync(symbols);
    let from = 0;
    for (let i = 0; i < iov.length; from += iov[i + 1]!, i += 2) {
      const got = mem.subarray(iov[i], iov[i]! + iov[i + 1]!);
      expect(
        Buffer.compare(got, want.subarray(from, from + got.length)),
        `piece ${i / 2}`,
      ).to.equal(0);
    }
  });

  it('reports errors of the file through the request', async () => {
    const folder = openSync(dir, 'r');
    expect(await read(folder, 0, 0, 4096)).to.deep.equal({ error: EISDIR, nbytes: 0 });
    closeSync(folder);
    expect(await read(folder, 0, 0, 4096)).to.deep.equal({ error: EBADF, nbytes: 0 });
  });

  it('refuses bad lists immediately', async () => {
    expect((await read(fd, 0, SIZE - 1, 2)).error).to.equal(EFAULT);
    expect((await read(fd, 0, 0xffffffff, 0xffffffff)).error).to.equal(EFAULT);
    expect((await read(fd, -1, 0, 1)).error).to.equal(EINVAL);
    expect((await read(fd, 0.5, 0, 1)).error).to.equal(EINVAL);
    expect((await read(fd, 0)).error).to.equal(EINVAL);
    const iov = new Uint32Array(2050);
    const never = { pagerDone: () => expect.fail('called') };
    expect(pager.pread(fd, 0, iov, 1025, never)).to.equal(EINVAL);
    expect(pager.pread(fd, 0, iov.subarray(0, 3), 2, never)).to.equal(EINVAL);
    expect(pager.pread(-1, 0, iov, 1, never)).to.equal(EBADF);
  });

  it('accepts more reads than the addon does, and completes each once', async () => {
    const results = await Promise.all(
      Array.from({ length: 1000 }, (_, i) => read(fd, i * 97, i * 1024, 1024)),
    );
    for (let i = 0; i < 1000; i++) {
      const want = content.subarray(i * 97, i * 97 + 1024);
      expect(results[i]).to.deep.equal({ error: 0, nbytes: want.length });
      const got = mem.subarray(i * 1024, i * 1024 + want.length);
      expect(Buffer.compare(got, want), `read ${i}`).to.equal(0);
    }
  });

  it('stats as the kernel does', () => {
    const st = new FileStat();
    expect(pager.fstat(fd, st)).to.equal(0);
    const want = statSync(path, { bigint: true });
    expect(st.isFile).to.equal(true);
    expect(st.size).to.equal(100_000);
    expect(BigInt(st.ctimeSec) * 10n ** 9n + BigInt(st.ctimeNsec)).to.equal(want.ctimeNs);
    expect(BigInt(st.mtimeSec) * 10n ** 9n + BigInt(st.mtimeNsec)).to.equal(want.mtimeNs);
    // (dev, ino) is exact: the inode's high bits lie above bit 32 of the device.
    const ino = ((BigInt(st.dev) >> 32n) << 48n) | BigInt(st.ino);
    expect(ino).to.equal(want.ino);

    const folder = openSync(dir, 'r');
    expect(pager.fstat(folder, st)).to.equal(0);
    expect(st.isFile).to.equal(false);
    closeSync(folder);
    expect(pager.fstat(folder, st)).to.equal(EBADF);
  });
});
