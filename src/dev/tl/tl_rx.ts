/**
 * The receive engine of `tl`: reads a frame into one posted buffer, filters by address, verifies
 * checksums and writes the descriptor back. It reads the wire only while there is a buffer, so a slow
 * driver pushes back on the wire instead of losing frames.
 */

import { fold16 } from '../../sys/cksum.ts';
import { EAGAIN } from '../../sys/errno.ts';
import { AddressFilter, hashBe } from '../blocks/address_filter.ts';
import { ETHER_HDR_LEN } from '../blocks/nic_core.ts';
import { RxEngine } from '../blocks/ring_nic.ts';
import { type TlCore, TlRing } from './tl_core.ts';
import {
  TL_BOUNDARY,
  TL_CTRL_MULTI,
  TL_CTRL_PROMISC,
  TL_CTRL_RXSUM,
  TL_FRAME_MAX,
  TL_INT_RX,
  TL_R_ADDR,
  TL_R_LEN,
  TL_R_STATUS,
  TL_RX_BUDGET,
  TL_RXBUF_SIZE,
  TL_RXD_SIZE,
  TL_RXS_DONE,
  TL_RXS_ERR,
  TL_RXS_IP4,
  TL_RXS_IPBAD,
  TL_RXS_L4,
  TL_RXS_L4BAD,
  TL_ST_RX_BYTES,
  TL_ST_RX_FRAMES,
  TL_ST_RX_IP_ERROR,
  TL_ST_RX_L4_ERROR,
} from './tlreg.ts';

const ETHERTYPE_IP = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const IPPROTO_TCP = 6;
const IPPROTO_UDP = 17;

/** The receive ring, address filter and checksum verifier. */
export class TlRx extends RxEngine<TlCore, TlRing> {
  readonly #iov = new Uint32Array(2);

  constructor(core: TlCore, mac: Uint8Array) {
    super(core, new TlRing(), new AddressFilter(mac, hashBe));
    this.#iov[1] = TL_RXBUF_SIZE;
  }

  /** TL_RXPUT was written: false if there is no such descriptor. */
  setPut(index: number): boolean {
    if (!this.enabled || index >= this.ring.size) return false;
    this.ring.put = index;
    if (this.stalled && !this.stopped && this.ring.get !== index) this.resume();
    return true;
  }

  /** Receives what waits, at most TL_RX_BUDGET frames now, the rest on later turns. */
  drain(): void {
    if (!this.enabled || this.stopped || this.stalled) return;
    const { ring } = this;
    const { wire } = this.core;
    const base = this.beginRound(ring.base, 0, ring.size * TL_RXD_SIZE);
    if (base < 0) return;
    let budget = TL_RX_BUDGET;
    for (; budget > 0; budget--) {
      if (ring.get === ring.put) {
        this.stall();
        break;
      }
      const at = base + ring.get * TL_RXD_SIZE;
      if (!this.#aim(at)) continue;
      const n = wire.readv(this.#iov, 1);
      if (n < 0) {
        if (n !== -EAGAIN) this.wireGone();
        break;
      }
      this.#receive(at, n);
    }
    this.endRound(budget === 0);
  }

  /** Aims at a descriptor's buffer; if that cannot be used it goes back marked bad, and false. */
  #aim(at: number): boolean {
    const { dma, view } = this.core;
    const addr = view.getInt32(at + TL_R_ADDR, true);
    let off = -1;
    if ((addr & (TL_BOUNDARY - 1)) + TL_RXBUF_SIZE <= TL_BOUNDARY) {
      off = dma.map(addr, 0, TL_RXBUF_SIZE, true);
      if (off < 0) this.core.dmaFault();
    }
    if (off >= 0) {
      this.#iov[0] = off;
      return true;
    }
    this.badBuffer();
    this.#writeBack(at, 0, TL_RXS_ERR);
    return false;
  }

  #writeBack(at: number, len: number, status: number): void {
    const { view } = this.core;
    view.setUint32(at + TL_R_LEN, len, true);
    view.setInt32(at + TL_R_STATUS, TL_RXS_DONE | status, true);
    this.ring.advance();
    this.causes |= TL_INT_RX;
  }

  /** A frame of `len` bytes lies in the buffer: judges it and hands it over, or not. */
  #receive(at: number, len: number): void {
    const { stats, ctrl } = this.core;
    const frame = this.#iov[0]!;
    if (!this.core.arrived(this.#iov, 1, len, TL_FRAME_MAX)) return;
    if (!this.#accepts(frame, ctrl)) {
      this.core.filtered();
      return;
    }
    stats[TL_ST_RX_FRAMES]! += 1;
    stats[TL_ST_RX_BYTES]! += len;
    this.#writeBack(at, len, (ctrl & TL_CTRL_RXSUM) === 0 ? 0 : this.#verdict(frame, len));
  }

  /** The address filter: own, broadcast, all of multicast, or everything. */
  #accepts(frame: number, ctrl: number): boolean {
    const { mem } = this.core;
    if ((ctrl & TL_CTRL_PROMISC) !== 0) return true;
    if ((mem[frame]! & 1) === 0) return this.filter.isOwn(mem, frame);
    return (ctrl & TL_CTRL_MULTI) !== 0 || this.filter.isBroadcast(mem, frame);
  }

  /** Verifies the checksums of a frame without VLAN tag; the status bits that say what was found. */
  #verdict(frame: number, len: number): number {
    const { view, cksum, stats } = this.core;
    const type = view.getUint16(frame + 12);
    const ip = frame + ETHER_HDR_LEN;
    const room = len - ETHER_HDR_LEN;
    if (type === ETHERTYPE_IPV6) {
      if (room < 40) return 0;
      const l4Len = view.getUint16(ip + 4);
      if (l4Len > room - 40) return 0;
      return this.#l4Verdict(ip + 40, l4Len, view.getUint8(ip + 6), cksum.sum(ip + 8, 32, 0));
    }
    if (type !== ETHERTYPE_IP || room < 20) return 0;
    const hlen = (view.getUint8(ip) & 0xf) * 4;
    if (view.getUint8(ip) >>> 4 !== 4 || hlen < 20 || room < hlen) return 0;
    if (cksum.sum(ip, hlen, 0) !== 0xffff) {
      stats[TL_ST_RX_IP_ERROR]! += 1;
      return TL_RXS_IP4 | TL_RXS_IPBAD;
    }
    const l4Len = view.getUint16(ip + 2) - hlen;
    // A fragment's checksum covers the whole datagram, which is not here.
    if ((view.getUint16(ip + 6) & 0x3fff) !== 0 || l4Len > room - hlen) return TL_RXS_IP4;
    const proto = view.getUint8(ip + 9);
    return TL_RXS_IP4 | this.#l4Verdict(ip + hlen, l4Len, proto, cksum.sum(ip + 12, 8, 0));
  }

  /** @param addrSum sum of the IP addresses */
  #l4Verdict(at: number, len: number, proto: number, addrSum: number): number {
    const { view, cksum, stats } = this.core;
    const udp = proto === IPPROTO_UDP;
    if (!udp && proto !== IPPROTO_TCP) return 0;
    if (len < (udp ? 8 : 20)) return 0;
    if (udp && view.getUint16(at + 4) !== len) return 0;
    if (udp && view.getUint16(at + 6) === 0) return 0; // RFC 768: the sender made none
    if (cksum.sum(at, len, fold16(addrSum + proto + len)) === 0xffff) return TL_RXS_L4;
    stats[TL_ST_RX_L4_ERROR]! += 1;
    return TL_RXS_L4 | TL_RXS_L4BAD;
  }
}
