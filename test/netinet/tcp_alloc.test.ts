/**
 * The bulk paths allocate no garbage. Segments go straight into tcp_input; the interface frees what
 * is sent.
 */

import { expect } from 'chai';
import { m_freem, m_getcl, m_gethdr } from '../../src/kern/kern_mbuf.ts';
import {
  CSUM_DATA_VALID,
  CSUM_PSEUDO_HDR,
  type Mbuf,
  M_NOWAIT,
  M_PKTHDR,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import { AF_INET } from '../../src/kern/protosw.ts';
import { sbappendstream, sbdrop } from '../../src/kern/uipc_sockbuf.ts';
import { Ip } from '../../src/netinet/ip.ts';
import { Tcphdr, TH_ACK, TH_ECE } from '../../src/netinet/tcp.ts';
import { tcp_input } from '../../src/netinet/tcp_input.ts';
import { seqAdd } from '../../src/netinet/tcp_seq.ts';
import { type Tcpcb, TF2_ECN_PERMIT } from '../../src/netinet/tcp_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { kva, port, type TcpSeq } from '../../src/sys/types.ts';
import { memView } from '../../src/vm/arena.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { addr } from './rig.ts';
import { type Conn, PEER, type Seg, SECOND, TestHost, US } from './tcp_host.ts';

/** Less than the smallest object on V8's heap: the box of a number, 16 bytes. */
const NOTHING = 8;

const ip = new Ip();
const th = new Tcphdr();
const us = addr(US);
const peer = addr(PEER);

describe('tcp: garbage per segment', function () {
  this.timeout(60_000);
  let h: TestHost;
  let c: Conn;
  beforeEach(() => {
    h = new TestHost();
    // Start where times in nanoseconds do not fit V8's small integers.
    h.clock.advance(10 * SECOND + 123_456_789);
  });
  afterEach(() => h.close());

  /** Establishes the connection; from now on the interface frees every packet. */
  function connection(fields: Seg): Tcpcb {
    c = h.establish({ seq: 0x7fff0000, wscale: 8, ...fields });
    h.ifp.if_output = (_ifp, m): number => {
      m_freem(m);
      return 0;
    };
    return h.tp(c.so);
  }

  /** A segment of `len` bytes as a driver delivers it, with verified checksum. */
  function segment(seq: TcpSeq, ack: TcpSeq, len: number): Mbuf {
    const m = len > 0 ? m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)! : m_gethdr(M_NOWAIT, MT_DATA)!;
    const hdrlen = c.ts === undefined ? 40 : 52;
    ip.at(kva(m.m_data));
    ip.ip_vhl = 0x45;
    ip.ip_len = hdrlen + len;
    ip.ip_src = peer;
    ip.ip_dst = us;
    th.at(kva(m.m_data + 20));
    th.th_sport = port(c.sport);
    th.th_dport = port(c.dport);
    th.th_seq = seq;
    th.th_ack = ack;
    th.th_off = (hdrlen - 20) >> 2;
    th.th_flags = TH_ACK;
    th.th_win = 65535;
    if (c.ts !== undefined) {
      memView.setUint32(m.m_data + 40, 0x0101080a);
      memView.setUint32(m.m_data + 44, c.ts.val);
      memView.setUint32(m.m_data + 48, c.ts.ecr);
    }
    m.m_len = m.m_pkthdr.len = hdrlen + len;
    m.m_pkthdr.csum_flags = CSUM_DATA_VALID | CSUM_PSEUDO_HDR;
    m.m_pkthdr.csum_data = 0xffff;
    return m;
  }

  for (const ts of [undefined, { val: 0xfffffff0, ecr: 0 }]) {
    const named = ts === undefined ? '' : ', timestamps';
    const full = ts === undefined ? 1460 : 1448;

    it(`allocates nothing for two received full segments and the ACK for them${named}`, () => {
      const tp = connection(ts === undefined ? {} : { ts });
      c.so.so_rcv.sb_flags = 0;
      const input = (): void => {
        for (let i = 0; i < 2; i++)
          tcp_input(segment(tp.rcv_nxt, tp.snd_una, full), 20, h.vnet, AF_INET);
        sbdrop(c.so.so_rcv, c.so.so_rcv.sb_ccc);
      };
      const step = (): void => inPass(input);
      step();
      expect(h.stat.tcps_preddat).to.equal(2);
      expect(h.stat.tcps_sndacks).to.equal(1);
      expect(bytesPerCall(step)).to.be.below(NOTHING);
      expect(h.stat.tcps_rcvoopack).to.equal(0);
    });

    it(`allocates nothing for an ACK of two segments and two new segments${named}`, () => {
      const tp = connection(ts === undefined ? {} : { ts });
      tp.snd_wnd = 65535 << 8;
      const step = (): void => {
        for (let i = 0; i < 2; i++) {
          const m = m_getcl(M_NOWAIT, MT_DATA, 0)!;
          m.m_len = full;
          sbappendstream(c.so.so_snd, m, false);
        }
        tp.t_fb.tfb_tcp_output(tp);
        tcp_input(segment(tp.rcv_nxt, seqAdd(tp.snd_una, 2 * full), 0), 20, h.vnet, AF_INET);
      };
      step();
      expect(c.so.so_snd.sb_ccc).to.equal(0);
      expect(bytesPerCall(step)).to.be.below(NOTHING);
      expect(h.stat.tcps_sndrexmitpack).to.equal(0);
      expect(h.stat.tcps_predack).to.be.above(100_000);
    });
  }

  /**
   * Adds SACK blocks to `m`, a segment without data: `n` pairs of first and next sequence number.
   */
  function withSack(m: Mbuf, pairs: Int32Array, n: number): Mbuf {
    const p = m.m_data + 40;
    memView.setUint32(p, (0x01010500 | (2 + 8 * n)) >>> 0);
    for (let i = 0; i < 2 * n; i++) memView.setInt32(p + 4 + 4 * i, pairs[i]!);
    const optlen = 4 + 8 * n;
    ip.at(kva(m.m_data)).ip_len = 40 + optlen;
    th.at(kva(m.m_data + 20)).th_off = (20 + optlen) >> 2;
    m.m_len = m.m_pkthdr.len = 40 + optlen;
    return m;
  }

  for (const algorithm of ['newreno', 'cubic']) {
    it(`allocates nothing in SACK recovery of two losses in sixteen segments, ${algorithm}`, () => {
      h.vnet.sysctl.write('net.inet.tcp.cc.algorithm', algorithm);
      const tp = connection({ sackOk: true });
      tp.snd_wnd = 65535 << 8;
      const seg = (ack: TcpSeq): Mbuf => segment(tp.rcv_nxt, ack, 0);
      const pairs = new Int32Array(4);
      // One segment per call. Sixteen segments are sent; the first and the fourth are lost.
      let k = 0;
      const one = (): void => {
        const una = tp.snd_una;
        if (++k === 1) {
          tp.snd_cwnd = 64 * 1460;
          for (let i = 0; i < 16; i++) {
            const m = m_getcl(M_NOWAIT, MT_DATA, 0)!;
            m.m_len = 1460;
            sbappendstream(c.so.so_snd, m, false);
          }
          tp.t_fb.tfb_tcp_output(tp);
        } else if (k === 17) {
          k = 0;
          tcp_input(seg(tp.snd_max), 20, h.vnet, AF_INET);
        } else if (k !== 4) {
          pairs[0] = seqAdd(una, k > 4 ? 4 * 1460 : 1460);
          pairs[1] = seqAdd(una, k * 1460);
          pairs[2] = seqAdd(una, 1460);
          pairs[3] = seqAdd(una, 3 * 1460);
          tcp_input(withSack(seg(una), pairs, k > 4 ? 2 : 1), 20, h.vnet, AF_INET);
        }
      };
      const step = (): void => inPass(one);
      for (let i = 0; i < 17; i++) step();
      expect(c.so.so_snd.sb_ccc).to.equal(0);
      expect(h.stat.tcps_sack_rexmits).to.equal(2);
      // The limit is per call, so one object in sixteen calls would exceed it.
      expect(bytesPerCall(step)).to.be.below(NOTHING / 8);
      expect(h.stat.tcps_sack_recovery_episode).to.be.above(1000);
      expect(h.stat.tcps_rexmttimeo).to.equal(0);
    });
  }

  it('allocates nothing for segments behind a gap and their SACK blocks, duplicates included', () => {
    const tp = connection({ sackOk: true });
    c.so.so_rcv.sb_flags = 0;
    const data = (seq: TcpSeq): void => {
      tcp_input(segment(seq, tp.snd_una, 1460), 20, h.vnet, AF_INET);
    };
    const once = (): void => {
      const from = tp.rcv_nxt;
      data(seqAdd(from, 1460));
      data(seqAdd(from, 2920));
      data(seqAdd(from, 2920));
      data(from);
      sbdrop(c.so.so_rcv, c.so.so_rcv.sb_ccc);
    };
    const step = (): void => inPass(once);
    step();
    expect(h.stat.tcps_rcvduppack).to.equal(1);
    expect(tp.t_segq).to.equal(null);
    expect(bytesPerCall(step)).to.be.below(NOTHING);
  });

  it('allocates nothing for an ECN mark, its echo, and the window reduction', () => {
    const tp = connection({});
    tp.t_flags2 |= TF2_ECN_PERMIT;
    tp.snd_wnd = 65535 << 8;
    c.so.so_rcv.sb_flags = 0;
    let flags = TH_ACK;
    const one = (len: number, ack: TcpSeq): void => {
      const m = segment(tp.rcv_nxt, ack, len);
      ip.at(kva(m.m_data)).ip_tos = len > 0 ? 3 : 0;
      th.at(kva(m.m_data + 20)).th_flags = flags;
      tcp_input(m, 20, h.vnet, AF_INET);
    };
    const twice = (): void => {
      one(1460, tp.snd_una);
      one(1460, tp.snd_una);
    };
    const half = (): void => one(0, seqAdd(tp.snd_una, 2920));
    const rest = (): void => one(0, tp.snd_max);
    const step = (): void => {
      flags = TH_ACK;
      inPass(twice);
      sbdrop(c.so.so_rcv, c.so.so_rcv.sb_ccc);
      tp.snd_cwnd = 20 * 1460;
      for (let i = 0; i < 4; i++) {
        const m = m_getcl(M_NOWAIT, MT_DATA, 0)!;
        m.m_len = 1460;
        sbappendstream(c.so.so_snd, m, false);
      }
      tp.t_fb.tfb_tcp_output(tp);
      flags = TH_ACK | TH_ECE;
      inPass(half);
      inPass(rest);
    };
    step();
    expect(bytesPerCall(step)).to.be.below(NOTHING);
    expect(h.stat.tcps_ecn_rcvce).to.be.above(1000);
    expect(h.stat.tcps_ecn_rcwnd).to.be.above(1000);
  });
});
