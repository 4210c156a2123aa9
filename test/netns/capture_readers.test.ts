/** Every kind of capture file in the programs that people have: each reads it without a warning and counts alike. */

import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { gunzipSync } from 'node:zlib';
import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { needs } from '../support/needs.ts';
import { cliMain } from '../support/root.ts';
import { Site, withServed } from '../support/served.ts';

const SCAPY = '/usr/lib/python3/dist-packages/scapy';
const COUNT_SCRIPT = `
import sys
from scapy.all import PcapReader
for name in sys.argv[1:]: print(sum(1 for _ in PcapReader(name)))
`;
/**
 * What these programs print on stderr about every file, also of other programs. Scapy 2.5 takes a comment
 * for invalid that has no line feed; it reads the packet all the same.
 */
const USUAL =
  /^(Running as user "root".*|reading from file .*, link-type EN10MB \(Ethernet\), snapshot length \d+|WARNING: (more )?PcapNg: invalid comment option)$/;

/** Runs a program on a file; returns stdout. Throws if it fails or warns. */
function quietly(program: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  const warned = stderr.split('\n').filter((line) => line !== '' && !USUAL.test(line));
  expect({ status, warned }, `${program} ${args.join(' ')}`).to.deep.equal({
    status: 0,
    warned: [],
  });
  return stdout;
}

const capinfos = (file: string): number =>
  Number(/Number of packets: +(\d+)/.exec(quietly('capinfos', '-Mc', file))?.[1]);

describe('netns: programs that read captures', function () {
  needs(
    'root',
    'tap',
    'netns',
    'curl',
    'tcpdump',
    'tshark',
    'capinfos',
    'editcap',
    'mergecap',
    SCAPY,
  );
  this.timeout(60_000);

  it('read every format without a warning and count what we count', async () => {
    using site = new Site();
    site.file('file', 60_000);
    const files: [string, string[]][] = [
      ['all.pcapng', ['sockbuf,ip,if,ring,wire']],
      ['zip.pcapng.gz', ['if,wire']],
      ['micro.pcap', ['wire', 'tcp', '-s', '100']],
      ['nano.pcap', ['if', '--nano']],
    ];
    const captured = new Map<string, number>();
    // -nomap: conversions are in the metadata.
    await withServed(site, ['--cap', '-nomap'], async (tapnic) => {
      const { ns, control } = tapnic;
      const clients = files.map(([name, args]) => {
        const words = [cliMain, 'capture', ...args, '-w', site.path(name), '--control', control];
        const child = ns.spawn(process.execPath, words, { stdio: ['ignore', 'ignore', 'pipe'] });
        const client = { name, child, stderr: '', ended: once(child, 'close') };
        child.stderr!.on('data', (chunk: Buffer) => (client.stderr += chunk.toString()));
        return { client, begun: once(child.stderr!, 'data') };
      });
      await Promise.all(clients.map(({ begun }) => begun));
      for (const family of [4, 6] as const) {
        const got = await tapnic.curl('-o', '/dev/null', tapnic.urlOf('file', family));
        expect(got.status, got.stderr).to.equal(0);
      }
      for (const { client } of clients) {
        client.child.kill('SIGINT');
        await client.ended;
        const count = Number(/(\d+) packets captured/.exec(client.stderr)?.[1]);
        expect(count, client.stderr).to.be.above(10);
        captured.set(client.name, count);
      }
    });
    for (const [name] of files) {
      const file = site.path(name);
      const count = captured.get(name)!;
      const lines = quietly('tshark', '-n', '-r', file, '-T', 'fields', '-e', 'frame.number');
      expect(Number(lines.trimEnd().split('\n').at(-1)), `${name}: tshark`).to.equal(count);
      expect(capinfos(file), `${name}: capinfos`).to.equal(count);
      const [copy, merged, plain] = ['copy', 'merged', 'plain'].map((word) => site.path(word));
      quietly('editcap', file, copy!);
      expect(capinfos(copy!), `${name}: editcap`).to.equal(count);
      quietly('mergecap', '-w', merged!, file, file);
      expect(capinfos(merged!), `${name}: mergecap`).to.equal(2 * count);
      // tcpdump reads no compressed file.
      const bytes = readFileSync(file);
      writeFileSync(plain!, name.endsWith('.gz') ? gunzipSync(bytes) : bytes);
      const rows = quietly('tcpdump', '-tnr', plain!, '--count');
      expect(rows.trim(), `${name}: tcpdump`).to.equal(`${count} packets`);
    }
    const counts = quietly(
      '/usr/bin/python3',
      '-c',
      COUNT_SCRIPT,
      ...files.map(([n]) => site.path(n)),
    );
    expect(counts.trim().split('\n').map(Number), 'Scapy').to.deep.equal([...captured.values()]);
  });
});
