import { expect } from 'chai';
import { IPPROTO_IP } from '../../src/kern/protosw.ts';
import { soSetInt } from '../../src/kern/uipc_sockopt.ts';
import { IP_TOS } from '../../src/netinet/ip_ctloutput.ts';
import { type Tcpcb, TF_FASTRECOVERY } from '../../src/netinet/tcp_var.ts';
import { buildTcp, type Frame } from '../support/frames.ts';
import { type Conn, PEER, TestHost, US } from './tcp_host.ts';

const size = 1460;

describe('tcp: ECN (RFC 3168)', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());

  const flags = (f: Frame): string => f.ip!.tcp!.flags;
  const ecn = (f: Frame): number => f.ip!.tos & 3;
  /** A passive connection whose peer asked for ECN in its SYN. */
  const agreed = (): Conn => {
    const head = h.listen(80);
    h.seg({ mss: 1460, flags: 'SEW', seq: 1000 });
    const synAck = h.take()[0]!;
    expect(flags(synAck)).to.equal('S.E');
    expect(ecn(synAck)).to.equal(0);
    const t = synAck.ip!.tcp!;
    h.seg({ seq: 1001, ack: t.seq + 1 });
    const so = h.accept(head);
    h.sent.length = 0;
    return {
      so,
      seq: 1001,
      ack: (t.seq + 1) >>> 0,
      seg: (fields: object) => h.seg({ seq: 1001, ack: (t.seq + 1) >>> 0, win: 65535, ...fields }),
    } as unknown as Conn;
  };
  const marked = (c: Conn, seq: number, payload: string, fl = '.'): void =>
    h.injectIp(
      buildTcp(
        { src: PEER, dst: US, tos: 3 },
        { sport: 40000, dport: 80, seq, ack: c.ack, payload, flags: fl },
      ),
    );

  it('accepts ECN but does not ask for it with net.inet.tcp.ecn.enable=2', () => {
    h.connect(8080);
    expect(flags(h.take()[0]!)).to.equal('S');
    agreed();
    expect(h.stat.tcps_ecn_shs).to.equal(1);
  });

  it('overwrites the ECN bits of IP_TOS once ECN is negotiated', () => {
    const c = agreed();
    expect(soSetInt(c.so, IPPROTO_IP, IP_TOS, 0x2b)).to.equal(0);
    h.write(c.so, 'abc');
    marked(c, 1001, 'x');
    h.advance(40);
    // ECT(0) on data, Not-ECT on the ACK; the other six bits come from IP_TOS.
    expect(h.take().map((f) => f.ip!.tos)).to.eql([0x2a, 0x28]);
  });

  it('refuses ECN with enable=0, asks for it with enable=1, and stops asking after lost SYNs', () => {
    const { sysctl } = h.vnet;
    sysctl.write('net.inet.tcp.ecn.enable', '0');
    h.listen(81);
    h.seg({ dport: 81, mss: 1460, flags: 'SEW', seq: 1 });
    expect(flags(h.take()[0]!)).to.equal('S.');
    sysctl.write('net.inet.tcp.ecn.enable', '1');
    h.connect(8080);
    const sent = (): string[] =>
      h
        .take()
        .map(flags)
        .filter((f) => !f.includes('.'));
    expect(sent()).to.deep.equal(['SEW']);
    h.advance(1000);
    expect(sent()).to.deep.equal(['SEW']);
    h.advance(3000);
    expect(sent()[0]).to.equal('S');
    expect(sysctl.write('net.inet.tcp.ecn.enable', '7')).to.not.equal(0);
  });

  it('sets ECT(0) on new data, and not on ACKs or retransmissions', () => {
    const c = agreed();
    h.write(c.so, new Uint8Array(100));
    expect(h.take().map(ecn)).to.deep.equal([2]);
    h.advance(1500);
    expect(ecn(h.take()[0]!)).to.equal(0);
    h.seg({ seq: 1001, ack: c.ack + 100, payload: 'hello' });
    h.advance(100);
    expect(h.take().map(ecn)).to.deep.equal([0]);
  });

  it('echoes a mark with ECE until the peer sends CWR', () => {
    const c = agreed();
    const ack = (): string => {
      h.advance(100);
      return flags(h.take().at(-1)!);
    };
    marked(c, 1001, 'marked');
    expect(ack()).to.equal('.E');
    h.seg({ seq: 1007, ack: c.ack, payload: 'more' });
    expect(ack()).to.equal('.E');
    h.seg({ seq: 1011, ack: c.ack, payload: 'slow', flags: '.W' });
    expect(ack()).to.equal('.');
    expect(h.stat.tcps_ecn_rcvce).to.equal(1);
  });

  it('halves its window once per round trip for ECE, and sends CWR', () => {
    h.vnet.sysctl.write('net.inet.tcp.cc.algorithm', 'newreno');
    const c = agreed();
    const tp = h.tp(c.so);
    h.write(c.so, new Uint8Array(8 * size));
    expect(h.take()).to.have.length(8);
    expect(tp.snd_cwnd).to.equal(10 * size);
    for (const n of [1, 2, 3]) c.seg({ ack: (c.ack + n * size) >>> 0, flags: '.E', win: 60000 });
    expect(tp.snd_cwnd).to.be.within(5 * size, 6 * size);
    expect(h.stat.tcps_ecn_rcwnd).to.equal(1);
    c.seg({ ack: (c.ack + 8 * size) >>> 0, win: 60000 });
    h.write(c.so, new Uint8Array(2 * size));
    const more = h.take();
    expect(flags(more[0]!)).to.include('W');
    expect(flags(more.at(-1)!)).to.not.include('W');
    expect(h.stat.tcps_sndrexmitpack).to.equal(0);
  });

  describe('with losses', () => {
    let c: Conn;
    let tp: Tcpcb;
    const at = (n: number): number => (c.ack + n * size) >>> 0;
    /** Acknowledges everything before segment `n`, with the TCP flags `fl`. */
    const ack = (n: number, fl = '.', fields: object = {}): void =>
      c.seg({ ack: at(n), flags: fl, ...fields });
    const begin = (segments: number): void => {
      h.vnet.sysctl.write('net.inet.tcp.cc.algorithm', 'newreno');
      h.vnet.sysctl.write('net.inet.tcp.sendspace', '262144');
      c = agreed();
      tp = h.tp(c.so);
      tp.snd_cwnd = segments * size;
      h.write(c.so, new Uint8Array(segments * size));
      expect(h.take()).to.have.length(segments);
    };
    const cwr = (): boolean[] =>
      h
        .take()
        .filter((f) => f.ip!.tcp!.payload.length > 0)
        .map((f) => flags(f).includes('W'));

    // RFC 3168, 6.1.2: one reduction for all congestion signals in one window of data.
    it('reduces the window once for a mark and a loss in the same window, and retransmits fast', () => {
      begin(20);
      ack(1, '.E');
      expect(tp.snd_ssthresh).to.equal(10 * size);
      for (let i = 0; i < 3; i++) ack(1, '.E');
      expect(h.take()[0]!.ip!.tcp!.seq).to.equal(at(1));
      expect(tp.snd_ssthresh).to.equal(10 * size);
      expect(h.stat.tcps_ecn_rcwnd).to.equal(1);
    });

    it('sends CWR after fast retransmit on the first new data only', () => {
      begin(10);
      h.write(c.so, new Uint8Array(10 * size));
      h.take();
      for (let i = 0; i < 3; i++) ack(0);
      expect(cwr()).to.not.include(true);
      ack(12); // limited transmit sent two of them
      expect(cwr()[0]).to.equal(true);
      ack(14);
      expect(cwr()).to.not.include(true);
    });

    it('sends CWR after a retransmission timeout, but not on retransmitted data', () => {
      begin(4);
      h.advance(3000);
      expect(cwr()).to.not.include(true);
      h.write(c.so, new Uint8Array(4 * size));
      ack(4);
      expect(cwr()[0]).to.equal(true);
    });

    // The peer cannot have received CWR before it acknowledges more than was in flight.
    it('does not halve again for an ECE sent before the peer could receive CWR', () => {
      begin(10);
      h.write(c.so, new Uint8Array(10 * size));
      h.take();
      for (let i = 0; i < 3; i++) ack(0, '.E');
      const { snd_ssthresh } = tp;
      ack(5, '.E');
      ack(10, '.E');
      expect(tp.t_flags & TF_FASTRECOVERY).to.equal(0);
      expect(tp.snd_ssthresh).to.equal(snd_ssthresh);
      ack(11, '.E');
      expect(tp.snd_ssthresh).to.be.below(snd_ssthresh);
    });
  });

  // The burst avoidance of RFC 6582 is for filled holes; a mark leaves no hole.
  it('keeps half its window when one ACK covers everything sent before the mark', () => {
    h.vnet.sysctl.write('net.inet.tcp.cc.algorithm', 'newreno');
    const c = agreed();
    const tp = h.tp(c.so);
    tp.snd_cwnd = 20 * size;
    h.write(c.so, new Uint8Array(20 * size));
    c.seg({ ack: (c.ack + size) >>> 0, flags: '.E', win: 60000 });
    c.seg({ ack: (c.ack + 20 * size) >>> 0, win: 60000 });
    expect(tp.snd_cwnd).to.be.within(10 * size, 12 * size);
  });

  // RFC 3168, 6.1.5: ignore CE on a segment outside the window.
  it('ignores CE and ECE on segments outside the window', () => {
    const c = agreed();
    const tp = h.tp(c.so);
    h.write(c.so, new Uint8Array(4 * size));
    const { snd_cwnd } = tp;
    h.take();
    c.seg({ seq: (1001 - 100000) >>> 0, flags: '.E' });
    marked(c, (1001 - 100000) >>> 0, 'old');
    expect(tp.snd_cwnd).to.equal(snd_cwnd);
    expect(h.stat.tcps_ecn_rcvce).to.equal(0);
    expect(h.take().map(flags).join()).to.not.include('E');
  });

  it('echoes a CE mark on the data that completes the handshake', () => {
    const head = h.listen(80);
    h.seg({ mss: 1460, flags: 'SEW', seq: 1000 });
    const t = h.take()[0]!.ip!.tcp!;
    marked({ ack: (t.seq + 1) >>> 0 } as Conn, 1001, 'request');
    h.accept(head);
    h.advance(100);
    expect(flags(h.take().at(-1)!)).to.equal('.E');
  });

  // RFC 3168, 6.1.1.1: a middlebox may drop a SYN-ACK with ECE.
  it('drops ECN from a retransmitted SYN-ACK, and after a repeated SYN without ECN', () => {
    h.listen(80);
    h.seg({ mss: 1460, flags: 'SEW', seq: 1000 });
    h.advance(8000);
    expect(h.take().map(flags)).to.deep.equal(['S.E', 'S.E', 'S.', 'S.']);
    h.seg({ sport: 40001, mss: 1460, flags: 'SEW', seq: 1000 });
    h.seg({ sport: 40001, mss: 1460, flags: 'S', seq: 1000 });
    expect(h.take().map(flags)).to.deep.equal(['S.E', 'S.']);
  });

  it('refuses ECN with a SYN cookie, which has no room for it', () => {
    h.listen(80);
    h.vnet.sysctl.write('net.inet.tcp.syncookies_only', '1');
    h.seg({ mss: 1460, flags: 'SEW', seq: 1000 });
    expect(h.take().map(flags)).to.deep.equal(['S.']);
  });
});
