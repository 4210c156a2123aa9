/**
 * A minimal host behind a Tap or Tun. It answers ARP requests and pings with its own code, so that
 * Linux's ping tests both directions.
 */

import type { Duplex } from 'node:stream';

export const RESPONDER_MAC = Buffer.from('02005e005302', 'hex');
const ETHERTYPE_ARP = 0x0806;
const ETHERTYPE_IP = 0x0800;
const IPPROTO_ICMP = 1;

/** Totals of the frames written. */
export interface Sent {
  frames: number;
  bytes: number;
}

function sum(bytes: Buffer): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i += 2)
    total += bytes[i]! * 256 + (i + 1 < bytes.length ? bytes[i + 1]! : 0);
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return ~total & 0xffff;
}

/** Turns an echo request into its reply in place; false if the packet is not an echo request. */
function echo(ip: Buffer): boolean {
  const hlen = (ip[0]! & 0x0f) * 4;
  if (ip[0]! >> 4 !== 4 || ip[9] !== IPPROTO_ICMP || ip[hlen] !== 8) return false;
  const src = Buffer.from(ip.subarray(12, 16));
  ip.copyWithin(12, 16, 20);
  src.copy(ip, 16);
  const icmp = ip.subarray(hlen, ip.readUInt16BE(2));
  icmp[0] = 0;
  icmp.writeUInt16BE(0, 2);
  icmp.writeUInt16BE(sum(icmp), 2);
  return true;
}

/** Answers pings to any address. */
export function answerPing(tun: Duplex): void {
  tun.on('data', (packet: Buffer) => {
    if (echo(packet)) tun.write(packet);
  });
}

/**
 * Answers ARP and pings for `address`. @param headerLen bytes of a virtio-net header on each frame
 */
export function answerArpAndPing(tap: Duplex, address: string, headerLen = 0): Sent {
  const own = Buffer.from(address.split('.').map(Number));
  const sent: Sent = { frames: 0, bytes: 0 };
  const send = (frame: Buffer): void => {
    sent.frames++;
    sent.bytes += frame.length;
    // A virtio-net header of zeros: the reply needs no checksum and no segmentation.
    tap.write(frame.fill(0, 0, headerLen));
  };
  tap.on('data', (whole: Buffer) => {
    const frame = whole.subarray(headerLen);
    const type = frame.readUInt16BE(12);
    const isArp = type === ETHERTYPE_ARP && own.equals(frame.subarray(38, 42));
    const isPing = type === ETHERTYPE_IP && own.equals(frame.subarray(30, 34));
    if (!isArp && !(isPing && echo(frame.subarray(14)))) return;
    frame.copyWithin(0, 6, 12);
    RESPONDER_MAC.copy(frame, 6);
    if (isArp) {
      frame.writeUInt16BE(2, 20);
      frame.copy(frame, 32, 22, 32);
      RESPONDER_MAC.copy(frame, 22);
      own.copy(frame, 28);
    }
    send(whole);
  });
  return sent;
}
