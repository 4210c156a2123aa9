import { expect } from 'chai';
import { buildTcp, type Frame } from '../support/frames.ts';
import { type Conn, PEER, TestHost, US } from './tcp_host.ts';

const size = 1460;

describe('tcp: ECN (RFC 3168)', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());

  const flags = (f: Frame): string => f.ip!.tcp!.flags;
  const ecn = (f: Frame): number => f.ip!.tos & 3;
  /** A passive connection whose peer asked for ECN. */
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

  it('answers who asks and asks nobody: net.inet.tcp.ecn.enable is 2', () => {
    h.connect(8080);
    expect(flags(h.take()[0]!)).to.equal('S');
    agreed();
    expect(h.stat.tcps_ecn_shs).to.equal(1);
  });

  it('answers nobody with 0, asks with 1, and stops asking after a lost SYN', () => {
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

  it('marks new data as capable, not ACKs and not what is sent again', () => {
    const c = agreed();
    h.write(c.so, new Uint8Array(100));
    expect(h.take().map(ecn)).to.deep.equal([2]);
    h.advance(1500);
    expect(ecn(h.take()[0]!)).to.equal(0);
    h.seg({ seq: 1001, ack: c.ack + 100, payload: 'hello' });
    h.advance(100);
    expect(h.take().map(ecn)).to.deep.equal([0]);
  });

  it('echoes a mark until the peer says that it has slowed down', () => {
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

  it('halves its window once per round trip for echoes, and says so', () => {
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
});
