/** The Wireshark dissector with metadata that a capture rarely has: descriptors, links, events, hostile text. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  TN_TXD_CTX,
  TN_TXD_EOP,
  TN_TXD_TCP,
  TN_TXD_TSE,
  TN_TXD_TXSM,
  TN_TXS_DD,
} from '../../src/dev/tn/tnreg.ts';
import { OPT_COMMENT, OptionList, PCAPNG_CUSTOM } from '../../src/pcap/pcapng_options.ts';
import { PcapngWriter } from '../../src/pcap/pcapng.ts';
import { CAPTURE_OUT, CAPTURE_RING } from '../../src/sys/capture.ts';
import {
  META_CSUM_NIC,
  META_LINK_TSO,
  META_WHY_DROP,
  MetaWriter,
} from '../../src/sys/capture_meta.ts';
import { needs } from '../support/needs.ts';
import { packageRoot } from '../support/root.ts';

const LUA = join(packageRoot(), 'wireshark/tapnic.lua');

describe('the dissector', () => {
  needs('tshark');
  let dir: string;
  let chunks: Uint8Array[];
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-dissector-'));
    chunks = [];
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  /** What tshark prints for the file of `chunks`. */
  const tshark = (...args: string[]): string => {
    const file = join(dir, 'a.pcapng');
    writeFileSync(file, Buffer.concat(chunks));
    const { status, stdout, stderr } = spawnSync(
      'tshark',
      ['-n', '-X', `lua_script:${LUA}`, '-r', file, ...args],
      { encoding: 'utf8' },
    );
    expect(status, stderr).to.equal(0);
    expect(stderr).not.to.match(/lua|error/i);
    return stdout;
  };
  const fields = (...names: string[]): string[][] =>
    tshark('-T', 'fields', ...names.flatMap((name) => ['-e', `tapnic.${name}`]))
      .trimEnd()
      .split('\n')
      .map((line) => line.split('\t'));

  const writer = (name: string): PcapngWriter => {
    const sink = {
      header: (b: Uint8Array): boolean => chunks.push(b.slice()) > 0,
      begin: (): boolean => true,
      write: (b: Uint8Array, off: number, len: number): void =>
        void chunks.push(b.slice(off, off + len)),
    };
    const section = { hardware: '', os: '', application: 'tapnic', comment: '' };
    const w = new PcapngWriter(sink, section, () => 'tn.tx_bad');
    w.addInterface({ name, snaplen: 262_144 });
    return w;
  };
  const memory = new DataView(new ArrayBuffer(4096));
  /** The length of the items that `fill` writes at the start of `memory`. */
  const items = (fill: (w: MetaWriter) => void): number => {
    const w = new MetaWriter(memory);
    w.begin(0, 4096);
    fill(w);
    return w.length;
  };
  const frame = new Uint8Array(60);
  const packet = (w: PcapngWriter, length: number): boolean =>
    w.packet(0, 1_767_225_600, 1, CAPTURE_OUT, 17, 0, 0, frame, 0, 60, 60, memory, 0, length);

  /** A context descriptor, and a data descriptor that the device has written back. */
  const descriptors = (w: MetaWriter): void => {
    const at = w.descs(0, 12, 2, 16);
    const tso = TN_TXD_CTX | TN_TXD_TXSM | TN_TXD_TSE | TN_TXD_TCP;
    const words = [14 | (20 << 8) | (32 << 17), 1448, 17, tso, 0x3040, 1, 4096, TN_TXD_EOP];
    words[7] = (words[7]! | TN_TXS_DD) >>> 0;
    words.forEach((word, i) => memory.setUint32(at + 4 * i, word, true));
  };

  it('decodes the descriptors of tn by name', () => {
    const w = writer('tn0@ring');
    packet(
      w,
      items((m) => {
        m.packet(17, CAPTURE_RING, CAPTURE_OUT, 0, META_CSUM_NIC);
        descriptors(m);
        m.link(META_LINK_TSO, 2, 16);
      }),
    );
    expect(
      fields('id', 'point', 'desc.slot', 'desc.type', 'desc.flags', 'desc.addr', 'desc.len'),
    ).to.deep.equal([
      [
        '17',
        'ring',
        '12,13',
        'context,data',
        'CTX,TXSM,TSE,TCP,EOP,DD',
        '0x0000000100003040',
        '4096',
      ],
    ]);
    expect(
      fields('desc.hdrlen', 'desc.mss', 'desc.tag', 'link.kind', 'link.id', 'link.n', 'csum'),
    ).to.deep.equal([['14, 20, 32', '1448', '17', 'tso', '16', '2', 'nic']]);
    expect(tshark('-Y', 'tapnic.link.kind == "tso" && tapnic.desc.len == 4096')).to.not.equal('');
    expect(tshark('-Y', 'tapnic.link.kind == "lro"')).to.equal('');
  });

  it('shows descriptors of other models as bytes', () => {
    const w = writer('tl0@ring');
    packet(
      w,
      items((m) => {
        m.packet(17, CAPTURE_RING, CAPTURE_OUT, 0, META_CSUM_NIC);
        descriptors(m);
      }),
    );
    const [[first, addr] = []] = fields('desc', 'desc.addr');
    expect(first).to.match(/^[0-9a-f]{32},[0-9a-f]{32}$/);
    expect(addr ?? '').to.equal('');
  });

  it('shows an event as a row of its own', () => {
    const w = writer('tn0@ring');
    const length = items((m) => {
      m.packet(17, CAPTURE_RING, CAPTURE_OUT, 0, META_CSUM_NIC);
      m.why(META_WHY_DROP, 3, 77);
    });
    w.event(memory, 0, length);
    expect(fields('event', 'id', 'point', 'why.what', 'why.reason', 'why.bytes')).to.deep.equal([
      ['1', '17', 'ring', 'drop', 'tn.tx_bad', '77'],
    ]);
    expect(tshark()).to.match(
      /tapnic .*id=17; point=ring; dir=out; csum=nic; why=drop tn\.tx_bad 77/,
    );
  });

  it('survives comments and events of hostile files', () => {
    const w = writer('tn0@ring');
    const texts = [
      'id=99999999999999999999; point=ring; chain=[int 4294967296 off=-1]',
      'id=1; point=if; chain=[; descs=ring 0 slot 99999999999: zz; link=of; why=; socket=1 first=1e9',
      `id=1; point=if; chain=[nomap 1 off=1 refs=1 pages=${'0xffffffffffffffffff,'.repeat(500)}]`,
      `id=1; point=ring; descs=ring 0 slot 1: ${'ab'.repeat(7000)}`,
      'id=1; point=ring; descs=ring 4294967295 slot 4294967295: 00,11',
      'not ours',
    ];
    for (const text of texts) {
      const options = new OptionList().text(OPT_COMMENT, text).bytes();
      const length = 32 + 60 + options.length;
      const block = Buffer.alloc(length);
      block.writeUInt32LE(6, 0);
      block.writeUInt32LE(length, 4);
      block.writeUInt32LE(60, 20);
      block.writeUInt32LE(60, 24);
      options.forEach((byte, i) => (block[28 + 60 + i] = byte));
      block.writeUInt32LE(length, length - 4);
      chunks.push(block);
    }
    // Items that announce more than there is.
    for (const item of [
      '02000400ffff0000',
      '03000800000000000000ffff',
      '04000000',
      '05000800',
      'ff',
    ]) {
      const data = Buffer.from(`00007ed954504e4301000000${item}`, 'hex');
      const length = 12 + ((data.length + 3) & ~3);
      const block = Buffer.alloc(length);
      block.writeUInt32LE(PCAPNG_CUSTOM, 0);
      block.writeUInt32LE(length, 4);
      data.copy(block, 8);
      block.writeUInt32LE(0x7ed9, 8);
      block.writeUInt32LE(length, length - 4);
      chunks.push(block);
    }
    const rows = fields('point', 'event');
    expect(rows).to.have.lengthOf(texts.length + 5);
    expect(tshark('-V')).not.to.match(/Lua Error/i);
    void w;
  });
});
