/** Faults end to end: `tapnic fault` between the emulated NIC and Linux. */

import { expect } from 'chai';
import type { FaultLine } from '../../src/ctl/fault.ts';
import { needs } from '../support/needs.ts';
import { sha256, Site, withServed } from '../support/served.ts';

const FULL = process.env['TAPNIC_FULL'] === '1';
const BYTES = FULL ? 100_000_000 : 4_000_000;

describe('netns: faults on the wire', function () {
  needs('root', 'tap', 'netns', 'tcpdump');
  this.timeout(FULL ? 600_000 : 60_000);

  let site: Site;
  let sum: string;
  before(() => {
    site = new Site();
    sum = sha256(site.file('big.bin', BYTES));
  });
  after(() => site[Symbol.dispose]());

  const fetched = async (
    tapnic: Parameters<Parameters<typeof withServed>[2]>[0],
    options = '',
  ): Promise<void> => {
    const url = tapnic.urlOf('big.bin');
    const { stdout } = await tapnic.ns.run(
      'sh',
      ['-c', `curl -sS ${options} --max-time 300 ${url} | sha256sum`],
      { timeoutMs: 310_000 },
    );
    expect(stdout.split(' ')[0]).to.equal(sum);
  };

  for (const engine of ['native', 'ts']) {
    it(`${engine}: adds, lists and removes faults; the file arrives intact under all kinds at once`, async () => {
      await withServed(site, ['--engine', engine], async (tapnic) => {
        const add = async (...words: string[]): Promise<number> =>
          (await tapnic.json<FaultLine>('fault', 'add', ...words)).id;
        await add('drop', '--rate', '0.01', '--point', 'tx', '--seed', '7');
        await add('duplicate', '--rate', '0.01');
        await add('reorder', '--rate', '0.02', '--delay', '2');
        // One bit only: with three the Internet checksum misses one frame in some hundreds.
        await add('corrupt', '--rate', '0.01', '--match', 'tcp and greater 500');
        await add('truncate', '--every', '500', '--match', 'tcp');
        await add('delay', '--delay', '1', '--jitter', '1', '--point', 'rx');
        await fetched(tapnic);
        const lines = await tapnic.json<FaultLine[]>('fault', 'list');
        expect(lines.map(({ kind }) => kind)).to.deep.equal([
          'drop',
          'duplicate',
          'reorder',
          'corrupt',
          'truncate',
          'delay',
        ]);
        for (const { kind, hits, matched } of lines) {
          expect(hits, kind).to.be.above(0);
          if (kind !== 'delay') expect(hits, kind).to.be.below(matched / 10);
        }
        expect(lines[0]).to.include({ id: 1, if: 'tn0', point: 'tx', rate: 0.01, seed: 7 });
        expect((await tapnic.command('fault', 'list')).stdout).to.match(
          /^1: tn0 tx drop rate 0\.01 seed 7: \d+ of \d+ frames\n/,
        );
        expect((await tapnic.command('fault', 'remove', '1')).status).to.equal(0);
        expect((await tapnic.command('fault', 'remove', '1')).status).to.equal(1);
        expect(await tapnic.json('fault', 'remove', 'all')).to.deep.equal({ removed: 5 });
        expect(await tapnic.json('fault', 'list')).to.deep.equal([]);
      });
    });

    it(`${engine}: rx is what the NIC receives, tx what it sends`, async () => {
      await withServed(site, ['--engine', engine], async (tapnic) => {
        /**
         * Sends two pings from Linux, waits for up to `seconds`, and returns how many were
         * answered.
         */
        const answered = async (seconds = 20): Promise<number> => {
          const { stdout } = await tapnic.ns.run('sh', [
            '-c',
            `ping -c 2 -i 0.1 -W ${seconds} ${tapnic.ready.addr}; true`,
          ]);
          return Number(/ (\d+) received/.exec(stdout)![1]);
        };
        expect(await answered()).to.equal(2);
        // Requests are received and replies are sent. Each fault applies to its own direction only.
        const types = { rx: 'icmp-echo', tx: 'icmp-echoreply' };
        for (const [point, other] of [
          ['rx', 'tx'],
          ['tx', 'rx'],
        ] as const) {
          const match = (t: string): string[] => ['--match', `icmp[icmptype] = ${t}`];
          await tapnic.json('fault', 'add', 'drop', '--point', other, ...match(types[point]));
          expect(await answered()).to.equal(2);
          await tapnic.json('fault', 'add', 'drop', '--point', point, ...match(types[point]));
          expect(await answered(1)).to.equal(0);
          const lines = await tapnic.json<FaultLine[]>('fault', 'list');
          expect(lines.map(({ hits, matched }) => [hits, matched])).to.deep.equal([
            [0, 0],
            [2, 2],
          ]);
          await tapnic.json('fault', 'remove', 'all');
        }
        expect(await answered()).to.equal(2);
      });
    });
  }

  for (const mode of ['wire', 'vnet'])
    it(`${mode}: --fault adds faults at the start`, async () => {
      const faults = [
        '--fault',
        'drop,rate=0.01',
        '--fault',
        'rate,rate=200000000,burst=200,point=tx',
      ];
      await withServed(site, ['--mode', mode, ...faults], async (tapnic) => {
        expect(tapnic.ready.engine).to.equal('native');
        await fetched(tapnic);
        const [drop, rate] = await tapnic.json<FaultLine[]>('fault', 'list');
        expect(drop!.matched).to.be.above(0);
        // In mode vnet a frame is up to 64 KB.
        expect(rate!.hits).to.be.above(BYTES / (mode === 'vnet' ? 65_536 : 1500));
      });
    });

  it('native: the first fault is added and the last one removed during a download', async () => {
    await withServed(site, ['--engine', 'native'], async (tapnic) => {
      const slow = fetched(tapnic, `--limit-rate ${BYTES}`);
      const { id } = await tapnic.json<FaultLine>('fault', 'add', 'drop', '--rate', '0.01');
      await fetched(tapnic);
      const [line] = await tapnic.json<FaultLine[]>('fault', 'list');
      expect(line!.matched).to.be.above(BYTES / 1500);
      await tapnic.command('fault', 'remove', String(id));
      await slow;
      await fetched(tapnic);
    });
  });

  it('refuses wrong arguments, and changes nothing', async () => {
    await withServed(site, [], async (tapnic) => {
      expect((await tapnic.command('fault', 'add', 'drop', '--match', 'no such')).status).to.equal(
        2,
      );
      for (const words of [
        ['melt'],
        ['drop', '--rate', '2'],
        ['drop', '--nth', '0'],
        ['drop', '--point', 'moon'],
        ['rate'],
        ['delay'],
        ['drop', '--bits', '3'],
        ['truncate', '--bits', '3'],
      ]) {
        const { status, stderr } = await tapnic.command('fault', 'add', ...words);
        expect(status, words.join(' ')).to.equal(2);
        expect(stderr.trim().split('\n'), words.join(' ')).to.have.length(1);
      }
      expect((await tapnic.command('fault', 'add', 'drop', '--if', 'tn9')).status).to.equal(1);
      expect(await tapnic.json('fault', 'list')).to.deep.equal([]);
    });
  });
});
