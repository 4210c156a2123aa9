/** Features of the conversion in ip6_output: the rows of ip.test.ts and device.test.ts over IPv6. */

import { expect } from 'chai';
import { m_gethdr } from '../../src/kern/kern_mbuf.ts';
import { CSUM_UDP_IPV6, type Mbuf, M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import { AF_INET6 } from '../../src/kern/protosw.ts';
import { m_copym } from '../../src/kern/uipc_mbuf.ts';
import { soconnect } from '../../src/kern/uipc_socket.ts';
import { ip6_output } from '../../src/netinet6/ip6_output.ts';
import { Ip6Pktopts, ip6stat, IPV6_DONTFRAG } from '../../src/netinet6/ip6_var.ts';
import { EMSGSIZE, ENOBUFS } from '../../src/sys/errno.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { inPass } from '../../src/sys/pass.ts';
import { mem } from '../../src/vm/arena.ts';
import { must } from '../kern/chains.ts';
import { expectSame } from '../kern/sendfile_rig.ts';
import { sin6 } from '../netinet6/pair.ts';
import { tcpSocket } from '../sim/endpoint.ts';
import { naiveSum } from '../support/frames.ts';
import { buildIp6, decode6, HOST_ADDR6, ip6, pseudo6, READER_ADDR6 } from '../support/six.ts';
import { assertCleanCapture, tsharkFields } from '../support/tshark.ts';
import { type Conn, inWorld, inWorldAsync, type World, type WorldFile } from '../support/world.ts';
import {
  chainOf,
  cpuReads,
  expectAllReleased,
  expectArrives,
  expectArrivesLocally,
  isUnmapped,
} from './rows.ts';

const UDP = 17;
const addrs = { src: HOST_ADDR6, dst: READER_ADDR6 };
const be16 = (n: number): number[] => [(n >>> 8) & 255, n & 255];

/** Payload bytes of the TCP segments that the host sent, as in the frames. */
function payloads(w: World): number[] {
  return w.port.frames
    .filter((f) => f[12] === 0x86 && f[20] === 6)
    .map((f) => f.length - 54 - (f[66]! >>> 4) * 4)
    .filter((n) => n > 0);
}

/** A connection whose send buffer holds `n` unmapped bytes of a file, none of them sent. */
function stalled(w: World, n: number): { conn: Conn; file: WorldFile } {
  const conn = w.connect({ window: 0 });
  const file = w.file(n);
  w.sendfile(conn, file);
  w.pass(1);
  expect(chainOf(conn).unmapped).to.be.above(0);
  w.port.frames.length = 0;
  return { conn, file };
}

/**
 * A datagram whose payload is the first `len` bytes of the send buffer. `sum`: the checksum is left to
 * the NIC. `sport` is the source port.
 */
function datagram(conn: Conn, len: number, sum: boolean, sport = 9): Mbuf {
  const m = must(m_gethdr(M_NOWAIT, MT_DATA));
  const pseudo = sum ? pseudo6(ip6(HOST_ADDR6), ip6(READER_ADDR6), UDP, len + 8) : 0;
  const udp = [...be16(sport), 0x30, 0x39, ...be16(len + 8), ...be16(pseudo)];
  const head = buildIp6({ ...addrs, plen: len + 8 }, UDP, udp);
  m.m_data += 16;
  mem.set(head, m.m_data);
  m.m_len = head.length;
  m.m_pkthdr.len = head.length + len;
  if (sum) {
    m.m_pkthdr.csum_flags = CSUM_UDP_IPV6;
    m.m_pkthdr.csum_data = 6;
  }
  m.m_next = must(m_copym(must(conn.so.so_snd.sb_mb), 0, len, M_NOWAIT));
  expect(isUnmapped(m.m_next)).to.equal(true);
  return m;
}

function output(w: World, m: Mbuf, opt: Ip6Pktopts | null = null, flags = 0): number {
  const error = inPass(() => ip6_output(m, opt, null, flags, null, w.vnet));
  w.pass(2);
  return error;
}

describe('unmapped mbufs: IPv6 output', function () {
  // Each start of tshark takes seconds on a loaded machine.
  this.timeout(120_000);

  it('conversion in ip_output, IPv6', () => {
    const runs = [[], ['-nomap'], ['-txcsum6'], ['-nomap', '-txcsum6']].map((off) => {
      const run = { off, conversions: 0, carrying: 0, frames: [] as Uint8Array[] };
      inWorld({ six: true, caps: ['-tso6', ...off] }, (w) => {
        expectArrives(w, w.file(200_000));
        run.conversions = w.m.emulator.conversions;
        // tcp_output copies smaller payloads into the header mbuf.
        run.carrying = payloads(w).filter((n) => n > 80).length;
        run.frames = w.port.frames;
      });
      return run;
    });
    const [both] = runs;
    expect(both!.conversions, 'NOMAP and TXCSUM_IPV6').to.equal(0);
    for (const { off, conversions, carrying, frames } of runs) {
      if (off.length > 0) expect(conversions, off.join(' ')).to.equal(carrying).and.above(130);
      // The frames on the wire must be identical in all four runs.
      expect(frames.length).to.equal(both!.frames.length);
      frames.forEach((frame, i) => expectSame(frame, both!.frames[i]!));
    }
  });

  it('conversion failure, IPv6', () => {
    for (const k of [1, 7])
      inWorld({ six: true, caps: ['-nomap'] }, (w) => {
        const file = w.file(200_000);
        expectArrives(w, file);
        w.settle();
        const conn = w.connect();
        const stat = ip6stat(w.vnet);
        const before = { dropped: stat.ip6s_odropped, failed: w.m.emulator.conversion_failures };
        failPoint('sf_buf').arm(k, 3);
        expectSame(w.transfer(conn, file), file.bytes);
        failPoint('sf_buf').disarm();
        const failed = w.m.emulator.conversion_failures - before.failed;
        expect(failed).to.be.above(0);
        expect(stat.ip6s_odropped - before.dropped).to.equal(failed);
        w.settle();
        expectAllReleased(w);
      });
    // A packet that is to be fragmented is freed once, too.
    inWorld({ six: true, caps: ['-nomap'] }, (w) => {
      const { conn } = stalled(w, 30_000);
      failPoint('sf_buf').arm(2, 1);
      expect(output(w, datagram(conn, 7000, true))).to.equal(ENOBUFS);
      failPoint('sf_buf').disarm();
      expect(ip6stat(w.vnet).ip6s_odropped).to.equal(1);
    });
  });

  it('software checksum, IPv6', async () => {
    // A computed 0 is sent as ffff. The source port is chosen to make the sum 0.
    inWorld({ six: true, caps: ['-txcsum6'] }, (w) => {
      const { conn, file } = stalled(w, 30_000);
      const data = [...file.bytes.subarray(0, 1000)];
      const pseudo = pseudo6(ip6(HOST_ADDR6), ip6(READER_ADDR6), UDP, 1008);
      const rest = [...be16(pseudo), 0, 0, 0x30, 0x39, ...be16(1008), 0, 0, ...data];
      const m = datagram(conn, 1000, true, 0xffff - naiveSum(rest));
      expect(output(w, m)).to.equal(0);
      const frame = w.port.frames.find((bytes) => bytes[20] === UDP)!;
      expect([frame[60], frame[61]]).to.deep.equal([0xff, 0xff]);
      expectSame(decode6(frame).body.subarray(8), file.bytes.subarray(0, 1000));
    });
    // With extension headers the NIC computes nothing, whatever it offers.
    inWorld({ six: true }, (w) => {
      const { conn, file } = stalled(w, 30_000);
      const opt = new Ip6Pktopts();
      opt.ip6po_hbh = Uint8Array.from([0, 0, 1, 4, 0, 0, 0, 0]);
      opt.ip6po_dest2 = Uint8Array.from([0, 1, 1, 12, ...Array.from({ length: 12 }, () => 0)]);
      const { conversions } = w.m.emulator;
      expect(output(w, datagram(conn, 1000, true), opt)).to.equal(0);
      expect(w.m.emulator.conversions - conversions).to.equal(1);
      const { nxt, body, src, dst } = decode6(w.port.frames.at(-1)!);
      expect([nxt, body[0], body[8]]).to.deep.equal([0, 60, UDP]);
      const udp = body.subarray(24);
      const sum = naiveSum([...be16(pseudo6(src, dst, UDP, udp.length)), ...udp]);
      expect(sum, 'the length of the pseudo-header has no extension headers').to.equal(0xffff);
      expectSame(udp.subarray(8), file.bytes.subarray(0, 1000));
    });
    for (const caps of [[], ['-nomap'], ['-txcsum6'], ['-nomap', '-txcsum6']])
      await inWorldAsync({ six: true, caps: ['-tso6', ...caps] }, async (w) => {
        const file = w.file(150_100);
        expectArrives(w, file);
        expect(cpuReads(w, 'small'), caps.join(' ')).to.equal(
          caps.includes('-txcsum6') ? file.bytes.length : 0,
        );
        await w.withPcap(async (pcap) => {
          const counts = await assertCleanCapture(pcap, { mtu: 1500 });
          expect(counts.tcpPayload).to.equal(file.bytes.length);
        });
      });
  });

  it('IP fragmentation with unmapped payload, IPv6', async () => {
    /** Payload bytes of the datagram. */
    const LEN = 7000;
    for (const sum of [false, true])
      await inWorldAsync({ six: true }, async (w) => {
        const { conn, file } = stalled(w, 30_000);
        const before = w.m.emulator;
        expect(output(w, datagram(conn, LEN, sum))).to.equal(0);
        // The NIC cannot compute a checksum over fragments, so a packet with a pending checksum is
        // converted first.
        expect(w.m.emulator.conversions - before.conversions).to.equal(sum ? 1 : 0);
        expect(cpuReads(w)).to.equal(sum ? LEN : 0);
        const pieces = w.port.frames.map((f) => decode6(f)).filter(({ nxt }) => nxt === 44);
        const offlg = pieces.map(({ body }) => (body[2]! << 8) | body[3]!);
        expect(offlg).to.deep.equal([1, 1449, 2897, 4345, 5792]);
        expect(new Set(pieces.map(({ body }) => body.subarray(4, 8).join())).size).to.equal(1);
        const got = Buffer.concat(pieces.map(({ body }) => body.subarray(8)));
        expectSame(got.subarray(8), file.bytes.subarray(0, LEN));
        expect(ip6stat(w.vnet).ip6s_ofragments).to.equal(5);
        expect(ip6stat(w.vnet).ip6s_fragmented).to.equal(1);
        await w.withPcap(async (pcap) => {
          const whole = await tsharkFields(
            pcap,
            ['udp.length', 'udp.checksum.status'],
            'udp && ipv6.fragment',
          );
          expect(whole[0]![0], 'reassembled by tshark').to.equal(String(LEN + 8));
          if (sum) expect(whole[0]![1]).to.equal('1');
        });
      });
    // IPV6_DONTFRAG.
    inWorld({ six: true }, (w) => {
      const { conn } = stalled(w, 30_000);
      expect(output(w, datagram(conn, LEN, true), null, IPV6_DONTFRAG)).to.equal(EMSGSIZE);
      expect(ip6stat(w.vnet).ip6s_cantfrag).to.equal(1);
    });
  });

  it('loopback / bridge / tap-like peers, IPv6', () => {
    for (const to of ['::1', HOST_ADDR6])
      inWorld({ six: true }, (w) => {
        const so = tcpSocket(w.vnet, AF_INET6);
        expect(inPass(soconnect, so, sin6(to, 80))).to.equal(0);
        expectArrivesLocally(w, so);
      });
  });
});
