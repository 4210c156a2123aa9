/** A stack with IPv6. The test plays the peer: it injects packets and reads those that were sent. */

import { expect } from 'chai';
import { AF_INET6, SOCK_DGRAM } from '../../src/kern/protosw.ts';
import { ioResult, soRecvDgram } from '../../src/kern/sys_generic.ts';
import { sobind, soclose, socreate, soResult, type Socket } from '../../src/kern/uipc_socket.ts';
import { tcpHcPurge } from '../../src/netinet/tcp_hostcache.ts';
import { V_tcp } from '../../src/netinet/tcp_var.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { IN6_IFF_NODAD, in6Ifextra, ND6_IFF_PERFORMNUD } from '../../src/netinet6/in6_var.ts';
import { type Ip6stat, ip6stat, V_ip6 } from '../../src/netinet6/ip6_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { OUR_MAC, PEER_MAC, Rig, type RigOptions } from '../netinet/rig.ts';
import { buildEther, mac } from '../support/frames.ts';
import {
  buildIcmp6,
  decode6,
  ETHERTYPE_IPV6,
  ip6,
  isMld,
  isSix,
  type Packet6,
} from '../support/six.ts';
import { sin6 } from './pair.ts';

export const US6 = '2001:db8::2';
export const PEER6 = '2001:db8::1';
/** The link-local addresses that the two Ethernet addresses give. */
export const US_LL = 'fe80::ff:fe00:2';
export const PEER_LL = 'fe80::ff:fe00:1';
export const TO_US = { src: PEER6, dst: US6 };

interface Rig6Options extends RigOptions {
  /** Default 0: addresses are ready at once. */
  dad_count?: number;
  /** Default false: no neighbour unreachability detection. */
  nud?: boolean;
}

export class Rig6 extends Rig {
  readonly sockets: Socket[] = [];

  constructor(options: Rig6Options = {}) {
    super(options);
    V_ip6(this.vnet).params.dad_count = options.dad_count ?? 0;
    // An entry that is never probed keeps the output of other tests free of solicitations.
    if (!(options.nud ?? false)) in6Ifextra(this.ifp)!.nd_ifinfo.flags &= ~ND6_IFF_PERFORMNUD;
    expect(in6_aifaddr(this.ifp, parseIn6(US6)!, 64, IN6_IFF_NODAD)).to.equal(0);
    for (const who of [PEER6, PEER_LL]) this.#introduce(who);
    this.sent.length = 0;
    this.chains.length = 0;
  }

  get stat6(): Ip6stat {
    return ip6stat(this.vnet);
  }

  /** A solicitation of the peer, from which the stack learns its Ethernet address. */
  #introduce(who: string): void {
    const body = [135, 0, 0, 0, 0, 0, 0, 0, ...ip6(US6), 1, 1, ...mac(PEER_MAC)];
    this.inject6(buildIcmp6({ src: who, dst: US6, hlim: 255 }, body));
  }

  /** Delivers a packet from the peer, in mbufs of `piece` bytes if given. */
  inject6(packet: Uint8Array, dst = OUR_MAC, piece = 0): void {
    this.inject(buildEther({ dst, src: PEER_MAC }, ETHERTYPE_IPV6, packet), piece);
  }

  /** Decodes and removes the IPv6 packets sent since the last call, except reports of MLD. */
  take6(): Packet6[] {
    return this.sent
      .splice(0)
      .filter((frame) => isSix(frame) && !isMld(frame))
      .map((frame) => decode6(frame));
  }

  /** Type, code and bytes 4 to 7 of the only packet sent, which is an ICMPv6 message. */
  error6(): [number, number, number] | null {
    const sent = this.take6();
    if (sent.length === 0) return null;
    expect(sent.map(({ nxt }) => nxt)).to.deep.equal([58]);
    const { body } = sent[0]!;
    return [body[0]!, body[1]!, new DataView(body.buffer, body.byteOffset).getUint32(4)];
  }

  udp6(n: number): Socket {
    expect(socreate(this.vnet, AF_INET6, SOCK_DGRAM, 0)).to.equal(0);
    const so = soResult.so!;
    this.sockets.push(so);
    expect(sobind(so, sin6('::', n))).to.equal(0);
    return so;
  }

  /** The next datagram as text, or the errno. */
  datagram(so: Socket): string | number {
    const buf = new Uint8Array(70_000);
    const error = soRecvDgram(so, buf, 0, buf.length);
    return error === 0 ? Buffer.from(buf.subarray(0, ioResult.n)).toString('latin1') : error;
  }

  advance(ms: number): void {
    this.clock.advance(ms * 1e6);
  }

  override close(): void {
    for (const so of this.sockets.splice(0)) inPass(soclose, so);
    tcpHcPurge(V_tcp(this.vnet));
    super.close();
  }
}
