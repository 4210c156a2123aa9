/**
 * Results that a program gets when a connection ends, for each kind of end: recv, send,
 * getsockopt(SO_ERROR) and kevent, each on a new connection.
 */

import { expect } from 'chai';
import { Bsd } from '../../src/api/bsd.ts';
import { errnoName } from '../../src/sys/errno.ts';
import {
  EV_ADD,
  EV_EOF,
  EVFILT_READ,
  EVFILT_WRITE,
  type Kevent,
} from '../../src/kern/kern_event.ts';
import { AF_INET, SOCK_STREAM } from '../../src/kern/protosw.ts';
import { SHUT_RD, SHUT_WR } from '../../src/kern/uipc_socket.ts';
import { SO_ERROR, SOL_SOCKET } from '../../src/kern/uipc_sockopt.ts';
import { Conn, TestHost } from '../netinet/tcp_host.ts';

interface Scene {
  h: TestHost;
  b: Bsd;
  /** The descriptor of the connection, and its peer. */
  s: number;
  c: Conn;
}

interface Row {
  title: string;
  happens(scene: Scene): void;
  /** Results of three consecutive calls. */
  recv: [string, string, string];
  send: [string, string];
  soError: string;
  /** EV_EOF's fflags for reading and for writing; null without EV_EOF. */
  eof: [string | null, string | null];
}

const rst = ({ c }: Scene): void => c.seg({ flags: 'R' });
const fin = ({ c }: Scene): void => c.data('', { flags: 'F.' });

const rows: Row[] = [
  {
    title: 'an open connection',
    happens: () => undefined,
    recv: ['EAGAIN', 'EAGAIN', 'EAGAIN'],
    send: ['1', '1'],
    soError: '0',
    eof: [null, null],
  },
  {
    title: 'FIN from the peer',
    happens: fin,
    recv: ['""', '""', '""'],
    send: ['1', '1'],
    soError: '0',
    eof: ['0', null],
  },
  {
    title: 'data, then FIN',
    happens: (x) => {
      x.c.data('abc');
      fin(x);
    },
    recv: ['"abc"', '""', '""'],
    send: ['1', '1'],
    soError: '0',
    eof: ['0', null],
  },
  {
    title: 'RST from the peer',
    happens: rst,
    recv: ['ECONNRESET', '""', '""'],
    send: ['EPIPE', 'EPIPE'],
    soError: 'ECONNRESET',
    eof: ['ECONNRESET', 'ECONNRESET'],
  },
  {
    title: 'data, then RST: recv returns the data first',
    happens: (x) => {
      x.c.data('abc');
      x.h.advance(200); // The RST is compared with the last ACK, which was delayed.
      rst(x);
    },
    recv: ['"abc"', 'ECONNRESET', '""'],
    send: ['EPIPE', 'EPIPE'],
    soError: 'ECONNRESET',
    eof: ['ECONNRESET', 'ECONNRESET'],
  },
  {
    title: 'FIN, then RST for the data that we send after it',
    happens: (x) => {
      fin(x);
      x.b.send(x.s, Buffer.from('late'));
      rst(x);
    },
    recv: ['ECONNRESET', '""', '""'],
    send: ['EPIPE', 'EPIPE'],
    soError: 'ECONNRESET',
    eof: ['ECONNRESET', 'ECONNRESET'],
  },
  {
    title: 'retransmission timeout: the peer does not answer',
    happens: ({ b, s, h }) => {
      b.send(s, Buffer.from('hello?'));
      h.advance(900_000);
    },
    recv: ['ETIMEDOUT', '""', '""'],
    send: ['EPIPE', 'EPIPE'],
    soError: 'ETIMEDOUT',
    eof: ['ETIMEDOUT', 'ETIMEDOUT'],
  },
  {
    title: 'keepalive timeout: the peer does not answer',
    happens: ({ h }) => h.advance(7_200_000 + 9 * 75_000),
    recv: ['ETIMEDOUT', '""', '""'],
    send: ['EPIPE', 'EPIPE'],
    soError: 'ETIMEDOUT',
    eof: ['ETIMEDOUT', 'ETIMEDOUT'],
  },
  {
    title: 'shutdown(SHUT_WR)',
    happens: ({ b, s }) => void b.shutdown(s, SHUT_WR),
    recv: ['EAGAIN', 'EAGAIN', 'EAGAIN'],
    send: ['EPIPE', 'EPIPE'],
    soError: '0',
    eof: [null, '0'],
  },
  {
    title: 'shutdown(SHUT_WR), then data and FIN from the peer',
    happens: (x) => {
      x.b.shutdown(x.s, SHUT_WR);
      x.c.seg({ ack: x.c.ack + 1 });
      x.c.data('rest', { ack: x.c.ack + 1 });
      x.c.data('', { flags: 'F.', ack: x.c.ack + 1 });
    },
    recv: ['"rest"', '""', '""'],
    send: ['EPIPE', 'EPIPE'],
    soError: '0',
    eof: ['0', '0'],
  },
  {
    title: 'shutdown(SHUT_RD): received data is discarded',
    happens: ({ b, s, c }) => {
      b.shutdown(s, SHUT_RD);
      c.data('abc');
    },
    recv: ['""', '""', '""'],
    send: ['1', '1'],
    soError: '0',
    eof: ['0', null],
  },
  {
    title: 'simultaneous close',
    happens: (x) => {
      x.b.shutdown(x.s, SHUT_WR);
      fin(x);
      x.c.seg({ ack: x.c.ack + 1 });
    },
    recv: ['""', '""', '""'],
    send: ['EPIPE', 'EPIPE'],
    soError: '0',
    eof: ['0', '0'],
  },
  {
    title: 'the peer has no such connection',
    happens: ({ c }) => {
      c.seg({ flags: 'S', seq: 7 });
      c.seg({ flags: 'R', seq: c.seq });
    },
    recv: ['ECONNRESET', '""', '""'],
    send: ['EPIPE', 'EPIPE'],
    soError: 'ECONNRESET',
    eof: ['ECONNRESET', 'ECONNRESET'],
  },
];

describe('api: what a program sees', () => {
  for (const row of rows)
    it(row.title, () => {
      const h = new TestHost();
      const b = new Bsd(h.vnet);
      let port = 80;
      /** A connection after the row's `happens`. */
      const scene = (): number => {
        const l = b.socket(AF_INET, SOCK_STREAM);
        b.bind(l, { address: '0.0.0.0', port: ++port });
        b.listen(l, 5);
        h.seg({ flags: 'S', seq: 1000, sport: 40_000, dport: port });
        const t = h.take().find((f) => f.ip?.tcp?.flags === 'S.')!.ip!.tcp!;
        const c = new Conn(h, 40_000, 1001, t.seq + 1);
        c.dport = port;
        c.seg({});
        const s = b.accept(l);
        b.close(l);
        row.happens({ h, b, s, c });
        h.take();
        return s;
      };
      const result = (n: number): string => (n < 0 ? errnoName(-n) : String(n));
      const buf = Buffer.alloc(100);
      const recv = (s: number): string => {
        const n = b.recv(s, buf);
        return n < 0 ? errnoName(-n) : JSON.stringify(buf.toString('latin1', 0, n));
      };
      const send = (s: number): string => result(b.send(s, Buffer.from('x')));
      const name = (error: number): string => (error === 0 ? '0' : errnoName(error));
      try {
        const r = scene();
        const seen = { recv: [recv(r), recv(r), recv(r)], send: [] as string[] };
        const w = scene();
        seen.send = [send(w), send(w)];
        const e = scene();
        const soError = name(b.getsockopt(e, SOL_SOCKET, SO_ERROR));
        const k = scene();
        const kq = b.kqueue();
        const watch = [EVFILT_READ, EVFILT_WRITE].map((filter) => ({
          ident: k,
          filter,
          flags: EV_ADD,
        }));
        const events = b.kevent(kq, watch, 4) as Kevent[];
        const eof = [EVFILT_READ, EVFILT_WRITE].map((filter) => {
          const event = events.find((x) => x.filter === filter && (x.flags & EV_EOF) !== 0);
          return event === undefined ? null : name(event.fflags);
        });
        const { recv: wantRecv, send: wantSend, soError: wantError, eof: wantEof } = row;
        expect({ ...seen, soError, eof }).to.eql({
          recv: wantRecv,
          send: wantSend,
          soError: wantError,
          eof: wantEof,
        });
      } finally {
        b.closeAll();
        h.close();
      }
    });
});
