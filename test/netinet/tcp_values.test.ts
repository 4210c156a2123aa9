/**
 * Values in which FreeBSD 14 is the reference: back-off after the fifth retransmission, segments
 * below minmss, limited transmit, and the header fields that IP_TOS and IP_TTL set in every packet.
 */

import { expect } from 'chai';
import { IPPROTO_IP } from '../../src/kern/protosw.ts';
import {
  SHUT_WR,
  SO_KEEPALIVE,
  SO_LINGER,
  soaccept,
  soconnect,
  soreserve,
  soshutdown,
  type Socket,
} from '../../src/kern/uipc_socket.ts';
import { soSetInt } from '../../src/kern/uipc_sockopt.ts';
import { IP_MINTTL, IP_TOS, IP_TTL } from '../../src/netinet/ip_ctloutput.ts';
import { tcp_hc_getmtu } from '../../src/netinet/tcp_hostcache.ts';
import { tcp_drop } from '../../src/netinet/tcp_subr.ts';
import { TCP_REXMTVAL } from '../../src/netinet/tcp_timer.ts';
import { TCP_RTT_SHIFT, TCP_RTTVAR_SHIFT, V_tcp } from '../../src/netinet/tcp_var.ts';
import { EWOULDBLOCK } from '../../src/sys/errno.ts';
import { buildIcmp, buildIp4, buildTcp, type Frame } from '../support/frames.ts';
import { type Conn, PEER, PEER_PORT, type Seg, sin, TestHost, US } from './tcp_host.ts';

describe('tcp: FreeBSD 14 as the reference', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());

  /** A connection with `rounds` measured round trips of 100 ms. */
  const measured = (rounds: number): Conn => {
    const c = h.establish();
    for (let i = 0; i < rounds; i++) {
      h.write(c.so, 'x');
      h.advance(100);
      h.take();
      c.ack++;
      c.seg({});
    }
    return c;
  };

  /** Ms between the transmissions of one byte until `last` retransmissions were sent. */
  const waits = (c: Conn, last: number): number[] => {
    h.write(c.so, 'y');
    h.take();
    const list: number[] = [];
    for (let ms = 1; list.length < last; ms++) {
      h.advance(1);
      if (h.take().some((f) => f.ip!.tcp!.payload.length > 0)) {
        list.push(ms);
        ms = 0;
      }
    }
    return list;
  };

  /** A round trip of 50 ms after `n` retransmissions of one byte. */
  const measuredAgain = (c: Conn, n: number): void => {
    waits(c, n);
    c.ack++;
    c.seg({});
    h.write(c.so, 'z');
    h.advance(50);
    c.ack++;
    c.seg({});
  };

  describe('retransmission', () => {
    it('keeps the base RTO for the sixth and later retransmissions: 5.06 s, then 9.91 s', () => {
      const c = measured(6);
      const base = TCP_REXMTVAL(h.tp(c.so));
      expect(base).to.be.within(140, 170);
      const got = waits(c, 8);
      expect(got).to.deep.equal([0, 1, 2, 3, 4, 5, 6, 7].map((n) => base * 2 ** n + 200));
      expect(TCP_REXMTVAL(h.tp(c.so))).to.equal(base);
    });

    it('starts the estimate anew with the first measurement after four retransmissions', () => {
      const c = measured(6);
      measuredAgain(c, 4);
      const tp = h.tp(c.so);
      expect([tp.t_srtt >> TCP_RTT_SHIFT, tp.t_rttvar >> TCP_RTTVAR_SHIFT]).to.deep.equal([51, 25]);
    });

    it('smooths the measurement after three retransmissions', () => {
      const c = measured(6);
      measuredAgain(c, 3);
      expect(h.tp(c.so).t_srtt >> TCP_RTT_SHIFT).to.be.within(90, 99);
    });
  });

  /** ICMP says that our segment at `seq` needs fragmentation; the next hop has an MTU of `mtu`. */
  const tooBig = (c: Conn, seq: number, mtu: number): void => {
    const quoted = new Uint8Array(28);
    quoted.set(buildIp4({ src: US, dst: PEER, df: true, len: 1500 }, 6, new Uint8Array(8)));
    quoted.set([c.dport >> 8, c.dport & 255, c.sport >> 8, c.sport & 255], 20);
    new DataView(quoted.buffer).setUint32(24, seq);
    const error = buildIcmp({ type: 3, code: 4, seq: mtu, payload: quoted });
    h.injectIp(buildIp4({ src: PEER, dst: US }, 1, error));
  };

  describe('minmss', () => {
    it('sends segments of minmss without DF if ICMP names an MTU below 256', () => {
      for (const mtu of [68, 100, 255, 256]) {
        h.close();
        h = new TestHost();
        const c = h.establish({ ts: { val: 1, ecr: 0 } });
        h.write(c.so, new Uint8Array(1000));
        const [first] = h.take();
        expect(first!.ip!.df, 'before').to.equal(true);
        tooBig(c, c.ack, mtu);
        const again = h.take().map(({ ip }) => [ip!.tcp!.payload.length, ip!.df]);
        // 216 bytes less a timestamp. One of them fits the congestion window of a small MSS or more.
        expect(again.length, `MTU ${mtu}`).to.be.above(0);
        expect(again[0], `MTU ${mtu}`).to.deep.equal([204, false]);
        const { inp_inc } = h.tp(c.so).t_inpcb;
        expect(tcp_hc_getmtu(V_tcp(h.vnet), inp_inc), 'host cache').to.equal(256);
      }
    });

    it('keeps DF for an MTU that leaves more than minmss', () => {
      const c = h.establish({ ts: { val: 1, ecr: 0 } });
      h.write(c.so, new Uint8Array(1000));
      h.take();
      tooBig(c, c.ack, 257);
      const [again] = h.take();
      expect([again!.ip!.tcp!.payload.length, again!.ip!.df]).to.deep.equal([205, true]);
    });

    it('limits what the peer may impose, not what we announce', () => {
      h.ifp.if_mtu = 128;
      h.listen(80);
      h.seg({ flags: 'S', mss: 10, seq: 1 });
      const synAck = h.take()[0]!.ip!.tcp!;
      expect(synAck.mss).to.equal(88);
      h.ifp.if_mtu = 1500;
      const c = h.establish({ sport: 41000, dport: 81, mss: 10 });
      expect(h.tp(c.so).t_maxseg).to.equal(V_tcp(h.vnet).params.minmss);
    });
  });

  it('limited transmit: the second duplicate ACK sends two segments if the first could send none', () => {
    const c = h.establish({ sackOk: true });
    const size = 1460;
    h.tp(c.so).snd_cwnd = 6 * size;
    h.write(c.so, new Uint8Array(6 * size));
    h.take();
    const sack = (n: number): void => c.seg({ sack: [[c.ack + size, c.ack + n * size]] });
    sack(2);
    expect(h.take()).to.have.length(0);
    // New data is under way only from now on: cwnd is full.
    h.write(c.so, new Uint8Array(4 * size));
    h.take();
    const { snd_nxt } = h.tp(c.so);
    c.seg({
      sack: [
        [c.ack + 4 * size, c.ack + 5 * size],
        [c.ack + size, c.ack + 2 * size],
      ],
    });
    expect(h.take()).to.have.length(2);
    expect((h.tp(c.so).snd_nxt - snd_nxt) | 0).to.equal(2 * size);
  });

  it('sends at least a byte per segment if the send buffer is smaller than the options', () => {
    const head = h.listen(80);
    expect(soreserve(head, 20, 65536)).to.equal(0);
    h.seg({ flags: 'S', seq: 1, mss: 1460, sackOk: true, ts: { val: 1, ecr: 0 } });
    const synAck = h.take()[0]!.ip!.tcp!;
    const reply = { seq: 2, ack: synAck.seq + 1, ts: { val: 2, ecr: synAck.ts!.val } };
    h.seg(reply);
    const so = h.accept(head);
    // Three SACK blocks and the timestamp take 40 bytes.
    for (const seq of [100, 200, 300]) h.seg({ ...reply, seq, payload: 'later' });
    h.take();
    h.write(so, 'abc');
    const text = h.take().map((f) => Buffer.from(f.ip!.tcp!.payload).toString());
    expect(text.join('')).to.equal('abc');
    expect(h.tp(so).t_maxseg).to.equal(20);
  });

  describe('IP_TOS and IP_TTL', () => {
    const set = (so: Socket): void => {
      expect(soSetInt(so, IPPROTO_IP, IP_TOS, 0x28)).to.equal(0);
      expect(soSetInt(so, IPPROTO_IP, IP_TTL, 33)).to.equal(0);
    };
    /** Expects one packet with `flags` that has both. */
    const one = (what: string, flags: string): Frame => {
      const told = h.take();
      expect(
        told.map(({ ip }) => [ip!.tcp!.flags, ip!.tos, ip!.ttl]),
        what,
      ).to.deep.equal([[flags, 0x28, 33]]);
      return told[0]!;
    };

    it('apply to every packet of a connection', () => {
      const c = h.establish();
      set(c.so);
      h.write(c.so, 'data');
      one('data', 'P.');
      h.advance(1000);
      one('retransmission', 'P.');
      c.ack += 4;
      c.seg({});
      c.data('in');
      h.advance(50);
      one('delayed ACK', '.');
      c.seg({ flags: 'S', seq: 5 });
      one('challenge ACK', '.');
      c.so.so_options |= SO_KEEPALIVE;
      h.advance(7_200_000);
      h.sent.splice(0, h.sent.length - 1);
      one('keepalive', '.');
      c.seg({});
      soshutdown(c.so, SHUT_WR);
      one('FIN', 'F.');
      c.ack++;
      c.data('', { flags: 'F.' });
      one('ACK of the FIN', '.');
      h.closeSocket(c.so);
      c.seg({ seq: c.seq - 1, flags: 'F.' });
      one('TIME_WAIT', '.');
    });

    it('apply to RSTs', () => {
      const lingering = h.establish({ sport: 41000, dport: 81 });
      set(lingering.so);
      lingering.so.so_options |= SO_LINGER;
      lingering.so.so_linger = 0;
      h.closeSocket(lingering.so);
      one('close without lingering', 'R.');

      const dropped = h.establish({ sport: 41001, dport: 82 });
      set(dropped.so);
      tcp_drop(h.tp(dropped.so), 0);
      one('drop', 'R.');

      const closed = h.establish({ sport: 41002, dport: 83 });
      set(closed.so);
      h.closeSocket(closed.so);
      h.take();
      closed.seg({ ack: closed.ack + 1 });
      closed.data('after close', { ack: closed.ack + 1 });
      one('data after close', 'R');
    });

    it('apply to the SYN, and to the RST that answers a wrong ACK', () => {
      const so = h.socket();
      set(so);
      expect(soconnect(so, sin(PEER, 7))).to.equal(0);
      const syn = one('SYN', 'S').ip!.tcp!;
      h.advance(1200);
      one('SYN again', 'S');
      h.seg({ sport: 7, dport: syn.sport, flags: '.', seq: 1, ack: syn.seq + 9 });
      one('wrong ACK', 'R');
    });

    it('of a listener apply to the SYN-ACK, its retransmission, and the RST of a wrong ACK', () => {
      const head = h.listen(80);
      set(head);
      h.seg({ flags: 'S', seq: 1 });
      const { seq } = one('SYN-ACK', 'S.').ip!.tcp!;
      h.advance(1200);
      one('SYN-ACK again', 'S.');
      h.seg({ flags: 'R', seq: 9 });
      one('challenge ACK', '.');
      h.seg({ flags: 'S', seq: 1 });
      one('SYN-ACK of a SYN again', 'S.');
      h.seg({ seq: 2, ack: seq + 9 });
      one('wrong ACK', 'R');
    });

    it('IP_MINTTL drops every segment with a lower TTL: handshake, TIME_WAIT and connecting', () => {
      const from = (ttl: number, fields: Seg): Frame[] => {
        const ports = { sport: PEER_PORT, dport: 80, flags: '.', ...fields };
        h.injectIp(buildTcp({ src: PEER, dst: US, ttl }, ports), 0);
        return h.take();
      };
      /** `fields` is dropped with a TTL of 199, and answered with one of 200. */
      const needs200 = (what: string, fields: Seg, answer: string): Frame => {
        expect(from(199, fields), what).to.have.length(0);
        const told = from(200, fields);
        expect(
          told.map((f) => f.ip!.tcp!.flags),
          what,
        ).to.deep.equal([answer]);
        return told[0]!;
      };
      const head = h.listen(80);
      expect(soSetInt(head, IPPROTO_IP, IP_MINTTL, 200)).to.equal(0);
      const synAck = needs200('SYN', { flags: 'S', seq: 1 }, 'S.').ip!.tcp!;
      const ack = (synAck.seq + 1) >>> 0;
      from(199, { seq: 2, ack });
      expect(soaccept(head), 'accept').to.equal(EWOULDBLOCK);
      from(200, { seq: 2, ack });
      const so = h.accept(head);
      soshutdown(so, SHUT_WR);
      h.take();
      from(200, { seq: 2, ack: ack + 1 });
      needs200('FIN', { flags: 'F.', seq: 2, ack: ack + 1 }, '.');
      expect(h.state(so)).to.equal('TIME_WAIT');
      needs200('TIME_WAIT', { flags: 'F.', seq: 2, ack: ack + 1 }, '.');

      const active = h.socket();
      expect(soSetInt(active, IPPROTO_IP, IP_MINTTL, 200)).to.equal(0);
      expect(soconnect(active, sin(PEER, 7))).to.equal(0);
      const syn = h.take()[0]!.ip!.tcp!;
      const reply = { sport: 7, dport: syn.sport, seq: 9, ack: syn.seq + 1 };
      from(199, { ...reply, flags: 'R.' });
      expect(h.state(active)).to.equal('SYN_SENT');
      needs200('SYN-ACK', { ...reply, flags: 'S.' }, '.');
    });
  });
});
