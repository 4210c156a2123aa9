/** Neighbour unreachability detection: RFC 4861, 7.3, and the table of advertisements of 7.2.5. */

import { expect } from 'chai';
import { soSendDgram } from '../../src/kern/sys_generic.ts';
import { SOCK_STREAM } from '../../src/kern/protosw.ts';
import {
  soaccept,
  sobind,
  soconnect,
  solisten,
  soResult,
  sosend,
  type Socket,
} from '../../src/kern/uipc_socket.ts';
import type { Llentry } from '../../src/net/if_llatbl.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6Ifextra } from '../../src/netinet6/in6_var.ts';
import { nd6SetMaxnudhint, nd6Table } from '../../src/netinet6/nd6.ts';
import {
  ND6_LLINFO_DELAY as DELAY,
  ND6_LLINFO_INCOMPLETE as INCOMPLETE,
  ND6_LLINFO_PROBE as PROBE,
  ND6_LLINFO_REACHABLE as REACHABLE,
  ND6_LLINFO_STALE as STALE,
  V_nd6,
} from '../../src/netinet6/nd6_var.ts';
import { UIO_WRITE, Uio } from '../../src/vm/uio.ts';
import { PEER_MAC } from '../netinet/rig.ts';
import { mac } from '../support/frames.ts';
import { ip6 } from '../support/six.ts';
import { advert, lla, O, R, S, SLLA, SOLICIT, solicit, TLLA } from './nd6_messages.ts';
import { B6, Pair6, sin6 } from './pair.ts';
import { Rig6, US6 } from './rig6.ts';

const WHO = '2001:db8::9';
const OTHER_MAC = '02:00:00:00:00:77';

describe('neighbour unreachability detection', () => {
  let h: Rig6;
  let so: Socket;
  beforeEach(() => {
    h = new Rig6({ nud: true });
    so = h.udp6(7000);
    expect(soconnect(so, sin6(WHO, 9))).to.equal(0);
  });
  afterEach(() => h.close());

  const send = (): number => soSendDgram(so, Uint8Array.from([1]), 0, 1, null);
  const entry = (): Llentry | null => nd6Table(h.ifp)!.find(parseIn6(WHO)!);
  const state = (): number | null => entry()?.ln_state ?? null;
  const na = (flags: number, addr: string | null = PEER_MAC, dst = US6): void =>
    h.inject6(advert({ src: WHO, dst }, WHO, flags, addr === null ? [] : lla(TLLA, addr)));
  const ns = (addr = PEER_MAC): void =>
    h.inject6(solicit({ src: WHO, dst: US6 }, US6, lla(SLLA, addr)));
  /** Makes the neighbour reachable. */
  const reach = (): void => {
    // The first call may report that the neighbour did not answer before.
    if (send() !== 0) expect(send()).to.equal(0);
    na(S | O);
    expect(state()).to.equal(REACHABLE);
    h.take6();
  };
  /** The solicitations for the neighbour that were sent since the last call. */
  const solicits = (): string[] => {
    const frames = h.sent.map((frame) => frame.slice());
    return h.take6().flatMap(({ body }, i) => {
      if (body[0] !== SOLICIT || !ip6(WHO).every((byte, n) => body[8 + n] === byte)) return [];
      return [
        frames[i]!.subarray(0, 6).join(':') === mac(PEER_MAC).join(':') ? 'unicast' : 'group',
      ];
    });
  };

  it('goes from REACHABLE to STALE after the random reachable time, and stays there unused', () => {
    reach();
    const { reachable, basereachable } = in6Ifextra(h.ifp)!.nd_ifinfo;
    expect(reachable).to.be.within(basereachable / 2, basereachable * 1.5);
    h.advance(reachable - 1);
    expect(state()).to.equal(REACHABLE);
    h.advance(2);
    expect(state()).to.equal(STALE);
    h.advance(3_600_000);
    expect([state(), solicits()]).to.deep.equal([STALE, []]);
  });

  it('chooses another reachable time after two hours', () => {
    const nd = in6Ifextra(h.ifp)!.nd_ifinfo;
    const values = new Set<number>();
    for (let i = 0; i < 4; i++) {
      na(S | O);
      reach();
      values.add(nd.reachable);
      h.advance(2 * 3600 * 1000 + 1);
    }
    expect(values.size).to.equal(4);
  });

  it('probes a stale neighbour nd6_delay seconds after a packet, three times, then forgets it', () => {
    reach();
    h.advance(50_000);
    expect(state()).to.equal(STALE);
    expect(send()).to.equal(0);
    h.take6();
    h.advance(4999);
    expect([state(), solicits()]).to.deep.equal([STALE, []]);
    h.advance(2);
    expect([state(), solicits()]).to.deep.equal([PROBE, ['unicast']]);
    for (let i = 0; i < 2; i++) {
      h.advance(1000);
      expect([state(), solicits()]).to.deep.equal([PROBE, ['unicast']]);
    }
    // Packets are still sent while the neighbour is probed.
    send();
    expect(h.take6()).to.have.lengthOf(1);
    h.advance(1000);
    expect([state(), solicits()]).to.deep.equal([null, []]);
    send();
    expect([state(), solicits()]).to.deep.equal([INCOMPLETE, ['group']]);
  });

  it('an answer to a probe makes the neighbour reachable again', () => {
    reach();
    h.advance(50_000);
    send();
    h.advance(6000);
    expect(state()).to.equal(PROBE);
    na(S, null);
    expect(state()).to.equal(REACHABLE);
    h.take6();
    h.advance(10_000);
    expect([state(), solicits()]).to.deep.equal([REACHABLE, []]);
  });

  it('a message without an answer, with packets waiting, enters DELAY and then PROBE', () => {
    send();
    na(O);
    expect(state()).to.equal(DELAY);
    h.take6();
    h.advance(4999);
    expect([state(), solicits()]).to.deep.equal([DELAY, []]);
    h.advance(2);
    expect([state(), solicits()]).to.deep.equal([PROBE, ['unicast']]);
  });

  it('does not probe on an interface without PERFORMNUD', () => {
    in6Ifextra(h.ifp)!.nd_ifinfo.flags &= ~1;
    ns();
    h.take6();
    send();
    h.take6();
    h.advance(60_000);
    expect([state(), solicits()]).to.deep.equal([STALE, []]);
  });

  it('nd6_delay, nd6_umaxtries, nd6_mmaxtries and the retransmission timer take effect', () => {
    Object.assign(V_nd6(h.vnet).params, { nd6_delay: 1, nd6_umaxtries: 1, nd6_mmaxtries: 2 });
    in6Ifextra(h.ifp)!.nd_ifinfo.retrans = 200;
    send();
    expect(solicits()).to.deep.equal(['group']);
    h.advance(201);
    expect(solicits()).to.deep.equal(['group']);
    h.advance(201);
    expect([state(), solicits()]).to.deep.equal([null, []]);
    reach();
    h.advance(50_000);
    send();
    h.take6();
    h.advance(1001);
    expect(solicits()).to.deep.equal(['unicast']);
    h.advance(201);
    expect(state()).to.equal(null);
  });

  it('removes an entry that was not used for nd6_gctimer seconds', () => {
    V_nd6(h.vnet).params.nd6_gctimer = 100;
    reach();
    h.advance(in6Ifextra(h.ifp)!.nd_ifinfo.reachable + 1);
    expect(state()).to.equal(STALE);
    h.advance(99_000);
    expect(state()).to.equal(STALE);
    h.advance(2000);
    expect(state()).to.equal(null);
  });

  describe('an advertisement', () => {
    // RFC 4861, 7.2.5: start, flags, address (same, other or none): new state, whether it was recorded.
    const N = null;
    const cells: [number, number, string | null, number | null, string | null][] = [];
    for (const from of [REACHABLE, STALE, DELAY, PROBE]) {
      const toStale = from === REACHABLE ? STALE : from;
      cells.push(
        [from, 0, N, from, PEER_MAC],
        [from, 0, PEER_MAC, from, PEER_MAC],
        [from, 0, OTHER_MAC, toStale, PEER_MAC],
        [from, S, N, REACHABLE, PEER_MAC],
        [from, S, PEER_MAC, REACHABLE, PEER_MAC],
        [from, S, OTHER_MAC, toStale, PEER_MAC],
        [from, O, N, from, PEER_MAC],
        [from, O, PEER_MAC, from, PEER_MAC],
        [from, O, OTHER_MAC, STALE, OTHER_MAC],
        [from, S | O, N, REACHABLE, PEER_MAC],
        [from, S | O, PEER_MAC, REACHABLE, PEER_MAC],
        [from, S | O, OTHER_MAC, REACHABLE, OTHER_MAC],
      );
    }
    // Without a packet that waits, an unsolicited answer leads to STALE; with one to DELAY.
    for (const flags of [0, S, O, S | O])
      cells.push(
        [INCOMPLETE, flags, N, INCOMPLETE, N],
        [INCOMPLETE, flags, PEER_MAC, (flags & S) !== 0 ? REACHABLE : DELAY, PEER_MAC],
      );
    const names = new Map([
      [INCOMPLETE, 'INCOMPLETE'],
      [REACHABLE, 'REACHABLE'],
      [STALE, 'STALE'],
      [DELAY, 'DELAY'],
      [PROBE, 'PROBE'],
    ]);
    const enter = (to: number): void => {
      if (to === INCOMPLETE) return void send();
      if (to === DELAY) {
        send();
        return na(O);
      }
      reach();
      if (to === REACHABLE) return;
      h.advance(50_000);
      if (to === STALE) return;
      send();
      h.advance(5001);
    };

    for (const [from, flags, addr, to, recorded] of cells) {
      const option = addr === null ? 'no' : addr === PEER_MAC ? 'the same' : 'another';
      const bits = `${(flags & S) === 0 ? '' : 'S'}${(flags & O) === 0 ? '' : 'O'}` || 'no flag';
      const what = from === INCOMPLETE && addr !== null ? 'an' : option;
      it(`with ${bits} and ${what} address: ${names.get(from)} to ${names.get(to!)}`, () => {
        enter(from);
        expect(state(), 'start').to.equal(from);
        na(flags, addr);
        expect(state()).to.equal(to);
        if (recorded === null) expect(entry()!.la_flags & 8).to.equal(0);
        else expect([...entry()!.ll_addr]).to.deep.equal(mac(recorded));
      });
    }

    it('does not create an entry, and does not change a static one', () => {
      na(S | O);
      expect(entry()).to.equal(null);
      ns();
      nd6Table(h.ifp)!.keep(entry()!, 2);
      na(S | O, OTHER_MAC);
      ns(OTHER_MAC);
      expect([...entry()!.ll_addr]).to.deep.equal(mac(PEER_MAC));
    });

    it('sets and clears the router flag; a solicitation keeps it', () => {
      reach();
      expect(entry()!.ln_router).to.equal(false);
      na(R | S);
      expect(entry()!.ln_router).to.equal(true);
      ns(OTHER_MAC);
      expect(entry()!.ln_router, 'a solicitation').to.equal(true);
      na(R, PEER_MAC);
      expect(entry()!.ln_router, 'another address without override').to.equal(true);
      na(O, PEER_MAC);
      expect(entry()!.ln_router).to.equal(false);
    });

    it('to all nodes is accepted, unless it has the flag S', () => {
      ns();
      na(O, OTHER_MAC, 'ff02::1');
      expect([...entry()!.ll_addr]).to.deep.equal(mac(OTHER_MAC));
      na(S | O, PEER_MAC, 'ff02::1');
      expect([...entry()!.ll_addr]).to.deep.equal(mac(OTHER_MAC));
    });
  });

  it('a solicitation with another address makes the entry stale', () => {
    reach();
    ns();
    expect(state(), 'the same address').to.equal(REACHABLE);
    ns(OTHER_MAC);
    expect([state(), ...entry()!.ll_addr]).to.deep.equal([STALE, ...mac(OTHER_MAC)]);
  });

  it('sends probes from an own address, to the address and the link-level address of the neighbour', () => {
    reach();
    h.advance(50_000);
    send();
    h.take6();
    h.advance(5001);
    const probe = h.take6().find(({ dst }) => dst[15] === 9);
    expect([probe!.src, probe!.dst, probe!.hlim]).to.deep.equal([ip6(US6), ip6(WHO), 255]);
    expect([...probe!.body.subarray(8)]).to.deep.equal([
      ...ip6(WHO),
      ...lla(SLLA, '02:00:00:00:00:02'),
    ]);
  });
});

describe('reachability hints of TCP', () => {
  /** Transfers data for two minutes; returns the unicast solicitations that the sender sent. */
  function probes(maxnudhint: number): number {
    const pair = new Pair6();
    let n = 0;
    pair.net.a.onFrame = (frame) => {
      if (frame[0] === 2 && frame[20] === 58 && frame[54] === SOLICIT) n++;
    };
    nd6SetMaxnudhint(pair.net.a.vnet, maxnudhint);
    const head = pair.socket(pair.net.b.vnet, SOCK_STREAM);
    expect(sobind(head, sin6('::', 80))).to.equal(0);
    expect(solisten(head, 4)).to.equal(0);
    const client = pair.socket(pair.net.a.vnet, SOCK_STREAM);
    expect(soconnect(client, sin6(B6, 80))).to.equal(0);
    pair.run(5);
    expect(soaccept(head)).to.equal(0);
    pair.sockets.push(soResult.so!);
    const server = soResult.so!;
    const bytes = new Uint8Array(100);
    for (let s = 0; s < 1200; s++) {
      sosend(client, new Uio().single(bytes, 0, bytes.length, UIO_WRITE), null, 0);
      pair.run(100);
      pair.stream(server);
    }
    pair.close();
    return n;
  }

  it('are ignored by default, as on FreeBSD, so the neighbour is probed', () => {
    expect(probes(0)).to.be.above(0);
  });

  it('replace the probes with nd6_maxnudhint', () => {
    expect(probes(1000)).to.equal(0);
  });

  it('are limited between two advertisements', () => {
    expect(probes(1)).to.be.above(0);
  });
});
