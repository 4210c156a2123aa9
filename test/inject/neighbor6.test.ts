/**
 * Refuses the k-th request for an mbuf while IPv6 detects duplicates of an address, resolves a
 * neighbour, answers, and reports a group. A message may be lost; the protocol must recover as from a
 * loss on the wire, and nothing may leak.
 */

import { expect } from 'chai';
import { Bsd } from '../../src/api/bsd.ts';
import { constants } from '../../src/api/constants.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { IN6_IFF_TENTATIVE, in6Ifaddrs } from '../../src/netinet6/in6_var.ts';
import { V_ip6 } from '../../src/netinet6/ip6_var.ts';
import { ip6_sprintf } from '../../src/netinet6/scope6.ts';
import { ENOBUFS } from '../../src/sys/errno.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { inPass } from '../../src/sys/pass.ts';
import { OUR_MAC, PEER_MAC } from '../netinet/rig.ts';
import {
  ADVERT,
  advert,
  lla,
  O,
  S,
  SLLA,
  SOLICIT,
  solicit,
  TLLA,
} from '../netinet6/nd6_messages.ts';
import { PEER6, Rig6, TO_US, US6 } from '../netinet6/rig6.ts';
import { buildIcmp6, decode6, ip6, isMld, isSix, type Packet6 } from '../support/six.ts';

const NEW = '2001:db8::abcd';
const NEIGHBOUR = '2001:db8::77';
const GROUP = 'ff0e::1:3';
const POOL = 'mbuf';
const ECHO = 128;
const ECHO_REPLY = 129;
const UDP = 17;
const STEPS = ['address', 'send', 'solicitation', 'timers'] as const;
/** These allocate no mbuf. */
const QUIET = ['advertisement', 'echo', 'group'] as const;
type Step = (typeof STEPS | typeof QUIET)[number];

const sameBytes = (a: ArrayLike<number>, b: ArrayLike<number>): boolean =>
  Buffer.compare(Uint8Array.from(a), Uint8Array.from(b)) === 0;

/** The host, and what it sent. */
class Scene {
  readonly h = new Rig6();
  readonly b = new Bsd(this.h.vnet);
  readonly s = this.b.socket(constants.AF_INET6, constants.SOCK_DGRAM);
  readonly packets: Packet6[] = [];
  reports = 0;
  /** The step in which a request is refused; null after it. */
  #armed: Step | null;
  readonly #k: number;

  constructor(armed: Step | null, k: number) {
    this.#armed = armed;
    this.#k = k;
    // The reports of the first address are sent again within this time.
    this.h.advance(5000);
    V_ip6(this.h.vnet).params.dad_count = 1;
    this.h.sent.length = 0;
  }

  /** Runs `body` as `step`, with the fail point armed if it is the chosen one. */
  step(step: Step, body: () => void): void {
    if (step === this.#armed) failPoint(POOL).arm(this.#k);
    body();
    this.#ended(step);
  }

  /** Delivers `packet` as `step`; the mbufs of the frame itself are not refused. */
  deliver(step: Step, packet: Uint8Array): void {
    const { ifp } = this.h;
    const input = ifp.if_input!;
    ifp.if_input = (to, m): void => {
      if (step === this.#armed) failPoint(POOL).arm(this.#k);
      input(to, m);
    };
    this.h.inject6(packet, OUR_MAC);
    ifp.if_input = input;
    this.#ended(step);
  }

  #ended(step: Step): void {
    failPoint(POOL).disarm();
    if (step === this.#armed) this.#armed = null;
    for (const frame of this.h.sent.splice(0).filter(isSix)) {
      if (!isMld(frame)) this.packets.push(decode6(frame));
      else if (Buffer.from(frame).includes(Buffer.from(ip6(GROUP)))) this.reports++;
    }
  }

  address(): number {
    return inPass(in6_aifaddr, this.h.ifp, parseIn6(NEW)!, 64);
  }

  send(): void {
    const n = this.b.sendto(this.s, new Uint8Array(9), 0, { address: NEIGHBOUR, port: 9 });
    if (n !== -ENOBUFS) expect(n).to.equal(9);
  }

  join(): number {
    const value = Uint8Array.from([...ip6(GROUP), this.h.ifp.if_index, 0, 0, 0]);
    return this.b.setsockopt(this.s, constants.IPPROTO_IPV6, constants.IPV6_JOIN_GROUP, value);
  }

  /** Number of ICMPv6 messages of `type` sent to or about the address `about`. */
  icmp(type: number, about: string): number {
    return this.packets.filter(({ nxt, body, dst }) => {
      if (nxt !== 58 || body[0] !== type) return false;
      const target = type === ECHO_REPLY ? dst : body.subarray(8, 24);
      return sameBytes(target, ip6(about));
    }).length;
  }

  get datagrams(): number {
    return this.packets.filter(({ nxt }) => nxt === UDP).length;
  }

  get tentative(): boolean {
    const ia = in6Ifaddrs(this.h.vnet).find(
      (one) => ip6_sprintf(this.h.vnet, one.ifa_addr) === NEW,
    );
    return ia === undefined || (ia.ia6_flags & IN6_IFF_TENTATIVE) !== 0;
  }
}

const neighbourIs = (): Uint8Array =>
  advert({ src: NEIGHBOUR, dst: US6 }, NEIGHBOUR, S | O, lla(TLLA, PEER_MAC));
const ask = (): Uint8Array => solicit(TO_US, US6, lla(SLLA, PEER_MAC));
const ping = (): Uint8Array => buildIcmp6(TO_US, [ECHO, 0, 0, 0, 0, 1, 0, 1]);

/** Runs all steps, request `k` of step `armed` refused; returns whether it was reached. */
function run(armed: Step | null, k: number): boolean {
  // Forgets what the last run refused.
  failPoint(POOL).arm(Infinity);
  failPoint(POOL).disarm();
  const scene = new Scene(armed, k);
  const { h } = scene;
  const why = `${armed} ${k}`;
  let [added, joined] = [0, 0];
  try {
    scene.step('address', () => {
      added = scene.address();
      h.advance(0);
    });
    scene.step('send', () => scene.send());
    scene.deliver('advertisement', neighbourIs());
    scene.deliver('solicitation', ask());
    scene.deliver('echo', ping());
    scene.step('group', () => (joined = scene.join()));
    scene.step('timers', () => h.advance(1500));
    const { fired } = failPoint(POOL);
    if (fired === 0) {
      expect([added, joined, scene.tentative], why).to.deep.equal([0, 0, false]);
      expect([
        scene.datagrams,
        scene.icmp(ADVERT, US6),
        scene.icmp(ECHO_REPLY, PEER6),
      ]).to.deep.equal([1, 1, 1]);
    }
    recover(scene, why, added, joined);
    return fired > 0;
  } finally {
    failPoint(POOL).disarm();
    scene.b.closeAll();
    h.close();
  }
}

/** What failed works when it is tried again, or by the protocol's own repetition. */
function recover(scene: Scene, why: string, added: number, joined: number): void {
  const { h } = scene;
  if (added !== 0) expect([added, scene.address()], why).to.deep.equal([ENOBUFS, 0]);
  if (joined !== 0) expect([joined, scene.join()], why).to.deep.equal([-ENOBUFS, 0]);
  scene.step('timers', () => h.advance(10_000));
  expect(scene.tentative, `${why}: the address is ready`).to.equal(false);
  expect(scene.reports, `${why}: reports of the group`).to.be.above(0);
  scene.packets.length = 0;
  scene.step('send', () => scene.send());
  if (scene.icmp(SOLICIT, NEIGHBOUR) > 0) scene.deliver('advertisement', neighbourIs());
  scene.deliver('solicitation', ask());
  scene.deliver('echo', ping());
  expect(scene.datagrams, `${why}: the datagram`).to.equal(1);
  expect(scene.icmp(ADVERT, US6), `${why}: the advertisement`).to.equal(1);
  expect(scene.icmp(ECHO_REPLY, PEER6), `${why}: the echo reply`).to.equal(1);
}

describe('inject: neighbour discovery, duplicate address detection and MLD', () => {
  it('an advertisement, an echo request and a new group allocate no mbuf', () => {
    for (const step of QUIET) expect(run(step, 1), step).to.equal(false);
  });

  for (const step of STEPS)
    it(`recovers from each refused mbuf, ${step}`, () => {
      expect(run(null, 1)).to.equal(false);
      let k = 1;
      while (run(step, k)) k++;
      expect(k, 'refused requests').to.be.above(1);
    });
});
