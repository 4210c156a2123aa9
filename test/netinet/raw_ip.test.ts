import { expect } from 'chai';
import { mbEmulator } from '../../src/kern/kern_mbuf.ts';
import { M_NOWAIT, M_PKTHDR } from '../../src/kern/mbuf.ts';
import { m_uiotombuf_nomap } from '../../src/kern/m_uiotombuf.ts';
import { soReceivedFrom } from '../../src/kern/uipc_dgram.ts';
import { AF_INET, IPPROTO_ICMP, IPPROTO_IP, SOCK_RAW } from '../../src/kern/protosw.ts';
import type { Sockaddr } from '../../src/kern/sockaddr.ts';
import { ioResult, soRecvDgram, soSendDgram } from '../../src/kern/sys_generic.ts';
import {
  SO_BROADCAST,
  SO_RCV,
  sobind,
  soclose,
  soconnect,
  socreate,
  soreserve,
  soResult,
  type Socket,
  soupcall_set,
} from '../../src/kern/uipc_socket.ts';
import { IFCAP_NOMAP } from '../../src/net/if_var.ts';
import { ipstat } from '../../src/netinet/ip_var.ts';
import { inAddrOf, inet_ntoa, inSockaddr } from '../../src/netinet/in.ts';
import { V_icmp } from '../../src/netinet/ip_icmp.ts';
import { IP_DONTFRAG, IP_MINTTL, IP_TOS, IP_TTL } from '../../src/netinet/ip_ctloutput.ts';
import { soSetInt } from '../../src/kern/uipc_sockopt.ts';
import {
  EACCES,
  EADDRNOTAVAIL,
  EHOSTUNREACH,
  EISCONN,
  EMSGSIZE,
  ENOTCONN,
  EOPNOTSUPP,
  EWOULDBLOCK,
} from '../../src/sys/errno.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import {
  counted,
  R_ICMP_IGNORED,
  R_IP_NOBUFS,
  R_RIP_FULL,
  R_RIP_MINTTL,
} from '../../src/sys/reason.ts';
import { port } from '../../src/sys/types.ts';
import { Uio, UIO_WRITE } from '../../src/vm/uio.ts';
import {
  BROADCAST_MAC,
  buildIcmp,
  buildIp4,
  decodeFrame,
  expectTx,
  from,
  icmp,
  payload,
  to,
  toMac,
} from '../support/frames.ts';
import { addr, PEER, Rig, US } from './rig.ts';
import { runUpcalls } from '../support/machine.ts';

const sin = (text: string): Sockaddr => inSockaddr(addr(text), port(0));
const bytes = (n: number): Uint8Array => Uint8Array.from({ length: n }, (_, i) => (i * 5) & 255);
const REPLY = 0;
const UNREACH = 3;
const ECHO = 8;

describe('raw_ip', () => {
  let rig: Rig;
  let open: Socket[];
  beforeEach(() => {
    rig = new Rig();
    open = [];
  });
  afterEach(() => {
    for (const so of open) soclose(so);
    rig.close();
  });

  function socket(): Socket {
    expect(socreate(rig.vnet, AF_INET, SOCK_RAW, IPPROTO_ICMP)).to.equal(0);
    open.push(soResult.so!);
    return soResult.so!;
  }

  const send = (so: Socket, message: Uint8Array, dst: string | null = PEER): number =>
    soSendDgram(so, message, 0, message.length, dst === null ? null : sin(dst));

  /** The next packet, or the errno. */
  function receive(so: Socket, room = 65535): Uint8Array | number {
    const buf = new Uint8Array(room);
    const error = soRecvDgram(so, buf, 0, room);
    return error === 0 ? buf.slice(0, ioResult.n) : error;
  }

  const message = (type: number, n = 16, seq = 1): Uint8Array =>
    buildIcmp({ type, id: 77, seq, payload: bytes(n) });
  const arrives = (type: number, n = 16, seq = 1): Uint8Array =>
    buildIp4({ src: PEER, dst: US, ttl: 61 }, 1, message(type, n, seq));

  it('puts its own IP header in front of the message', () => {
    expect(send(socket(), message(ECHO, 56))).to.equal(0);
    const [f] = expectTx(rig.sent, [from(US), to(PEER), icmp(ECHO), payload(bytes(56))]);
    expect(f!.ip).to.include({ ttl: 64, tos: 0, df: false });
    expect(rig.chains[0]!.mbufs, 'header and message in one mbuf').to.equal(1);
  });

  it('sends with the TTL and DF set by IP_TTL and IP_DONTFRAG', () => {
    const so = socket();
    soSetInt(so, IPPROTO_IP, IP_TTL, 3);
    soSetInt(so, IPPROTO_IP, IP_DONTFRAG, 1);
    expect(send(so, message(ECHO))).to.equal(0);
    expect(decodeFrame(rig.sent.splice(0)[0]!).ip).to.include({ ttl: 3, df: true });
    expect(send(so, message(ECHO, 1473))).to.equal(EMSGSIZE);
    expectTx(rig.sent);
  });

  it('sends with IP_TOS, and drops packets below IP_MINTTL', () => {
    const so = socket();
    soSetInt(so, IPPROTO_IP, IP_TOS, 0x28);
    soSetInt(so, IPPROTO_IP, IP_MINTTL, 62);
    expect(send(so, message(ECHO))).to.equal(0);
    expect(decodeFrame(rig.sent.splice(0)[0]!).ip).to.include({ tos: 0x28 });
    rig.injectIp(arrives(REPLY));
    expect(counted(R_RIP_MINTTL)).to.equal(1);
    expect(so.so_rcv.sb_ccc).to.equal(0);
    soSetInt(so, IPPROTO_IP, IP_MINTTL, 61);
    rig.injectIp(arrives(REPLY));
    expect(receive(so)).to.deep.equal(arrives(REPLY));
  });

  for (const [n, frames] of [
    [1472, 1],
    [1473, 2],
    [8000, 6],
  ] as const)
    it(`sends ${n} bytes in ${frames} frames`, () => {
      const so = socket();
      soreserve(so, 100_000, 100_000);
      expect(send(so, message(ECHO, n))).to.equal(0);
      const all = rig.sent.splice(0).map((f) => decodeFrame(f).ip!);
      expect(all).to.have.lengthOf(frames);
      expect(all.reduce((sum, { payload: p }) => sum + p.length, 0)).to.equal(n + 8);
    });

  it('sends unmapped pages, and maps them for an interface without IFCAP_NOMAP', () => {
    for (const [nomap, n] of [
      [false, 1000],
      [true, 1000],
      [true, 9000],
    ] as const) {
      rig.ifp.if_capenable = nomap ? IFCAP_NOMAP : 0;
      const data = message(ECHO, n);
      const uio = new Uio().single(data, 0, data.length, UIO_WRITE);
      const m = m_uiotombuf_nomap(uio, M_NOWAIT, 0, 0, M_PKTHDR)!;
      const so = socket();
      expect(so.so_proto.pr_send(so, 0, m, sin(PEER))).to.equal(0);
      expect(rig.chains.every(({ unmapped }) => unmapped === (nomap ? 1 : 0))).to.equal(true);
      rig.chains.length = 0;
      const body = Buffer.concat(rig.sent.splice(0).map((f) => decodeFrame(f).ip!.payload));
      expect(body.equals(data), `${n} bytes, nomap ${nomap}`).to.equal(true);
    }
    expect(mbEmulator.conversions).to.equal(1);
  });

  it('refuses a message larger than the send buffer or than an IP packet', () => {
    const so = socket();
    expect(send(so, message(ECHO, 9216)), 'larger than the default buffer').to.equal(EMSGSIZE);
    soreserve(so, 100_000, 100_000);
    expect(send(so, new Uint8Array(65516))).to.equal(EMSGSIZE);
    expect(send(so, new Uint8Array(65515))).to.equal(0);
    expect(rig.sent.splice(0)).not.to.have.lengthOf(0);
  });

  it('broadcasts only with SO_BROADCAST', () => {
    const so = socket();
    expect(send(so, message(ECHO), '192.0.2.255')).to.equal(EACCES);
    so.so_options |= SO_BROADCAST;
    expect(send(so, message(ECHO), '192.0.2.255')).to.equal(0);
    expectTx(rig.sent, [toMac(BROADCAST_MAC), icmp(ECHO)]);
    expect(send(so, message(ECHO), '198.51.100.1'), 'no route').to.equal(EHOSTUNREACH);
  });

  it("receives whole packets with IP header, and the sender's address", () => {
    const so = socket();
    let woken = 0;
    soupcall_set(so, SO_RCV, { run: () => woken++ });
    expect(receive(so)).to.equal(EWOULDBLOCK);
    rig.injectIp(arrives(REPLY, 40));
    runUpcalls();
    expect(woken).to.equal(1);
    expect(receive(so)).to.deep.equal(arrives(REPLY, 40));
    expect(inet_ntoa(inAddrOf(soReceivedFrom.name))).to.equal(PEER);
    expect(receive(so)).to.equal(EWOULDBLOCK);
  });

  it("keeps packets separate and in order, and truncates a packet to the caller's buffer", () => {
    const so = socket();
    for (const seq of [1, 2, 3]) rig.injectIp(arrives(REPLY, seq * 10, seq));
    expect(receive(so)).to.deep.equal(arrives(REPLY, 10, 1));
    expect(receive(so, 25)).to.deep.equal(arrives(REPLY, 20, 2).slice(0, 25));
    expect(receive(so), 'the rest of the second packet is discarded').to.deep.equal(
      arrives(REPLY, 30, 3),
    );
    expect(so.so_rcv.sb_ccc).to.equal(0);
    expect(so.so_rcv.sb_mbcnt).to.equal(0);
  });

  it('gives every matching socket a copy', () => {
    const [a, b, c] = [socket(), socket(), socket()];
    rig.injectIp(arrives(REPLY, 1000));
    for (const so of [a, b, c]) expect(receive(so)).to.deep.equal(arrives(REPLY, 1000));
  });

  it('matches packets against the bound and the connected address', () => {
    const [bound, connected, other] = [socket(), socket(), socket()];
    expect(sobind(bound, sin(US))).to.equal(0);
    expect(sobind(other, sin('192.0.2.3'))).to.equal(EADDRNOTAVAIL);
    expect(soconnect(connected, sin(PEER))).to.equal(0);
    expect(soconnect(other, sin('192.0.2.9'))).to.equal(0);
    rig.injectIp(arrives(REPLY));
    expect(receive(bound)).to.deep.equal(arrives(REPLY));
    expect(receive(connected)).to.deep.equal(arrives(REPLY));
    expect(receive(other)).to.equal(EWOULDBLOCK);
    expect(send(connected, message(ECHO), null)).to.equal(0);
    expectTx(rig.sent, [from(US), to(PEER), icmp(ECHO)]);
    expect(send(connected, message(ECHO))).to.equal(EISCONN);
    expect(send(bound, message(ECHO), null)).to.equal(ENOTCONN);
    expect(bound.so_proto.pr_listen(bound, 1)).to.equal(EOPNOTSUPP);
  });

  it('receives ICMP errors, but not the echo requests that the kernel answers', () => {
    const so = socket();
    rig.injectIp(arrives(ECHO));
    expectTx(rig.sent, [icmp(REPLY)]);
    expect(receive(so)).to.equal(EWOULDBLOCK);
    const asked = buildIp4({ src: US, dst: '192.0.2.9' }, 1, message(ECHO));
    const unreach = buildIp4(
      { src: PEER, dst: US },
      1,
      buildIcmp({ type: UNREACH, code: 1, payload: asked }),
    );
    rig.injectIp(unreach);
    expect(receive(so)).to.deep.equal(unreach);
  });

  it('counts packets that a full receive buffer drops, and receives again after a read', () => {
    const so = socket();
    for (let i = 0; i < 8; i++) rig.injectIp(arrives(REPLY, 1400, i));
    expect(counted(R_RIP_FULL)).to.equal(2); // 9216 bytes hold six packets of 1428 + 16 bytes
    for (let i = 0; i < 6; i++) expect(receive(so)).to.deep.equal(arrives(REPLY, 1400, i));
    rig.injectIp(arrives(REPLY, 1400, 9));
    expect(receive(so)).to.deep.equal(arrives(REPLY, 1400, 9));
  });

  it('counts a copy for which no mbuf is free as such, and not as a full buffer', () => {
    const [a, b] = [socket(), socket()];
    const input = rig.ifp.if_input!;
    rig.ifp.if_input = (ifp, m): void => {
      failPoint('mbuf').arm(1);
      input(ifp, m);
    };
    rig.injectIp(arrives(REPLY, 1000));
    failPoint('mbuf').disarm();
    rig.ifp.if_input = input;
    expect([counted(R_IP_NOBUFS), counted(R_RIP_FULL)]).to.deep.equal([1, 0]);
    expect([receive(a), receive(b)].filter((got) => got === EWOULDBLOCK)).to.have.lengthOf(1);
  });

  it('frees unread packets on close and removes its ICMP hook', () => {
    const so = socket();
    for (let i = 0; i < 4; i++) rig.injectIp(arrives(REPLY, 1400, i));
    soclose(open.pop()!);
    expect(so.so_rcv.sb_mb).to.equal(null);
    expect(V_icmp(rig.vnet).raw).to.equal(null);
    rig.injectIp(buildIp4({ src: PEER, dst: US }, 1, message(17)));
    expect(counted(R_ICMP_IGNORED)).to.equal(1);
    expect(ipstat(rig.vnet).ips_delivered).to.equal(5);
  });
});
