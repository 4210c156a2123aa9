import { expect } from 'chai';
import { TF2_PASSOUT } from '../../src/netinet/tcp_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { type Conn, TestHost } from './tcp_host.ts';

const MSS = 1460;
const TEXT = 'x'.repeat(30_000);

describe('tcp: data that the ACKs of a pass allow', () => {
  let h: TestHost;
  let a: Conn;
  beforeEach(() => {
    h = new TestHost();
    a = h.establish();
  });
  afterEach(() => h.close());

  /** The peer's ports of the data segments sent since the last call, in their order. */
  const ports = (): number[] =>
    h
      .take()
      .map((f) => f.ip!.tcp!)
      .filter((t) => t.payload.length > 0)
      .map((t) => t.dport);

  /** Writes more than the first window of `c`, and opens the congestion window. */
  const fill = (c: Conn): void => {
    h.write(c.so, TEXT);
    expect(ports()).to.have.length(10);
    h.tp(c.so).snd_cwnd = 64 * MSS;
  };

  it('is sent at the end of the pass, after all ACKs', () => {
    h.write(a.so, TEXT);
    expect(ports()).to.have.length(10);
    inPass(() => {
      for (const n of [2, 4, 6]) a.seg({ ack: a.ack + n * MSS });
      expect(ports(), 'in the pass').to.have.length(0);
    });
    expect(ports(), 'all full segments').to.have.length(10);
    expect(h.tp(a.so).t_flags2 & TF2_PASSOUT).to.equal(0);
  });

  it('leaves in turns of four packets, if several connections wait', () => {
    const b = h.establish({ sport: 40001, dport: 81 });
    fill(a);
    fill(b);
    inPass(() => {
      a.seg({ ack: a.ack + MSS });
      b.seg({ ack: b.ack + MSS });
    });
    const turn = (c: Conn, n = 4): number[] => Array.from({ length: n }, () => c.sport);
    const pass = [...turn(a), ...turn(b), ...turn(a), ...turn(b)];
    h.advance(0);
    expect(ports()).to.deep.equal([...pass, ...turn(a, 2), ...turn(b, 2)]);
    expect((h.tp(a.so).t_flags2 | h.tp(b.so).t_flags2) & TF2_PASSOUT).to.equal(0);
  });

  it('is not sent on a connection that ends in the pass', () => {
    fill(a);
    inPass(() => {
      a.seg({ ack: a.ack + MSS });
      a.seg({ flags: 'R' });
    });
    h.advance(1000);
    expect(ports()).to.have.length(0);
  });

  it('includes what the program writes in the pass', () => {
    h.write(a.so, 'first');
    expect(ports()).to.have.length(1);
    inPass(() => {
      a.seg({ ack: a.ack + 2 });
      h.write(a.so, 'x'.repeat(MSS));
      h.write(a.so, 'x'.repeat(MSS));
      expect(h.take()).to.have.length(0);
    });
    expect(ports()).to.have.length(2);
  });
});
