/** Tests of the capture checks: each check must reject a bad capture. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { needs } from './needs.ts';
import { readPcap } from './pcap.ts';
import { assertCleanCapture, capinfosFrames, tcpdumpLines, tsharkFields } from './tshark.ts';

/** RFC 1071, over big-endian words. */
function checksum(...parts: Buffer[]): number {
  const bytes = Buffer.concat([...parts, Buffer.alloc(1)]);
  let sum = 0;
  for (let i = 0; i + 1 < bytes.length; i += 2) sum += bytes.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function tcpFrame(payloadLen: number): Buffer {
  const frame = Buffer.alloc(54 + payloadLen, 0x5a);
  frame.write('0200000000010200000000020800', 'hex');
  const ip = frame.subarray(14, 34);
  ip.write('450000000001400040060000c0000202c0000201', 'hex');
  ip.writeUInt16BE(frame.length - 14, 2);
  ip.writeUInt16BE(checksum(ip), 10);
  const segment = frame.subarray(34);
  segment.write('0050c35000000001000000015010004000000000', 'hex');
  const pseudo = Buffer.concat([ip.subarray(12, 20), Buffer.from([0, 6, 0, 0])]);
  pseudo.writeUInt16BE(segment.length, 10);
  segment.writeUInt16BE(checksum(pseudo, segment), 16);
  return frame;
}

function pcapOf(...frames: Buffer[]): Buffer {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt16LE(2, 4);
  header.writeUInt16LE(4, 6);
  header.writeUInt32LE(262144, 16);
  header.writeUInt32LE(1, 20);
  const records = frames.flatMap((frame) => {
    const record = Buffer.alloc(16);
    record.writeUInt32LE(frame.length, 8);
    record.writeUInt32LE(frame.length, 12);
    return [record, frame];
  });
  return Buffer.concat([header, ...records]);
}

async function rejection(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return String(error);
  }
  return 'it did not reject';
}

describe('test support: captures', function () {
  // Each start of tshark takes seconds on a loaded machine.
  this.timeout(120_000);
  needs('tshark', 'tcpdump', 'capinfos');

  let dir = '';
  before(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-'))));
  after(() => rmSync(dir, { recursive: true }));

  const file = (...frames: Buffer[]): string => {
    const path = join(dir, 'x.pcap');
    writeFileSync(path, pcapOf(...frames));
    return path;
  };

  it('counts the frames of a clean capture', async () => {
    const path = file(tcpFrame(0), tcpFrame(1460));
    const counts = await assertCleanCapture(path, { mtu: 1500 });
    expect(counts).to.include({ frames: 2, ip: 2, tcp: 2, tcpPayload: 1460, frameMax: 1514 });
    expect(await capinfosFrames(path)).to.equal(2);
    expect(await tcpdumpLines(path, ['tcp'])).to.have.lengthOf.at.least(2);
    expect(await tsharkFields(path, ['tcp.len'], 'tcp.len > 0')).to.deep.equal([['1460']]);
    expect((await readPcap(path)).packets.map((p) => p.data.length)).to.deep.equal([54, 1514]);
  });

  it('refuses an empty capture', async () => {
    expect(await rejection(assertCleanCapture(file(), { mtu: 1500 }))).to.contain('no frames');
  });

  it('refuses a bad TCP checksum', async () => {
    const frame = tcpFrame(100);
    frame[60]! ^= 1;
    const said = await rejection(assertCleanCapture(file(tcpFrame(1), frame), { mtu: 1500 }));
    expect(said).to.contain('1 of 2 frames').and.contain('frame 2: bad TCP checksum');
  });

  /**
   * Exchanges the addresses, so that the frame comes from the Linux side; the checksums stay valid.
   */
  const fromLinux = (frame: Buffer): Buffer => {
    frame.writeUInt32BE(0xc0000201, 26);
    frame.writeUInt32BE(0xc0000202, 30);
    return frame;
  };

  it('accepts ffff instead of a TCP checksum of 0 from Linux, and from no other host', async () => {
    const frame = fromLinux(tcpFrame(2));
    const sum = frame.readUInt16BE(50);
    frame.writeUInt16BE(0x5a5a + sum - (0x5a5a + sum > 0xffff ? 0xffff : 0), 54);
    frame.writeUInt16BE(0, 50);
    await assertCleanCapture(file(frame), { mtu: 1500 });
    frame.writeUInt16BE(0xffff, 50);
    await assertCleanCapture(file(frame), { mtu: 1500 });
    frame[55]! ^= 1;
    expect(await rejection(assertCleanCapture(file(frame), { mtu: 1500 }))).to.contain('bad TCP');
    frame[55]! ^= 1;
    frame.writeUInt32BE(0xc0000202, 26);
    frame.writeUInt32BE(0xc0000201, 30);
    expect(await rejection(assertCleanCapture(file(frame), { mtu: 1500 }))).to.contain('bad TCP');
  });

  it('refuses a bad IP checksum', async () => {
    const frame = tcpFrame(100);
    frame[22]! ^= 1;
    const said = await rejection(assertCleanCapture(file(frame), { mtu: 1500 }));
    expect(said).to.contain('bad IP checksum');
  });

  it('refuses a frame one byte above the MTU', async () => {
    const said = await rejection(assertCleanCapture(file(tcpFrame(1461)), { mtu: 1500 }));
    expect(said).to.contain('1515 bytes');
  });

  it('refuses a malformed frame', async () => {
    const frame = tcpFrame(0).subarray(0, 48);
    expect(await rejection(assertCleanCapture(file(frame), { mtu: 1500 }))).to.match(
      /malformed|bad TCP checksum/,
    );
  });

  it('refuses a file that ends inside a record', async () => {
    const path = join(dir, 'cut.pcap');
    writeFileSync(path, pcapOf(tcpFrame(9), tcpFrame(9)).subarray(0, -1));
    expect(await rejection(assertCleanCapture(path, { mtu: 1500 }))).to.contain('cut short');
    expect(await rejection(readPcap(path))).to.contain('records end at');
  });
});
