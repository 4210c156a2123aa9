import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { nicModels } from '../../src/machine/nic_models.ts';
import { PcapWriter } from '../../src/pcap/pcap.ts';
import { full, needsHere } from '../support/needs.ts';
import { assertCleanCapture } from '../support/tshark.ts';
import { allCells, type Cell, cellName, coveringCells } from './cells.ts';
import { runSimCell } from './sim_cell.ts';

const SEED = Number(process.env['MATRIX_SEED'] ?? 4);

/** The frames of all cells with one MTU, for one run of tshark. */
class Frames {
  readonly file: string;
  count = 0;
  /** The cell of the frames from number `first` on; numbers start at 1. */
  readonly firsts: { first: number; cell: string }[] = [];
  readonly #fd: number;
  readonly #pcap: PcapWriter;

  constructor(dir: string, mtu: number) {
    this.file = join(dir, `mtu-${mtu}.pcap`);
    this.#fd = openSync(this.file, 'w');
    this.#pcap = new PcapWriter(
      { write: (bytes, off, len) => void writeSync(this.#fd, bytes, off, len) },
      { snaplen: 65_535 },
    );
  }

  begin(cell: string): void {
    this.firsts.push({ first: this.count + 1, cell });
  }

  add(frame: Uint8Array): void {
    this.#pcap.packet(1, this.count++ % 1_000_000, frame, 0, frame.length, frame.length);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

describe('matrix: the simulated wire', function () {
  this.timeout(full ? 600_000 : 60_000);
  const families = [false, true].map((six) => allCells(nicModels, six));
  const all = families.flat();
  const cells = full ? all : families.flatMap((some) => coveringCells(some, SEED));
  let dir: string;
  const judged = new Map<number, Frames>();

  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-matrix-'));
    for (const { mtu } of cells) if (!judged.has(mtu)) judged.set(mtu, new Frames(dir, mtu));
  });
  after(() => {
    for (const frames of judged.values()) frames.close();
    rmSync(dir, { recursive: true, force: true });
  });

  it('has at least 128 cells, of every model in the registry', () => {
    expect(all.length).to.be.at.least(128);
    expect(new Set(all.map(({ model }) => model)).size).to.equal(nicModels.length);
    expect(new Set(all.map(cellName)).size).to.equal(all.length);
  });

  const run = (cell: Cell): void => {
    const frames = judged.get(cell.mtu)!;
    frames.begin(cellName(cell));
    runSimCell(cell, SEED, (frame) => frames.add(frame));
  };
  for (const cell of cells) it(cellName(cell), () => run(cell));

  for (const mtu of new Set(cells.map((cell) => cell.mtu)))
    it(`tshark finds nothing wrong with any frame, MTU ${mtu}`, async function () {
      needsHere(this, 'tshark');
      const { file, count, firsts } = judged.get(mtu)!;
      const counts = await assertCleanCapture(file, { mtu }).catch((e: unknown) => {
        const cellsAt = firsts.map(({ first, cell }) => `from ${first}: ${cell}`).join('\n');
        throw new Error(`${String(e)}\n${cellsAt}`, { cause: e });
      });
      expect(counts.frames).to.equal(count);
      expect(counts.tcp).to.be.above(0);
    });
});
