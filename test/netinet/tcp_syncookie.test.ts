import { expect } from 'chai';
import * as fc from 'fast-check';
import { InConninfo } from '../../src/netinet/in_pcb.ts';
import {
  cookieSays,
  SYNCOOKIE_LIFETIME,
  syncookie_generate,
  syncookie_lookup,
} from '../../src/netinet/tcp_syncookie.ts';
import { TF_NOOPT, TF_RCVD_TSTMP, V_tcp } from '../../src/netinet/tcp_var.ts';
import { port, tcpSeq } from '../../src/sys/types.ts';
import { expectTx, flags, seq, type TcpInfo } from '../support/frames.ts';
import { addr } from './rig.ts';
import { TestHost } from './tcp_host.ts';

describe('tcp: SYN cookies (RFC 4987, 3.6)', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());

  const inc = (fport: number): InConninfo => {
    const c = new InConninfo();
    c.setLaddr(addr('192.0.2.2'));
    c.setFaddr(addr('192.0.2.1'));
    c.inc_lport = port(80);
    c.inc_fport = port(fport);
    return c;
  };

  it("encode the peer's options, rounded down", () => {
    const tcp = V_tcp(h.vnet);
    fc.assert(
      fc.property(
        fc.integer({ min: 216, max: 9000 }),
        fc.integer({ min: -1, max: 14 }),
        fc.boolean(),
        fc.integer(),
        fc.integer({ min: 1, max: 65535 }),
        (mss, wscale, sack, irs, fport) => {
          const iss = syncookie_generate(tcp, inc(fport), tcpSeq(irs), mss, wscale, sack);
          expect(syncookie_lookup(tcp, inc(fport), tcpSeq(irs), iss)).to.equal(true);
          expect(cookieSays.sack).to.equal(sack);
          expect(cookieSays.mss).to.be.within(Math.min(mss / 2.5, 216), mss);
          if (wscale < 0) expect(cookieSays.wscale).to.equal(-1);
          else expect(cookieSays.wscale).to.be.within(Math.max(Math.min(wscale - 2, 8), 0), wscale);
          // The cookie is invalid for another port and for another sequence number.
          const other = (fport % 65535) + 1;
          expect(syncookie_lookup(tcp, inc(other), tcpSeq(irs), iss)).to.equal(false);
          expect(syncookie_lookup(tcp, inc(fport), tcpSeq(irs + 1), iss)).to.equal(false);
        },
      ),
      { numRuns: 200, seed: 4987 },
    );
  });

  it('are valid for one to two lifetimes of a secret', () => {
    const tcp = V_tcp(h.vnet);
    const irs = tcpSeq(7);
    const iss = syncookie_generate(tcp, inc(1), irs, 1460, 6, true);
    h.advance(SYNCOOKIE_LIFETIME * 1000);
    expect(syncookie_lookup(tcp, inc(1), irs, iss)).to.equal(true);
    h.advance(SYNCOOKIE_LIFETIME * 1000);
    expect(syncookie_lookup(tcp, inc(1), irs, iss)).to.equal(false);
  });

  it('are guessed at most once in 20,000 random tries', () => {
    const tcp = V_tcp(h.vnet);
    syncookie_generate(tcp, inc(1), tcpSeq(7), 1460, 6, true);
    let hits = 0;
    for (let i = 0; i < 20_000; i++)
      if (syncookie_lookup(tcp, inc(1), tcpSeq(7), tcpSeq(Math.imul(i, 0x9e3779b1)))) hits++;
    expect(hits).to.be.at.most(1);
  });

  const syn = { flags: 'S', seq: 5, mss: 1400, wscale: 7, sackOk: true, ts: { val: 9, ecr: 0 } };
  /**
   * Fills the syncache until the first peer's entry is dropped; returns our SYN-ACK to that peer.
   */
  const flood = (): TcpInfo => {
    V_tcp(h.vnet).params.syncache_cachelimit = 50;
    h.seg(syn);
    const synAck = h.take()[0]!.ip!.tcp!;
    for (let i = 0; i < 200; i++) h.seg({ flags: 'S', seq: i, sport: 10000 + i });
    expect(h.take()).to.have.length(200);
    return synAck;
  };

  it('complete a connection whose entry was dropped in a SYN flood', () => {
    const head = h.listen(80);
    const t = flood();
    h.seg({ seq: 6, ack: t.seq + 1, ts: { val: 10, ecr: t.ts!.val }, payload: 'hello' });
    const so = h.accept(head);
    const tp = h.tp(so);
    expect(h.state(so)).to.equal('ESTABLISHED');
    expect(h.read(so)).to.equal('hello');
    expect([tp.t_maxseg, tp.snd_scale]).to.deep.equal([1400, 6 + 1]);
    expect(h.stat.tcps_sc_recvcookie).to.equal(1);
  });

  it('are refused without a recent overflow, and with net.inet.tcp.syncookies=0', () => {
    const head = h.listen(80);
    const t = flood();
    h.advance(16_000);
    h.take();
    h.seg({ seq: 6, ack: t.seq + 1 });
    expectTx(h.sent, [flags('R'), seq(t.seq + 1)]);
    h.vnet.sysctl.write('net.inet.tcp.syncookies', '0');
    const again = flood();
    h.seg({ seq: 6, ack: again.seq + 1 });
    expectTx(h.sent, [flags('R')]);
    expect(head.sol_comp).to.have.length(0);
  });

  it('need no syncache entries with net.inet.tcp.syncookies_only=1', () => {
    const head = h.listen(80);
    h.vnet.sysctl.write('net.inet.tcp.syncookies_only', '1');
    h.seg(syn);
    const t = h.take()[0]!.ip!.tcp!;
    expect(h.vnet.sysctl.find('net.inet.tcp.syncache.count')!.get()).to.equal(0);
    h.seg({ seq: 6, ack: t.seq + 2, ts: { val: 10, ecr: t.ts!.val } });
    expectTx(h.sent, [flags('R')]);
    expect(h.stat.tcps_sc_failcookie).to.equal(1);
    h.seg({ seq: 6, ack: t.seq + 1, ts: { val: 10, ecr: t.ts!.val } });
    h.accept(head);
  });

  it('give a listener with TCP_NOOPT a connection without options', () => {
    const head = h.listen(80);
    h.tp(head).t_flags |= TF_NOOPT;
    h.vnet.sysctl.write('net.inet.tcp.syncookies_only', '1');
    h.seg(syn);
    const t = h.take()[0]!.ip!.tcp!;
    expect(t.optionKinds).to.deep.equal([]);
    h.seg({ seq: 6, ack: t.seq + 1, ts: { val: 10, ecr: 0 } });
    const tp = h.tp(h.accept(head));
    expect(tp.t_flags & (TF_NOOPT | TF_RCVD_TSTMP)).to.equal(TF_NOOPT);
  });
});
