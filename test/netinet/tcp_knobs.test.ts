/**
 * Settings that change behaviour on the wire, and the limits they guard. Defaults are those of
 * FreeBSD 14.
 */

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
import { CC_ECN, CC_NDUPACK, cc_cong_signal } from '../../src/netinet/cc.ts';
import { IP_MINTTL, IP_PORTRANGE, IP_TOS, IP_TTL } from '../../src/netinet/ip_ctloutput.ts';
import { TCPS_TIME_WAIT } from '../../src/netinet/tcp_fsm.ts';
import { V_tcp } from '../../src/netinet/tcp_var.ts';
import { EADDRINUSE, ECONNRESET, EINVAL } from '../../src/sys/errno.ts';
import { counted, R_TCP_MINTTL } from '../../src/sys/reason.ts';
import { tcpSeq } from '../../src/sys/types.ts';
import { ack, buildTcp, expectTx, flags, payload, seq } from '../support/frames.ts';
import { type Conn, PEER, type Seg, sin, TestHost, US } from './tcp_host.ts';

describe('tcp: settings', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());
  const set = (leaf: string, v: number): void =>
    void expect(h.vnet.sysctl.write(`net.inet.tcp.${leaf}`, String(v))).to.equal(0);
  const get = (leaf: string): unknown => h.vnet.sysctl.find(`net.inet.tcp.${leaf}`)!.get();

  it('has the defaults of FreeBSD 14', () => {
    const off = [
      'blackhole_local',
      'insecure_rst',
      'insecure_syn',
      'insecure_ack',
      'isn_reseed_interval',
      'cc.abe',
      'cc.abe_frlossreduce',
      'rexmit_drop_options',
      'drop_synfin',
    ];
    for (const leaf of off) expect(get(leaf), leaf).to.equal(0);
    for (const leaf of [
      'tolerate_missing_ts',
      'rfc1323',
      'ts_offset_per_conn',
      'sack.revised',
      'nolocaltimewait',
    ])
      expect(get(leaf), leaf).to.equal(1);
    expect([get('cc.newreno.beta'), get('cc.newreno.beta_ecn')]).to.eql([50, 80]);
    expect(get('functions_available')).to.equal(
      `\nStack                           D Alias                            PCB count\n` +
        'freebsd                         * freebsd                          0\n',
    );
  });

  it('tolerate_missing_ts: accepts segments without the negotiated timestamp if 1, drops them if 0', () => {
    const c = h.establish({ ts: { val: 100, ecr: 0 } });
    c.ts = undefined;
    c.data('abc');
    expect(h.read(c.so)).to.equal('abc');
    set('tolerate_missing_ts', 0);
    c.seg({ payload: 'def' });
    expect(h.read(c.so)).to.equal(35);
  });

  it('insecure_rst, insecure_syn: a RST or SYN anywhere in the window ends the connection', () => {
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

  it('rexmit_drop_options: sends only the MSS option from the third retransmission of a SYN on', () => {
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

  it('blackhole: still answers local packets, unless blackhole_local is 1', () => {
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

  it('blackhole: suppresses more kinds of RST with each value', () => {
    h.listen(80);
    /**
     * Whether there is an answer to a SYN to a closed port, another segment to it, an ACK to the
     * listener.
     */
    const answers = (level: number): boolean[] => {
      set('blackhole', level);
      return [
        { flags: 'S', seq: 1, dport: 999 },
        { flags: 'F', seq: 1, dport: 999 },
        { flags: '.', seq: 1, ack: 1, dport: 80 },
      ].map((fields) => {
        h.seg(fields);
        return h.take().length > 0;
      });
    };
    expect([0, 1, 2, 3].map(answers)).to.eql([
      [true, true, true],
      [false, true, true],
      [false, false, true],
      [false, false, false],
    ]);
    expect(h.vnet.sysctl.write('net.inet.tcp.blackhole', '4')).not.to.equal(0);
    // The listener still accepts connections.
    h.seg({ flags: 'S', seq: 1, dport: 80 });
    expectTx(h.sent, [flags('S.')]);
  });

  it('rfc1323: 0 disables both options, 1 enables both, 2 window scaling only, 3 timestamps only', () => {
    const asked = (): [boolean, boolean] => {
      const t = h.take()[0]!.ip!.tcp!;
      return [t.wscale !== undefined, t.ts !== undefined];
    };
    for (const [v, want] of [
      [0, [false, false]],
      [1, [true, true]],
      [2, [true, false]],
      [3, [false, true]],
    ] as const) {
      set('rfc1323', v);
      h.connect(7);
      expect(asked(), `${v}, our SYN`).to.eql(want);
      h.listen(80 + v);
      h.seg({ flags: 'S', seq: 1, dport: 80 + v, mss: 1460, wscale: 3, ts: { val: 1, ecr: 0 } });
      expect(asked(), `${v}, our SYN-ACK`).to.eql(want);
    }
  });

  // RFC 5961, 5.2.
  it('insecure_ack: accepts an ACK that is older than any window', () => {
    const c = h.establish();
    c.seg({ ack: c.ack - 70_000, payload: 'abc' });
    expect(h.read(c.so)).to.equal(35);
    h.take();
    set('insecure_ack', 1);
    c.seg({ ack: c.ack - 70_000, payload: 'abc' });
    expect(h.read(c.so)).to.equal('abc');
    // An ACK of data never sent is refused with either value.
    c.seg({ seq: c.seq + 3, ack: c.ack + 1, payload: 'def' });
    expect(h.read(c.so)).to.equal(35);
  });

  it('nolocaltimewait: connections to a local address skip TIME_WAIT', () => {
    for (const [v, waits] of [
      [1, 0],
      [0, 1],
    ] as const) {
      set('nolocaltimewait', v);
      const head = h.listen(80);
      const so = h.socket();
      soconnect(so, sin('127.0.0.1', 80));
      h.advance(0);
      const peer = h.accept(head);
      h.closeSocket(so);
      h.advance(0);
      h.closeSocket(peer);
      h.advance(0);
      expect(h.count(TCPS_TIME_WAIT), String(v)).to.equal(waits);
      h.closeSocket(head);
    }
    // Connections to other hosts still enter TIME_WAIT, also to those of the own network.
    set('nolocaltimewait', 1);
    const c = h.establish({ dport: 81 });
    h.closeSocket(c.so);
    c.seg({ flags: 'F.', ack: c.ack + 1 });
    expect(h.count(TCPS_TIME_WAIT)).to.equal(2);
  });

  it('isn_reseed_interval: draws a new secret for sequence numbers after the interval', () => {
    const { isn_secret } = V_tcp(h.vnet);
    const at = (ms: number): string => {
      h.advance(ms);
      h.connect(7);
      return isn_secret.join();
    };
    const first = at(0);
    expect(at(100_000)).to.equal(first);
    set('isn_reseed_interval', 10);
    const second = at(0);
    expect(second).not.to.equal(first);
    expect(at(9_999)).to.equal(second);
    expect(at(1)).not.to.equal(second);
  });

  it('ts_offset_per_conn: one timestamp offset per connection, or one per pair of hosts', () => {
    const offsets = (): number => {
      const tps = [h.connect(7), h.connect(8)].map((so) => h.tp(so));
      return new Set(tps.map((tp) => tp.ts_offset)).size;
    };
    expect(offsets()).to.equal(2);
    set('ts_offset_per_conn', 0);
    expect(offsets()).to.equal(1);
  });

  it('sack.revised=0: enters recovery after three duplicate ACKs, and sends no rescue retransmission', () => {
    set('sack.revised', 0);
    const c = h.establish({ ts: { val: 1, ecr: 0 }, wscale: 8, sackOk: true });
    const size = 1448;
    const tell = (n: number, ...blocks: [number, number][]): number[] => {
      const sack = blocks.map(([a, b]): [number, number] => [c.ack + a * size, c.ack + b * size]);
      c.seg({ ack: c.ack + n * size, ...(sack.length === 0 ? {} : { sack }) });
      return h.take().map((f) => ((f.ip!.tcp!.seq - c.ack) >>> 0) / size);
    };
    h.write(c.so, new Uint8Array(10 * size));
    h.take();
    expect(tell(0, [1, 6])).to.eql([]);
    expect(tell(0, [1, 6], [7, 8])).to.eql([]);
    // Everything below SACKed data counts as lost, even if little was SACKed.
    expect(tell(0, [1, 6], [7, 8.5])).to.eql([0]);
    expect(tell(0, [1, 6], [7, 9.5])).to.eql([6]);
    expect(tell(9.5)).to.eql([]);
  });

  describe('cc.newreno and cc.abe', () => {
    const reduce = (...signals: number[]): number => {
      set('cc.newreno.beta', 60);
      set('cc.newreno.beta_ecn', 90);
      h.vnet.sysctl.write('net.inet.tcp.cc.algorithm', 'newreno');
      const c = h.establish({ ts: { val: 1, ecr: 0 } });
      const tp = h.tp(c.so);
      tp.snd_wnd = tp.snd_cwnd = 100 * 1448;
      tp.snd_recover = tcpSeq(tp.snd_una - 1);
      for (const signal of signals) cc_cong_signal(tp, signal, tp.snd_una);
      return tp.snd_ssthresh / 1448;
    };

    it('beta sets the reduction for a loss', () => {
      expect(reduce(CC_NDUPACK)).to.equal(60);
    });
    it('without cc.abe, beta also sets the reduction for an ECN mark', () => {
      expect(reduce(CC_ECN)).to.equal(60);
    });
    // RFC 8511.
    it('with cc.abe, beta_ecn sets the reduction for an ECN mark', () => {
      set('cc.abe', 1);
      expect(reduce(CC_ECN)).to.equal(90);
    });
    it('a loss after the mark does not reduce the window again', () => {
      set('cc.abe', 1);
      expect(reduce(CC_ECN, CC_NDUPACK)).to.equal(90);
    });
    it('with cc.abe_frlossreduce, a loss after the mark reduces the window to beta', () => {
      set('cc.abe', 1);
      set('cc.abe_frlossreduce', 1);
      expect(reduce(CC_ECN, CC_NDUPACK)).to.equal(60);
    });
  });

  it('drop_synfin: drops SYN with FIN in an existing connection too', () => {
    const c = h.establish();
    const so = h.connect(7);
    const syn = h.take()[0]!.ip!.tcp!;
    set('drop_synfin', 1);
    c.seg({ flags: 'SF', seq: c.seq });
    h.seg({ sport: 7, dport: syn.sport, flags: 'SF.', seq: 5000, ack: syn.seq + 1 });
    expectTx(h.sent);
    expect(h.state(so)).to.equal('SYN_SENT');
    set('drop_synfin', 0);
    c.seg({ flags: 'SF', seq: c.seq });
    expectTx(h.sent, [flags('.')]);
    h.seg({ sport: 7, dport: syn.sport, flags: 'SF.', seq: 5000, ack: syn.seq + 1 });
    expect(h.state(so)).to.equal('CLOSE_WAIT');
  });

  // RFC 5082.
  it('IP_MINTTL: drops segments with a lower TTL', () => {
    const head = h.listen(80);
    const from = (ttl: number, fields: Seg): void =>
      h.injectIp(
        buildTcp({ src: PEER, dst: US, ttl }, { sport: 40_000, dport: 80, flags: '.', ...fields }),
        0,
      );
    expect(soSetInt(head, IPPROTO_IP, IP_MINTTL, 256)).to.equal(EINVAL);
    expect(soSetInt(head, IPPROTO_IP, IP_MINTTL, 255)).to.equal(0);
    from(254, { flags: 'S', seq: 1 });
    expectTx(h.sent);
    expect(counted(R_TCP_MINTTL)).to.equal(1);
    from(255, { flags: 'S', seq: 1 });
    const t = h.take()[0]!.ip!.tcp!;
    from(255, { seq: 2, ack: t.seq + 1 });
    const so = h.accept(head);
    // The connection inherits the listener's value.
    for (const ttl of [254, 255]) from(ttl, { seq: 2, ack: t.seq + 1, payload: String(ttl) });
    expect(h.read(so)).to.equal('255');
    h.advance(40); // the delayed ACK: a RST is compared with what was acknowledged
    from(1, { flags: 'R', seq: 5 });
    expect(h.state(so)).to.equal('ESTABLISHED');
    expect(soSetInt(so, IPPROTO_IP, IP_MINTTL, 0)).to.equal(0);
    from(1, { flags: 'R', seq: 5 });
    expect(h.state(so)).to.equal('CLOSED');
  });

  it('net.inet.ip.ttl: sets the TTL of new sockets, and of RSTs for closed ports', () => {
    h.vnet.sysctl.write('net.inet.ip.ttl', '77');
    h.connect(7);
    h.seg({ flags: 'S', seq: 1, dport: 999 });
    expect(h.take().map((f) => f.ip!.ttl)).to.eql([77, 77]);
  });

  it('log_debug logs each segment that a listener refuses, at most ten in a second', () => {
    h.listen(80);
    const all = (): void => {
      for (const f of ['.', 'F', 'S.', 'SF']) h.seg({ flags: f, seq: 1, ack: 1 });
    };
    set('drop_synfin', 1);
    all();
    expect(h.console).to.deep.equal([]);
    set('log_debug', 1);
    all();
    expect(h.console.map((line) => line.replace(/^.*tcpflags /, ''))).to.deep.equal([
      '0x10; tcp_input: ACK without an entry or a valid cookie',
      '0x1; tcp_input: neither SYN nor ACK for a listener',
      '0x12; tcp_input: SYN and ACK for a listener',
      '0x3; tcp_input: SYN from an address or with flags that are not accepted',
    ]);
    for (let i = 0; i < 10; i++) all();
    expect(h.console).to.have.lengthOf(10);
  });

  it('log_in_vain: 1 logs SYNs to closed ports, 2 all segments to closed ports', () => {
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

    // Unlike RFC 6191, a later timestamp alone does not suffice.
    it('drops a SYN not above RCV.NXT silently, whatever its timestamp', () => {
      for (const at of [c.seq - 5000, c.seq, c.seq + 1])
        for (const val of [999, 1000, 1001, 5000]) {
          c.seg({ flags: 'S', seq: at, ts: { val, ecr: 0 } });
          expectTx(h.sent);
        }
      expect(h.count(TCPS_TIME_WAIT)).to.equal(1);
      c.seg({ flags: 'S', seq: c.seq + 2, ts: { val: 1001, ecr: 0 } });
      expectTx(h.sent, [flags('S.'), ack(c.seq + 3)]);
      expect(h.count(TCPS_TIME_WAIT)).to.equal(0);
    });

    it('drops a segment without ACK silently', () => {
      for (const f of ['', 'F', 'P', 'U', 'SF'])
        for (const len of [0, 1, 100])
          c.seg({ flags: f, seq: c.seq + 1, payload: 'x'.repeat(len) });
      expectTx(h.sent);
      expect(h.count(TCPS_TIME_WAIT)).to.equal(1);
    });

    it('answers with the full window, the TOS and the TTL after close', () => {
      const w = h.establish({ sport: 42000, dport: 82, wscale: 3, ts: { val: 1, ecr: 0 } });
      const { sb_hiwat } = w.so.so_rcv;
      expect(soSetInt(w.so, IPPROTO_IP, IP_TTL, 7)).to.equal(0);
      expect(soSetInt(w.so, IPPROTO_IP, IP_TOS, 0x2b)).to.equal(0);
      h.closeSocket(w.so);
      w.seg({ ack: w.ack + 1 });
      h.take();
      const answer = (): unknown[] => {
        w.seg({ flags: 'F.', ack: w.ack + 1 });
        const [f, ...more] = h.take();
        expect(more).to.have.length(0);
        return [f!.ip!.tcp!.flags, f!.ip!.tcp!.win, f!.ip!.ttl, f!.ip!.tos & 0xfc];
      };
      // The ACK of the FIN rounds up; the answer to its repetition does not, as in FreeBSD.
      expect(answer()).to.deep.equal(['.', Math.ceil(sb_hiwat / 64), 7, 0x28]);
      expect(h.count(TCPS_TIME_WAIT)).to.equal(2);
      expect(answer()).to.deep.equal(['.', Math.floor(sb_hiwat / 64), 7, 0x28]);
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

  it('ignores data and FIN in a SYN to a listener, and accepts them in a SYN-ACK', () => {
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

  it('challenges a SYN from a restarted peer, and ends with ECONNRESET on its RST', () => {
    const c = h.establish();
    // The peer restarted with a new ISN on the same ports: RFC 9293, figure 9; RFC 5961, 4.
    c.seg({ flags: 'S', seq: 77 });
    expectTx(h.sent, [flags('.'), seq(c.ack), ack(c.seq)]);
    c.seg({ flags: 'R', seq: c.seq });
    expect([c.state, c.so.so_error]).to.eql(['CLOSED', ECONNRESET]);
  });

  it('IP_PORTRANGE: selects the range of automatically chosen ports', () => {
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

  it('SO_REUSEPORT_LB: listeners share a port, and each gets part of the connections', () => {
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
