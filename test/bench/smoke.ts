/**
 * `smoke`: bulk transmit with every build of the device in both egress modes and over both
 * families, in under a minute and a half.
 */

import { nicModels } from '../../src/machine/nic_models.ts';
import { BulkRig, bulkTxRows, type Size } from './bulk_tx.ts';
import { Baselines } from './cc.ts';
import type { Bench } from './bench.ts';
import type { Mode } from './proof.ts';
import type { Row } from './result.ts';

const MIB = 1 << 20;
/** Larger than the second-level cache, so that the payload comes from further away. */
const FILE_BYTES = 16 * MIB;

/** About 0.3 s of the C sender each. */
const SIZES: Record<Mode, Size> = {
  vnet: { fileBytes: FILE_BYTES, requests: 96 },
  wire: { fileBytes: FILE_BYTES, requests: 8 },
};
const EFFORT = { warmUps: 3, rounds: 5, seconds: 9 };
/** Enough for the counters to prove the path, not for a figure. */
const QUICK_SIZE: Size = { fileBytes: 2 * MIB, requests: 2 };
const QUICK_EFFORT = { warmUps: 1, rounds: 1, seconds: 0 };

export const smoke: Bench = {
  name: 'smoke',
  description:
    'bulk transmit, both builds of the device, both modes, IPv4 and IPv6, next to a minimal C sender',
  needs: ['root', 'netns', 'tap', 'curl'],
  async run({ quick, progress }) {
    using baselines = new Baselines();
    const builds = nicModels.find(({ name }) => name === 'tn')?.builds ?? [];
    const rows: Row[] = [];
    for (const mode of ['vnet', 'wire'] as const) {
      const rig = new BulkRig(baselines, quick ? QUICK_SIZE : SIZES[mode]);
      for (const engine of builds) {
        progress(`${mode}, ${engine}`);
        const name = `smoke-${mode}-${engine}`;
        rows.push(...(await bulkTxRows(name, rig, engine, mode, quick ? QUICK_EFFORT : EFFORT)));
      }
    }
    return rows;
  },
};
