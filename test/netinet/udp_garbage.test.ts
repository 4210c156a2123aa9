import { expect } from 'chai';
import { m_freem } from '../../src/kern/kern_mbuf.ts';
import { CSUM_IP, CSUM_UDP, type Mbuf } from '../../src/kern/mbuf.ts';
import { AF_INET, IPPROTO_UDP, SOCK_DGRAM } from '../../src/kern/protosw.ts';
import type { Sockaddr } from '../../src/kern/sockaddr.ts';
import { sbdroprecord } from '../../src/kern/uipc_dgram.ts';
import { sobind, soclose, soconnect, socreate, soResult } from '../../src/kern/uipc_socket.ts';
import { inSockaddr } from '../../src/netinet/in.ts';
import { udp_input } from '../../src/netinet/udp_usrreq.ts';
import { udpstat } from '../../src/netinet/udp_var.ts';
import { port } from '../../src/sys/types.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { buildUdp } from '../support/frames.ts';
import { addr, outPacket, PEER, Rig, US } from './rig.ts';

const sin = (text: string, p: number): Sockaddr => inSockaddr(addr(text), port(p));

describe('udp: garbage per datagram', () => {
  it('allocates no garbage, sent or received', () => {
    const rig = new Rig({ hwassist: CSUM_UDP | CSUM_IP });
    expect(socreate(rig.vnet, AF_INET, SOCK_DGRAM, IPPROTO_UDP)).to.equal(0);
    const so = soResult.so!;
    expect(sobind(so, sin(US, 53))).to.equal(0);
    const nam = sin(PEER, 5000);
    rig.if_transmit = (_ifp, m): number => {
      m_freem(m);
      return 0;
    };
    const data = Uint8Array.from({ length: 64 }, (_, i) => (i * 7) & 255);
    const make = (): Mbuf => outPacket(data);
    const own = bytesPerCall(() => m_freem(make()));
    const sent = (whom: Sockaddr | null): number =>
      bytesPerCall(() => so.so_proto.pr_send(so, 0, make(), whom)) - own;
    expect(sent(nam), 'sent to an address').to.be.below(8);
    expect(soconnect(so, nam)).to.equal(0);
    expect(sent(null), 'sent on a connected socket').to.be.below(8);
    expect(so.so_proto.pr_disconnect(so)).to.equal(0);
    const packet = buildUdp(
      { src: PEER, dst: US },
      { sport: 4000, dport: 53, payload: data.subarray(0, 32) },
    );
    const receiveOne = (): void => {
      const m = outPacket(packet);
      m.m_pkthdr.rcvif = rig.ifp;
      udp_input(m, 20, rig.vnet, AF_INET);
      sbdroprecord(so.so_rcv);
    };
    const mbuf = bytesPerCall(() => m_freem(outPacket(packet)));
    expect(bytesPerCall(receiveOne) - mbuf, 'received').to.be.below(8);
    expect(udpstat(rig.vnet).udps_ipackets).to.be.above(100_000);
    soclose(so);
    rig.close();
  }).timeout(60_000);
});
