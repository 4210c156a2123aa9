import { expect } from 'chai';
import { EBUSY, EIO } from '../../src/sys/errno.ts';
import { mbParams } from '../../src/kern/kern_mbuf.ts';
import {
  SF_FLAGS,
  SF_NOCACHE,
  SF_NODISKIO,
  SF_SYNC,
  SF_USER_READAHEAD,
} from '../../src/kern/sendfile_flags.ts';
import { sfstat } from '../../src/kern/sendfile_io.ts';
import { sbavail, sbused } from '../../src/kern/uipc_sockbuf.ts';
import { vm_page_alloc_noobj, vm_page_unwire, vmPageCounts } from '../../src/vm/vm_page.ts';
import { expectSame, rigEach } from './sendfile_rig.ts';

const cat = (...parts: Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(parts));

describe('sendfile: order of completion', () => {
  const make = rigEach();

  it('reads that end out of order: data stays in order; sb_acc rises when the first read ends', () => {
    const rig = make(65_536);
    const [a, b] = [rig.file(10_000), rig.file(20_000)];
    rig.call(a.file);
    rig.call(b.file);
    const sb = rig.so.so_snd;
    expect([sbavail(sb), sbused(sb)]).to.eql([0, 30_000]);
    rig.disk.complete(1);
    expect([sbavail(sb), sbused(sb)]).to.eql([0, 30_000]);
    rig.disk.complete(0);
    expect([sbavail(sb), sbused(sb)]).to.eql([30_000, 30_000]);
    expectSame(rig.drain(), cat(a.bytes, b.bytes));
  });

  it('cached data queued after a pending read is sent after it', () => {
    const rig = make(65_536);
    const a = rig.cachedFile(10_000);
    const b = rig.file(20_000);
    rig.call(b.file);
    rig.call(a.file);
    expect(sbavail(rig.so.so_snd)).to.equal(0);
    rig.disk.completeAll();
    expect(sbavail(rig.so.so_snd)).to.equal(30_000);
    expectSame(rig.drain(), cat(b.bytes, a.bytes));
  });

  it('busy pages shared by two calls: one read serves both', () => {
    const rig = make(65_536);
    const { file, disk, bytes } = rig.file(30_000);
    const so = rig.socket();
    rig.call(file);
    const again = rig.disk.again(disk);
    rig.files.push(again);
    const two = rig.call(again, {}, so);
    expect(two.done).to.equal(false);
    expect(sfstat.sf_busy).to.equal(1);
    expect(rig.disk.pagesPending()).to.eql([8]);
    rig.disk.complete();
    two.expectDone(0, 30_000);
    expect(rig.disk.pending).to.equal(0);
    expect(sbavail(so.so_snd)).to.equal(30_000);
    expectSame(rig.drain(), bytes);
  });

  it('a call that waits for a busy page reads it again if that read fails', () => {
    const rig = make(65_536);
    const { file } = rig.file(30_000);
    const so = rig.socket();
    rig.call(file);
    const two = rig.call(file, {}, so);
    rig.disk.fail();
    expect(rig.so.so_error).to.equal(EIO);
    expect(rig.disk.pagesPending()).to.eql([8]);
    rig.disk.complete();
    two.expectDone(0, 30_000);
    expect(sbavail(so.so_snd)).to.equal(30_000);
  });

  it('SF_NODISKIO: EBUSY at the first busy page; the data before it is sent', () => {
    const rig = make(200_000);
    const { file, bytes } = rig.file(100_000);
    rig.call(file, { nbytes: 8192, flags: SF_USER_READAHEAD });
    rig.drain();
    rig.call(file, { offset: 20_480, nbytes: 4096, flags: SF_USER_READAHEAD });
    const so = rig.socket(200_000);
    rig.call(file, { flags: SF_NODISKIO | SF_USER_READAHEAD }, so).expectDone(EBUSY, 20_480);
    rig.call(file, { offset: 20_480, flags: SF_NODISKIO }, so).expectDone(EBUSY, 0);
    expect(sfstat.sf_busy).to.equal(2);
    rig.disk.completeAll();
    expect(sbavail(so.so_snd)).to.equal(20_480);
    expect(bytes.length).to.equal(100_000);
  });

  it('SF_NODISKIO with nothing to send does not count as a call without I/O', () => {
    const rig = make();
    const { file } = rig.file(4096);
    rig.call(file);
    const so = rig.socket();
    rig.call(file, { flags: SF_NODISKIO }, so).expectDone(EBUSY, 0);
    expect(sfstat.sf_noiocnt).to.equal(0);
    rig.drain();
  });
});

describe('sendfile: cache and readahead', () => {
  const make = rigEach();

  it('reads ahead the rest of the request, at most 32 pages', () => {
    const rig = make(8192);
    const { file, bytes } = rig.file(400_000);
    rig.call(file);
    expect(rig.disk.pagesPending()).to.eql([2, 32]);
    expect(sfstat.sf_rhpages_read).to.equal(32);
    expect(sfstat.sf_rhpages_requested).to.equal(0);
    expectSame(rig.drain(), bytes);
  });

  it('adds the requested readahead to the rest of the request', () => {
    const rig = make(8192);
    const { file } = rig.file(400_000);
    // The first round takes two of the five pages.
    rig.call(file, { nbytes: 5 * 4096, flags: SF_FLAGS(4, 0) });
    expect(rig.disk.pagesPending()).to.eql([2, 3 + 4]);
    rig.drain();
  });

  it('SF_USER_READAHEAD: reads ahead exactly the requested pages, counted once per call', () => {
    const rig = make(8192);
    const { file, bytes } = rig.file(100_000);
    const call = rig.call(file, { flags: SF_FLAGS(3, SF_USER_READAHEAD) });
    expect(rig.disk.pagesPending()).to.eql([2, 3]);
    expect(rig.disk.firstPages()).to.eql([0, 2]);
    expectSame(rig.drain(), bytes);
    call.expectDone(0, 100_000);
    expect(sfstat.sf_rhpages_requested).to.equal(3);
  });

  it('limits readahead to the end of the file; a later call waits for a page being read ahead', () => {
    const rig = make(65_536);
    const { file } = rig.file(20_000);
    rig.call(file, { nbytes: 4096, flags: SF_FLAGS(100, SF_USER_READAHEAD) });
    expect(rig.disk.pagesPending()).to.eql([1, 4]);
    const so = rig.socket();
    const two = rig.call(file, { offset: 4096, nbytes: 100 }, so);
    expect(two.done).to.equal(false); // its page is being read ahead
    rig.disk.completeAll();
    two.expectDone(0, 100);
    rig.drain();
  });

  it('reads ahead only when the last page of the round had to be read', () => {
    const rig = make(65_536);
    const { file } = rig.file(65_536);
    rig.call(file, { offset: 4096, nbytes: 4096, flags: SF_USER_READAHEAD });
    rig.drain();
    rig.call(file, { nbytes: 8192, flags: SF_FLAGS(4, SF_USER_READAHEAD) });
    expect(rig.disk.pagesPending()).to.eql([1]);
    rig.drain();
  });

  it('updates the counters of sfstat as FreeBSD does', () => {
    const rig = make(200_000);
    const { file } = rig.file(150_000);
    rig.call(file);
    rig.drain();
    rig.call(file, { nbytes: 10_000 });
    rig.drain();
    expect(Object.values(sfstat)).to.eql([2, 1, 2, 37, 3, 0, 0, 0, 0, 0, 0]);
  });

  it('keeps pages cached after sending; SF_NOCACHE frees them', () => {
    const rig = make(200_000);
    const [a, b] = [rig.file(8192), rig.file(8192)];
    rig.call(a.file);
    rig.drain();
    rig.call(b.file, { flags: SF_NOCACHE });
    rig.drain();
    expect(vmPageCounts().cached, 'pages of a').to.equal(2);
    const so = rig.socket(200_000);
    rig.call(a.file, {}, so);
    expect(rig.disk.pending, 'a is cached').to.equal(0);
  });

  for (const mapped of [false, true])
    it(`SF_NOCACHE keeps a partly sent page when readahead is requested (mapped: ${mapped})`, () => {
      const rig = make(200_000);
      mbParams.mb_use_ext_pgs = !mapped;
      const [a, b] = [rig.file(4096), rig.file(8192)];
      rig.call(a.file);
      rig.drain();
      const flags = SF_FLAGS(1, SF_NOCACHE | SF_USER_READAHEAD);
      rig.call(b.file, { nbytes: 5000, flags });
      rig.drain();
      // b's first page was freed. Allocating one frame more than are free reclaims a's page; b's
      // second page stays.
      expect(vmPageCounts().cached).to.equal(2);
      const taken: number[] = [];
      while (vmPageCounts().cached > 1) taken.push(vm_page_alloc_noobj());
      for (const p of taken) vm_page_unwire(p, false);
      rig.call(b.file, { offset: 4096 });
      expect(rig.disk.pending).to.equal(0);
      rig.drain();
    });

  it('SF_SYNC completes only when the last reference to the data is released', () => {
    const rig = make(200_000);
    const { file, bytes } = rig.file(150_000);
    const call = rig.call(file, { flags: SF_SYNC });
    rig.disk.completeAll();
    expect(call.done).to.equal(false);
    rig.peer.take(149_999);
    expect(call.done).to.equal(false);
    rig.peer.take(1);
    call.expectDone(0, 150_000);
    expectSame(rig.peer.received, bytes);
  });

  it('SF_SYNC completes at once for copied small pieces, and waits for mapped pages', () => {
    const rig = make(200_000);
    const { file } = rig.cachedFile(10_000);
    rig.call(file, { nbytes: 200, flags: SF_SYNC }).expectDone(0, 200);
    mbParams.mb_use_ext_pgs = false;
    const call = rig.call(file, { flags: SF_SYNC });
    expect(call.done).to.equal(false);
    rig.drain();
    call.expectDone(0, 10_000);
  });

  it('SF_SYNC does not block the next call while it waits', () => {
    const rig = make(200_000);
    const { file } = rig.cachedFile(10_000);
    const one = rig.call(file, { flags: SF_SYNC });
    const two = rig.call(file);
    two.expectDone(0, 10_000);
    expect(one.done).to.equal(false);
    rig.drain();
    one.expectDone(0, 10_000);
  });

  it('SF_SYNC ends when the connection is dropped', () => {
    const rig = make(200_000);
    const { file } = rig.cachedFile(10_000);
    const call = rig.call(file, { flags: SF_SYNC });
    rig.peer.reset();
    call.expectDone(0, 10_000);
  });
});
