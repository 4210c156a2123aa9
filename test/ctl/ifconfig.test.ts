import { expect } from 'chai';
import {
  bitNames,
  bitsText,
  CAP_NAMES,
  capabilityKeywords,
  FLAG_NAMES,
  parseCapability,
} from '../../src/ctl/bits.ts';
import { formatInterface, gatherInterface, type InterfaceInfo } from '../../src/ctl/ifconfig.ts';
import { formatNetstatI } from '../../src/ctl/netstat_i.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { vnet_alloc } from '../../src/kern/vnet.ts';
import { if_alloc } from '../../src/net/if.ts';
import { InIfaddr } from '../../src/netinet/in_var.ts';
import { inAddr } from '../../src/sys/types.ts';
import {
  IFCAP_HWSTATS,
  IFCAP_NOMAP,
  IFCAP_TSO4,
  IFCAP_TSO6,
  IFCAP_TXCSUM,
  IFCOUNTER_OQDROPS,
  IFF_BROADCAST,
  IFF_DRV_RUNNING,
  IFF_MULTICAST,
  IFF_SIMPLEX,
  IFF_UP,
  if_inc_counter,
  type Ifnet,
  LINK_STATE_UP,
} from '../../src/net/if_var.ts';

const options = (word: number): string => bitsText(word, bitNames(word, CAP_NAMES));
const flags = (word: number): string => bitsText(word, bitNames(word, FLAG_NAMES));

/** An interface as `gatherInterface` returns it. */
function tn0(change: Partial<InterfaceInfo> = {}): InterfaceInfo {
  return {
    name: 'tn0',
    index: 1,
    flags: 0x8843,
    flags_names: bitNames(0x8843, FLAG_NAMES),
    options: 0x468032b,
    options_names: bitNames(0x468032b, CAP_NAMES),
    capabilities: 0x468032b,
    capabilities_names: bitNames(0x468032b, CAP_NAMES),
    mtu: 1500,
    ether: '02:00:5e:00:53:01',
    inet: [{ addr: '192.0.2.2', netmask: '0xffffff00', prefixlen: 24, broadcast: '192.0.2.255' }],
    inet6: [],
    nd6: null,
    groups: [],
    vlan: null,
    lagg: null,
    media: 'Ethernet 10Gbase-T <full-duplex>',
    status: 'active',
    counters: {
      ipackets: 12,
      ierrors: 1,
      iqdrops: 2,
      opackets: 34,
      oerrors: 3,
      collisions: 0,
    },
    ...change,
  };
}

describe('ctl: ifconfig', () => {
  it('prints flag words as FreeBSD does', () => {
    // Computed from ifconfig's bit-printing rule.
    expect(flags(0x8843)).to.equal('8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST>');
    expect(options(0x4ec07bb)).to.equal(
      '4ec07bb<RXCSUM,TXCSUM,VLAN_MTU,VLAN_HWTAGGING,JUMBO_MTU,VLAN_HWCSUM,TSO4,TSO6,LRO,' +
        'VLAN_HWTSO,LINKSTATE,RXCSUM_IPV6,TXCSUM_IPV6,NOMAP>',
    );
    expect(options(0x4ec07bb & ~IFCAP_NOMAP)).to.match(/^ec07bb<RXCSUM,.*,TXCSUM_IPV6>$/);
    expect(options(0x468032b)).to.equal(
      '468032b<RXCSUM,TXCSUM,VLAN_MTU,JUMBO_MTU,TSO4,TSO6,LINKSTATE,RXCSUM_IPV6,TXCSUM_IPV6,NOMAP>',
    );
  });

  it('prints a bit without a name only in the number', () => {
    expect(options(IFCAP_HWSTATS | IFCAP_TXCSUM)).to.equal('800002<TXCSUM>');
    expect(options(0x80000000 | 0)).to.equal('80000000<>');
  });

  it('reads capability words, groups and both spellings', () => {
    expect(parseCapability('-txcsum')).to.deep.equal({ bits: IFCAP_TXCSUM, on: false });
    expect(parseCapability('tso')).to.deep.equal({ bits: IFCAP_TSO4 | IFCAP_TSO6, on: true });
    expect(parseCapability('nomap')).to.deep.equal({ bits: IFCAP_NOMAP, on: true });
    expect(parseCapability('-mextpg')).to.deep.equal({ bits: IFCAP_NOMAP, on: false });
    for (const word of ['', '-', '--txcsum', 'TXCSUM', 'bogus', '-hwstats'])
      expect(parseCapability(word), word).to.equal(null);
    expect(capabilityKeywords(IFCAP_TSO4 | IFCAP_TSO6 | IFCAP_NOMAP)).to.deep.equal([
      'tso4',
      'tso6',
      'nomap',
    ]);
  });

  it('prints the lines of an interface in order', () => {
    const head = 'tn0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu 1500\n';
    const caps =
      '468032b<RXCSUM,TXCSUM,VLAN_MTU,JUMBO_MTU,TSO4,TSO6,LINKSTATE,RXCSUM_IPV6,TXCSUM_IPV6,NOMAP>\n';
    const rest =
      '\tether 02:00:5e:00:53:01\n' +
      '\tinet 192.0.2.2 netmask 0xffffff00 broadcast 192.0.2.255\n' +
      '\tmedia: Ethernet 10Gbase-T <full-duplex>\n' +
      '\tstatus: active\n';
    const supported = '\tsupported media:\n\t\tmedia 10Gbase-T mediaopt full-duplex\n';
    expect(formatInterface(tn0())).to.equal(`${head}\toptions=${caps}${rest}`);
    expect(formatInterface(tn0(), { m: true })).to.equal(
      `${head}\toptions=${caps}\tcapabilities=${caps}${rest}${supported}`,
    );
    // No lines of options and capabilities without bits; no status until the driver reports one.
    const bare = tn0({ options: 0, options_names: [], capabilities: 0, status: null });
    expect(formatInterface(bare, { m: true })).to.equal(
      head + rest.replace('\tstatus: active\n', '') + supported,
    );
    // lo0 has neither a link-level address nor media.
    const lo0 = formatInterface(tn0({ name: 'lo0', ether: null, media: null, inet: [] }), {
      m: true,
    });
    expect(lo0).not.to.match(/ether|media/);
    expect(formatInterface(tn0({ media: 'Ethernet autoselect' }), { m: true })).to.match(
      /\tmedia: Ethernet autoselect\n\tstatus: active\n\tsupported media:\n\t\tmedia autoselect\n$/,
    );
  });

  it('prints IPv6 addresses with scope, flags and lifetimes, and neighbour discovery', () => {
    const forever = { prefixlen: 64, scopeid: 0, flags: [], pltime: null, vltime: null };
    const info = tn0({
      inet6: [
        { ...forever, addr: 'fe80::5eff:fe00:5301%tn0', scopeid: 1 },
        { ...forever, addr: '2001:db8::2', flags: ['tentative', 'duplicated'] },
        { ...forever, addr: '2001:db8::3', flags: ['autoconf'], pltime: 1800, vltime: 3600 },
      ],
      nd6: { options: 0x21, options_names: ['PERFORMNUD', 'AUTO_LINKLOCAL'] },
    });
    const six =
      '\tinet6 fe80::5eff:fe00:5301%tn0 prefixlen 64 scopeid 0x1\n' +
      '\tinet6 2001:db8::2 prefixlen 64 tentative duplicated\n' +
      '\tinet6 2001:db8::3 prefixlen 64 autoconf';
    const nd6 = '\tnd6 options=21<PERFORMNUD,AUTO_LINKLOCAL>\n';
    expect(formatInterface(info)).to.include(`broadcast 192.0.2.255\n${six}\n\tmedia`);
    expect(formatInterface(info)).to.match(/\tstatus: active\n\tnd6 options=21<.*>\n$/);
    const caps = `\toptions=${options(0x468032b)}\n`;
    expect(formatInterface(info, { L: true, family: 'inet6' })).to.equal(
      `tn0: flags=${flags(0x8843)} metric 0 mtu 1500\n${caps}${six} pltime 1800 vltime 3600\n${nd6}`,
    );
    expect(formatInterface(info, { family: 'inet' })).to.not.match(/inet6|nd6|ether|media/);
  });
});

describe('ctl: gatherInterface', () => {
  /** An Ethernet interface with address 192.0.2.2/`prefix` whose driver accepts every ioctl. */
  function ethernet(prefix: number): Ifnet {
    const ifp = if_alloc(vnet_alloc(new SeededPrng(1)), 'tn0');
    const mask = prefix === 0 ? 0 : -1 << (32 - prefix);
    ifp.if_flags = IFF_UP | IFF_BROADCAST | IFF_SIMPLEX | IFF_MULTICAST;
    ifp.if_drv_flags = IFF_DRV_RUNNING;
    ifp.if_capabilities = IFCAP_TXCSUM | IFCAP_TSO4 | IFCAP_NOMAP;
    ifp.if_capenable = ifp.if_capabilities;
    ifp.if_link_state = LINK_STATE_UP;
    ifp.if_lladdr.set([2, 0, 0x5e, 0, 0x53, 1]);
    const addr = inAddr(0xc0000202);
    ifp.if_addrhead.push(new InIfaddr(ifp, addr, inAddr(mask), inAddr(addr | ~mask)));
    if_inc_counter(ifp, IFCOUNTER_OQDROPS, 3);
    return ifp;
  }

  it('returns flags, addresses and counters', () => {
    const info = gatherInterface(ethernet(26));
    expect(info).to.include({ name: 'tn0', flags: 0x8843, ether: '02:00:5e:00:53:01' });
    expect(info).to.include({ status: 'active', media: 'Ethernet autoselect' });
    expect(info.inet).to.deep.equal([
      { addr: '192.0.2.2', netmask: '0xffffffc0', prefixlen: 26, broadcast: '192.0.2.63' },
    ]);
    expect(info.counters).to.include({ oqdrops: 3, ipackets: 0 });
  });

  it('returns the prefix length of every mask', () => {
    for (const prefix of [0, 1, 8, 24, 31, 32]) {
      const [inet] = gatherInterface(ethernet(prefix)).inet;
      expect(inet?.prefixlen, inet?.netmask).to.equal(prefix);
    }
  });
});

describe('ctl: netstat -i', () => {
  const HEAD =
    'Name    Mtu Network       Address              Ipkts Ierrs Idrop    Opkts Oerrs  Coll';
  const dashes = '       -     -     -        -     -     -';

  it('prints IPv6 addresses as FreeBSD does, cut without -W', () => {
    const line = { scopeid: 0, flags: [], pltime: null, vltime: null, prefixlen: 64 };
    const info = tn0({
      inet6: [
        { ...line, addr: 'fe80::5eff:fe00:5301%tn0', scopeid: 1 },
        { ...line, addr: '2001:db8:0:1::2', prefixlen: 48 },
        { ...line, addr: '::1', prefixlen: 128 },
      ],
    });

    expect(formatNetstatI([info]).split('\n').slice(3, 6)).to.deep.equal([
      `tn0       - fe80::%tn0/64 fe80::5eff:fe00:5 ${dashes}`,
      `tn0       - 2001:db8::/48 2001:db8:0:1::2   ${dashes}`,
      `tn0       - ::1/128       ::1               ${dashes}`,
    ]);
    expect(formatNetstatI([info], 'inet6').split('\n').slice(0, 2)).to.deep.equal([
      HEAD,
      `tn0       - fe80::%tn0/64 fe80::5eff:fe00:5 ${dashes}`,
    ]);
    expect(formatNetstatI([info], 'inet').split('\n').slice(1)).to.deep.equal([
      `tn0       - 192.0.2.0/24  192.0.2.2         ${dashes}`,
      '',
    ]);
    expect(formatNetstatI([info], 'inet6', true).split('\n')[1]).to.equal(
      `tn0       - fe80::%tn0/64 fe80::5eff:fe00:5301%tn0 ${dashes}`,
    );
  });

  it('marks an interface that is down with an asterisk', () => {
    const lines = formatNetstatI([tn0({ flags: 0x8802 })]).split('\n');
    expect(lines.slice(1, 3).map((line) => line.slice(0, 12))).to.deep.equal([
      'tn0*   1500 ',
      'tn0*      - ',
    ]);
  });

  it('aligns columns with their headings', () => {
    expect(formatNetstatI([tn0()])).to.equal(
      [
        'Name    Mtu Network       Address              Ipkts Ierrs Idrop    Opkts Oerrs  Coll',
        'tn0    1500 <Link#1>      02:00:5e:00:53:01       12     1     2       34     3     0',
        'tn0       - 192.0.2.0/24  192.0.2.2                -     -     -        -     -     -',
        '',
      ].join('\n'),
    );
  });
});
