/** Connections in each synchronized state, for tests of what a segment does there. */

import { SHUT_WR, soshutdown } from '../../src/kern/uipc_socket.ts';
import { Conn, type TestHost } from './tcp_host.ts';

function withData(h: TestHost): Conn {
  const c = h.establish();
  h.write(c.so, '0123456789');
  return c;
}

/** Brings a connection into each synchronized state; ten bytes of ours are unacknowledged. */
export const reach: Record<string, (h: TestHost) => Conn> = {
  SYN_RCVD: (h) => {
    // Simultaneous open: RFC 9293, figure 7.
    const so = h.connect(80);
    const syn = h.take()[0]!.ip!.tcp!;
    h.sent.length = 0;
    h.seg({ sport: 80, dport: syn.sport, flags: 'S', seq: 5000, mss: 1460, win: 65535 });
    const c = new Conn(h, 80, 5001, syn.seq + 1);
    c.dport = syn.sport;
    c.so = so;
    return c;
  },
  ESTABLISHED: (h) => withData(h),
  CLOSE_WAIT: (h) => {
    const c = withData(h);
    c.data('', { flags: 'F.' });
    return c;
  },
  FIN_WAIT_1: (h) => {
    const c = withData(h);
    soshutdown(c.so, SHUT_WR);
    return c;
  },
  FIN_WAIT_2: (h) => {
    const c = withData(h);
    soshutdown(c.so, SHUT_WR);
    c.ack += 11;
    c.seg({});
    return c;
  },
  CLOSING: (h) => {
    const c = reach['FIN_WAIT_1']!(h);
    c.data('', { flags: 'F.' });
    return c;
  },
  LAST_ACK: (h) => {
    const c = reach['CLOSE_WAIT']!(h);
    soshutdown(c.so, SHUT_WR);
    return c;
  },
};
