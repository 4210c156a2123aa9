import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { PcapWriter, type PcapOptions } from '../../src/pcap/pcap.ts';
import { buildEther, buildIcmp, buildIp4, buildTcp } from '../support/frames.ts';
import { needs } from '../support/needs.ts';
import { readPcap } from '../support/pcap.ts';
import { tsharkFields } from '../support/tshark.ts';

const e = { dst: '02:00:00:00:00:02', src: '02:00:00:00:00:01' };
const ip = { src: '192.0.2.1', dst: '192.0.2.2' };
const frames = [
  buildEther(e, 0x800, buildIp4(ip, 1, buildIcmp({ type: 8, id: 1, seq: 2, payload: 'ping' }))),
  buildEther(
    e,
    0x800,
    buildTcp(ip, {
      sport: 1234,
      dport: 80,
      flags: 'S',
      seq: 9,
      mss: 1460,
      wscale: 6,
      sackOk: true,
      ts: { val: 1, ecr: 0 },
    }),
  ),
  buildEther(
    e,
    0x800,
    buildTcp(ip, {
      sport: 1234,
      dport: 80,
      flags: 'P.',
      seq: 10,
      ack: 77,
      payload: 'x'.repeat(1000),
    }),
  ),
];

describe('pcap files', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-pcap-'))));
  afterEach(() => rmSync(dir, { recursive: true }));

  const write = (options: Partial<PcapOptions> = {}): string => {
    const chunks: Uint8Array[] = [];
    const sink = {
      write: (b: Uint8Array, off: number, len: number): void =>
        void chunks.push(b.slice(off, off + len)),
    };
    const pcap = new PcapWriter(sink, { snaplen: 262144, ...options });
    for (const [i, frame] of frames.entries()) {
      // The frame lies at offset 100 of a larger memory.
      const memory = new Uint8Array(frame.length + 200).fill(0xee);
      memory.set(frame, 100);
      pcap.packet(1767225600 + i, 123_456_789, memory, 100, frame.length, frame.length);
    }
    const file = join(dir, 'out.pcap');
    writeFileSync(file, Buffer.concat(chunks));
    return file;
  };

  it('are read by pcap-parser, with microseconds', async () => {
    const { header, packets } = await readPcap(write());
    expect(header).to.include({
      magicNumber: 0xa1b2c3d4,
      majorVersion: 2,
      minorVersion: 4,
      snapshotLength: 262144,
      linkLayerType: 1,
    });
    expect(packets.map((p) => p.header)).to.deep.equal(
      frames.map((f, i) => ({
        timestampSeconds: 1767225600 + i,
        timestampMicroseconds: 123456,
        capturedLength: f.length,
        originalLength: f.length,
      })),
    );
    for (const [i, p] of packets.entries())
      expect(Buffer.from(frames[i]!).equals(p.data)).to.equal(true);
  });

  it('hold no more than the snap length of each packet', async () => {
    const { packets } = await readPcap(write({ snaplen: 60 }));
    expect(packets.map((p) => [p.data.length, p.header.originalLength])).to.deep.equal(
      frames.map((f) => [Math.min(f.length, 60), f.length]),
    );
  });

  describe('in Wireshark', function () {
    // Each start of tshark takes seconds on a loaded machine.
    this.timeout(120_000);
    needs('tshark', 'capinfos');

    it('are decoded by tshark, with microseconds and nanoseconds', async () => {
      const fields = [
        'frame.time_epoch',
        'frame.len',
        'tcp.options.mss_val',
        'tcp.options.wscale.shift',
        'tcp.checksum.status',
        'ip.checksum.status',
        'icmp.checksum.status',
        '_ws.malformed',
      ];
      for (const [nanoseconds, digits] of [
        [false, '123456000'],
        [true, '123456789'],
      ] as const) {
        const rows = await tsharkFields(write({ nanoseconds }), fields);
        expect(rows).to.deep.equal([
          [`1767225600.${digits}`, '46', '', '', '', '1', '1', ''],
          [`1767225601.${digits}`, '74', '1460', '6', '1', '1', '', ''],
          [`1767225602.${digits}`, '1054', '', '', '1', '1', '', ''],
        ]);
      }
    });

    it('are accepted by capinfos', () => {
      const out = execFileSync('capinfos', ['-M', '-t', '-E', '-c', write()], { encoding: 'utf8' });
      expect(out).to.match(/Number of packets:\s+3/);
      expect(out).to.match(/File type:\s+pcap\n/);
      expect(out).to.match(/encapsulation:\s+ether/);
    });
  });
});
