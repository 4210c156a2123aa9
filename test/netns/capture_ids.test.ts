/** Packet ids in captures of every NIC model, as tshark reads them: through all points, and of faults. */

import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { expect } from 'chai';
import type { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { packageRoot } from '../support/root.ts';
import { Site, withServed } from '../support/served.ts';
import { tsharkFields } from '../support/tshark.ts';

const POINTS = 'sockbuf,ip,if,ring,wire';

/** Downloads a file over IPv4 and IPv6 with a capture of all points; returns its name. */
async function download(
  site: Site,
  args: string[],
  before: (tapnic: Instance) => Promise<void> = () => Promise.resolve(),
): Promise<string> {
  site.file('file', 10_000);
  const file = site.path('all.pcapng');
  await withServed(site, [...args, '--capture', `${POINTS}=${file}`], async (tapnic) => {
    await before(tapnic);
    for (const url of [tapnic.url, 'http://[2001:db8::2]/']) {
      const { status } = await tapnic.curl('-o', site.path('out'), `${url}file`);
      expect(status, url).to.equal(0);
    }
  });
  return file;
}

/** Fields of every record and event, with our dissector. */
function dissected(file: string, fields: string[]): string[][] {
  const args = [
    '-n',
    '-X',
    `lua_script:${join(packageRoot(), 'wireshark/tapnic.lua')}`,
    '-r',
    file,
  ];
  const wanted = fields.flatMap((field) => ['-e', field]);
  const out = execFileSync('tshark', [...args, '-T', 'fields', ...wanted], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    maxBuffer: 64 << 20,
  });
  return out
    .trimEnd()
    .split('\n')
    .map((line) => line.split('\t'));
}

describe('netns: packet ids of captures', function () {
  needs('root', 'tap', 'netns', 'tshark', 'curl');
  this.timeout(120_000);

  for (const nic of ['tb', 'tp'])
    it(`${nic}: a packet has one id at all points, and tcp.stream groups those of a connection`, async () => {
      using site = new Site();
      const file = await download(site, ['--nic', nic]);
      const rows = await tsharkFields(
        file,
        ['frame.interface_name', 'tcp.stream', 'tcp.len', 'frame.comment'],
        'tcp',
      );
      const points = new Map<string, Set<string>>();
      const sent = new Set<string>();
      for (const [name, stream, len, comment] of rows) {
        expect(['0', '1'], `${name}: stream`).to.include(stream);
        const id = /^id=(\d+)/.exec(comment!)![1]!;
        expect(id, comment).not.to.equal('0');
        if (!points.has(id)) points.set(id, new Set());
        points.get(id)!.add(name!.split('@')[1]!);
        if (comment!.includes('dir=out') && len !== '0') sent.add(id);
      }
      expect(sent.size).to.be.least(14);
      for (const id of sent) expect([...points.get(id)!], id).to.have.members(POINTS.split(','));
      // Received segments: at the ends of a connection, at all points but the socket buffer.
      for (const [id, at] of points)
        if (!sent.has(id)) expect(at, id).to.include.all.keys('ip', 'if', 'ring', 'wire');
      const streams = new Set(rows.map(([name, stream]) => `${name!.split('@')[1]} ${stream}`));
      for (const point of POINTS.split(','))
        for (const n of [0, 1])
          expect(streams.has(`${point} ${n}`), `${point} ${n}`).to.equal(true);
    });

  for (const engine of ['ts', 'native'])
    it(`${engine}: a fault is an event with the id and the bytes of its frame`, async () => {
      using site = new Site();
      const file = await download(site, ['--engine', engine], async (tapnic) => {
        for (const point of ['rx', 'tx']) {
          const args = ['add', 'delay', '--delay', '1', '--rate', '0.5', '--point', point];
          const { status, stderr } = await tapnic.command('fault', ...args);
          expect(status, stderr).to.equal(0);
        }
      });
      const fields = ['tapnic.event', 'tapnic.id', 'tapnic.point', 'tapnic.dir', 'frame.len'];
      const rows = dissected(file, [...fields, 'tapnic.why']);
      const wire = new Map<string, string[]>();
      for (const [event, id, point, dir, len] of rows)
        if (event === '' && point === 'wire')
          wire.set(`${id} ${dir}`, [...(wire.get(`${id} ${dir}`) ?? []), len!]);
      const faults = rows.filter(
        ([event, , , , , why]) => event !== '' && why!.startsWith('fault'),
      );
      expect(faults.length).to.be.least(5);
      expect(new Set(faults.map(([, , , dir]) => dir)).size, 'directions').to.equal(2);
      for (const [, id, , dir, , why] of faults) {
        const bytes = / (\d+)$/.exec(why!)![1]!;
        expect(wire.get(`${id} ${dir}`), `${id} ${dir} ${why}`).to.include(bytes);
      }
    });
});
