/** TLS key logs: which lines are keys, files that grow, shrink and are replaced, and the blocks of a capture. */

import { appendFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { expect } from 'chai';
import { SecretsOutput } from '../../src/cli/capture_secrets.ts';
import { KeyLogFile } from '../../src/host/key_log_file.ts';
import { KeyLog } from '../../src/machine/key_log.ts';
import { KeyLogLines, secretsBlocks } from '../../src/pcap/key_log.ts';
import { type FileItem, readCapture } from '../../src/pcap/read.ts';
import { PcapngWriter } from '../../src/pcap/pcapng.ts';

const key = (n: number): string =>
  `CLIENT_TRAFFIC_SECRET_0 ${n.toString(16).padStart(64, '0')} ${'ab'.repeat(48)}\n`;

describe('pcap: TLS key logs', () => {
  let dir: string;
  let path: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-keylog-'));
    path = join(dir, 'keys');
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it('takes keys in pieces of any size, each once; counts other lines', () => {
    const rsa = `RSA Session-ID:${'0a'.repeat(32)} Master-Key:${'cd'.repeat(48)}\n`;
    const text =
      `# comment\n\n${key(1)}nonsense\n${key(2).replace('\n', '\r\n')}${key(1)}${rsa}` +
      `${'x'.repeat(100_000)}\nCLIENT_RANDOM zz 00\n${key(3)}${key(4).slice(0, -1)}`;
    for (const size of [1, 7, 1000, 1 << 20]) {
      const lines = new KeyLogLines();
      const keys: string[] = [];
      for (let at = 0; at < text.length; at += size)
        keys.push(...lines.push(Buffer.from(text.slice(at, at + size))));
      expect(keys, `pieces of ${size}`).to.deep.equal([key(1), key(2), rsa, key(3)]);
      expect([lines.keys, lines.leftOut]).to.deep.equal([4, 3]);
    }
    expect(secretsBlocks([])).to.deep.equal([]);
    const many = Array.from({ length: 1000 }, (_none, i) => key(i));
    expect(secretsBlocks(many)).to.have.lengthOf(3);
  });

  it('follows a file that appears, grows, is truncated and is replaced', async () => {
    const file = new KeyLogFile(path, 100);
    const read = async (): Promise<string | null> => {
      const piece = await file.read();
      return piece === null ? null : `${piece.begins}: ${piece.bytes.toString()}`;
    };
    expect([await read(), file.missing]).to.deep.equal([null, true]);
    writeFileSync(path, 'one ');
    expect([await read(), file.missing]).to.deep.equal(['at the start: one ', false]);
    expect(await read()).to.equal(null);
    appendFileSync(path, 'two ');
    expect(await read()).to.equal('after: two ');
    writeFileSync(path, 'new');
    expect(await read()).to.equal('at the start: new');
    // Truncated, and longer than before when it is read.
    writeFileSync(path, 'another text');
    expect(await read()).to.equal('at the start: another text');
    writeFileSync(join(dir, 'b'), 'another text and more');
    renameSync(join(dir, 'b'), path);
    expect(await read()).to.equal('at the start: another text and more');
    appendFileSync(path, 'y'.repeat(150));
    expect(await read()).to.equal(`within: ${'y'.repeat(100)}`);
    expect(file.skipped).to.equal(50);
    rmSync(path);
    expect([await read(), file.missing]).to.deep.equal([null, true]);
  });

  it('puts keys between the blocks of a stream, in front of the packets that came before them', async () => {
    const stream: Buffer[] = [];
    const sink = {
      write: (bytes: Uint8Array, off: number, len: number): void =>
        void stream.push(Buffer.from(bytes.subarray(off, off + len))),
    };
    const writer = new PcapngWriter(sink, {}, String);
    writer.addInterface({ name: 'a', snaplen: 65535 });
    const none = new DataView(new ArrayBuffer(0));
    for (let i = 0; i < 50; i++)
      writer.packet(0, i, 0, 1, i + 1, 0, 0, Buffer.alloc(200, i), 0, 60 + i, 200, none, 0, 0);
    const bytes = Buffer.concat(stream);
    writeFileSync(path, key(1));
    for (const size of [5, 1000, bytes.length]) {
      const out: Buffer[] = [];
      const keys = new KeyLog(path);
      const first = await keys.poll();
      const output = new SecretsOutput(
        keys,
        first,
        new Writable({ write: (chunk: Buffer, _e, done) => (out.push(chunk), done()) }),
      );
      for (let at = 0; at < bytes.length; at += size) output.write(bytes.subarray(at, at + size));
      appendFileSync(path, key(size));
      await new Promise<void>((resolve, reject) => {
        output.once('error', reject);
        output.end(resolve);
      });
      const kinds: string[] = [];
      const found: FileItem[] = [];
      for await (const item of readCapture(
        (async function* () {
          yield await Promise.resolve(Buffer.concat(out));
        })(),
      )) {
        kinds.push(item.kind);
        found.push(item);
      }
      const text = found.flatMap((item) =>
        item.kind === 'secrets' ? [Buffer.from(item.bytes).toString()] : [],
      );
      expect(text.join('')).to.include(key(size));
      expect(kinds.lastIndexOf('secrets')).to.be.below(kinds.indexOf('packet'));
      expect(kinds.filter((kind) => kind === 'packet')).to.have.lengthOf(50);
    }
  });
});
