/** Settings that change what a peer sees, and edges that they guard; defaults are FreeBSD 14's. */

import { expect } from 'chai';
import { IPPROTO_IP } from '../../src/kern/protosw.ts';
import {
  SO_REUSEPORT_LB,
  sobind,
  soconnect,
  solisten,
  type Socket,
} from '../../src/kern/uipc_socket.ts';
import { soSetInt } from '../../src/kern/uipc_sockopt.ts';
import { IP_PORTRANGE } from '../../src/netinet/ip_ctloutput.ts';
import { TCPS_TIME_WAIT } from '../../src/netinet/tcp_fsm.ts';
import { EADDRINUSE, ECONNRESET } from '../../src/sys/errno.ts';
import { ack, expectTx, flags, payload, seq } from '../support/frames.ts';
import { type Conn, PEER, sin, TestHost } from './tcp_host.ts';

describe('tcp: settings', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());
  const set = (leaf: string, v: number): void =>
    void expect(h.vnet.sysctl.write(`net.inet.tcp.${leaf}`, String(v))).to.equal(0);
  const get = (leaf: string): unknown => h.vnet.sysctl.find(`net.inet.tcp.${leaf}`)!.get();

  it('defaults', () => {
    const off = [
      'blackhole_local',
      'insecure_rst',
      'insecure_syn',
      'rexmit_drop_options',
      'drop_synfin',
    ];
    for (const leaf of off) expect(get(leaf), leaf).to.equal(0);
    expect(get('tolerate_missing_ts')).to.equal(1);
  });

  it('tolerate_missing_ts: segments without the timestamp that was agreed upon', () => {
    const c = h.establish({ ts: { val: 100, ecr: 0 } });
    c.ts = undefined;
    c.data('abc');
    expect(h.read(c.so)).to.equal('abc');
    set('tolerate_missing_ts', 0);
    c.seg({ payload: 'def' });
    expect(h.read(c.so)).to.equal(35);
  });

  it('insecure_rst, insecure_syn: in the window is enough', () => {
    const c = h.establish();
    set('insecure_rst', 1);
    c.seg({ flags: 'R', seq: c.seq + 100_000 });
    expect(c.state).to.equal('ESTABLISHED');
    c.seg({ flags: 'R', seq: c.seq + 100 });
    expect(c.state).to.equal('CLOSED');
    const d = h.establish({ sport: 41000, dport: 81 });
    set('insecure_syn', 1);
    d.seg({ flags: 'S', seq: d.seq - 5000 });
    expectTx(h.sent, [flags('.')]);
    d.seg({ flags: 'S', seq: d.seq + 10 });
    expectTx(h.sent, [flags('R.')]);
    expect([d.state, d.so.so_error]).to.eql(['CLOSED', ECONNRESET]);
  });

  it('rexmit_drop_options: the third SYN has only an MSS', () => {
    set('rexmit_drop_options', 1);
    h.connect(7);
    const options = (): unknown => {
      for (let i = 0; i < 100 && h.sent.length === 0; i++) h.advance(100);
      const t = h.take()[0]!.ip!.tcp!;
      return [t.mss !== undefined, t.wscale !== undefined, t.ts !== undefined];
    };
    expect(options()).to.eql([true, true, true]);
    for (const all of [true, true, false, false]) expect(options()).to.eql([true, all, all]);
  });

  it('blackhole spares packets of our own unless blackhole_local', () => {
    set('blackhole', 2);
    h.seg({ flags: 'S', seq: 1, dport: 999 });
    expectTx(h.sent);
    for (const local of [0, 1]) {
      set('blackhole_local', local);
      const so = h.socket();
      soconnect(so, sin('127.0.0.1', 999));
      h.advance(0);
      expect(so.so_error !== 0).to.equal(local === 0);
    }
  });

  it('log_in_vain: 1 tells of SYNs to closed ports, 2 of everything', () => {
    const said = (level: number): string[] => {
      set('log_in_vain', level);
      h.console.length = 0;
      h.seg({ flags: 'S', seq: 1, dport: 999 });
      h.seg({ flags: 'F.', seq: 1, ack: 1, dport: 999 });
      return [...h.console];
    };
    const line = (tcpflags: string): string =>
      `TCP: [192.0.2.1]:40000 to [192.0.2.2]:999 tcpflags ${tcpflags}; ` +
      'tcp_input: Connection attempt to closed port';
    expect(said(0)).to.deep.equal([]);
    expect(said(1)).to.deep.equal([line('0x2')]);
    expect(said(2)).to.deep.equal([line('0x2'), line('0x11')]);
  });

  describe('TIME_WAIT', () => {
    let c: Conn;
    beforeEach(() => {
      c = h.establish({ seq: 100_000, ts: { val: 1000, ecr: 0 } });
      h.closeSocket(c.so);
      c.seg({ ack: c.ack + 1 });
      c.seg({ flags: 'F.', ack: c.ack + 1 });
      h.take();
    });

    // RFC 6191.
    it('gives way to a SYN with a later timestamp, whatever its number', () => {
      c.seg({ flags: 'S', seq: c.seq - 5000, ts: { val: 1000, ecr: 0 } });
      expectTx(h.sent, [flags('.')]);
      expect(h.count(TCPS_TIME_WAIT)).to.equal(1);
      c.seg({ flags: 'S', seq: c.seq - 5000, ts: { val: 1001, ecr: 0 } });
      expectTx(h.sent, [flags('S.'), ack(c.seq - 4999)]);
      expect(h.count(TCPS_TIME_WAIT)).to.equal(0);
    });

    it('ends after 2 * net.inet.tcp.msl', () => {
      set('msl', 100);
      c.seg({ flags: 'F.', ack: c.ack + 1 });
      h.advance(199);
      expect(h.count(TCPS_TIME_WAIT)).to.equal(1);
      h.advance(1);
      expect(h.count(TCPS_TIME_WAIT)).to.equal(0);
    });
  });

  it('data and FIN in a SYN: not kept by a listener, kept while connecting', () => {
    const head = h.listen(80);
    h.seg({ flags: 'SF', seq: 1000, payload: 'early' });
    expectTx(h.sent, [flags('S.'), ack(1001)]);
    expect(head.sol_comp).to.have.length(0);
    const so = h.connect(7);
    const syn = h.take()[0]!.ip!.tcp!;
    const peer = { sport: 7, dport: syn.sport };
    h.seg({ ...peer, flags: 'SF.', seq: 5000, ack: syn.seq + 1, payload: 'early' });
    expect(h.state(so)).to.equal('CLOSE_WAIT');
    expectTx(h.sent, [flags('.'), seq(syn.seq + 1), ack(5007), payload(0)]);
    expect([h.read(so), h.read(so)]).to.eql(['early', null]);
  });

  it('a peer that has forgotten us: challenge, its RST, ECONNRESET', () => {
    const c = h.establish();
    // It starts anew with the same ports and another number: RFC 9293, figure 9, and RFC 5961, 4.
    c.seg({ flags: 'S', seq: 77 });
    expectTx(h.sent, [flags('.'), seq(c.ack), ack(c.seq)]);
    c.seg({ flags: 'R', seq: c.seq });
    expect([c.state, c.so.so_error]).to.eql(['CLOSED', ECONNRESET]);
  });

  it('IP_PORTRANGE: the range of a port that nobody named', () => {
    for (const [range, from, to] of [
      [0, 10_000, 65_535],
      [1, 49_152, 65_535],
      [2, 600, 1023],
    ] as const)
      for (let i = 0; i < 20; i++) {
        const so = h.socket();
        expect(soSetInt(so, IPPROTO_IP, IP_PORTRANGE, range)).to.equal(0);
        expect(soconnect(so, sin(PEER, 7))).to.equal(0);
        expect(so.so_proto.pr_sockaddr(so)!.port).to.be.within(from, to);
      }
  });

  it('SO_REUSEPORT_LB: listeners share a port, each peer has one of them', () => {
    const listener = (lb: boolean): [Socket, number] => {
      const so = h.socket();
      if (lb) so.so_options |= SO_REUSEPORT_LB;
      const error = sobind(so, sin('0.0.0.0', 80));
      if (error === 0) solisten(so, 100);
      return [so, error];
    };
    const heads = [1, 2, 3].map(() => listener(true));
    expect(heads.map(([, error]) => error)).to.eql([0, 0, 0]);
    expect(listener(false)[1]).to.equal(EADDRINUSE);
    for (let sport = 41_000; sport < 41_060; sport++) {
      h.seg({ flags: 'S', seq: 1, sport });
      const t = h.take()[0]!.ip!.tcp!;
      h.seg({ seq: 2, ack: t.seq + 1, sport });
    }
    const shares = heads.map(([so]) => so.sol_comp.length);
    expect(shares.reduce((a, b) => a + b)).to.equal(60);
    for (const n of shares) expect(n).to.be.within(8, 32);
  });
});
