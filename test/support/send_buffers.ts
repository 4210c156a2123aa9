/** Samples the send buffers of a running instance while some work is in progress. */

import { setTimeout as sleep } from 'node:timers/promises';
import { request } from '../../src/cli/control_client.ts';
import type { SocketLine } from '../../src/ctl/netstat_an.ts';

const MB = 1e6;

/** The send buffers of all connections, summed over all samples. */
export interface Fill {
  /** Samples that found data in a send buffer. */
  looks: number;
  bytes: number;
  mbufs: number;
  /** Unmapped mbufs among `mbufs`. */
  extPgs: number;
}

/** Mbufs per 10^6 bytes in the send buffers: the mean over all samples, weighted by bytes. */
export function mbufsPerMB({ mbufs, bytes }: Fill): number {
  return mbufs / (bytes / MB);
}

/**
 * Samples the send buffers of the instance at `control` every `everyMs` milliseconds until `work`
 * is done. Rejects if `work` rejects.
 */
export async function watchSendBuffers(
  control: string,
  work: Promise<unknown>,
  everyMs: number,
): Promise<Fill> {
  const fill: Fill = { looks: 0, bytes: 0, mbufs: 0, extPgs: 0 };
  const state = { done: false };
  const end = work.finally(() => (state.done = true));
  const looking = (async (): Promise<void> => {
    while (!state.done) {
      const lines = (await request(control, 'netstat', { report: 'an' })) as SocketLine[];
      if (lines.some(({ sendq }) => sendq > 0)) fill.looks++;
      for (const { sendq, send_mbufs, send_ext_pgs } of lines) {
        fill.bytes += sendq;
        fill.mbufs += send_mbufs;
        fill.extPgs += send_ext_pgs;
      }
      await sleep(everyMs);
    }
  })();
  await Promise.all([end, looking]);
  return fill;
}
