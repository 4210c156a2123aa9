/** Features that commands show, tested with a running `tapnic` on a TAP. */

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { request } from '../../src/cli/control_client.ts';
import type { InterfaceInfo } from '../../src/ctl/ifconfig.ts';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { ZoneLine } from '../../src/ctl/vmstat.ts';
import type { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { sha256, Site, withServed } from '../support/served.ts';
import { assertCleanCapture } from '../support/tshark.ts';

/** Parses the `options=` or `capabilities=` line: its number and its names. */
function bits(text: string, word: string): { number: number; names: string[] } {
  const [, hex = '', names = ''] =
    new RegExp(`^\\t${word}=([0-9a-f]+)<(.*)>$`, 'm').exec(text) ?? [];
  return { number: parseInt(hex, 16), names: names.split(',') };
}

async function ifconfig(tapnic: Instance, ...words: string[]): Promise<string> {
  const run = await tapnic.command('ifconfig', ...words);
  expect(run, words.join(' ')).to.include({ status: 0, stderr: '' });
  return run.stdout;
}

describe('unmapped mbufs: output of commands', function () {
  needs('root', 'tap', 'netns', 'curl', 'tshark');
  this.timeout(60_000);

  it('IFCAP_NOMAP bit 0x4000000', async () => {
    using site = new Site();
    await withServed(site, [], async (tapnic) => {
      const before = bits(await ifconfig(tapnic, 'tn0'), 'options');
      expect(before.names.at(-1)).to.equal('NOMAP');
      for (const [off, on] of [
        ['-nomap', 'nomap'],
        ['-mextpg', 'mextpg'],
      ] as const) {
        expect(await ifconfig(tapnic, 'tn0', off)).to.equal('');
        const text = await ifconfig(tapnic, '-m', 'tn0');
        const after = bits(text, 'options');
        expect(before.number - after.number).to.equal(0x4000000);
        expect(after.names).to.deep.equal(before.names.slice(0, -1));
        expect(bits(text, 'capabilities'), 'capabilities are unchanged').to.deep.equal(before);
        expect(text).to.match(
          /\n\tsupported media:\n\t\tmedia 10Gbase-T mediaopt full-duplex\n\tnd6 options=21<PERFORMNUD,AUTO_LINKLOCAL>\n$/,
        );
        expect(await ifconfig(tapnic, 'tn0', on)).to.equal('');
        const { options } = (await request(tapnic.control, 'ifconfig', {
          if: 'tn0',
        })) as InterfaceInfo;
        expect(options).to.equal(before.number);
      }
    });
  });

  it('unsupported interface: the command changes nothing and exits with status 0', async () => {
    using site = new Site();
    await withServed(site, ['--nic', 'tp'], async (tapnic) => {
      const tp0 = async (): Promise<InterfaceInfo> =>
        (await request(tapnic.control, 'ifconfig', { if: 'tp0' })) as InterfaceInfo;
      const before = await tp0();
      expect(before.capabilities_names).not.to.include('NOMAP');
      expect(await ifconfig(tapnic, 'tp0', 'nomap')).to.equal('');
      expect((await tp0()).options).to.equal(before.options);
    });
  });

  it('software checksum: valid frames in all four combinations of TXCSUM and NOMAP', async () => {
    using site = new Site();
    const bytes = site.file('file', 1_000_000);
    const capture = site.path('wire.pcap');
    await withServed(site, ['--capture', `wire=${capture}`], async (tapnic) => {
      for (const words of [[], ['-nomap'], ['-txcsum'], ['nomap']]) {
        await request(tapnic.control, 'ifconfig', { if: 'tn0', words });
        const netstat = async (): Promise<NetstatM> =>
          (await request(tapnic.control, 'netstat', { report: 'm' })) as NetstatM;
        const before = await netstat();
        const out = site.path('out');
        const { status, stderr } = await tapnic.curl('-o', out, tapnic.urlOf('file'));
        expect(status, stderr).to.equal(0);
        expect(sha256(readFileSync(out))).to.equal(sha256(bytes));
        const { emulator } = await netstat();
        const converted = emulator.conversions - before.emulator.conversions;
        expect(converted > 0, words.join(' ')).to.equal(words.length > 0);
      }
    });
    const counts = await assertCleanCapture(capture, { mtu: 1500 });
    expect(counts.tcpPayload).to.be.at.least(4 * bytes.length);
  });

  it('EXT_PGS storage: `vmstat -z` shows zone mbuf_extpgs in use, and back at the start value', async () => {
    using site = new Site();
    site.file('file', 5_000_000);
    await withServed(site, [], async (tapnic) => {
      const zone = async (): Promise<ZoneLine> => {
        const zones = (await request(tapnic.control, 'vmstat', { report: 'z' })) as ZoneLine[];
        return zones.find(({ name }) => name === 'mbuf_extpgs')!;
      };
      expect(await zone()).to.include({ size: 256, used: 0, requests: 0 });
      const slow = tapnic.curl(
        '--limit-rate',
        '500k',
        '--max-time',
        '1',
        '-o',
        '/dev/null',
        tapnic.urlOf('file'),
      );
      let most = 0;
      for (let i = 0; i < 2000 && most === 0; i++) most = Math.max(most, (await zone()).used);
      expect(most, 'zone in use while a reader is slow').to.be.above(0);
      await slow;
      const fast = await tapnic.curl('-o', '/dev/null', tapnic.urlOf('file'));
      expect(fast.status).to.equal(0);
      let used = -1;
      for (let i = 0; i < 2000 && used !== 0; i++) ({ used } = await zone());
      expect(used).to.equal(0);
      expect((await zone()).requests).to.be.above(60);
      const text = (await tapnic.command('vmstat', '-z')).stdout;
      expect(text).to.match(/^ITEM +SIZE +LIMIT +USED +FREE +REQ FAIL SLEEP\n\n/);
      expect(text).to.match(/^mbuf_extpgs: +256, +\d+, +0, +\d+, +\d+, +0, +0$/m);
    });
  });
});
