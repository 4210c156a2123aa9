/** Captures for tests: those in this folder, and files built block by block. */

import { gunzipSync } from 'node:zlib';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  customData,
  EPB_FLAGS,
  EPB_PACKETID,
  IF_NAME,
  OPT_COMMENT,
  OPT_CUSTOM,
  OptionList,
  PCAPNG_BYTE_ORDER,
  PCAPNG_EPB,
  PCAPNG_IDB,
  PCAPNG_SHB,
  PEN_EXAMPLE,
  pcapngBlock,
} from '../../src/pcap/pcapng_options.ts';
import { packageRoot } from '../support/root.ts';

type CaptureName = 'default.pcapng' | 'nomap.pcapng' | 'tcpdump.pcap';

export function capturePath(name: CaptureName): string {
  return join(packageRoot(), 'test/explain/captures', `${name}.gz`);
}

/** The bytes of a capture, decompressed. */
export function captureBytes(name: CaptureName): Buffer {
  return gunzipSync(readFileSync(capturePath(name)));
}

interface BuiltPacket {
  readonly iface?: number;
  readonly bytes?: Uint8Array;
  readonly id?: number;
  readonly direction?: 1 | 2;
  readonly comment?: string;
  readonly meta?: Uint8Array;
}

/** A pcapng file with interfaces of these names and these packets. */
export function builtCapture(names: readonly string[], packets: readonly BuiltPacket[]): Buffer {
  const section = Buffer.alloc(16);
  section.writeUInt32LE(PCAPNG_BYTE_ORDER, 0);
  section.writeUInt16LE(1, 4);
  section.writeBigInt64LE(-1n, 8);
  const blocks: Uint8Array[] = [pcapngBlock(PCAPNG_SHB, section)];
  for (const name of names) {
    const fixed = Buffer.alloc(8);
    fixed.writeUInt16LE(1, 0);
    blocks.push(pcapngBlock(PCAPNG_IDB, fixed, new OptionList().text(IF_NAME, name).bytes()));
  }
  packets.forEach(({ iface = 0, bytes = new Uint8Array(60), ...p }, i) => {
    const fixed = Buffer.alloc(20);
    fixed.writeUInt32LE(iface, 0);
    fixed.writeUInt32LE(1000 * i, 8);
    fixed.writeUInt32LE(bytes.length, 12);
    fixed.writeUInt32LE(bytes.length, 16);
    const options = new OptionList().text(OPT_COMMENT, p.comment ?? '');
    const flags = Buffer.alloc(4);
    flags.writeUInt32LE(p.direction ?? 0);
    options.add(EPB_FLAGS, flags);
    if (p.id !== undefined) options.u64(EPB_PACKETID, BigInt(p.id));
    if (p.meta !== undefined) options.add(OPT_CUSTOM, customData(PEN_EXAMPLE, p.meta));
    const pad = Buffer.alloc(-bytes.length & 3);
    blocks.push(pcapngBlock(PCAPNG_EPB, fixed, Buffer.concat([bytes, pad]), options.bytes()));
  });
  return Buffer.concat(blocks);
}
