/** Texts of frames are those of the real tcpdump. */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { PcapWriter } from '../../src/pcap/pcap.ts';
import { decodeFrame } from '../../src/testing/decode.ts';
import { frameText } from '../../src/testing/frame_text.ts';
import { expectCapture, framesOf, withLink } from '../../src/testing/kit.ts';
import {
  buildArp,
  buildEther,
  buildIcmp,
  buildIp4,
  buildTcp,
  buildUdp,
} from '../support/frames.ts';
import { needs } from '../support/needs.ts';
import { runs } from '../support/property.ts';

const A = { src: '192.0.2.1', dst: '192.0.2.2' };
const ETHER = { src: '02:00:00:00:00:01', dst: '02:00:00:00:00:02' };
const PORTS = { sport: 40_000, dport: 4001 };
const FLAGS = ['S', 'S.', '.', 'P.', 'F.', 'R', 'R.', 'FP.', 'SEW', '.E', '.U'];

describe('testing: texts of frames', () => {
  needs('tcpdump');
  const dir = mkdtempSync(join(tmpdir(), 'tapnic-text-'));
  after(() => rmSync(dir, { recursive: true }));

  function tcpdump(file: string): string[] {
    const args = ['-n', '-t', '-S', '-r', file];
    const text = execFileSync('tcpdump', args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return text.trimEnd().split('\n');
  }

  function dumped(frames: readonly Uint8Array[]): string[] {
    const parts: Uint8Array[] = [];
    const write = (b: Uint8Array, off: number, n: number) => void parts.push(b.slice(off, off + n));
    const writer = new PcapWriter({ write }, { snaplen: 65_535 });
    for (const bytes of frames) writer.packet(0, 0, bytes, 0, bytes.length, bytes.length);
    const file = join(dir, 'frames.pcap');
    writeFileSync(file, Buffer.concat(parts));
    return tcpdump(file);
  }

  function check(frames: readonly Uint8Array[]): void {
    expect(frames.map((bytes) => frameText(decodeFrame(bytes, 'out', 0)))).to.deep.equal(
      dumped(frames),
    );
  }

  it('are those of tcpdump for TCP', () => {
    const segments = FLAGS.flatMap((flags, i) => [
      { flags, seq: 4_294_967_290 + i, ack: 7, win: i, payload: 'abcdefghij' },
      { flags, seq: i, ack: 7, urp: 3 },
    ]);
    const options = [
      { mss: 1460, sackOk: true, ts: { val: 5, ecr: 6 }, wscale: 7 },
      {
        sack: [
          [10, 20],
          [30, 40],
        ] as [number, number][],
      },
      { options: [34, 6, 1, 2, 3, 4, 1, 0] },
      { options: [34, 2, 1, 1] },
      { options: [99, 4, 1, 2] },
    ];
    const all = [...segments, ...options.map((o) => ({ ...o, ack: 1 }))];
    check(all.map((fields) => buildEther(ETHER, 0x0800, buildTcp(A, { ...PORTS, ...fields }))));
  });

  it('are those of tcpdump for UDP, ICMP and ARP', () => {
    const packets = [
      buildUdp(A, { ...PORTS, payload: 'abc' }),
      buildUdp(A, PORTS),
      buildIp4(A, 1, buildIcmp({ type: 8, id: 3, seq: 4, payload: 'abc' })),
      buildIp4(A, 1, buildIcmp({ type: 0, id: 3, seq: 4 })),
    ];
    const arp = { sha: ETHER.src, spa: A.src, tha: '00:00:00:00:00:00', tpa: A.dst };
    check([
      ...packets.map((packet) => buildEther(ETHER, 0x0800, packet)),
      buildArp(ETHER, { op: 1, ...arp }),
      buildArp(ETHER, { op: 2, ...arp }),
    ]);
  });

  it(
    'are those of tcpdump for a conversation of IPv6 on a link',
    withLink(async ({ client, server, link }) => {
      server.createServer((socket) => socket.end('hello')).listen(4001);
      const socket = await client.connect(4001, '2001:db8::2');
      socket.resume();
      await link.settle();
      const file = join(dir, 'link.pcap');
      await expectCapture(client, file, { update: true, ignore: 'none' });
      const lines = tcpdump(file);
      const ours = framesOf(client).map(({ bytes }) => frameText(decodeFrame(bytes, 'out', 0)));
      expect(ours).to.deep.equal(lines);
      expect(lines.join('\n')).to.include('neighbor solicitation').and.include('Flags [S]');
    }),
  );

  it('accept any bytes', () => {
    const types = fc.constantFrom([8, 0], [0x86, 0xdd], [8, 6], [0x81, 0], [1, 2]);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 90 }), types, (bytes, type) => {
        if (bytes.length >= 14) bytes.set(type, 12);
        expect(frameText(decodeFrame(bytes, 'in', 0))).to.be.a('string');
      }),
      runs(2000),
    );
  });
});
