/**
 * sendfile with the TCP stack over a simulated wire, checked at the peer and in the reports of the
 * tools.
 */

import { expect } from 'chai';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { SysctlLeaf } from '../../src/ctl/sysctl.ts';
import {
  SF_FLAGS,
  SF_NOCACHE,
  SF_NODISKIO,
  SF_SYNC,
  SF_USER_READAHEAD,
} from '../../src/kern/sendfile_flags.ts';
import { mbEmulator, mbufZones } from '../../src/kern/kern_mbuf.ts';
import { ioResult, soWrite } from '../../src/kern/sys_generic.ts';
import { soreserve } from '../../src/kern/uipc_socket.ts';
import { EBUSY, EIO, EPIPE } from '../../src/sys/errno.ts';
import { PAGE_SIZE } from '../../src/vm/arena.ts';
import { vmPageCounts } from '../../src/vm/vm_page.ts';
import { fileBytes } from './disk.ts';
import { type Conn, inWorld, type World, type WorldFile } from '../support/world.ts';

const MAX_PGS = 19;
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/** Sends `file` once, so that its pages are cached. */
function cache(w: World, file: WorldFile): void {
  const conn = w.connect({ sport: 50_000 });
  w.transfer(conn, file);
  conn.reader.abort();
  w.closeConn(conn);
  w.settle();
}

/** A connection whose send buffer takes the data of a whole test at once. */
function wide(w: World, options: Parameters<World['connect']>[0] = {}): Conn {
  const conn = w.connect(options);
  expect(soreserve(conn.so, 800_000, 65_536)).to.equal(0);
  return conn;
}

describe('sendfile over TCP', () => {
  it('partial pages: any offset and length around multiples of 4096 and 19*4096', () =>
    inWorld({}, (w) => {
      const file = w.file(45 * PAGE_SIZE + 77);
      cache(w, file);
      const conn = wide(w);
      const want: Uint8Array[] = [];
      let total = 0;
      const around = (pages: number): number[] => [-1, 0, 1].map((d) => pages * PAGE_SIZE + d);
      for (const offset of [0, 1, ...around(1), ...around(18), ...around(19), ...around(20)])
        for (const nbytes of [1, 224, 225, ...around(1), ...around(MAX_PGS), 0]) {
          const call = w.sendfile(conn, file, { offset, nbytes });
          const data = file.bytes.subarray(offset, nbytes === 0 ? undefined : offset + nbytes);
          want.push(data);
          total += data.length;
          expect(w.until(() => call.done && conn.reader.length >= total)).to.equal(true);
          call.expectDone(0, data.length);
        }
      expect(same(conn.reader.received, Buffer.concat(want))).to.equal(true);
    }));

  it('SF_SYNC: the call lasts until the last acknowledgement', () =>
    inWorld({}, (w) => {
      const file = w.file(6000);
      cache(w, file);
      const conn = wide(w, { acks: false });
      const plain = w.sendfile(conn, file);
      expect(plain.done, 'without SF_SYNC').to.equal(true);
      const call = w.sendfile(conn, file, { flags: SF_SYNC });
      w.pass(20);
      expect(conn.reader.length).to.equal(12_000);
      expect(call.done, 'all arrived, nothing acknowledged').to.equal(false);
      conn.reader.acks = true;
      const before = w.clock.nowNs();
      conn.reader.ackAll();
      expect(w.until(() => call.done)).to.equal(true);
      call.expectDone(0, 6000);
      expect(w.clock.nowNs() - before, 'at least the one-way delay').to.be.at.least(100_000);
    }));

  it('SF_SYNC: with a receiver that does not read, it blocks', () =>
    inWorld({}, (w) => {
      const file = w.file(40_000);
      cache(w, file);
      const conn = wide(w, { window: 4096 });
      const call = w.sendfile(conn, file, { flags: SF_SYNC });
      conn.reader.window = 0;
      w.pass(60_000);
      expect(call.done).to.equal(false);
      expect(vmPageCounts().wiredFile).to.be.above(0);
      conn.reader.window = 65_535;
      expect(w.until(() => call.done, 120_000)).to.equal(true);
      call.expectDone(0, 40_000);
      expect(same(conn.reader.received, file.bytes)).to.equal(true);
      w.settle();
      expect(vmPageCounts().wiredFile).to.equal(0);
    }));

  it('NOTREADY blocking and sbready unit counting: no data overtakes pending data', () =>
    inWorld({}, (w) => {
      const cached = w.file(30_000);
      cache(w, cached);
      w.diskWorks = false;
      const file = w.file(60 * PAGE_SIZE);
      const conn = wide(w);
      const { so_snd: sb } = conn.so;
      // One page of the file is cached; the round is still not ready.
      const one = w.sendfile(conn, file, {
        offset: 3 * PAGE_SIZE,
        nbytes: 100,
        flags: SF_USER_READAHEAD,
      });
      w.disk.complete();
      w.pass(50);
      expect(conn.reader.length).to.equal(100);
      const first = w.sendfile(conn, file, { flags: SF_USER_READAHEAD });
      const second = w.sendfile(conn, cached);
      for (const call of [one, first, second]) expect(call.done).to.equal(true);
      expect(w.disk.pagesPending()).to.deep.equal([32, 28]);
      const size = file.bytes.length;
      const seen = (): number[] => [sb.sb_acc, sb.sb_ccc, conn.reader.length];
      w.pass(50);
      expect(seen()).to.deep.equal([0, size + 30_000, 100]);
      w.disk.complete(1);
      w.pass(50);
      expect(seen(), 'the second read alone releases nothing').to.deep.equal([
        0,
        size + 30_000,
        100,
      ]);
      w.disk.complete();
      expect(sb.sb_acc, 'the first read releases everything').to.equal(sb.sb_ccc);
      w.until(() => conn.reader.length >= 100 + size + 30_000, 10_000);
      const want = [
        file.bytes.subarray(3 * PAGE_SIZE, 3 * PAGE_SIZE + 100),
        file.bytes,
        cached.bytes,
      ];
      expect(same(conn.reader.received, Buffer.concat(want))).to.equal(true);
      w.settle();
      expect([sb.sb_acc, sb.sb_ccc, sb.sb_mbcnt, sb.sb_mcnt, sb.sb_ccnt]).to.deep.equal([
        0, 0, 0, 0, 0,
      ]);
    }));

  it('asynchronous I/O error: the peer receives RST, the next call fails', () =>
    inWorld({}, (w) => {
      w.diskWorks = false;
      const file = w.file(100_000);
      const conn = wide(w);
      const call = w.sendfile(conn, file);
      call.expectDone(0, 100_000);
      w.disk.fail();
      w.disk.completeAll();
      w.until(() => conn.reader.reset, 1000);
      expect(conn.reader).to.include({ reset: true, length: 0 });
      expect(conn.so.so_error).to.equal(EIO);
      w.sendfile(conn, file);
      expect(w.calls.at(-1)!.started || w.calls.at(-1)!.heard[0]!.error).to.not.equal(0);
      expect(soWrite(conn.so, new Uint8Array(1), 0, 1, false)).to.be.oneOf([EPIPE, EIO]);
      expect(mbEmulator.unmappedCurrent).to.equal(0);
      expect(vmPageCounts().wiredFile).to.equal(0);
    }));

  it('mb_unmapped_compress: wired pages stay flat for many small ranges, 225 bytes stay unmapped', () =>
    inWorld({}, (w) => {
      const file = w.file(100 * PAGE_SIZE);
      cache(w, file);
      const conn = wide(w, { acks: false });
      const want: Uint8Array[] = [];
      for (let i = 0; i < 100; i++) {
        const offset = i * PAGE_SIZE + 10 * i;
        const call = w.sendfile(conn, file, { offset, nbytes: 224 });
        want.push(file.bytes.subarray(offset, offset + 224));
        call.expectDone(0, 224);
        expect(vmPageCounts().wiredFile).to.equal(0);
        expect(mbEmulator.unmappedCurrent).to.equal(0);
      }
      w.sendfile(conn, file, { offset: 5, nbytes: 225 });
      want.push(file.bytes.subarray(5, 230));
      expect(vmPageCounts().wiredFile).to.equal(1);
      expect(mbEmulator.unmappedCurrent).to.be.at.least(1);
      conn.reader.acks = true;
      conn.reader.ackAll();
      w.until(() => conn.reader.length >= 100 * 224 + 225, 10_000);
      expect(same(conn.reader.received, Buffer.concat(want))).to.equal(true);
    }));

  it('non-TCP and write() unaffected: no unmapped mbuf is made', () =>
    inWorld({}, (w) => {
      const conn = w.connect();
      const bytes = fileBytes(300_000, 5);
      let off = 0;
      expect(
        w.until(() => {
          if (off < bytes.length && soWrite(conn.so, bytes, off, bytes.length - off, false) === 0)
            off += ioResult.n;
          return conn.reader.length >= bytes.length;
        }),
      ).to.equal(true);
      expect(same(conn.reader.received, bytes)).to.equal(true);
      expect(mbufZones().extpgs.total).to.equal(0);
      const { ext_pgs, emulator } = w.ask('netstat', { report: 'm' }) as NetstatM;
      expect(ext_pgs.current).to.equal(0);
      expect(emulator.unmapped_mbufs_current).to.equal(0);
    }));

  it('SF_NOCACHE, readahead, NODISKIO: the counters of kern.ipc.sfstat; writing resets them', () =>
    inWorld({}, (w) => {
      const sfstat = (): number[] =>
        (w.ask('sysctl', { name: 'kern.ipc.sfstat' }) as SysctlLeaf[])[0]!
          .value as unknown as number[];
      const counts = (): Record<string, number> => {
        const [syscalls, noio, io, read, valid, rhwanted, rhread, busy, fail, wait, bogus] =
          sfstat();
        return {
          syscalls,
          noio,
          io,
          read,
          valid,
          rhwanted,
          rhread,
          busy,
          fail,
          wait,
          bogus,
        } as Record<string, number>;
      };
      const file = w.file(20 * PAGE_SIZE);
      const conn = wide(w);
      w.diskWorks = false;
      w.sendfile(conn, file, { nbytes: 2 * PAGE_SIZE, flags: SF_FLAGS(3, SF_USER_READAHEAD) });
      expect(counts()).to.include({ syscalls: 1, io: 1, read: 2, rhwanted: 3, rhread: 3 });
      w.disk.completeAll();
      // Pages 2 to 4 are cached; page 5 is being read for another call.
      const other = wide(w, { sport: 40_001 });
      w.sendfile(other, file, { offset: 5 * PAGE_SIZE, nbytes: 10, flags: SF_USER_READAHEAD });
      const partial = w.sendfile(conn, file, { offset: 2 * PAGE_SIZE, flags: SF_NODISKIO });
      partial.expectDone(EBUSY, 3 * PAGE_SIZE);
      expect(counts()).to.include({ syscalls: 3, noio: 1, io: 2, read: 3, valid: 3, busy: 1 });
      w.disk.completeAll();
      w.settle();
      expect(w.ask('sysctl', { name: 'kern.ipc.sfstat', value: '0' })).to.be.an('array');
      expect(sfstat()).to.deep.equal(Array.from({ length: 11 }, () => 0));
      // With SF_NOCACHE, acknowledged pages are freed instead of cached.
      const before = vmPageCounts().cached;
      const nocache = w.sendfile(conn, file, {
        offset: 10 * PAGE_SIZE,
        nbytes: 5 * PAGE_SIZE,
        flags: SF_NOCACHE | SF_USER_READAHEAD,
      });
      w.disk.completeAll();
      w.settle();
      nocache.expectDone(0, 5 * PAGE_SIZE);
      expect(counts()).to.include({ syscalls: 1, io: 1, read: 5, valid: 0 });
      w.sendfile(conn, file, {
        offset: 10 * PAGE_SIZE,
        nbytes: 5 * PAGE_SIZE,
        flags: SF_USER_READAHEAD,
      });
      expect(counts()).to.include({ syscalls: 2 });
      expect(vmPageCounts().cached).to.be.at.most(before + 5);
      w.disk.completeAll();
    }));
});
