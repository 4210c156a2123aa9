/** Features of the conversion in ip_output, and of TCP and IP output with unmapped mbufs. */

import { expect } from 'chai';
import { m_copym } from '../../src/kern/uipc_mbuf.ts';
import { m_gethdr } from '../../src/kern/kern_mbuf.ts';
import {
  CSUM_IP_TSO,
  CSUM_TCP,
  CSUM_UDP,
  type Mbuf,
  M_NOWAIT,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import { ip_output } from '../../src/netinet/ip_output.ts';
import { EMSGSIZE } from '../../src/sys/errno.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { inPass } from '../../src/sys/pass.ts';
import { mem } from '../../src/vm/arena.ts';
import { must } from '../kern/chains.ts';
import { expectSame } from '../kern/sendfile_rig.ts';
import { buildIp4, buildTcp, decodeFrame, naiveSum } from '../support/frames.ts';
import { HOST_ADDR, READER_ADDR } from '../support/reader.ts';
import { assertCleanCapture, tsharkFields } from '../support/tshark.ts';
import { type Conn, inWorld, inWorldAsync, type World, type WorldFile } from '../support/world.ts';
import {
  chainOf,
  cpuReads,
  dataFrames,
  expectAllReleased,
  expectArrives,
  isUnmapped,
} from './rows.ts';

/**
 * Largest payload that tcp_output copies into the header mbuf: MHLEN - max_linkhdr - 52 bytes of
 * headers.
 */
const COPIED_MAX = 100;

/** A packet of `head` and the first `len` bytes of a send buffer that holds unmapped mbufs. */
function packetOver(conn: Conn, head: Uint8Array, len: number): Mbuf {
  const m = must(m_gethdr(M_NOWAIT, MT_DATA));
  m.m_data += 16;
  mem.set(head, m.m_data);
  m.m_len = head.length;
  m.m_pkthdr.len = head.length + len;
  m.m_next = must(m_copym(must(conn.so.so_snd.sb_mb), 0, len, M_NOWAIT));
  expect(isUnmapped(m.m_next)).to.equal(true);
  return m;
}

/**
 * A connection whose send buffer holds `n` unmapped bytes of a file. The peer's window is 0, so
 * none is sent.
 */
function stalled(w: World, n: number): { conn: Conn; file: WorldFile } {
  const conn = w.connect({ window: 0 });
  const file = w.file(n);
  w.sendfile(conn, file);
  w.pass(1);
  expect(chainOf(conn).unmapped).to.be.above(0);
  w.port.frames.length = 0;
  return { conn, file };
}

function output(w: World, m: Mbuf): number {
  const error = inPass(() => ip_output(m, null, 0, w.vnet));
  w.pass(2);
  return error;
}

describe('unmapped mbufs: IP and TCP output', function () {
  // Each start of tshark takes seconds on a loaded machine.
  this.timeout(120_000);

  it('conversion in ip_output', () => {
    const runs = [[], ['-nomap'], ['-txcsum'], ['-nomap', '-txcsum']].map((off) => {
      const run = { off, conversions: 0, carrying: 0, frames: [] as Uint8Array[] };
      inWorld({ caps: ['-tso4', ...off] }, (w) => {
        const file = w.file(200_000);
        expectArrives(w, file);
        run.conversions = w.m.emulator.conversions;
        // Without TSO each packet is one frame.
        const sizes = dataFrames(w).map((f) => f.ip!.tcp!.payload.length);
        run.carrying = sizes.filter((n) => n > COPIED_MAX).length;
        run.frames = w.port.frames;
      });
      return run;
    });
    const [both] = runs;
    expect(both!.conversions, 'NOMAP and TXCSUM').to.equal(0);
    for (const { off, conversions, carrying, frames } of runs) {
      if (off.length > 0) expect(conversions, off.join(' ')).to.equal(carrying).and.above(130);
      // The frames on the wire must be identical in all four runs.
      expect(frames.length).to.equal(both!.frames.length);
      frames.forEach((frame, i) => expectSame(frame, both!.frames[i]!));
    }
    // ip_output checks the capabilities of the interface for each packet, so a change takes effect
    // during a transfer.
    inWorld({ caps: ['-tso4'] }, (w) => {
      const file = w.file(600_000);
      const conn = w.connect();
      w.sendfile(conn, file);
      w.until(() => conn.reader.length > 100_000);
      expect(w.m.emulator.conversions).to.equal(0);
      w.ifconfig('-nomap');
      w.until(() => conn.reader.length > 300_000);
      const some = w.m.emulator.conversions;
      expect(some).to.be.above(50);
      w.ifconfig('nomap');
      w.until(() => conn.reader.length === file.bytes.length);
      expect(w.m.emulator.conversions - some, 'conversions after nomap').to.be.below(2);
      expectSame(conn.reader.received, file.bytes);
    });
  });

  it('conversion failure', () => {
    for (const [pool, k] of [
      ['sf_buf', 1],
      ['sf_buf', 7],
      ['mbuf', 40],
    ] as const)
      inWorld({ caps: ['-nomap'] }, (w) => {
        const file = w.file(200_000);
        expectArrives(w, file);
        w.settle();
        const conn = w.connect();
        const before = {
          dropped: w.stat('ip', 'ips_odropped'),
          failed: w.m.emulator.conversion_failures,
        };
        failPoint(pool).arm(k, pool === 'mbuf' ? 1 : 3);
        expectSame(w.transfer(conn, file), file.bytes);
        failPoint(pool).disarm();
        expect(failPoint(pool).fired).to.be.above(0);
        if (pool === 'sf_buf') {
          expect(w.m.emulator.conversion_failures - before.failed).to.be.above(0);
          expect(w.stat('ip', 'ips_odropped') - before.dropped).to.equal(
            w.m.emulator.conversion_failures - before.failed,
          );
        }
        w.settle();
        expectAllReleased(w);
      });
  });

  it('TSO exception', () => {
    inWorld({}, (w) => {
      const before = w.m.emulator.dma.loads;
      expectArrives(w, w.file(300_000));
      const sizes = dataFrames(w).map((f) => f.ip!.tcp!.payload.length);
      expect(Math.max(...sizes), 'the NIC cuts to the MSS').to.equal(1448);
      expect(w.m.emulator.dma.loads - before, 'fewer packets than frames').to.be.below(
        sizes.length / 4,
      );
    });
    // A TAP in mode vnet receives the super-frame itself, with the checksum of the pseudo-header.
    inWorld({ mode: 'vnet' }, (w) => {
      expectArrives(w, w.file(300_000));
      const sizes = dataFrames(w).map((f) => f.ip!.tcp!.payload.length);
      expect(Math.max(...sizes)).to.be.above(20_000);
      const big = w.port.frames.findIndex((f) => f.length > 20_000);
      expect(w.port.vnetHeaders[big]![0]! & 1, 'NEEDS_CSUM').to.equal(1);
      expect(w.port.vnetHeaders[big]![1]! & 0x7f, 'GSO TCPv4').to.equal(1);
      expect(() => decodeFrame(w.port.frames[big]!, { l4: 'pseudo' })).not.to.throw();
    });
    // Without TSO on the interface, the same packet is too big: IP returns EMSGSIZE and does not
    // fragment it.
    for (const [caps, error] of [
      [[], 0],
      [['-tso4'], EMSGSIZE],
    ] as const)
      inWorld({ caps: [...caps] }, (w) => {
        const { conn, file } = stalled(w, 30_000);
        const ip = { src: HOST_ADDR, dst: READER_ADDR, df: true };
        const head = buildTcp(ip, { sport: 80, dport: 9, flags: '.' }).subarray(0, 40);
        const m = packetOver(conn, head, 20_000);
        new DataView(mem.buffer).setUint16(m.m_data + 2, 20_040);
        m.m_pkthdr.csum_flags = CSUM_TCP | CSUM_IP_TSO;
        m.m_pkthdr.csum_data = 16;
        m.m_pkthdr.tso_segsz = 1000;
        // The checksum field holds the sum of the pseudo-header, with the length of the whole
        // segment.
        const pseudo = naiveSum([192, 0, 2, 2, 192, 0, 2, 1, 0, 6, 20_020 >> 8, 20_020 & 0xff]);
        new DataView(mem.buffer).setUint16(m.m_data + 36, pseudo);
        const before = w.stat('ip', 'ips_cantfrag');
        expect(output(w, m), caps.join()).to.equal(error);
        expect(w.stat('ip', 'ips_cantfrag') - before).to.equal(error === 0 ? 0 : 1);
        const sent = Buffer.concat(dataFrames(w).map((f) => f.ip!.tcp!.payload));
        expectSame(sent, error === 0 ? file.bytes.subarray(0, 20_000) : new Uint8Array(0));
      });
  });

  it('IP fragmentation with unmapped payload', async () => {
    /** Payload bytes of the UDP datagram. */
    const LEN = 7000;
    for (const summed of [false, true])
      await inWorldAsync({}, async (w) => {
        const { conn, file } = stalled(w, 30_000);
        const payload = file.bytes.subarray(0, LEN);
        const udp = [0, 9, 0x30, 0x39, (LEN + 8) >> 8, (LEN + 8) & 0xff, 0, 0];
        const ip = { src: HOST_ADDR, dst: READER_ADDR, len: LEN + 28 };
        const m = packetOver(conn, buildIp4(ip, 17, udp), LEN);
        if (summed) {
          m.m_pkthdr.csum_flags = CSUM_UDP;
          m.m_pkthdr.csum_data = 6;
          const pseudo = [192, 0, 2, 2, 192, 0, 2, 1, 0, 17, udp[4]!, udp[5]!];
          new DataView(mem.buffer).setUint16(m.m_data + 26, naiveSum(pseudo));
        }
        const before = w.m.emulator;
        expect(output(w, m)).to.equal(0);
        // The NIC cannot compute a checksum over fragments, so a packet with a pending checksum is
        // converted first.
        expect(w.m.emulator.conversions - before.conversions).to.equal(summed ? 1 : 0);
        expect(cpuReads(w)).to.equal(summed ? LEN : 0);
        const pieces = w.port.frames.map((f) => decodeFrame(f)).filter((f) => f.ip?.proto === 17);
        expect(pieces.map((f) => f.ip!.fragOff)).to.deep.equal([0, 1480, 2960, 4440, 5920]);
        const got = Buffer.concat(pieces.map((f) => f.ip!.payload));
        expectSame(got.subarray(8), payload);
        expect(w.stat('ip', 'ips_ofragments')).to.equal(5);
        await w.withPcap(async (pcap) => {
          const whole = await tsharkFields(
            pcap,
            ['udp.length', 'udp.checksum.status'],
            'udp && ip.fragment',
          );
          expect(whole, 'reassembled by tshark').to.deep.equal([
            [String(LEN + 8), summed ? '1' : '3'],
          ]);
        });
      });
  });

  it('TCP small segments', () => {
    for (const [window, copied] of [
      [COPIED_MAX, true],
      [COPIED_MAX + 1, false],
    ] as const)
      inWorld({ caps: ['-nomap'] }, (w) => {
        // Each segment is as long as the reader's window.
        const conn = w.connect({ window });
        const file = w.file(4000);
        expectSame(w.transfer(conn, file), file.bytes);
        const full = conn.reader.segments.filter((n) => n === window).length;
        expect(full).to.be.above(30);
        const { conversions, payload_bytes_read } = w.m.emulator;
        if (copied) {
          expect(conversions, 'no packet carried an unmapped mbuf').to.equal(0);
          expect(payload_bytes_read.small).to.be.at.least(4000);
        } else expect(conversions).to.be.at.least(full);
      });
  });

  it('retransmission', () => {
    inWorld({ memory: 16 << 20 }, (w) => {
      const file = w.file(300_000);
      const conn = w.connect();
      // Drop every fifth of the first 200 data frames.
      let n = 0;
      w.link.ab.filter = (frame): boolean => frame.length < 200 || n > 200 || ++n % 5 !== 0;
      const call = w.sendfile(conn, file);
      w.until(() => conn.reader.length > 50_000);
      const held = w.m.emulator.pages.wired_file;
      expect(held, 'pages stay wired until acknowledged').to.be.above(0);
      const unacked = w.line(conn).sendq;
      expect(held * 4096).to.be.at.least(unacked);
      // Meanwhile send other files, so that the cache reuses its pages.
      for (let i = 0; i < 3; i++) {
        const other = w.file(5_000_000);
        expectArrives(w, other);
      }
      expect(w.until(() => conn.reader.length === file.bytes.length)).to.equal(true);
      expectSame(conn.reader.received, file.bytes);
      call.expectDone(0, file.bytes.length);
      expect(w.stat('tcp', 'tcps_sndrexmitpack')).to.be.above(10);
      w.link.ab.filter = null;
      w.settle();
      expectAllReleased(w);
    });
  });

  it('software checksum', async () => {
    // A UDP checksum field of 0 means no checksum, so a computed 0 is sent as ffff. The source port
    // is chosen to make the sum 0.
    inWorld({ caps: ['-txcsum'] }, (w) => {
      const { conn, file } = stalled(w, 30_000);
      const LEN = 1000;
      const length = [(LEN + 8) >> 8, (LEN + 8) & 0xff];
      const pseudo = [192, 0, 2, 2, 192, 0, 2, 1, 0, 17, ...length];
      const data = [...file.bytes.subarray(0, LEN)];
      const sport = 0xffff - naiveSum([...pseudo, 0, 0, 0, 9, ...length, 0, 0, ...data]);
      const udp = [sport >> 8, sport & 0xff, 0, 9, ...length, 0, 0];
      const ip = { src: HOST_ADDR, dst: READER_ADDR, len: LEN + 28 };
      const m = packetOver(conn, buildIp4(ip, 17, udp), LEN);
      m.m_pkthdr.csum_flags = CSUM_UDP;
      m.m_pkthdr.csum_data = 6;
      new DataView(mem.buffer).setUint16(m.m_data + 26, naiveSum(pseudo));
      expect(output(w, m)).to.equal(0);
      const frame = w.port.frames.find((bytes) => bytes[23] === 17)!;
      expect([frame[40], frame[41]]).to.deep.equal([0xff, 0xff]);
      expectSame(decodeFrame(frame).ip!.udp!.payload, file.bytes.subarray(0, LEN));
    });
    for (const caps of [[], ['-nomap'], ['-txcsum'], ['-nomap', '-txcsum']])
      await inWorldAsync({ caps }, async (w) => {
        const file = w.file(150_000);
        expectArrives(w, file);
        expect(cpuReads(w, 'small'), caps.join(' ')).to.equal(
          caps.includes('-txcsum') ? file.bytes.length : 0,
        );
        await w.withPcap(async (pcap) => {
          const counts = await assertCleanCapture(pcap, { mtu: 1500 });
          expect(counts.tcpPayload).to.equal(file.bytes.length);
        });
      });
  });
});
