import { expect } from 'chai';
import { CUBIC_BETA } from '../../src/netinet/cc_cubic.ts';
import { tcp_set_cc_mod } from '../../src/netinet/cc.ts';
import { ESRCH } from '../../src/sys/errno.ts';
import type { Tcpcb } from '../../src/netinet/tcp_var.ts';
import { type Conn, TestHost } from './tcp_host.ts';

const size = 1448;

describe('tcp: congestion control algorithms', () => {
  let h: TestHost;
  let c: Conn;
  let tp: Tcpcb;
  beforeEach(() => {
    h = new TestHost();
    c = h.establish({ ts: { val: 1, ecr: 0 }, wscale: 8 });
    tp = h.tp(c.so);
  });
  afterEach(() => h.close());

  /**
   * Puts the connection into congestion avoidance with a window of `segs` segments and an SRTT of
   * `rttMs`.
   */
  const avoid = (segs: number, rttMs: number): void => {
    tp.snd_cwnd = segs * size;
    tp.t_srtt = rttMs << 5;
    tp.snd_wnd = 1 << 24;
    tp.snd_ssthresh = Math.floor(tp.snd_cwnd / 2);
  };
  /** One round trip in which the whole window is acknowledged, two segments per ACK. */
  const round = (rttMs: number): void => {
    for (let left = tp.snd_cwnd; left > 0; left -= 2 * size)
      tp.t_cc.ack_received(tp, Math.min(left, 2 * size), 1);
    h.advance(rttMs);
  };

  it('starts with CUBIC; new connections use net.inet.tcp.cc.algorithm', () => {
    expect(tp.t_cc.name).to.equal('cubic');
    const { sysctl } = h.vnet;
    const available = (): unknown => sysctl.find('net.inet.tcp.cc.available')!.get();
    // Counts the listener of the connection and the connection.
    expect(available()).to.equal(
      '\nCCmod           D PCB count\nnewreno           0\ncubic           * 2\n',
    );
    expect(sysctl.write('net.inet.tcp.cc.algorithm', 'vegas')).to.equal(ESRCH);
    expect(sysctl.find('net.inet.tcp.cc.algorithm')!.get()).to.equal('cubic');
    expect(sysctl.write('net.inet.tcp.cc.algorithm', 'newreno')).to.equal(0);
    const other = h.establish({ sport: 41000, dport: 81 });
    expect(h.tp(other.so).t_cc.name).to.equal('newreno');
    expect(tp.t_cc.name).to.equal('cubic');
    expect(tcp_set_cc_mod(tp, 'newreno')).to.equal(0);
    expect(tcp_set_cc_mod(tp, 'no such')).to.equal(ESRCH);
  });

  // RFC 9438, 4.2: K = cbrt((W_max - cwnd) / C). The window reaches W_max again after K seconds.
  it('reaches W_max again after K seconds, with a flat curve there and a steeper one later', () => {
    const rtt = 100;
    avoid(1000, rtt);
    tp.t_cc.cong_signal(tp, 8);
    expect(tp.snd_cwnd / size).to.equal(1000 * CUBIC_BETA);
    const k = Math.cbrt((1000 - 700) / 0.4);
    const at: number[] = [];
    for (let t = 0; t < 2 * k * 1000; t += rtt) {
      at.push(tp.snd_cwnd / size);
      round(rtt);
    }
    const when = (s: number): number => at[Math.round((s * 1000) / rtt)]!;
    expect(when(k)).to.be.within(985, 1010);
    const early = when(k * 0.3) - when(k * 0.2);
    const flat = when(k * 1.05) - when(k * 0.95);
    const late = when(k * 1.8) - when(k * 1.7);
    expect(flat).to.be.below(early / 5);
    expect(late).to.be.above(flat * 5);
    // The cubic is symmetric: after 2K the window is as far above W_max as it was below.
    expect(at.at(-1)! - 1000).to.be.within(200, 330);
  });

  it('sets W_max below the current window when a loss comes before the last W_max: fast convergence', () => {
    avoid(1000, 100);
    tp.t_cc.cong_signal(tp, 8);
    tp.t_cc.cong_signal(tp, 8);
    expect(tp.t_ccv.wMax).to.be.closeTo((700 * (1 + CUBIC_BETA)) / 2, 1);
  });

  // RFC 9438, 4.3: not slower than Reno on short paths.
  it('grows at least as fast as Reno where Reno is faster', () => {
    const rtt = 1;
    avoid(100, rtt);
    tp.t_cc.cong_signal(tp, 8);
    const before = tp.snd_cwnd / size;
    for (let i = 0; i < 100; i++) round(rtt);
    const alpha = (3 * (1 - CUBIC_BETA)) / (1 + CUBIC_BETA);
    // alpha segments per round trip up to 100 segments, then one segment per round trip.
    expect(tp.snd_cwnd / size - before).to.be.within(100 * alpha * 0.9, 100);
  });
});
