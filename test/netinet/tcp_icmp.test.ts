/**
 * ICMP errors about a connection's segments: the whole table of types, codes and states, with
 * net.inet.tcp.icmp_may_rst on and off. The values are those of icmp_errmap and tcp_ctlinput of
 * FreeBSD 14.
 */

import { expect } from 'chai';
import { SHUT_WR, soshutdown } from '../../src/kern/uipc_socket.ts';
import { addr } from './rig.ts';
import { inRouteAddGateway } from '../../src/netinet/in_fib.ts';
import { tcpstates } from '../../src/netinet/tcp_fsm.ts';
import {
  ECONNREFUSED,
  EHOSTUNREACH,
  EMSGSIZE,
  ENOPROTOOPT,
  type Errno,
} from '../../src/sys/errno.ts';
import { buildIcmp, buildIp4, buildTcp } from '../support/frames.ts';
import { type Conn, PEER, PEER_PORT, TestHost, US } from './tcp_host.ts';

/** The segment that an error quotes. */
interface Quoted {
  sport: number;
  dport: number;
  seq: number;
}

/** A state with a segment to quote; `so` and `c` are absent where there is no connection. */
interface Case extends Quoted {
  c?: Conn;
}

const ofConn = (h: TestHost, c: Conn): Case => {
  const seq = h.tp(c.so).snd_una >>> 0;
  return { sport: 80, dport: PEER_PORT, seq, c };
};
const withData = (h: TestHost): Conn => {
  const c = h.establish();
  h.write(c.so, '0123456789');
  return c;
};

const reach: Record<string, (h: TestHost) => Case> = {
  CLOSED: () => ({ sport: 80, dport: PEER_PORT, seq: 1 }),
  LISTEN: (h) => {
    h.listen(80);
    return { sport: 80, dport: PEER_PORT, seq: 1 };
  },
  SYN_SENT: (h) => {
    const so = h.connect(80);
    const syn = h.take()[0]!.ip!.tcp!;
    return { sport: syn.sport, dport: 80, seq: syn.seq, c: { so } as Conn };
  },
  SYN_RCVD: (h) => {
    h.listen(80);
    h.seg({ flags: 'S', seq: 1000, mss: 1460 });
    return { sport: 80, dport: PEER_PORT, seq: h.take()[0]!.ip!.tcp!.seq };
  },
  ESTABLISHED: (h) => ofConn(h, withData(h)),
  CLOSE_WAIT: (h) => {
    const c = withData(h);
    c.data('', { flags: 'F.' });
    return ofConn(h, c);
  },
  FIN_WAIT_1: (h) => {
    const c = withData(h);
    soshutdown(c.so, SHUT_WR);
    return ofConn(h, c);
  },
  CLOSING: (h) => {
    const c = withData(h);
    soshutdown(c.so, SHUT_WR);
    c.data('', { flags: 'F.' });
    return ofConn(h, c);
  },
  LAST_ACK: (h) => {
    const c = withData(h);
    c.data('', { flags: 'F.' });
    soshutdown(c.so, SHUT_WR);
    return ofConn(h, c);
  },
  FIN_WAIT_2: (h) => {
    const c = h.establish();
    soshutdown(c.so, SHUT_WR);
    c.seg({ ack: c.ack + 1 });
    return ofConn(h, c);
  },
  TIME_WAIT: (h) => {
    const c = h.establish();
    soshutdown(c.so, SHUT_WR);
    c.data('', { flags: 'F.', ack: c.ack + 1 });
    return ofConn(h, c);
  },
};
const IN_FLIGHT = ['ESTABLISHED', 'CLOSE_WAIT', 'FIN_WAIT_1', 'CLOSING', 'LAST_ACK'];

/** The errno that FreeBSD 14 gives a type and code; 0: none. */
function errnoOf(type: number, code: number): Errno {
  if (type === 3) {
    if (code === 4) return EMSGSIZE;
    if ([2, 3, 9, 10, 13].includes(code)) return ECONNREFUSED;
    return code <= 15 ? EHOSTUNREACH : 0;
  }
  if (type === 11) return code === 0 ? EHOSTUNREACH : 0;
  return type === 12 && code <= 1 ? ENOPROTOOPT : 0;
}

/** What the cell expects: `abort`, `soft` or `mtu` with an errno, or nothing. */
function effectOf(state: string, type: number, code: number, mayRst: boolean): string {
  const error = errnoOf(type, code);
  const hard = mayRst && (error === ECONNREFUSED || type === 11);
  if (error === 0 || !(state === 'SYN_SENT' || IN_FLIGHT.includes(state))) return 'nothing';
  if (error === EMSGSIZE) return state === 'SYN_SENT' ? 'nothing' : 'mtu';
  if (hard) return state === 'SYN_SENT' ? `abort ${error}` : 'nothing';
  return state === 'ESTABLISHED' && error === EHOSTUNREACH ? 'nothing' : `soft ${error}`;
}

const TYPES: [number, number][] = [
  ...Array.from({ length: 17 }, (_, code): [number, number] => [3, code]),
  [4, 0],
  ...Array.from({ length: 5 }, (_, code): [number, number] => [5, code]),
  ...Array.from({ length: 3 }, (_, code): [number, number] => [11, code]),
  ...Array.from({ length: 4 }, (_, code): [number, number] => [12, code]),
];

describe('tcp: ICMP errors by type, code and state', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());

  /** Delivers an error that quotes a segment; "fragmentation needed" carries an MTU of 400. */
  function inject(type: number, code: number, q: Quoted): void {
    const quoted = new Uint8Array(28);
    quoted.set(buildIp4({ src: US, dst: PEER, df: true, len: 576 }, 6, new Uint8Array(8)));
    const view = new DataView(quoted.buffer);
    view.setUint16(20, q.sport);
    view.setUint16(22, q.dport);
    view.setUint32(24, q.seq);
    const seq = type === 3 && code === 4 ? 400 : 0;
    const error = buildIcmp({ type, code, seq, payload: quoted });
    h.injectIp(buildIp4({ src: '192.0.2.77', dst: US }, 1, error));
  }

  for (const mayRst of [true, false])
    for (const state of Object.keys(reach))
      for (const [type, code] of TYPES) {
        const effect = effectOf(state, type, code, mayRst);
        it(`${state}, type ${type} code ${code}, icmp_may_rst ${Number(mayRst)}: ${effect}`, () => {
          h.vnet.sysctl.write('net.inet.tcp.icmp_may_rst', mayRst ? '1' : '0');
          const q = reach[state]!(h);
          const entries = h.vnet.sysctl.find('net.inet.tcp.syncache.count')!.get();
          const tp = q.c === undefined ? null : h.tp(q.c.so);
          const mss = tp?.t_maxseg;
          if (tp !== null) expect(tcpstates[tp.t_state]).to.equal(state);
          inject(type, code, q);
          expect(h.vnet.sysctl.find('net.inet.tcp.syncache.count')!.get()).to.equal(entries);
          if (tp === null) return;
          const abort = effect.startsWith('abort');
          const errno = Number(effect.split(' ')[1] ?? 0);
          expect(tcpstates[tp.t_state]).to.equal(abort ? 'CLOSED' : state);
          expect(q.c!.so.so_error).to.equal(abort ? errno : 0);
          if (abort) return;
          expect(tp.t_softerror).to.equal(effect.startsWith('soft') ? errno : 0);
          if (state !== 'SYN_SENT') expect(tp.t_maxseg).to.equal(effect === 'mtu' ? 360 : mss);
        });
      }
});

describe('tcp: ICMP errors about a SYN-ACK', () => {
  it('sends the next SYN-ACK without DF', () => {
    const h = new TestHost();
    h.listen(80);
    h.seg({ flags: 'S', seq: 1000, mss: 1460 });
    const first = h.take()[0]!.ip!;
    const quoted = new Uint8Array(28);
    quoted.set(buildIp4({ src: US, dst: PEER, len: 44 }, 6, new Uint8Array(8)));
    const view = new DataView(quoted.buffer);
    view.setUint16(20, 80);
    view.setUint16(22, PEER_PORT);
    view.setUint32(24, first.tcp!.seq);
    const error = buildIcmp({ type: 3, code: 4, seq: 40, payload: quoted });
    h.injectIp(buildIp4({ src: '192.0.2.77', dst: US }, 1, error));
    h.advance(1000);
    expect([first.df, ...h.take().map(({ ip }) => ip!.df)]).to.eql([true, false]);
    h.close();
  });
});

describe('tcp: net.inet.tcp.path_mtu_discovery=0', () => {
  let h: TestHost;
  const FAR = '198.51.100.7';
  beforeEach(() => {
    h = new TestHost();
    h.vnet.sysctl.write('net.inet.tcp.path_mtu_discovery', '0');
    expect(inRouteAddGateway(h.vnet, addr('0.0.0.0'), 0, addr(PEER))).to.equal(0);
    h.listen(80);
  });
  afterEach(() => h.close());

  /** The segments of 3000 bytes to `src`: their lengths and whether DF is set. */
  const segments = (src: string, before?: (seq: number) => void): [number, boolean][] => {
    const from = (fields: object): void =>
      h.injectIp(buildTcp({ src, dst: US }, { sport: 7, dport: 80, ...fields }));
    from({ flags: 'S', seq: 1000, mss: 1460 });
    const synAck = h.take()[0]!.ip!.tcp!;
    expect(synAck.mss).to.equal(1460);
    from({ seq: 1001, ack: synAck.seq + 1 });
    const so = h.accept(h.sockets[0]!);
    h.write(so, new Uint8Array(3000));
    if (before !== undefined) {
      h.take();
      before(synAck.seq + 1);
    }
    return h.take().map(({ ip }) => [ip!.tcp!.payload.length, ip!.df]);
  };
  const of = (sizes: number[]): [number, boolean][] => sizes.map((n) => [n, false]);

  // Routers may fragment, so FreeBSD keeps to mssdflt where it does not know the path.
  it('uses mssdflt behind a router and the MTU on the link, without DF', () => {
    expect(segments(FAR)).to.eql(of([536, 536, 536, 536, 536, 320]));
    expect(segments(PEER)).to.eql(of([1460, 1460, 80]));
  });

  it('still follows a router that reports an MTU', () => {
    const told = segments(FAR, (seq) => {
      const quoted = new Uint8Array(28);
      quoted.set(buildIp4({ src: US, dst: FAR, len: 576 }, 6, new Uint8Array(8)));
      const view = new DataView(quoted.buffer);
      view.setUint16(20, 80);
      view.setUint16(22, 7);
      view.setUint32(24, seq);
      const error = buildIcmp({ type: 3, code: 4, seq: 440, payload: quoted });
      h.injectIp(buildIp4({ src: '192.0.2.77', dst: US }, 1, error));
    });
    expect(told.slice(0, 3)).to.eql(of([400, 400, 400]));
  });
});
