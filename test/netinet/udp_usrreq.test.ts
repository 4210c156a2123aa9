import { expect } from 'chai';
import { m_gethdr } from '../../src/kern/kern_mbuf.ts';
import {
  CSUM_DATA_VALID,
  CSUM_IP,
  CSUM_PSEUDO_HDR,
  CSUM_UDP,
  type Mbuf,
  M_BCAST,
  M_MCAST,
  M_NOMAP,
  M_NOWAIT,
  M_PKTHDR,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import { AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_UDP, SOCK_DGRAM } from '../../src/kern/protosw.ts';
import type { Sockaddr } from '../../src/kern/sockaddr.ts';
import { ioResult, soRecvDgram, soSendDgram } from '../../src/kern/sys_generic.ts';
import { soReceivedFrom } from '../../src/kern/uipc_dgram.ts';
import { m_uiotombuf_nomap } from '../../src/kern/m_uiotombuf.ts';
import { m_adj, m_length } from '../../src/kern/uipc_mbuf.ts';
import {
  SO_BROADCAST,
  SO_RCV,
  SO_REUSEPORT,
  SHUT_WR,
  sobind,
  soclose,
  soconnect,
  socreate,
  soreserve,
  soResult,
  soshutdown,
  type Socket,
  soupcall_set,
} from '../../src/kern/uipc_socket.ts';
import { IFCAP_NOMAP } from '../../src/net/if_var.ts';
import { inAddrOf, inet_ntoa, inSockaddr } from '../../src/netinet/in.ts';
import { udp_pcblist } from '../../src/netinet/udp_pcblist.ts';
import { IP_DONTFRAG, IP_MINTTL, IP_TOS, IP_TTL } from '../../src/netinet/ip_ctloutput.ts';
import { soSetInt } from '../../src/kern/uipc_sockopt.ts';
import { udp_set_kernel_tunneling } from '../../src/netinet/udp_usrreq.ts';
import { udpstat } from '../../src/netinet/udp_var.ts';
import {
  EACCES,
  EADDRINUSE,
  EADDRNOTAVAIL,
  EAFNOSUPPORT,
  EBUSY,
  ECONNREFUSED,
  EDESTADDRREQ,
  EHOSTUNREACH,
  EINVAL,
  EISCONN,
  EMSGSIZE,
  ENOPROTOOPT,
  ENOTCONN,
  EOPNOTSUPP,
  EPIPE,
  EWOULDBLOCK,
} from '../../src/sys/errno.ts';
import {
  counted,
  R_CONVERT_CSUM,
  R_CONVERT_NOMAP,
  R_UDP_FULL,
  R_UDP_LEN,
  R_UDP_MINTTL,
  R_UDP_NOPCB,
  R_UDP_PORT0,
  R_UDP_SHORT,
  R_UDP_SUM,
} from '../../src/sys/reason.ts';
import { port } from '../../src/sys/types.ts';
import { Uio, UIO_WRITE } from '../../src/vm/uio.ts';
import { chainBytes, must, pgsMbuf } from '../kern/chains.ts';
import {
  BROADCAST_MAC,
  buildIcmp,
  buildIp4,
  buildUdp,
  decodeFrame,
  decodeIp4,
  expectTx,
  expectTxWith,
  from,
  icmp,
  type Ip4Info,
  naiveSum,
  payload,
  to,
  toMac,
  type UdpFields,
} from '../support/frames.ts';
import { addr, PEER, Rig, type RigOptions, US } from './rig.ts';
import { runUpcalls } from '../support/machine.ts';

const sin = (text: string, p: number): Sockaddr => inSockaddr(addr(text), port(p));
const bytes = (n: number, salt = 0): Uint8Array =>
  Uint8Array.from({ length: n }, (_, i) => ((i + salt) * 7) & 255);
const MAC_MULTICAST = '01:00:5e:00:00:01';

describe('udp_usrreq', () => {
  let rig: Rig;
  let open: Socket[];
  const boot = (options: RigOptions = {}): void => {
    rig = new Rig(options);
    open = [];
  };
  afterEach(() => {
    for (const so of open) soclose(so);
    rig.close();
  });

  function socket(bindTo: Sockaddr | null = null, options = 0): Socket {
    expect(socreate(rig.vnet, AF_INET, SOCK_DGRAM, IPPROTO_UDP)).to.equal(0);
    const so = soResult.so!;
    open.push(so);
    so.so_options |= options;
    if (bindTo !== null) expect(sobind(so, bindTo)).to.equal(0);
    return so;
  }
  const close = (so: Socket): void => {
    open.splice(open.indexOf(so), 1);
    soclose(so);
  };
  const big = (so: Socket): Socket => {
    expect(soreserve(so, 200_000, 400_000)).to.equal(0);
    return so;
  };
  const send = (so: Socket, data: Uint8Array, nam: Sockaddr | null): number =>
    soSendDgram(so, data, 0, data.length, nam);
  /** The next datagram, or the errno. */
  function receive(so: Socket, room = 65535): Uint8Array | number {
    const buf = new Uint8Array(room);
    const error = soRecvDgram(so, buf, 0, room);
    return error === 0 ? buf.slice(0, ioResult.n) : error;
  }
  const arrives = (f: Partial<UdpFields> = {}, ip = {}): Uint8Array =>
    buildUdp({ src: PEER, dst: US, ...ip }, { sport: 4000, dport: 53, payload: bytes(32), ...f });
  const stat = (): ReturnType<typeof udpstat> => udpstat(rig.vnet);

  /** Reassembles the datagram from the fragments just sent. */
  function reassemble(): { frags: Ip4Info[]; ip: Ip4Info } {
    const frags = rig.sent.splice(0).map((f) => decodeFrame(f).ip!);
    const body = Buffer.concat(frags.map((f) => f.payload));
    let end = 0;
    for (const [i, f] of frags.entries()) {
      expect(f.fragOff).to.equal(end);
      expect(f.mf).to.equal(i < frags.length - 1);
      expect(f.id).to.equal(frags[0]!.id);
      end += f.payload.length;
    }
    const { src, dst, proto } = frags[0]!;
    return { frags, ip: decodeIp4(buildIp4({ src, dst }, proto, body)) };
  }

  describe('sending', () => {
    it('uses an ephemeral port, and keeps it for the next datagram', () => {
      boot();
      const so = socket();
      expect(send(so, bytes(100), sin(PEER, 5000))).to.equal(0);
      const [f] = expectTx(rig.sent, [from(US), to(PEER, 5000), payload(bytes(100))]);
      expect(f!.ip).to.include({ ttl: 64, tos: 0, df: false });
      expect(rig.chains[0]!.mbufs, 'headers and data in one mbuf').to.equal(1);
      const { sport } = f!.ip!.udp!;
      expect(sport).to.be.within(10000, 65535);
      expect(send(so, bytes(1), sin(PEER, 5001))).to.equal(0);
      expectTx(rig.sent, [from(US, sport), to(PEER, 5001), payload(bytes(1))]);
      expect(stat().udps_opackets).to.equal(2);
    });

    it('sends to the connected peer, and refuses an address then', () => {
      boot();
      const so = socket(sin(US, 53));
      expect(send(so, bytes(1), null)).to.equal(EDESTADDRREQ);
      expect(send(so, bytes(1), sin(PEER, 0))).to.equal(EADDRNOTAVAIL);
      const other = sin(PEER, 1);
      other.family = AF_INET6;
      expect(send(so, bytes(1), other)).to.equal(EAFNOSUPPORT);
      expect(soconnect(so, sin(PEER, 5000))).to.equal(0);
      expect(send(so, bytes(9), null)).to.equal(0);
      expectTx(rig.sent, [from(US, 53), to(PEER, 5000), payload(bytes(9))]);
      expect(send(so, bytes(1), sin(PEER, 5000))).to.equal(EISCONN);
      // A second connect changes the peer; a disconnect keeps the local port.
      expect(soconnect(so, sin(PEER, 6000))).to.equal(0);
      expect(send(so, bytes(9), null)).to.equal(0);
      expectTx(rig.sent, [from(US, 53), to(PEER, 6000)]);
      expect(so.so_proto.pr_disconnect(so)).to.equal(0);
      expect(so.so_proto.pr_disconnect(so)).to.equal(ENOTCONN);
      expect(send(so, bytes(9), sin(PEER, 7000))).to.equal(0);
      expectTx(rig.sent, [from(US, 53), to(PEER, 7000)]);
      expect(so.so_proto.pr_listen(so, 1)).to.equal(EOPNOTSUPP);
    });

    it('sends an empty datagram', () => {
      boot();
      expect(send(socket(), bytes(0), sin(PEER, 5000))).to.equal(0);
      const [f] = expectTx(rig.sent, [payload(0)]);
      expect(f!.ip!.len).to.equal(28);
    });

    it('sends no checksum with net.inet.udp.checksum=0', () => {
      boot();
      rig.vnet.sysctl.write('net.inet.udp.checksum', '0');
      expect(send(socket(), bytes(10), sin(PEER, 5000))).to.equal(0);
      const ip = decodeFrame(rig.sent.splice(0)[0]!, { l4: 'none' }).ip!;
      expect([ip.payload[6], ip.payload[7]]).to.deep.equal([0, 0]);
    });

    it('leaves the checksum to a NIC with CSUM_UDP', () => {
      boot({ hwassist: CSUM_UDP | CSUM_IP });
      expect(send(socket(), bytes(10), sin(PEER, 5000))).to.equal(0);
      expect(rig.chains[0]).to.include({ csum_flags: CSUM_UDP | CSUM_IP, csum_data: 6 });
      expectTxWith({ l4: 'pseudo', l3: 'none' }, rig.sent, [payload(bytes(10))]);
    });

    for (const [n, frames] of [
      [1472, 1],
      [1473, 2],
      [9216, 7],
      [65507, 45],
    ] as const)
      it(`sends ${n} bytes in ${frames} frames`, () => {
        boot({ hwassist: CSUM_UDP }); // the NIC cannot sum over fragments
        expect(send(big(socket()), bytes(n), sin(PEER, 5000))).to.equal(0);
        if (frames === 1) {
          expectTxWith({ l4: 'pseudo' }, rig.sent, [payload(bytes(n))]);
          return;
        }
        const { frags, ip } = reassemble();
        expect(frags).to.have.lengthOf(frames);
        expect(Buffer.from(ip.udp!.payload).equals(bytes(n))).to.equal(true);
      });

    it('refuses a datagram larger than the send buffer or an IP packet, or larger than the MTU with DF', () => {
      boot();
      const so = socket();
      expect(send(so, bytes(9217), sin(PEER, 5000)), 'net.inet.udp.maxdgram').to.equal(EMSGSIZE);
      big(so);
      expect(send(so, bytes(65508), sin(PEER, 5000))).to.equal(EMSGSIZE);
      soSetInt(so, IPPROTO_IP, IP_DONTFRAG, 1);
      soSetInt(so, IPPROTO_IP, IP_TTL, 9);
      expect(send(so, bytes(1473), sin(PEER, 5000))).to.equal(EMSGSIZE);
      expectTx(rig.sent);
      expect(send(so, bytes(1472), sin(PEER, 5000))).to.equal(0);
      const [f] = expectTx(rig.sent, [payload(1472)]);
      expect(f!.ip).to.include({ ttl: 9, df: true });
    });

    it('broadcasts only with SO_BROADCAST, and sends nothing without a route', () => {
      boot();
      const so = socket();
      expect(send(so, bytes(1), sin('192.0.2.255', 5000))).to.equal(EACCES);
      so.so_options |= SO_BROADCAST;
      expect(send(so, bytes(1), sin('192.0.2.255', 5000))).to.equal(0);
      expectTx(rig.sent, [toMac(BROADCAST_MAC), to('192.0.2.255', 5000)]);
      expect(send(so, bytes(1), sin('198.51.100.1', 5000))).to.equal(EHOSTUNREACH);
      expect(send(so, bytes(1), sin('0.0.0.0', 5000))).to.equal(EADDRNOTAVAIL);
      expectTx(rig.sent);
    });

    it('sends nothing after shutdown', () => {
      boot();
      const so = socket();
      expect(soshutdown(so, SHUT_WR)).to.equal(ENOTCONN);
      expect(soconnect(so, sin(PEER, 5000))).to.equal(0);
      expect(soshutdown(so, SHUT_WR)).to.equal(0);
      expect(send(so, bytes(1), null)).to.equal(EPIPE);
      expectTx(rig.sent);
    });
  });

  describe('sending unmapped payload', () => {
    /** An empty packet header with pages behind it; with `first` 0, a packet made of pages only. */
    function unmapped(npgs: number, first: number, last: number): Mbuf {
      if (first === 0) {
        const n = (npgs - 1) * 4096 + last;
        const uio = new Uio().single(bytes(n), 0, n, UIO_WRITE);
        return must(m_uiotombuf_nomap(uio, M_NOWAIT, 0, 0, M_PKTHDR));
      }
      const top = must(m_gethdr(M_NOWAIT, MT_DATA));
      top.m_next = pgsMbuf({ npgs, first, last });
      top.m_pkthdr.len = m_length(top);
      return top;
    }
    const unmappedIn = (m: Mbuf | null): number => {
      let n = 0;
      for (; m !== null; m = m.m_next) if ((m.m_flags & M_NOMAP) !== 0) n++;
      return n;
    };

    for (const mtu of [576, 1500, 9000])
      for (const txcsum of [false, true])
        for (const nomap of [false, true])
          it(`mtu ${mtu}, txcsum ${txcsum}, nomap ${nomap}`, () => {
            const hwassist = txcsum ? CSUM_UDP | CSUM_IP : 0;
            boot({ mtu, hwassist, capabilities: nomap ? IFCAP_NOMAP : 0 });
            const so = socket(sin(US, 53));
            // Some larger than a frame, some smaller.
            for (const [npgs, first, last] of [
              [5, 1000, 77],
              [1, 3800, 200],
              [4, 0, 4096],
              [1, 0, 300],
            ] as const) {
              const m = unmapped(npgs, first, last);
              expect(unmappedIn(m)).to.equal(1);
              const want = chainBytes(m);
              const cut = want.length + 28 > mtu;
              expect(so.so_proto.pr_send(so, 0, m, sin(PEER, 5000))).to.equal(0);
              const summed = !txcsum || cut;
              const { csum_flags, unmapped: left } = rig.chains.at(-1)!;
              expect(csum_flags & CSUM_UDP).to.equal(summed ? 0 : CSUM_UDP);
              expect(left, 'unmapped mbufs at the driver').to.equal(!summed && nomap ? 1 : 0);
              const l3 = txcsum ? 'none' : 'full';
              if (cut) {
                const body = Buffer.concat(
                  rig.sent.splice(0).map((f) => {
                    expect(f.length).to.be.at.most(mtu + 14);
                    return decodeFrame(f, { l3 }).ip!.payload;
                  }),
                );
                expect(body.subarray(8).equals(want)).to.equal(true);
                const sum = naiveSum([...body]) + pseudoSum(body.length);
                expect(sum % 0xffff).to.equal(0);
              } else {
                const l4 = summed ? 'full' : 'pseudo';
                expectTxWith({ l4, l3 }, rig.sent, [from(US, 53), payload(want)]);
              }
            }
            const converted = counted(R_CONVERT_CSUM) + counted(R_CONVERT_NOMAP);
            // A large datagram is always fragmented and so converted. A small one is converted if
            // the NIC lacks either capability.
            expect(converted).to.equal(txcsum && nomap ? 2 : 4);
          });

    const pseudoSum = (len: number): number =>
      naiveSum([192, 0, 2, 2, 192, 0, 2, 1, 0, 17, len >>> 8, len & 255]);
  });

  describe('receiving', () => {
    it("delivers datagrams separately and in order, with the sender's address", () => {
      boot();
      const so = socket(sin('0.0.0.0', 53));
      let woken = 0;
      soupcall_set(so, SO_RCV, { run: () => woken++ });
      expect(receive(so)).to.equal(EWOULDBLOCK);
      for (const n of [10, 0, 1400]) {
        rig.injectIp(arrives({ payload: bytes(n), sport: 100 + n }));
        runUpcalls();
      }
      expect(woken).to.equal(3);
      for (const n of [10, 0, 1400]) {
        expect(receive(so)).to.deep.equal(bytes(n));
        expect(inet_ntoa(inAddrOf(soReceivedFrom.name))).to.equal(PEER);
        expect(soReceivedFrom.name.port).to.equal(100 + n);
      }
      expect(receive(so)).to.equal(EWOULDBLOCK);
      rig.injectIp(arrives());
      expect(receive(so, 5), 'the rest of the datagram is discarded').to.deep.equal(bytes(5));
      expect(receive(so)).to.equal(EWOULDBLOCK);
      expect([so.so_rcv.sb_ccc, so.so_rcv.sb_mbcnt]).to.deep.equal([0, 0]);
    });

    it('accepts a datagram in mbufs of any size and in fragments', () => {
      boot();
      const so = big(socket(sin(US, 53)));
      for (const piece of [21, 40, 100]) {
        rig.injectIp(arrives({ payload: bytes(900) }), piece);
        expect(receive(so)).to.deep.equal(bytes(900));
      }
      const whole = arrives({ payload: bytes(20_000) }).slice(20);
      const step = 1480;
      for (let off = 0; off < whole.length; off += step)
        rig.injectIp(
          buildIp4(
            { src: PEER, dst: US, id: 7, fragOff: off, mf: off + step < whole.length },
            17,
            whole.slice(off, off + step),
          ),
        );
      expect(receive(so)).to.deep.equal(bytes(20_000));
    });

    it('prefers a connected socket to a bound address, and that to INADDR_ANY', () => {
      boot();
      const any = socket(sin('0.0.0.0', 53), SO_REUSEPORT);
      const own = socket(sin(US, 53), SO_REUSEPORT);
      const connected = socket(sin(US, 53), SO_REUSEPORT);
      expect(soconnect(connected, sin(PEER, 4000))).to.equal(0);
      rig.injectIp(arrives());
      expect(receive(connected)).to.deep.equal(bytes(32));
      rig.injectIp(arrives({ sport: 4001 }));
      expect(receive(own)).to.deep.equal(bytes(32));
      close(own);
      rig.injectIp(arrives({ sport: 4001 }));
      expect(receive(any)).to.deep.equal(bytes(32));
      expect(receive(connected)).to.equal(EWOULDBLOCK);
    });

    it('cuts bytes behind the UDP length', () => {
      boot();
      const so = socket(sin(US, 53));
      const udp = arrives().slice(20);
      rig.injectIp(buildIp4({ src: PEER, dst: US }, 17, [...udp, 1, 2, 3]));
      expect(receive(so)).to.deep.equal(bytes(32));
    });

    it('counts and drops invalid datagrams', () => {
      boot();
      const so = socket(sin(US, 53));
      const ip = { src: PEER, dst: US };
      rig.injectIp(buildIp4(ip, 17, bytes(7)));
      expect([stat().udps_hdrops, counted(R_UDP_SHORT)]).to.deep.equal([1, 1]);
      const long = arrives().slice(20);
      long[5] = 41;
      rig.injectIp(buildIp4(ip, 17, long));
      const short = arrives().slice(20);
      short[5] = 7;
      rig.injectIp(buildIp4(ip, 17, short));
      expect([stat().udps_badlen, counted(R_UDP_LEN)]).to.deep.equal([2, 2]);
      rig.injectIp(arrives({ sum: 0x1234 }));
      expect([stat().udps_badsum, counted(R_UDP_SUM)]).to.deep.equal([1, 1]);
      expect(receive(so)).to.equal(EWOULDBLOCK);
      rig.injectIp(arrives({ sum: 0 }));
      expect(receive(so)).to.deep.equal(bytes(32));
      expect(stat().udps_nosum).to.equal(1);
      expect(stat().udps_ipackets).to.equal(5);
      expectTx(rig.sent);
    });

    it("uses the NIC's verdict on the checksum", () => {
      boot();
      const so = socket(sin(US, 53));
      const inject = rig.ifp.if_input!;
      let verdict = 0xffff;
      rig.ifp.if_input = (ifp, m): void => {
        m.m_pkthdr.csum_flags |= CSUM_DATA_VALID | CSUM_PSEUDO_HDR;
        m.m_pkthdr.csum_data = verdict;
        inject(ifp, m);
      };
      rig.injectIp(arrives({ sum: 0x1234 }));
      expect(receive(so)).to.deep.equal(bytes(32));
      // The verdict does not hold if the NIC summed more than the datagram.
      const padded = [...arrives({ sum: 0x1234 }).slice(20), 1, 2, 3];
      rig.injectIp(buildIp4({ src: PEER, dst: US }, 17, padded));
      expect(receive(so)).to.equal(EWOULDBLOCK);
      expect(stat().udps_badsum).to.equal(1);
      verdict = 0x1111;
      rig.injectIp(arrives());
      expect(receive(so)).to.equal(EWOULDBLOCK);
      rig.ifp.if_input = inject;
    });

    it('counts datagrams that a full receive buffer drops', () => {
      boot();
      const so = socket(sin(US, 53));
      for (let i = 0; i < 40; i++) rig.injectIp(arrives({ payload: bytes(1400, i) }));
      const { udps_fullsock } = stat();
      expect(udps_fullsock).to.equal(40 - Math.floor(42_080 / 1416));
      expect(counted(R_UDP_FULL)).to.equal(udps_fullsock);
      for (let i = 0; i < 40 - udps_fullsock; i++)
        expect(receive(so)).to.deep.equal(bytes(1400, i));
      rig.injectIp(arrives());
      expect(receive(so)).to.deep.equal(bytes(32));
      rig.injectIp(arrives()); // left in the buffer: soclose frees it
    });

    it('delivers a broadcast or multicast once to each socket that shares the port', () => {
      boot();
      const shared = [1, 2, 3].map(() => socket(sin('0.0.0.0', 53), SO_REUSEPORT));
      rig.injectIp(arrives({}, { dst: '192.0.2.255' }), 0, BROADCAST_MAC);
      rig.injectIp(arrives({}, { dst: '224.0.0.1' }), 0, MAC_MULTICAST);
      for (const so of shared) {
        expect(receive(so)).to.deep.equal(bytes(32));
        expect(receive(so)).to.deep.equal(bytes(32));
        expect(receive(so)).to.equal(EWOULDBLOCK);
        close(so);
      }
      rig.injectIp(arrives({}, { dst: '192.0.2.255' }), 0, BROADCAST_MAC);
      rig.injectIp(arrives({}, { dst: '224.0.0.1' }), 0, MAC_MULTICAST);
      expect(stat()).to.include({
        udps_noport: 2,
        udps_noportbcast: 1,
        udps_noportmcast: 1,
      });
      expectTx(rig.sent);
    });

    it('passes datagrams to a tunnel, which may answer each copy of a multicast at once', () => {
      boot();
      const shared = [1, 2, 3].map(() => socket(sin('0.0.0.0', 53), SO_REUSEPORT));
      for (const so of shared.slice(0, 2)) {
        const udpTunneled = (m: Mbuf, hlen: number, sender: Sockaddr): void => {
          m_adj(m, hlen + 8);
          m.m_flags &= ~(M_BCAST | M_MCAST);
          expect(so.so_proto.pr_send(so, 0, m, sender)).to.equal(0);
        };
        expect(udp_set_kernel_tunneling(so, { udpTunneled })).to.equal(0);
        expect(udp_set_kernel_tunneling(so, { udpTunneled })).to.equal(EBUSY);
      }
      rig.injectIp(arrives({}, { dst: '224.0.0.1' }), 0, MAC_MULTICAST);
      const reply = [from(US), to(PEER), payload(bytes(32))];
      expectTx(rig.sent, reply, reply);
      expect(shared.map((so) => receive(so))).to.deep.equal([EWOULDBLOCK, EWOULDBLOCK, bytes(32)]);
    });
  });

  describe('closed ports', () => {
    it('sends port unreachable with the whole datagram quoted', () => {
      boot();
      const packet = arrives();
      rig.injectIp(packet);
      const [f] = expectTx(rig.sent, [to(PEER), icmp(3, 3)]);
      expect(Buffer.from(f!.ip!.icmp!.payload).equals(packet)).to.equal(true);
      expect([stat().udps_noport, counted(R_UDP_NOPCB)]).to.deep.equal([1, 1]);
    });

    it('drops a datagram for port 0 silently, to us and to everyone', () => {
      boot();
      rig.injectIp(arrives({ dport: 0 }));
      rig.injectIp(arrives({ dport: 0 }, { dst: '192.0.2.255' }), 0, BROADCAST_MAC);
      expectTx(rig.sent);
      expect([stat().udps_noport, counted(R_UDP_PORT0)]).to.deep.equal([0, 2]);
    });

    it('log_in_vain writes a line about a closed port, at most ten in a second', () => {
      boot();
      rig.injectIp(arrives());
      expect(rig.console).to.deep.equal([]);
      rig.vnet.sysctl.write('net.inet.udp.log_in_vain', '1');
      rig.injectIp(arrives());
      expect(rig.console).to.deep.equal([
        'Connection attempt to UDP 192.0.2.2:53 from 192.0.2.1:4000',
      ]);
      for (let i = 0; i < 50; i++) rig.injectIp(arrives());
      expect(rig.console).to.have.lengthOf(10);
      rig.clock.advance(1e9);
      rig.injectIp(arrives());
      expect(rig.console.slice(10)).to.deep.equal([
        '41 lines like the next one were left out',
        'Connection attempt to UDP 192.0.2.2:53 from 192.0.2.1:4000',
      ]);
      rig.sent.length = 0;
    });

    it('time exceeded is EHOSTUNREACH on a connected socket, and parameter problem ENOPROTOOPT', () => {
      boot();
      const so = socket(sin(US, 7));
      expect(soconnect(so, sin(PEER, 9))).to.equal(0);
      const quoted = buildUdp({ src: US, dst: PEER }, { sport: 7, dport: 9, payload: 'abc' });
      const errors: [number, number, number][] = [
        [11, 0, EHOSTUNREACH],
        [11, 1, 0],
        [12, 0, ENOPROTOOPT],
        [12, 1, ENOPROTOOPT],
        [12, 2, 0],
        [3, 0, EHOSTUNREACH],
        [3, 3, ECONNREFUSED],
        [3, 10, ECONNREFUSED],
        [3, 16, 0],
      ];
      for (const [type, code, errno] of errors) {
        const error = buildIcmp({ type, code, payload: quoted });
        rig.injectIp(buildIp4({ src: PEER, dst: US }, 1, error));
        expect(so.so_error, `${type}/${code}`).to.equal(errno);
        so.so_error = 0;
      }
    });
  });

  describe('IP_TOS, IP_TTL and IP_MINTTL', () => {
    it('IP_TOS and IP_TTL are in each datagram and each fragment', () => {
      boot();
      const so = socket();
      expect(soSetInt(so, IPPROTO_IP, IP_TOS, 0xb8)).to.equal(0);
      expect(soSetInt(so, IPPROTO_IP, IP_TTL, 3)).to.equal(0);
      expect(send(so, bytes(3000), sin(PEER, 9))).to.equal(0);
      const sent = rig.sent.splice(0).map((f) => decodeFrame(f).ip!);
      expect(sent).to.have.lengthOf(3);
      for (const ip of sent) expect(ip).to.include({ tos: 0xb8, ttl: 3 });
    });

    it('IP_MINTTL drops a datagram with a smaller TTL silently', () => {
      boot();
      const so = socket(sin(US, 53));
      expect(soSetInt(so, IPPROTO_IP, IP_MINTTL, 255)).to.equal(0);
      rig.injectIp(arrives({}, { ttl: 254 }));
      expect(receive(so)).to.equal(EWOULDBLOCK);
      expectTx(rig.sent);
      expect(counted(R_UDP_MINTTL)).to.equal(1);
      rig.injectIp(arrives({}, { ttl: 255 }));
      expect(receive(so)).to.deep.equal(bytes(32));
    });

    const ranges: [number, number[], number[]][] = [
      [IP_TTL, [0, 1, 64, 255], []],
      [IP_MINTTL, [0, 1, 255], [-1, 256]],
      [IP_TOS, [0, 0xff], []],
    ];
    for (const [name, good, wrong] of ranges)
      it(`option ${name} takes ${good.join()} and refuses ${wrong.join()}`, () => {
        boot();
        const so = socket();
        for (const v of good) expect(soSetInt(so, IPPROTO_IP, name, v), String(v)).to.equal(0);
        for (const v of wrong) expect(soSetInt(so, IPPROTO_IP, name, v)).to.equal(EINVAL);
      });
  });

  describe('blackhole', () => {
    it('sends no port unreachable with net.inet.udp.blackhole, and at most icmplim per second', () => {
      boot();
      rig.vnet.sysctl.write('net.inet.udp.blackhole', '1');
      rig.injectIp(arrives());
      expectTx(rig.sent);
      rig.vnet.sysctl.write('net.inet.udp.blackhole', '0');
      rig.vnet.sysctl.write('net.inet.icmp.icmplim', '3');
      for (let i = 0; i < 10; i++) rig.injectIp(arrives());
      expect(rig.sent.splice(0)).to.have.lengthOf(3);
      expect(stat().udps_noport).to.equal(11);
    });

    it('port unreachable from the peer sets ECONNREFUSED once on the connected socket only', () => {
      boot();
      const so = socket(sin(US, 53));
      const lone = socket(sin(US, 54));
      expect(soconnect(so, sin(PEER, 5000))).to.equal(0);
      for (const [who, sport] of [
        [so, 53],
        [lone, 54],
      ] as const) {
        expect(send(who, bytes(4), who === so ? null : sin(PEER, 5000))).to.equal(0);
        rig.sent.length = 0;
        const asked = buildUdp({ src: US, dst: PEER }, { sport, dport: 5000, payload: bytes(4) });
        const error = buildIcmp({ type: 3, code: 3, payload: asked });
        rig.injectIp(buildIp4({ src: PEER, dst: US }, 1, error));
      }
      expect(receive(so)).to.equal(ECONNREFUSED);
      expect(receive(so)).to.equal(EWOULDBLOCK);
      expect(receive(lone)).to.equal(EWOULDBLOCK);
    });
  });

  it('checks bindings as in_pcb does, and sends to itself over lo0', () => {
    boot();
    const a = socket(sin('127.0.0.1', 53));
    const b = socket();
    expect(sobind(b, sin('127.0.0.1', 53))).to.equal(EADDRINUSE);
    expect(sobind(b, sin(PEER, 53))).to.equal(EADDRNOTAVAIL);
    expect(send(b, bytes(40), sin('127.0.0.1', 53))).to.equal(0);
    expect(receive(a)).to.deep.equal(bytes(40));
    const back = inSockaddr(inAddrOf(soReceivedFrom.name), soReceivedFrom.name.port);
    expect(send(a, bytes(3), back)).to.equal(0);
    expect(receive(b)).to.deep.equal(bytes(3));
    expectTx(rig.sent);
  });

  it('lists sockets for netstat', () => {
    boot();
    const so = socket(sin('0.0.0.0', 53));
    rig.injectIp(arrives());
    const connected = socket(sin(US, 54));
    expect(soconnect(connected, sin(PEER, 5000))).to.equal(0);
    const [second, first] = udp_pcblist(rig.vnet);
    expect(first).to.include({ proto: 'udp4', laddr: '0.0.0.0', lport: 53, fport: 0, state: '' });
    expect(first!.recvq).to.equal(so.so_rcv.sb_ccc);
    expect(first!.recv_mbufs).to.equal(2);
    expect(second).to.include({ laddr: US, lport: 54, faddr: PEER, fport: 5000, recvq: 0 });
    expect(rig.vnet.sysctl.find('net.inet.udp.pcbcount')!.get()).to.equal(2);
  });
});
