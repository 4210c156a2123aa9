/** Features of the storage of unmapped mbufs, and of the calls that create them. */

import { expect } from 'chai';
import { sosend } from '../../src/kern/uipc_socket.ts';
import { MBUF_PEXT_MAX_PGS } from '../../src/kern/mbuf.ts';
import { IPPROTO_UDP } from '../../src/kern/protosw.ts';
import { inPass } from '../../src/sys/pass.ts';
import { UIO_WRITE, Uio } from '../../src/vm/uio.ts';
import { fileBytes } from '../kern/disk.ts';
import { expectSame, npgsOf, sndMbufs } from '../kern/sendfile_rig.ts';
import { connectedSocket, Peer, TestProto, testVnet } from '../kern/testproto.ts';
import { soclose } from '../../src/kern/uipc_socket.ts';
import { type Conn, inWorld, type World } from '../support/world.ts';
import { chainOf, dataFrames, expectAllReleased, expectArrives, zone } from './rows.ts';

/** A connection whose send buffer takes `n` bytes at once, and whose reader acknowledges nothing. */
function held(w: World, n: number): Conn {
  const conn = w.connect({ acks: false });
  conn.so.so_snd.sb_hiwat = n;
  conn.so.so_snd.sb_mbmax = 8 * n;
  return conn;
}

describe('unmapped mbufs: storage', () => {
  it('EXT_PGS storage', () => {
    inWorld({}, (w) => {
      const before = zone(w, 'mbuf_extpgs');
      expect(before).to.include({ size: 256, used: 0 });
      const conn = held(w, 200_000);
      const file = w.file(150_000);
      const call = w.sendfile(conn, file);
      w.pass(5);
      // 37 pages take one mbuf of 19 pages, the maximum, and one of 18.
      expect(MBUF_PEXT_MAX_PGS).to.equal(19);
      expect(sndMbufs(conn.so).map(npgsOf)).to.deep.equal([19, 18]);
      expect(zone(w, 'mbuf_extpgs').used, 'shadows share the page lists').to.equal(2);
      expect(w.m.ext_pgs.current).to.equal(2);
      expect(w.m.emulator.unmapped_mbufs_current, 'including shadows in flight').to.be.at.least(2);
      expect(w.m.emulator.pages.wired_file).to.equal(37);
      conn.reader.ackAll();
      expect(w.until(() => conn.reader.length === file.bytes.length)).to.equal(true);
      w.settle();
      call.expectDone(0, 150_000);
      expect(zone(w, 'mbuf_extpgs')).to.include({ used: 0, requests: before.requests + 2 });
      expectAllReleased(w);
      expectSame(conn.reader.received, file.bytes);
    });
  });

  it('master switch `kern.ipc.mb_use_ext_pgs`', () => {
    const payloads: Uint8Array[] = [];
    for (const value of ['0', '1'])
      inWorld({}, (w) => {
        w.ask('sysctl', { name: 'kern.ipc.mb_use_ext_pgs', value });
        const conn = held(w, 200_000);
        const file = w.file(19 * 4096 * 2);
        w.sendfile(conn, file);
        w.pass(5);
        if (value === '0') {
          expect(chainOf(conn)).to.deep.equal({ mbufs: 38, unmapped: 0, sfbuf: 38 });
          expect(zone(w, 'mbuf_extpgs')).to.include({ used: 0, requests: 0 });
        } else {
          expect(chainOf(conn), '19 times shorter').to.deep.equal({
            mbufs: 2,
            unmapped: 2,
            sfbuf: 0,
          });
        }
        // The switch is read at every round: queued mbufs stay as they are, new mbufs are of the
        // other kind.
        w.ask('sysctl', { name: 'kern.ipc.mb_use_ext_pgs', value: value === '0' ? '1' : '0' });
        const small = w.file(8192);
        w.sendfile(conn, small);
        w.pass(5);
        const { unmapped, sfbuf } = chainOf(conn);
        expect([unmapped, sfbuf]).to.deep.equal(value === '0' ? [1, 38] : [2, 2]);
        conn.reader.ackAll();
        const total = file.bytes.length + small.bytes.length;
        expect(w.until(() => conn.reader.length === total)).to.equal(true);
        payloads.push(Buffer.concat(dataFrames(w).map((f) => f.ip!.tcp!.payload)));
        expectSame(conn.reader.received, Buffer.concat([file.bytes, small.bytes]));
      });
    expectSame(payloads[0]!, payloads[1]!);
  });

  it('non-TCP and write() unaffected', () => {
    inWorld({}, (w) => {
      const conn = held(w, 1 << 20);
      const bytes = fileBytes(500_000, 5);
      inPass(() => {
        const uio = new Uio().single(bytes, 0, bytes.length, UIO_WRITE);
        expect(sosend(conn.so, uio, null, 0)).to.equal(0);
      });
      w.pass(5);
      expect(chainOf(conn).unmapped).to.equal(0);
      conn.reader.ackAll();
      expect(w.until(() => conn.reader.length === bytes.length)).to.equal(true);
      expectSame(conn.reader.received, bytes);
      // A stream socket of another protocol, such as a UNIX-domain socket.
      const so = connectedSocket(200_000, testVnet(new TestProto(IPPROTO_UDP)));
      const file = w.file(100_000);
      const call = w.sendfile({ so }, file);
      w.pass(5);
      call.expectDone(0, 100_000);
      expect(chainOf({ so, reader: conn.reader })).to.deep.equal({
        mbufs: 25,
        unmapped: 0,
        sfbuf: 25,
      });
      const peer = new Peer(so);
      peer.take();
      expectSame(peer.received, file.bytes);
      soclose(so);
      expect(zone(w, 'mbuf_extpgs')).to.include({ used: 0, requests: 0 });
      // TCP uses unmapped mbufs for the same file.
      expectArrives(w, file);
      expect(zone(w, 'mbuf_extpgs').requests).to.be.above(0);
    });
  });

  it('socket accounting', () => {
    inWorld({}, (w) => {
      const conn = held(w, 1 << 20);
      const file = w.file(150_000);
      w.sendfile(conn, file);
      w.pass(5);
      // Each mbuf is charged 256 bytes and a whole page for each of its pages.
      expect(w.line(conn)).to.include({
        sendq: 150_000,
        send_mbufs: 2,
        send_clusters: 2,
        send_ext_pgs: 2,
        send_mbcnt: 2 * 256 + 37 * 4096,
      });
      conn.reader.ackAll();
      w.until(() => conn.reader.length === file.bytes.length);
      w.settle();
      expect(w.line(conn)).to.include({
        sendq: 0,
        send_mbufs: 0,
        send_clusters: 0,
        send_ext_pgs: 0,
        send_mbcnt: 0,
      });
    });
    // The charge of one full unmapped mbuf, and of the same pages in one mbuf each.
    for (const [useExtPgs, mbufs, mbcnt] of [
      [true, 1, 78_080],
      [false, 19, 82_688],
    ] as const)
      inWorld({ useExtPgs }, (w) => {
        const conn = held(w, 1 << 20);
        w.sendfile(conn, w.file(19 * 4096));
        w.pass(5);
        expect(w.line(conn)).to.include({
          send_mbufs: mbufs,
          send_clusters: mbufs,
          send_mbcnt: mbcnt,
        });
      });
  });

  it('mb_unmapped_compress', () => {
    inWorld({}, (w) => {
      const file = w.file(64 * 4096);
      expectArrives(w, file);
      w.settle();
      const conn = w.connect({ acks: false, window: 1 << 20 });
      const sent: Uint8Array[] = [];
      // Send 64 ranges of 224 bytes, each on another page: each becomes a plain mbuf.
      for (let i = 0; i < 64; i++) {
        const offset = i * 4096 + 100;
        w.sendfile(conn, file, { offset, nbytes: 224 });
        sent.push(file.bytes.subarray(offset, offset + 224));
      }
      w.pass(2);
      expect(conn.so.so_snd.sb_ccc, 'nothing is acknowledged').to.equal(64 * 224);
      expect(chainOf(conn).unmapped).to.equal(0);
      expect(w.m.emulator.pages.wired_file, 'wired pages stay flat').to.equal(0);
      expect(w.m.emulator.unmapped_mbufs_current).to.equal(0);
      // A range of 225 bytes stays unmapped.
      w.sendfile(conn, file, { offset: 100, nbytes: 225 });
      sent.push(file.bytes.subarray(100, 325));
      w.pass(2);
      expect(chainOf(conn).unmapped).to.equal(1);
      expect(w.m.emulator.pages.wired_file).to.equal(1);
      conn.reader.ackAll();
      const want = Buffer.concat(sent);
      expect(w.until(() => conn.reader.length === want.length)).to.equal(true);
      expectSame(conn.reader.received, want);
      // The same happens at ready time, when the page must be read from the disk first.
      w.diskWorks = false;
      const cold = w.file(4096);
      const late = w.connect({ acks: false });
      w.sendfile(late, cold, { nbytes: 200 });
      expect(chainOf(late).unmapped, 'unmapped until the read ends').to.equal(1);
      expect(w.line(late).send_mbcnt).to.equal(256 + 4096);
      w.disk.completeAll();
      w.pass(2);
      expect(chainOf(late).unmapped).to.equal(0);
      expect(w.line(late)).to.include({ sendq: 200, send_clusters: 0, send_mbcnt: 256 });
      expect(w.m.emulator.pages.wired_file).to.equal(0);
      late.reader.ackAll();
    });
  });
});
