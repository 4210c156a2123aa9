import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { UsageError } from '../../src/cli/command.ts';
import { parseConfig } from '../../src/cli/config_file.ts';
import { resolveNicOptions } from '../../src/cli/nic_options.ts';
import type { RawFlags } from '../../src/cli/nic_flags.ts';
import { type CapabilityChange, capabilityKeywords } from '../../src/ctl/bits.ts';
import { type NicModelInfo, ownPciIdentity } from '../../src/machine/nic_model.ts';
import { needsHere } from '../support/needs.ts';
import { IFCAP_NOMAP, IFCAP_TSO4, IFCAP_TSO6, IFCAP_TXCSUM } from '../../src/net/if_var.ts';
import { CAPTURE_IF, CAPTURE_WIRE } from '../../src/sys/capture.ts';

const MODELS: NicModelInfo[] = [
  {
    name: 'tn',
    ifname: 'tn',
    pci: ownPciIdentity(1),
    description: 'everything',
    capabilities: ['rxcsum', 'txcsum', 'tso4', 'tso6', 'nomap'],
    modes: ['wire', 'vnet'],
    builds: ['native', 'ts'],
    mtuMax: 9000,
  },
  {
    name: 'plain',
    ifname: 'pl',
    pci: ownPciIdentity(2),
    description: 'nothing',
    capabilities: [],
    modes: ['wire'],
    builds: ['ts'],
    mtuMax: 1500,
  },
];

const resolved = (raw: RawFlags): ReturnType<typeof resolveNicOptions> =>
  resolveNicOptions(raw, MODELS, ['port']);
const resolve = (raw: RawFlags): ReturnType<typeof resolved>['draft'] => resolved(raw).draft;

/** Capability changes in ifconfig's words, one for each bit. */
const words = (caps: readonly CapabilityChange[]): string[] =>
  caps.flatMap(({ bits, on }) => capabilityKeywords(bits).map((word) => `${on ? '' : '-'}${word}`));

/** The one-line error for `raw`. */
function refusal(raw: RawFlags): string {
  try {
    resolve(raw);
  } catch (e) {
    if (!(e instanceof UsageError)) throw e;
    expect(e.message, 'one line').not.to.include('\n');
    return e.message;
  }
  throw new Error(`taken: ${JSON.stringify(raw)}`);
}

const NO_FAULT = {
  point: 'wire',
  rate: null,
  every: null,
  nth: null,
  burst: null,
  delayMs: null,
  jitterMs: null,
  bits: null,
  matchText: null,
};

/** What an additional NIC has. */
const NO_ADDRESSES = {
  hostAddr: null,
  hostAddr6: null,
  addr: null,
  gateway: null,
  addr6: null,
  gateway6: null,
};

/** Each option with a value that is not its default. */
const EVERY_OPTION = {
  tap: 'em9',
  hostAddr: '198.51.100.1/28',
  hostAddr6: 'none',
  addr: '198.51.100.2/28',
  addr6: '2001:DB8:0::9/48',
  gateway: '198.51.100.14',
  gateway6: '2001:db8:0:0:1::0001',
  mac: '02-00-5E-00-53-01',
  mtu: '9000',
  nic: 'tn',
  cap: '-mextpg,-tso,txcsum',
  mode: 'vnet',
  napi: 'thread',
  engine: 'ts',
  driver: 'native',
  netns: 'blue',
  capture: ['if=a.pcap', 'wire=b=c.pcap'],
  control: '/tmp/x.sock',
  fault: ['drop,rate=0.5,point=rx', 'delay,delay=3,seed=9'],
  sysctl: ['kern.ipc.mb_use_ext_pgs=0', 'net.inet.tcp.mssdflt=536'],
  memory: '1G',
  physBase: '0xf8000000',
  iommu: true,
  dmaCheck: true,
  seed: '4294967295',
  port: '8080',
};

/** Expects that each value of a flag is refused with one line that names the flag. */
function expectRefusals(cases: readonly [flag: string, value: string, why: RegExp][]): void {
  for (const [name, value, why] of cases) {
    const key = name.replace(/-(\w)/g, (_all, c: string) => c.toUpperCase());
    const message = refusal({ [key]: value });
    expect(message, `${name} ${value}`).to.match(why);
    expect(message, `${name} ${value}`).to.match(new RegExp(`^--${name}: `));
  }
}

describe('cli: NIC options', () => {
  it('has the defaults of the contract', () => {
    expect(resolve({})).to.deep.equal({
      nic: {
        tap: 'nic0',
        hostAddr: '192.0.2.1/24',
        hostAddr6: '2001:db8::1/64',
        addr: '192.0.2.2/24',
        gateway: '192.0.2.1',
        addr6: '2001:db8::2/64',
        gateway6: '2001:db8::1',
        mtu: 1500,
        nic: 'tn',
        caps: [],
        mode: 'wire',
        napi: 'off',
        engine: 'native',
        netns: null,
        faults: [],
      },
      ports: [],
      captures: [],
      driver: 'native',
      memory: 268435456,
      physBase: 0,
      iommu: false,
      dmaCheck: false,
      seed: null,
      sysctl: [],
      control: null,
      own: {},
      warnings: [],
      sysctlWhere: [],
    });
  });

  it('accepts every option', () => {
    const { nic, ...rest } = resolve(EVERY_OPTION);
    expect(nic).to.deep.equal({
      tap: 'em9',
      hostAddr: '198.51.100.1/28',
      hostAddr6: null,
      addr: '198.51.100.2/28',
      gateway: '198.51.100.14',
      addr6: '2001:db8::9/48',
      gateway6: '2001:db8::1:0:0:1',
      mac: '02:00:5e:00:53:01',
      mtu: 9000,
      nic: 'tn',
      caps: [
        { bits: IFCAP_NOMAP, on: false },
        { bits: IFCAP_TSO4 | IFCAP_TSO6, on: false },
        { bits: IFCAP_TXCSUM, on: true },
      ],
      mode: 'vnet',
      napi: 'thread',
      engine: 'ts',
      netns: 'blue',
      faults: [
        { ...NO_FAULT, kind: 'drop', rate: 0.5, point: 'rx', seed: 1 },
        { ...NO_FAULT, kind: 'delay', delayMs: 3, seed: 9 },
      ],
    });
    expect(rest).to.deep.equal({
      captures: [
        { places: [{ point: CAPTURE_IF, at: null }], file: 'a.pcap' },
        { places: [{ point: CAPTURE_WIRE, at: null }], file: 'b=c.pcap' },
      ],
      ports: [],
      driver: 'native',
      memory: 1073741824,
      physBase: 0xf8000000,
      iommu: true,
      dmaCheck: true,
      seed: 4294967295,
      sysctl: [
        ['kern.ipc.mb_use_ext_pgs', '0'],
        ['net.inet.tcp.mssdflt', '536'],
      ],
      control: '/tmp/x.sock',
      own: { port: { text: '8080', where: '--port' } },
      warnings: [],
      sysctlWhere: ['--sysctl', '--sysctl'],
    });
  });

  it('rejects options that tuntap2 lacks, and selects the ts build with it', () => {
    const { nic, driver } = resolve({ driver: 'tuntap2', mtu: '9000' });
    expect([driver, nic.engine, nic.mode, nic.mtu]).to.deep.equal(['tuntap2', 'ts', 'wire', 9000]);
    expect(resolve({ driver: 'tuntap2', engine: 'ts' }).nic.engine).to.equal('ts');
    for (const [key, value] of [
      ['tap', 'nic0'],
      ['netns', 'blue'],
      ['mode', 'vnet'],
      ['engine', 'native'],
    ] as const)
      expect(refusal({ driver: 'tuntap2', [key]: value })).to.match(
        new RegExp(`^--driver: conflicts with --${key}: `),
      );
  });

  it('checks mode, engine, MTU and capabilities against the model', () => {
    const { nic } = resolve({ nic: 'plain' });
    expect([nic.nic, nic.engine, nic.mode]).to.deep.equal(['plain', 'ts', 'wire']);
    expect(resolve({ nic: 'plain', engine: 'ts', mode: 'wire', mtu: '1500' }).nic.mtu).to.equal(
      1500,
    );
    expect(refusal({ nic: 'plain', engine: 'native' })).to.equal(
      '--engine: native: plain has only ts',
    );
    expect(refusal({ nic: 'plain', mode: 'vnet' })).to.equal('--mode: vnet: plain has only wire');
    expect(refusal({ nic: 'plain', mtu: '1501' })).to.equal('--mtu: 1501: plain takes up to 1500');
    expect(refusal({ nic: 'plain', cap: 'nomap' })).to.equal(
      '--cap: nomap: plain lacks it: it has none',
    );
  });

  it('rejects bad values with one line that names the option', () => {
    const cases: [string, string, RegExp][] = [
      ['addr', '192.0.2.2', /prefix length, such as 192\.0\.2\.2\/24/],
      ['addr', '192.0.2.256/24', /not an IPv4 address/],
      ['addr', '192.0.2.2/33', /not an IPv4 address/],
      ['addr', '192.0.02.2/24', /not an IPv4 address/],
      ['addr', '192.0.2.0/24', /network itself/],
      ['addr', '192.0.2.255/24', /broadcast/],
      ['addr', '192.0.2.2/32', /from 1 to 31/],
      ['addr', '224.0.0.1/24', /not a host's address/],
      ['addr', '127.0.0.1/8', /not a host's address/],
      ['addr', 'none', /not an IPv4 address/],
      ['addr', '', /not an IPv4 address/],
      ['host-addr', '1.2.3/24', /not an IPv4 address/],
      ['gateway', '203.0.113.1', /not on the network of 192\.0\.2\.2\/24/],
      ['gateway', '192.0.2.2', /own address/],
      ['gateway', '192.0.2.1/24', /not an IPv4 address/],
      ['mac', '02:00:5e:00:53', /not a MAC/],
      ['mac', '01:00:5e:00:53:01', /group address/],
      ['mac', '00:00:00:00:00:00', /not a host's address/],
      ['mtu', '71', /from 72 to 9000/],
      ['mtu', '9001', /from 72 to 9000/],
      ['mtu', '1e3', /whole number/],
      ['nic', 'em', /no such model: tn, plain/],
      ['cap', '-bogus', /-bogus: not a capability/],
      ['cap', 'wol', /wol: tn lacks it/],
      ['mode', 'Wire', /one of wire, vnet/],
      ['napi', 'poll', /one of off, thread/],
      ['engine', 'rust', /one of native, ts/],
      ['driver', 'pcap', /one of native, tuntap2/],
      ['tap', 'a-name-of-16-byt', /interface's name/],
      ['tap', 'a/b', /interface's name/],
      ['tap', '..', /interface's name/],
      ['netns', '../x', /namespace's name/],
      ['memory', '16K', /16M to 4096M/],
      ['memory', '4097M', /16M to 4096M/],
      ['memory', '16777217', /pages/],
      ['memory', 'lots', /not a size/],
      ['phys-base', '0x1001', /page/],
      ['phys-base', '0xfffffffffffff000', /up to 0xfffff00000000/],
      ['phys-base', 'high', /not an address/],
      ['seed', '-1', /whole number/],
      ['seed', '4294967296', /whole number/],
      ['control', '', /a path is needed/],
    ];
    expectRefusals(cases);
    const lists: [string, string, RegExp][] = [
      ['capture', 'wire', /POINT=FILE/],
      ['capture', 'wire=', /POINT=FILE/],
      ['capture', 'nowhere=a.pcap', /not a capture point/],
      ['capture', 'nic=a.pcap', /one of sockbuf, ip, if, ring, wire/],
      ['capture', 'wire=a.pcapng.zip', /not the name of a capture: end it with \.pcap/],
      ['capture', 'wire=a.txt', /not the name of a capture/],
      ['capture', 'wire=-', /standard output has the lines of the command/],
      ['sysctl', 'kern.ipc.x', /NAME=VALUE/],
      ['sysctl', '=1', /NAME=VALUE/],
      ['sysctl', 'a b=1', /not the name of a sysctl/],
    ];
    for (const [name, value, why] of lists)
      expect(refusal({ [name]: [value] }), value).to.match(why);
  });

  it('checks faults word by word', () => {
    const text = (fault: string): string => {
      try {
        resolve({ fault: [fault] });
      } catch (e) {
        return (e as Error).message;
      }
      return '';
    };
    expect(text('drop')).to.equal('');
    expect(text('melt')).to.match(/^--fault: melt: no kind of fault: drop, /);
    expect(text('drop,often')).to.match(/NAME=VALUE/);
    expect(text('drop,colour=red')).to.match(/colour: no option of a fault/);
    expect(text('drop,rate=0.1,rate=0.2')).to.match(/rate=0\.2: rate is given twice$/);
    expect(text('drop,bits=1')).to.match(/bits: only of corrupt and truncate, not of drop$/);
    expect(text('corrupt,jitter=1')).to.match(/jitter: only of delay and reorder, not of corrupt$/);
    expect(text('reorder,delay=1,jitter=1')).to.equal('');
    expect(text('rate')).to.match(/bits per second/);
    expect(text('drop,nth=1.5')).to.match(/nth: 1\.5: not a whole number/);
    expect(text('drop,match=frob'), 'a filter is compiled later').to.equal('');
    expect(resolve({ fault: ['drop'] }).nic.engine).to.equal('native');
    expect(resolve({ fault: ['drop'] }).warnings).to.deep.equal([]);
  });

  it('compiles the filters of faults last, and names the option of a wrong one', async function () {
    needsHere(this, 'tcpdump');
    const filters = async (...fault: string[]): Promise<string> => {
      try {
        const { nic } = await resolved({ fault }).compiled();
        return nic.faults!.map(({ match }) => (match === null ? 'none' : match.length)).join();
      } catch (e) {
        if (!(e instanceof UsageError)) throw e;
        return e.message;
      }
    };
    expect(await filters()).to.equal('');
    expect(await filters('drop', 'drop,match=less 0')).to.match(/^none,\d+$/);
    expect(await filters('drop', 'drop,match=frob')).to.match(/^--fault: match: frob: /);
  });

  it('accepts values at their limits', () => {
    expect(resolve({ mtu: '72' }).nic.mtu).to.equal(72);
    expect(resolve({ memory: '16M' }).memory).to.equal(16777216);
    expect(resolve({ memory: '4096M' }).memory).to.equal(4294967296);
    expect(resolve({ seed: '0' }).seed).to.equal(0);
    expect(resolve({ tap: 'a-name-of-15-by' }).nic.tap).to.have.lengthOf(15);
    expect(resolve({ addr: '192.0.2.254/24' }).nic.addr).to.equal('192.0.2.254/24');
  });

  it('has no default route without a host on the same network', () => {
    expect(resolve({ hostAddr: 'none' }).nic.gateway).to.equal(null);
    expect(resolve({ hostAddr: '198.51.100.1/24' }).nic.gateway).to.equal(null);
    expect(resolve({ gateway: 'none' }).nic.gateway).to.equal(null);
    expect(resolve({ hostAddr: 'none', gateway: '192.0.2.7' }).nic.gateway).to.equal('192.0.2.7');
    expect(refusal({ hostAddr: '192.0.2.2/24' })).to.match(/the Linux side has that address/);
  });

  it('warns of addresses that are not on one network', () => {
    expect(resolve({}).warnings).to.deep.equal([]);
    expect(resolve({ hostAddr: 'none', addr: '10.0.0.1/24' }).warnings).to.deep.equal([]);
    for (const raw of [
      { addr: '10.0.0.1/24' },
      { hostAddr: '10.0.0.1/8' },
      // Linux's address is on our network, but ours is not on Linux's.
      { addr: '192.0.2.200/24', hostAddr: '192.0.2.1/25' },
    ])
      expect(resolve(raw).warnings.join()).to.match(/are not on one network: there must be routes/);
  });

  it('accepts FIFOs and devices without an extension for captures', () => {
    for (const file of ['x', '/dev/stdout', '/dev/fd/3', 'a.b/fifo'])
      expect(resolve({ capture: [`wire=${file}`] }).captures).to.deep.equal([
        { places: [{ point: CAPTURE_WIRE, at: null }], file },
      ]);
  });

  it('rejects two captures in one file', () => {
    expect(refusal({ capture: ['wire=a.pcap', 'if=./a.pcap'] })).to.equal(
      '--capture: ./a.pcap: two captures in one file',
    );
  });

  it('selects the ts build for iommu and dmaCheck, with a warning', () => {
    for (const raw of [{ iommu: true }, { dmaCheck: true }, { iommu: true, engine: 'native' }]) {
      const { nic, warnings } = resolve(raw);
      expect(nic.engine).to.equal('ts');
      expect(warnings).to.have.lengthOf(1);
      expect(warnings[0]).to.match(/^--(iommu|dma-check): .* --engine ts$/);
    }
    expect(resolve({ iommu: true, engine: 'ts' }).warnings).to.deep.equal([]);
    expect(resolve({ dmaCheck: true, addNic: ['nic1'] }).ports[0]!.engine).to.equal('ts');
    expect(resolve({ iommu: true, nic: 'plain' }).warnings).to.deep.equal([]);
    expect(resolve({ iommu: false }).nic.engine).to.equal('native');
  });

  it('takes IPv6 addresses in any form, with the default route to the Linux side', () => {
    const six = (raw: RawFlags) => {
      const { nic, warnings } = resolve(raw);
      return [nic.hostAddr6, nic.addr6, nic.gateway6, nic.slaac, ...warnings];
    };
    expect(six({})).to.deep.equal(['2001:db8::1/64', '2001:db8::2/64', '2001:db8::1', undefined]);
    expect(six({ addr6: 'none' })).to.deep.equal(['2001:db8::1/64', null, null, undefined]);
    expect(six({ hostAddr6: 'none' })).to.deep.equal([null, '2001:db8::2/64', null, undefined]);
    expect(six({ gateway6: 'none' }).slice(1, 3)).to.deep.equal(['2001:db8::2/64', null]);
    expect(six({ addr6: 'FE80::2%tn0/10', hostAddr6: 'fe80::1%nic0/10' })).to.deep.equal([
      'fe80::1/10',
      'fe80::2/10',
      'fe80::1',
      undefined,
    ]);
    expect(six({ gateway6: 'fe80::9%tn0' })[2]).to.equal('fe80::9');
    expect(six({ addr6: 'auto' })).to.deep.equal([
      '2001:db8::1/64',
      null,
      null,
      { gateway: 'auto' },
    ]);
    expect(six({ addr6: 'auto', gateway6: 'none' })[3]).to.deep.equal({ gateway: null });
    expect(six({ addr6: '2001:db8:1::2/64' }).slice(2)).to.deep.equal([
      null,
      undefined,
      '2001:db8:1::2/64 and 2001:db8::1/64 are not on one network: there must be routes between them',
    ]);
    expect(six({ addr6: '2001:db8::1/64' }).at(-1)).to.match(/^--addr6: 2001:db8::1: the Linux/);
    expect(refusal({ addr6: 'none', gateway6: '2001:db8::1' })).to.equal(
      '--gateway6: 2001:db8::1: the emulated host has no IPv6 address',
    );
  });

  it('rejects bad IPv6 addresses with one line that names the option', () => {
    expectRefusals([
      ['host-addr6', '192.0.2.1/24', /not an IPv6 address/],
      ['addr6', '2001:db8::2', /not an IPv6 address/],
      ['addr6', 'fe80::1%eth0/64', /unknown zone eth0: the emulated host's interface is tn0/],
      ['addr6', 'fe80::1%/64', /not an IPv6 address/],
      ['addr6', '2001:db8::2%tn0/64', /only a link-local address \(fe80::\/10\) has a zone/],
      ['addr6', 'ff02::1/64', /not a host's address/],
      ['addr6', '::/64', /not a host's address/],
      ['addr6', '::1/128', /not a host's address/],
      ['addr6', '::192.0.2.2/96', /not a host's address/],
      ['addr6', '::ffff:192.0.2.2/96', /an IPv4 address in the form of IPv6/],
      ['addr6', '2001:db8::2/129', /a prefix length from 1 to 128 is needed/],
      ['addr6', '2001:db8::2/0', /a prefix length from 1 to 128 is needed/],
      ['addr6', '2001:db8::/64', /the address of the network itself/],
      ['addr6', '2001:db8::2/64/64', /not an IPv6 address/],
      ['addr6', '2001:db8::g/64', /not an IPv6 address/],
      ['addr6', 'dhcp', /not an IPv6 address .*, such as 2001:db8::2\/64$/],
      ['addr6', '', /not an IPv6 address/],
      ['host-addr6', 'fe80::1%tn0/64', /unknown zone tn0: the Linux side's interface is nic0/],
      ['gateway6', '192.0.2.1', /not an IPv6 address/],
      ['gateway6', '2001:db8::1/64', /not an IPv6 address/],
      ['gateway6', '2001:db8:1::1', /not on the network of 2001:db8::2\/64/],
      ['gateway6', '2001:db8::2', /own address/],
      ['gateway6', 'ff02::2', /not a host's address/],
      ['gateway6', 'fe80::1%em0', /unknown zone em0: the emulated host's interface is tn0/],
    ]);
  });

  it('leaves IPv6 out where the MTU is too small for it', () => {
    const { nic, warnings } = resolve({ mtu: '1279' });
    expect([nic.hostAddr6, nic.addr6, nic.gateway6]).to.deep.equal([null, null, null]);
    expect(warnings).to.deep.equal([
      '--mtu: 1279: no IPv6 addresses: IPv6 needs an MTU of at least 1280',
    ]);
    expect(refusal({ mtu: '1279', addr6: '2001:db8::2/64' })).to.equal(
      '--addr6: 2001:db8::2/64: IPv6 needs an MTU of at least 1280: it is 1279',
    );
    expect(resolve({ mtu: '1280' }).warnings).to.deep.equal([]);
  });

  it('accepts additional NICs, which default to the options of the first', () => {
    const s = resolve({
      mode: 'vnet',
      mtu: '9000',
      netns: 'blue',
      addNic: [
        'nic1',
        'nic2,nic=plain',
        'nic3,mtu=576,cap=-nomap,-tso,mac=02:00:5e:00:53:09,cap=-txcsum',
      ],
      capture: ['if=a.pcap', 'if@nic2=b.pcap', 'wire@nic0=c.pcap'],
    });
    const like = { ...NO_ADDRESSES, netns: 'blue' };
    expect(s.ports).to.have.length(3);
    for (const port of s.ports) expect(port).to.include(like);
    expect(s.ports[0]).to.include({ tap: 'nic1', nic: 'tn', mode: 'vnet', mtu: 9000 });
    expect(s.ports[1]).to.include({ nic: 'plain', mode: 'wire', engine: 'ts', mtu: 1500 });
    expect(s.ports[2]).to.include({ mtu: 576, mac: '02:00:5e:00:53:09' });
    expect(words(s.ports[2]!.caps)).to.deep.equal(['-nomap', '-tso4', '-tso6', '-txcsum']);
    const texts = s.captures.map(({ places: [place], file }) => [place!.point, place!.at, file]);
    expect(texts).to.deep.equal([
      [CAPTURE_IF, null, 'a.pcap'],
      [CAPTURE_IF, 'nic2', 'b.pcap'],
      [CAPTURE_WIRE, 'nic0', 'c.pcap'],
    ]);
    for (const [text, why] of [
      ['', /^--add-nic: : the name of an interface is needed first$/],
      ['nic0', /^--add-nic: nic0: two NICs on one interface$/],
      ['a/b', /^--add-nic: a\/b: not an interface's name$/],
      ['nic1,nic=x', /^--add-nic: x: no such model/],
      ['nic1,nomap', /^--add-nic: nomap: one of nic=MODEL/],
      ['nic1,addr=1.2.3.4', /^--add-nic: addr=1.2.3.4: one of nic=MODEL/],
      ['nic1,mtu=1,mtu=2', /^--add-nic: mtu=2: mtu is given twice$/],
      ['nic1,mtu=71', /^--add-nic: 71/],
      ['nic1,nic=plain,cap=-nomap', /^--add-nic: -nomap: plain lacks it/],
    ] as const)
      expect(refusal({ addNic: [text] }), text).to.match(why);
    expect(refusal({ addNic: ['nic1', 'nic1'] })).to.match(/two NICs/);
    expect(refusal({ capture: ['if@nic1=a.pcap'] })).to.match(/^--capture: if@nic1: no interface/);
    expect(refusal({ driver: 'tuntap2', addNic: ['nic1'] })).to.match(/conflicts with --add-nic/);
  });

  it('warns of interface names that tcpreplay rejects', () => {
    expect(resolve({ tap: 'tap0' }).warnings).to.have.lengthOf(1);
    expect(resolve({ tap: 'atap' }).warnings).to.deep.equal([]);
  });
});

describe('cli: --config', () => {
  let dir: string;
  before(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-config-'))));
  after(() => rmSync(dir, { recursive: true }));

  const file = (text: string): string => {
    const path = join(dir, 'c.yaml');
    writeFileSync(path, text);
    return path;
  };

  it('accepts the same names, and the command line wins', () => {
    const config = file(
      [
        'tap: em9',
        'mtu: 9000',
        'mac: 02:00:5e:00:53:01',
        'host-addr: none',
        'cap: [-nomap, -txcsum]',
        'capture: [wire=a.pcap]',
        'add-nic: [nic1, "nic2,mtu=576"]',
        'sysctl:',
        '  kern.ipc.mb_use_ext_pgs: 0',
        '  kern.ipc.somaxconn: 64',
        'port: 81',
        '',
      ].join('\n'),
    );
    const s = resolve({ config, mtu: '1400', sysctl: ['kern.ipc.somaxconn=32'], port: '82' });
    expect(s.nic).to.include({ tap: 'em9', mtu: 1400, mac: '02:00:5e:00:53:01', hostAddr: null });
    expect(words(s.nic.caps)).to.deep.equal(['-nomap', '-txcsum']);
    expect(s.captures).to.deep.equal([
      { places: [{ point: CAPTURE_WIRE, at: null }], file: 'a.pcap' },
    ]);
    expect(s.ports.map(({ tap, mtu }) => [tap, mtu])).to.deep.equal([
      ['nic1', 1400],
      ['nic2', 576],
    ]);
    // The command line's values are written last, so they stay.
    expect(s.sysctl).to.deep.equal([
      ['kern.ipc.mb_use_ext_pgs', '0'],
      ['kern.ipc.somaxconn', '64'],
      ['kern.ipc.somaxconn', '32'],
    ]);
    expect(s.own).to.deep.equal({ port: { text: '82', where: '--port' } });
    expect(resolve({ config }).own).to.deep.equal({
      port: { text: '81', where: `${config}:11:7` },
    });
  });

  it('names line and column of an error', () => {
    const at = (text: string): string => refusal({ config: file(text) }).replace(dir, 'D');
    expect(at('mtu: 1500\n  \ntapp: x\n')).to.equal('D/c.yaml:3:1: unknown key "tapp"');
    expect(at('hostAddr: x\n')).to.equal(
      'D/c.yaml:1:1: unknown key "hostAddr": did you mean host-addr?',
    );
    expect(at('mtu: 1500\naddr: 192.0.2.2\n')).to.match(/^D\/c\.yaml:2:7: 192\.0\.2\.2: not an/);
    expect(at('mtu: [1, 2]\n')).to.equal('D/c.yaml:1:6: not a single value');
    expect(at('mtu:\n')).to.match(/^D\/c\.yaml:1:\d: not a single value$/);
    expect(at('- mtu\n')).to.equal('D/c.yaml:1:1: not a map of option names');
    expect(at('mtu: 1\nmtu: 2\n')).to.match(/^D\/c\.yaml:2:1: Map keys must be unique/);
    expect(at('tap: "x\n')).to.match(/^D\/c\.yaml:\d+:\d+: /);
    expect(at('mtu: 0x600\n')).to.match(/^D\/c\.yaml:1:6: 0x600: a whole number/);
  });

  it('names the place of each item of a list, also if the command line has more items', () => {
    const config = file(
      'sysctl:\n  kern.ipc.somaxconn: 64\n  a b: 1\ncapture: [wire=a.pcap, nowhere=b.pcap]\n',
    );
    const short = (flags: object): string => refusal({ config, ...flags }).replace(dir, 'D');
    expect(short({})).to.match(/^D\/c\.yaml:4:24: nowhere: not a capture point/);
    expect(short({ capture: ['if=a.pcap', 'if'] })).to.match(/^--capture: if: POINT=FILE/);
    expect(short({ capture: ['if=a.pcap'], sysctl: ['kern.ipc.somaxconn=32'] })).to.match(
      /^D\/c\.yaml:3:3: a b: not the name/,
    );
    const two = file('sysctl:\n  kern.a: 1\n  kern.b: 2\n');
    const { sysctl, sysctlWhere } = resolve({ config: two, sysctl: ['kern.c=3'] });
    expect(sysctl.map(([name], i) => `${name} ${sysctlWhere[i]}`)).to.deep.equal([
      `kern.a ${two}:2:3`,
      `kern.b ${two}:3:3`,
      'kern.c --sysctl',
    ]);
  });

  it('reports a missing file, and accepts an empty one', () => {
    expect(refusal({ config: join(dir, 'none.yaml') })).to.match(
      /none\.yaml: ENOENT: no such file or directory$/,
    );
    expect(resolve({ config: file('# nothing\n') }).nic.tap).to.equal('nic0');
    expect(parseConfig('', 'f', { names: [], repeated: [], lists: [] })).to.deep.equal([]);
  });
});
