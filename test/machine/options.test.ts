/** `checkOptions`: options as data in, settings or one structured error out. */

import { expect } from 'chai';
import type { NicModelInfo } from '../../src/machine/nic_model.ts';
import { nicModels } from '../../src/machine/nic_models.ts';
import { issueText, OptionError, type OptionIssue } from '../../src/machine/option_error.ts';
import { checkOptions, type OptionsDraft, type StackConfig } from '../../src/machine/options.ts';
import { IFCAP_NOMAP, IFCAP_TSO4, IFCAP_TSO6 } from '../../src/net/if_var.ts';
import { CAPTURE_IF } from '../../src/sys/capture.ts';

const MODELS: readonly NicModelInfo[] = nicModels;

const check = (config: unknown): OptionsDraft => checkOptions(config as StackConfig, MODELS);

/** The issue that `config` is refused with. */
function refusal(config: unknown): OptionIssue {
  try {
    check(config);
  } catch (e) {
    if (e instanceof OptionError) return e.issue;
    throw e;
  }
  throw new Error(`accepted: ${JSON.stringify(config)}`);
}

const plain = (issue: OptionIssue): string => issueText(issue, (option) => option);

describe('machine: options', () => {
  it('have defaults', () => {
    const { nic, memory, driver, seed, warnings } = check({});
    expect(nic).to.include({ tap: 'nic0', addr: '192.0.2.2/24', mtu: 1500, nic: 'tn' });
    expect([memory, driver, seed, warnings]).to.deep.equal([268435456, 'native', null, []]);
  });

  it('take the address from the network; then Linux has none unless it is given', () => {
    const dhcp = (more: object) => check({ addr: 'dhcp', ...more }).nic;
    expect(dhcp({})).to.deep.include({
      addr: null,
      gateway: null,
      dhcp: { gateway: 'auto' },
      hostAddr: null,
      hostAddr6: '2001:db8::1/64',
    });
    expect(dhcp({ gateway: '203.0.113.1' }).dhcp).to.deep.equal({ gateway: '203.0.113.1' });
    expect(dhcp({ gateway: null }).dhcp).to.deep.equal({ gateway: null });
    expect(dhcp({ hostAddr: '198.51.100.1/24' }).hostAddr).to.equal('198.51.100.1/24');
    expect(check({ addr: 'dhcp' }).warnings).to.deep.equal([]);
    expect(check({}).nic).to.not.have.property('dhcp');
    expect(plain(refusal({ addr: 'DHCP' }))).to.match(
      /^DHCP: not an IPv4 address with prefix length/,
    );
    expect(refusal({ addr: 'dhcp', gateway: 'dhcp' }).path).to.deep.equal(['gateway']);
  });

  it('take undefined for what is left out', () => {
    const keys = ['tap', 'gateway', 'mtu', 'cap', 'ports', 'fault', 'iommu', 'seed', 'engine'];
    const config = Object.fromEntries(keys.map((key) => [key, undefined]));
    expect(check(config)).to.deep.equal(check({}));
  });

  it('become settings, each checked and in its usual form', () => {
    const s = check({
      mac: '02-00-5E-00-53-01',
      cap: ['-nomap', '-tso'],
      ports: [{ tap: 'nic1', nic: 'tl', mtu: 576 }],
      capture: [{ places: [{ point: 'if', at: 'nic1' }], file: 'a.pcap' }],
      sysctl: [['kern.ipc.somaxconn', 64]],
      fault: [{ kind: 'drop', rate: 0.5, point: 'rx' }, { kind: 'duplicate' }],
      physBase: 0xf8000000,
      seed: 7,
    });
    expect(s.nic.mac).to.equal('02:00:5e:00:53:01');
    expect(s.nic.caps).to.deep.equal([
      { bits: IFCAP_NOMAP, on: false },
      { bits: IFCAP_TSO4 | IFCAP_TSO6, on: false },
    ]);
    expect(s.ports[0]).to.include({ tap: 'nic1', nic: 'tl', mtu: 576, addr: null });
    expect(s.captures).to.deep.equal([
      { places: [{ point: CAPTURE_IF, at: 'nic1' }], file: 'a.pcap' },
    ]);
    expect(s.sysctl).to.deep.equal([['kern.ipc.somaxconn', '64']]);
    expect(s.nic.faults.map(({ kind, rate, seed }) => [kind, rate, seed])).to.deep.equal([
      ['drop', 0.5, 1],
      ['duplicate', null, 2],
    ]);
    expect([s.physBase, s.seed]).to.deep.equal([0xf8000000, 7]);
  });

  it('are refused with a path, the value and what is wrong', () => {
    const cases: [object, OptionIssue['path'], unknown, RegExp][] = [
      [{ mtu: 71 }, ['mtu'], 71, /^a whole number from 72 to 9000 is needed$/],
      [{ mtu: 1.5 }, ['mtu'], 1.5, /^a whole number/],
      [{ seed: -1 }, ['seed'], -1, /^a whole number/],
      [{ addr: 'x' }, ['addr'], 'x', /^not an IPv4 address with prefix length$/],
      [{ cap: ['-nomap', 'x'] }, ['cap', 1], 'x', /^not a capability$/],
      [{ nic: 'x' }, ['nic'], 'x', /^no such model$/],
      [{ ports: [{ tap: 'a' }, { tap: 'b', mtu: 1 }] }, ['ports', 1, 'mtu'], 1, /^a whole/],
      [{ ports: [{ tap: 'a', nic: 'tl', mtu: 9000 }] }, ['ports', 0, 'mtu'], 9000, /tl takes up/],
      [{ ports: [{ tap: 'a', addr: 'b' }] }, ['ports', 0], undefined, /^addr: not an option of a/],
      [{ ports: [{ tap: 'nic0' }] }, ['ports'], 'nic0', /^two NICs on one interface$/],
      [{ sysctl: [['a b', '1']] }, ['sysctl', 0], 'a b', /^not the name of a sysctl$/],
      [{ sysctl: ['a=1'] }, ['sysctl', 0], undefined, /^pairs of name and value are needed$/],
      [{ fault: [{ kind: 'melt' }] }, ['fault', 0], undefined, /^melt: no kind of fault/],
      [{ fault: [{ kind: 'drop', rate: '1' }] }, ['fault', 0], undefined, /^rate: 1: not a number/],
      [{ fault: [{ kind: 'drop', x: 1 }] }, ['fault', 0], 'x', /^no option of a fault$/],
      [{ memory: 1 }, ['memory'], 1, /^16M to 4096M$/],
      [{ memory: Number.NaN }, ['memory'], Number.NaN, /^16M to 4096M$/],
      [{ iommu: 1 }, ['iommu'], undefined, /^true or false$/],
      [{ nonesuch: 1 }, [], undefined, /^nonesuch: not an option: tap, hostAddr, /],
    ];
    for (const [config, path, value, problem] of cases) {
      const issue = refusal(config);
      const what = JSON.stringify(config);
      expect(issue.path, what).to.deep.equal(path);
      expect(issue.value, what).to.deep.equal(value);
      expect(issue.problem, what).to.match(problem);
    }
    expect(refusal({ addr: 'x' }).example).to.equal('192.0.2.2/24');
    expect(refusal({ nic: 'x' }).remedy).to.equal('tn, tb, tl, tp');
    for (const config of [null, 5, 'nic1', []])
      expect(plain(refusal(config))).to.equal('an object of options is needed');
  });

  it('name other options as the front spells them', () => {
    const issue = refusal({ driver: 'tuntap2', netns: 'blue' });
    expect(issue.path).to.deep.equal(['driver']);
    expect(issueText(issue, (option) => `--${option}`)).to.match(/^conflicts with --netns: /);
    expect(plain(issue)).to.match(/^conflicts with netns: /);
    const [warning] = check({ dmaCheck: true }).warnings;
    expect(warning!.path).to.deep.equal(['dmaCheck']);
    expect(issueText(warning!, (option) => `--${option}`)).to.match(/ uses --engine ts$/);
  });
});
