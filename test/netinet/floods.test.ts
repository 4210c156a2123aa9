/** What floods of a peer can occupy: receive buffers, listen queues, TIME_WAIT, the SYN cache. */

import { expect } from 'chai';
import { Bsd } from '../../src/api/bsd.ts';
import { constants } from '../../src/api/constants.ts';
import { mbufZones } from '../../src/kern/kern_mbuf.ts';
import { EVFILT_READ, Kqueue, kqueue_close, kqueue_register } from '../../src/kern/kern_event.ts';
import { EV_ADD, kqueue_scan } from '../../src/kern/kern_event.ts';
import { MCLBYTES, MSIZE } from '../../src/kern/mbuf.ts';
import { soParams, type Socket } from '../../src/kern/uipc_socket.ts';
import { TCPS_TIME_WAIT } from '../../src/netinet/tcp_fsm.ts';
import { V_tcp } from '../../src/netinet/tcp_var.ts';
import { udpstat } from '../../src/netinet/udp_var.ts';
import { ECONNREFUSED, ENOBUFS, EWOULDBLOCK } from '../../src/sys/errno.ts';
import {
  counted,
  type Reason,
  R_RIP_FULL,
  R_SO_LISTEN_OVERFLOW,
  R_SO_MAXSOCKETS,
  R_TCP_SYNCACHE_FULL,
  R_TCP_TW_EVICTED,
  R_UDP_FULL,
} from '../../src/sys/reason.ts';
import { buildIcmp, buildIp4, buildTcp, buildUdp, flags } from '../support/frames.ts';
import { expectTx } from '../support/frames.ts';
import { PEER, TestHost, US } from './tcp_host.ts';

const { AF_INET, SOCK_DGRAM, SOCK_RAW, SOL_SOCKET, IPPROTO_IP, ...C } = constants;
const ANY = '0.0.0.0';
/** Memory of one queued packet of a few bytes: its cluster, two mbufs. */
const PINNED = MSIZE + MCLBYTES + MSIZE;

describe('floods of datagrams', () => {
  let h: TestHost;
  let b: Bsd;
  beforeEach(() => {
    h = new TestHost();
    b = new Bsd(h.vnet);
  });
  afterEach(() => {
    b.closeAll();
    h.close();
  });

  const udp = (port: number): number => {
    const s = b.socket(AF_INET, SOCK_DGRAM);
    expect(b.setsockopt(s, SOL_SOCKET, C.SO_REUSEPORT, 1)).to.equal(0);
    expect(b.bind(s, { address: ANY, port })).to.equal(0);
    return s;
  };
  const datagram = (n: number, ip = {}): Uint8Array =>
    buildUdp({ src: PEER, dst: US, ...ip }, { sport: 4000, dport: 53, payload: new Uint8Array(n) });
  const reply = (n: number): Uint8Array =>
    buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 0, payload: new Uint8Array(n) }));
  const clusters = (): number => mbufZones().clust.current;
  const received = (s: number): number => {
    let n = 0;
    while (b.recv(s, new Uint8Array(2000)) >= 0) n++;
    return n;
  };
  /** The largest charge of the buffer: its limit, and the record that crosses it. */
  const expectBounded = (so: Socket): void => {
    expect(so.so_rcv.sb_mbcnt).to.be.above(so.so_rcv.sb_mbmax - PINNED);
    expect(so.so_rcv.sb_mbcnt).to.be.below(so.so_rcv.sb_mbmax + PINNED);
  };

  const kinds: [string, () => number, (n: number) => Uint8Array, Reason][] = [
    ['UDP', () => udp(53), datagram, R_UDP_FULL],
    ['raw', () => b.socket(AF_INET, SOCK_RAW, 1), reply, R_RIP_FULL],
  ];
  for (const [name, open, packet, why] of kinds)
    for (const size of [0, 1, 100])
      it(`${name}: packets of ${size} bytes pin at most eight times the receive buffer`, () => {
        const s = open();
        const so = b.socketOf(s)!;
        const before = clusters();
        const bytes = packet(size);
        for (let i = 0; i < 1000; i++) h.injectIp(bytes);
        const pinned = clusters() - before;
        expectBounded(so);
        expect(pinned * MCLBYTES).to.be.below(so.so_rcv.sb_mbmax);
        expect(counted(why)).to.equal(1000 - pinned);
        if (name === 'UDP') expect(udpstat(h.vnet).udps_fullsock).to.equal(1000 - pinned);
        expect(received(s)).to.equal(pinned);
        expect(clusters()).to.equal(before);
        expect([so.so_rcv.sb_mbcnt, so.so_rcv.sb_ccc, so.so_rcv.sb_ctl]).to.eql([0, 0, 0]);
        h.injectIp(bytes);
        expect(received(s)).to.equal(1);
      });

  it('UDP: control messages count toward the buffer', () => {
    const s = udp(53);
    for (const name of [C.IP_RECVTTL, C.IP_RECVDSTADDR, C.IP_RECVIF])
      expect(b.setsockopt(s, IPPROTO_IP, name, 1)).to.equal(0);
    for (let i = 0; i < 1000; i++) h.injectIp(datagram(1));
    const { so_rcv: sb } = b.socketOf(s)!;
    expect(sb.sb_mbcnt).to.be.below(sb.sb_mbmax + PINNED + 3 * MSIZE);
    const n = received(s);
    expect(n).to.be.below(Math.ceil(sb.sb_mbmax / (PINNED + MSIZE)) + 1);
    expect(sb.sb_mbcnt).to.equal(0);
  });

  it('a broadcast to many sockets: each is charged for the cluster that they share', () => {
    const list = Array.from({ length: 20 }, () => udp(53));
    const before = clusters();
    for (let i = 0; i < 500; i++) h.injectIp(datagram(200, { dst: '255.255.255.255' }));
    const held = clusters() - before;
    for (const s of list) expectBounded(b.socketOf(s)!);
    const counts = list.map(received);
    expect(new Set(counts).size, 'the same for all').to.equal(1);
    expect(held).to.equal(counts[0]);
    expect(counted(R_UDP_FULL)).to.equal(20 * (500 - counts[0]!));
    expect(clusters()).to.equal(before);
  });

  it('SO_RERROR: ENOBUFS once, behind the queued datagrams; SO_ERROR and MSG_PEEK', () => {
    const s = udp(53);
    const silent = udp(54);
    expect(b.setsockopt(s, SOL_SOCKET, C.SO_RERROR, 1)).to.equal(0);
    expect(b.setsockopt(s, SOL_SOCKET, C.SO_RCVBUF, 100)).to.equal(0);
    expect(b.setsockopt(silent, SOL_SOCKET, C.SO_RCVBUF, 100)).to.equal(0);
    const flood = (dport: number): void => {
      const to = { sport: 4000, dport, payload: new Uint8Array(60) };
      for (let i = 0; i < 5; i++) h.injectIp(buildUdp({ src: PEER, dst: US }, to));
    };
    const recv = (of: number, how = 0): number => b.recv(of, new Uint8Array(100), how);
    flood(53);
    flood(54);
    expect([recv(s), recv(s, C.MSG_PEEK), recv(s), recv(s)]).to.eql([
      60,
      -ENOBUFS,
      -ENOBUFS,
      -EWOULDBLOCK,
    ]);
    expect([recv(silent), recv(silent)]).to.eql([60, -EWOULDBLOCK]);
    flood(53);
    expect(b.getsockopt(s, SOL_SOCKET, C.SO_ERROR)).to.equal(ENOBUFS);
    expect([b.getsockopt(s, SOL_SOCKET, C.SO_ERROR), recv(s), recv(s)]).to.eql([
      0,
      60,
      -EWOULDBLOCK,
    ]);
    // A kqueue reports the error as readable.
    flood(53);
    expect(recv(s)).to.equal(60);
    const kq = new Kqueue();
    const kev = { ident: s, filter: EVFILT_READ, flags: EV_ADD, fflags: 0, data: 0, udata: null };
    expect(kqueue_register(kq, kev, b.socketOf(s)!)).to.equal(0);
    expect(kqueue_scan(kq, 1)).to.have.length(1);
    expect(recv(s)).to.equal(-ENOBUFS);
    expect(kqueue_scan(kq, 1)).to.have.length(0);
    kqueue_close(kq);
  });

  it('SO_RERROR on a raw socket', () => {
    const s = b.socket(AF_INET, SOCK_RAW, 1);
    expect(b.setsockopt(s, SOL_SOCKET, C.SO_RERROR, 1)).to.equal(0);
    for (let i = 0; i < 10; i++) h.injectIp(reply(1400));
    let n = 0;
    let last = 0;
    while ((last = b.recv(s, new Uint8Array(2000))) > 0) n++;
    expect([n, last]).to.eql([6, -ENOBUFS]);
  });

  it('a flood of ICMP errors: one pending error, and datagrams are still sent', () => {
    const s = udp(53);
    expect(b.connect(s, { address: PEER, port: 9 })).to.equal(0);
    const quoted = buildUdp({ src: US, dst: PEER }, { sport: 53, dport: 9, payload: 'abc' });
    const error = buildIp4(
      { src: PEER, dst: US },
      1,
      buildIcmp({ type: 3, code: 3, payload: quoted }),
    );
    for (let i = 0; i < 1000; i++) h.injectIp(error);
    expect(b.send(s, Uint8Array.of(1))).to.equal(-ECONNREFUSED);
    expect(b.send(s, Uint8Array.of(1))).to.equal(1);
    expect(b.recv(s, new Uint8Array(9))).to.equal(-EWOULDBLOCK);
    expect(h.sent.splice(0)).to.have.length(1);
  });

  it('10,000 datagrams to a silent neighbour: 16 wait, and the memory is bounded', () => {
    const s = udp(53);
    const before = mbufZones().mbuf.current;
    const to = { address: '192.0.2.77', port: 9 };
    for (let i = 0; i < 10_000; i++) expect(b.sendto(s, new Uint8Array(100), 0, to)).to.equal(100);
    expect(mbufZones().mbuf.current - before).to.be.within(1, 20);
    h.advance(30_000);
    expect(mbufZones().mbuf.current).to.equal(before);
    h.sent.length = 0;
  });

  it('an interface without room: ENOBUFS for each call, and no mbuf stays', () => {
    const s = udp(53);
    const before = mbufZones().mbuf.current;
    h.txError = ENOBUFS;
    for (let i = 0; i < 1000; i++)
      expect(b.sendto(s, new Uint8Array(3000), 0, { address: PEER, port: 9 })).to.equal(-ENOBUFS);
    expect(mbufZones().mbuf.current).to.equal(before);
    h.txError = 0;
    expect(b.sendto(s, new Uint8Array(10), 0, { address: PEER, port: 9 })).to.equal(10);
    h.sent.length = 0;
  });
});

describe('floods of connections', () => {
  let h: TestHost;
  const { maxsockets } = soParams;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => {
    h.close();
    soParams.maxsockets = maxsockets;
  });

  /** Opens a connection from port `sport`; returns our initial sequence number. */
  const open = (sport: number): number => {
    h.seg({ flags: 'S', seq: 1000, sport, mss: 1460 });
    const iss = h.take()[0]!.ip!.tcp!.seq;
    h.seg({ seq: 1001, ack: iss + 1, sport });
    return iss;
  };

  it('a listener that does not accept: 3/2 of the backlog, then RST, each counted', () => {
    const head = h.listen(80, 10);
    const answers: string[] = [];
    for (let i = 0; i < 100; i++) {
      open(10_000 + i);
      answers.push(...h.take().map((f) => f.ip!.tcp!.flags));
    }
    expect(head.sol_comp).to.have.length(16);
    expect(head.sol_overcount).to.equal(84);
    expect(counted(R_SO_LISTEN_OVERFLOW)).to.equal(84);
    expect(h.stat.tcps_listendrop).to.equal(84);
    expect(answers).to.eql(Array.from({ length: 84 }, () => 'R'));
    // Room for one after one was accepted.
    h.accept(head);
    open(20_000);
    expect(head.sol_comp).to.have.length(16);
    expectTx(h.sent);
  });

  it('connections that were reset while they waited keep their place until they are accepted', () => {
    const head = h.listen(80, 2);
    for (let i = 0; i < 4; i++) open(10_000 + i);
    for (let i = 0; i < 4; i++) h.seg({ flags: 'R', seq: 1001, sport: 10_000 + i });
    open(20_000);
    expectTx(h.sent, [flags('R')]);
    expect(head.sol_comp).to.have.length(4);
  });

  it('20,000 SYNs from all over: the SYN cache is bounded, and a client still connects', () => {
    const head = h.listen(80, 10);
    const { params } = V_tcp(h.vnet);
    params.syncache_cachelimit = 200;
    const syn = { flags: 'S', seq: 7, dport: 80, mss: 1460 };
    h.seg({ ...syn, sport: 5000 });
    const iss = h.take()[0]!.ip!.tcp!.seq;
    const calloutsAndSockets = (): number[] => [h.count(0), head.sol_incomp.length];
    const before = calloutsAndSockets();
    for (let i = 0; i < 20_000; i++) {
      const src = `203.0.${i >>> 8}.${i & 255}`;
      h.injectIp(buildTcp({ src, dst: US }, { ...syn, sport: 1024 + i }));
      h.sent.length = 0;
    }
    const entries = h.vnet.sysctl.find('net.inet.tcp.syncache.count')!.get();
    expect(entries).to.equal(200);
    expect(counted(R_TCP_SYNCACHE_FULL)).to.equal(20_001 - 200);
    const { tcps_sc_cacheoverflow, tcps_sc_bucketoverflow } = h.stat;
    expect(tcps_sc_cacheoverflow + tcps_sc_bucketoverflow).to.equal(20_001 - 200);
    expect(calloutsAndSockets(), 'no sockets').to.eql(before);
    // The entry of the first client is gone; its cookie is not.
    h.seg({ seq: 8, ack: iss + 1, sport: 5000, payload: 'hello' });
    expect(h.read(h.accept(head))).to.equal('hello');
    expect(h.stat.tcps_sc_recvcookie).to.equal(1);
    h.sent.length = 0;
    h.advance(60_000);
    h.sent.length = 0;
    expect(h.vnet.sysctl.find('net.inet.tcp.syncache.count')!.get()).to.equal(0);
  });

  /** A connection that our side closes first. */
  const shortLived = (head: Socket, sport: number): void => {
    const iss = open(sport);
    const so = h.accept(head);
    h.closeSocket(so);
    h.seg({ flags: 'F.', seq: 1001, ack: iss + 2, sport });
    h.sent.length = 0;
  };

  it('TIME_WAIT: kern.ipc.maxsockets limits the control blocks; the oldest ends first', () => {
    const head = h.listen(80);
    soParams.maxsockets = 8;
    for (let i = 0; i < 50; i++) shortLived(head, 10_000 + i);
    const { tcbinfo } = V_tcp(h.vnet);
    expect(tcbinfo.ipi_count).to.equal(8);
    expect(h.count(TCPS_TIME_WAIT)).to.equal(7);
    expect(counted(R_TCP_TW_EVICTED)).to.equal(50 - 7);
    expect(counted(R_SO_MAXSOCKETS)).to.equal(0);
    // The newest is still there: it ignores a RST. The oldest is gone.
    const states = (): number => h.count(TCPS_TIME_WAIT);
    h.seg({ flags: 'R', seq: 1002, sport: 10_049 });
    expect(states()).to.equal(7);
    h.seg({ flags: '.', seq: 1002, ack: 1, sport: 10_000 });
    expectTx(h.sent, [flags('R')]);
    h.advance(61_000);
    expect([states(), tcbinfo.ipi_count]).to.eql([0, 1]);
  });

  it('TIME_WAIT: open connections are not ended for new ones', () => {
    const head = h.listen(80);
    soParams.maxsockets = 4;
    const kept = [1, 2, 3].map((i) => {
      open(20_000 + i);
      return h.accept(head);
    });
    open(30_000);
    expectTx(h.sent, [flags('R')]);
    expect(counted(R_SO_MAXSOCKETS)).to.equal(1);
    expect(kept.map((so) => h.state(so))).to.eql(Array.from({ length: 3 }, () => 'ESTABLISHED'));
    // A socket that its program keeps open in TIME_WAIT is not ended either.
    expect(counted(R_TCP_TW_EVICTED)).to.equal(0);
  });

  it('a program that cannot get a socket: socket(2) fails, and succeeds after a close', () => {
    const head = h.listen(80);
    soParams.maxsockets = 3;
    const b = new Bsd(h.vnet);
    for (let i = 0; i < 5; i++) shortLived(head, 10_000 + i);
    const one = b.socket(AF_INET, C.SOCK_STREAM);
    expect(one).to.be.above(0);
    expect(b.socket(AF_INET, C.SOCK_STREAM)).to.be.above(0);
    expect(b.socket(AF_INET, C.SOCK_STREAM)).to.equal(-ENOBUFS);
    expect(b.close(one)).to.equal(0);
    expect(b.socket(AF_INET, C.SOCK_STREAM)).to.be.above(0);
    b.closeAll();
  });
});
