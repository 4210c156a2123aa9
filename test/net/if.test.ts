import { expect } from 'chai';
import * as fc from 'fast-check';
import { SeededPrng } from '../../src/host/prng.ts';
import { vnet_alloc } from '../../src/kern/vnet.ts';
import {
  if_addmulti,
  if_alloc,
  if_attach,
  if_delmulti,
  if_detach,
  if_link_state_change,
  ifhwioctl,
  ifnetList,
  ifSwitchCapabilities,
  ifunit,
} from '../../src/net/if.ts';
import * as ifVar from '../../src/net/if_var.ts';
import { ether_ifdetach } from '../../src/net/if_ethersubr.ts';
import {
  IFCAP_NETMAP,
  IFCAP_NOMAP,
  IFCAP_TXCSUM,
  IFF_BROADCAST,
  IFF_PPROMISC,
  IFF_PROMISC,
  IFF_UP,
  type IfIoctl,
  LINK_STATE_DOWN,
  LINK_STATE_UP,
  SIOCADDMULTI,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from '../../src/net/if_var.ts';
import { Nhop, Route, RTF_GATEWAY, RTF_HOST, RTF_UP } from '../../src/net/route.ts';
import { inAddrOf, inet_ntoa, maskPrefix, parseInAddr, prefixMask } from '../../src/netinet/in.ts';
import {
  fib4_lookup,
  inRouteAdd,
  inRouteAddGateway,
  inRouteDel,
  inRouteLookup,
  inRoutes,
} from '../../src/netinet/in_fib.ts';
import { in_aifaddr } from '../../src/netinet/in_ifaddr.ts';
import { ip_output } from '../../src/netinet/ip_output.ts';
import { in_localip, in_sourceAddr, ipstat, V_ip } from '../../src/netinet/ip_var.ts';
import { icmpstat } from '../../src/netinet/ip_icmp.ts';
import { EEXIST, EINVAL, ENETUNREACH, ENOENT, EOPNOTSUPP, ESRCH } from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import { counted, R_NETISR_FULL } from '../../src/sys/reason.ts';
import { inAddr } from '../../src/sys/types.ts';
import { addr, outPacket, PEER, Rig, US } from '../netinet/rig.ts';
import { buildIcmp, buildIp4 } from '../support/frames.ts';

describe('net', () => {
  let rig: Rig;
  beforeEach(() => (rig = new Rig({ capabilities: IFCAP_TXCSUM | IFCAP_NOMAP })));
  afterEach(() => rig.close());

  describe('interfaces', () => {
    it('are found by name and numbered in order', () => {
      expect(ifnetList(rig.vnet).map((i) => [i.if_xname, i.if_index])).to.deep.equal([
        ['lo0', 1],
        ['tn0', 2],
      ]);
      expect(ifunit(rig.vnet, 'tn0')).to.equal(rig.ifp);
      expect(ifunit(rig.vnet, 'tn1')).to.equal(null);
      const twin = if_alloc(rig.vnet, 'tn0');
      expect(() => if_attach(twin)).to.throw('name taken');
      expect(() => if_detach(twin)).to.throw('not attached');
      // Another stack does not list these interfaces.
      expect(ifnetList(vnet_alloc(new SeededPrng(2)))).to.deep.equal([]);
    });

    it('SIOCSIFCAP: EINVAL for a capability the card lacks, EOPNOTSUPP without a driver', () => {
      const { ifp } = rig;
      expect(ifhwioctl(ifp, SIOCSIFCAP, IFCAP_TXCSUM)).to.equal(0);
      expect(ifp.if_capenable).to.equal(IFCAP_TXCSUM);
      expect(ifhwioctl(ifp, SIOCSIFCAP, IFCAP_TXCSUM | 0x400)).to.equal(EINVAL);
      expect(ifp.if_capenable).to.equal(IFCAP_TXCSUM);
      ifp.if_capabilities |= IFCAP_NETMAP;
      expect(ifhwioctl(ifp, SIOCSIFCAP, IFCAP_TXCSUM | IFCAP_NETMAP)).to.equal(EINVAL);
      ifp.if_driver = null;
      expect(ifhwioctl(ifp, SIOCSIFCAP, 0)).to.equal(EOPNOTSUPP);
      expect(ifhwioctl(ifp, SIOCSIFMTU, 1400)).to.equal(EOPNOTSUPP);
      ifp.if_driver = rig;
    });

    it('ifSwitchCapabilities: switches what the card has, and calls the driver only for a change', () => {
      const { ifp } = rig;
      expect(ifhwioctl(ifp, SIOCSIFCAP, 0)).to.equal(0);
      const driver = ifp.if_driver!;
      const asked: number[] = [];
      ifp.if_driver = Object.create(driver, {
        if_ioctl: {
          value: (_ifp: unknown, command: IfIoctl, cap: number): number => {
            asked.push(cap);
            return driver.if_ioctl(ifp, command, cap);
          },
        },
      }) as typeof driver;
      try {
        expect(ifSwitchCapabilities(ifp, IFCAP_TXCSUM | IFCAP_NETMAP, true)).to.equal(0);
        expect(ifp.if_capenable).to.equal(IFCAP_TXCSUM);
        expect(ifSwitchCapabilities(ifp, IFCAP_TXCSUM, true)).to.equal(0);
        expect(ifSwitchCapabilities(ifp, 0x400, true)).to.equal(0);
        expect(ifSwitchCapabilities(ifp, 0x400, false)).to.equal(0);
        expect(asked).to.deep.equal([IFCAP_TXCSUM]);
        expect(ifSwitchCapabilities(ifp, IFCAP_TXCSUM, false)).to.equal(0);
        expect(ifp.if_capenable).to.equal(0);
        ifp.if_driver = null;
        expect(ifSwitchCapabilities(ifp, IFCAP_TXCSUM, true)).to.equal(EOPNOTSUPP);
      } finally {
        ifp.if_driver = driver;
      }
    });

    it('SIOCSIFMTU: accepts 72 up to the maximum of the driver', () => {
      for (const [mtu, error] of [
        [71, EINVAL],
        [72, 0],
        [1500, 0],
        [1501, EINVAL],
        [65536, EINVAL],
        [1400.5, EINVAL],
      ] as const)
        expect(ifhwioctl(rig.ifp, SIOCSIFMTU, mtu), `${mtu}`).to.equal(error);
      expect(rig.ifp.if_mtu).to.equal(1500);
    });

    it('SIOCSIFFLAGS: changes only the flags that users may change', () => {
      const { ifp } = rig;
      const before = ifp.if_flags;
      expect(ifhwioctl(ifp, SIOCSIFFLAGS, IFF_UP | IFF_PPROMISC)).to.equal(0);
      expect(ifp.if_flags & IFF_PROMISC).to.equal(IFF_PROMISC);
      expect(ifp.if_flags & IFF_BROADCAST).to.equal(IFF_BROADCAST);
      expect(ifhwioctl(ifp, SIOCSIFFLAGS, IFF_UP | IFF_PROMISC)).to.equal(0);
      expect(ifp.if_flags).to.equal(before);
    });

    it("use FreeBSD's numbers for counters, link states and driver flags", () => {
      const { ifp } = rig;
      const names = [
        ['IPACKETS', 'IERRORS', 'OPACKETS', 'OERRORS', 'COLLISIONS', 'IBYTES'],
        ['OBYTES', 'IMCASTS', 'OMCASTS', 'IQDROPS', 'OQDROPS', 'NOPROTO'],
      ].flat();
      const numbers: Record<string, unknown> = { ...ifVar };
      expect(names.map((name) => numbers[`IFCOUNTER_${name}`])).to.deep.equal([
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
      ]);
      expect([ifVar.LINK_STATE_UNKNOWN, LINK_STATE_DOWN, LINK_STATE_UP]).to.deep.equal([0, 1, 2]);
      expect([ifVar.IFF_DRV_RUNNING, ifVar.IFF_DRV_OACTIVE]).to.deep.equal([0x40, 0x400]);
      expect(ifp.if_flags & 0x440, 'driver flags in if_flags').to.equal(0);
      expect(ifp.if_drv_flags).to.equal(0x40);
    });

    it('log each change of the link state once', () => {
      if_link_state_change(rig.ifp, LINK_STATE_UP);
      if_link_state_change(rig.ifp, LINK_STATE_UP);
      if_link_state_change(rig.ifp, LINK_STATE_DOWN);
      expect(rig.console).to.deep.equal([
        'tn0: link state changed to UP',
        'tn0: link state changed to DOWN',
      ]);
    });

    it('count the members of a multicast group', () => {
      const calls: IfIoctl[] = [];
      const ioctl = rig.if_ioctl.bind(rig);
      rig.if_ioctl = (ifp, command, data): number => {
        calls.push(command);
        return command === SIOCADDMULTI ? 0 : ioctl(ifp, command, data);
      };
      const group = Uint8Array.from([1, 0, 0x5e, 1, 2, 3]);
      // The address added the all-hosts group.
      expect(rig.ifp.if_multiaddrs.length).to.equal(1);
      if_addmulti(rig.ifp, group);
      if_addmulti(rig.ifp, group);
      expect(rig.ifp.if_multiaddrs.map((ma) => ma.ifma_refcount)).to.deep.equal([1, 2]);
      if_delmulti(rig.ifp, group);
      if_delmulti(rig.ifp, group);
      expect(if_delmulti(rig.ifp, group)).to.equal(ENOENT);
      expect(calls).to.deep.equal(['SIOCADDMULTI', 'SIOCDELMULTI']);
    });

    it('remove their addresses and routes when they detach', () => {
      inRouteAddGateway(rig.vnet, inAddr(0), 0, addr(PEER));
      ether_ifdetach(rig.ifp);
      expect(inRoutes(rig.vnet).map((rt) => inet_ntoa(inAddrOf(rt.rt_dst)))).to.deep.equal([
        '127.0.0.1',
      ]);
      expect(in_localip(rig.vnet, addr(US))).to.equal(false);
      expect(ifunit(rig.vnet, 'tn0')).to.equal(null);
      rig.arpAsk(US);
      expect(rig.sent).to.deep.equal([]);
      if_attach(rig.ifp); // close() detaches it again
    });
  });

  describe('routes', () => {
    const via = (dst: string): string | undefined => {
      const nh = fib4_lookup(rig.vnet, addr(dst));
      return nh === null
        ? undefined
        : `${nh.nh_ifp.if_xname} ${inet_ntoa(inAddrOf(nh.nh_gateway))}`;
    };

    it('are chosen by longest prefix: host, network, default', () => {
      expect(via(PEER)).to.equal('tn0 0.0.0.0');
      expect(via(US)).to.equal('lo0 0.0.0.0');
      expect(via('127.0.0.1')).to.equal('lo0 0.0.0.0');
      expect(via('198.51.100.1')).to.equal(undefined);
      expect(inRouteAddGateway(rig.vnet, inAddr(0), 0, addr('198.51.100.1'))).to.equal(ENETUNREACH);
      expect(inRouteAddGateway(rig.vnet, inAddr(0), 0, addr(US))).to.equal(ENETUNREACH);
      expect(inRouteAddGateway(rig.vnet, inAddr(0), 0, addr(PEER))).to.equal(0);
      expect(inRouteAddGateway(rig.vnet, inAddr(0), 0, addr(PEER))).to.equal(EEXIST);
      expect(inRouteAddGateway(rig.vnet, addr('198.51.100.0'), 24, addr('192.0.2.7'))).to.equal(0);
      expect(inRouteAddGateway(rig.vnet, addr('198.51.100.9'), 32, addr('192.0.2.8'))).to.equal(0);
      // A gateway must be on a directly connected network.
      expect(inRouteAddGateway(rig.vnet, addr('203.0.113.0'), 24, addr('198.51.100.1'))).to.equal(
        ENETUNREACH,
      );
      expect(via('198.51.100.9')).to.equal('tn0 192.0.2.8');
      expect(via('198.51.100.10')).to.equal('tn0 192.0.2.7');
      expect(via('203.0.113.1')).to.equal(`tn0 ${PEER}`);
      expect(inRouteDel(rig.vnet, addr('198.51.100.0'), 24)).to.equal(0);
      expect(inRouteDel(rig.vnet, addr('198.51.100.0'), 24)).to.equal(ESRCH);
      expect(via('198.51.100.10')).to.equal(`tn0 ${PEER}`);
      const host = inRoutes(rig.vnet).find(
        (rt) => inet_ntoa(inAddrOf(rt.rt_dst)) === '198.51.100.9',
      );
      expect(host!.rt_nhop.nh_flags & (RTF_HOST | RTF_GATEWAY | RTF_UP)).to.equal(7);
      expect(inet_ntoa(in_sourceAddr(rig.vnet, addr('203.0.113.1')))).to.equal(US);
    });

    it('are found as by a linear search', () => {
      const entry = fc.tuple(fc.nat(0xffffffff), fc.integer({ min: 0, max: 32 }));
      const ia = rig.ifp.if_addrhead[0]!;
      fc.assert(
        fc.property(
          fc.array(entry, { maxLength: 12 }),
          fc.array(fc.nat(0xffffffff)),
          (list, dsts) => {
            const vnet = vnet_alloc(new SeededPrng(3));
            const have: { net: number; mask: number; len: number; nh: Nhop }[] = [];
            for (const [dst, len] of list) {
              const mask = prefixMask(len);
              const nh = new Nhop(rig.ifp, ia, null, RTF_UP, 0);
              const known = have.some((h) => h.len === len && h.net === (dst & mask) >>> 0);
              expect(inRouteAdd(vnet, inAddr(dst), len, nh)).to.equal(known ? EEXIST : 0);
              if (!known) have.push({ net: (dst & mask) >>> 0, mask, len, nh });
            }
            for (const dst of [...dsts, ...list.map(([d]) => d)]) {
              const hits = have.filter((h) => (dst & h.mask) >>> 0 === h.net);
              hits.sort((a, b) => b.len - a.len);
              expect(fib4_lookup(vnet, inAddr(dst))).to.equal(hits[0]?.nh ?? null);
            }
          },
        ),
      );
    });

    it('are looked up again for another destination or after a change', () => {
      const ro = new Route();
      const first = inRouteLookup(rig.vnet, ro, addr(PEER));
      expect(first!.nh_ifp).to.equal(rig.ifp);
      expect(inRouteLookup(rig.vnet, ro, addr(US))!.nh_ifp.if_xname).to.equal('lo0');
      expect(inRouteLookup(rig.vnet, ro, addr(PEER))).to.equal(first);
      rig.ifp.if_flags &= ~IFF_UP;
      expect(fib4_lookup(rig.vnet, addr(PEER))).to.equal(null);
      rig.ifp.if_flags |= IFF_UP;
    });
  });

  it('parses addresses strictly, and prints them', () => {
    for (const text of ['0.0.0.0', '192.0.2.255', '255.255.255.255'])
      expect(inet_ntoa(parseInAddr(text)!)).to.equal(text);
    for (const text of ['', '1.2.3', '1.2.3.4.5', '256.1.1.1', '01.2.3.4', '1.2.3.x', ' 1.2.3.4'])
      expect(parseInAddr(text), text).to.equal(null);
    for (let n = 0; n <= 32; n++) expect(maskPrefix(prefixMask(n))).to.equal(n);
    expect(prefixMask(24)).to.equal(inAddr(0xffffff00));
    expect(maskPrefix(inAddr(0xff00ff00))).to.equal(-1);
  });

  describe('lo0', () => {
    const ping = (dst = '127.0.0.1', n = 8): number =>
      ip_output(
        outPacket(
          buildIp4({ src: dst, dst }, 1, buildIcmp({ type: 8, payload: new Uint8Array(n) })),
        ),
        null,
        0,
        rig.vnet,
      );

    it('delivers packets for our own addresses at the end of the pass', () => {
      for (const dst of ['127.0.0.1', US]) {
        inPass(() => {
          expect(ping(dst)).to.equal(0);
          expect(icmpstat(rig.vnet).icps_inhist[8]).to.equal(dst === US ? 1 : 0);
        });
      }
      const st = icmpstat(rig.vnet);
      expect([st.icps_inhist[8], st.icps_inhist[0]]).to.deep.equal([2, 2]);
      expect(rig.sent).to.deep.equal([]);
      expect(ipstat(rig.vnet).ips_badsum).to.equal(0);
    });

    it('limits the packets in the queue', () => {
      inPass(() => {
        for (let i = 0; i < 300; i++) ping();
      });
      expect(counted(R_NETISR_FULL)).to.equal(300 - 256);
    });

    it('delivers an echo request and its reply once each', () => {
      // A protocol that answered its own answers would loop. An echo request to 127.0.0.1 gets one
      // reply, and the reply gets none.
      expect(inPass(ping)).to.equal(0);
      expect(V_ip(rig.vnet).stat.ips_total).to.equal(2);
    });
  });

  it('keeps the addresses of two stacks on one machine separate', () => {
    expect(in_aifaddr(rig.ifp, addr('198.51.100.2'), 24)).to.equal(0);
    const other = vnet_alloc(new SeededPrng(9));
    expect(in_localip(other, addr(US))).to.equal(false);
    expect(inRoutes(other)).to.deep.equal([]);
    rig.sent.length = 0;
  });
});
