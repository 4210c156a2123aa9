import { expect } from 'chai';
import { soaccept, SS_ISCONNECTED } from '../../src/kern/uipc_socket.ts';
import { TCPS_SYN_RECEIVED } from '../../src/netinet/tcp_fsm.ts';
import { ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT, EWOULDBLOCK } from '../../src/sys/errno.ts';
import {
  ack,
  buildIcmp,
  buildIp4,
  expectTx,
  flags,
  from,
  mss,
  payload,
  seq,
  to,
  wscale,
} from '../support/frames.ts';
import { PEER, PEER_PORT, sin, TestHost, US } from './tcp_host.ts';
import { soconnect } from '../../src/kern/uipc_socket.ts';
import { syncacheCount } from '../../src/netinet/tcp_syncache.ts';
import { V_tcp } from '../../src/netinet/tcp_var.ts';

describe('tcp: opening connections', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());

  it('acknowledges a SYN at the top of the sequence space', () => {
    h.listen(80);

    h.seg({ flags: 'S', seq: 0xffffffff });

    // RFC 9293, 3.10.7.2: the SYN itself takes one sequence number, so the next one wraps to 0.
    expectTx(h.sent, [from(US, 80), to(PEER, PEER_PORT), flags('S.'), ack(0)]);
  });

  it('offers the MSS of the MTU, and window scale and timestamps only if the peer offers them', () => {
    h.listen(80);
    h.seg({ flags: 'S', seq: 5 });
    const [plain] = expectTx(h.sent, [flags('S.'), mss(1460), wscale(undefined)]);
    expect(plain!.ip!.tcp!.ts).to.equal(undefined);

    h.seg({ flags: 'S', seq: 5, sport: 40001, mss: 1400, wscale: 7, ts: { val: 77, ecr: 0 } });

    // kern.ipc.maxsockbuf is 2 MiB: a window of 65535 has to be scaled by 6 to reach it.
    const [full] = expectTx(h.sent, [flags('S.'), mss(1460), wscale(6)]);
    expect(full!.ip!.tcp!.ts!.ecr).to.equal(77);
  });

  it('allocates no socket before the handshake is complete', () => {
    const head = h.listen(80);
    h.seg({ flags: 'S', seq: 5 });
    const synAck = h.take()[0]!.ip!.tcp!;
    expect(head.sol_incomp.length + head.sol_comp.length).to.equal(0);
    expect(h.stat.tcps_sc_added).to.equal(1);
    expect(soaccept(head)).to.equal(EWOULDBLOCK);

    h.seg({ seq: 6, ack: synAck.seq + 1 });

    const so = h.accept(head);
    expect(h.state(so)).to.equal('ESTABLISHED');
    expect(so.so_state & SS_ISCONNECTED).to.equal(SS_ISCONNECTED);
    expectTx(h.sent);
  });

  it('accepts data that arrives with the last ACK of the handshake', () => {
    const head = h.listen(80);
    h.seg({ flags: 'S', seq: 5 });
    const synAck = h.take()[0]!.ip!.tcp!;
    h.seg({ seq: 6, ack: synAck.seq + 1, flags: 'F.', payload: 'hello' });
    const so = h.accept(head);
    expect(h.state(so)).to.equal('CLOSE_WAIT');
    expect(h.read(so)).to.equal('hello');
    expect(h.read(so)).to.equal(null);
    expectTx(h.sent, [flags('.'), ack(12)]);
  });

  it('retransmits the SYN-ACK after 1, 2.2 and 4.2 s, then drops the entry', () => {
    h.listen(80);
    h.seg({ flags: 'S', seq: 5 });
    const first = h.take()[0]!.ip!.tcp!;
    const at: number[] = [];
    for (let ms = 0; ms < 60_000; ms += 100) {
      h.advance(100);
      for (const f of h.take()) {
        expect(f.ip!.tcp!.seq).to.equal(first.seq);
        at.push((ms + 100) / 1000);
      }
    }
    expect(at).to.deep.equal([1, 3.2, 7.4]);
    expect(h.stat.tcps_sc_stale).to.equal(1);
    h.seg({ seq: 6, ack: first.seq + 1 });
    expectTx(h.sent, [flags('R'), seq(first.seq + 1)]);
  });

  it('answers a repeated SYN and a SYN with another number with the first SYN-ACK', () => {
    h.listen(80);
    h.seg({ flags: 'S', seq: 5 });
    const first = h.take()[0]!.ip!.tcp!;
    for (const n of [5, 900]) {
      h.seg({ flags: 'S', seq: n });
      expectTx(h.sent, [flags('S.'), seq(first.seq), ack(6)]);
    }
    expect(h.stat.tcps_sc_added).to.equal(1);
    expect(h.stat.tcps_sc_dupsyn).to.equal(2);
  });

  it('starts the SYN-ACK timer over after a repeated SYN', () => {
    h.listen(80);
    h.seg({ flags: 'S', seq: 5 });
    h.advance(900);
    h.seg({ flags: 'S', seq: 5 });
    h.sent.length = 0;
    h.advance(999);
    expectTx(h.sent);
    h.advance(1);
    expectTx(h.sent, [flags('S.'), ack(6)]);
  });

  it('drops a syncache entry only for a RST with the exact sequence number', () => {
    h.listen(80);
    h.seg({ flags: 'S', seq: 5 });
    const first = h.take()[0]!.ip!.tcp!;
    h.seg({ flags: 'R', seq: 7 });
    expectTx(h.sent, [flags('.'), seq(first.seq + 1), ack(6)]);
    h.seg({ flags: 'R', seq: 5 });
    // A RST that answers a SYN-ACK carries no ACK: RFC 9293, 3.5.2.
    h.seg({ flags: 'R.', seq: 6, ack: first.seq + 1 });
    expect(h.stat.tcps_sc_reset).to.equal(0);
    h.seg({ flags: 'R', seq: 6 });
    expect(h.stat.tcps_sc_reset).to.equal(1);
    h.seg({ seq: 6, ack: first.seq + 1 });
    expectTx(h.sent, [flags('R'), seq(first.seq + 1)]);
  });

  it('insecure_rst: a RST anywhere in the window drops a syncache entry', () => {
    V_tcp(h.vnet).params.insecure_rst = true;
    h.listen(80);
    for (const off of [0, 1, 65534]) {
      h.seg({ flags: 'S', seq: 5 });
      const synAck = h.take()[0]!.ip!.tcp!;
      h.seg({ flags: 'R', seq: 5 });
      h.seg({ flags: 'R', seq: 6 + synAck.win });
      expect(syncacheCount(V_tcp(h.vnet)), 'RST outside the window').to.equal(1);
      h.seg({ flags: 'R', seq: 6 + off });
      expect(syncacheCount(V_tcp(h.vnet)), `RST at ${off}`).to.equal(0);
      expectTx(h.sent);
    }
    expect(h.stat.tcps_sc_reset).to.equal(3);
    expect(h.stat.tcps_challengeack).to.equal(0);
  });

  it('the challenge ACK of a syncache entry has the window and the timestamps', () => {
    h.listen(80);
    h.seg({ flags: 'S', seq: 5, mss: 1460, wscale: 7, ts: { val: 77, ecr: 0 } });
    const synAck = h.take()[0]!.ip!.tcp!;
    h.advance(10);
    h.seg({ flags: 'R', seq: 7 });
    const c = h.take()[0]!.ip!.tcp!;
    expect([c.flags, c.seq, c.ack, c.win]).to.deep.equal(['.', (synAck.seq + 1) >>> 0, 6, 65535]);
    expect(c.ts).to.deep.equal({ val: (synAck.ts!.val + 10) >>> 0, ecr: 77 });
  });

  // What cannot belong to the handshake: [name, fields relative to the SYN-ACK, the RST's numbers].
  for (const [name, fields] of [
    ['an ACK below', { seq: 6, d: 0 }],
    ['an ACK above', { seq: 6, d: 2 }],
    ['SEQ = IRS', { seq: 5, d: 1 }],
    ['SEQ above the window', { seq: 5 + 65536, d: 1 }],
    ['a SYN-ACK', { seq: 6, d: 1, flags: 'S.' }],
  ] as const)
    it(`sends a RST for ${name} in SYN_RECEIVED and removes the entry`, () => {
      const head = h.listen(80);
      h.seg({ flags: 'S', seq: 5 });
      const first = h.take()[0]!.ip!.tcp!;
      const { d, ...rest } = fields;
      h.seg({ ...rest, ack: first.seq + d });
      expectTx(h.sent, [flags('R'), seq(first.seq + d)]);
      expect(h.stat.tcps_sc_badack).to.equal(1);
      expect(syncacheCount(V_tcp(h.vnet))).to.equal(0);
      // The right ACK comes too late.
      h.seg({ seq: 6, ack: first.seq + 1 });
      expectTx(h.sent, [flags('R'), seq(first.seq + 1)]);
      expect(head.sol_comp).to.have.length(0);
    });

  it('resets a connection when the accept queue is full', () => {
    const head = h.listen(80, 1);
    for (let i = 0; i < 3; i++) {
      const sport = 41000 + i;
      h.seg({ flags: 'S', seq: 5, sport });
      const synAck = h.take()[0]!.ip!.tcp!;
      h.seg({ seq: 6, ack: synAck.seq + 1, sport });
      // The limit is 3/2 of the backlog. sonewconn checks before it adds, so a backlog of 1 holds
      // two connections.
      if (i < 2) expectTx(h.sent);
      else expectTx(h.sent, [flags('R')]);
    }
    expect(head.sol_comp.length).to.equal(2);
    expect(h.stat.tcps_listendrop).to.equal(1);
  });

  it('drops a syncache entry for ICMP unreachable only after retransmissions of the SYN-ACK', () => {
    h.listen(80);
    h.seg({ flags: 'S', seq: 5 });
    const synAck = h.take()[0]!.ip!.tcp!;
    const unreachable = (number: number): void => {
      // The quote: our IP header, ports and sequence number.
      const quoted = new Uint8Array(28);
      quoted.set(buildIp4({ src: US, dst: PEER, len: 60 }, 6, new Uint8Array(8)));
      const view = new DataView(quoted.buffer);
      view.setUint16(20, 80);
      view.setUint16(22, 40000);
      view.setUint32(24, number);
      const icmp = buildIcmp({ type: 3, code: 1, payload: quoted });
      h.injectIp(buildIp4({ src: PEER, dst: US }, 1, icmp));
    };
    const left = (): unknown => h.vnet.sysctl.find('net.inet.tcp.syncache.count')!.get();
    unreachable(synAck.seq);
    unreachable(synAck.seq);
    expect(left(), 'entry kept: the SYN-ACK was sent once').to.equal(1);
    h.advance(10_000);
    expect(h.take().length, 'SYN-ACKs').to.be.at.least(3);
    unreachable(synAck.seq + 1);
    expect(left(), 'entry kept: wrong sequence number').to.equal(1);
    unreachable(synAck.seq);
    expect(left()).to.equal(0);
    expect(h.stat.tcps_sc_unreach).to.equal(1);
  });

  it('limits the number of syncache entries', () => {
    h.listen(80);
    V_tcp(h.vnet).params.syncache_cachelimit = 100;
    for (let i = 0; i < 300; i++) h.seg({ flags: 'S', seq: 5, sport: 10000 + i });
    expect(h.take()).to.have.length(300);
    expect(h.vnet.sysctl.find('net.inet.tcp.syncache.count')!.get()).to.equal(100);
    expect(h.stat.tcps_sc_cacheoverflow).to.equal(200);
  });

  it('connects with SYN, SYN-ACK, ACK and uses the peer’s options', () => {
    const so = h.connect(7);
    const [syn] = expectTx(h.sent, [from(US), to(PEER, 7), flags('S'), mss(1460), wscale(6)]);
    const t = syn!.ip!.tcp!;
    expect(t.ts).to.not.equal(undefined);
    expect(t.sport).to.be.within(10000, 65535);
    h.advance(20);
    h.seg({
      sport: 7,
      dport: t.sport,
      flags: 'S.',
      seq: 0xffffffff,
      ack: t.seq + 1,
      mss: 1000,
      wscale: 3,
      ts: { val: 9, ecr: t.ts!.val },
      win: 1000,
    });
    expectTx(h.sent, [flags('.'), seq(t.seq + 1), ack(0)]);
    const tp = h.tp(so);
    expect(h.state(so)).to.equal('ESTABLISHED');
    expect(tp.t_maxseg).to.equal(1000);
    expect(tp.snd_scale).to.equal(3);
    // RFC 7323, 2.2: the window of a SYN is not scaled.
    expect(tp.snd_wnd).to.equal(1000);
    // RFC 6298 (2.2): the first measurement, 20 ms and the clock's granularity of 1.
    expect(tp.t_srtt / 32).to.equal(21);
    // RFC 6928: ten segments of 1000 - 12 bytes.
    expect(tp.snd_cwnd).to.equal(9880);
  });

  // Karn's algorithm, RFC 6298 (3), and RFC 5681, 3.1.
  it('takes no RTT sample after a retransmitted SYN, and starts with one segment', () => {
    const so = h.connect(7);
    h.advance(1050);
    const t = h.take()[0]!.ip!.tcp!;
    h.seg({ sport: 7, dport: t.sport, flags: 'S.', seq: 1, ack: t.seq + 1, mss: 1460 });
    expect(h.tp(so).t_srtt).to.equal(0);
    expect(h.tp(so).snd_cwnd).to.equal(1460);
  });

  it('retransmits its SYN, and gives up after 75 s', () => {
    const so = h.connect(7);
    h.take();
    const at: number[] = [];
    for (let ms = 0; ms < 100_000; ms += 100) {
      h.advance(100);
      for (const f of h.take()) if (f.ip?.tcp?.flags === 'S') at.push((ms + 100) / 1000);
    }
    // RFC 6298: the first RTO is 1 s. Then 2, 4, 8 s follow, each with 200 ms of slop.
    expect(at.slice(0, 5)).to.deep.equal([1, 3.2, 7.4, 15.6, 31.8]);
    expect(at.at(-1)).to.be.below(75);
    expect(so.so_error).to.equal(ETIMEDOUT);
  });

  it('is refused only by a RST that acknowledges its SYN', () => {
    const so = h.connect(7);
    const t = h.take()[0]!.ip!.tcp!;
    const back = { sport: 7, dport: t.sport };
    h.seg({ ...back, flags: 'R', seq: 0 });
    h.seg({ ...back, flags: 'R.', seq: 0, ack: t.seq });
    expect(so.so_error).to.equal(0);
    expect(h.state(so)).to.equal('SYN_SENT');
    h.seg({ ...back, flags: 'R.', seq: 0, ack: t.seq + 1 });
    expect(so.so_error).to.equal(ECONNREFUSED);
    expectTx(h.sent);
  });

  // RFC 5461, RFC 5927: while connecting, a hard ICMP error that quotes our SYN ends the attempt.
  it('is refused by an ICMP port unreachable that quotes its SYN, and by no other', () => {
    const so = h.connect(7);
    const t = h.take()[0]!.ip!.tcp!;
    const unreachable = (quotedSeq: number): void => {
      const ports = [t.sport >> 8, t.sport & 255, 0, 7];
      const seqBytes = [24, 16, 8, 0].map((n) => (quotedSeq >>> n) & 255);
      const quoted = buildIp4({ src: US, dst: PEER, df: true }, 6, [...ports, ...seqBytes]);
      const icmp = buildIcmp({ type: 3, code: 3, payload: quoted });
      h.injectIp(buildIp4({ src: PEER, dst: US }, 1, icmp));
    };
    unreachable(t.seq + 1);
    expect(h.state(so)).to.equal('SYN_SENT');
    unreachable(t.seq);
    expect(h.state(so)).to.equal('CLOSED');
    expect(so.so_error).to.equal(ECONNREFUSED);
  });

  it('sends a RST for a wrong ACK of its SYN and stays in SYN_SENT', () => {
    const so = h.connect(7);
    const t = h.take()[0]!.ip!.tcp!;
    h.seg({ sport: 7, dport: t.sport, flags: 'S.', seq: 50, ack: t.seq + 2 });
    expectTx(h.sent, [flags('R'), seq(t.seq + 2)]);
    expect(h.state(so)).to.equal('SYN_SENT');
  });

  it('opens simultaneously: RFC 9293, figure 7', () => {
    const so = h.connect(7);
    const t = h.take()[0]!.ip!.tcp!;
    const back = { sport: 7, dport: t.sport };
    h.seg({ ...back, flags: 'S', seq: 300, mss: 1460 });
    expect(h.state(so)).to.equal('SYN_RCVD');
    expect(h.count(TCPS_SYN_RECEIVED)).to.equal(1);
    expectTx(h.sent, [flags('S.'), seq(t.seq), ack(301)]);
    h.seg({ ...back, flags: 'S.', seq: 300, ack: t.seq + 1 });
    expect(h.state(so)).to.equal('ESTABLISHED');
    h.sent.length = 0;
    h.seg({ ...back, seq: 301, ack: t.seq + 1, payload: 'x' });
    expect(h.read(so)).to.equal('x');
  });

  for (const [name, first, fin] of [
    ['text', { payload: 'abc' }, false],
    ['text and FIN', { flags: 'SF', payload: 'abc' }, true],
    ['FIN', { flags: 'SF' }, true],
  ] as const)
    for (const last of ['.', 'S.'])
      it(`simultaneous open with ${name} in the SYN, completed by ${last}`, () => {
        const so = h.connect(7);
        const t = h.take()[0]!.ip!.tcp!;
        const back = { sport: 7, dport: t.sport };
        const text = 'payload' in first ? first.payload : '';
        h.seg({ ...back, flags: 'S', ...first, seq: 300, mss: 1460 });
        expectTx(h.sent, [flags('S.'), seq(t.seq), ack(301)]);
        expect(h.state(so)).to.equal('SYN_RCVD');
        expect(h.read(so)).to.equal(EWOULDBLOCK);
        const end = 301 + text.length + (fin ? 1 : 0);
        h.seg({ ...back, flags: last, seq: last === '.' ? end : 300, ack: t.seq + 1 });
        expect(h.state(so)).to.equal(fin ? 'CLOSE_WAIT' : 'ESTABLISHED');
        expectTx(h.sent, [flags('.'), seq(t.seq + 1), ack(end)]);
        if (text !== '') expect(h.read(so)).to.equal(text);
        expect(h.read(so)).to.equal(fin ? null : EWOULDBLOCK);
      });

  it('sends data written after the connection is established', () => {
    const so = h.connect(7);
    const t = h.take()[0]!.ip!.tcp!;
    h.seg({ sport: 7, dport: t.sport, flags: 'S.', seq: 1, ack: t.seq + 1 });
    h.sent.length = 0;
    expect(h.write(so, 'abc')).to.equal(0);
    expectTx(h.sent, [flags('P.'), payload('abc'), seq(t.seq + 1)]);
  });

  it('returns EHOSTUNREACH from connect without a route', () => {
    const so = h.socket();
    expect(soconnect(so, sin('203.0.113.9', 80))).to.equal(EHOSTUNREACH);
    expect(h.count(TCPS_SYN_RECEIVED)).to.equal(0);
  });
});
