/** `tapnic capture --verify` on captures of real transfers, and on the same with something missing. */

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { needsHere } from '../support/needs.ts';
import { cliMain } from '../support/root.ts';
import { verifyFile } from '../support/verify.ts';
import { captureBytes, capturePath } from './captures.ts';

const PCAPNG_EPB = 6;
const PCAPNG_ISB = 5;

interface Block {
  readonly type: number;
  readonly bytes: Buffer;
}

function blocksOf(file: Buffer): Block[] {
  const blocks: Block[] = [];
  for (let at = 0; at < file.length;) {
    const length = file.readUInt32LE(at + 4);
    blocks.push({ type: file.readUInt32LE(at), bytes: file.subarray(at, at + length) });
    at += length;
  }
  return blocks;
}

describe('explain: tapnic capture --verify', function () {
  this.timeout(60_000);
  let dir: string;
  before(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-verify-'))));
  after(() => rmSync(dir, { recursive: true }));

  function verify(...args: string[]): { status: number | null; stdout: string; stderr: string } {
    return spawnSync(process.execPath, [cliMain, 'capture', '--verify', ...args], {
      encoding: 'utf8',
      timeout: 50_000,
    });
  }

  /** The default capture without the blocks that `drop` selects. */
  function without(drop: (block: Block, i: number) => boolean): string {
    const file = join(dir, 'changed.pcapng');
    const kept = blocksOf(captureBytes('default.pcapng')).filter((block, i) => !drop(block, i));
    writeFileSync(file, Buffer.concat(kept.map(({ bytes }) => bytes)));
    return file;
  }

  it('agrees for whole captures, and with tcpdump', () => {
    const nomap = verify(capturePath('nomap.pcapng'));
    expect(nomap).to.include({ status: 0, stderr: '' });
    const run = verify(capturePath('default.pcapng'), '--with', capturePath('tcpdump.pcap'));
    expect(run).to.include({ status: 0, stderr: '' });
    expect(run.stdout).to.match(/^ok +tn0: payload at if = at wire/m);
    expect(run.stdout).to.match(/^ok +tn0@wire out: frames as in the other file +expected \d\d/m);
    expect(run.stdout).to.not.include('BAD');
  });

  it('the helper of tests finds the same', async () => {
    await verifyFile(capturePath('default.pcapng'), capturePath('tcpdump.pcap'));
    let text = '';
    try {
      await verifyFile(without(({ type }) => type === PCAPNG_ISB));
    } catch (e) {
      text = (e as Error).message;
    }
    expect(text).to.include('the file has no statistics');
  });

  it('finds a missing packet at each point', () => {
    const blocks = blocksOf(captureBytes('default.pcapng'));
    const lost = { ip: 1, if: 2, wire: 3 };
    for (const [point, iface] of Object.entries(lost)) {
      // A data packet in the middle: longer than an ACK.
      const big = (block: Block): boolean =>
        block.type === PCAPNG_EPB &&
        block.bytes.readUInt32LE(8) === iface &&
        block.bytes.readUInt32LE(24) > 1000;
      const at = blocks.findIndex(big);
      expect(at, point).to.be.above(0);
      const { status, stdout } = verify(without((_, i) => i === at));
      expect(status, point).to.equal(1);
      expect(stdout).to.match(new RegExp(`^BAD +tn0@${point}: packets in the file`, 'm'));
      if (point === 'if') expect(stdout).to.match(/packet \d+: it did not reach tn0@if/);
      if (point === 'wire')
        expect(stdout).to.match(/packet \d+: \d+ bytes of payload, \d+ in its frames/);
    }
  });

  it('finds a changed, a missing and an additional frame in the other file', function () {
    needsHere(this, 'editcap');
    const plain = join(dir, 'tcpdump.pcap');
    writeFileSync(plain, captureBytes('tcpdump.pcap'));
    const other = join(dir, 'other.pcap');
    execFileSync('editcap', ['-F', 'pcap', plain, other, '40'], { stdio: 'ignore' });
    const missing = verify(capturePath('default.pcapng'), '--with', other);
    expect(missing.status).to.equal(1);
    expect(missing.stdout).to.match(/packet \d+: (in|out): not in the other file/);
    const bytes = captureBytes('tcpdump.pcap');
    // The last byte that both files have of a frame of 1514 bytes.
    const frame = blocksOfPcap(bytes).find(({ wirelen }) => wirelen === 1514)!;
    bytes[frame.at + 199]! ^= 1;
    writeFileSync(other, bytes);
    const changed = verify(capturePath('default.pcapng'), '--with', other);
    expect(changed.status).to.equal(1);
    expect(changed.stdout.match(/^packet /gm)).to.have.lengthOf(1);
    expect(changed.stdout.match(/of the other file is not here/g)).to.have.lengthOf(1);
    // The capture without a frame: the other file has one more.
    const blocks = blocksOf(captureBytes('default.pcapng'));
    const wire = blocks.findLastIndex(
      ({ type, bytes: b }) =>
        type === PCAPNG_EPB && b.readUInt32LE(8) === 3 && b.readUInt32LE(24) > 1000,
    );
    const short = verify(
      without((_, i) => i === wire),
      '--with',
      plain,
    );
    expect(short.stdout.match(/of the other file is not here/g)).to.have.lengthOf(1);
  });

  it('rejects what cannot be checked, in one line', () => {
    const foreign = verify(capturePath('tcpdump.pcap'));
    expect(foreign.status).to.equal(1);
    expect(foreign.stdout).to.include('the file has no statistics');
    expect(
      verify(capturePath('tcpdump.pcap'), '--with', capturePath('tcpdump.pcap')).stderr,
    ).to.match(/^tapnic: [^\n]+: the capture has no frames of a point wire\n$/);
    expect(verify(capturePath('default.pcapng'), 'if').status).to.equal(2);
    expect(verify('/nonexistent').stderr).to.equal(
      'tapnic: /nonexistent: ENOENT: no such file or directory\n',
    );
  });
});

/** The records of a pcap file: where their bytes begin. */
function blocksOfPcap(file: Buffer): { at: number; wirelen: number }[] {
  const records: { at: number; wirelen: number }[] = [];
  for (let at = 24; at < file.length; at += 16 + file.readUInt32LE(at + 8))
    records.push({ at: at + 16, wirelen: file.readUInt32LE(at + 12) });
  return records;
}
