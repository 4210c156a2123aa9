/**
 * Receive coalescing of `tn`, datasheet section 6.5: consecutive segments of one TCP connection
 * become one frame, and so do consecutive acknowledgments without data. The headers of the current
 * frame are kept in on-board memory. Its data stay in the buffers that received them. The data of each
 * further segment are moved to their end. Left out: more than one flow at a time, VLAN tags, IP options
 * and extension headers.
 */

import { fold16 } from '../../sys/cksum.ts';
import {
  ETHER_HDR_LEN,
  ETHERTYPE_IP,
  ETHERTYPE_IPV6,
  IPPROTO_TCP,
  TH_ACK,
  TH_PUSH,
} from '../../sys/protocols.ts';
import { SRAM_RX_LRO, SRAM_RX_SEG, type TnCore } from './tn_core.ts';
import {
  TN_MAXFRM_MAX,
  TN_RXBSZ_MIN,
  TN_RXS_IPCS,
  TN_RXS_L4CS,
  TN_RXS_SEGS_MASK,
  TN_RXS_SEGS_SHIFT,
} from './tnreg.ts';

/** Longest headers that can be coalesced: Ethernet, IPv6, TCP with time stamps. */
const HDR_MAX = 14 + 40 + 32;
const HDR_MIN = 14 + 20 + 20;
/** First word of options that are NOP, NOP and a time stamp, RFC 7323, appendix A. */
const TS_WORD = 0x0101080a;
const IP_LEN_MAX = 65535;
/** Maximum number of buffers of the longest frame and of a segment read after it. */
const BUFS_MAX = 2 * (Math.floor(TN_MAXFRM_MAX / TN_RXBSZ_MIN) + 1);

/** The current frame and the segment just read. */
export class TnLro {
  /** Number of buffers of the current frame; 0 if there is no frame. */
  nbufs = 0;
  /** Bytes, segments and status bits of the current frame. */
  len = 0;
  segs = 0;
  status = 0;
  /** For captures: the id of the segment just read, and those of the current frame's segments. */
  segId = 0;
  readonly ids = new Uint32Array(TN_RXS_SEGS_MASK);
  readonly #core: TnCore;
  readonly #held: number;
  readonly #seg: number;
  readonly #bufs = new Uint32Array(BUFS_MAX);
  readonly #pairs = new Uint32Array(2 * BUFS_MAX);
  // The current frame: header lengths, next sequence number, sum of its data.
  #l3 = 0;
  #l4 = 0;
  #next = 0;
  #sum = 0;
  // The segment just read.
  #segL3 = 0;
  #segL4 = 0;
  #segLen = 0;
  #segStatus = 0;

  constructor(core: TnCore) {
    this.#core = core;
    this.#held = core.sramOff + SRAM_RX_LRO;
    this.#seg = core.sramOff + SRAM_RX_SEG;
  }

  /** Whether the frame of `len` bytes at `frame`, with the verdict `status`, may be coalesced. */
  eligible(frame: number, len: number, status: number): boolean {
    const { mem, view } = this.#core;
    if ((status & ~TN_RXS_IPCS) !== TN_RXS_L4CS || len < HDR_MIN) return false;
    mem.copyWithin(this.#seg, frame, frame + Math.min(len, HDR_MAX));
    const type = view.getUint16(this.#seg + 12);
    const ip = this.#seg + ETHER_HDR_LEN;
    const v4 = type === ETHERTYPE_IP;
    if (!v4 && type !== ETHERTYPE_IPV6) return false;
    const l3 = v4 ? 20 : 40;
    const first = view.getUint8(ip);
    if (v4 ? first !== 0x45 : first >>> 4 !== 6) return false;
    if (view.getUint8(ip + (v4 ? 9 : 6)) !== IPPROTO_TCP) return false;
    const ipLen = v4 ? view.getUint16(ip + 2) : view.getUint16(ip + 4) + 40;
    if (ETHER_HDR_LEN + ipLen !== len) return false;
    const th = ip + l3;
    const l4 = (view.getUint8(th + 12) >>> 4) * 4;
    if ((view.getUint8(th + 12) & 0xf) !== 0 || (l4 !== 20 && l4 !== 32)) return false;
    if (ipLen < l3 + l4) return false;
    if (l4 === 32 && view.getUint32(th + 20) !== TS_WORD) return false;
    if ((view.getUint8(th + 13) & ~TH_PUSH) !== TH_ACK) return false;
    this.#segL3 = l3;
    this.#segL4 = l4;
    this.#segLen = len;
    this.#segStatus = status;
    return true;
  }

  /** Whether PSH is set in the segment just read: its frame must be delivered immediately. */
  get pushed(): boolean {
    const { view } = this.#core;
    const th = this.#seg + ETHER_HDR_LEN + this.#segL3;
    return (view.getUint8(th + 13) & TH_PUSH) !== 0;
  }

  /** Starts a frame with the segment in `bufs`, pairs of offset and length. */
  hold(bufs: Uint32Array, bufSize: number): void {
    const { mem, view } = this.#core;
    mem.copyWithin(this.#held, this.#seg, this.#seg + HDR_MAX);
    this.#l3 = this.#segL3;
    this.#l4 = this.#segL4;
    this.len = this.#segLen;
    this.segs = 1;
    this.ids[0] = this.segId;
    this.status = this.#segStatus;
    this.nbufs = Math.ceil(this.len / bufSize);
    for (let i = 0; i < this.nbufs; i++) this.#bufs[i] = bufs[2 * i]!;
    const payload = this.#segPayload();
    const th = this.#held + ETHER_HDR_LEN + this.#l3;
    this.#next = (view.getInt32(th + 4) + payload) | 0;
    this.#sum = this.#payloadSum();
  }

  /**
   * Appends the segment, which is in the `nbufs` buffers `bufs` after those of the current frame.
   * Returns false, without a change, if the segment does not continue the frame.
   */
  merge(bufs: Uint32Array, nbufs: number, bufSize: number): boolean {
    if (!this.#continues()) return false;
    const { mem, view } = this.#core;
    const payload = this.#segPayload();
    for (let i = 0; i < nbufs; i++) this.#bufs[this.nbufs + i] = bufs[2 * i]!;
    this.#append(bufs, bufSize, this.#segLen - payload, payload);
    const sum = this.#payloadSum();
    const odd = ((this.len - ETHER_HDR_LEN) & 1) === 1; // headers are even
    this.#sum = fold16(this.#sum + (odd ? ((sum & 0xff) << 8) | (sum >>> 8) : sum));
    this.len += payload;
    this.ids[this.segs] = this.segId;
    this.segs++;
    this.nbufs = Math.ceil(this.len / bufSize);
    this.#next = (this.#next + payload) | 0;
    const to = this.#held + ETHER_HDR_LEN + this.#l3;
    const from = this.#seg + ETHER_HDR_LEN + this.#l3;
    mem.copyWithin(to + 8, from + 8, from + 12); // acknowledgement
    view.setUint8(to + 13, view.getUint8(to + 13) | view.getUint8(from + 13));
    mem.copyWithin(to + 14, from + 14, from + 16); // window
    if (this.#l4 === 32) mem.copyWithin(to + 24, from + 24, from + 32);
    return true;
  }

  /** Completes the headers of the current frame and ends it. Returns its status bits. */
  finish(): number {
    this.nbufs = 0;
    if (this.segs === 1) return this.status;
    const { cksum, mem, view } = this.#core;
    const ip = this.#held + ETHER_HDR_LEN;
    const ipLen = this.len - ETHER_HDR_LEN;
    if (this.#l3 === 20) {
      view.setUint16(ip + 2, ipLen);
      view.setUint16(ip + 10, 0);
      view.setUint16(ip + 10, ~cksum.sum(ip, 20, 0) & 0xffff);
    } else {
      view.setUint16(ip + 4, ipLen - 40);
    }
    const th = ip + this.#l3;
    view.setUint16(th + 16, 0);
    const headers = this.#headerSum(this.#held, ipLen - this.#l3);
    view.setUint16(th + 16, ~fold16(headers + this.#sum) & 0xffff);
    const hdrLen = ETHER_HDR_LEN + this.#l3 + this.#l4;
    mem.copyWithin(this.#bufs[0]!, this.#held, this.#held + hdrLen);
    return this.status | (this.segs << TN_RXS_SEGS_SHIFT);
  }

  /** The buffers of the frame that ended last, as pairs of offset and length. */
  pairs(bufSize: number): Uint32Array {
    const n = Math.ceil(this.len / bufSize);
    for (let i = 0; i < n; i++) {
      this.#pairs[2 * i] = this.#bufs[i]!;
      this.#pairs[2 * i + 1] = bufSize;
    }
    return this.#pairs;
  }

  #segPayload(): number {
    return this.#segLen - ETHER_HDR_LEN - this.#segL3 - this.#segL4;
  }

  /** Sums a pseudo-header and the TCP header of the headers at `hdr`, not folded. */
  #headerSum(hdr: number, l4Len: number): number {
    const { cksum } = this.#core;
    const ip = hdr + ETHER_HDR_LEN;
    const addrs = this.#l3 === 20 ? cksum.sum(ip + 12, 8, 0) : cksum.sum(ip + 8, 32, 0);
    return addrs + IPPROTO_TCP + l4Len + cksum.sum(ip + this.#l3, this.#l4, 0);
  }

  /**
   * The sum of the segment's data, computed from its headers: the sum of a verified segment is
   * 0xffff.
   */
  #payloadSum(): number {
    const l4Len = this.#segLen - ETHER_HDR_LEN - this.#segL3;
    return ~fold16(this.#headerSum(this.#seg, l4Len)) & 0xffff;
  }

  #same(off: number, n: number): boolean {
    const { mem } = this.#core;
    for (let i = off; i < off + n; i++)
      if (mem[this.#held + i] !== mem[this.#seg + i]) return false;
    return true;
  }

  /** Whether the segment is the next one of the current frame. */
  #continues(): boolean {
    const { view } = this.#core;
    if (this.#segL3 !== this.#l3 || this.#segL4 !== this.#l4) return false;
    if (this.segs >= TN_RXS_SEGS_MASK) return false;
    if (this.len - ETHER_HDR_LEN + this.#segPayload() > IP_LEN_MAX) return false;
    const th = ETHER_HDR_LEN + this.#l3;
    if (view.getInt32(this.#seg + th + 4) !== this.#next) return false;
    // Compare the Ethernet header, the first word of the IP header without the length, then flags,
    // offset, TTL and addresses.
    const sameIp =
      this.#l3 === 20
        ? this.#same(0, 16) && this.#same(20, 3) && this.#same(26, 8)
        : this.#same(0, 18) && this.#same(21, 33);
    if (!sameIp || !this.#same(th, 4) || !this.#sameKind(th)) return false;
    return this.#notBefore(th + 8) && (this.#l4 === 20 || this.#notBefore(th + 24));
  }

  /**
   * Data continue data. An acknowledgment continues one if it acknowledges more: equal ones are
   * duplicates, which the receiver counts, or window updates.
   */
  #sameKind(th: number): boolean {
    const { view } = this.#core;
    const payload = this.#segPayload();
    if (this.len > th + this.#l4) return payload > 0;
    return (
      payload === 0 && view.getInt32(this.#seg + th + 8) !== view.getInt32(this.#held + th + 8)
    );
  }

  /**
   * Whether the segment's 32-bit number at `off` is equal to or after that of the frame, modulo
   * 2^32.
   */
  #notBefore(off: number): boolean {
    const { view } = this.#core;
    return ((view.getInt32(this.#seg + off) - view.getInt32(this.#held + off)) | 0) >= 0;
  }

  /** Moves `n` bytes at offset `from` of the segment to the end of the current frame. */
  #append(bufs: Uint32Array, bufSize: number, from: number, n: number): void {
    const { mem } = this.#core;
    let to = this.len;
    while (n > 0) {
      const src = from % bufSize;
      const dst = to % bufSize;
      const k = Math.min(n, bufSize - src, bufSize - dst);
      const at = bufs[2 * Math.floor(from / bufSize)]! + src;
      mem.copyWithin(this.#bufs[Math.floor(to / bufSize)]! + dst, at, at + k);
      from += k;
      to += k;
      n -= k;
    }
  }
}
