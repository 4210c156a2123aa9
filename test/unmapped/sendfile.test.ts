/** Features of sendfile(2): readiness, order, partial pages, flags, counters, errors. */

import { expect } from 'chai';
import * as fc from 'fast-check';
import {
  SF_FLAGS,
  SF_NOCACHE,
  SF_NODISKIO,
  SF_SYNC,
  SF_USER_READAHEAD,
} from '../../src/kern/sendfile_flags.ts';
import { formatNetstatM } from '../../src/ctl/netstat_m.ts';
import { EBUSY, EIO, EPIPE } from '../../src/sys/errno.ts';
import { soreceive } from '../../src/kern/uipc_socket.ts';
import { UIO_READ, Uio } from '../../src/vm/uio.ts';
import { PAGE_SIZE } from '../../src/vm/arena.ts';
import { expectSame, npgsOf, sndMbufs } from '../kern/sendfile_rig.ts';
import { type Conn, inWorld, type World } from '../support/world.ts';
import { expectAllReleased } from './rows.ts';

/** A connection whose send buffer takes `n` bytes at once. */
function roomy(w: World, n: number, acks = true): Conn {
  const conn = w.connect({ acks });
  conn.so.so_snd.sb_hiwat = n;
  conn.so.so_snd.sb_mbmax = 8 * n;
  return conn;
}

/** Most pages of one unmapped mbuf. */
const MAX_PAGES = 19;

describe('unmapped mbufs: sendfile', () => {
  it('sbready unit counting', () => {
    const PAGES = 60;
    inWorld({}, (w) => {
      const file = w.file(PAGES * PAGE_SIZE);
      // Cache pages 4 to 7 only.
      const warm = w.connect();
      const part = { offset: 4 * PAGE_SIZE, nbytes: 4 * PAGE_SIZE, flags: SF_USER_READAHEAD };
      w.sendfile(warm, file, part);
      w.until(() => warm.reader.length === 4 * PAGE_SIZE);
      w.settle();
      w.diskWorks = false;
      const conn = roomy(w, 300_000);
      w.sendfile(conn, file, { flags: SF_USER_READAHEAD });
      w.pass(5);
      const sb = conn.so.so_snd;
      expect([sb.sb_ccc, sb.sb_acc]).to.deep.equal([PAGES * PAGE_SIZE, 0]);
      expect(w.disk.pending, 'several reads').to.be.above(1);
      // Complete the reads from last to first. Data becomes ready only when the first mbuf has all
      // its pages.
      while (w.disk.pending > 1) {
        w.disk.complete(w.disk.pending - 1);
        w.pass(5);
        expect(
          [sb.sb_acc, conn.reader.length],
          'nothing is ready before the first read',
        ).to.deep.equal([0, 0]);
      }
      w.disk.complete();
      expect(sb.sb_acc, 'all data is ready after the first read').to.equal(PAGES * PAGE_SIZE);
      w.diskWorks = true;
      expect(w.until(() => conn.reader.length === file.bytes.length)).to.equal(true);
      expectSame(conn.reader.received, file.bytes);
    });
    // The last read of a round makes it ready with one call of sbready that counts its pages: 60
    // pages complete four mbufs. The same call unblocks the cached round of less than one mbuf
    // behind it.
    inWorld({}, (w) => {
      const cached = w.file(10 * PAGE_SIZE);
      const warm = w.connect();
      w.transfer(warm, cached);
      w.settle();
      w.diskWorks = false;
      const conn = roomy(w, 400_000, false);
      const sb = conn.so.so_snd;
      w.sendfile(conn, w.file(PAGES * PAGE_SIZE), { flags: SF_USER_READAHEAD });
      w.sendfile(conn, cached);
      expect(sndMbufs(conn.so).map(npgsOf)).to.deep.equal([19, 19, 19, 3, 10]);
      expect(w.disk.pagesPending(), 'reads').to.have.lengthOf.above(1);
      while (w.disk.pending > 0) {
        expect(sb.sb_acc).to.equal(0);
        w.disk.complete();
      }
      expect(sb.sb_acc).to.equal((PAGES + 10) * PAGE_SIZE);
      conn.reader.ackAll();
    });
  });

  it('NOTREADY blocking', () => {
    inWorld({}, (w) => {
      w.diskWorks = false;
      const conn = roomy(w, 400_000);
      const sb = conn.so.so_snd;
      // Send five files on one connection; the disk completes their reads in another order.
      const files = [70_000, 10, 5000, 30_000, 4096].map((n) => w.file(n));
      for (const file of files) w.sendfile(conn, file);
      w.pass(2);
      const total = files.reduce((n, f) => n + f.bytes.length, 0);
      expect([sb.sb_ccc, sb.sb_acc]).to.deep.equal([total, 0]);
      const order = [4, 1, 3, 2];
      for (const i of order) {
        for (let at = w.disk.pending - 1; at >= 0; at--)
          if (w.disk.reads[at]!.file === files[i]!.disk) w.disk.complete(at);
        w.pass(2);
        expect([sb.sb_ccc, sb.sb_acc], 'nothing may be sent before the first file').to.deep.equal([
          total,
          0,
        ]);
        expect(conn.reader.length).to.equal(0);
      }
      w.disk.completeAll();
      expect(w.until(() => conn.reader.length === total)).to.equal(true);
      expectSame(conn.reader.received, Buffer.concat(files.map((f) => f.bytes)));
      w.settle();
      expect([sb.sb_ccc, sb.sb_acc, sb.sb_mbcnt, sb.sb_mcnt]).to.deep.equal([0, 0, 0, 0]);
    });
  });

  it('asynchronous I/O error', () => {
    inWorld({}, (w) => {
      w.diskWorks = false;
      const conn = roomy(w, 200_000);
      const file = w.file(100_000);
      const call = w.sendfile(conn, file);
      w.pass(2);
      call.expectDone(0, 100_000);
      // The sendfile call has ended before the read fails.
      w.disk.fail();
      w.disk.completeAll();
      w.pass(2);
      expect(conn.reader.reset, 'the peer receives an RST').to.equal(true);
      expect(conn.so.so_error).to.equal(EIO);
      // A send returns EPIPE first, because the send side is closed. A receive returns the pending
      // error once.
      w.sendfile(conn, file).expectDone(EPIPE, 0);
      const uio = (): Uio => new Uio().single(new Uint8Array(10), 0, 10, UIO_READ);
      expect(soreceive(conn.so, uio()), 'the next call').to.equal(EIO);
      expect(soreceive(conn.so, uio()), 'the one after').to.equal(0);
      w.diskWorks = true;
      w.settle();
      expectAllReleased(w);
    });
  });

  it('partial pages', () => {
    inWorld({}, (w) => {
      const size = 3 * MAX_PAGES * PAGE_SIZE;
      const file = w.file(size);
      const conn = w.connect();
      let total = 0;
      const near = fc
        .tuple(fc.constantFrom(0, 1, 2, MAX_PAGES, 2 * MAX_PAGES), fc.integer({ min: -3, max: 3 }))
        .map(([pages, off]) => Math.max(0, pages * PAGE_SIZE + off));
      const any = fc.oneof(near, near, fc.nat(size));
      fc.assert(
        fc.property(any, any, (offset, nbytes) => {
          const want = file.bytes.subarray(offset, nbytes === 0 ? size : offset + nbytes);
          const call = w.sendfile(conn, file, { offset, nbytes });
          total += want.length;
          expect(w.until(() => call.done && conn.reader.length === total)).to.equal(true);
          call.expectDone(0, want.length);
          expectSame(conn.reader.received.subarray(total - want.length), want);
        }),
        { numRuns: 60, seed: 7 },
      );
    });
  });

  it('SF_SYNC', () => {
    inWorld({}, (w) => {
      const conn = roomy(w, 200_000, false);
      const file = w.file(14_000);
      const call = w.sendfile(conn, file, { flags: SF_SYNC });
      w.pass(3000);
      expect(conn.reader.length, 'the reader has all data').to.equal(14_000);
      expect(call.done, 'the call waits for the acknowledgement').to.equal(false);
      conn.reader.ackAll();
      expect(w.until(() => call.done, 1000)).to.equal(true);
      call.expectDone(0, 14_000);
      expectAllReleased(w);
      // Without the flag the same call returns at once.
      const plain = w.sendfile(conn, file);
      expect(plain.done).to.equal(true);
    });
  });

  it('SF_NOCACHE, readahead, NODISKIO', () => {
    inWorld({}, (w) => {
      const conn = roomy(w, 1 << 20);
      const file = w.file(64 * PAGE_SIZE);
      const sf = (): Record<string, number> => w.m.sendfile;
      const delta = (run: () => void): Record<string, number> => {
        const before = sf();
        run();
        w.until(() => false, 100);
        return Object.fromEntries(
          Object.entries(sf())
            .map(([name, n]): [string, number] => [name, n - before[name]!])
            .filter(([, n]) => n !== 0),
        );
      };
      const range = { offset: 0, nbytes: 4 * PAGE_SIZE };
      // Read exactly 8 pages ahead, as the application requests.
      expect(
        delta(() => w.sendfile(conn, file, { ...range, flags: SF_FLAGS(8, SF_USER_READAHEAD) })),
      ).to.deep.equal({
        sf_syscalls: 1,
        sf_iocnt: 1,
        sf_pages_read: 4,
        sf_rhpages_requested: 8,
        sf_rhpages_read: 8,
      });
      // These 8 pages are cached now.
      expect(
        delta(() =>
          w.sendfile(conn, file, {
            offset: 4 * PAGE_SIZE,
            nbytes: 8 * PAGE_SIZE,
            flags: SF_USER_READAHEAD | SF_NOCACHE,
          }),
        ),
      ).to.deep.equal({ sf_syscalls: 1, sf_noiocnt: 1, sf_pages_valid: 8 });
      w.settle();
      // The pages sent with SF_NOCACHE were freed; the first four are still cached.
      expect(w.m.emulator.pages.cached).to.equal(4);
      expect(
        delta(() => w.sendfile(conn, file, { nbytes: 6 * PAGE_SIZE, flags: SF_USER_READAHEAD })),
      ).to.deep.equal({ sf_syscalls: 1, sf_iocnt: 1, sf_pages_valid: 4, sf_pages_read: 2 });
      // SF_NODISKIO does not wait for a page that another call is reading.
      w.diskWorks = false;
      const other = roomy(w, 1 << 20);
      w.sendfile(other, file, {
        offset: 22 * PAGE_SIZE,
        nbytes: PAGE_SIZE,
        flags: SF_USER_READAHEAD,
      });
      const call = w.sendfile(conn, file, {
        offset: 20 * PAGE_SIZE,
        nbytes: 4 * PAGE_SIZE,
        flags: SF_NODISKIO | SF_USER_READAHEAD,
      });
      call.expectDone(EBUSY, 2 * PAGE_SIZE);
      expect(sf()['sf_busy']).to.equal(1);
      w.diskWorks = true;
      w.settle();
    });
  });

  it('sendfile counters', () => {
    inWorld({}, (w) => {
      const conn = roomy(w, 1 << 20);
      const file = w.file(10 * PAGE_SIZE);
      for (let i = 0; i < 3; i++) {
        w.sendfile(conn, file, { flags: SF_FLAGS(2, 0) });
        w.pass(100);
      }
      const text = formatNetstatM(w.m);
      const lines = text.split('\n');
      const at = lines.findIndex((line) => line.endsWith('sendfile syscalls'));
      expect(lines.slice(at, at + 11)).to.deep.equal([
        '3 sendfile syscalls',
        '2 sendfile syscalls completed without I/O request',
        '1 requests for I/O initiated by sendfile',
        '10 pages read by sendfile as part of a request',
        '20 pages were valid at time of a sendfile request',
        '0 pages were valid and substituted to bogus page',
        '6 pages were requested for read ahead by applications',
        '0 pages were read ahead by sendfile',
        '0 times sendfile encountered an already busy page',
        '0 requests for sfbufs denied',
        '0 requests for sfbufs delayed',
      ]);
      const names = ['kern.ipc.sfstat'];
      const [leaf] = w.ask('sysctl', { name: names[0] }) as { value: number[] }[];
      expect(leaf!.value).to.deep.equal([3, 2, 1, 10, 20, 6, 0, 0, 0, 0, 0]);
      w.ask('sysctl', { name: names[0], value: '0' });
      expect(
        Object.values(w.m.sendfile).every((n) => n === 0),
        'writing resets',
      ).to.equal(true);
    });
  });
});
