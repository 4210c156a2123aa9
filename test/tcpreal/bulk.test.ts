/**
 * Bulk data over a wire that loses and reorders, in both directions and roles; SHA-256 verifies the
 * data.
 */

import { expect } from 'chai';
import { full, needs } from '../support/needs.ts';
import { sha256File, Site, withServed } from '../support/served.ts';
import { withRig } from './rig.ts';
import { streamSum } from './streams.ts';

const BYTES = full ? 1_000_000_000 : 10_000_000;
const LIMIT_MS = full ? 1_200_000 : 60_000;

/** In each direction 1 % of the frames are lost, and 1 % are 2 ms late and so reordered. */
const FAULTS = ['drop,rate=0.01,seed=11', 'reorder,rate=0.01,delay=2,seed=12'];

function rate(bytes: number, beginMs: number): string {
  const seconds = (performance.now() - beginMs) / 1000;
  return `${seconds.toFixed(1)} s, ${((8 * bytes) / 1e6 / seconds).toFixed(0)} Mbit/s`;
}

describe('tcpreal: bulk data under loss and reordering', function () {
  needs('root', 'tap', 'netns', 'curl');
  this.timeout(4 * LIMIT_MS);

  it(`serve delivers ${BYTES / 1e6} MB to curl`, async () => {
    using site = new Site();
    site.file('big.bin', BYTES);
    const sum = await sha256File(site.path('big.bin'));
    const args = FAULTS.flatMap((fault) => ['--fault', fault]);
    await withServed(site, [...args, '--engine', 'ts'], async (tapnic) => {
      const begin = performance.now();
      const url = tapnic.urlOf('big.bin');
      const { stdout, stderr } = await tapnic.ns.run(
        'sh',
        ['-c', `curl -sS --max-time ${LIMIT_MS / 1000} ${url} | sha256sum`],
        { timeoutMs: LIMIT_MS },
      );
      expect(stdout.split(' ')[0], stderr).to.equal(sum);
      if (full) console.log(`      ${rate(BYTES, begin)}`);
    });
  });

  it(`carries ${BYTES / 1e6} MB in each direction, as server and as client`, async () => {
    await withRig({ engine: 'ts', fault: FAULTS, seed: 5 }, async ({ host, peer }) => {
      const programs = { host, peer };
      for (const [title, server, at, client, to] of [
        ['from Linux to our server', 'host', 'receiveAt', 'peer', 'sendTo'],
        ['from our server to Linux', 'host', 'sendAt', 'peer', 'receiveFrom'],
        ['from Linux to our client', 'peer', 'sendAt', 'host', 'receiveFrom'],
        ['from our client to Linux', 'peer', 'receiveAt', 'host', 'sendTo'],
      ] as const) {
        const args = { port: 5000, bytes: BYTES };
        await programs[server].ask(at, args);
        const begin = performance.now();
        const [a, b] = await Promise.all([
          programs[server].ask('result', args, LIMIT_MS),
          programs[client].ask(to, args, LIMIT_MS),
        ]);
        const got = a['sum'] === undefined ? b : a;
        expect(got, title).to.deep.equal({ bytes: BYTES, sum: streamSum(BYTES) });
        if (full) console.log(`      ${title}: ${rate(BYTES, begin)}`);
      }
      const { faults } = await host.ask<{ faults: { kind: string; hits: number }[] }>('faults');
      for (const { kind, hits } of faults) expect(hits, kind).to.be.above(BYTES / 100_000);
    });
  });
});
