import { expect } from 'chai';
import {
  bitNames,
  bitsText,
  CAP_NAMES,
  capabilityKeywords,
  FLAG_NAMES,
  parseCapability,
} from '../../src/ctl/bits.ts';
import { formatInterface, type InterfaceInfo } from '../../src/ctl/ifconfig.ts';
import { formatNetstatI } from '../../src/ctl/netstat_i.ts';
import {
  IFCAP_HWSTATS,
  IFCAP_NOMAP,
  IFCAP_TSO4,
  IFCAP_TSO6,
  IFCAP_TXCSUM,
} from '../../src/net/if_var.ts';

const options = (word: number): string => bitsText(word, bitNames(word, CAP_NAMES));
const flags = (word: number): string => bitsText(word, bitNames(word, FLAG_NAMES));

/** An interface as the gatherer makes it. */
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
    // The computed examples of the fact sheet, 7.6.
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

  it('counts a bit without a name in the number only', () => {
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
    expect(formatInterface(tn0(), false)).to.equal(`${head}\toptions=${caps}${rest}`);
    expect(formatInterface(tn0(), true)).to.equal(
      `${head}\toptions=${caps}\tcapabilities=${caps}${rest}`,
    );
    // Neither line without a bit; no status while the driver does not know.
    const bare = tn0({ options: 0, options_names: [], capabilities: 0, status: null });
    expect(formatInterface(bare, true)).to.equal(head + rest.replace('\tstatus: active\n', ''));
  });

  it('prints link-local addresses with their scope', () => {
    const text = formatInterface(
      tn0({
        inet6: [
          { addr: 'fe80::5eff:fe00:5301', prefixlen: 64 },
          { addr: '2001:db8::2', prefixlen: 64 },
        ],
      }),
      false,
    );
    expect(text).to.include('\tinet6 fe80::5eff:fe00:5301%tn0 prefixlen 64 scopeid 0x1\n');
    expect(text).to.include('\tinet6 2001:db8::2 prefixlen 64\n');
  });
});

describe('ctl: netstat -i', () => {
  it('aligns its columns under their heads', () => {
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
