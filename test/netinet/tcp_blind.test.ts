/**
 * Blind attacks on a connection in every state: RST, SYN, data and ACK at all edges of both windows
 * (RFC 5961), and ICMP errors by the sequence number they quote (RFC 5927).
 */

import { expect } from 'chai';
import * as fc from 'fast-check';
import { sbspace } from '../../src/kern/uipc_sockbuf.ts';
import { tcpstates } from '../../src/netinet/tcp_fsm.ts';
import type { Tcpcb } from '../../src/netinet/tcp_var.ts';
import { ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ENOPROTOOPT } from '../../src/sys/errno.ts';
import { buildIcmp, buildIp4, type Frame } from '../support/frames.ts';
import { runs } from '../support/property.ts';
import { Conn, PEER, PEER_PORT, TestHost, US } from './tcp_host.ts';
import { reach } from './tcp_states.ts';

const u32 = (n: number): number => n >>> 0;
const HALF = 0x8000_0000;

/** A connection under attack, with its window edges and the state that an attack could change. */
class Target {
  readonly h: TestHost;
  readonly tp: Tcpcb;
  readonly c: Conn;

  constructor(h: TestHost, c: Conn) {
    this.h = h;
    this.c = c;
    this.tp = h.tp(c.so);
  }

  /** The receive window when a segment arrives: at least what was advertised. */
  get window(): number {
    const { tp } = this;
    return Math.max(sbspace(this.c.so.so_rcv), (tp.rcv_adv - tp.rcv_nxt) | 0, 0);
  }

  get state(): string {
    return tcpstates[this.tp.t_state];
  }

  /** The state that an accepted segment would change. */
  look(): unknown {
    const { tp, c } = this;
    return {
      state: this.state,
      rcvNxt: u32(tp.rcv_nxt),
      una: u32(tp.snd_una),
      max: u32(tp.snd_max),
      window: tp.snd_wnd,
      queued: tp.t_segq === null,
      readable: c.so.so_rcv.sb_ccc,
      unsent: c.so.so_snd.sb_ccc,
      error: c.so.so_error,
    };
  }

  /**
   * Expects `n` challenge ACKs with the current sequence and acknowledgment numbers, and no data.
   * `fin`: the answer to a segment without RST and SYN, which repeats a FIN that is not acknowledged.
   */
  expectChallenge(frames: Frame[], n: number, what: string, fin = false): void {
    const told = frames.map(({ ip }) => {
      const t = ip!.tcp!;
      return { flags: t.flags, seq: t.seq, ack: t.ack, len: t.payload.length };
    });
    const { tp } = this;
    const again = fin && ['FIN_WAIT_1', 'CLOSING', 'LAST_ACK'].includes(this.state);
    const at = u32(tp.snd_max - (again ? 1 : 0));
    const one = { flags: again ? 'F.' : '.', seq: at, ack: u32(tp.rcv_nxt), len: 0 };
    expect(told, what).to.deep.equal(Array.from({ length: n }, () => one));
  }
}

const STATES = Object.keys(reach);

/** A connection in `state`; the frames sent so far are discarded. */
function target(h: TestHost, state: string): Target {
  const t = new Target(h, reach[state]!(h));
  expect(t.state).to.equal(state);
  h.advance(100);
  h.sent.length = 0;
  return t;
}

interface Injection {
  readonly flags: string;
  readonly seq: number;
  readonly ack: number;
  readonly len: number;
}

/**
 * What RFC 9293, 3.10.7.4, with RFC 5961 and FreeBSD's reading of both allows a segment to do.
 * `dead`: the connection ends. `challenge`: one ACK, no other effect. `nothing`: no effect and no
 * answer. `rst`: one RST that the segment's sender accepts, no other effect. `synack`: our SYN-ACK
 * again. `quiet`: no effect, with or without one ACK. `open`: the segment is valid in both windows
 * and may have any effect.
 */
type Effect = 'dead' | 'challenge' | 'nothing' | 'rst' | 'synack' | 'quiet' | 'open';

/** The effect in SYN_RCVD: the ACK is checked first, and the SYN bit only repeats the peer's SYN. */
function allowedOpening(t: Target, i: Injection): Effect {
  const { tp } = t;
  const has = (flag: string): boolean => i.flags.includes(flag);
  if (has('.') && i.ack !== u32(tp.snd_max)) return 'rst';
  if (((i.seq - tp.irs) | 0) < 0) return 'rst';
  const syn = has('S') && i.seq === u32(tp.irs);
  const off = (i.seq - tp.rcv_nxt + (syn ? 1 : 0)) | 0;
  if (off > 0 && off + i.len > t.window && off >= t.window) return 'synack';
  if (has('.')) return 'open';
  if (i.len > 0 || has('F')) return 'open';
  return syn || off < 0 ? 'synack' : 'nothing';
}

function allowed(t: Target, i: Injection): Effect {
  const { tp } = t;
  const off = u32(i.seq - tp.rcv_nxt);
  const ahead = (off | 0) > 0;
  const has = (flag: string): boolean => i.flags.includes(flag);
  const fromAck = u32(i.seq - tp.last_ack_sent);
  if (has('R')) return fromAck === 0 ? 'dead' : fromAck < t.window ? 'challenge' : 'nothing';
  if (t.state === 'SYN_RCVD') return allowedOpening(t, i);
  if (has('S')) return 'challenge';
  // The right edge itself is not beyond the window for a segment without data.
  if (ahead && off >= t.window && off + i.len > t.window) return 'challenge';
  if (!has('.')) return 'quiet';
  const beyond = ((i.ack - tp.snd_max) | 0) > 0;
  const acks = (i.ack - tp.snd_una) | 0;
  // A segment before the window may be an old duplicate; its ACK is processed all the same.
  if (beyond || acks < -tp.max_sndwnd)
    return ahead || off === 0 || i.len === 0 ? 'challenge' : 'quiet';
  return 'open';
}

function toldOf(frames: Frame[]): { flags: string; seq: number; ack: number }[] {
  return frames.map(({ ip }) => {
    const { flags, seq, ack } = ip!.tcp!;
    return { flags, seq, ack };
  });
}

/**
 * Injects a segment and compares the effect with the allowed one. Returns false when the connection
 * is used up.
 */
function inject(t: Target, i: Injection): boolean {
  const { h, c } = t;
  const effect = allowed(t, i);
  const before = t.look();
  const what = `${t.state} ${JSON.stringify(i)} ${effect} of ${JSON.stringify(before)}`;
  c.seg({ flags: i.flags, seq: i.seq, ack: i.ack, payload: 'x'.repeat(i.len) });
  const frames = h.take();
  const fin = !/[RS]/.test(i.flags);
  switch (effect) {
    case 'open':
      return false;
    case 'dead':
      expect(t.state, what).to.equal('CLOSED');
      expect(frames, what).to.have.length(0);
      return false;
    case 'nothing':
      expect(frames, what).to.have.length(0);
      break;
    case 'challenge':
      t.expectChallenge(frames, 1, what, fin);
      break;
    case 'quiet':
      t.expectChallenge(frames, Math.min(frames.length, 1), what, fin);
      break;
    case 'rst': {
      const ends = i.len + (i.flags.match(/[SF]/g) ?? []).length;
      const rst = { flags: 'R.', seq: 0, ack: u32(i.seq + ends) };
      const one = i.flags.includes('.') ? { flags: 'R', seq: i.ack, ack: 0 } : rst;
      expect(toldOf(frames), what).to.deep.equal([one]);
      break;
    }
    case 'synack': {
      const one = { flags: 'S.', seq: u32(t.tp.iss), ack: u32(t.tp.rcv_nxt) };
      expect(toldOf(frames), what).to.deep.equal([one]);
      break;
    }
  }
  expect(t.look(), what).to.deep.equal(before);
  // Another test covers the rate limit of challenge ACKs. Reset it here; waiting would cause
  // retransmissions.
  t.tp.t_challenge_ack_cnt = 0;
  return true;
}

/** Offsets to try around each edge of both windows. */
const around = [-2, -1, 0, 1, 2];
function edges(t: Target): { seqs: number[]; acks: number[] } {
  const { tp } = t;
  const near = (at: number): number[] => around.map((d) => u32(at + d));
  const seqs = [tp.rcv_nxt, tp.rcv_nxt + t.window, tp.rcv_nxt + HALF, tp.rcv_nxt - t.window];
  const acks = [tp.snd_una, tp.snd_max, tp.snd_una - tp.max_sndwnd, tp.snd_una + HALF];
  return { seqs: seqs.flatMap(near), acks: acks.flatMap(near) };
}

describe('tcp: blind injections', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());

  for (const state of STATES) {
    it(`${state}: RSTs, SYNs and FINs at every window edge have the effect that RFC 5961 allows`, () => {
      let t = target(h, state);
      const n = edges(t).seqs.length;
      for (const flags of ['R', 'R.', 'S', 'S.', 'F', '', 'FPU']) {
        for (let k = 0; k < n; k++) {
          const { seqs } = edges(t);
          if (inject(t, { flags, seq: seqs[k]!, ack: u32(t.tp.snd_max), len: 0 })) continue;
          h.close();
          h = new TestHost();
          t = target(h, state);
        }
      }
    });

    it(`${state}: ACKs and data at every edge of both windows have the effect that RFC 5961 allows`, () => {
      let t = target(h, state);
      const { seqs, acks } = edges(t);
      for (let s = 0; s < seqs.length; s++) {
        for (let a = 0; a < acks.length; a++) {
          const e = edges(t);
          const i = { flags: '.', seq: e.seqs[s]!, ack: e.acks[a]!, len: (s + a) % 3 };
          if (allowed(t, i) === 'open') continue;
          if (inject(t, i)) continue;
          h.close();
          h = new TestHost();
          t = target(h, state);
        }
      }
    });
  }

  it('random sequences of segments in any state have the effect that RFC 5961 allows', function () {
    this.timeout(120_000);
    const pos = fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: -3, max: 3 }));
    const at = fc.oneof(pos, fc.integer({ min: 0, max: 0xffff_ffff }));
    const one = fc.record({
      flags: fc.constantFrom('R', 'R.', 'S', 'S.', '.', 'P.', 'F.', 'F', '', 'U.', 'SF', 'SR'),
      seq: at,
      ack: at,
      len: fc.constantFrom(0, 0, 1, 5, 536),
    });
    fc.assert(
      fc.property(fc.constantFrom(...STATES), fc.array(one, { maxLength: 12 }), (state, list) => {
        h.close();
        h = new TestHost();
        const t = target(h, state);
        for (const i of list) {
          const { tp } = t;
          const seqs = [tp.rcv_nxt, tp.rcv_nxt + t.window, tp.rcv_nxt + HALF, tp.rcv_nxt - 1000];
          const acks = [tp.snd_una, tp.snd_max, tp.snd_una - tp.max_sndwnd, tp.snd_una + HALF];
          const pick = (of: number[], p: typeof i.seq): number =>
            u32(typeof p === 'number' ? p : of[p[0]]! + p[1]);
          if (!inject(t, { ...i, seq: pick(seqs, i.seq), ack: pick(acks, i.ack) })) return;
        }
      }),
      runs(60),
    );
  });

  // net.inet.tcp.ack_war_cnt ACKs per ack_war_timewindow, shared by all causes.
  it('sends at most five challenge ACKs per second, all causes together', () => {
    const t = target(h, 'ESTABLISHED');
    const { tp, c } = t;
    const shots = [
      { flags: 'S', seq: 77 },
      { flags: 'R', seq: u32(tp.rcv_nxt + 5) },
      { flags: '.', ack: u32(tp.snd_max + 1) },
      { flags: '.', seq: u32(tp.rcv_nxt + HALF - 9), payload: 'x' },
    ];
    const before = t.look();
    for (let second = 0; second < 3; second++) {
      for (let n = 0; n < 40; n++) c.seg(shots[n % shots.length]!);
      t.expectChallenge(h.take(), 5, `second ${second}`);
      h.advance(1000);
      h.sent.length = 0;
    }
    expect(t.look()).to.deep.equal(before);
    expect(h.stat.tcps_challengeack).to.equal(15);
  });

  it('uses the limits in ack_war_cnt and ack_war_timewindow', () => {
    const t = target(h, 'ESTABLISHED');
    t.tp.t_tcp.params.ack_war_cnt = 2;
    t.tp.t_tcp.params.ack_war_timewindow = 100;
    for (let n = 0; n < 9; n++) t.c.seg({ flags: 'S' });
    t.expectChallenge(h.take(), 2, 'two');
    h.advance(100);
    for (let n = 0; n < 9; n++) t.c.seg({ flags: 'S' });
    t.expectChallenge(h.take(), 2, 'two more');
    t.tp.t_tcp.params.ack_war_cnt = 0;
    for (let n = 0; n < 9; n++) t.c.seg({ flags: 'S' });
    t.expectChallenge(h.take(), 9, 'no limit');
  });

  // RFC 7323, 3.2 and 5.2: a RST needs no timestamp, a SYN does. Its value may be any.
  it('drops segments without a timestamp, except RST, if tolerate_missing_ts is 0', () => {
    const c = h.establish({ ts: { val: 1000, ecr: 0 }, wscale: 4 });
    const t = new Target(h, c);
    t.tp.t_tcp.params.tolerate_missing_ts = false;
    const before = t.look();
    c.ts = undefined;
    c.seg({ payload: 'evil' });
    c.seg({ flags: 'F.' });
    c.seg({ flags: 'S', seq: 3 });
    expect(h.take()).to.have.length(0);
    c.seg({ flags: 'S', seq: 3, ts: { val: 1, ecr: 0 } });
    t.expectChallenge(h.take(), 1, 'SYN with an old timestamp');
    expect(t.look()).to.deep.equal(before);
    c.seg({ flags: 'R' });
    expect(t.state).to.equal('CLOSED');
    expect(c.so.so_error).to.equal(ECONNRESET);
  });

  it('SYN_SENT: accepts only a segment that acknowledges the SYN', () => {
    const so = h.connect(80);
    const syn = h.take()[0]!.ip!.tcp!;
    const shot = (flags: string, ack: number): Frame[] => {
      h.seg({ sport: 80, dport: syn.sport, flags, seq: 9, ack: u32(ack) });
      return h.take();
    };
    for (const d of [-HALF, -1, 0, 2, 1000]) {
      expect(shot('R.', syn.seq + d), `RST ${d}`).to.have.length(0);
      for (const flags of ['.', 'S.']) {
        const told = shot(flags, syn.seq + d).map((f) => [f.ip!.tcp!.flags, f.ip!.tcp!.seq]);
        expect(told, `${flags} ${d}`).to.deep.equal([['R', u32(syn.seq + d)]]);
      }
      expect(h.state(so)).to.equal('SYN_SENT');
    }
    expect(shot('R', syn.seq + 1)).to.have.length(0);
    expect(h.state(so)).to.equal('SYN_SENT');
    expect(shot('R.', syn.seq + 1)).to.have.length(0);
    expect(h.state(so)).to.equal('CLOSED');
    expect(so.so_error).to.equal(ECONNREFUSED);
  });

  it('syncache entry: checks a RST against the window, and accepts only the exact ACK', () => {
    h.listen(80);
    h.seg({ flags: 'S', seq: 1000 });
    const synAck = h.take()[0]!.ip!.tcp!;
    const answers = (fields: object): unknown[] => {
      h.seg(fields);
      return h.take().map((f) => [f.ip!.tcp!.flags, f.ip!.tcp!.seq, f.ip!.tcp!.ack]);
    };
    const challenge = [['.', u32(synAck.seq + 1), 1001]];
    for (const seq of [999, 1000, 1001 + synAck.win, u32(1001 + HALF)])
      expect(answers({ flags: 'R', seq }), `RST ${seq}`).to.deep.equal([]);
    for (const seq of [1002, 1000 + synAck.win])
      expect(answers({ flags: 'R', seq }), `RST ${seq}`).to.deep.equal(challenge);
    expect(h.stat.tcps_sc_reset).to.equal(0);
    expect(answers({ flags: 'R', seq: 1001 })).to.deep.equal([]);
    expect(h.stat.tcps_sc_reset).to.equal(1);
    for (const d of [-1, 0, 2]) {
      h.seg({ flags: 'S', seq: 1000 });
      const ack = u32(h.take()[0]!.ip!.tcp!.seq + d);
      expect(answers({ seq: 1001, ack }), `ACK ${d}`).to.deep.equal([['R', ack, 0]]);
    }
    expect(h.stat.tcps_sc_badack).to.equal(3);
  });

  // RFC 1337: a RST does not end TIME_WAIT. RFC 9293, 3.6.1: a SYN above RCV.NXT opens a new
  // connection.
  it('TIME_WAIT: ignores RSTs, and accepts only a SYN above RCV.NXT', () => {
    const t = target(h, 'FIN_WAIT_2');
    const { c, tp } = t;
    c.data('', { flags: 'F.' });
    h.sent.length = 0;
    expect(t.state).to.equal('TIME_WAIT');
    for (const d of [-1, 0, 1, 100]) c.seg({ flags: 'R', seq: u32(tp.rcv_nxt + d) });
    expect(h.take()).to.have.length(0);
    for (const d of [-HALF, -1, 0]) {
      c.seg({ flags: 'S', seq: u32(tp.rcv_nxt + d) });
      expect(h.take(), `SYN ${d}`).to.have.length(0);
    }
    expect(t.state).to.equal('TIME_WAIT');
    c.seg({ flags: 'S', seq: u32(tp.rcv_nxt + 1) });
    expect(t.state).to.equal('CLOSED');
    expect(h.take().map((f) => f.ip!.tcp!.flags)).to.deep.equal(['S.']);
  });
});

describe('tcp: ICMP errors', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());

  /**
   * An ICMP error that quotes our segment at `seq`. "Fragmentation needed" carries an MTU of 400.
   */
  const icmp = (type: number, code: number, sport: number, dport: number, seq: number): void => {
    const quoted = new Uint8Array(28);
    quoted.set(buildIp4({ src: US, dst: PEER, df: true, len: 576 }, 6, new Uint8Array(8)));
    const view = new DataView(quoted.buffer);
    view.setUint16(20, sport);
    view.setUint16(22, dport);
    view.setUint32(24, seq);
    const error = buildIcmp({
      type,
      code,
      seq: type === 3 && code === 4 ? 400 : 0,
      payload: quoted,
    });
    h.injectIp(buildIp4({ src: '192.0.2.77', dst: US }, 1, error));
  };
  // Type, code, soft error (0: none) for a quoted segment in flight in a synchronized state. The
  // whole table is in tcp_icmp.test.ts.
  const errors: [number, number, number][] = [
    [3, 0, 0],
    [3, 1, 0],
    [3, 2, 0],
    [3, 3, 0],
    [3, 13, 0],
    [4, 0, 0],
    [5, 1, 0],
    [11, 0, 0],
    [12, 0, ENOPROTOOPT],
  ];

  // In ESTABLISHED, "unreachable" only makes the stack look for another route.
  const other = new Map([
    [300, EHOSTUNREACH],
    [301, EHOSTUNREACH],
  ]);

  for (const state of STATES.slice(1)) {
    it(`${state}: stores a soft error for a quoted segment in flight, and does not end the connection`, () => {
      const t = target(h, state);
      const { tp } = t;
      const una = u32(tp.snd_una);
      const flight = u32(tp.snd_max - una);
      const before = t.look();
      const offs = [-1, 0, 1, flight - 1, flight, flight + 1, -HALF, HALF - 1, 100_000, -100_000];
      for (const off of offs) {
        for (const [type, code, soft] of errors) {
          tp.t_softerror = 0;
          const inside = off >= 0 && off < flight;
          icmp(type, code, 80, PEER_PORT, u32(una + off));
          const noted =
            soft === 0 && state !== 'ESTABLISHED' ? (other.get(code + 100 * type) ?? 0) : soft;
          expect(tp.t_softerror, `${type}/${code} at ${off}`).to.equal(inside ? noted : 0);
          expect(t.look(), `${type}/${code} at ${off}`).to.deep.equal(before);
          icmp(type, code, 80, PEER_PORT + 1, una);
        }
        if (off >= 0 && off < flight) continue;
        icmp(3, 4, 80, PEER_PORT, u32(una + off));
        expect(tp.t_maxseg, `MTU at ${off}`).to.equal(1460);
      }
      expect(h.take()).to.have.length(0);
      if (flight === 0) return;
      icmp(3, 4, 80, PEER_PORT, una);
      expect(tp.t_maxseg, 'MTU').to.equal(400 - 40);
    });
  }

  it('SYN_SENT: is refused by an error that quotes the SYN, and by no other', () => {
    const so = h.connect(80);
    const syn = h.take()[0]!.ip!.tcp!;
    for (const off of [-1, 1, 2, -HALF, 70_000])
      for (const [type, code] of errors) icmp(type, code, syn.sport, 80, u32(syn.seq + off));
    const soft: [number, number][] = [
      [3, 0],
      [3, 1],
      [4, 0],
      [5, 1],
      [12, 0],
    ];
    for (const [type, code] of soft) icmp(type, code, syn.sport, 80, syn.seq);
    expect(h.state(so)).to.equal('SYN_SENT');
    icmp(3, 3, syn.sport, 80, syn.seq);
    expect(h.state(so)).to.equal('CLOSED');
    expect(so.so_error).to.equal(ECONNREFUSED);
  });
});
