/**
 * Reads classic microsecond pcap files with the npm package pcap-parser, which is not our code. It
 * reports no error for a truncated record, so the bytes are counted here.
 */

import { statSync } from 'node:fs';
import { parse } from 'pcap-parser';
import type { GlobalHeader, Packet } from 'pcap-parser';

export interface Pcap {
  header: GlobalHeader;
  packets: Packet[];
}

const GLOBAL_HEADER_LEN = 24;
const RECORD_HEADER_LEN = 16;

/** Reads `file`. Rejects unless it is a well-formed pcap file that ends with its last record. */
export function readPcap(file: string): Promise<Pcap> {
  return new Promise((resolve, reject) => {
    let header: GlobalHeader | null = null;
    const packets: Packet[] = [];
    let len = GLOBAL_HEADER_LEN;
    const parser = parse(file);
    parser.on('globalHeader', (h) => (header = h));
    parser.on('packet', (packet) => {
      packets.push(packet);
      len += RECORD_HEADER_LEN + packet.data.length;
    });
    parser.on('error', reject);
    parser.on('end', () => {
      const { size } = statSync(file);
      if (header === null) reject(new Error(`${file}: no pcap header in ${size} bytes`));
      else if (len !== size) reject(new Error(`${file}: ${size} bytes, records end at ${len}`));
      else resolve({ header, packets });
    });
  });
}
