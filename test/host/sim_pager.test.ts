import { expect } from 'chai';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { SimPager, type SimPagerOptions } from '../../src/host/sim_pager.ts';
import { EBADF, EFAULT, EINVAL, EIO } from '../../src/sys/errno.ts';
import { FileStat } from '../../src/sys/pager.ts';

const SIZE = 1 << 20;
const content = Uint8Array.from({ length: 10_000 }, (_, i) => (i * 31) & 0xff);

interface Done {
  id: number;
  error: number;
  nbytes: number;
  atNs: number;
}

function setup(options: Partial<SimPagerOptions> = {}, seed = 1) {
  const arena = new ArrayBuffer(SIZE);
  const clock = new ManualClock();
  const pager = new SimPager({ arena, clock, prng: new SeededPrng(seed), ...options });
  const done: Done[] = [];
  const read = (fd: number, off: number, iov: number[], id = 0) =>
    pager.pread(fd, off, new Uint32Array(iov), iov.length / 2, {
      pagerDone: (error, nbytes) => void done.push({ id, error, nbytes, atNs: clock.nowNs() }),
    });
  return { clock, pager, done, read, mem: new Uint8Array(arena) };
}

describe('host: SimPager', () => {
  it('reads into several pieces after the latency, not before', () => {
    const { clock, pager, done, read, mem } = setup();
    const fd = pager.open(content);
    expect(read(fd, 100, [4096, 10, 8192, 4096])).to.equal(0);
    expect(pager.pending).to.equal(1);
    clock.advance(99_999);
    expect(done).to.deep.equal([]);
    clock.advance(1);
    expect(done).to.deep.equal([{ id: 0, error: 0, nbytes: 4106, atNs: 100_000 }]);
    expect(mem.slice(4096, 4106)).to.deep.equal(content.slice(100, 110));
    expect(mem.slice(8192, 12288)).to.deep.equal(content.slice(110, 4206));
    expect(mem[4106]).to.equal(0);
    expect(pager.pending).to.equal(0);
  });

  it('reads short only at the end of the file', () => {
    const { clock, pager, done, read } = setup();
    const fd = pager.open(content);
    read(fd, 9990, [0, 4096], 1);
    read(fd, 10_000, [0, 4096], 2);
    clock.advance(1e6);
    expect(done.map((d) => [d.error, d.nbytes])).to.deep.equal([
      [0, 10],
      [0, 0],
    ]);
  });

  it('refuses what NativePager refuses', () => {
    const { clock, pager, done, read } = setup();
    const fd = pager.open(content);
    expect(read(fd + 1, 0, [0, 1])).to.equal(EBADF);
    expect(read(fd, -1, [0, 1])).to.equal(EINVAL);
    expect(read(fd, 0, [])).to.equal(EINVAL);
    expect(read(fd, 0, [SIZE - 1, 2])).to.equal(EFAULT);
    pager.close(fd);
    expect(read(fd, 0, [0, 1])).to.equal(EBADF);
    expect(pager.fstat(fd, new FileStat())).to.equal(EBADF);
    clock.advance(1e9);
    expect(done).to.deep.equal([]);
  });

  it('reorders by latency, the same way for a seed', () => {
    const order = (seed: number) => {
      const { clock, pager, done, read } = setup({ latencyMinNs: 1000, latencyMaxNs: 1e6 }, seed);
      const fd = pager.open(content);
      for (let id = 0; id < 50; id++) read(fd, 0, [0, 16], id);
      clock.advance(1e6);
      expect(done).to.have.length(50);
      for (const d of done) expect(d.atNs).to.be.within(1000, 1e6);
      return done.map((d) => d.id);
    };
    expect(order(3)).to.deep.equal(order(3));
    expect(order(3)).to.not.deep.equal(order(4));
    expect(order(3)).to.not.deep.equal([...order(3)].sort((a, b) => a - b));
  });

  it('fails at its error rate and in bad sectors, without writing to memory', () => {
    const { clock, pager, done, read, mem } = setup({ errorRate: 0.25 });
    const fd = pager.open(content);
    for (let i = 0; i < 1000; i++) read(fd, 0, [0, 16]);
    clock.advance(1e6);
    expect(done.filter((d) => d.error === EIO).length).to.be.within(200, 300);
    for (const d of done) expect(d.nbytes).to.equal(d.error === 0 ? 16 : 0);

    pager.errorRate = 0;
    done.length = 0;
    pager.file(fd).badFrom = 5000;
    read(fd, 4000, [4096, 1000], 1);
    read(fd, 4001, [8192, 1000], 2);
    clock.advance(1e6);
    expect(done.map((d) => [d.id, d.error])).to.deep.equal([
      [1, 0],
      [2, EIO],
    ]);
    expect(mem[8192]).to.equal(0);
  });

  it('reads the file as it is when the read completes, and updates its times on a change', () => {
    const { clock, pager, done, read, mem } = setup();
    const fd = pager.open(content);
    const st = new FileStat();
    expect(pager.fstat(fd, st)).to.equal(0);
    expect(st).to.include({ size: 10_000, isFile: true, ctimeSec: 1767225600, ctimeNsec: 0 });
    const ino = st.ino;

    read(fd, 0, [0, 4096]);
    clock.advance(50_000);
    pager.file(fd).truncate(100);
    clock.advance(50_000);
    expect(done[0]).to.include({ error: 0, nbytes: 100 });
    expect(pager.fstat(fd, st)).to.equal(0);
    expect(st).to.include({ size: 100, ctimeNsec: 50_000, mtimeNsec: 50_000, ino });
    pager.file(fd).truncate(200);
    read(fd, 90, [0, 20]);
    clock.advance(1e6);
    expect([...mem.subarray(9, 12)]).to.deep.equal([content[99], 0, 0]);

    const other = pager.open(content);
    pager.fstat(other, st);
    expect(st.ino).to.not.equal(ino);
    pager.fstat(pager.dup(fd), st);
    expect(st.ino).to.equal(ino);
  });

  it('punches holes, which read as zeros and which extent reports', () => {
    const { clock, pager, done, read, mem } = setup();
    const fd = pager.open(content);
    const st = new FileStat();
    pager.fstat(fd, st);
    expect(st).to.include({ readable: true, sparse: false });
    expect(pager.extent(fd, 0)).to.be.above(content.length);
    pager.file(fd).punch(1000, 3000);
    pager.file(fd).punch(9000, 10_000);
    pager.fstat(fd, st);
    expect(st.sparse).to.equal(true);
    const at = [0, 999, 1000, 2999, 3000, 9000, 10_000].map((off) => pager.extent(fd, off));
    expect(at.slice(0, 6)).to.deep.equal([1000, 1, -2000, -1, 6000, -1000]);
    expect(at[6]).to.be.above(content.length);
    read(fd, 900, [0, 200]);
    clock.advance(100_000);
    expect(done).to.have.lengthOf(1);
    expect(mem.slice(0, 100)).to.deep.equal(content.slice(900, 1000));
    expect(mem.slice(100, 200)).to.deep.equal(new Uint8Array(100));
    expect(content[1000], 'the source bytes are unchanged').to.not.equal(0);
    pager.file(fd).truncate(5000);
    pager.fstat(fd, st);
    expect(st.sparse).to.equal(false);
  });
});
