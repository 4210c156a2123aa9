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
import { buildIcmp6, buildIp6, buildUdp6 } from '../support/six.ts';
import type { Rig } from '../netinet/rig.ts';
import { PEER, TestHost, US } from '../netinet/tcp_host.ts';
import { PEER6, Rig6, TO_US } from '../netinet6/rig6.ts';

const { AF_INET, AF_INET6, SOCK_DGRAM, SOCK_RAW, SOL_SOCKET, IPPROTO_IP, SO_REUSEPORT, ...C } =
  constants;
const POOLS = ['mbuf', 'mbuf_jumbo_page'];
const DATA = new Uint8Array(1000);

/** The packets and options of an address family. */
interface Family {
  readonly title: string;
  readonly af: number;
  readonly make: () => TestHost | Rig6;
  readonly inject: (h: Rig, packet: Uint8Array) => void;
  readonly any: string;
  readonly self: string;
  readonly peer: string;
  /** Level and names of the options for control messages. */
  readonly level: number;
  readonly options: readonly number[];
  /** The protocol of raw sockets. */
  readonly icmp: number;
  /** The packet received in each step: to three sockets, to two raw sockets, two fragments. */
  readonly input: readonly Uint8Array[];
}

const WHOLE = buildUdp({ src: PEER, dst: US }, { sport: 4000, dport: 54, payload: DATA });
const IPV4: Family = {
  title: '',
  af: AF_INET,
  make: () => new TestHost(),
  inject: (h, packet) => h.injectIp(packet),
  any: '0.0.0.0',
  self: '127.0.0.1',
  peer: PEER,
  level: IPPROTO_IP,
  options: [C.IP_RECVTTL, C.IP_RECVDSTADDR, C.IP_RECVIF],
  icmp: 1,
  input: [
    buildUdp({ src: PEER, dst: '255.255.255.255' }, { sport: 4000, dport: 53, payload: DATA }),
    buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 0, payload: 'hello' })),
    buildIp4({ src: PEER, dst: US, id: 7, mf: true }, 17, WHOLE.subarray(20, 620)),
    buildIp4({ src: PEER, dst: US, id: 7, fragOff: 600 }, 17, WHOLE.subarray(620)),
  ],
};

const WHOLE6 = buildUdp6(TO_US, 4000, 54, DATA).subarray(40);
const fragment6 = (from: number, to: number): Uint8Array => {
  const more = to < WHOLE6.length ? 1 : 0;
  const head = [17, 0, from >>> 8, (from & 0xff) | more, 0, 0, 0, 7];
  return buildIp6(TO_US, 44, [...head, ...WHOLE6.subarray(from, to)]);
};
const IPV6: Family = {
  title: ', IPv6',
  af: AF_INET6,
  make: () => new Rig6(),
  inject: (h, packet) => (h as Rig6).inject6(packet),
  any: '::',
  self: '::1',
  peer: PEER6,
  level: C.IPPROTO_IPV6,
  options: [C.IPV6_RECVHOPLIMIT, C.IPV6_RECVPKTINFO, C.IPV6_RECVTCLASS],
  icmp: C.IPPROTO_ICMPV6,
  input: [
    buildUdp6({ src: PEER6, dst: 'ff02::1' }, 4000, 53, DATA),
    buildIcmp6(TO_US, [129, 0, 0, 0, 0, 0, 0, 1, 104, 105]),
    fragment6(0, 600),
    fragment6(600, WHOLE6.length),
  ],
};

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
function deliver(h: Rig, f: Family, packet: Uint8Array, arm: () => void): void {
  const input = h.ifp.if_input!;
  h.ifp.if_input = (ifp, m): void => {
    arm();
    input(ifp, m);
  };
  f.inject(h, packet);
  h.ifp.if_input = input;
  disarm();
}

function disarm(): void {
  for (const pool of POOLS) failPoint(pool).disarm();
}

/**
 * Receives a broadcast or multicast with three sockets, an echo reply with two, and two fragments, and
 * sends datagrams, also to itself. `arm` runs before the step with the number `step`.
 */
function run(f: Family, step: number, arm: () => void): Seen {
  const h = f.make();
  const b = new Bsd(h.vnet);
  try {
    const udp = (port: number): number => {
      const s = b.socket(f.af, SOCK_DGRAM);
      b.setsockopt(s, SOL_SOCKET, SO_REUSEPORT, 1);
      expect(b.bind(s, { address: f.any, port })).to.equal(0);
      for (const name of f.options) expect(b.setsockopt(s, f.level, name, 1)).to.equal(0);
      return s;
    };
    const raws = [1, 2].map(() => b.socket(f.af, SOCK_RAW, f.icmp));
    const udps = [53, 53, 53, 54].map(udp);
    const all = [...udps, ...raws];
    const nothing = (): void => undefined;
    const seen = { received: 0, controls: 0, sent: 0, refused: 0, reasons: 0 };
    f.input.forEach((packet, i) => deliver(h, f, packet, step === i ? arm : nothing));
    if (step === f.input.length) arm();
    const peers: [string, number, number][] = [
      [f.peer, 9, 10],
      [f.peer, 9, 4000],
      [f.self, 54, 10],
      [f.self, 54, 4000],
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
  for (const f of [IPV4, IPV6])
    for (const pool of POOLS)
      it(`${pool}: each request is refused once${f.title}`, () => {
        const whole = run(f, -1, () => undefined);
        expect(whole).to.include({ received: 8, sent: 4, refused: 0 });
        const point = failPoint(pool);
        const all = { requests: 0, lost: 0, refused: 0, lessControl: 0 };
        for (const step of [0, 1, 2, 3, 4])
          for (let k = 1; ; k++) {
            const got = run(f, step, () => point.arm(k));
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
