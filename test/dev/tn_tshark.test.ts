/** Frames that the device sends, checked by Wireshark's dissectors. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  TN_TXD_IXSM,
  TN_TXD_TCP,
  TN_TXD_TSE,
  TN_TXD_TXSM,
  TN_TXD_V6,
} from '../../src/dev/tn/tnreg.ts';
import { needs } from '../support/needs.ts';
import { assertCleanCapture, tsharkFields } from '../support/tshark.ts';
import { DSTOPTS, extLen, HOPOPTS, makePacket } from './judge.ts';
import { Rig } from './tn_rig.ts';

/** A classic pcap file of Ethernet frames, written from the format's description. */
function pcap(frames: Uint8Array[]): Buffer {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt16LE(2, 4);
  header.writeUInt16LE(4, 6);
  header.writeUInt32LE(262144, 16);
  header.writeUInt32LE(1, 20);
  const records = frames.flatMap((frame, i) => {
    const rec = Buffer.alloc(16);
    rec.writeUInt32LE(i, 0);
    rec.writeUInt32LE(frame.length, 8);
    rec.writeUInt32LE(frame.length, 12);
    return [rec, Buffer.from(frame)];
  });
  return Buffer.concat([header, ...records]);
}

describe('tn: frames as Wireshark sees them', function () {
  needs('tshark');
  this.timeout(60_000);

  it('are valid: checksums and segments, IPv4 and IPv6, TCP and UDP', async () => {
    const rig = new Rig().start();
    for (const v6 of [false, true]) {
      const family = v6 ? TN_TXD_V6 : TN_TXD_IXSM;
      const l3 = v6 ? 40 : 20;
      for (const payload of [0, 1, 3, 700, 1440]) {
        rig.context({ cmd: family | TN_TXD_TXSM | TN_TXD_TCP, l3, l4: 32 });
        rig.packet(
          makePacket({
            payload: payload - (payload > 1400 ? 12 : 0),
            v6,
            tcpOptions: 12,
            cksum: 'pseudo',
          }),
          [15],
        );
        rig.context({ cmd: family | TN_TXD_TXSM, l3, l4: 8 });
        rig.packet(makePacket({ payload, v6, udp: true, cksum: 'pseudo' }), [21]);
      }
      if (v6)
        for (const exts of [[{ type: HOPOPTS }], [{ type: DSTOPTS, units: 3 }]]) {
          const long = 40 + extLen(exts);
          rig.context({ cmd: family | TN_TXD_TXSM, l3: long, l4: 8 });
          rig.packet(makePacket({ payload: 701, v6, exts, udp: true, cksum: 'pseudo' }), [57]);
          rig.context({ cmd: family | TN_TXD_TSE | TN_TXD_TCP, l3: long, l4: 20, mss: 1400 });
          rig.packet(makePacket({ payload: 7000, v6, exts, cksum: 'tso' }), [60, 3001]);
        }
      rig.context({ cmd: family | TN_TXD_TSE | TN_TXD_TCP, l3, l4: 20, mss: 1440 });
      rig.packet(makePacket({ payload: 60_001, v6, cksum: 'tso', thFlags: 0x19 }), [54, 4001]);
    }
    rig.doorbell();
    const dir = mkdtempSync(join(tmpdir(), 'tn-'));
    try {
      const file = join(dir, 'wire.pcap');
      writeFileSync(file, pcap(rig.wire.sent));
      const counts = await assertCleanCapture(file, { mtu: 1500 });
      expect(counts).to.include({ frames: 116, ip: 52, ip6: 64, tcp: 104, udp: 12 });
      const fins = await tsharkFields(file, ['frame.number'], 'tcp.flags.fin==1');
      expect(fins.length).to.equal(2);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
