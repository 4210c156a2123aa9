/** TCP segments of one connection. A test can set any header field. */

import { makePacket, sum1071 } from './judge.ts';

export interface SegmentOptions {
  v6?: boolean;
  payload: number;
  seq: number;
  ack?: number;
  win?: number;
  /** TCP flags; ACK unless given. */
  flags?: number;
  /** Time stamp value and echo reply, after two NOPs. Without it the option is missing. */
  ts?: [number, number];
  /** Bytes of NOP options instead of time stamps, a multiple of 4. */
  nops?: number;
  ipOptions?: number;
  vlan?: number;
  dst?: number[];
  /** Bytes set before the checksums are computed: offset from the IP header, value. */
  ip?: [number, number][];
  /** The same, with the offset from the TCP header. */
  tcp?: [number, number][];
  ether?: [number, number][];
  /** Bytes of padding after the IP packet. */
  pad?: number;
  spoil?: number;
}

const put16 = (b: Uint8Array, off: number, v: number): void =>
  b.set([(v >>> 8) & 0xff, v & 0xff], off);
const put32 = (b: Uint8Array, off: number, v: number): void => {
  put16(b, off, v >>> 16);
  put16(b, off + 2, v & 0xffff);
};

/**
 * A frame with right checksums over all changes, unless `spoil` is set. The payload depends only on
 * `seq`.
 */
export function segment(o: SegmentOptions): Uint8Array {
  const tcpOptions = o.ts === undefined ? (o.nops ?? 0) : 12;
  const made = makePacket({
    payload: o.payload,
    seq: o.seq >>> 0,
    thFlags: o.flags ?? 0x10,
    tcpOptions,
    cksum: 'pseudo',
    v6: o.v6 ?? false,
    ipOptions: o.ipOptions ?? 0,
    ...(o.vlan === undefined ? {} : { vlan: o.vlan }),
    ...(o.dst === undefined ? {} : { dst: o.dst }),
  });
  const frame = new Uint8Array(made.length + (o.pad ?? 0));
  frame.set(made);
  const ip = frame.subarray(o.vlan === undefined ? 14 : 18, made.length);
  const hlen = o.v6 === true ? 40 : 20 + (o.ipOptions ?? 0);
  const tcp = ip.subarray(hlen);
  put32(tcp, 8, o.ack ?? 0);
  put16(tcp, 14, o.win ?? 65535);
  if (o.ts !== undefined) {
    put32(tcp, 20, 0x0101080a);
    put32(tcp, 24, o.ts[0]);
    put32(tcp, 28, o.ts[1]);
  }
  for (let i = 0; i < o.payload; i++) {
    const n = o.seq + i;
    tcp[20 + tcpOptions + i] = (n * 31 + (n >>> 8) * 7) & 0xff;
  }
  for (const [off, byte] of o.ether ?? []) frame[off] = byte;
  for (const [off, byte] of o.ip ?? []) ip[off] = byte;
  for (const [off, byte] of o.tcp ?? []) tcp[off] = byte;
  const addresses = o.v6 === true ? ip.subarray(8, 40) : ip.subarray(12, 20);
  put16(tcp, 16, 0);
  put16(tcp, 16, (~sum1071(tcp, sum1071(addresses, 6 + tcp.length)) & 0xffff) + (o.spoil ?? 0));
  if (o.v6 !== true) {
    put16(ip, 10, 0);
    put16(ip, 10, ~sum1071(ip.subarray(0, hlen)));
  }
  return frame;
}
