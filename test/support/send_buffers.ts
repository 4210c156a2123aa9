/** What the send buffers of a running instance hold while something is under way. */

import { setTimeout as sleep } from 'node:timers/promises';
import { request } from '../../src/cli/control_client.ts';
import type { SocketLine } from '../../src/ctl/netstat_an.ts';

const MB = 1e6;

/** The send buffers of all connections, summed over all looks. */
export interface Fill {
  /** Looks that found something. */
  looks: number;
  bytes: number;
  mbufs: number;
  /** Unmapped ones among them. */
  extPgs: number;
}

/** Mbufs per 10^6 bytes in the send buffers: the mean over all looks, each byte of it as heavy. */
export function mbufsPerMB({ mbufs, bytes }: Fill): number {
  return mbufs / (bytes / MB);
}

/**
 * Looks into the send buffers of the instance at `control` every `everyMs` until `work` is done.
 * Rejects as `work` does.
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
