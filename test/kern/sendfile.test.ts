import { expect } from 'chai';
import { inPass } from '../../src/sys/pass.ts';
import {
  EAGAIN,
  EBADF,
  ECANCELED,
  ECONNRESET,
  EINVAL,
  EIO,
  ENOBUFS,
  ENOTCONN,
  EPIPE,
} from '../../src/sys/errno.ts';
import { counted, R_PAGER_EIO, R_SF_IOERR, R_SF_TRUNCATED } from '../../src/sys/reason.ts';
import { mbParams, mbufZones } from '../../src/kern/kern_mbuf.ts';
import { EXT_PGS, EXT_SFBUF, M_NOMAP, M_NOTREADY } from '../../src/kern/mbuf.ts';
import { SF_SYNC, SF_USER_READAHEAD } from '../../src/kern/sendfile_flags.ts';
import { IPPROTO_TCP } from '../../src/kern/protosw.ts';
import { sendfileLive, sfstat } from '../../src/kern/sendfile_io.ts';
import { sbavail, SBS_CANTSENDMORE, sbused } from '../../src/kern/uipc_sockbuf.ts';
import {
  SO_ACCEPTCONN,
  SO_SND,
  soclose,
  socantsendmore,
  soTakeError,
  soupcall_set,
  SS_ISCONNECTED,
} from '../../src/kern/uipc_socket.ts';
import { payloadBytesRead, READ_SMALL } from '../../src/vm/payload.ts';
import { vmPageCounts } from '../../src/vm/vm_page.ts';
import { fileBytes } from './disk.ts';
import { must } from './chains.ts';
import { expectNoPayloadReads, expectSame, npgsOf, rigEach, sndMbufs } from './sendfile_rig.ts';
import { pcbOf, TestProto, testVnet } from './testproto.ts';
import { runUpcalls } from '../support/machine.ts';

const text = (s: string): Uint8Array => new TextEncoder().encode(s);
const cat = (...parts: Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(parts));

describe('sendfile: mbufs', () => {
  const make = rigEach();

  it('nothing cached, 150,000-byte file, space large: 2 mbufs of 19 and 18 pages', () => {
    const rig = make(200_000);
    const { file, bytes } = rig.file(150_000);
    const call = rig.call(file);
    call.expectDone(0, 150_000);
    const ms = sndMbufs(rig.so);
    expect(ms.map((m) => m.m_len)).to.eql([77_824, 72_176]);
    expect(ms.map(npgsOf)).to.eql([19, 18]);
    expect(ms.map((m) => must(m.m_ext.ext_pgs).nrdy)).to.eql([19, 18]);
    expect(must(ms[1]!.m_ext.ext_pgs).last_pg_len).to.equal(2544);
    expect(ms.every((m) => (m.m_flags & M_NOTREADY) !== 0)).to.equal(true);
    expect([sbavail(rig.so.so_snd), sbused(rig.so.so_snd)]).to.eql([0, 150_000]);
    // 37 pages: one read of 32 and one of 5.
    expect(rig.disk.pagesPending()).to.eql([32, 5]);
    expectSame(rig.drain(), bytes);
    expect(pcbOf(rig.so).readies).to.equal(1);
    expectNoPayloadReads();
  });

  it('cached pages: data is ready at once, no I/O', () => {
    const rig = make(200_000);
    const { file, bytes } = rig.cachedFile(150_000);
    const call = rig.call(file);
    call.expectDone(0, 150_000);
    expect(rig.disk.pending).to.equal(0);
    expect(sbavail(rig.so.so_snd)).to.equal(150_000);
    expect(sndMbufs(rig.so).every((m) => (m.m_flags & M_NOTREADY) === 0)).to.equal(true);
    expectSame(rig.drain(), bytes);
  });

  it('mixed: every page of a round is pending when one page must be read, valid pages too', () => {
    const rig = make(200_000);
    const { file, bytes } = rig.file(150_000);
    // Load the first page into the cache with a call for that page alone, without readahead.
    rig.call(file, { nbytes: 4096, flags: SF_USER_READAHEAD });
    rig.drain();
    const readies = pcbOf(rig.so).readies;
    rig.call(file, { flags: SF_USER_READAHEAD });
    expect(rig.disk.firstPages()).to.eql([1, 33]);
    expect(sfstat.sf_pages_bogus).to.equal(0);
    expect(sndMbufs(rig.so).map((m) => must(m.m_ext.ext_pgs).nrdy)).to.eql([19, 18]);
    rig.disk.complete();
    expect(sbavail(rig.so.so_snd)).to.equal(0);
    rig.disk.complete();
    expect(sbavail(rig.so.so_snd)).to.equal(150_000);
    expect(pcbOf(rig.so).readies).to.equal(readies + 1);
    expectSame(rig.drain(), cat(bytes.slice(0, 4096), bytes));
  });

  it('mb_use_ext_pgs=0: one EXT_SFBUF mbuf per page, zone mbuf_extpgs stays at 0', () => {
    const rig = make(200_000);
    mbParams.mb_use_ext_pgs = false;
    const { file, bytes } = rig.file(150_000);
    rig.call(file).expectDone(0, 150_000);
    const ms = sndMbufs(rig.so);
    expect(ms).to.have.lengthOf(37);
    expect(ms.every((m) => m.m_ext.ext_type === EXT_SFBUF)).to.equal(true);
    expect(mbufZones().extpgs.total).to.equal(0);
    expectSame(rig.drain(), bytes);
    expectNoPayloadReads();
  });

  it('makes no unmapped mbufs for a protocol other than TCP', () => {
    const rig = make(65_536, testVnet(new TestProto(IPPROTO_TCP + 1)));
    const { file, bytes } = rig.file(10_000);
    rig.call(file);
    expect(sndMbufs(rig.so).map((m) => m.m_ext.ext_type)).to.eql([2, 2, 2]);
    expectSame(rig.drain(), bytes);
  });

  it('reads kern.ipc.mb_use_ext_pgs at each round', () => {
    const rig = make(65_536);
    const { file, bytes } = rig.file(120_000);
    rig.call(file);
    mbParams.mb_use_ext_pgs = false;
    rig.disk.completeAll();
    rig.peer.take();
    expect(sndMbufs(rig.so)[0]!.m_ext.ext_type).to.equal(EXT_SFBUF);
    expectSame(rig.drain(), bytes);
  });

  for (const [off, len] of [
    [0, 1],
    [4095, 10],
    [4096, 4096],
    [5000, 10_000],
    [77_823, 2],
    [77_824, 77_824],
    [1, 77_824],
    [100_000, 1],
    [0, 77_825],
  ] as const)
    it(`partial pages: offset ${off}, ${len} bytes`, () => {
      const rig = make(200_000);
      const { file, bytes } = rig.file(160_000);
      for (let i = 0; i < 2; i++) {
        rig.call(file, { offset: off, nbytes: len }).expectDone(0, len);
        rig.disk.completeAll();
      }
      const want = bytes.slice(off, off + len);
      expectSame(rig.drain(), cat(want, want));
    });

  it('mb_unmapped_compress: many small ranges leave no page wired and no mbuf unmapped', () => {
    const rig = make();
    const { file, bytes } = rig.cachedFile(20_000);
    const wired = vmPageCounts().wiredFile;
    const want: Uint8Array[] = [];
    for (let i = 0; i < 50; i++) {
      rig.call(file, { offset: i * 301, nbytes: 224 });
      want.push(bytes.slice(i * 301, i * 301 + 224));
    }
    expect(vmPageCounts().wiredFile).to.equal(wired);
    expect(sndMbufs(rig.so).every((m) => (m.m_flags & M_NOMAP) === 0)).to.equal(true);
    expect(payloadBytesRead(READ_SMALL)).to.equal(50 * 224);
    rig.call(file, { offset: 5, nbytes: 225 });
    expect(must(rig.so.so_snd.sb_mbtail).m_ext.ext_type).to.equal(EXT_PGS);
    expectSame(rig.drain(), cat(...want, bytes.slice(5, 230)));
    expectNoPayloadReads();
  });

  it('the bytes of a small file after headers are counted as READ_SMALL only', () => {
    const rig = make();
    const { file, bytes } = rig.cachedFile(100);
    rig.call(file, { headers: [text('HTTP/1.1 200 OK\r\n\r\n')] }).expectDone(0, 119);
    expectSame(rig.drain(), cat(text('HTTP/1.1 200 OK\r\n\r\n'), bytes));
    expectNoPayloadReads();
  });
});

describe('sendfile: data sent', () => {
  const make = rigEach();

  it('nbytes 0 sends to the end of the file, and so does nbytes beyond the end', () => {
    const rig = make();
    const { file, bytes } = rig.file(9000);
    rig.call(file, { offset: 10 }).expectDone(0, 8990);
    rig.disk.completeAll();
    rig.call(file, { offset: 10, nbytes: 99_999 }).expectDone(0, 8990);
    expectSame(rig.drain(), cat(bytes.slice(10), bytes.slice(10)));
  });

  it('offset at or beyond the end: success, no headers, trailers sent', () => {
    const rig = make();
    const { file } = rig.file(9000);
    const hdtr = { headers: [text('head')], trailers: [text('tail')] };
    rig.call(file, { offset: 9000, ...hdtr }).expectDone(0, 4);
    rig.call(file, { offset: 1e9, nbytes: 5, ...hdtr }).expectDone(0, 4);
    expectSame(rig.drain(), text('tailtail'));
  });

  it('an empty file: success, 0 bytes', () => {
    const rig = make();
    rig.call(rig.file(0).file).expectDone(0, 0);
  });

  it('sends headers in several pieces, then the file, then the trailers', () => {
    const rig = make();
    const { file, bytes } = rig.file(10_000);
    const headers = [text('one'), new Uint8Array(0), fileBytes(3000), text('two')];
    const call = rig.call(file, { headers, trailers: [text('tail'), text('s')] });
    expectSame(rig.drain(), cat(...headers, bytes, text('tails')));
    call.expectDone(0, 3006 + 10_000 + 5);
  });

  it('sends headers larger than the send buffer in rounds without file data', () => {
    const rig = make(8192);
    const { file, bytes } = rig.file(6000);
    const headers = [fileBytes(20_000, 5)];
    const call = rig.call(file, { headers, trailers: [fileBytes(10_000, 6)] });
    expect(sbused(rig.so.so_snd)).to.equal(8192);
    expect(sndMbufs(rig.so).every((m) => m.m_ext.ext_type !== EXT_PGS)).to.equal(true);
    expectSame(rig.drain(), cat(headers[0]!, bytes, fileBytes(10_000, 6)));
    call.expectDone(0, 36_000);
  });

  it('sends headers that fill the send buffer exactly', () => {
    const rig = make(8192);
    const { file, bytes } = rig.file(100);
    const headers = [fileBytes(8192, 5)];
    const call = rig.call(file, { headers });
    expectSame(rig.drain(), cat(headers[0]!, bytes));
    call.expectDone(0, 8292);
  });

  it('does not interleave two calls: the second waits for the first', () => {
    const rig = make(32_768);
    const a = rig.file(100_000);
    const b = rig.file(50_000);
    const one = rig.call(a.file);
    const two = rig.call(b.file);
    expect([one.done, two.done]).to.eql([false, false]);
    expectSame(rig.drain(), cat(a.bytes, b.bytes));
    one.expectDone(0, 100_000);
    two.expectDone(0, 50_000);
  });

  it('a call can be started in the completion callback of another call', () => {
    const rig = make(32_768);
    const a = rig.file(50_000);
    const b = rig.file(30_000);
    const one = rig.call(a.file);
    let two = null as null | ReturnType<typeof rig.call>;
    one.whenDone = () => {
      two = rig.call(b.file);
    };
    expectSame(rig.drain(), cat(a.bytes, b.bytes));
    must(two).expectDone(0, 30_000);
  });

  it('file grows during the transfer: nbytes 0 sends the growth', () => {
    const rig = make(32_768);
    const { file, disk, bytes } = rig.file(100_000);
    const call = rig.call(file);
    const grown = cat(bytes, fileBytes(20_000, 9));
    rig.disk.change(disk, grown);
    expectSame(rig.drain(), grown);
    call.expectDone(0, 120_000);
  });

  it('file grows during the transfer: a call with nbytes sends exactly nbytes', () => {
    const rig = make(32_768);
    const { file, disk, bytes } = rig.file(100_000);
    const call = rig.call(file, { offset: 100, nbytes: 80_000 });
    rig.disk.change(disk, cat(bytes, fileBytes(20_000, 9)));
    expectSame(rig.drain(), bytes.slice(100, 80_100));
    call.expectDone(0, 80_000);
  });

  it('file truncated during the transfer: the call succeeds with fewer bytes', () => {
    const rig = make(32_768);
    const { file, disk, bytes } = rig.file(100_000);
    const call = rig.call(file, { trailers: [text('t')] });
    rig.disk.completeAll();
    rig.disk.change(disk, bytes.slice(0, 40_000));
    expectSame(rig.drain(), cat(bytes.slice(0, 40_000), text('t')));
    call.expectDone(0, 40_001);
    expect(counted(R_SF_TRUNCATED)).to.equal(1);
  });

  it('file truncated during a read: the missing bytes read as zeros', () => {
    const rig = make(32_768);
    const { file, disk, bytes } = rig.file(20_000);
    rig.call(file).expectDone(0, 20_000);
    rig.disk.change(disk, bytes.slice(0, 6000));
    expectSame(rig.drain(), cat(bytes.slice(0, 6000), new Uint8Array(14_000)));
  });

  it('file rewritten during the transfer: queued data is unchanged, later data is new', () => {
    const rig = make(32_768);
    const { file, disk, bytes } = rig.file(100_000);
    const call = rig.call(file);
    rig.disk.completeAll();
    const sent = sbused(rig.so.so_snd);
    const next = fileBytes(100_000, 77);
    rig.disk.change(disk, next);
    expectSame(rig.drain(), cat(bytes.slice(0, sent), next.slice(sent)));
    call.expectDone(0, 100_000);
  });
});

describe('sendfile: errors', () => {
  const make = rigEach();

  it('returns EINVAL, EBADF, ENOTCONN or the error of fstat before it starts', () => {
    const rig = make();
    const { file, disk } = rig.file(10);
    expect(rig.call(file, { offset: -1 }).started).to.equal(EINVAL);
    expect(rig.call(file, { nbytes: -1 }).started).to.equal(EINVAL);
    disk.isFile = false;
    expect(rig.call(file).started).to.equal(EINVAL);
    disk.isFile = true;
    rig.so.so_options |= SO_ACCEPTCONN;
    expect(rig.call(file).started).to.equal(ENOTCONN);
    rig.so.so_options &= ~SO_ACCEPTCONN;
    rig.disk.statError = EIO;
    expect(rig.call(file).started).to.equal(EIO);
    rig.disk.statError = 0;
    file.drop();
    const call = rig.call(file);
    expect(call.started).to.equal(EBADF);
    expect(call.heard).to.eql([]);
    expect(sfstat.sf_syscalls).to.equal(0);
  });

  it('EAGAIN on a non-blocking socket without space; sbytes counts the bytes sent', () => {
    const rig = make(65_536);
    const { file, bytes } = rig.file(200_000);
    rig.call(file, { nonblocking: true }).expectDone(EAGAIN, 65_536);
    rig.call(file, { offset: 65_536, nonblocking: true }).expectDone(EAGAIN, 0);
    expectSame(rig.drain(), bytes.slice(0, 65_536));
    expect(rig.so.so_snd.sb_lowat).to.equal(32_768);
  });

  it('trailers that fit partly on a non-blocking socket: success with a smaller sbytes', () => {
    const rig = make(16_384);
    const { file, bytes } = rig.file(8000);
    const trailers = [fileBytes(10_000, 3)];
    // sendfile has set the low-water mark to half of the buffer; less space would give EAGAIN.
    rig.call(file, { trailers, nonblocking: true }).expectDone(0, 16_384);
    expectSame(rig.drain(), cat(bytes, trailers[0]!.slice(0, 8384)));
  });

  it('trailers that do not fit at all on a non-blocking socket: EAGAIN', () => {
    const rig = make(8192);
    const { file } = rig.file(8192);
    rig.call(file, { trailers: [text('x')], nonblocking: true }).expectDone(EAGAIN, 8192);
    rig.drain();
  });

  it('EPIPE when the send side is shut down before or during a call', () => {
    const rig = make(32_768);
    const { file } = rig.file(100_000);
    const call = rig.call(file);
    inPass(socantsendmore, rig.so);
    call.expectDone(EPIPE, 32_768);
    rig.call(file).expectDone(EPIPE, 0);
  });

  it('reports the pending error of the socket once', () => {
    const rig = make(32_768);
    const { file } = rig.file(1000);
    rig.so.so_error = ECONNRESET;
    rig.call(file).expectDone(ECONNRESET, 0);
    rig.call(file).expectDone(0, 1000);
    rig.drain();
  });

  it('a failed pr_send is reported and not counted in sbytes', () => {
    for (const cached of [true, false]) {
      const rig = make(32_768);
      const { file } = cached ? rig.cachedFile(10_000) : rig.file(10_000);
      pcbOf(rig.so).failSends = [ENOBUFS];
      rig.call(file, { headers: [text('head')] }).expectDone(ENOBUFS, 0);
      expect(sbused(rig.so.so_snd)).to.equal(0);
      rig.disk.completeAll();
      expect(rig.so.so_error).to.equal(0);
      rig.finish();
    }
  });

  it('EIO when a read cannot be started; the data before it is sent', () => {
    const rig = make(200_000);
    const { file, bytes } = rig.file(150_000);
    rig.disk.failReads = [0, EIO];
    rig.call(file).expectDone(EIO, 32 * 4096);
    expectSame(rig.drain(), bytes.slice(0, 32 * 4096));
    rig.disk.failReads = [EIO];
    rig.call(file, { offset: 140_000 }).expectDone(EIO, 0);
    expect(rig.so.so_error).to.equal(0);
    expect(counted(R_PAGER_EIO)).to.equal(2);
  });

  it('an asynchronous read error: connection aborted, so_error EIO, buffer empty, pages unwired', () => {
    const rig = make(200_000);
    const { file } = rig.file(150_000);
    rig.call(file).expectDone(0, 150_000);
    rig.disk.fail(1);
    expect(pcbOf(rig.so).aborts, 'no abort before the last read ends').to.equal(0);
    rig.disk.complete();
    expect(pcbOf(rig.so).aborts).to.equal(1);
    expect(soTakeError(rig.so)).to.equal(EIO);
    expect(sbused(rig.so.so_snd)).to.equal(0);
    expect(vmPageCounts().wiredFile).to.equal(0);
    expect(counted(R_SF_IOERR)).to.equal(1);
    rig.call(file).expectDone(EPIPE, 0);
  });

  it('checks the socket in this order: EPIPE, the pending error, ENOTCONN', () => {
    const rig = make();
    const { file } = rig.file(10);
    const { so } = rig;
    so.so_state &= ~SS_ISCONNECTED;
    so.so_error = ECONNRESET;
    so.so_snd.sb_state |= SBS_CANTSENDMORE;
    rig.call(file).expectDone(EPIPE, 0);
    so.so_snd.sb_state &= ~SBS_CANTSENDMORE;
    rig.call(file).expectDone(ECONNRESET, 0);
    rig.call(file).expectDone(ENOTCONN, 0);
    so.so_state |= SS_ISCONNECTED;
  });

  it('a read error also discards the ready data in front of it', () => {
    const rig = make(200_000);
    const a = rig.cachedFile(5000);
    const b = rig.file(50_000);
    rig.call(a.file);
    rig.call(b.file);
    rig.call(a.file);
    expect(sbavail(rig.so.so_snd)).to.equal(5000);
    rig.disk.fail();
    expect(sbused(rig.so.so_snd)).to.equal(0);
    expect(vmPageCounts().wiredFile).to.equal(0);
  });

  it('a page whose read failed is read again by the next call', () => {
    const rig = make(65_536);
    const { file, bytes } = rig.file(10_000);
    rig.call(file);
    rig.disk.fail();
    const so = rig.socket();
    const call = rig.call(file, {}, so);
    expect(rig.disk.pagesPending()).to.eql([3]);
    call.expectDone(0, 10_000);
    rig.disk.completeAll();
    expect(sbavail(so.so_snd)).to.equal(10_000);
    expect(bytes.length).to.equal(10_000);
  });

  it('ENOBUFS when no page list can be allocated; nothing leaks', () => {
    const rig = make(65_536);
    const { file } = rig.file(10_000);
    mbufZones().extpgs.failPoint.arm(1);
    rig.call(file).expectDone(ENOBUFS, 0);
    rig.disk.completeAll();
    mbufZones().extpgs.failPoint.arm(1);
    rig.call(file).expectDone(ENOBUFS, 0);
    // The second mbuf of a round cannot be allocated: the first is sent, the rest in the next
    // round.
    const big = rig.file(120_000);
    const so = rig.socket(200_000);
    mbufZones().extpgs.failPoint.arm(2);
    const call = rig.call(big.file, {}, so);
    rig.disk.completeAll();
    expect(mbufZones().extpgs.failPoint.fired).to.equal(1);
    call.expectDone(0, 120_000);
    rig.disk.completeAll();
    expect(sbavail(so.so_snd)).to.equal(120_000);
  });

  it('ENOBUFS when no mbuf can be allocated for the headers; pages are unwired after their reads', () => {
    const rig = make(65_536);
    const { file } = rig.file(10_000);
    mbufZones().clust.failPoint.arm(1);
    rig.call(file, { headers: [fileBytes(1000)] }).expectDone(ENOBUFS, 0);
    rig.disk.completeAll();
    expect(vmPageCounts().wiredFile).to.equal(0);
  });

  it('other calls still work after a completion callback throws', () => {
    const rig = make(32_768);
    const { file, bytes } = rig.file(20_000);
    const other = rig.file(100_000);
    const so = rig.socket(32_768);
    const waiting = rig.call(other.file, {}, so);
    const call = rig.call(file, { flags: SF_SYNC });
    call.whenDone = () => {
      throw new Error('application');
    };
    // It does not come out of the peer's ACK, which it has nothing to do with.
    while (rig.peer.take() > 0 || rig.disk.pending > 0) rig.disk.completeAll();
    expect(() => rig.clock.runPosted()).to.throw('application');
    const drained = rig.drain();
    call.expectDone(0, 20_000);
    expectSame(drained, bytes);
    so.so_snd.sb_hiwat = 1 << 20;
    inPass(socantsendmore, so);
    waiting.expectDone(EPIPE, 32_768);
  });
});

describe('sendfile: close, drop and cancel', () => {
  const make = rigEach();

  it('file closed while its reads are in flight: it stays open until they end', () => {
    const rig = make(65_536);
    const { file, disk, bytes } = rig.file(30_000);
    rig.call(file);
    file.drop();
    expect(disk.open).to.equal(true);
    expectSame(rig.drain(), bytes);
    expect(disk.open).to.equal(false);
  });

  it('file closed during the call: the call completes, then the file is closed', () => {
    const rig = make(8192);
    const { file, disk, bytes } = rig.file(50_000);
    const call = rig.call(file);
    file.drop();
    expectSame(rig.drain(), bytes);
    call.expectDone(0, 50_000);
    expect(disk.open).to.equal(false);
  });

  it('connection dropped while reads are in flight: EPIPE; pages are unwired when the reads end', () => {
    const rig = make(65_536);
    const { file } = rig.file(100_000);
    const call = rig.call(file);
    rig.peer.reset(ECONNRESET);
    call.expectDone(EPIPE, 65_536);
    expect(vmPageCounts().wiredFile).to.equal(16 + 9); // pages of the reads and of the readahead
    rig.disk.completeAll();
    expect(vmPageCounts().wiredFile).to.equal(0);
    expect(rig.so.so_error).to.equal(ECONNRESET);
  });

  it('connection dropped, then the read fails: one abort, pages unwired', () => {
    const rig = make(65_536);
    const { file } = rig.file(30_000);
    rig.call(file);
    rig.peer.reset(ECONNRESET);
    rig.disk.fail();
    expect(pcbOf(rig.so).aborts).to.equal(1);
    expect(vmPageCounts().wiredFile).to.equal(0);
  });

  it('socket closed while reads are in flight: it is freed when they end', () => {
    const rig = make(65_536);
    const { file } = rig.file(30_000);
    rig.call(file);
    const { so } = rig;
    soclose(so);
    expect(so.so_pcb).to.not.equal(null);
    rig.disk.completeAll();
    expect(so.so_pcb).to.equal(null);
  });

  it('socket closed during calls: they end with EPIPE', () => {
    const rig = make(8192);
    const { file } = rig.file(50_000);
    const one = rig.call(file);
    const two = rig.call(file);
    soclose(rig.so);
    one.expectDone(EPIPE, 8192);
    two.expectDone(EPIPE, 0);
  });

  it('control block detached while reads are in flight: nothing is freed twice', () => {
    const rig = make(65_536);
    const { file } = rig.file(30_000);
    rig.call(file);
    rig.so.so_proto.pr_detach(rig.so);
    rig.disk.completeAll();
    expect(sbused(rig.so.so_snd)).to.equal(0);
  });

  it('cancel() ends a call in each of its wait states', () => {
    const rig = make(8192);
    const { file } = rig.file(50_000);
    const forSpace = rig.call(file);
    const forLock = rig.call(file);
    const third = rig.call(file);
    must(forLock.call).cancel(ECANCELED);
    forLock.expectDone(ECANCELED, 0);
    must(forSpace.call).cancel(ECANCELED);
    forSpace.expectDone(ECANCELED, 8192);
    expect(third.done).to.equal(false);
    must(third.call).cancel(ECANCELED);
    must(third.call).cancel(ECANCELED);
    third.expectDone(ECANCELED, 0);

    const so = rig.socket();
    const forPage = rig.call(file, {}, so);
    expect(sfstat.sf_busy).to.equal(1);
    must(forPage.call).cancel(ECANCELED);
    forPage.expectDone(ECANCELED, 0);

    rig.drain();
    const sync = rig.call(file, { nbytes: 5000, flags: SF_SYNC });
    must(sync.call).cancel(ECANCELED);
    sync.expectDone(ECANCELED, 5000);
    rig.drain();
    expect(sendfileLive).to.eql({ calls: 0, ios: 0 });
  });

  it('runs the send upcall once when the send side is free again', () => {
    const rig = make(65_536);
    const { file } = rig.file(1000);
    const seen: string[] = [];
    soupcall_set(rig.so, SO_SND, { run: () => void seen.push('upcall') });
    const call = rig.call(file, { nbytes: 1 });
    rig.disk.completeAll();
    runUpcalls();
    expect(seen).to.eql(['upcall']);
    call.expectDone(0, 1);
    rig.drain();
  });
});
