/** The records of point `sockbuf`: TCP, UDP and raw sockets, sent and received. */

import { expect } from 'chai';
import { m_freem, m_getcl, m_gethdr } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_NOWAIT, M_PKTHDR, MT_DATA } from '../../src/kern/mbuf.ts';
import { AF_INET, AF_INET6, SOCK_DGRAM, SOCK_RAW } from '../../src/kern/protosw.ts';
import { soSendDgram } from '../../src/kern/sys_generic.ts';
import { soclose, socreate, type Socket, soResult } from '../../src/kern/uipc_socket.ts';
import type { Sockaddr } from '../../src/kern/sockaddr.ts';
import { type Capture, captureClose, captureOpen } from '../../src/net/capture.ts';
import { ifunit } from '../../src/net/if.ts';
import type { Ifnet } from '../../src/net/if_var.ts';
import { metaOf } from '../../src/explain/records.ts';
import { CAPTURE_OUT, CAPTURE_RX_ID, CAPTURE_SOCKBUF } from '../../src/sys/capture.ts';
import { reasonText } from '../../src/sys/reason.ts';
import { mem } from '../../src/vm/arena.ts';
import { buildIcmp, buildIp4, decodeFrame } from '../support/frames.ts';
import { decode6, ip6 } from '../support/six.ts';
import { sin6 } from '../netinet6/pair.ts';
import { PEER6, PEER_LL, Rig6, US6, US_LL } from '../netinet6/rig6.ts';
import { PEER, type Rig, US } from './rig.ts';
import { sin, TestHost } from './tcp_host.ts';

interface Rec {
  id: number;
  out: boolean;
  frame: Uint8Array;
  why: string[];
  first: number;
  bytes: number;
}

function record(rig: Rig, recs: Rec[], ifps = [rig.ifp], only: Ifnet | null = null): Capture {
  return captureOpen(
    ifps.map((ifp) => ({ point: CAPTURE_SOCKBUF, ifp })),
    { meta: true },
    {
      captureRecord({ point, unit, flags, pktId, off, caplen, metaOff, metaLen }): void {
        if (point !== CAPTURE_SOCKBUF || (only !== null && unit !== only.if_capunit)) return;
        const { why, sockets } = metaOf(0, mem.slice(metaOff, metaOff + metaLen));
        recs.push({
          id: pktId,
          out: flags === CAPTURE_OUT,
          frame: mem.slice(off, off + caplen),
          why: why.map(({ what, reason }) => `${what} ${reasonText(Number(reason))}`),
          first: sockets[0]!.first,
          bytes: sockets[0]!.bytes,
        });
      },
    },
  );
}

/** Leaves bytes in free mbufs that look like the header of the other family. */
function soil(byte: number): void {
  const all: Mbuf[] = [];
  for (let i = 0; i < 64; i++) {
    const m = i % 2 === 0 ? m_gethdr(M_NOWAIT, MT_DATA) : m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR);
    if (m === null) break;
    mem.fill(byte, m.m_data, m.m_data + 100);
    all.push(m);
  }
  for (const m of all) m_freem(m);
}

function send(
  rig: Rig,
  family: number,
  type: number,
  proto: number,
  to: Sockaddr,
  body: Uint8Array,
): void {
  expect(socreate(rig.vnet, family, type, proto)).to.equal(0);
  const so: Socket = soResult.so!;
  expect(soSendDgram(so, body, 0, body.length, to)).to.equal(0);
  soclose(so);
}

describe('captures at point sockbuf', () => {
  it('TCP: data that waited for a gap is recorded when the socket buffer gets it, with the reason', () => {
    const h = new TestHost();
    const c = h.establish({ dport: 81, win: 8000 });
    const recs: Rec[] = [];
    const input = h.ifp.if_input!;
    let id = CAPTURE_RX_ID;
    h.ifp.if_input = (ifp, m): void => {
      m.m_pkthdr.pktId = ++id;
      input(ifp, m);
    };
    const capture = record(h, recs);
    c.seg({ seq: c.seq + 6, payload: 'ghi' });
    c.seg({ seq: c.seq + 2, payload: 'cdefgh' });
    c.data('abcd');
    c.seg({ seq: c.seq + 6, payload: 'k' });
    captureClose(capture);
    h.ifp.if_input = input;
    const seen = recs.map((r) => {
      const { tcp } = decodeFrame(r.frame, { l3: 'none', l4: 'none' }).ip!;
      const text = new TextDecoder().decode(tcp!.payload);
      return [r.id - CAPTURE_RX_ID, text, tcp!.seq - c.seq + 4, r.first, r.bytes, ...r.why];
    });
    expect(seen).to.deep.equal([
      [3, 'ab', 0, 0, 2],
      [2, 'cdef', 2, 2, 4, 'wait tcp.reassembly_wait'],
      [1, 'ghi', 6, 6, 3, 'wait tcp.reassembly_wait'],
    ]);
    h.sent.length = 0;
    h.close();
  });

  it('TCP: sent data has the addresses of the connection, whatever the mbuf held before', () => {
    const h = new TestHost();
    const c = h.establish({ dport: 81, win: 8000 });
    const recs: Rec[] = [];
    const capture = record(h, recs);
    soil(0x66);
    h.write(c.so, 'hello');
    captureClose(capture);
    expect(recs).to.have.length(1);
    const { ip } = decodeFrame(recs[0]!.frame, { l4: 'pseudo' });
    expect([ip!.src, ip!.dst, ip!.tcp!.dport]).to.deep.equal([US, PEER, 40000]);
    h.sent.length = 0;
    h.close();
  });

  it('UDP and raw sockets: both families, with addresses as on the wire', () => {
    const rig = new Rig6();
    const recs: Rec[] = [];
    const capture = record(rig, recs);
    soil(0x66);
    send(rig, AF_INET, SOCK_DGRAM, 0, sin(PEER, 9), Uint8Array.of(1, 2, 3));
    send(rig, AF_INET, SOCK_RAW, 1, sin(PEER, 0), buildIcmp({ type: 8 }));
    soil(0x45);
    send(rig, AF_INET6, SOCK_DGRAM, 0, sin6(PEER6, 9), Uint8Array.of(1, 2, 3));
    send(rig, AF_INET6, SOCK_DGRAM, 0, sin6(PEER_LL, 9, rig.ifp.if_index), Uint8Array.of(1, 2, 3));
    captureClose(capture);
    const v4 = recs.slice(0, 2).map((r) => decodeFrame(r.frame, { l4: 'none' }).ip!);
    expect(v4.map((ip) => [ip.src, ip.dst, ip.proto])).to.deep.equal([
      [US, PEER, 17],
      [US, PEER, 1],
    ]);
    const v6 = recs.slice(2).map((r) => decode6(r.frame, false));
    expect(v6.map((p) => [p.src, p.dst])).to.deep.equal([
      [ip6(US6), ip6(PEER6)],
      [ip6(US_LL), ip6(PEER_LL)],
    ]);
    expect(recs.every((r) => r.out && r.id > 0)).to.equal(true);
    rig.sent.length = 0;
    rig.close();
  });

  it('UDP and raw sockets: what is sent is recorded at the interface of its route', () => {
    const rig = new Rig6();
    const lo0 = ifunit(rig.vnet, 'lo0')!;
    for (const [ifp, expected] of [
      [rig.ifp, [PEER, PEER]],
      [lo0, ['127.0.0.1', US]],
    ] as const) {
      const recs: Rec[] = [];
      // With the other interface first.
      const capture = record(rig, recs, ifp === lo0 ? [rig.ifp, lo0] : [lo0, rig.ifp], ifp);
      send(rig, AF_INET, SOCK_DGRAM, 0, sin(PEER, 9), Uint8Array.of(1));
      send(rig, AF_INET, SOCK_RAW, 1, sin(PEER, 0), buildIcmp({ type: 8 }));
      send(rig, AF_INET, SOCK_DGRAM, 0, sin('127.0.0.1', 9), Uint8Array.of(1));
      send(rig, AF_INET, SOCK_RAW, 1, sin(US, 0), buildIcmp({ type: 0 }));
      captureClose(capture);
      const sent = recs.filter(({ out }) => out);
      const to = sent.map(({ frame }) => decodeFrame(frame, { l4: 'none' }).ip!.dst);
      expect(to, ifp.if_xname).to.deep.equal(expected);
    }
    rig.sent.length = 0;
    rig.close();
  });

  it('raw sockets: a received message is recorded once for each socket that gets it', () => {
    const rig = new Rig6();
    const recs: Rec[] = [];
    const sockets: Socket[] = [];
    for (let i = 0; i < 2; i++) {
      expect(socreate(rig.vnet, AF_INET, SOCK_RAW, 1)).to.equal(0);
      sockets.push(soResult.so!);
    }
    const capture = record(rig, recs);
    rig.injectIp(buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 0, payload: 'abc' })));
    captureClose(capture);
    expect(recs.map((r) => [r.out, r.bytes])).to.deep.equal([
      [false, 11],
      [false, 11],
    ]);
    for (const so of sockets) soclose(so);
    rig.close();
  });
});
