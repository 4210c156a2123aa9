/** Checks of `netstat -m` after a cell's workload. */

import { expect } from 'chai';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { Cell } from './cells.ts';

const PAGE = 4096;

/** Checks the counters that the cell's choices imply, after `bytes` of files were sent whole. */
export function expectCounters({ ext_pgs, emulator }: NetstatM, cell: Cell, bytes: number): void {
  const { small, checksum, ...others } = emulator.payload_bytes_read;
  const untouched = cell.nomap && cell.txcsum;
  expect(ext_pgs.total > 0, `${ext_pgs.total} EXT_PGS`).to.equal(cell.extPgs);
  expect(emulator.conversions > 0, `${emulator.conversions} conversions`).to.equal(
    cell.extPgs && !untouched,
  );
  expect(emulator.conversion_failures, 'failed conversions').to.equal(0);
  if (cell.extPgs && untouched) expect(emulator.sf_bufs.total, 'pages mapped').to.equal(0);
  else expect(emulator.sf_bufs.total, 'pages mapped').to.be.at.least(Math.floor(bytes / PAGE));
  // Small payloads are copied and summed with the headers; `small` counts them.
  if (cell.txcsum) expect(checksum, 'bytes summed').to.equal(0);
  else expect(checksum + small, 'bytes summed').to.be.at.least(bytes);
  if (untouched)
    for (const [why, n] of Object.entries(others)) expect(n, `bytes read: ${why}`).to.equal(0);
  expect(emulator.dma.faults, 'DMA faults').to.equal(0);
}
