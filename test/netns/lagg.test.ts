/**
 * A lagg(4) over two TAPs in a Linux bridge: a download continues when one of them is set down, and
 * a port without a capability turns it off on the others.
 */

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { request } from '../../src/cli/control_client.ts';
import type { InterfaceInfo } from '../../src/ctl/ifconfig.ts';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { Instance } from '../support/instance.ts';
import { full, needs } from '../support/needs.ts';
import { sha256, Site, withServed } from '../support/served.ts';

async function must(tapnic: Instance, line: string): Promise<string> {
  const { status, stdout, stderr } = await tapnic.command(...line.split(' '));
  expect(status, `${line}: ${stderr}`).to.equal(0);
  return stdout;
}

/** Puts the TAPs into one bridge, which gets the Linux side's address. */
function bridge({ ns }: Instance, ...taps: string[]): void {
  const ip = (line: string): string => ns.exec('ip', line.split(' '));
  ip('link add br0 type bridge');
  for (const tap of taps) ip(`link set ${tap} master br0`);
  ip('addr add 192.0.2.1/24 dev br0');
  ip('link set br0 up');
}

/** Serves through lagg0 over tn0 and `port`; tn0's address moves to lagg0. */
async function aggregated(
  site: Site,
  args: string[],
  port: string,
  body: (tapnic: Instance) => Promise<void>,
): Promise<void> {
  await withServed(site, ['--host-addr', 'none', '--add-nic', ...args], async (tapnic) => {
    bridge(tapnic, 'nic0', 'nic1');
    await must(tapnic, `ifconfig lagg0 create laggproto failover laggport tn0 laggport ${port}`);
    await must(tapnic, 'ifconfig tn0 delete');
    await must(tapnic, 'ifconfig lagg0 inet 192.0.2.2/24 up');
    await body(tapnic);
  });
}

/** The port lines of `ifconfig lagg0`. */
async function ports(tapnic: Instance): Promise<string[]> {
  const text = await must(tapnic, 'ifconfig lagg0');
  return text.split('\n').filter((line) => line.startsWith('\tlaggport'));
}

async function until(what: string, check: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 300; i++) {
    if (await check()) return;
    await sleep(50);
  }
  throw new Error(`${what}: not in 15 s`);
}

// test/equivalence checks that the builds behave alike, so CI runs one.
const engines = full ? ['native', 'ts'] : ['native'];

describe('netns: lagg(4)', function () {
  needs('root', 'tap', 'netns', 'curl');
  this.timeout(60_000);

  for (const engine of engines)
    it(`engine ${engine}: a download survives the loss and the return of its port`, async () => {
      using site = new Site();
      const bytes = site.file('file', 12_000_000);
      await aggregated(site, ['nic1', '--engine', engine], 'tn1', async (tapnic) => {
        expect(tapnic.ready.ports.map(({ tap, if: name, nic }) => [tap, name, nic])).to.deep.equal([
          ['nic1', 'tn1', 'tn'],
        ]);
        const out = site.path('out');
        const opackets = async (name: string): Promise<number> =>
          // Not with the command: on a busy machine the download could end before the command has
          // started.
          ((await request(tapnic.control, 'ifconfig', { if: name })) as InterfaceInfo).counters[
            'opackets'
          ]!;
        const curl = tapnic.curl('--limit-rate', '4M', '-o', out, tapnic.urlOf('file'));
        await until('the download', async () => (await opackets('tn0')) > 50);
        expect(await opackets('tn1')).to.equal(0);
        tapnic.ns.exec('ip', ['link', 'set', 'nic0', 'down']);
        await until('failover', async () => (await opackets('tn1')) > 20);
        expect(await ports(tapnic)).to.deep.equal([
          '\tlaggport: tn0 flags=1<MASTER>',
          '\tlaggport: tn1 flags=4<ACTIVE>',
        ]);
        expect(await must(tapnic, 'ifconfig tn0')).to.include('\tstatus: no carrier\n');
        const before = await opackets('tn0');
        tapnic.ns.exec('ip', ['link', 'set', 'nic0', 'up']);
        // On a busy machine the download may have ended. The bridge sends to the other port until it
        // sees a frame of ours at this one, so the emulated host speaks first.
        await until('the way back', async () => {
          await tapnic.command('ping', '-c', '1', '-W', '1000', '192.0.2.1');
          return (await opackets('tn0')) > before;
        });
        const { status, stderr } = await curl;
        expect(status, stderr).to.equal(0);
        expect(sha256(readFileSync(out))).to.equal(sha256(bytes));
        expect((await tapnic.json<NetstatM>('netstat', '-m')).emulator.conversions).to.equal(0);
      });
    });

  it('a port without NOMAP turns it off on lagg0 and tn0, and everything is converted', async () => {
    using site = new Site();
    const bytes = site.file('file', 1_000_000);
    await aggregated(site, ['nic1,nic=tl'], 'tl0', async (tapnic) => {
      const options = async (name: string): Promise<string[]> =>
        (await tapnic.json<InterfaceInfo>('ifconfig', name)).options_names;
      const out = site.path('out');
      const download = async (): Promise<number> => {
        const { status, stderr } = await tapnic.curl('-o', out, tapnic.urlOf('file'));
        expect(status, stderr).to.equal(0);
        expect(sha256(readFileSync(out))).to.equal(sha256(bytes));
        return (await tapnic.json<NetstatM>('netstat', '-m')).emulator.conversions;
      };
      for (const name of ['lagg0', 'tn0', 'tl0'])
        expect(await options(name), name)
          .to.include('TXCSUM')
          .and.not.to.include('NOMAP');
      expect(await download()).to.be.greaterThan(0);
      // Through the other NIC, with 32-bit DMA and four fragments.
      tapnic.ns.exec('ip', ['link', 'set', 'nic0', 'down']);
      await download();
      tapnic.ns.exec('ip', ['link', 'set', 'nic0', 'up']);
      await must(tapnic, 'ifconfig lagg0 -laggport tl0');
      expect(await options('lagg0'), 'the other port is unchanged').not.to.include('NOMAP');
      await must(tapnic, 'ifconfig lagg0 nomap');
      expect(await options('tn0')).to.include('NOMAP');
      await must(tapnic, 'ifconfig lagg0 destroy');
      expect(await options('tn0')).to.include('TSO4');
    });
  });

  it('a port whose TAP is deleted has no link, and the instance continues', async () => {
    using site = new Site();
    site.file('file', 100_000);
    await aggregated(site, ['nic1'], 'tn1', async (tapnic) => {
      tapnic.ns.exec('ip', ['link', 'delete', 'nic1']);
      await until('no link', async () =>
        (await must(tapnic, 'ifconfig tn1')).includes('status: no carrier'),
      );
      const { status, stderr } = await tapnic.curl('-o', site.path('out'), tapnic.urlOf('file'));
      expect(status, stderr).to.equal(0);
    });
  });
});
