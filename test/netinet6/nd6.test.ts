/** The neighbour cache: solicitations, held packets and their limits, errors about unreachable ones. */

import { expect } from 'chai';
import { mbufZones } from '../../src/kern/kern_mbuf.ts';
import { soSendDgram } from '../../src/kern/sys_generic.ts';
import { soconnect, type Socket } from '../../src/kern/uipc_socket.ts';
import { nd6Table } from '../../src/netinet6/nd6.ts';
import { EHOSTUNREACH, EWOULDBLOCK } from '../../src/sys/errno.ts';
import { counted, R_ND6_BAD, R_ND6_HOLD_FULL, R_ND6_TIMEOUT } from '../../src/sys/reason.ts';
import { PEER_MAC } from '../netinet/rig.ts';
import { mac } from '../support/frames.ts';
import { buildIcmp6, ip6, isMld } from '../support/six.ts';
import { sin6 } from './pair.ts';
import { PEER6, Rig6, US6, US_LL } from './rig6.ts';

const OTHER6 = '2001:db8::ff12:3456';
const OTHER_LL = 'fe80::9';
const SOLICIT = 135;
const ADVERT = 136;

describe('nd6', () => {
  let h: Rig6;
  beforeEach(() => {
    h = new Rig6();
  });
  afterEach(() => h.close());

  const connected = (to: string, scope = 0): Socket => {
    const so = h.udp6(5000 + h.sockets.length);
    expect(soconnect(so, sin6(to, 9, scope))).to.equal(0);
    return so;
  };
  const send = (so: Socket): number => soSendDgram(so, Uint8Array.from([1, 2]), 0, 2, null);
  const advert = (target: string, flags = 0x60, lladdr = PEER_MAC): void =>
    h.inject6(
      buildIcmp6({ src: target, dst: US6, hlim: 255 }, [
        ADVERT,
        0,
        0,
        0,
        flags,
        0,
        0,
        0,
        ...ip6(target),
        2,
        1,
        ...mac(lladdr),
      ]),
    );

  it('solicits the neighbour three times, a second apart, and reports the held packet then', () => {
    for (const [to, scope, from] of [
      [OTHER6, 0, US6],
      [OTHER_LL, h.ifp.if_index, US_LL],
    ] as const) {
      const so = connected(to, scope);
      expect(send(so)).to.equal(0);
      for (let i = 0; i < 3; i++) {
        const frame = h.sent.find((f) => !isMld(f))!;
        const [ns, ...more] = h.take6();
        expect(more).to.deep.equal([]);
        const low = ip6(to).slice(13);
        expect([...frame.subarray(0, 6)]).to.deep.equal([0x33, 0x33, 0xff, ...low]);
        expect(ns!.dst).to.deep.equal([...ip6('ff02::1:ff00:0').slice(0, 13), ...low]);
        expect([ns!.src, ns!.hlim, ns!.body[0]]).to.deep.equal([ip6(from), 255, SOLICIT]);
        expect([...ns!.body.subarray(8, 24)]).to.deep.equal(ip6(to));
        expect([...ns!.body.subarray(24)]).to.deep.equal([1, 1, 2, 0, 0, 0, 0, 2]);
        expect(h.datagram(so)).to.equal(EWOULDBLOCK);
        h.advance(1000);
      }
      expect(h.take6()).to.deep.equal([]);
      expect(h.datagram(so), to).to.equal(EHOSTUNREACH);
    }
    expect(counted(R_ND6_TIMEOUT)).to.equal(2);
  });

  it('sends the held packets, oldest first, when the advertisement arrives', () => {
    const so = connected(OTHER6);
    for (let i = 0; i < 20; i++) soSendDgram(so, Uint8Array.from([i]), 0, 1, null);
    expect(counted(R_ND6_HOLD_FULL)).to.equal(4);
    h.take6();
    advert(OTHER6);
    const sent = h.take6().map(({ body }) => body[8]);
    expect(sent).to.deep.equal(Array.from({ length: 16 }, (_, i) => i + 4));
    expect(send(so)).to.equal(0);
    expect(h.take6()).to.have.lengthOf(1);
  });

  it('answers solicitations to our addresses, also from the unspecified address', () => {
    const ask = (src: string, dst: string, target: string, option: number[]): void =>
      h.inject6(
        buildIcmp6({ src, dst, hlim: 255 }, [
          SOLICIT,
          0,
          0,
          0,
          0,
          0,
          0,
          0,
          ...ip6(target),
          ...option,
        ]),
        '33:33:ff:00:00:02',
      );
    const option = [1, 1, ...mac(PEER_MAC)];
    ask(PEER6, 'ff02::1:ff00:2', US6, option);
    let [na] = h.take6();
    expect([na!.dst, na!.src, na!.hlim]).to.deep.equal([ip6(PEER6), ip6(US6), 255]);
    const answer = [0x60, 0, 0, 0, ...ip6(US6), 2, 1, 2, 0, 0, 0, 0, 2];
    expect([...na!.body.subarray(4)]).to.deep.equal(answer);
    ask('::', 'ff02::1:ff00:2', US_LL, []);
    [na] = h.take6();
    expect([na!.dst, na!.body[4]]).to.deep.equal([ip6('ff02::1'), 0x20]);
    expect([...na!.body.subarray(8, 24)]).to.deep.equal(ip6(US_LL));
    ask(PEER6, 'ff02::1:ff00:2', '2001:db8::3', option);
    expect(h.take6(), 'for another host').to.deep.equal([]);
  });

  it('drops malformed messages: RFC 4861, 7.1', () => {
    const f = { src: PEER6, dst: US6, hlim: 255 };
    const ns = [SOLICIT, 0, 0, 0, 0, 0, 0, 0, ...ip6(US6)];
    const na = [ADVERT, 0, 0, 0, 0x60, 0, 0, 0, ...ip6(OTHER6)];
    const group = [SOLICIT, 0, 0, 0, 0, 0, 0, 0, ...ip6('ff02::1')];
    const bad: [typeof f, number[]][] = [
      [{ ...f, hlim: 254 }, ns],
      [f, [SOLICIT, 1, ...ns.slice(2)]],
      [f, ns.slice(0, 20)],
      [f, group],
      [f, [...ns, 1, 0, 0, 0, 0, 0, 0, 0]],
      [f, [...ns, 1, 2, 0, 0, 0, 0, 0, 0]],
      [{ ...f, src: '::' }, ns],
      [{ ...f, src: '::', dst: 'ff02::1:ff00:2' }, [...ns, 1, 1, 2, 0, 0, 0, 0, 9]],
      [{ ...f, dst: 'ff02::1' }, na],
      [{ ...f, hlim: 64 }, na],
    ];
    for (const [fields, body] of bad) h.inject6(buildIcmp6(fields, body));
    expect(counted(R_ND6_BAD)).to.equal(bad.length);
    expect(h.take6()).to.deep.equal([]);
  });

  it('does not learn from an unsolicited advertisement, and keeps an entry without override', () => {
    advert(OTHER6);
    expect(nd6Table(h.ifp)!.table.size, 'ours and the two of the peer').to.equal(4);
    const so = connected(PEER6);
    advert(PEER6, 0x40, '02:00:00:00:00:77');
    send(so);
    expect(h.sent.at(-1)![5]).to.equal(1);
    advert(PEER6, 0x60, '02:00:00:00:00:77');
    send(so);
    expect(h.sent.at(-1)![5]).to.equal(0x77);
  });

  it('bounds the table and the packets it holds', () => {
    const so = h.udp6(7000);
    for (let i = 0; i < 20_000; i++) {
      const to = `2001:db8::1:${(i >>> 12).toString(16)}:${(i & 0xfff).toString(16)}`;
      soSendDgram(so, Uint8Array.from([1]), 0, 1, sin6(to, 9));
      h.sent.length = 0;
      h.chains.length = 0;
    }
    expect(nd6Table(h.ifp)!.table.size).to.be.at.most(16_384);
    expect(mbufZones().mbuf.current).to.be.below(3000);
    expect(send(connected(PEER6))).to.equal(0);
    expect(h.take6()).to.have.lengthOf(1);
  }).timeout(30_000);
});
