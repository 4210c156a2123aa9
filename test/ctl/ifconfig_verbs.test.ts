import { expect } from 'chai';
import { formatInterface, gatherInterface } from '../../src/ctl/ifconfig.ts';
import { runIfconfig } from '../../src/ctl/ifconfig_verbs.ts';
import { ControlFailure } from '../../src/ctl/protocol.ts';
import { ifunit } from '../../src/net/if.ts';
import { fib4_lookup } from '../../src/netinet/in_fib.ts';
import {
  IFCAP_HWCSUM,
  IFCAP_NOMAP,
  IFCAP_VLAN_HWCSUM,
  IFCAP_VLAN_HWTAGGING,
  IFCAP_VLAN_MTU,
} from '../../src/net/if_var.ts';
import { FakeNic } from '../net/fake_nic.ts';
import { addr, Rig } from '../netinet/rig.ts';

const CAPS = IFCAP_HWCSUM | IFCAP_NOMAP | IFCAP_VLAN_MTU | IFCAP_VLAN_HWTAGGING | IFCAP_VLAN_HWCSUM;

describe('ctl: ifconfig verbs', () => {
  let rig: Rig;
  let nics: FakeNic[];
  beforeEach(() => {
    rig = new Rig();
    nics = [0, 1].map((i) => new FakeNic(rig.vnet, `em${i}`, `02:00:00:00:00:0${i + 3}`, CAPS));
  });
  afterEach(() => {
    for (const nic of nics) nic.detach();
    rig.close();
  });

  /** Runs `ifconfig` with the words of `line`. */
  const run = (line: string): ReturnType<typeof runIfconfig> => {
    const [name = '', ...words] = line.split(' ');
    return runIfconfig(rig.vnet, name, words);
  };
  const error = (line: string): string => {
    try {
      run(line);
    } catch (e) {
      if (e instanceof ControlFailure) return `${e.code}: ${e.message}`;
      throw e;
    }
    return 'done';
  };
  const text = (name: string): string => formatInterface(gatherInterface(ifunit(rig.vnet, name)!));
  const inet = (name: string): string[] =>
    gatherInterface(ifunit(rig.vnet, name)!).inet.map((a) => `${a.addr}/${a.prefixlen}`);

  it('creates a vlan, prints it as FreeBSD does, and destroys it', () => {
    run('em0 up');
    run('vlan100 create vlan 100 vlandev em0 inet 198.51.100.2/25 up');
    expect(text('vlan100')).to.equal(
      [
        'vlan100: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu 1500',
        '\toptions=4000003<RXCSUM,TXCSUM,NOMAP>',
        '\tether 02:00:00:00:00:03',
        '\tinet 198.51.100.2 netmask 0xffffff80 broadcast 198.51.100.127',
        '\tgroups: vlan',
        '\tvlan: 100 vlanproto: 802.1q vlanpcp: 0 parent interface: em0',
        '\tmedia: Ethernet autoselect',
        '\tstatus: active',
        '\tnd6 options=29<PERFORMNUD,IFDISABLED,AUTO_LINKLOCAL>',
        '',
      ].join('\n'),
    );
    run('em0 -nomap -vlanhwtag');
    expect(text('vlan100')).not.to.include('\toptions=');
    run('vlan100 -vlandev');
    expect(text('vlan100')).to.include(
      '\tvlan: 0 vlanproto: 802.1q vlanpcp: 0 parent interface: <none>\n',
    );
    expect(text('vlan100')).not.to.match(/media|status/);
    run('vlan100 vlan 7 vlandev em1');
    run('vlan100 vlan 7 vlandev em1');
    expect(text('vlan100')).to.include(
      'vlan: 7 vlanproto: 802.1q vlanpcp: 0 parent interface: em1',
    );
    expect(run('vlan100 destroy')).to.equal(null);
    expect(error('vlan100')).to.equal('ENXIO: interface vlan100 does not exist');
    expect(run('vlan create')!.name).to.equal('vlan0');
    expect(run('em1.5 create')!.vlan).to.include({ vlan: 5, parent: 'em1' });
  });

  it('prints lo0 as FreeBSD does: no link-level address, no media, so no status', () => {
    expect(text('lo0')).to.equal(
      [
        'lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> metric 0 mtu 16384',
        '\toptions=680003<RXCSUM,TXCSUM,LINKSTATE,RXCSUM_IPV6,TXCSUM_IPV6>',
        '\tinet 127.0.0.1 netmask 0xff000000',
        '\tinet6 ::1 prefixlen 128',
        '\tinet6 fe80::1%lo0 prefixlen 64 scopeid 0x1',
        '\tgroups: lo',
        '\tnd6 options=21<PERFORMNUD,AUTO_LINKLOCAL>',
        '',
      ].join('\n'),
    );
  });

  it('creates a lagg, prints it as FreeBSD does, and moves an address to it', () => {
    for (const line of ['em0 up', 'em1 up', 'em0 inet 198.51.100.2/24']) run(line);
    run('lagg0 create laggproto failover laggport em0 laggport em1');
    run('em0 delete');
    run('lagg0 inet 198.51.100.2 netmask 255.255.255.0 up');
    expect(text('lagg0')).to.equal(
      [
        'lagg0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu 1500',
        '\toptions=400009b<RXCSUM,TXCSUM,VLAN_MTU,VLAN_HWTAGGING,VLAN_HWCSUM,NOMAP>',
        '\tether 02:00:00:00:00:03',
        '\tinet 198.51.100.2 netmask 0xffffff00 broadcast 198.51.100.255',
        '\tlaggproto failover lagghash l2,l3,l4',
        '\tlaggport: em0 flags=5<MASTER,ACTIVE>',
        '\tlaggport: em1 flags=0<>',
        '\tgroups: lagg',
        '\tmedia: Ethernet autoselect',
        '\tstatus: active',
        '\tnd6 options=29<PERFORMNUD,IFDISABLED,AUTO_LINKLOCAL>',
        '',
      ].join('\n'),
    );
    expect(fib4_lookup(rig.vnet, addr('198.51.100.1'))?.nh_ifp.if_xname).to.equal('lagg0');
    expect(inet('em0')).to.deep.equal([]);
    expect(error('lagg0 laggport em1'), 'a line may be repeated').to.equal('done');
    run('lagg0 laggproto loadbalance -laggport em1 -nomap');
    expect(text('lagg0')).to.match(
      /laggproto loadbalance.*\n\tlaggport: em0 flags=4<ACTIVE>\n\tgroups/,
    );
    expect(text('em0')).not.to.include('NOMAP');
    expect(text('em1')).to.include('NOMAP');
    expect(text('em1')).to.include('ether 02:00:00:00:00:04');
    run('lagg0 ether 02:00:00:00:00:77');
    expect(text('em0')).to.include('ether 02:00:00:00:00:77');
    run('lagg0 destroy');
    expect(text('em0')).to.include('ether 02:00:00:00:00:03');
    expect(text('em0')).to.include('NOMAP');
  });

  it('sets, adds and removes addresses', () => {
    run('em0 198.51.100.2/24');
    expect(inet('em0')).to.deep.equal(['198.51.100.2/24']);
    run('em0 inet 198.51.100.3 netmask 0xffffff80');
    expect(inet('em0')).to.deep.equal(['198.51.100.3/25']);
    run('em0 inet 203.0.113.2/24 alias');
    run('em0 inet 192.168.7.1 alias');
    expect(inet('em0')).to.deep.equal(['198.51.100.3/25', '203.0.113.2/24', '192.168.7.1/24']);
    run('em0 inet 203.0.113.2 -alias');
    run('em0 -alias');
    expect(inet('em0')).to.deep.equal(['192.168.7.1/24']);
    run('em0 inet 192.168.7.1 delete');
    expect(inet('em0')).to.deep.equal([]);
    run('em0 down');
    run('em0 mtu 1400');
    expect(text('em0')).to.match(/flags=8802<.*mtu 1400\n/);
  });

  it('sets IPv6 addresses, their flags and lifetimes, and neighbour discovery', () => {
    const six = (name = 'em0'): string[] =>
      text(name)
        .split('\n')
        .filter((line) => /inet6|nd6/.test(line))
        .map((line) => line.trim());
    const link = 'inet6 fe80::ff:fe00:3%em0 prefixlen 64 scopeid 0x3';
    run('em0 inet6 2001:db8::2/64 no_dad');
    expect(six()).to.deep.equal([
      link,
      'inet6 2001:db8::2 prefixlen 64',
      'nd6 options=121<PERFORMNUD,AUTO_LINKLOCAL,NO_DAD>',
    ]);
    // Unlike an IPv4 address, another one is added. The prefix length is 64 without another one.
    run('em0 inet6 2001:db8:1::2 alias');
    run('em0 inet6 2001:db8:2::2 prefixlen 48 anycast');
    run('em0 inet6 2001:db8:3:: eui64');
    run('em0 inet6 2001:db8:4::2/64 pltime 0 vltime 3600');
    expect(six().slice(2, 6)).to.deep.equal([
      'inet6 2001:db8:1::2 prefixlen 64',
      'inet6 2001:db8:2::2 prefixlen 48 anycast',
      'inet6 2001:db8:3::ff:fe00:3 prefixlen 64',
      'inet6 2001:db8:4::2 prefixlen 64 deprecated',
    ]);
    const last = gatherInterface(ifunit(rig.vnet, 'em0')!).inet6.at(-1)!;
    expect(last).to.include({ pltime: 0, vltime: 3600, scopeid: 0 });
    run('em0 inet6 2001:db8:1::2 deprecated');
    expect(six()).to.include('inet6 2001:db8:1::2 prefixlen 64 deprecated');
    run('em0 inet6 2001:db8:1::2 -deprecated prefer_source');
    expect(six()).to.include('inet6 2001:db8:1::2 prefixlen 64 prefer_source');
    for (const old of ['2001:db8:1::2', '2001:db8:2::2/48', '2001:db8:4::2', '2001:db8::2'])
      run(`em0 inet6 ${old} delete`);
    run('em0 inet6 fe80::9/64 -nud -no_dad no_radr');
    run('em0 inet6 fe80::ff:fe00:3%em0 -alias');
    expect(six()).to.deep.equal([
      'inet6 2001:db8:3::ff:fe00:3 prefixlen 64',
      'inet6 fe80::9%em0 prefixlen 64 tentative scopeid 0x3',
      'nd6 options=60<AUTO_LINKLOCAL,NO_RADR>',
    ]);
    expect(inet('em0'), 'words of both families').to.deep.equal([]);
    run('em0 inet 198.51.100.2/24 inet6 2001:db8::7/64');
    expect(inet('em0')).to.deep.equal(['198.51.100.2/24']);
    expect(six()).to.include('inet6 2001:db8::7 prefixlen 64 tentative');
  });

  const errors: [line: string, message: string][] = [
    ['nic9 up', 'ENXIO: interface nic9 does not exist'],
    ['em0 create', 'EEXIST: interface em0 already exists'],
    ['gif0 create', 'EINVAL: SIOCIFCREATE2 (gif0): Invalid argument'],
    ['em0 destroy', 'EINVAL: SIOCIFDESTROY: Invalid argument'],
    ['vlan1 create vlan 1', 'EINVAL: must specify a parent device for vlan create'],
    ['vlan1 create vlandev em0', 'EINVAL: must specify a tag for vlan create'],
    ['vlan1 create vlan 1 vlandev em9', 'ENXIO: SIOCIFCREATE2 (vlan1): Device not configured'],
    ['vlan1 create vlan 0 vlandev em0', 'EINVAL: SIOCIFCREATE2 (vlan1): Invalid argument'],
    ['vlan1 create vlan 4096 vlandev em0', 'EINVAL: value for vlan out of range'],
    ['vlan1 create vlan x vlandev em0', 'EINVAL: invalid value for vlan'],
    ['vlan1 create vlan', "EINVAL: 'vlan' requires argument"],
    ['em0 vlan 5', 'EINVAL: both vlan and vlandev must be specified'],
    ['em0 vlan 5 vlandev em1', 'EINVAL: SIOCSETVLAN: Invalid argument'],
    ['em0 -vlandev', 'EINVAL: SIOCGETVLAN: Invalid argument'],
    ['lagg0 create laggproto bogus', 'EPROTONOSUPPORT: Invalid aggregation protocol: bogus'],
    ['lagg0 create laggport em9', 'ENXIO: lagg0 em9: SIOCSLAGGPORT: Device not configured'],
    ['lagg0 create laggport lo0', 'EINVAL: lagg0 lo0: SIOCSLAGGPORT: Invalid argument'],
    ['lagg0 create -laggport em0', 'ENOENT: SIOCSLAGGDELPORT: No such file or directory'],
    ['em0 laggport em1', 'EOPNOTSUPP: em0 em1: SIOCSLAGGPORT: Operation not supported'],
    ['em0 mtu 71', 'EINVAL: ioctl SIOCSIFMTU (set mtu): Invalid argument'],
    ['em0 mtu x', 'EINVAL: x: bad value'],
    ['em0 ether 02:00', 'EINVAL: 02:00: bad value'],
    ['em0 ether 01:00:00:00:00:01', 'EINVAL: ioctl (SIOCSIFLLADDR): Invalid argument'],
    ['lo0 ether 02:00:00:00:00:01', 'EOPNOTSUPP: ioctl (SIOCSIFLLADDR): Operation not supported'],
    ['em0 inet6 192.0.2.9', 'EINVAL: 192.0.2.9: bad value'],
    ['em0 inet6 2001:db8::g', 'EINVAL: 2001:db8::g: bad value'],
    ['em0 inet6 2001:db8::9/129', 'EINVAL: 129: bad value'],
    ['em0 inet6 2001:db8::9 prefixlen 129', 'EINVAL: 129: bad value'],
    ['em0 inet6 2001:db8::9 prefixlen', "EINVAL: 'prefixlen' requires argument"],
    ['em0 inet6 2001:db8::9 pltime x', 'EINVAL: x: bad value'],
    ['em0 inet6 2001:db8::9 pltime 2 vltime 1', 'EINVAL: ioctl (SIOCAIFADDR): Invalid argument'],
    ['em0 inet6 ff02::9/64', 'EINVAL: ioctl (SIOCAIFADDR): Invalid argument'],
    ['em0 inet6 fe80::9%nonesuch/64', 'EINVAL: fe80::9%nonesuch/64: bad value'],
    ['em0 inet6 fe80::9%lo0/64', 'EINVAL: ioctl (SIOCAIFADDR): Invalid argument'],
    ['em0 inet6 2001:db8::9%em0/64', 'EINVAL: 2001:db8::9%em0/64: bad value'],
    ['em0 inet6 ::1/128', 'EEXIST: ioctl (SIOCAIFADDR): File exists'],
    ['em0 inet6 prefixlen 64', "EINVAL: 'inet6' requires an address"],
    ['em0 inet6 delete', "EADDRNOTAVAIL: ioctl (SIOCDIFADDR): Can't assign requested address"],
    [
      'em0 inet6 2001:db8::9 -alias',
      "EADDRNOTAVAIL: ioctl (SIOCDIFADDR): Can't assign requested address",
    ],
    ['em0 inet6 2001:db8::1 eui64', 'EINVAL: interface index is already filled'],
    ['em0 inet6 bogus', 'EINVAL: bogus: bad value'],
    ['em0 2001:db8::9/64', 'EINVAL: 2001:db8::9/64: bad value'],
    ['em0 inet', "EINVAL: 'inet' requires an address"],
    ['em0 inet 300.1.1.1', 'EINVAL: 300.1.1.1: bad value'],
    ['em0 inet 198.51.100.2/33', 'EINVAL: 33: bad value'],
    ['em0 198.51.100.2 netmask 255.0.255.0', 'EINVAL: 255.0.255.0: bad value'],
    ['em0 inet 192.0.2.2/24', 'EEXIST: ioctl (SIOCAIFADDR): File exists'],
    ['em0 inet 224.0.0.1/24', "EADDRNOTAVAIL: ioctl (SIOCAIFADDR): Can't assign requested address"],
    ['em0 delete', "EADDRNOTAVAIL: ioctl (SIOCDIFADDR): Can't assign requested address"],
    [
      'em0 inet 198.51.100.9 -alias',
      "EADDRNOTAVAIL: ioctl (SIOCDIFADDR): Can't assign requested address",
    ],
    ['em0 bogus', 'EINVAL: bogus: bad value'],
    ['em0 up -nomap bogus', 'EINVAL: bogus: bad value'],
  ];
  for (const [line, message] of errors)
    it(`refuses "${line}"`, () => {
      const before = text('em0');
      expect(error(line)).to.equal(message);
      expect(text('em0')).to.equal(before);
      expect(ifunit(rig.vnet, 'vlan1')).to.equal(null);
    });
});
