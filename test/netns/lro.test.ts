/**
 * Receive coalescing end to end: Linux sends segments, and the emulated host gets fewer, longer
 * ones.
 */

import { once } from 'node:events';
import { expect } from 'chai';
import { needs } from '../support/needs.ts';
import { Netns, type Result } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { sha256, sha256File, Site } from '../support/served.ts';
import { tsharkFields } from '../support/tshark.ts';

const BYTES = 5_000_000;
const MSS = 1448;

const SERVER = `
const { readFileSync } = require('node:fs');
const body = readFileSync(process.argv[1]);
require('node:http').createServer((req, res) => res.end(body))
  .listen(8080, '0.0.0.0', () => console.log('listening'));
`;

describe('netns: receive coalescing', function () {
  needs('root', 'tap', 'netns', 'tshark');
  this.timeout(60_000);

  let site: Site;
  let ns: Netns;
  let sum: string;
  before(async () => {
    site = new Site();
    ns = new Netns();
    sum = sha256(site.file('big.bin', BYTES));
    const server = ns.spawn(process.execPath, ['-e', SERVER, site.path('big.bin')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(server.stdout!, 'data');
  });
  after(() => {
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
  });

  /** Fetches the file; returns the TCP payload lengths on the wire and at the interface. */
  async function fetch(...args: string[]): Promise<{ wire: number[]; up: number[] }> {
    const file = site.path('out.bin');
    const pcaps = ['wire', 'if'].map((point) => [point, site.path(`${point}.pcap`)] as const);
    const run: Result = await ns.run(process.execPath, [
      cliMain,
      'fetch',
      'http://192.0.2.1:8080/',
      '-o',
      file,
      '--control',
      site.path('c.sock'),
      ...pcaps.flatMap(([point, path]) => ['--capture', `${point}=${path}`]),
      ...args,
    ]);
    expect(run.status, run.stderr).to.equal(0);
    expect(await sha256File(file)).to.equal(sum);
    const [wire, up] = await Promise.all(
      pcaps.map(async ([, path]) => {
        const fields = [
          'tcp.len',
          'tcp.checksum.status',
          'ip.checksum.status',
          'tcp.analysis.flags',
        ];
        const rows = await tsharkFields(path, fields, 'ip.src == 192.0.2.1 && tcp.len > 0');
        const odd = rows.filter(([, tcp, ip]) => tcp !== '1' || ip !== '1');
        expect(odd, 'wrong checksums').to.deep.equal([]);
        return rows.map(([len]) => Number(len));
      }),
    );
    return { wire: wire!, up: up! };
  }
  const total = (lens: number[]): number => lens.reduce((a, b) => a + b, 0);

  for (const engine of ['native', 'ts'])
    it(`5 MB arrive intact, in fewer and longer frames, with right checksums: ${engine}`, async () => {
      const { wire, up } = await fetch('--engine', engine);
      expect(Math.max(...wire)).to.equal(MSS);
      expect(total(wire)).to.be.least(BYTES);
      expect(total(up)).to.equal(total(wire));
      expect(Math.max(...up)).to.be.greaterThan(4 * MSS);
      expect(up.length).to.be.lessThan(wire.length / 2);
    });

  it('--cap=-lro turns coalescing off', async () => {
    const { wire, up } = await fetch('--cap=-lro');
    expect(Math.max(...up)).to.equal(MSS);
    expect(up).to.deep.equal(wire);
  });
});
