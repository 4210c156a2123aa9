/**
 * Does with a super-frame what a receiver of virtio-net frames does: segments it and completes the
 * checksums (VIRTIO 1.1, 5.1.6; RFC 1624). It uses only the partial sum that the sender left, so
 * that a wrong sum makes wrong frames, which the judges of the frames detect.
 */

const ETHER_HDR = 14;
export const NEEDS_CSUM = 1;
export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_TCPV6 = 4;
const IPV6_HDR = 40;

const FIN_PSH = 0x09;
const CWR = 0x80;

/** The header in front of a frame, little-endian. */
export interface VirtioHeader {
  readonly flags: number;
  readonly gsoType: number;
  readonly hdrLen: number;
  readonly gsoSize: number;
  readonly csumStart: number;
  readonly csumOffset: number;
}

export function virtioHeader(bytes: Uint8Array): VirtioHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return {
    flags: bytes[0]!,
    gsoType: bytes[1]!,
    hdrLen: view.getUint16(2, true),
    gsoSize: view.getUint16(4, true),
    csumStart: view.getUint16(6, true),
    csumOffset: view.getUint16(8, true),
  };
}

function fold(sum: number): number {
  let n = sum;
  while (n > 0xffff) n = (n & 0xffff) + Math.floor(n / 0x10000);
  return n;
}

/** One's complement sum of `bytes` from `from` on. */
function sumOf(bytes: Uint8Array, from: number, to: number = bytes.length): number {
  let sum = 0;
  for (let i = from; i + 1 < to; i += 2) sum += bytes[i]! * 256 + bytes[i + 1]!;
  if ((to - from) % 2 === 1) sum += bytes[to - 1]! * 256;
  return fold(sum);
}

function finish(frame: Uint8Array, { csumStart, csumOffset }: VirtioHeader): void {
  const sum = ~sumOf(frame, csumStart) & 0xffff;
  new DataView(frame.buffer, frame.byteOffset).setUint16(csumStart + csumOffset, sum);
}

/** Segments `frame`, and returns the frames with complete checksums. */
export function cutUp(frame: Uint8Array, header: VirtioHeader): Uint8Array[] {
  const whole = frame.slice();
  if (header.gsoType === GSO_NONE) {
    if ((header.flags & NEEDS_CSUM) !== 0) finish(whole, header);
    return [whole];
  }
  const view = new DataView(whole.buffer);
  const { csumStart: l4, csumOffset, gsoSize } = header;
  const headers = l4 + (whole[l4 + 12]! >> 4) * 4;
  const partial = view.getUint16(l4 + csumOffset);
  const id = view.getUint16(ETHER_HDR + 4);
  const seq = view.getUint32(l4 + 4);
  const out: Uint8Array[] = [];
  for (let off = headers, i = 0; off < whole.length; off += gsoSize, i++) {
    const end = Math.min(off + gsoSize, whole.length);
    const one = new Uint8Array(headers + end - off);
    one.set(whole.subarray(0, headers));
    one.set(whole.subarray(off, end), headers);
    const v = new DataView(one.buffer);
    if (header.gsoType === GSO_TCPV6) {
      v.setUint16(ETHER_HDR + 4, one.length - ETHER_HDR - IPV6_HDR);
    } else {
      v.setUint16(ETHER_HDR + 2, one.length - ETHER_HDR);
      v.setUint16(ETHER_HDR + 4, (id + i) & 0xffff);
      v.setUint16(ETHER_HDR + 10, 0);
      v.setUint16(ETHER_HDR + 10, ~sumOf(one, ETHER_HDR, l4) & 0xffff);
    }
    v.setUint32(l4 + 4, (seq + off - headers) >>> 0);
    if (end < whole.length) one[l4 + 13]! &= ~FIN_PSH;
    if (i > 0) one[l4 + 13]! &= ~CWR;
    // The pseudo-header sum contains the length of the super-frame. Replace it with the segment's.
    const lengths = (~(whole.length - l4) & 0xffff) + (one.length - l4);
    v.setUint16(l4 + csumOffset, fold(partial + lengths));
    finish(one, header);
    out.push(one);
  }
  return out;
}
