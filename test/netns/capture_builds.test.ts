/** The points `ring` and `wire` of both builds of `tn`, as tshark reads them. */

import { expect } from 'chai';
import type { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Site, withServed } from '../support/served.ts';
import { tsharkFields } from '../support/tshark.ts';

const BYTES = 10_000;
const FIELDS = ['frame.interface_name', 'frame.len', 'tcp.flags', 'frame.comment'];
/**
 * Segments of the second connection with data or options of a SYN: when a pure acknowledgement is sent
 * depends on time.
 */
const FILTER = 'frame.len > 66 && (tcp.stream == 1 || frame.interface_name contains "sockbuf")';

/** Replaces ids by their order of appearance, and leaves out addresses and slots. */
function plain(rows: string[][]): string[] {
  const ids = new Map<string, number>();
  const number = (id: string): string => {
    if (!ids.has(id)) ids.set(id, ids.size + 1);
    return `#${ids.get(id)}`;
  };
  return rows.map(([iface, len, flags, comment]) => {
    const text = comment!
      .replace(/id=(\d+)/, (_all, id: string) => `id=${number(id)}`)
      .replace(/link=tso of (\d+)/, (_all, id: string) => `link=tso of ${number(id)}`)
      .replace(/slot \d+: ([0-9a-f,]+)/, (_all, descs: string) => `${descs.split(',').length}`)
      .replaceAll(/pages=[0-9a-fx,]+/g, 'pages');
    return `${iface} ${len} ${flags} ${text}`;
  });
}

describe('netns: captures of both builds of tn', function () {
  needs('root', 'tap', 'netns', 'tshark', 'curl');
  this.timeout(120_000);

  async function download(engine: string): Promise<string[]> {
    using site = new Site();
    site.file('file', BYTES);
    const file = site.path(`${engine}.pcapng`);
    // Without IPv6 and coalescing every received frame is one packet of the connection.
    const args = ['--engine', engine, '--addr6', 'none', '--cap=-lro'];
    const capture = ['--capture', `sockbuf,ip,if,ring,wire=${file}`];
    await withServed(site, [...args, ...capture], async (tapnic: Instance) => {
      // The first download brings the pages of the file into memory.
      for (let i = 0; i < 2; i++) {
        const { status } = await tapnic.curl('-o', site.path('out'), `${tapnic.url}file`);
        expect(status).to.equal(0);
      }
    });
    const rows = await tsharkFields(file, FIELDS, FILTER);
    // The headers at `sockbuf` are not complete: there the socket's number tells the connections apart.
    const socket = (row: string[]): number => Number(/socket=(\d+)/.exec(row.at(-1)!)?.[1] ?? 0);
    const second = Math.max(...rows.map(socket));
    return plain(rows.filter((row) => socket(row) === 0 || socket(row) === second));
  }

  it('have the same packets, ids, links and checksum states', async () => {
    const ts = await download('ts');
    const native = await download('native');
    expect(native).to.deep.equal(ts);
    const of = (text: string): string[] => ts.filter((row) => row.includes(text));
    const ring = of('@ring').filter((row) => row.includes('dir=out') && row.includes('csum=nic'));
    expect(ring.length, 'packets at the ring').to.be.least(2);
    // The response: one packet in the socket buffer, at the interface and in the ring.
    const id = /id=(#\d+)/.exec(of('@sockbuf').find((row) => row.includes('dir=out'))!)![1]!;
    for (const point of ['sockbuf', 'ip', 'if', 'ring'])
      expect(of(`@${point} `).filter((row) => row.includes(`id=${id};`)).length, point).to.equal(1);
    const children = of('@wire ').filter((row) => row.includes(`link=tso of ${id} `));
    expect(children.map((row) => Number(/n=(\d+)/.exec(row)![1]))).to.deep.equal([
      0, 1, 2, 3, 4, 5, 6, 7,
    ]);
    // The request: received frames have an id at every point.
    const request = of('@sockbuf').find((row) => row.includes('dir=in'))!;
    const rx = /id=(#\d+)/.exec(request)![1]!;
    for (const point of ['sockbuf', 'ip', 'if', 'ring', 'wire'])
      expect(of(`@${point} `).filter((row) => row.includes(`id=${rx};`)).length, point).to.equal(1);
    expect(of('@wire ').find((row) => row.includes(`id=${rx};`))).to.include('csum=verified');
  });
});
