/** HyStart++ of CUBIC's first slow start, against RFC 9406, 4.2. */

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
    // The handshake's round trip was none.
    tp.t_ccv.hystart!.start();
  };
  beforeEach(start);
  afterEach(() => h.close());
  const set = (leaf: string, v: number): void =>
    void expect(h.vnet.sysctl.write(`net.inet.tcp.cc.hystartplusplus.${leaf}`, String(v))).to.equal(
      0,
    );

  /** A round: the window is sent, then acknowledged, two segments an ACK; the first `n` tell of round trips, us. */
  const round = (rtts: (i: number) => number, n = Infinity): void => {
    const segs = Math.floor(tp.snd_cwnd / size);
    tp.snd_nxt = tcpSeq(tp.snd_una + segs * size);
    tp.snd_max = tp.snd_nxt;
    for (let i = 0; 2 * i < segs; i++) {
      if (i < n) tp.t_cc.rttsample(tp, rtts(i));
      const acked = Math.min(2, segs - 2 * i) * size;
      tp.t_cc.ack_received(tp, acked);
      tp.snd_una = tcpSeq(tp.snd_una + acked);
    }
  };
  const rtt = (ms: number) => (): number => ms * MS;
  const on = (): boolean => tp.t_ccv.hystart !== null;
  const css = (): boolean => tp.t_ccv.hystart?.conservative === true;

  it('has the RFC’s constants, which are FreeBSD’s defaults', () => {
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

  it('grows as slow start does while round trips stay what they were', () => {
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
    it(`a rise by ${thresh} ms over ${last} ms tells, a microsecond less does not`, () => {
      round(rtt(last));
      round(() => (last + thresh) * MS - 1);
      expect(css()).to.equal(false);
      h.close();
      start();
      round(rtt(last));
      round(() => (last + thresh) * MS);
      expect(css()).to.equal(true);
    });

  it('goes by the least of at least eight samples of a round', () => {
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
    // It begins within this round, which counts.
    round(rtt(70));
    expect(css()).to.equal(true);
    for (let n = 2; n <= 5; n++) {
      const before = tp.snd_cwnd;
      expect([on(), tp.snd_ssthresh]).to.deep.equal([true, TCP_MAXWIN << 14]);
      round(rtt(70));
      // The last ACK of the fifth ends it.
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
    // What was too long then is the measure now.
    const before = tp.snd_cwnd;
    round(rtt(69));
    expect([css(), tp.snd_cwnd]).to.deep.equal([false, 2 * before]);
  });

  it('css_growth_div, css_rounds and n_rttsamples are heard', () => {
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

  it('is over with the first congestion of any kind, and does not come back', () => {
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

  it('is not NewReno’s', () => {
    tcp_set_cc_mod(tp, 'newreno');
    round(rtt(50));
    round(rtt(500));
    const before = tp.snd_cwnd;
    round(rtt(500));
    expect([on(), tp.snd_cwnd]).to.deep.equal([false, 2 * before]);
  });
});
