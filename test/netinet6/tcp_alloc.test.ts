/**
 * TCP over IPv6 allocates no garbage. Segments go into ip6_input as a driver delivers them; the
 * interface frees what ip6_output sends.
 */

import { expect } from 'chai';
import { m_freem, m_getcl } from '../../src/kern/kern_mbuf.ts';
import {
  CSUM_DATA_VALID,
  CSUM_PSEUDO_HDR,
  type Mbuf,
  M_NOWAIT,
  M_PKTHDR,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import { SOCK_STREAM } from '../../src/kern/protosw.ts';
import { sbappendstream, sbdrop } from '../../src/kern/uipc_sockbuf.ts';
import {
  soaccept,
  sobind,
  soconnect,
  solisten,
  soResult,
  type Socket,
} from '../../src/kern/uipc_socket.ts';
import type { Inpcb } from '../../src/netinet/in_pcb.ts';
import { Tcphdr, TH_ACK } from '../../src/netinet/tcp.ts';
import { seqAdd } from '../../src/netinet/tcp_seq.ts';
import { type Tcpcb, tcpstat } from '../../src/netinet/tcp_var.ts';
import { Ip6 } from '../../src/netinet6/ip6.ts';
import { ip6_input } from '../../src/netinet6/ip6_input.ts';
import { kva, type TcpSeq } from '../../src/sys/types.ts';
import { mem, memView } from '../../src/vm/arena.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { buildIp6 } from '../support/six.ts';
import { A6, B6, linklocal, Pair6, sin6 } from './pair.ts';
import { inPass } from '../../src/sys/pass.ts';

/** Less than the smallest object on V8's heap: the box of a number, 16 bytes. */
const NOTHING = 8;
const TCP = 20;

const th = new Tcphdr();

describe('tcp over IPv6: garbage per segment', function () {
  this.timeout(60_000);
  let pair: Pair6;
  let so: Socket;
  let tp: Tcpcb;
  let inp: Inpcb;
  /** The packet of a segment without data from the peer, and the length of its TCP header. */
  let packet: Uint8Array;
  let thl = TCP;
  beforeEach(() => {
    pair = new Pair6();
    // Start where times in nanoseconds do not fit V8's small integers.
    pair.run(10_123);
  });
  afterEach(() => pair.close());

  /** Establishes the connection; from now on the interface of the server frees every packet. */
  function connect(local: boolean, ts: boolean): void {
    const { a, b } = pair.net;
    if (!ts) a.vnet.sysctl.write('net.inet.tcp.rfc1323', '0');
    const head = pair.socket(b.vnet, SOCK_STREAM);
    expect(sobind(head, sin6('::', 80))).to.equal(0);
    expect(solisten(head, 4)).to.equal(0);
    const to = local ? linklocal(b) : B6;
    const client = pair.socket(a.vnet, SOCK_STREAM);
    expect(soconnect(client, sin6(to, 80, local ? a.ifp.if_index : 0))).to.equal(0);
    pair.run(5);
    expect(soaccept(head)).to.equal(0);
    so = soResult.so!;
    pair.sockets.push(so);
    inp = so.so_pcb as Inpcb;
    tp = inp.inp_ppcb as Tcpcb;
    thl = ts ? TCP + 12 : TCP;
    packet = buildIp6({ src: local ? linklocal(a) : A6, dst: to }, 6, new Uint8Array(thl));
    b.ifp.if_output = (_ifp, m): number => {
      m_freem(m);
      return 0;
    };
  }

  /** A segment of `len` bytes as a driver delivers it, with verified checksum. */
  function segment(seq: TcpSeq, ack: TcpSeq, len: number): Mbuf {
    const m = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
    mem.set(packet, m.m_data);
    memView.setUint16(m.m_data + 4, thl + len);
    th.at(kva(m.m_data + Ip6.SIZE));
    th.th_sport = inp.inp_inc.inc_fport;
    th.th_dport = inp.inp_inc.inc_lport;
    th.th_seq = seq;
    th.th_ack = ack;
    th.th_off = thl >> 2;
    th.th_flags = TH_ACK;
    th.th_win = 65535;
    if (thl > TCP) {
      const opt = m.m_data + Ip6.SIZE + TCP;
      memView.setUint32(opt, 0x0101080a);
      memView.setUint32(opt + 4, tp.ts_recent);
      memView.setUint32(opt + 8, 0);
    }
    m.m_len = m.m_pkthdr.len = Ip6.SIZE + thl + len;
    m.m_pkthdr.rcvif = pair.net.b.ifp;
    m.m_pkthdr.csum_flags = CSUM_DATA_VALID | CSUM_PSEUDO_HDR;
    m.m_pkthdr.csum_data = 0xffff;
    return m;
  }

  for (const [named, local, ts] of [
    ['', false, false],
    [', timestamps', false, true],
    [', link-local addresses', true, true],
  ] as const) {
    const full = ts ? 1428 : 1440;

    it(`allocates nothing for two received full segments and the ACK for them${named}`, () => {
      connect(local, ts);
      const { vnet } = pair.net.b;
      const stat = tcpstat(vnet);
      so.so_rcv.sb_flags = 0;
      const input = (): void => {
        for (let i = 0; i < 2; i++) ip6_input(segment(tp.rcv_nxt, tp.snd_una, full), vnet);
        sbdrop(so.so_rcv, so.so_rcv.sb_ccc);
      };
      // The ACK is sent at the end of the pass.
      const step = (): void => inPass(input);
      // The first segment changes the window.
      step();
      const before = stat.tcps_preddat;
      step();
      expect(stat.tcps_preddat - before).to.equal(2);
      const acks = stat.tcps_sndacks;
      expect(bytesPerCall(step)).to.be.below(NOTHING);
      expect(stat.tcps_rcvoopack).to.equal(0);
      expect(stat.tcps_sndacks - acks).to.be.above(100_000);
    });

    it(`allocates nothing for an ACK of two segments and two new segments${named}`, () => {
      connect(local, ts);
      const { vnet } = pair.net.b;
      const stat = tcpstat(vnet);
      tp.snd_wnd = 65535 << 8;
      const once = (): void => {
        for (let i = 0; i < 2; i++) {
          const m = m_getcl(M_NOWAIT, MT_DATA, 0)!;
          m.m_len = full;
          sbappendstream(so.so_snd, m, false);
        }
        tp.t_fb.tfb_tcp_output(tp);
        ip6_input(segment(tp.rcv_nxt, seqAdd(tp.snd_una, 2 * full), 0), vnet);
      };
      const step = (): void => inPass(once);
      step();
      expect(so.so_snd.sb_ccc).to.equal(0);
      expect(bytesPerCall(step)).to.be.below(NOTHING);
      expect(stat.tcps_sndrexmitpack).to.equal(0);
      expect(stat.tcps_predack).to.be.above(100_000);
    });
  }
});
