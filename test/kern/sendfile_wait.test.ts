import { expect } from 'chai';
import { inPass } from '../../src/sys/pass.ts';
import { ECANCELED, ECONNRESET, EBUSY, EPIPE } from '../../src/sys/errno.ts';
import { counted, R_VM_WAIT, R_VM_WIRE_SHARE } from '../../src/sys/reason.ts';
import { SF_NODISKIO } from '../../src/kern/sendfile_flags.ts';
import { machineSysctl } from '../../src/kern/kern_sysctl.ts';
import { mbParams } from '../../src/kern/kern_mbuf.ts';
import { sfstat } from '../../src/kern/sendfile_io.ts';
import { sbParams, sbreserve } from '../../src/kern/uipc_sockbuf.ts';
import { sfBufInit, sfstatBufs } from '../../src/vm/sf_buf.ts';
import { NOPAGE, vm_page_alloc_noobj, vmPageCounts, vm_page_unwire } from '../../src/vm/vm_page.ts';
import { must } from './chains.ts';
import { expectSame, rigEach } from './sendfile_rig.ts';
import { Peer } from './testproto.ts';

/** Allocates all frames except `left`; returns a function that frees them. */
function hog(left: number): () => void {
  const pages: number[] = [];
  while (vmPageCounts().free + vmPageCounts().cached > left) {
    const p = vm_page_alloc_noobj();
    if (p === NOPAGE) break;
    pages.push(p);
  }
  return () => {
    for (const p of pages) inPass(vm_page_unwire, p, false);
  };
}

describe('sendfile: waits for pages', () => {
  const make = rigEach();

  it('sends a file in small pieces when only a few pages are free', () => {
    const rig = make(200_000);
    const { file, bytes } = rig.file(300_000);
    // Let the zones allocate their pages first.
    rig.call(file, { nbytes: 1 });
    rig.drain();
    const giveBack = hog(5);
    const call = rig.call(file, { offset: 1 });
    expect(call.done).to.equal(false);
    expectSame(rig.drain(), bytes);
    call.expectDone(0, 299_999);
    expect(counted(R_VM_WAIT)).to.be.above(0);
    giveBack();
  });

  it('SF_NODISKIO ends with EBUSY instead of waiting', () => {
    const rig = make(200_000);
    const { file, bytes } = rig.file(30_000);
    rig.call(file, { nbytes: 1 });
    rig.drain();
    const giveBack = hog(3);
    const so = rig.socket(200_000);
    rig.call(file, { flags: SF_NODISKIO }, so).expectDone(EBUSY, 3 * 4096);
    giveBack();
    expect(bytes.length).to.equal(30_000);
  });

  it('every waiting call gets pages in turn', () => {
    const rig = make(100_000);
    const { file } = rig.file(1);
    rig.call(file);
    rig.drain();
    const giveBack = hog(4);
    const runs = [1, 2, 3].map((i) => {
      const f = rig.file(50_000 + i);
      const so = rig.socket(100_000);
      return { peer: new Peer(so), bytes: f.bytes, call: rig.call(f.file, {}, so) };
    });
    for (let i = 0; i < 500 && !runs.every((r) => r.call.done); i++) {
      rig.disk.completeAll();
      for (const r of runs) r.peer.take();
    }
    for (const r of runs) {
      expectSame(rig.drain(r.peer), r.bytes);
      r.call.expectDone(0, r.bytes.length);
    }
    giveBack();
  });

  it('a call waits when its socket has its share of the file pages, and continues when pages are unwired', () => {
    sbParams.sb_max = 64 * 1024 * 1024;
    const rig = make(1000);
    sbParams.sb_max = 64 * 1024 * 1024;
    sbreserve(rig.so.so_snd, 30_000_000);
    const size = 28_000_000; // of 32 MiB
    const { file, bytes } = rig.file(size);
    const call = rig.call(file);
    rig.disk.completeAll();
    const limit = Math.floor(8191 * 0.75);
    const first = vmPageCounts().wiredFile;
    expect(first).to.be.within(limit / 4, limit / 4 + 1);
    expect(counted(R_VM_WIRE_SHARE)).to.be.above(0);
    // A page that is already wired does not count again.
    const so = rig.socket();
    rig.call(file, { nbytes: 8192 }, so).expectDone(0, 8192);
    expect(vmPageCounts().wiredFile).to.equal(first);
    // Other sockets that nobody reads do not take the pages of the next one.
    for (let i = 1; i <= 64; i++) {
      const other = rig.socket();
      sbreserve(other.so_snd, 3_000_000);
      rig.call(rig.file(3_000_000 + i).file, {}, other);
      rig.disk.completeAll();
    }
    expect(vmPageCounts().wiredFile).to.be.within(limit / 2, (limit * 3) / 4);
    const small = rig.call(rig.file(3).file, {}, rig.socket());
    rig.disk.completeAll();
    small.expectDone(0, 3);
    expectSame(rig.drain(), bytes);
    call.expectDone(0, size);
  });

  it('a connection dropped while its call waits for pages: EPIPE', () => {
    const rig = make(100_000);
    const { file } = rig.file(50_000);
    rig.call(file, { nbytes: 1 });
    rig.drain();
    const giveBack = hog(0);
    const call = rig.call(file, { offset: 4096 });
    expect(call.done).to.equal(false);
    rig.peer.reset();
    giveBack();
    call.expectDone(EPIPE, 0);
  });

  it('cancel() ends a call that waits for pages', () => {
    const rig = make(100_000);
    const { file } = rig.file(50_000);
    rig.call(file, { nbytes: 1 });
    rig.drain();
    const giveBack = hog(0);
    const call = rig.call(file, { offset: 4096 });
    must(call.call).cancel(ECANCELED);
    call.expectDone(ECANCELED, 0);
    giveBack();
  });
});

describe('sendfile: waits for sf_bufs (mb_use_ext_pgs=0)', () => {
  const make = rigEach();

  beforeEach(() => {
    mbParams.mb_use_ext_pgs = false;
  });

  it('sends the pages it can map and waits only when it can map none', () => {
    const rig = make(200_000);
    sfBufInit(5);
    const { file, bytes } = rig.file(100_000);
    const call = rig.call(file);
    expect(call.done).to.equal(false);
    expect(sfstatBufs.current).to.equal(5);
    expectSame(rig.drain(), bytes);
    call.expectDone(0, 100_000);
    expect(sfstatBufs.peak).to.equal(5);
    expect(sfstat.sf_allocfail).to.be.above(1);
    expect(sfstat.sf_allocwait).to.be.above(1);
  });

  it('a woken call that ends without a mapping does not keep other calls waiting', () => {
    const rig = make();
    sfBufInit(1);
    const { file, bytes } = rig.cachedFile(4096);
    mbParams.mb_use_ext_pgs = false;
    rig.call(file).expectDone(0, 4096);
    const [a, b] = [rig.socket(), rig.socket()];
    const one = rig.call(file, {}, a);
    const two = rig.call(file, {}, b);
    expect([one.done, two.done]).to.eql([false, false]);
    new Peer(a).reset(ECONNRESET); // does not wake `one`, which waits for an sf_buf
    rig.peer.take();
    one.expectDone(EPIPE, 0);
    two.expectDone(0, 4096);
    const peer = new Peer(b);
    peer.take();
    expectSame(peer.received, bytes);
  });

  it('raising kern.ipc.nsfbufs wakes waiting calls', () => {
    const rig = make();
    sfBufInit(0);
    mbParams.mb_use_ext_pgs = true;
    const { file } = rig.cachedFile(4096);
    mbParams.mb_use_ext_pgs = false;
    const call = rig.call(file);
    expect(call.done).to.equal(false);
    expect(machineSysctl.tree.write('kern.ipc.nsfbufs', '1')).to.equal(0);
    call.expectDone(0, 4096);
    rig.drain();
  });

  it('cancel() ends a call that waits for an sf_buf', () => {
    const rig = make();
    sfBufInit(0);
    const { file } = rig.file(4096);
    const call = rig.call(file);
    must(call.call).cancel(ECANCELED);
    call.expectDone(ECANCELED, 0);
    rig.disk.completeAll();
  });
});
