/** The cells of the matrix: every combination that the models in the registry allow. */

import type { NicBuild, NicMode, NicModelInfo } from '../../src/machine/nic_model.ts';
import { below, SeededPrng } from '../../src/host/prng.ts';

export interface Cell {
  readonly model: string;
  readonly build: NicBuild;
  readonly mode: NicMode;
  readonly mtu: number;
  readonly nomap: boolean;
  readonly txcsum: boolean;
  readonly tso: boolean;
  readonly extPgs: boolean;
  /** The packets are IPv6; `txcsum` and `tso` then mean TXCSUM_IPV6 and TSO6. */
  readonly six: boolean;
}

/** 1280 is the least of IPv6: RFC 8200, 5. */
const mtusOf = (six: boolean): number[] => [six ? 1280 : 576, 1500, 9000];
const NOMAP = 'nomap';
const txcsumOf = (six: boolean): string => (six ? 'txcsum6' : 'txcsum');
const tsoOf = (six: boolean): string => (six ? 'tso6' : 'tso4');

/** Values that a capability can have: only off if the model lacks it. */
function choices({ capabilities }: NicModelInfo, name: string): boolean[] {
  return capabilities.includes(name) ? [true, false] : [false];
}

/** Every cell of `models` with one address family. TSO needs TXCSUM. */
export function allCells(models: readonly NicModelInfo[], six = false): Cell[] {
  const cells: Cell[] = [];
  for (const model of models)
    for (const build of model.builds)
      for (const mode of model.modes)
        for (const mtu of mtusOf(six).filter((n) => n <= model.mtuMax))
          for (const nomap of choices(model, NOMAP))
            for (const txcsum of choices(model, txcsumOf(six)))
              for (const tso of txcsum ? choices(model, tsoOf(six)) : [false])
                for (const extPgs of [true, false])
                  cells.push({
                    model: model.name,
                    build,
                    mode,
                    mtu,
                    nomap,
                    txcsum,
                    tso,
                    extPgs,
                    six,
                  });
  return cells;
}

/** `-name` for each capability of the model that `cell` turns off. */
export function capWords(cell: Cell, { capabilities }: NicModelInfo): string[] {
  const on: [string, boolean][] = [
    [NOMAP, cell.nomap],
    [txcsumOf(cell.six), cell.txcsum],
    [tsoOf(cell.six), cell.tso],
  ];
  return on.filter(([name, is]) => !is && capabilities.includes(name)).map(([name]) => `-${name}`);
}

export function cellName(cell: Cell): string {
  const { model, build, mode, mtu } = cell;
  const flags = (['nomap', 'txcsum', 'tso', 'extPgs', 'six'] as const).filter((name) => cell[name]);
  return [model, build, mode, mtu, ...flags].join(' ');
}

/** The pairs of values in a cell, as strings. */
function pairsOf(cell: Cell): string[] {
  // Each model has its own builds, so model and build are one value.
  const { model, build, ...rest } = cell;
  const values = Object.entries({ device: `${model} ${build}`, ...rest }).map(
    ([name, value]) => `${name}=${value}`,
  );
  return values.flatMap((a, i) => values.slice(i + 1).map((b) => `${a} ${b}`));
}

/**
 * Chooses cells that together contain every pair of values in `cells`. The choice depends on
 * `seed`.
 */
export function coveringCells(cells: readonly Cell[], seed: number): Cell[] {
  const prng = new SeededPrng(seed);
  const left = new Set(cells.flatMap(pairsOf));
  const chosen: Cell[] = [];
  while (left.size > 0) {
    let best: Cell[] = [];
    let most = 0;
    for (const cell of cells) {
      const n = pairsOf(cell).filter((pair) => left.has(pair)).length;
      if (n > most) best = [];
      most = Math.max(most, n);
      if (n === most) best.push(cell);
    }
    const cell = best[below(prng, best.length)]!;
    chosen.push(cell);
    for (const pair of pairsOf(cell)) left.delete(pair);
  }
  return chosen;
}
