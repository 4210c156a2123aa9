/**
 * What each kind of segment does in each state: a table of answers, checked line by line against RFC
 * 9293, 3.10.7, RFC 5961 and sys/netinet/tcp_input.c, tcp_syncache.c and tcp_timewait.c of FreeBSD 14.
 */

import { expect } from 'chai';
import { TCPS_CLOSE_WAIT, TCPS_ESTABLISHED, tcpstates } from '../../src/netinet/tcp_fsm.ts';
import { syncacheCount } from '../../src/netinet/tcp_syncache.ts';
import { V_tcp } from '../../src/netinet/tcp_var.ts';
import { SHUT_WR, soshutdown } from '../../src/kern/uipc_socket.ts';
import { Conn, type Seg, TestHost } from './tcp_host.ts';
import { reach } from './tcp_states.ts';

const u32 = (n: number): number => n >>> 0;

/** A connection in some state, as its peer sees it. */
interface Peer {
  readonly seg: (fields: Seg) => void;
  /** RCV.NXT and SND.MAX of our side. */
  readonly nxt: number;
  readonly max: number;
  readonly state: () => string;
}

function ofConn(h: TestHost, c: Conn): Peer {
  const tp = h.tp(c.so);
  const state = (): string => tcpstates[tp.t_state];
  return { seg: (f) => c.seg(f), nxt: u32(tp.rcv_nxt), max: u32(tp.snd_max), state };
}

/** A peer without a connection: the state is the number of half-open and full connections. */
function ofHost(h: TestHost, nxt: number, max: number, name: string): Peer {
  const state = (): string => {
    if (V_tcp(h.vnet).states[TCPS_ESTABLISHED]! > 0) return 'ESTABLISHED';
    if (V_tcp(h.vnet).states[TCPS_CLOSE_WAIT]! > 0) return 'CLOSE_WAIT';
    return syncacheCount(V_tcp(h.vnet)) > 0 ? 'SYN_RCVD' : name;
  };
  return { seg: (f) => h.seg({ win: 65535, ...f }), nxt, max, state };
}

const states: Record<string, (h: TestHost) => Peer> = {
  CLOSED: (h) => ofHost(h, 1001, 5001, 'CLOSED'),
  LISTEN: (h) => {
    h.listen(80);
    return ofHost(h, 1001, 5001, 'LISTEN');
  },
  SYN_SENT: (h) => {
    const so = h.connect(80);
    const syn = h.take()[0]!.ip!.tcp!;
    const c = new Conn(h, 80, 5001, syn.seq + 1);
    c.dport = syn.sport;
    c.so = so;
    return { ...ofConn(h, c), nxt: 5001 };
  },
  'SYN_RCVD, listen': (h) => {
    h.listen(80);
    h.seg({ flags: 'S', seq: 1000, mss: 1460, win: 65535 });
    return ofHost(h, 1001, u32(h.take()[0]!.ip!.tcp!.seq + 1), 'gone');
  },
  ...Object.fromEntries(
    Object.entries(reach).map(([name, to]) => [name, (h: TestHost) => ofConn(h, to(h))]),
  ),
  TIME_WAIT: (h) => {
    const c = h.establish();
    soshutdown(c.so, SHUT_WR);
    c.ack++;
    c.data('', { flags: 'F.' });
    return ofConn(h, c);
  },
};

const kinds: Record<string, Seg> = {
  SYN: { flags: 'S' },
  'SYN ACK': { flags: 'S.' },
  ACK: { flags: '.' },
  RST: { flags: 'R' },
  'RST ACK': { flags: 'R.' },
  FIN: { flags: 'F' },
  'FIN ACK': { flags: 'F.' },
  data: { flags: 'P.', payload: 'xyz' },
  'no flags': { flags: '' },
  URG: { flags: 'U.', urp: 1, payload: 'u' },
};

/** Where the segment lies in our receive window, and what it acknowledges. */
const places: Record<string, (p: Peer) => { seq: number; ack: number }> = {
  next: (p) => ({ seq: p.nxt, ack: p.max }),
  inside: (p) => ({ seq: u32(p.nxt + 100), ack: p.max }),
  edge: (p) => ({ seq: u32(p.nxt + 65535), ack: p.max }),
  below: (p) => ({ seq: u32(p.nxt - 9), ack: p.max }),
  above: (p) => ({ seq: u32(p.nxt + 70_000), ack: p.max }),
  badack: (p) => ({ seq: p.nxt, ack: u32(p.max + 1) }),
};

/** The flags of each answer, `-` for none, and the state that the segment leads to, if another. */
function answer(state: string, kind: string, place: string): string {
  const h = new TestHost();
  try {
    const p = states[state]!(h);
    h.advance(100);
    h.sent.length = 0;
    const before = p.state();
    p.seg({ ...kinds[kind]!, ...places[place]!(p) });
    const sent = h.take().map((f) => f.ip!.tcp!.flags);
    const after = p.state();
    return `${sent.join(' ') || '-'}${after === before ? '' : `>${after}`}`;
  } finally {
    h.close();
  }
}

/** One line for each kind of segment, the places in their order; `*`: the same answer in all. */
const table: Record<string, string> = {
  CLOSED: `
    SYN: * R.
    SYN ACK: * R
    ACK: * R
    RST: * -
    RST ACK: * -
    FIN: * R.
    FIN ACK: * R
    data: * R
    no flags: * R.
    URG: * R
  `,
  LISTEN: `
    SYN: * S.>SYN_RCVD
    SYN ACK: * R
    ACK: * R
    RST: * -
    RST ACK: * -
    FIN: * -
    FIN ACK: * R
    data: * R
    no flags: * -
    URG: * R
  `,
  SYN_SENT: `
    SYN: * S.>SYN_RCVD
    SYN ACK: .>ESTABLISHED, .>ESTABLISHED, .>ESTABLISHED, .>ESTABLISHED, .>ESTABLISHED, R
    ACK: -, -, -, -, -, R
    RST: * -
    RST ACK: ->CLOSED, ->CLOSED, ->CLOSED, ->CLOSED, ->CLOSED, -
    FIN: * -
    FIN ACK: -, -, -, -, -, R
    data: -, -, -, -, -, R
    no flags: * -
    URG: -, -, -, -, -, R
  `,
  'SYN_RCVD, listen': `
    SYN: * S.
    SYN ACK: * R>gone
    ACK: ->ESTABLISHED, ->ESTABLISHED, R>gone, R>gone, R>gone, R>gone
    RST: ->gone, ., -, -, -, ->gone
    RST ACK: * -
    FIN: * -
    FIN ACK: .>CLOSE_WAIT, .>ESTABLISHED, R>gone, R>gone, R>gone, R>gone
    data: ->ESTABLISHED, .>ESTABLISHED, R>gone, R>gone, R>gone, R>gone
    no flags: * -
    URG: ->ESTABLISHED, .>ESTABLISHED, R>gone, R>gone, R>gone, R>gone
  `,
  SYN_RCVD: `
    SYN: -, -, -, R., S., -
    SYN ACK: ->ESTABLISHED, ->ESTABLISHED, ->ESTABLISHED, R, S., R
    ACK: ->ESTABLISHED, ->ESTABLISHED, ->ESTABLISHED, R, S., R
    RST: ->CLOSED, ., ., -, -, ->CLOSED
    RST ACK: ->CLOSED, ., ., -, -, ->CLOSED
    FIN: S., S., S., R., S., S.
    FIN ACK: .>CLOSE_WAIT, .>ESTABLISHED, .>ESTABLISHED, R, S., R
    data: ->ESTABLISHED, .>ESTABLISHED, .>ESTABLISHED, R, S., R
    no flags: -, -, -, R., S., -
    URG: ->ESTABLISHED, .>ESTABLISHED, .>ESTABLISHED, R, S., R
  `,
  ESTABLISHED: `
    SYN: * .
    SYN ACK: * .
    ACK: -, -, -, ., ., .
    RST: ->CLOSED, ., ., -, -, ->CLOSED
    RST ACK: ->CLOSED, ., ., -, -, ->CLOSED
    FIN: -, -, -, ., ., -
    FIN ACK: .>CLOSE_WAIT, ., ., ., ., .
    data: -, ., ., ., ., .
    no flags: -, -, -, ., ., -
    URG: -, ., ., ., ., .
  `,
  CLOSE_WAIT: `
    SYN: * .
    SYN ACK: * .
    ACK: -, -, -, ., ., .
    RST: ->CLOSED, ., ., -, -, ->CLOSED
    RST ACK: ->CLOSED, ., ., -, -, ->CLOSED
    FIN: -, -, -, ., ., -
    FIN ACK: -, -, -, ., ., .
    data: -, -, -, ., ., .
    no flags: -, -, -, ., ., -
    URG: -, -, -, ., ., .
  `,
  FIN_WAIT_1: `
    SYN: * .
    SYN ACK: * .
    ACK: ->FIN_WAIT_2, ->FIN_WAIT_2, ->FIN_WAIT_2, .>FIN_WAIT_2, F., F.
    RST: ->CLOSED, ., ., -, -, ->CLOSED
    RST ACK: ->CLOSED, ., ., -, -, ->CLOSED
    FIN: -, -, -, F., F., -
    FIN ACK: .>TIME_WAIT, .>FIN_WAIT_2, .>FIN_WAIT_2, .>FIN_WAIT_2, F., F.
    data: ->FIN_WAIT_2, .>FIN_WAIT_2, .>FIN_WAIT_2, .>FIN_WAIT_2, F., F.
    no flags: -, -, -, F., F., -
    URG: ->FIN_WAIT_2, .>FIN_WAIT_2, .>FIN_WAIT_2, .>FIN_WAIT_2, F., F.
  `,
  FIN_WAIT_2: `
    SYN: * .
    SYN ACK: * .
    ACK: -, -, -, ., ., .
    RST: ->CLOSED, ., ., -, -, ->CLOSED
    RST ACK: ->CLOSED, ., ., -, -, ->CLOSED
    FIN: -, -, -, ., ., -
    FIN ACK: .>TIME_WAIT, ., ., ., ., .
    data: -, ., ., ., ., .
    no flags: -, -, -, ., ., -
    URG: -, ., ., ., ., .
  `,
  CLOSING: `
    SYN: * .
    SYN ACK: * .
    ACK: ->TIME_WAIT, ->TIME_WAIT, ->TIME_WAIT, ->TIME_WAIT, F., F.
    RST: ->CLOSED, ., ., -, -, ->CLOSED
    RST ACK: ->CLOSED, ., ., -, -, ->CLOSED
    FIN: -, -, -, F., F., -
    FIN ACK: ->TIME_WAIT, ->TIME_WAIT, ->TIME_WAIT, .>TIME_WAIT, F., F.
    data: ->TIME_WAIT, ->TIME_WAIT, ->TIME_WAIT, .>TIME_WAIT, F., F.
    no flags: -, -, -, F., F., -
    URG: ->TIME_WAIT, ->TIME_WAIT, ->TIME_WAIT, .>TIME_WAIT, F., F.
  `,
  LAST_ACK: `
    SYN: * .
    SYN ACK: * .
    ACK: ->CLOSED, ->CLOSED, ->CLOSED, ->CLOSED, F., F.
    RST: ->CLOSED, ., ., -, -, ->CLOSED
    RST ACK: ->CLOSED, ., ., -, -, ->CLOSED
    FIN: -, -, -, F., F., -
    FIN ACK: ->CLOSED, ->CLOSED, ->CLOSED, ->CLOSED, F., F.
    data: ->CLOSED, ->CLOSED, ->CLOSED, ->CLOSED, F., F.
    no flags: -, -, -, F., F., -
    URG: ->CLOSED, ->CLOSED, ->CLOSED, ->CLOSED, F., F.
  `,
  TIME_WAIT: `
    SYN: -, S.>CLOSED, S.>CLOSED, -, S.>CLOSED, -
    SYN ACK: * .
    ACK: -, ., ., ., ., .
    RST: * -
    RST ACK: * -
    FIN: * -
    FIN ACK: * .
    data: * .
    no flags: * -
    URG: * .
  `,
};

describe('tcp: states and segments', () => {
  for (const state of Object.keys(states)) {
    it(`${state}: each kind of segment, in each place of the window`, () => {
      const lines = Object.keys(kinds).map((kind) => {
        const all = Object.keys(places).map((place) => answer(state, kind, place));
        const same = all.every((a) => a === all[0]);
        return `${kind}: ${same ? `* ${all[0]}` : all.join(', ')}`;
      });
      expect(lines.join('\n')).to.equal(table[state]?.trim().replaceAll(/^ +/gm, ''));
    });
  }
});
