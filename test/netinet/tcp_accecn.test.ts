/** Accurate ECN, RFC 9768, without its option: net.inet.tcp.ecn.enable 3 and 4 of FreeBSD 14. */

import { expect } from 'chai';
import type { Socket } from '../../src/kern/uipc_socket.ts';
import { tcp_fill_info } from '../../src/netinet/tcp_sockopt.ts';
import { buildTcp, type Frame } from '../support/frames.ts';
import { PEER, TestHost, US } from './tcp_host.ts';

const size = 1460;
const NOTECT = 0;
const ECT1 = 1;
const ECT0 = 2;
const CE = 3;
/** How a SYN-ACK, and the ACK of a SYN-ACK, report the ECN field of the packet before: table 2. */
const report: Readonly<Record<number, string>> = {
  [NOTECT]: 'W',
  [ECT1]: 'EW',
  [ECT0]: 'A',
  [CE]: 'WA',
};
/** The ACE field as flags, 0 to 7. */
const ACE = ['', 'E', 'W', 'EW', 'A', 'EA', 'WA', 'EWA'];

describe('tcp: accurate ECN (RFC 9768)', () => {
  let h: TestHost;
  beforeEach(() => {
    h = new TestHost();
    h.vnet.sysctl.write('net.inet.tcp.cc.algorithm', 'newreno');
    enable(3);
  });
  afterEach(() => h.close());

  const enable = (n: number): void => {
    expect(h.vnet.sysctl.write('net.inet.tcp.ecn.enable', String(n))).to.equal(0);
  };
  const flags = (f: Frame): string => f.ip!.tcp!.flags;
  const seen = (): [string, number][] => h.take().map((f) => [flags(f), f.ip!.tos & 3]);
  const sorted = (letters: string): string =>
    Array.from('FSRP.UEWA')
      .filter((c) => letters.includes(c))
      .join('');

  /** The peer's side of a connection. */
  class Peer {
    seq = 1001;
    ack = 0;
    sport = 40000;
    dport = 80;

    send(fl: string, ecn = NOTECT, fields: object = {}): void {
      const ip = { src: PEER, dst: US, tos: ecn };
      const { sport, dport, seq, ack } = this;
      h.injectIp(buildTcp(ip, { sport, dport, seq, ack, flags: sorted(fl), ...fields }));
    }
  }

  /** Opens a connection to us; the SYN and the last ACK carry these flags and ECN fields. */
  const passive = (syn = 'SEWA', synEcn = NOTECT, last = '.W', reply = ''): Peer => {
    const head = h.listen(80);
    const c = new Peer();
    c.send(syn, synEcn, { seq: 1000, mss: size });
    const synAck = h.take()[0]!;
    if (reply !== '') expect([flags(synAck), synAck.ip!.tos & 3]).to.eql([reply, 0]);
    c.ack = synAck.ip!.tcp!.seq + 1;
    c.send(last);
    h.accept(head);
    h.take();
    return c;
  };

  /** Connects; the SYN-ACK has these flags and this ECN field. */
  const active = (synAck: string, ecn = NOTECT): Peer => {
    const so = h.connect(8080);
    const syn = h.take().at(-1)!.ip!.tcp!;
    const c = new Peer();
    Object.assign(c, { sport: 8080, dport: syn.sport, ack: syn.seq + 1 });
    c.send(synAck, ecn, { seq: 1000, mss: size });
    expect(h.state(so)).to.equal('ESTABLISHED');
    return c;
  };
  const newest = (): Socket => h.sockets.at(-1)!;

  for (const mode of [3, 4])
    for (const ecn of [NOTECT, ECT1, ECT0, CE])
      it(`enable=${mode}: the SYN-ACK reports a SYN with ECN field ${ecn}, and data counts from there`, () => {
        enable(mode);
        const c = passive('SEWA', ecn, '.W', sorted(`S.${report[ecn]}`));
        h.write(newest(), new Uint8Array(10));
        expect(seen()).to.eql([[sorted(`P.${ACE[ecn === CE ? 6 : 5]}`), ECT0]]);
        c.send('.WA', NOTECT, { ack: c.ack + 10 });
        expect(tcp_fill_info(h.tp(newest())).tcpi_options & 0x48).to.equal(0x40);
      });

  for (const synEcn of [NOTECT, ECT1, ECT0, CE])
    for (const ecn of [NOTECT, ECT1, ECT0, CE])
      it(`enable=3: accepts a SYN-ACK that reports ${synEcn}, and reports its ECN field ${ecn}`, () => {
        const so = h.connect(8080);
        expect(seen()).to.eql([['SEWA', 0]]);
        h.closeSocket(so);
        active(`S.${report[synEcn]}`, ecn);
        expect(seen()).to.eql([[sorted(`.${report[ecn]}`), 0]]);
        h.write(newest(), new Uint8Array(10 * size));
        const ace = ACE[ecn === CE ? 6 : 5]!;
        const rows = Array.from({ length: 10 }, (_, i) => [
          sorted(`${i === 9 ? 'P' : ''}.${ace}`),
          ECT0,
        ]);
        expect(seen()).to.eql(rows);
        expect(h.tp(newest()).t_scep).to.equal(synEcn === CE ? 6 : 5);
      });

  const plain: [string, string, number][] = [
    ['a SYN-ACK that accepts RFC 3168', 'S.E', ECT0],
    ['a SYN-ACK without ECN', 'S.', NOTECT],
    ['a SYN-ACK that reflects the flags of the SYN', 'S.EWA', NOTECT],
    ['a SYN-ACK with an undefined value', 'S.EA', NOTECT],
  ];
  for (const [what, synAck, ecn] of plain)
    it(`enable=3: falls back after ${what}`, () => {
      active(synAck);
      expect(seen()).to.eql([['.', 0]]);
      h.write(newest(), new Uint8Array(10));
      expect(seen()).to.eql([['P.', ecn]]);
    });

  const listeners: [number, string, string, string, number][] = [
    [3, 'SEW', 'S.E', 'P.', ECT0],
    [3, 'S', 'S.', 'P.', NOTECT],
    [3, 'SWA', 'S.W', 'P.EA', ECT0],
    [4, 'SE', 'S.W', 'P.EA', ECT0],
    [1, 'SEWA', 'S.E', 'P.', ECT0],
    [2, 'SEWA', 'S.E', 'P.', ECT0],
    [2, 'SWA', 'S.', 'P.', NOTECT],
    [0, 'SEWA', 'S.', 'P.', NOTECT],
  ];
  for (const [mode, syn, synAck, data, ecn] of listeners)
    it(`enable=${mode}: answers ${syn} with ${synAck}`, () => {
      enable(mode);
      passive(syn, NOTECT, '.', synAck);
      h.write(newest(), new Uint8Array(10));
      expect(seen()).to.eql([[data, ecn]]);
    });

  it('enable=4 requests no ECN', () => {
    enable(4);
    h.connect(8080);
    expect(seen()).to.eql([['S', 0]]);
  });

  it('stops asking, and stops accepting, after retransmissions', () => {
    h.connect(8080);
    h.advance(4000);
    expect(seen().map(([f]) => f)).to.eql(['SEWA', 'SEWA', 'S']);
    h.listen(80);
    const c = new Peer();
    c.send('SEWA', NOTECT, { seq: 1000 });
    h.advance(4000);
    const synAcks = seen().map(([f]) => f);
    expect(synAcks.filter((f) => f.includes('.'))).to.eql(['S.W', 'S.W', 'S.']);
  });

  it('counts CE marks of all segments modulo 8, without an immediate ACK for each', () => {
    const c = passive();
    const acks: string[] = [];
    for (let n = 0; n < 20; n++) {
      c.send('.EA', n % 2 === 0 ? CE : ECT0, { payload: 'x'.repeat(100) });
      c.seq += 100;
      acks.push(...h.take().map(flags));
    }
    // Every second segment is acknowledged; 5, then one more mark in each pair.
    expect(acks).to.eql([6, 7, 0, 1, 2, 3, 4, 5, 6, 7].map((n) => sorted(`.${ACE[n]}`)));
    expect(h.stat.tcps_ecn_rcvce).to.equal(10);
  });

  it('reduces the window for marks that the peer reports, once per round trip', () => {
    const c = passive();
    const tp = h.tp(newest());
    h.write(newest(), new Uint8Array(10 * size));
    expect(tp.snd_cwnd).to.equal(10 * size);
    const at = (n: number): object => ({ ack: c.ack + n * size });
    c.send('.EA', NOTECT, at(2));
    const { snd_cwnd } = tp;
    c.send('.WA', NOTECT, at(4));
    expect(tp.snd_cwnd).to.be.below(snd_cwnd);
    expect([tp.t_scep, h.stat.tcps_ecn_rcwnd]).to.eql([6, 1]);
    c.send('.EWA', NOTECT, at(6));
    expect([tp.t_scep, h.stat.tcps_ecn_rcwnd]).to.eql([7, 1]);
    // CWR belongs to the counter and confirms nothing.
    h.take();
    h.write(newest(), new Uint8Array(100));
    h.advance(1000);
    expect(h.take().map((f) => flags(f).replace('P', ''))).to.include('.EA');
  });

  // RFC 9768, 3.2.2.5: the counter may wrap between two ACKs.
  it('assumes as many marks as possible when one ACK covers more than 7 segments', () => {
    const c = passive();
    const tp = h.tp(newest());
    tp.snd_cwnd = 20 * size;
    h.write(newest(), new Uint8Array(20 * size));
    c.send('.EA', NOTECT, { ack: c.ack + 10 * size });
    expect(tp.t_scep).to.equal(5 + 8);
    c.send('.WA', NOTECT, { ack: c.ack + 13 * size });
    expect(tp.t_scep).to.equal(5 + 9);
  });

  it('ignores the counter of an old ACK, and of one beyond the window', () => {
    const c = passive();
    const tp = h.tp(newest());
    h.write(newest(), new Uint8Array(4 * size));
    c.send('.EA', NOTECT, { ack: c.ack + 4 * size });
    c.send('.WA', NOTECT, { ack: c.ack + 2 * size });
    c.send('.WA', NOTECT, { ack: c.ack + 9 * size });
    c.send('.WA', NOTECT, { ack: c.ack + 4 * size, seq: c.seq + 100_000 });
    expect([tp.t_scep, h.stat.tcps_ecn_rcwnd]).to.eql([5, 0]);
  });

  it('sends the counter in challenge and keepalive ACKs, and ECE there with RFC 3168', () => {
    const c = passive();
    c.send('.EA', CE, { payload: 'x' });
    c.seq += 1;
    h.take();
    c.send('S');
    expect(seen()).to.eql([['.WA', 0]]);
    enable(1);
    const head = h.listen(81);
    const d = new Peer();
    d.dport = 81;
    d.send('SEW', NOTECT, { seq: 1000 });
    d.ack = h.take()[0]!.ip!.tcp!.seq + 1;
    d.send('.');
    h.accept(head);
    d.send('.', CE, { payload: 'x' });
    d.seq += 1;
    h.take();
    d.send('S');
    expect(seen()).to.eql([['.E', 0]]);
  });

  describe('simultaneous open', () => {
    const meet = (syn: string, ecn = NOTECT): Peer => {
      h.connect(8080);
      const ours = h.take()[0]!.ip!.tcp!;
      const c = new Peer();
      Object.assign(c, { sport: 8080, dport: ours.sport, ack: ours.seq + 1 });
      c.send(syn, ecn, { seq: 1000, mss: size, ack: 0 });
      return c;
    };
    const rows: [number, string, number, string, string, number][] = [
      [0, 'SEW', NOTECT, 'S.', 'P.', NOTECT],
      [1, 'SEW', NOTECT, 'S.E', 'P.', ECT0],
      [2, 'SEW', NOTECT, 'S.E', 'P.', ECT0],
      [2, 'SEWA', NOTECT, 'S.E', 'P.', ECT0],
      [1, 'S', NOTECT, 'S.', 'P.', NOTECT],
      [1, 'SE', NOTECT, 'S.', 'P.', NOTECT],
      [3, 'SEW', NOTECT, 'S.E', 'P.', ECT0],
      [3, 'SEWA', CE, 'S.WA', 'P.WA', ECT0],
      [4, 'SEWA', ECT0, 'S.A', 'P.EA', ECT0],
      [3, 'SWA', NOTECT, 'S.', 'P.', NOTECT],
    ];
    for (const [mode, syn, ecn, synAck, data, field] of rows)
      it(`enable=${mode}: answers ${syn} with ${synAck}`, () => {
        enable(mode);
        const c = meet(syn, ecn);
        expect(seen()).to.eql([[synAck, 0]]);
        c.send(data.includes('A') ? '.W' : '.');
        h.write(newest(), new Uint8Array(10));
        expect(seen()).to.eql([[data, field]]);
        expect(h.stat.tcps_ecn_rcwnd).to.equal(0);
      });

    it('accepts RFC 3168 in the first SYN-ACK alone', () => {
      enable(1);
      meet('SEW');
      h.advance(1500);
      expect(seen().map(([f]) => f)).to.eql(['S.E', 'S.']);
    });
  });
});
