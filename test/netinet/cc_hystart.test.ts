/** HyStart++ in CUBIC's first slow start, RFC 9406, 4.2. */

import { expect } from 'chai';
import { CC_ECN, CC_NDUPACK, CC_RTO, tcp_set_cc_mod } from '../../src/netinet/cc.ts';
import { TCP_MAXWIN } from '../../src/netinet/tcp.ts';
import { tcpSeq } from '../../src/sys/types.ts';
import type { Tcpcb } from '../../src/netinet/tcp_var.ts';
import { TestHost } from './tcp_host.ts';

const size = 1448;
const MS = 1000;

describe('cc: HyStart++', () => {
  let h: TestHost;
  let tp: Tcpcb;
  const start = (): void => {
    h = new TestHost();
    const c = h.establish({ ts: { val: 1, ecr: 0 }, wscale: 8 });
    tp = h.tp(c.so);
    tp.snd_wnd = 1 << 24;
    tp.snd_cwnd = 20 * size;
    // Drop the round-trip sample of the handshake: it took no virtual time.
    tp.t_ccv.hystart!.start();
  };
  beforeEach(start);
  afterEach(() => h.close());
  const set = (leaf: string, v: number): void =>
    void expect(h.vnet.sysctl.write(`net.inet.tcp.cc.hystartplusplus.${leaf}`, String(v))).to.equal(
      0,
    );

  /**
   * Runs one round: sends a whole window, then acknowledges it, two segments per ACK. The first `n`
   * ACKs carry a round-trip sample in microseconds.
   */
  const round = (rtts: (i: number) => number, n = Infinity): void => {
    const segs = Math.floor(tp.snd_cwnd / size);
    tp.snd_nxt = tcpSeq(tp.snd_una + segs * size);
    tp.snd_max = tp.snd_nxt;
    for (let i = 0; 2 * i < segs; i++) {
      if (i < n) tp.t_cc.rttsample(tp, rtts(i));
      const acked = Math.min(2, segs - 2 * i) * size;
      tp.t_cc.ack_received(tp, acked, 1);
      tp.snd_una = tcpSeq(tp.snd_una + acked);
    }
  };
  const rtt = (ms: number) => (): number => ms * MS;
  const on = (): boolean => tp.t_ccv.hystart !== null;
  const css = (): boolean => tp.t_ccv.hystart?.conservative === true;

  it('uses the constants of RFC 9406, which are FreeBSD’s defaults', () => {
    const get = (leaf: string): unknown =>
      h.vnet.sysctl.find(`net.inet.tcp.cc.hystartplusplus.${leaf}`)!.get();
    const leaves = [
      'minrtt_thresh',
      'maxrtt_thresh',
      'n_rttsamples',
      'css_growth_div',
      'css_rounds',
    ];
    expect(leaves.map(get)).to.deep.equal([4000, 16000, 8, 4, 5]);
  });

  it('grows as in slow start while round-trip times stay the same', () => {
    round(rtt(50));
    const before = tp.snd_cwnd;
    round(rtt(53));
    expect([on(), css()]).to.deep.equal([true, false]);
    expect(tp.snd_cwnd).to.equal(2 * before);
  });

  // RttThresh = max(4 ms, min(lastRoundMinRTT / 8, 16 ms)).
  for (const [last, thresh] of [
    [8, 4],
    [32, 4],
    [80, 10],
    [128, 16],
    [400, 16],
  ] as const)
    it(`enters CSS when the RTT rises by ${thresh} ms over ${last} ms, and not for one microsecond less`, () => {
      round(rtt(last));
      round(() => (last + thresh) * MS - 1);
      expect(css()).to.equal(false);
      h.close();
      start();
      round(rtt(last));
      round(() => (last + thresh) * MS);
      expect(css()).to.equal(true);
    });

  it('uses the smallest RTT of a round with at least eight samples', () => {
    round(rtt(50));
    round(rtt(90), 7);
    expect(css()).to.equal(false);
    round((i) => (i === 3 ? 50 * MS : 200 * MS));
    expect(css()).to.equal(false);
    round((i) => (i === 3 ? 60 * MS : 200 * MS));
    expect(css()).to.equal(true);
  });

  it('grows a quarter as fast in CSS, for five rounds, and then ends slow start', () => {
    round(rtt(50));
    // CSS starts within this round, which counts as the first of the five.
    round(rtt(70));
    expect(css()).to.equal(true);
    for (let n = 2; n <= 5; n++) {
      const before = tp.snd_cwnd;
      expect([on(), tp.snd_ssthresh]).to.deep.equal([true, TCP_MAXWIN << 14]);
      round(rtt(70));
      // The last ACK of the fifth round ends slow start.
      if (n < 5) expect(tp.snd_cwnd / before).to.be.closeTo(1.25, 0.01);
    }
    expect(on()).to.equal(false);
    expect(tp.snd_ssthresh).to.be.closeTo(tp.snd_cwnd, size);
    const before = tp.snd_cwnd;
    round(rtt(70));
    expect(tp.snd_cwnd - before).to.be.below(2 * size);
  });

  it('resumes slow start when round trips get shorter again', () => {
    round(rtt(50));
    round(rtt(70));
    round(rtt(71));
    expect(css()).to.equal(true);
    round(rtt(69));
    expect([on(), css()]).to.deep.equal([true, false]);
    // The new baseline is the RTT of the CSS rounds, so the same RTT does not start CSS again.
    const before = tp.snd_cwnd;
    round(rtt(69));
    expect([css(), tp.snd_cwnd]).to.deep.equal([false, 2 * before]);
  });

  it('uses the values of css_growth_div, css_rounds and n_rttsamples', () => {
    set('css_growth_div', 2);
    set('css_rounds', 2);
    set('n_rttsamples', 3);
    round(rtt(50));
    round(rtt(90), 3);
    expect(css()).to.equal(true);
    const before = tp.snd_cwnd;
    round(rtt(90));
    expect(tp.snd_cwnd / before).to.be.closeTo(1.5, 0.02);
    expect(on()).to.equal(false);
  });

  it('ends at the first congestion signal of any type and does not restart', () => {
    for (const type of [CC_NDUPACK, CC_ECN, CC_RTO]) {
      expect(on()).to.equal(true);
      tp.t_cc.cong_signal(tp, type);
      expect(on()).to.equal(false);
      tp.t_cc.after_idle(tp);
      expect(tcp_set_cc_mod(tp, 'cubic')).to.equal(0);
      expect(on()).to.equal(tp.snd_ssthresh >= TCP_MAXWIN << 14);
      tp.snd_ssthresh = TCP_MAXWIN << 14;
      tcp_set_cc_mod(tp, 'cubic');
    }
  });

  it('does not run in NewReno', () => {
    tcp_set_cc_mod(tp, 'newreno');
    round(rtt(50));
    round(rtt(500));
    const before = tp.snd_cwnd;
    round(rtt(500));
    expect([on(), tp.snd_cwnd]).to.deep.equal([false, 2 * before]);
  });
});
