/** Sockets and addresses that are tentative, duplicated or deprecated. */

import { expect } from 'chai';
import { SOCK_DGRAM, SOCK_RAW, SOCK_STREAM } from '../../src/kern/protosw.ts';
import { soSendDgram } from '../../src/kern/sys_generic.ts';
import {
  sobind,
  soconnect,
  solisten,
  type Socket,
  SS_ISCONNECTED,
} from '../../src/kern/uipc_socket.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { in6SetLifetime } from '../../src/netinet6/in6_ifaddr.ts';
import {
  IN6_IFF_DUPLICATED,
  IN6_IFF_NODAD,
  IN6_IFF_TENTATIVE,
  type In6Ifaddr,
  in6ifa_ifpwithaddr,
} from '../../src/netinet6/in6_var.ts';
import { IPPROTO_ICMPV6, IPPROTO_IPV6 } from '../../src/netinet6/ip6.ts';
import { in6AddrPut, IPV6_PKTINFO } from '../../src/netinet6/ip6_pktopts.ts';
import { EADDRNOTAVAIL, ECONNREFUSED } from '../../src/sys/errno.ts';
import { counted, R_TCP_DEPRECATED } from '../../src/sys/reason.ts';
import { A6, B6, Pair6, sin6 } from './pair.ts';

const NEW = '2001:db8::22';
const FOREVER = 0xffffffff;

describe('addresses that are not ready', () => {
  let pair: Pair6;
  let ia: In6Ifaddr;
  beforeEach(() => {
    pair = new Pair6();
    const { ifp } = pair.net.b;
    expect(in6_aifaddr(ifp, parseIn6(NEW)!, 64, IN6_IFF_NODAD)).to.equal(0);
    ia = in6ifa_ifpwithaddr(ifp, parseIn6(NEW)!)!;
  });
  afterEach(() => pair.close());

  const socket = (type: number, protocol = 0): Socket =>
    pair.socket(pair.net.b.vnet, type, protocol);

  /** IPV6_PKTINFO without an interface. */
  function pktinfo(text: string): { level: number; type: number; data: Uint8Array } {
    const data = new Uint8Array(20);
    in6AddrPut(new DataView(data.buffer), 0, parseIn6(text)!);
    return { level: IPPROTO_IPV6, type: IPV6_PKTINFO, data };
  }

  const sendFrom = (text: string, so: Socket): number =>
    soSendDgram(so, new Uint8Array(8), 0, 8, sin6(A6, 9), [pktinfo(text)]);

  for (const [name, flag] of [
    ['tentative', IN6_IFF_TENTATIVE],
    ['duplicated', IN6_IFF_DUPLICATED],
  ] as const)
    it(`a ${name} one cannot be bound, and is no source of IPV6_PKTINFO`, () => {
      const kinds = [[SOCK_STREAM], [SOCK_DGRAM], [SOCK_RAW, IPPROTO_ICMPV6]] as const;
      for (const [type, protocol = 0] of kinds) {
        ia.ia6_flags |= flag;
        expect(sobind(socket(type, protocol), sin6(NEW, 0))).to.equal(EADDRNOTAVAIL);
        if (type !== SOCK_STREAM)
          expect(sendFrom(NEW, socket(type, protocol))).to.equal(EADDRNOTAVAIL);
        ia.ia6_flags &= ~flag;
        expect(sobind(socket(type, protocol), sin6(NEW, 0))).to.equal(0);
        if (type !== SOCK_STREAM) expect(sendFrom(NEW, socket(type, protocol))).to.equal(0);
      }
    });

  it('IPV6_PKTINFO does not take an address of another host', () => {
    for (const so of [socket(SOCK_DGRAM), socket(SOCK_RAW, IPPROTO_ICMPV6)])
      expect(sendFrom('2001:db8::99', so)).to.equal(EADDRNOTAVAIL);
  });

  describe('that are deprecated', () => {
    const useDeprecated = (on: boolean): number =>
      pair.net.b.vnet.sysctl.write('net.inet6.ip6.use_deprecated', on ? '1' : '0');

    /** Connects a to `to` of b; 0, or the errno. */
    function connect(to: string): number {
      const so = pair.socket(pair.net.a.vnet, SOCK_STREAM);
      expect(soconnect(so, sin6(to, 80))).to.equal(0);
      pair.run(100);
      return (so.so_state & SS_ISCONNECTED) !== 0 ? 0 : so.so_error;
    }

    beforeEach(() => {
      in6SetLifetime(ia, { vltime: FOREVER, pltime: 0 });
      const listener = socket(SOCK_STREAM);
      expect(sobind(listener, sin6('::', 80))).to.equal(0);
      expect(solisten(listener, 10)).to.equal(0);
    });

    it('can be bound and connected to', () => {
      for (const on of [true, false]) {
        useDeprecated(on);
        expect(sobind(socket(SOCK_STREAM), sin6(NEW, 0))).to.equal(0);
      }
      useDeprecated(true);
      expect(connect(NEW)).to.equal(0);
    });

    it('refuse connections with use_deprecated=0, others do not', () => {
      useDeprecated(false);
      expect(connect(NEW)).to.equal(ECONNREFUSED);
      expect(counted(R_TCP_DEPRECATED)).to.equal(1);
      expect(connect(B6)).to.equal(0);
      in6SetLifetime(ia, { vltime: FOREVER, pltime: FOREVER });
      expect(connect(NEW)).to.equal(0);
    });
  });
});
