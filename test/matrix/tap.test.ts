import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { nicModel, nicModels } from '../../src/machine/nic_models.ts';
import type { Instance } from '../support/instance.ts';
import { full, needs } from '../support/needs.ts';
import { seededBytes, Site, withServed } from '../support/served.ts';
import { assertCleanCapture } from '../support/tshark.ts';
import { allCells, capWords, type Cell, cellName, coveringCells } from './cells.ts';
import { expectCounters } from './counters.ts';
import { makeWorkload, type Request, requestBytes, type Workload } from './workload.ts';

const SEED = Number(process.env['MATRIX_SEED'] ?? 4);
const CELLS_FULL = 16;
/** Cells at CI size: few, because mainly builds and modes behave differently on a TAP. */
const CELLS_CI = 4;
const CELLS6_CI = 2;

/** The options that start `cell`. */
function optionsOf(cell: Cell): string[] {
  const { model, build, mode, mtu, extPgs } = cell;
  const caps = capWords(cell, nicModel(model)!);
  const list = caps.length === 0 ? [] : [`--cap=${caps.join(',')}`];
  const sysctl = ['--sysctl', `kern.ipc.mb_use_ext_pgs=${extPgs ? 1 : 0}`];
  // Half of memory lies above 4 GiB: some devices reach it, others need bounce pages.
  const memory = ['--memory', '64M', '--phys-base', String(2 ** 32 - (32 << 20))];
  return [
    '--nic',
    model,
    '--engine',
    build,
    '--mode',
    mode,
    '--mtu',
    `${mtu}`,
    ...list,
    ...sysctl,
  ].concat(memory);
}

/** The first `n` cells, ordered so that each combination of model, build and mode comes first. */
function byVariety(cells: readonly Cell[], n: number): Cell[] {
  const kind = ({ model, build, mode }: Cell): string => `${model} ${build} ${mode}`;
  const firsts = cells.filter((cell, i) => cells.findIndex((c) => kind(c) === kind(cell)) === i);
  const rest = cells.filter((cell) => !firsts.includes(cell));
  return [...firsts, ...rest].slice(0, n);
}

/** Fetches the files and ranges of `requests` on one connection; returns the bodies. */
async function fetchAll(
  tapnic: Instance,
  site: Site,
  load: Workload,
  requests: readonly Request[],
  tag: string,
  family: 4 | 6,
): Promise<Buffer[]> {
  const args: string[] = [];
  const outs = requests.map((request, i) => {
    const out = site.path(`out-${tag}-${i}`);
    const last = request.offset + requestBytes(load, request) - 1;
    const range =
      request.offset === 0 && request.nbytes === 0 ? [] : ['-r', `${request.offset}-${last}`];
    const url = tapnic.urlOf(`f${request.file}`, family);
    args.push(...(i === 0 ? [] : ['--next', '-sSf']), ...range, '-o', out, url);
    return out;
  });
  const { status, stderr } = await tapnic.curl('-f', ...args);
  expect(status, stderr).to.equal(0);
  return outs.map((out) => readFileSync(out));
}

/** A client that aborts in the middle of a file. */
async function abortOne(tapnic: Instance, { aborted }: Workload, family: 4 | 6): Promise<void> {
  const url = tapnic.urlOf(`f${aborted.file}`, family);
  const script = `curl -sS -N --max-time 20 -g '${url}' | head -c ${aborted.after} | wc -c`;
  const { stdout } = await tapnic.ns.run('sh', ['-c', script]);
  expect(Number(stdout)).to.equal(aborted.after);
}

async function runCell(cell: Cell): Promise<void> {
  using site = new Site();
  const { mtu, mode } = cell;
  const family = cell.six ? 6 : 4;
  const load = makeWorkload(new SeededPrng(SEED), cell, 2);
  const files = load.sizes.map((size, i) => seededBytes(size, i + 1));
  load.sizes.forEach((size, i) => site.file(`f${i}`, size, i + 1));
  const capture = site.path('wire.pcap');
  const options = optionsOf(cell);
  // In mode vnet Linux segments the frames, so a capture has frames longer than the MTU.
  const captures = mode === 'wire' ? ['--capture', `wire=${capture}`] : [];
  await withServed(site, [...options, ...captures], async (tapnic) => {
    const bodies = load.conns.map(async (requests, c) => {
      const got = await fetchAll(tapnic, site, load, requests, String(c), family);
      let bytes = 0;
      requests.forEach((request, i) => {
        const n = requestBytes(load, request);
        const want = files[request.file]!.subarray(request.offset, request.offset + n);
        expect(Buffer.compare(got[i]!, want), `file ${request.file}`).to.equal(0);
        bytes += n;
      });
      return bytes;
    });
    const sent = await Promise.all(bodies);
    await abortOne(tapnic, load, family);
    const m = await tapnic.json<NetstatM>('netstat', '-m');
    expectCounters(
      m,
      cell,
      sent.reduce((sum, n) => sum + n, 0),
    );
  });
  if (mode === 'wire') await assertCleanCapture(capture, { mtu });
}

describe('matrix: the TAP', function () {
  needs('root', 'tap', 'netns', 'curl', 'tshark');
  this.timeout(60_000);
  const cells = [false, true].flatMap((six) => {
    const all = allCells(nicModels, six);
    const covering = coveringCells(all, SEED + 1);
    const rest = all.filter((cell) => !covering.includes(cell));
    const atCi = six ? CELLS6_CI : CELLS_CI;
    const n = full ? Math.max(CELLS_FULL, covering.length) : atCi;
    return byVariety([...covering, ...rest], n);
  });

  for (const cell of cells) it(cellName(cell), () => runCell(cell));
});
