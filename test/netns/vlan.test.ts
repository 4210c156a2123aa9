/**
 * A vlan(4) on a TAP. The far end is a packet socket, so that this works on kernels without 802.1Q
 * devices as well. tshark judges the captures of tcpdump on the TAP and our own.
 */

import { once } from 'node:events';
import { join } from 'node:path';
import { expect } from 'chai';
import type { InterfaceInfo } from '../../src/ctl/ifconfig.ts';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { Instance } from '../support/instance.ts';
import { full, needs } from '../support/needs.ts';
import { packageRoot } from '../support/root.ts';
import { sha256, Site, withServed } from '../support/served.ts';
import { tsharkFields } from '../support/tshark.ts';

interface PeerResult {
  pings: string[];
  status: string;
  bytes: number;
  sha256: string;
  /** The longest IP packet. */
  longest: number;
  /** Frames without the tag. */
  stray: number;
}

const US = '198.51.100.2';
const PEER = '198.51.100.1';

async function peer(tapnic: Instance, path: string): Promise<PeerResult> {
  const script = join(packageRoot(), 'test', 'support', 'vlan_peer.py');
  return JSON.parse(
    await tapnic.ns.execAsync('python3', [script, 'nic0', '100', PEER, US, path]),
  ) as PeerResult;
}

async function must(tapnic: Instance, line: string): Promise<string> {
  const { status, stdout, stderr } = await tapnic.command(...line.split(' '));
  expect(status, `${line}: ${stderr}`).to.equal(0);
  return stdout;
}

/** Runs tcpdump on the TAP around `body`. */
async function dumped(tapnic: Instance, file: string, body: () => Promise<void>): Promise<void> {
  const args = [
    '-i',
    'nic0',
    '-n',
    '-U',
    '-w',
    file,
    '--immediate-mode',
    '-B',
    '65536',
    'ip or vlan',
  ];
  const child = tapnic.ns.spawn('tcpdump', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  await once(child.stderr!, 'data');
  try {
    await body();
  } finally {
    child.kill('SIGINT');
    await once(child, 'close');
  }
}

/** Checks that every frame of the peer's network has the tag and, if `sums`, right checksums. */
async function expectTagged(file: string, sums: boolean): Promise<void> {
  const fields = ['vlan.id', 'ip.checksum.status', 'tcp.checksum.status', 'icmp.checksum.status'];
  const rows = await tsharkFields(file, [...fields, 'ip.len', 'ip.src'], `ip.addr == ${US}`);
  expect(rows.length).to.be.greaterThan(20);
  for (const [id, ip, tcp, icmp, len, src] of rows) {
    expect(id, `${src} ${len}`).to.equal('100');
    if (!sums) continue;
    for (const status of [ip, tcp, icmp]) expect(status, `${src} ${len}`).to.be.oneOf(['', '1']);
    expect(Number(len)).to.be.at.most(1500);
  }
}

// test/equivalence checks that the builds behave alike, so CI runs one.
const engines = full ? ['native', 'ts'] : ['native'];

describe('netns: vlan(4)', function () {
  needs('root', 'tap', 'netns', 'tshark', 'tcpdump', 'python3');
  this.timeout(60_000);

  for (const engine of engines)
    it(`engine ${engine}: frames are tagged, by the NIC or by the stack`, async () => {
      using site = new Site();
      const bytes = site.file('file', 700_000);
      const captures = ['if', 'wire'].flatMap((point) => [
        '--capture',
        `${point}=${site.path(`${point}.pcap`)}`,
      ]);
      // A capture at `if` makes the CPU read payload, but it converts no mbuf.
      // Without IPv6: tn0 itself would send untagged solicitations and reports.
      const run = (args: string[], body: (tapnic: Instance) => Promise<void>): Promise<void> =>
        withServed(site, ['--engine', engine, '--addr6', 'none', ...args], async (tapnic) => {
          await must(tapnic, `ifconfig vlan100 create vlan 100 vlandev tn0 inet ${US}/24 up`);
          await body(tapnic);
        });
      const conversions = async (tapnic: Instance): Promise<number> =>
        (await tapnic.json<NetstatM>('netstat', '-m')).emulator.conversions;

      await run(captures, async (tapnic) => {
        const results: PeerResult[] = [];
        await dumped(tapnic, site.path('tap.pcap'), async () => {
          results.push(await peer(tapnic, 'file'));
          expect(await conversions(tapnic), 'the NIC inserts the tag').to.equal(0);
          await must(tapnic, 'ifconfig tn0 -vlanhwtag');
          results.push(await peer(tapnic, 'file'));
          const vlan = await tapnic.json<InterfaceInfo>('ifconfig', 'vlan100');
          expect(vlan.options_names).to.include('NOMAP').and.not.to.include('TXCSUM');
          expect(await conversions(tapnic), 'sums in software').to.be.greaterThan(0);
        });
        const want = { status: '200', bytes: bytes.length, sha256: sha256(bytes), stray: 0 };
        for (const result of results) expect(result).to.include({ ...want, longest: 1500 });
        expect(results[1]!.pings).to.deep.equal(results[0]!.pings);
      });
      await expectTagged(site.path('tap.pcap'), true);
      await expectTagged(site.path('wire.pcap'), true);
      await expectTagged(site.path('if.pcap'), false);

      await run(['--cap=-nomap'], async (tapnic) => {
        const vlan = await tapnic.json<InterfaceInfo>('ifconfig', 'vlan100');
        expect(vlan.options_names).to.include('TXCSUM').and.not.to.include('NOMAP');
        expect((await peer(tapnic, 'file')).sha256).to.equal(sha256(bytes));
        expect(await conversions(tapnic)).to.be.greaterThan(0);
      });
    });

  it('destroys vlan interfaces, and refuses wrong commands with one line', async () => {
    using site = new Site();
    await withServed(site, [], async (tapnic) => {
      expect(await must(tapnic, 'ifconfig vlan create')).to.equal('vlan0\n');
      expect(await must(tapnic, 'ifconfig tn0.7 create')).to.equal('');
      const text = await must(tapnic, 'ifconfig tn0.7');
      expect(text).to.include('\tvlan: 7 vlanproto: 802.1q vlanpcp: 0 parent interface: tn0\n');
      await must(tapnic, 'ifconfig vlan0 destroy');
      for (const [line, message] of [
        ['vlan0', 'interface vlan0 does not exist'],
        ['vlan1 create vlan 7 vlandev tn0', 'interface vlan1 already exists'],
        ['vlan1 create vlan 8 vlandev tn9', 'SIOCIFCREATE2 (vlan1): Device not configured'],
        ['tn0 destroy', 'SIOCIFDESTROY: Invalid argument'],
      ]) {
        const { status, stdout, stderr } = await tapnic.command('ifconfig', ...line!.split(' '));
        expect([status, stdout], line).to.deep.equal([1, '']);
        expect(stderr.trimEnd().split('\n'), line).to.have.length(1);
        expect(stderr).to.include(message);
      }
    });
  });
});
