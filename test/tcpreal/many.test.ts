/** Many connections: in quick succession, and thousands at once. */

import { expect } from 'chai';
import type { SocketLine } from '../../src/ctl/netstat_an.ts';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { NetstatS } from '../../src/ctl/netstat_s.ts';
import { full, needs } from '../support/needs.ts';
import { type Program, withRig } from './rig.ts';

interface Weight {
  heapUsed: number;
  external: number;
  arrayBuffers: number;
  held: number;
}

interface Churned {
  wrong: number;
  first: string[];
  seconds: number;
  slowestMs: number;
}

const EXPOSE_GC = ['--expose-gc'];

const weight = ({ heapUsed, external }: Weight): number => heapUsed + external;

/**
 * Waits until only LISTEN sockets are left; the peer has closed its connections already.
 */
async function drained(host: Program): Promise<void> {
  for (let i = 0; i < 100; i++) {
    const open = [...(await states(host)).keys()];
    if (open.every((state) => state === 'LISTEN')) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function states(host: Program): Promise<Map<string, number>> {
  const { sockets } = await host.ask<{ sockets: SocketLine[] }>('sockets');
  const count = new Map<string, number>();
  for (const { state } of sockets) count.set(state, (count.get(state) ?? 0) + 1);
  return count;
}

describe('tcpreal: many connections', function () {
  needs('root', 'tap', 'netns');
  this.timeout(full ? 300_000 : 60_000);

  const CHURN = full ? 20_000 : 1000;
  const PER_SECOND = 1000;

  /**
   * The side that closes first stays in TIME_WAIT. Linux has 28232 ports and searches slowly for
   * the last free ones.
   */
  for (const { who, what, count } of [
    { who: 'Linux', what: 'echo', count: Math.min(CHURN, 9000) },
    { who: 'our side', what: 'answer', count: CHURN },
  ])
    it(`${count} connections closed first by ${who}, at most ${PER_SECOND} per second`, async () => {
      const options = { sysctl: { 'net.inet.tcp.msl': 500 } };
      await withRig(
        options,
        async ({ host, peer }) => {
          await host.ask('listen', { port: 7, what });
          const churn = (n: number): Promise<Churned> =>
            peer.ask('churn', { port: 7, count: n, perSecond: PER_SECOND, atOnce: 100 }, 120_000);
          const warm = await churn(count / 2);
          expect(warm).to.deep.include({ wrong: 0, first: [] });
          const before = await host.ask<Weight>('weigh');
          const { wrong, first, seconds, slowestMs } = await churn(count);
          expect({ wrong, first }).to.deep.equal({ wrong: 0, first: [] });

          // TIME_WAIT lasts for 2 MSL, a second.
          await drained(host);
          const left = await states(host);
          expect(Object.fromEntries(left)).to.deep.equal({ LISTEN: 1 });
          const after = await host.ask<Weight>('weigh');
          const grown = weight(after) - weight(before);
          const rate = (count / seconds).toFixed(0);
          console.log(
            `      ${rate}/s, slowest ${slowestMs.toFixed(0)} ms, heap ${(grown / 1024).toFixed(0)} KiB larger`,
          );
          expect(grown / count, 'bytes still used per connection').to.be.below(full ? 128 : 1536);
          const { protocols } = await host.ask<NetstatS>('netstat');
          expect(protocols['tcp']).to.include({ tcps_accepts: count * 1.5, tcps_listendrop: 0 });
        },
        EXPOSE_GC,
      );
    });

  const IDLE = full ? 10_000 : 1000;
  // As many connections as it takes to compile the code: that memory must not count.
  const WARM_UP = 2000;
  // Other memory of the process only adds, and matters with few connections: take the least of three.
  const BATCHES = full ? 1 : 3;

  it(`${IDLE} idle connections use less than 2.5 KiB of JavaScript memory each`, async () => {
    await withRig(
      { sysctl: { 'kern.ipc.maxsockets': 4 * (WARM_UP + IDLE) } },
      async ({ host, peer }) => {
        await host.ask('listen', { port: 9, what: 'hold' });
        await peer.ask('dial', { port: 9, count: WARM_UP }, 120_000);
        let least = Number.POSITIVE_INFINITY;
        for (let i = 0; i < BATCHES; i++) {
          const before = await host.ask<Weight>('weigh');
          await peer.ask('dial', { port: 9, count: IDLE }, 120_000);
          const after = await host.ask<Weight>('weigh');
          expect(after.held - before.held).to.equal(IDLE);
          least = Math.min(least, (weight(after) - weight(before)) / IDLE);
        }
        const { mbufs, clusters } = await host.ask<NetstatM>('mbufs');
        console.log(
          `      ${least.toFixed(0)} bytes each; ${mbufs.current} mbufs, ${clusters.current} clusters in use`,
        );
        expect((await states(host)).get('ESTABLISHED')).to.equal(WARM_UP + BATCHES * IDLE);
        expect(least).to.be.below(2560);
        await host.ask('endHeld');
        expect(await peer.ask('endHeld')).to.deep.equal({ held: 0 });
      },
      EXPOSE_GC,
    );
  });
});
