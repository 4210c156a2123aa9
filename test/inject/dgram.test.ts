/**
 * Refuses the k-th request to each pool while datagrams, their copies, control messages and fragments
 * are sent and received. Nothing may crash or leak; each packet that is missing has a reason.
 */

import { expect } from 'chai';
import { Bsd } from '../../src/api/bsd.ts';
import { constants } from '../../src/api/constants.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { reasonCounts } from '../../src/sys/reason.ts';
import { ENOBUFS } from '../../src/sys/errno.ts';
import { udpstat } from '../../src/netinet/udp_var.ts';
import { buildIcmp, buildIp4, buildUdp } from '../support/frames.ts';
import { PEER, TestHost, US } from '../netinet/tcp_host.ts';

const { AF_INET, SOCK_DGRAM, SOCK_RAW, SOL_SOCKET, IPPROTO_IP, SO_REUSEPORT, ...C } = constants;
const ANY = '0.0.0.0';
const POOLS = ['mbuf', 'mbuf_jumbo_page'];

/** What one run has seen. */
interface Seen {
  received: number;
  controls: number;
  sent: number;
  /** Calls that failed with ENOBUFS. */
  refused: number;
  /** Sum of all reasons. */
  reasons: number;
}

/** Delivers `packet`; `arm` runs when the mbufs of the frame are allocated. */
function deliver(h: TestHost, packet: Uint8Array, arm: () => void): void {
  const input = h.ifp.if_input!;
  h.ifp.if_input = (ifp, m): void => {
    arm();
    input(ifp, m);
  };
  h.injectIp(packet);
  h.ifp.if_input = input;
  disarm();
}

function disarm(): void {
  for (const pool of POOLS) failPoint(pool).disarm();
}

/**
 * Receives a broadcast with three sockets and an echo reply with two, and sends datagrams, also to
 * itself. `arm` runs before the step with the number `step`.
 */
function run(step: number, arm: () => void): Seen {
  const h = new TestHost();
  const b = new Bsd(h.vnet);
  try {
    const udp = (port: number): number => {
      const s = b.socket(AF_INET, SOCK_DGRAM);
      b.setsockopt(s, SOL_SOCKET, SO_REUSEPORT, 1);
      expect(b.bind(s, { address: ANY, port })).to.equal(0);
      for (const name of [C.IP_RECVTTL, C.IP_RECVDSTADDR, C.IP_RECVIF])
        expect(b.setsockopt(s, IPPROTO_IP, name, 1)).to.equal(0);
      return s;
    };
    const raws = [1, 2].map(() => b.socket(AF_INET, SOCK_RAW, 1));
    const udps = [53, 53, 53, 54].map(udp);
    const all = [...udps, ...raws];
    const broadcast = buildUdp(
      { src: PEER, dst: '255.255.255.255' },
      { sport: 4000, dport: 53, payload: new Uint8Array(1000) },
    );
    const reply = buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 0, payload: 'hello' }));
    const nothing = (): void => undefined;
    const seen = { received: 0, controls: 0, sent: 0, refused: 0, reasons: 0 };
    deliver(h, broadcast, step === 0 ? arm : nothing);
    deliver(h, reply, step === 1 ? arm : nothing);
    if (step === 2) arm();
    const peers: [string, number, number][] = [
      [PEER, 9, 10],
      [PEER, 9, 4000],
      ['127.0.0.1', 54, 10],
      ['127.0.0.1', 54, 4000],
    ];
    for (const [address, port, size] of peers) {
      const n = b.sendto(udps[3]!, new Uint8Array(size), 0, { address, port });
      if (n === -ENOBUFS) seen.refused++;
      else expect(n).to.equal(size);
    }
    disarm();
    for (const s of all)
      for (;;) {
        const { n, control } = b.recvmsg(s, new Uint8Array(5000));
        if (n < 0) break;
        seen.received++;
        seen.controls += control.length;
      }
    seen.sent = h.sent.splice(0).length;
    seen.reasons = reasonCounts().reduce((sum, { count }) => sum + count, 0);
    expect(udpstat(h.vnet).udps_fullsock).to.be.at.most(1);
    return seen;
  } finally {
    b.closeAll();
    disarm();
    h.close();
  }
}

describe('inject: datagrams', () => {
  for (const pool of POOLS)
    it(`${pool}: each request is refused once`, () => {
      const whole = run(-1, () => undefined);
      expect(whole).to.include({ received: 7, sent: 4, refused: 0 });
      const point = failPoint(pool);
      const all = { requests: 0, lost: 0, refused: 0, lessControl: 0 };
      for (const step of [0, 1, 2])
        for (let k = 1; ; k++) {
          const got = run(step, () => point.arm(k));
          if (point.fired === 0) {
            expect(got).to.eql(whole);
            break;
          }
          const lost = whole.received - got.received + (whole.sent - got.sent);
          const why = `step ${step}, request ${k}: ${JSON.stringify(got)}`;
          if (lost > 0) expect(got.reasons - whole.reasons + got.refused, why).to.be.above(0);
          if (lost > 0) all.lost++;
          else if (got.controls < whole.controls) all.lessControl++;
          all.refused += got.refused;
          all.requests++;
        }
      expect(all.lost, 'runs with a lost packet').to.be.above(0);
      expect(all.refused, 'calls that failed').to.be.above(0);
      if (pool === 'mbuf') expect(all.lessControl, 'without control data').to.be.above(0);
    });
});
