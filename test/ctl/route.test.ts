/** route(8) and `netstat -rn`: what they change, what they print, and what they refuse. */

import { expect } from 'chai';
import { SeededPrng } from '../../src/host/prng.ts';
import { ControlFailure } from '../../src/ctl/protocol.ts';
import { gatherNetstat } from '../../src/ctl/netstat.ts';
import { formatRoute, runRoute } from '../../src/ctl/route.ts';
import { nowNs } from '../../src/kern/kern_timeout.ts';
import { AF_INET6 } from '../../src/kern/protosw.ts';
import { vnet_alloc } from '../../src/kern/vnet.ts';
import { if_down } from '../../src/net/if.ts';
import {
  Nhop,
  rib_add_route,
  RIB_ROUTES_MAX,
  ribLookup,
  RTF_DYNAMIC,
  RTF_HOST,
  RTF_UP,
  rt_tables_get_rnh,
} from '../../src/net/route.ts';
import { fib4_lookup, inRouteAdd, inRoutes } from '../../src/netinet/in_fib.ts';
import { inNetAddr } from '../../src/netinet/in.ts';
import { inet_domain_attach } from '../../src/netinet/in_proto.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { IN6_IFF_NODAD } from '../../src/netinet6/in6_var.ts';
import { parseIn6Zone } from '../../src/netinet6/scope6.ts';
import { NetAddr } from '../../src/sys/addr.ts';
import { ENOBUFS } from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import { addr, PEER, Rig, US } from '../netinet/rig.ts';

describe('ctl: route', () => {
  let rig: Rig;
  beforeEach(() => (rig = new Rig()));
  afterEach(() => rig.close());

  const run = (line: string) => inPass(runRoute, rig.vnet, line.split(' '));
  const print = (line: string): string => formatRoute(run(line));
  const error = (line: string): string => {
    const before = inRoutes(rig.vnet);
    try {
      run(line);
    } catch (e) {
      if (!(e instanceof ControlFailure)) throw e;
      expect(inRoutes(rig.vnet), 'nothing changed').to.deep.equal(before);
      return `${e.code}: ${e.message}`;
    }
    return 'done';
  };
  const via = (dst: string): string | null => {
    const nh = fib4_lookup(rig.vnet, addr(dst));
    return nh === null ? null : `${nh.nh_ifp.if_xname} ${nh.nh_gateway.w0 >>> 0}`;
  };
  const n = (text: string): number => addr(text) >>> 0;

  it('lists the tables as netstat -rn does', () => {
    run('add default 192.0.2.1');
    run('add -net 10.0.0.0/8 192.0.2.7');
    run('add -host 198.51.100.9 -interface tn0');
    expect(print('show -4')).to.equal(
      `Routing tables

Internet:
Destination        Gateway            Flags     Netif Expire
default            192.0.2.1          UGS         tn0
10.0.0.0/8         192.0.2.7          UGS         tn0
127.0.0.1          link#1             UHS         lo0
192.0.2.0/24       link#2             U           tn0
192.0.2.2          link#2             UHS         lo0
198.51.100.9       link#2             UHS         tn0
`,
    );
    expect(gatherNetstat(rig.vnet, 'r', true)[1]).to.deep.equal({
      family: 'inet',
      destination: '10.0.0.0/8',
      prefixlen: 8,
      gateway: '192.0.2.7',
      flags: 'UGS',
      netif: 'tn0',
      mtu: 1500,
      expire: null,
    });
  });

  it('prints when a route expires, and no U while its interface is down', () => {
    const ifa = rig.ifp.if_addrhead[0]!;
    const flags = RTF_UP | RTF_HOST | RTF_DYNAMIC;
    const nh = new Nhop(rig.ifp, ifa, inNetAddr(addr(PEER)), flags, 0, nowNs() + 61.5e9);
    expect(inRouteAdd(rig.vnet, addr('203.0.113.1'), 32, nh)).to.equal(0);
    expect(print('show')).to.include(
      '203.0.113.1        192.0.2.1          UGHD        tn0     62\n',
    );
    inPass(if_down, rig.ifp);
    expect(print('show')).to.include('203.0.113.1        192.0.2.1          GHD');
    expect(error('get 203.0.113.1')).to.equal('ESRCH: route: route has not been found');
  });

  it('adds, changes and deletes routes', () => {
    expect(print('add -net 10.0.0.0/8 192.0.2.7')).to.equal(
      'add net 10.0.0.0: gateway 192.0.2.7\n',
    );
    expect(print('-n add -net 10.1 -netmask 255.255.0.0 192.0.2.8')).to.equal(
      'add net 10.1: gateway 192.0.2.8\n',
    );
    expect(print('add 10.1.2.3 192.0.2.9')).to.equal('add host 10.1.2.3: gateway 192.0.2.9\n');
    expect(print('add default 192.0.2.1')).to.equal('add net default: gateway 192.0.2.1\n');
    expect([via('10.1.2.3'), via('10.1.2.4'), via('10.2.0.1'), via('203.0.113.1')]).to.deep.equal([
      `tn0 ${n('192.0.2.9')}`,
      `tn0 ${n('192.0.2.8')}`,
      `tn0 ${n('192.0.2.7')}`,
      `tn0 ${n('192.0.2.1')}`,
    ]);
    expect(print('change default 192.0.2.5')).to.equal('change net default: gateway 192.0.2.5\n');
    expect(via('203.0.113.1')).to.equal(`tn0 ${n('192.0.2.5')}`);
    run('change -host 10.1.2.3 -mtu 1400');
    expect(fib4_lookup(rig.vnet, addr('10.1.2.3'))!.nh_mtu).to.equal(1400);
    expect(via('10.1.2.3')).to.equal(`tn0 ${n('192.0.2.9')}`);
    expect(print('delete 10.1.2.3')).to.equal('delete host 10.1.2.3\n');
    expect(print('del -net 10.1.0.0/16 192.0.2.8')).to.equal(
      'delete net 10.1.0.0: gateway 192.0.2.8\n',
    );
    expect(via('10.1.2.3')).to.equal(`tn0 ${n('192.0.2.7')}`);
    expect(run('flush')).to.have.property('routes').with.length(2);
    expect([via('10.1.2.3'), via(PEER)]).to.deep.equal([null, 'tn0 0']);
  });

  it('takes the classful network, or a host, for an address without a prefix length', () => {
    const lengths = ['10.0.0.0', '172.16.0.0', '192.168.7.0', '192.168.7.1', '0.0.0.0'].map(
      (dst) => (run(`add ${dst} 192.0.2.1`) as { prefixlen: number }).prefixlen,
    );
    expect(lengths).to.deep.equal([8, 16, 24, 32, 0]);
    expect(run('add -net 10.1.2.3 192.0.2.1 255.255.255.0')).to.include({ prefixlen: 24 });
  });

  it('shows the route to an address as route -n get does', () => {
    run('add default 192.0.2.1');
    expect(print('-n get 198.51.100.7')).to.equal(
      `   route to: 198.51.100.7
destination: default
       mask: default
    gateway: 192.0.2.1
        fib: 0
  interface: tn0
      flags: <UP,GATEWAY,DONE,STATIC>
 recvpipe  sendpipe  ssthresh  rtt,msec    mtu        weight    expire
       0         0         0         0      1500         1         0 
`,
    );
    expect(run(`get ${PEER}`)).to.deep.include({
      destination: '192.0.2.0',
      mask: '255.255.255.0',
      netif: 'tn0',
      source: US,
      flags: ['UP', 'DONE', 'PINNED'],
    });
    expect(run(`get ${US}`)).to.deep.include({ netif: 'lo0', destination: US });
    expect(run('get default')).to.deep.include({ prefixlen: 0, gateway: '192.0.2.1' });
  });

  const REFUSED: readonly (readonly [string, string])[] = [
    [
      'add -net 192.0.2.0/24 192.0.2.1',
      'EEXIST: route: writing to routing socket: File exists: add net 192.0.2.0: ' +
        'gateway 192.0.2.1 fib 0: route already in table',
    ],
    [
      'delete -net 10.0.0.0/8',
      'ESRCH: route: writing to routing socket: No such process: delete net 10.0.0.0 fib 0: ' +
        'not in table',
    ],
    ['change default 192.0.2.1', 'ESRCH: route: writing to routing socket: No such process: '],
    ['add default 203.0.113.1', 'ENETUNREACH: route: writing to routing socket: Network is unr'],
    ['add default 192.0.2.1 -ifp lo0', 'ENETUNREACH: '],
    [`add default ${US}`, 'ENETUNREACH: '],
    ['add default -interface em9', 'ENXIO: route: em9: no such interface'],
    ['delete -net 192.0.2.0/24', 'EADDRINUSE: route: writing to routing socket: Address already '],
    ['delete -net 192.0.2.0/24 192.0.2.1', 'ESRCH: '],
    ['change -net 192.0.2.0/24 192.0.2.1', 'EADDRINUSE: '],
    [`delete -host ${US}`, 'EADDRINUSE: '],
    ['add -net 10.0.0.0/33 192.0.2.1', 'EINVAL: route: 33: bad prefix length: 0 to 32'],
    ['add -net 10.0.0.0 -prefixlen x 192.0.2.1', 'EINVAL: route: x: bad prefix length'],
    ['add -net 10.0.0.0 -netmask 255.0.255.0 192.0.2.1', 'EINVAL: route: 255.0.255.0: bad netmask'],
    ['add -host 10.0.0.0/8 192.0.2.1', 'EINVAL: route: 10.0.0.0/8: two prefix lengths'],
    ['add -net 300.1.1.1/8 192.0.2.1', 'EINVAL: route: bad address: 300.1.1.1/8'],
    ['add -4 2001:db8::/32 192.0.2.1', 'EINVAL: route: bad address: 2001:db8::/32'],
    ['add -net 10.0.0.0/8 2001:db8::1', 'EINVAL: route: bad address: 2001:db8::1'],
    ['add -net 10.0.0.0/8', 'EINVAL: route: 10.0.0.0/8: a gateway is needed'],
    ['change default', 'EINVAL: route: default: a gateway or -mtu is needed'],
    ['add', 'EINVAL: route: add: a destination is needed'],
    ['get', 'EINVAL: route: get: a destination is needed'],
    ['-n', 'EINVAL: route: an operation is needed'],
    ['monitor', 'EINVAL: route: bad keyword: monitor'],
    ['add -bogus 10.0.0.0/8 192.0.2.1', 'EINVAL: route: bad keyword: -bogus'],
    ['add -mtu', 'EINVAL: route: -mtu: a value is missing'],
    ['add default 192.0.2.1 -mtu 65536', 'EINVAL: route: 65536: bad MTU: 0 to 65535'],
    ['add default 192.0.2.1 -fib 1', 'EINVAL: route: -fib: there is only table 0'],
    ['flush default', 'EINVAL: route: default: flush takes only a family'],
  ];
  for (const [line, message] of REFUSED)
    it(`refuses "${line}"`, () =>
      expect(error(line).startsWith(message), error(line)).to.equal(true));

  it('has only the families of the stack', () => {
    const vnet = vnet_alloc(new SeededPrng(1));
    expect(inPass(inet_domain_attach, vnet)).to.equal(0);
    expect(formatRoute(runRoute(vnet, ['show']))).to.not.include('Internet6');
    for (const words of [
      ['-6', 'flush'],
      ['add', '-inet6', 'default', '::1'],
    ])
      expect(() => runRoute(vnet, words)).to.throw(/6: this stack has only inet$/);
    expect(() => runRoute(vnet, ['get', '::1'])).to.throw('route: bad address: ::1');
  });

  it('prints and routes IPv6 addresses, with zones', () => {
    const us = parseIn6Zone(rig.vnet, '2001:db8::2')!;
    expect(inPass(in6_aifaddr, rig.ifp, us, 64, IN6_IFF_NODAD)).to.equal(0);
    rig.clock.advance(5e9);
    expect(print('add -net 2001:db8:1::/48 2001:db8::1')).to.equal(
      'add net 2001:db8:1::: gateway 2001:db8::1\n',
    );
    expect(print('-6 add default fe80::1%tn0')).to.equal('add net default: gateway fe80::1%tn0\n');
    const text = print('-6 show');
    for (const line of [
      'Internet6:',
      'default                           fe80::1%tn0                   UGS         tn0',
      '2001:db8::/64                     link#2                        U           tn0',
      '2001:db8::2                       link#2                        UHS         lo0',
      '2001:db8:1::/48                   2001:db8::1                   UGS         tn0',
      'fe80::%lo0/64                     link#1                        U           lo0',
    ])
      expect(text.split('\n')).to.include(line);
    expect(run('get 2001:db8:1::5')).to.deep.include({
      destination: '2001:db8:1::',
      mask: 'ffff:ffff:ffff::',
      gateway: '2001:db8::1',
      source: '2001:db8::2',
    });
    expect(run('get -6 2001:db8:2::5')).to.deep.include({ gateway: 'fe80::1%tn0' });
    expect(run('add -host 2001:db8:9::9 -interface tn0')).to.include({ prefixlen: 128 });
    expect(error('add -6 default fe80::1%em9'), 'an unknown zone').to.include('bad address');
    expect(error('add -net 2001:db8::/129 2001:db8::1')).to.include('0 to 128');
    expect(error('add -net 2001:db8::/64 2001:db8::1')).to.include('File exists');
    expect(error('delete -net 2001:db8::/64')).to.include('Address already in use');
    expect(error('add -net 10.0.0.0/8 2001:db8::1')).to.include('bad address: 2001:db8::1');
    expect(error('add -6 default 2001:db8:5::1')).to.include('File exists');
    expect(error('change -6 default 2001:db8:5::1')).to.include('Network is unreachable');
    expect(print('show')).to.match(/\nInternet:\n[^]*\n\nInternet6:\n/);
    run('add default 192.0.2.1');
    expect(run('-6 flush')).to.have.property('routes').with.length(2);
    expect(via('203.0.113.1'), 'the other family').to.equal(`tn0 ${n('192.0.2.1')}`);
  });

  it('finds routes among many, and limits their number', () => {
    const rh = rt_tables_get_rnh(vnet_alloc(new SeededPrng(1)), AF_INET6);
    const nh = new Nhop(rig.ifp, rig.ifp.if_addrhead[0]!, null, RTF_UP, 0);
    const dst = new NetAddr();
    for (let i = 0; i < RIB_ROUTES_MAX; i++) {
      dst.set(i << 8, i);
      expect(rib_add_route(rh, dst, 64, nh)).to.equal(0);
    }
    dst.set(1, 1);
    expect(rib_add_route(rh, dst, 128, nh)).to.equal(ENOBUFS);
    expect(ribLookup(rh, 4711 << 8, 4711, 1, 2)).to.equal(nh);
    expect(ribLookup(rh, 4711 << 8, 4712, 1, 2)).to.equal(null);
  });
});
