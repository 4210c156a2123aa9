/** The bulk paths leave no garbage: segments straight into tcp_input, an interface that forgets. */

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
import { Tcphdr, TH_ACK } from '../../src/netinet/tcp.ts';
import { tcp_input } from '../../src/netinet/tcp_input.ts';
import { seqAdd } from '../../src/netinet/tcp_seq.ts';
import { kva, port, type TcpSeq } from '../../src/sys/types.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { addr } from './rig.ts';
import { type Conn, PEER, TestHost, US } from './tcp_host.ts';

/** Less than the smallest thing on V8's heap: the box of a number, 16 bytes. */
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
    c = h.establish({ seq: 0x7fff0000, wscale: 8 });
    h.ifp.if_output = (_ifp, m): number => {
      m_freem(m);
      return 0;
    };
  });
  afterEach(() => h.close());

  /** A segment of `len` bytes as a driver would hand it up, checksum verified. */
  function segment(seq: TcpSeq, ack: TcpSeq, len: number): Mbuf {
    const m = len > 0 ? m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)! : m_gethdr(M_NOWAIT, MT_DATA)!;
    ip.at(kva(m.m_data));
    ip.ip_vhl = 0x45;
    ip.ip_len = 40 + len;
    ip.ip_src = peer;
    ip.ip_dst = us;
    th.at(kva(m.m_data + 20));
    th.th_sport = port(c.sport);
    th.th_dport = port(80);
    th.th_seq = seq;
    th.th_ack = ack;
    th.th_off = 5;
    th.th_flags = TH_ACK;
    th.th_win = 65535;
    m.m_len = m.m_pkthdr.len = 40 + len;
    m.m_pkthdr.csum_flags = CSUM_DATA_VALID | CSUM_PSEUDO_HDR;
    m.m_pkthdr.csum_data = 0xffff;
    return m;
  }

  it('receiving: two full segments and the ACK for them', () => {
    const tp = h.tp(c.so);
    c.so.so_rcv.sb_flags = 0;
    const step = (): void => {
      for (let i = 0; i < 2; i++)
        tcp_input(segment(tp.rcv_nxt, tp.snd_una, 1460), 20, h.vnet, AF_INET);
      sbdrop(c.so.so_rcv, c.so.so_rcv.sb_ccc);
    };
    step();
    expect(h.stat.tcps_preddat).to.equal(2);
    expect(bytesPerCall(step)).to.be.below(NOTHING);
    expect(h.stat.tcps_rcvoopack).to.equal(0);
  });

  it('sending: an ACK for two segments and two more', () => {
    const tp = h.tp(c.so);
    tp.snd_wnd = 65535 << 8;
    const step = (): void => {
      for (let i = 0; i < 2; i++) {
        const m = m_getcl(M_NOWAIT, MT_DATA, 0)!;
        m.m_len = 1460;
        sbappendstream(c.so.so_snd, m, false);
      }
      tp.t_fb.tfb_tcp_output(tp);
      tcp_input(segment(tp.rcv_nxt, seqAdd(tp.snd_una, 2920), 0), 20, h.vnet, AF_INET);
    };
    step();
    expect(c.so.so_snd.sb_ccc).to.equal(0);
    expect(bytesPerCall(step)).to.be.below(NOTHING);
    expect(h.stat.tcps_sndrexmitpack).to.equal(0);
    expect(h.stat.tcps_predack).to.be.above(100_000);
  });
});
