import { execFileSync } from 'node:child_process';
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { PcapngWriter } from '../../src/pcap/pcapng.ts';
import { decodeMeta, metaText } from '../../src/pcap/meta.ts';
import { CaptureFormatError, type FileItem, readCapture } from '../../src/pcap/read.ts';
import { CAPTURE_IN, CAPTURE_OUT } from '../../src/sys/capture.ts';
import { buildEther, buildIcmp, buildIp4 } from '../support/frames.ts';
import { needs } from '../support/needs.ts';
import { tsharkFields } from '../support/tshark.ts';

const e = { dst: '02:00:00:00:00:02', src: '02:00:00:00:00:01' };
const ip = { src: '192.0.2.1', dst: '192.0.2.2' };
const frame = buildEther(
  e,
  0x800,
  buildIp4(ip, 1, buildIcmp({ type: 8, id: 1, seq: 2, payload: 'ping' })),
);

/** An item: type, value, padding. */
function item(type: number, value: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16LE(type, 0);
  head.writeUInt16LE(value.length, 2);
  return Buffer.concat([head, value, Buffer.alloc(-value.length & 3)]);
}

/** A list of little-endian numbers: [bytes, value]. */
function numbers(...list: readonly (readonly [1 | 2 | 4, number])[]): Buffer {
  return Buffer.concat(
    list.map(([size, value]) => {
      const b = Buffer.alloc(size);
      b.writeUIntLE(value, 0, size);
      return b;
    }),
  );
}

function page(address: bigint): Buffer {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(address);
  return b;
}

const packetItem = item(1, numbers([4, 17], [1, 3], [1, 1], [2, 0], [2, 1], [2, 0]));
const chainItem = item(
  2,
  Buffer.concat([
    numbers([2, 2], [2, 0]),
    numbers([1, 0], [1, 1], [2, 1], [4, 54], [4, 80], [2, 0], [2, 0], [2, 0], [2, 0]),
    numbers([1, 2], [1, 14], [2, 3], [4, 8000], [4, 96], [2, 5], [2, 0], [2, 2], [2, 0]),
    page(0x1_0000_0000n),
    page(0x3000n),
  ]),
);
const descsItem = item(
  3,
  Buffer.concat([numbers([2, 0], [2, 12], [2, 2], [2, 4]), Buffer.from('00ff00aa01020304', 'hex')]),
);
const linkItem = item(4, numbers([2, 1], [2, 2], [4, 16]));
const whyItem = item(5, numbers([2, 1], [2, 7], [4, 8000]));
const meta = Buffer.concat([packetItem, chainItem, descsItem, linkItem, whyItem]);
const COMMENT =
  'id=17; point=ring; dir=out; csum=nic; chain=[int,pkthdr 54 off=80 refs=1 | nomap,ext,nomap,rdonly 8000 ' +
  'off=96 refs=3 hdr=5 pages=0x100000000,0x3000]; descs=ring 0 slot 12: 00ff00aa,01020304; ' +
  'link=tso of 16 n=2; why=conversion mbuf.convert_no_ifcap_nomap 8000';

describe('pcapng files', () => {
  needs('tshark');
  let dir: string;
  let chunks: Uint8Array[];
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-pcapng-'));
    chunks = [];
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  const sink = {
    write: (b: Uint8Array, off: number, len: number): void =>
      void chunks.push(b.slice(off, off + len)),
  };
  const reasonName = (n: number): string => (n === 7 ? 'mbuf.convert_no_ifcap_nomap' : '?');
  const view = new DataView(meta.buffer, meta.byteOffset, meta.length);

  /** Two packets of two points. */
  const write = (): string => {
    const section = { hardware: 'x86_64', os: 'Linux', application: 'tapnic', comment: 'a test' };
    const writer = new PcapngWriter(sink, section, reasonName);
    writer.addInterface({
      name: 'tn0@ring',
      description: 'descriptor ring',
      snaplen: 262144,
      mac: Uint8Array.of(2, 0, 0, 0, 0, 1),
      speed: 10_000_000_000n,
      filter: 'icmp',
      os: 'tapnic',
      hardware: 'tn',
    });
    writer.addInterface({ name: 'tn0@wire', snaplen: 20 });
    const n = frame.length;
    writer.packet(
      0,
      1767225600,
      123_456_789,
      CAPTURE_OUT,
      17,
      0,
      0,
      frame,
      0,
      n,
      n,
      view,
      0,
      meta.length,
    );
    writer.packet(1, 1767225601, 5, CAPTURE_IN, 18, 3, 4, frame, 0, n, n, view, 0, 0);
    const start = 1767225600000000000n;
    writer.statistics(0, {
      start,
      end: start + 2_000_000_000n,
      received: 1n,
      accepted: 1n,
      delivered: 1n,
      ringDrops: 0n,
      slowDrops: 2n,
      counters: 'conversions=1',
    });
    const file = join(dir, 'out.pcapng');
    writeFileSync(file, Buffer.concat(chunks));
    return file;
  };

  it('are read by tshark, with all fields of a packet', async () => {
    const rows = await tsharkFields(write(), [
      'frame.time_epoch',
      'frame.interface_name',
      'frame.interface_queue',
      'frame.packet_id',
      'frame.packet_flags_direction',
      'frame.cap_len',
      'frame.len',
      'frame.comment',
    ]);
    const { length } = frame;
    expect(rows).to.deep.equal([
      [
        '1767225600.123456789',
        'tn0@ring',
        '0',
        '17',
        '0x00000002',
        `${length}`,
        `${length}`,
        COMMENT,
      ],
      ['1767225601.000000005', 'tn0@wire', '3', '18', '0x00000001', '20', `${length}`, ''],
    ]);
  });

  it('are read by capinfos, with the interfaces and their statistics', () => {
    const text = execFileSync('capinfos', [write()], { encoding: 'utf8' });
    for (const line of [
      /Number of packets: +2$/m,
      /Capture hardware: +x86_64$/m,
      /Capture oper-sys: +Linux$/m,
      /Capture application: +tapnic$/m,
      /Capture comment: +a test$/m,
      /Name = tn0@ring$/m,
      /Description = descriptor ring$/m,
      /Filter string = icmp$/m,
      /Speed = 10000000000$/m,
      /Time ticks per second = 1000000000$/m,
      /Number of stat entries = 1$/m,
    ])
      expect(text).to.match(line);
  });

  it('are read back with their metadata', async () => {
    const items: FileItem[] = [];
    for await (const i of readCapture(createReadStream(write(), { highWaterMark: 7 })))
      items.push(i);
    expect(items.map(({ kind }) => kind)).to.deep.equal([
      'interface',
      'interface',
      'packet',
      'packet',
      'statistics',
    ]);
    const packet = items[2]!;
    if (packet.kind !== 'packet') throw new Error('not a packet');
    expect(packet.time).to.equal(1767225600123456789n);
    expect(Buffer.from(packet.bytes).equals(frame)).to.equal(true);
    const decoded = decodeMeta(packet.meta!);
    expect(decoded).to.include({ id: 17, point: 'ring', direction: 'out', csum: 'nic' });
    expect(decoded.chain[1]).to.deep.equal({
      kind: 'nomap',
      flags: ['ext', 'nomap', 'rdonly'],
      refs: 3,
      len: 8000,
      off: 96,
      hdr: 5,
      trail: 0,
      pages: [0x1_0000_0000n, 0x3000n],
    });
    expect(decoded.links).to.deep.equal([{ kind: 'tso', index: 2, ids: [16] }]);
    expect(decoded.why).to.deep.equal([
      { what: 'conversion', reason: 'mbuf.convert_no_ifcap_nomap', bytes: 8000 },
    ]);
    expect(metaText(packet.meta!)).to.equal(COMMENT);
  });

  it('report the offset and the fault of a file that was cut anywhere', async () => {
    write();
    const file = Buffer.concat(chunks);
    const ends = new Set<number>();
    for (let at = 0; at < file.length; at += 4 * Math.ceil(file.readUInt32LE(at + 4) / 4))
      ends.add(at);
    for (let n = 0; n < file.length; n++) {
      let error: unknown = null;
      try {
        const part = file.subarray(0, n);
        for await (const i of readCapture(
          (async function* () {
            yield part;
          })(),
        ))
          void i;
      } catch (thrown) {
        error = thrown;
      }
      if (ends.has(n) && n > 0) expect(error, `${n}`).to.equal(null);
      else expect(error, `${n}`).to.be.instanceOf(CaptureFormatError);
    }
  });
});
