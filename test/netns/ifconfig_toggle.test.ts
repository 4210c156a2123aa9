/**
 * Capabilities toggled hundreds of times during downloads; the exact error messages of the tools.
 */

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { request } from '../../src/cli/control_client.ts';
import type { InterfaceInfo } from '../../src/ctl/ifconfig.ts';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { SysctlLeaf } from '../../src/ctl/sysctl.ts';
import { SeededPrng, below } from '../../src/host/prng.ts';
import { full, needs } from '../support/needs.ts';
import { sha256, Site, withServed } from '../support/served.ts';
import { assertCleanCapture } from '../support/tshark.ts';

const WORDS = ['nomap', '-mextpg', 'txcsum', '-txcsum', 'tso4', '-tso4', 'mextpg', '-nomap'];
const TOGGLES = full ? 5000 : 600;
const BYTES = full ? 40_000_000 : 4_000_000;
/** Duration of a download, by a rate limit, and the least number of toggles during it. */
const SECONDS = full ? 20 : 2;
const DURING = full ? 1000 : 60;

describe('netns: ifconfig while transfers run', function () {
  needs('root', 'tap', 'netns', 'curl', 'tshark');
  this.timeout(full ? 300_000 : 60_000);

  it(`up to ${TOGGLES} toggles of nomap, txcsum and tso4: every byte right, every frame valid`, async () => {
    using site = new Site();
    const files = Array.from({ length: 4 }, (_, i) => site.file(`f${i}`, BYTES, i + 1));
    const capture = site.path('wire.pcap');
    let refused = 0;
    await withServed(site, ['--capture', `wire=${capture}`], async (tapnic) => {
      const running = { now: 0 };
      const fetches = files.map(async (bytes, i) => {
        running.now++;
        const out = site.path(`out${i}`);
        const rate = String(Math.floor(BYTES / SECONDS));
        const r = await tapnic.curl('--limit-rate', rate, '-o', out, tapnic.urlOf(`f${i}`));
        running.now--;
        expect(r.status, r.stderr).to.equal(0);
        expect(sha256(readFileSync(out))).to.equal(sha256(bytes));
      });
      const prng = new SeededPrng(7);
      let during = 0;
      for (let i = 0; i < TOGGLES && running.now > 0; i++) {
        const word = WORDS[below(prng, WORDS.length)]!;
        try {
          // The request that `tapnic ifconfig tn0 WORD` sends.
          await request(tapnic.control, 'ifconfig', { if: 'tn0', words: [word] });
        } catch (e) {
          expect(String(e)).to.match(/tso4: Resource temporarily unavailable/);
          refused++;
        }
        during++;
      }
      expect(during, 'toggles while downloads ran').to.be.above(DURING);
      await Promise.all(fetches);
      const { emulator } = await tapnic.json<NetstatM>('netstat', '-m');
      expect(emulator.conversions).to.be.above(0);
      const { checksum } = emulator.payload_bytes_read;
      expect(checksum, 'some were summed by the CPU').to.be.above(0);
      expect(checksum, 'and some were not').to.be.below(4 * BYTES);
    });
    expect(refused, 'tso4 without txcsum').to.be.above(0);
    const counts = await assertCleanCapture(capture, { mtu: 1500 });
    expect(counts.tcpPayload).to.be.at.least(4 * BYTES);
  });

  it('refuses wrong arguments with status 1 and one line, and changes nothing', async () => {
    using site = new Site();
    await withServed(site, [], async (tapnic) => {
      const state = async (): Promise<unknown[]> => [
        ((await request(tapnic.control, 'ifconfig', { if: 'tn0' })) as InterfaceInfo).options,
        ((await request(tapnic.control, 'sysctl', { name: 'kern' })) as SysctlLeaf[])
          .filter(({ writable }) => writable)
          .map(({ name, value }) => [name, value]),
      ];
      const before = await state();
      const wrong: [string[], string][] = [
        [['ifconfig', 'tn0', '-txcsum', 'nosuchcap'], 'nosuchcap: bad value'],
        [['ifconfig', 'nosuch0', '-nomap'], 'interface nosuch0 does not exist'],
        [['sysctl', 'kern.ipc.nosuch=1'], "unknown oid 'kern.ipc.nosuch'"],
        [['sysctl', 'kern.ipc.nosuch'], "unknown oid 'kern.ipc.nosuch'"],
        [['sysctl', 'hw.pagesize=8192'], "oid 'hw.pagesize' is read only"],
        [['sysctl', 'kern.ipc.nsfbufsused=0'], "oid 'kern.ipc.nsfbufsused' is read only"],
        [['sysctl', 'kern.ipc.mb_use_ext_pgs=2'], 'kern.ipc.mb_use_ext_pgs=2: Invalid argument'],
        [['sysctl', 'kern.ipc.nmbclusters=1'], 'kern.ipc.nmbclusters=1: Invalid argument'],
      ];
      const runs = await Promise.all(wrong.map(([args]) => tapnic.command(...args)));
      wrong.forEach(([args, message], i) =>
        expect(runs[i], args.join(' ')).to.deep.equal({
          status: 1,
          signal: null,
          stdout: '',
          stderr: `tapnic: ${message}\n`,
        }),
      );
      expect(await state()).to.deep.equal(before);
      const [types, descr] = await Promise.all([
        tapnic.command('sysctl', '-t', 'kern.ipc.mb_use_ext_pgs', 'kern.ipc.sfstat', 'hw.pagesize'),
        tapnic.command('sysctl', '-d', 'kern.ipc.nmbufs'),
      ]);
      expect(types.stdout).to.equal(
        'kern.ipc.mb_use_ext_pgs: uint8_t\nkern.ipc.sfstat: opaque\nhw.pagesize: integer\n',
      );
      expect(descr.stdout).to.equal('kern.ipc.nmbufs: Maximum number of mbufs allowed\n');
    });
  });
});
