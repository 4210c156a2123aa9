/**
 * The whole way between a program's buffer and the driver allocates no garbage: write, TCP, IP, Ethernet
 * and back, upcalls and timers included, over both families.
 */

import { expect } from 'chai';
import { m_freem, m_getcl } from '../../src/kern/kern_mbuf.ts';
import {
  CSUM_DATA_VALID,
  CSUM_IP_CHECKED,
  CSUM_IP_VALID,
  CSUM_PSEUDO_HDR,
  type Mbuf,
  M_NOWAIT,
  M_PKTHDR,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import { AF_INET, AF_INET6, SOCK_STREAM } from '../../src/kern/protosw.ts';
import type { Sockaddr } from '../../src/kern/sockaddr.ts';
import { ioResult, soRead, soWrite } from '../../src/kern/sys_generic.ts';
import {
  SO_RCV,
  SO_SND,
  soaccept,
  sobind,
  soclose,
  soconnect,
  socreate,
  type Socket,
  solisten,
  soResult,
  soupcall_set,
} from '../../src/kern/uipc_socket.ts';
import type { Vnet } from '../../src/kern/vnet.ts';
import { inSockaddr, parseInAddr } from '../../src/netinet/in.ts';
import type { Inpcb } from '../../src/netinet/in_pcb.ts';
import { TH_ACK } from '../../src/netinet/tcp.ts';
import { seqAdd } from '../../src/netinet/tcp_seq.ts';
import { type Tcpcb, tcpstat } from '../../src/netinet/tcp_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { port, type TcpSeq } from '../../src/sys/types.ts';
import { mem, memView } from '../../src/vm/arena.ts';
import { ADDR6_B, ADDR_B, SimNet } from '../sim/sim_net.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { sin6 } from './pair.ts';

/** Less than the smallest object on V8's heap: the box of a number, 16 bytes. */
const NOTHING = 8;
/** A copy between a cluster and a program's own buffer needs a view. Short copies do without. */
const VIEW = 96;
const ETHER = 14;
const PORT = 80;

const FAMILIES = [
  { named: 'IPv4', family: AF_INET, ipLen: 20, mss: 1460 },
  { named: 'IPv6', family: AF_INET6, ipLen: 40, mss: 1440 },
] as const;

for (const { named, family, ipLen, mss } of FAMILIES)
  describe(`garbage between a program and the driver, ${named}`, function () {
    this.timeout(60_000);
    let net: SimNet;
    let so: Socket;
    let tp: Tcpcb;
    let sockets: Socket[];
    /** An ACK of the peer as the driver gets it. */
    let ack: Uint8Array;
    let woken = 0;

    const name = (): Sockaddr =>
      family === AF_INET ? inSockaddr(parseInAddr(ADDR_B)!, port(PORT)) : sin6(ADDR6_B, PORT);

    function socket(vnet: Vnet): Socket {
      expect(socreate(vnet, family, SOCK_STREAM, 0)).to.equal(0);
      sockets.push(soResult.so!);
      return soResult.so!;
    }

    beforeEach(() => {
      net = new SimNet({ seed: 1, six: true });
      // Start where times in nanoseconds do not fit V8's small integers.
      net.clock.advance(10_123e6);
      sockets = [];
      net.a.vnet.sysctl.write('net.inet.tcp.rfc1323', '0');
      const head = socket(net.b.vnet);
      expect(sobind(head, name())).to.equal(0);
      expect(solisten(head, 4)).to.equal(0);
      ack = new Uint8Array();
      net.a.onFrame = (bytes): void => {
        // The last frame of the handshake, not ARP or neighbour discovery.
        if (bytes.length === ETHER + ipLen + 20) ack = bytes.slice();
      };
      expect(soconnect(socket(net.a.vnet), name())).to.equal(0);
      net.clock.advance(50e6);
      expect(soaccept(head)).to.equal(0);
      so = soResult.so!;
      sockets.push(so);
      tp = (so.so_pcb as Inpcb).inp_ppcb as Tcpcb;
      expect(ack.length).to.equal(ETHER + ipLen + 20);
      net.b.if_transmit = (_ifp, m): number => {
        m_freem(m);
        return 0;
      };
      woken = 0;
      const upcall = { run: (): void => void woken++ };
      soupcall_set(so, SO_RCV, upcall);
      soupcall_set(so, SO_SND, upcall);
    });

    afterEach(() => {
      for (const s of sockets) soclose(s);
      net.close();
    });

    /** Delivers a segment of `len` bytes as a driver does, with verified checksums. */
    function segment(seq: TcpSeq, ackTo: TcpSeq, len: number): void {
      const m: Mbuf = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
      // The IP header is at a multiple of four.
      m.m_data += 2;
      mem.set(ack, m.m_data);
      const ip = m.m_data + ETHER;
      if (family === AF_INET) memView.setUint16(ip + 2, 40 + len);
      else memView.setUint16(ip + 4, 20 + len);
      const th = ip + ipLen;
      memView.setInt32(th + 4, seq);
      memView.setInt32(th + 8, ackTo);
      mem[th + 13] = TH_ACK;
      memView.setUint16(th + 14, 65535);
      m.m_len = m.m_pkthdr.len = ETHER + ipLen + 20 + len;
      m.m_pkthdr.rcvif = net.b.ifp;
      m.m_pkthdr.csum_flags = CSUM_DATA_VALID | CSUM_PSEUDO_HDR | CSUM_IP_CHECKED | CSUM_IP_VALID;
      m.m_pkthdr.csum_data = 0xffff;
      inPass(net.b.ifp.if_input!, net.b.ifp, m);
    }

    const buf = new Uint8Array(4096);

    for (const [what, len, views] of [
      ['a byte', 1, 0],
      ['two segments', 2 * mss, 1],
    ] as const)
      it(`allocates nothing for a write of ${what}, its frames and its acknowledgment`, () => {
        tp.snd_cwnd = 64 * mss;
        tp.snd_wnd = 65535;
        const step = (): void => {
          soWrite(so, buf, 0, len, false);
          segment(tp.rcv_nxt, seqAdd(tp.snd_una, len), 0);
          net.clock.runPosted();
        };
        step();
        expect(so.so_snd.sb_ccc).to.equal(0);
        const sent = tcpstat(net.b.vnet).tcps_sndpack;
        const limit = NOTHING + views * VIEW;
        expect(bytesPerCall(step, limit)).to.be.below(limit);
        expect(tcpstat(net.b.vnet).tcps_sndpack - sent).to.be.above(100_000);
        expect(woken).to.be.above(100_000);
      });

    for (const [what, len, views] of [
      ['bytes', 1, 0],
      ['full segments', mss, 2],
    ] as const)
      it(`allocates nothing for two received ${what}, the ACK, the upcall and the read`, () => {
        let read = 0;
        const step = (): void => {
          segment(tp.rcv_nxt, tp.snd_una, len);
          segment(tp.rcv_nxt, tp.snd_una, len);
          net.clock.runPosted();
          soRead(so, buf, 0, buf.length);
          read += ioResult.n;
        };
        step();
        expect(read).to.equal(2 * len);
        read = 0;
        const before = woken;
        const limit = NOTHING + views * VIEW;
        expect(bytesPerCall(step, limit)).to.be.below(limit);
        expect(read).to.be.above(100_000);
        expect(woken - before).to.be.above(100_000);
        expect(tcpstat(net.b.vnet).tcps_rcvoopack).to.equal(0);
      });
  });
