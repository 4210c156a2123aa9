/**
 * The receive engine of `tn`: one scatter read per frame directly into the buffers that the driver
 * posted, then address filter, checksum verification, VLAN stripping and write-back. It reads the
 * wire only while enough buffers for the longest frame are posted, so frames wait on the wire, and
 * are not lost, while the driver is slow. Coalescing is in tn_lro.ts. Left out: several queues,
 * header splitting.
 */

import { CAPTURE_IN, CAPTURE_RING } from '../../sys/capture.ts';
import {
  META_CSUM_BAD,
  META_CSUM_NIC,
  META_CSUM_UNKNOWN,
  META_CSUM_VERIFIED,
  META_LINK_LRO,
} from '../../sys/capture_meta.ts';
import { R_DEV_RX_BAD } from '../../sys/reason.ts';
import { EAGAIN } from '../../sys/errno.ts';
import { ETHER_HDR_LEN, ETHERTYPE_VLAN } from '../../sys/protocols.ts';
import {
  VNET_F_DATA_VALID,
  VNET_F_NEEDS_CSUM,
  VNET_GSO_NONE,
  VNET_HDR_LEN,
} from '../../sys/wire.ts';
import { AddressFilter, hashBe } from '../blocks/address_filter.ts';
import { RxEngine } from '../blocks/ring_nic.ts';
import { RxVerdict, type VerdictNumbers } from '../blocks/rx_verdict.ts';
import { SRAM_RX_VNET, type TnCore, TnRing } from './tn_core.ts';
import { TnLro } from './tn_lro.ts';
import {
  TN_D_ADDRH,
  TN_D_ADDRL,
  TN_D_LEN,
  TN_D_STAT,
  TN_DESC_SIZE,
  TN_INT_RXDW,
  TN_MAXFRM_MAX,
  TN_MAXFRM_RESET,
  TN_RX_BUDGET,
  TN_RX_EXTHDRS,
  TN_RX_L3_MAX,
  TN_RXBSZ_MIN,
  TN_RXS_DD,
  TN_RXS_EOP,
  TN_RXS_ERR,
  TN_RXS_ID,
  TN_RXS_IPCS,
  TN_RXS_IPE,
  TN_RXS_L4CS,
  TN_RXS_L4E,
  TN_RXS_SEGS_MASK,
  TN_RXS_SEGS_SHIFT,
  TN_RXS_VP,
  TN_ST_RX_BYTES,
  TN_ST_RX_FRAMES,
  TN_ST_RX_IP_ERROR,
  TN_ST_RX_L4_ERROR,
  TN_ST_RX_LRO,
  TN_ST_RX_LRO_SEGMENTS,
} from './tnreg.ts';

const BUFS_MAX = Math.floor(TN_MAXFRM_MAX / TN_RXBSZ_MIN) + 1;

const numbers: VerdictNumbers = {
  ip4: TN_RXS_IPCS,
  ip4Bad: TN_RXS_IPE,
  l4: TN_RXS_L4CS,
  l4Bad: TN_RXS_L4E,
  ipErrors: TN_ST_RX_IP_ERROR,
  l4Errors: TN_ST_RX_L4_ERROR,
  vlan: true,
  extHeaders: TN_RX_EXTHDRS,
  l3Max: TN_RX_L3_MAX,
};

/** The receive ring, address filter and checksum verifier. */
export class TnRx extends RxEngine<TnCore, TnRing> {
  /** TN_RXBSZ: bytes of a buffer. */
  bufSize = TN_RXBSZ_MIN;
  /** TN_MAXFRM. */
  frameMax = TN_MAXFRM_RESET;
  /** It holds a frame only while a drain runs. */
  readonly #lro: TnLro;
  // One frame. Pair 0 is the virtio-net header, used only in mode `vnet`.
  readonly #iov = new Uint32Array(2 * (BUFS_MAX + 1));
  readonly #bufs = this.#iov.subarray(2);
  readonly #checker: RxVerdict;
  #nbufs = 0;
  #vtag = 0;

  constructor(core: TnCore, mac: Uint8Array) {
    super(core, new TnRing(), new AddressFilter(mac, hashBe));
    this.#lro = new TnLro(core);
    this.#checker = new RxVerdict(core, this.#bufs, numbers);
    this.#iov[0] = core.sramOff + SRAM_RX_VNET;
    this.#iov[1] = VNET_HDR_LEN;
  }

  override reset(): void {
    super.reset();
    this.bufSize = TN_RXBSZ_MIN;
    this.frameMax = TN_MAXFRM_RESET;
  }

  /** Handles a write of TN_RDT. Returns false if the slot does not exist. */
  setTail(slot: number): boolean {
    const { ring } = this;
    if (!this.enabled || slot >= ring.ndesc) return false;
    ring.tail = slot;
    if (this.stalled && !this.stopped && ring.used >= this.#needed()) this.resume();
    return true;
  }

  /** Receives waiting frames: at most TN_RX_BUDGET now, the rest on later turns of the loop. */
  drain(): void {
    if (!this.enabled || this.stopped || this.stalled) return;
    const { ring } = this;
    const { wire, vnet } = this.core;
    const base = this.beginRound(ring.baseLo, ring.baseHi, ring.len);
    if (base < 0) return;
    let budget = TN_RX_BUDGET;
    for (; budget > 0; budget--) {
      if (ring.used - this.#lro.nbufs < this.#needed()) {
        this.stall();
        break;
      }
      if (!this.#gather(base)) continue;
      const n = vnet ? wire.readv(this.#iov, this.#nbufs + 1) : wire.readv(this.#bufs, this.#nbufs);
      if (n < 0) {
        if (n !== -EAGAIN) this.wireGone();
        break;
      }
      this.#receive(base, vnet ? n - VNET_HDR_LEN : n);
    }
    this.#flush(base);
    this.endRound(budget === 0);
  }

  /**
   * Number of buffers for one byte more than the longest frame, so that a longer one is detected.
   */
  #needed(): number {
    return Math.floor(this.frameMax / this.bufSize) + 1;
  }

  /**
   * Lists the buffers for one frame, after those of a frame being coalesced. Returns false if one
   * cannot be used; it and those before it are then written back with an error, because descriptors
   * are consumed in order.
   */
  #gather(base: number): boolean {
    const { dma, view } = this.core;
    const { ring } = this;
    const n = this.#needed();
    let slot = ring.head + this.#lro.nbufs;
    if (slot >= ring.ndesc) slot -= ring.ndesc;
    for (let i = 0; i < n; i++, slot = ring.next(slot)) {
      const at = base + slot * TN_DESC_SIZE;
      const lo = view.getInt32(at + TN_D_ADDRL, true);
      const hi = view.getInt32(at + TN_D_ADDRH, true);
      const off = dma.map(lo, hi, this.bufSize, true);
      if (off < 0) {
        this.core.dmaFault();
        this.badBuffer();
        this.#flush(base);
        const first = ring.head;
        for (let k = 0; k <= i; k++) this.#writeBack(base, 0, TN_RXS_ERR, 0);
        this.#captureBad(base, first, i + 1);
        return false;
      }
      this.#bufs[2 * i] = off;
      this.#bufs[2 * i + 1] = this.bufSize;
    }
    this.#nbufs = n;
    return true;
  }

  /** @param id the frame's id with its last descriptor; otherwise 0 */
  #writeBack(base: number, len: number, status: number, id: number): void {
    const { ring } = this;
    const at = base + ring.head * TN_DESC_SIZE;
    const tag = (status & TN_RXS_VP) !== 0 ? this.#vtag : 0;
    if (id !== 0) {
      this.core.view.setUint32(at + TN_D_ADDRL, id, true);
      status |= TN_RXS_ID;
    }
    this.core.view.setInt32(at + TN_D_LEN, (tag << 16) | len, true);
    this.core.view.setInt32(at + TN_D_STAT, TN_RXS_DD | status, true);
    ring.head = ring.next(ring.head);
    this.causes |= TN_INT_RXDW;
  }

  /**
   * Filters and verifies a frame of `len` bytes in the listed buffers and hands it to the driver.
   */
  #receive(base: number, len: number): void {
    const { lro, rxCsum4, rxCsum6, vlStrip, view } = this.core;
    const id = this.core.rxId();
    if (!this.core.arrived(len, this.frameMax, id)) return;
    const frame = this.#bufs[0]!;
    if (!this.#accepts(frame)) {
      this.core.filtered(id, this.#bufs, this.#nbufs, len);
      return;
    }
    const trusted = this.#trusted();
    let status = this.#checker.verdict(len, this.bufSize, trusted, rxCsum4, rxCsum6);
    if (id !== 0)
      this.core.captureWire(CAPTURE_IN, id, this.#bufs, this.#nbufs, len, this.#csum(status));
    this.#lro.segId = id;
    if (this.core.vnet && (status & TN_RXS_L4CS) === 0) this.#finishCsum(len);
    if (lro && this.#coalesce(base, frame, len, status)) return;
    if (this.core.vnet) status |= this.#segments(len) << TN_RXS_SEGS_SHIFT;
    if (vlStrip && len >= ETHER_HDR_LEN + 4 && view.getUint16(frame + 12) === ETHERTYPE_VLAN) {
      status |= TN_RXS_VP;
      this.#strip(frame, len);
      len -= 4;
    }
    this.#deliver(base, len, status, id, this.#bufs);
  }

  /** The checksum state of a frame with the verdict `status`, for captures. */
  #csum(status: number): number {
    if ((status & (TN_RXS_IPE | TN_RXS_L4E)) !== 0) return META_CSUM_BAD;
    const { view, sramOff, vnet } = this.core;
    if (vnet && (view.getUint8(sramOff + SRAM_RX_VNET) & VNET_F_NEEDS_CSUM) !== 0)
      return META_CSUM_NIC;
    return (status & TN_RXS_L4CS) !== 0 ? META_CSUM_VERIFIED : META_CSUM_UNKNOWN;
  }

  /** @param bufs the frame's buffers: pairs of offset and length */
  #deliver(base: number, len: number, status: number, id: number, bufs: Uint32Array): void {
    const { stats } = this.core;
    const { head, ndesc } = this.ring;
    stats[TN_ST_RX_FRAMES]! += 1;
    stats[TN_ST_RX_BYTES]! += len;
    let left = len;
    let n = 1;
    for (; left > this.bufSize; left -= this.bufSize, n++)
      this.#writeBack(base, this.bufSize, 0, 0);
    this.#writeBack(base, left, status | TN_RXS_EOP, id);
    const facts = this.core.ringFacts();
    if (facts === null) return;
    facts.csum = this.#csum(status);
    facts.descs(base, ndesc, TN_DESC_SIZE, head, n);
    this.core.captureRing(CAPTURE_IN, id, bufs, n, len);
  }

  /** Records `n` descriptors that were written back with an error. */
  #captureBad(base: number, first: number, n: number): void {
    this.core.eventFacts()?.descs(base, this.ring.ndesc, TN_DESC_SIZE, first, n);
    this.core.captureDrop(CAPTURE_RING, CAPTURE_IN, 0, R_DEV_RX_BAD, 0);
  }

  /**
   * Tries to coalesce a frame. Returns false if the caller must deliver it; a frame being coalesced
   * was then delivered first.
   */
  #coalesce(base: number, frame: number, len: number, status: number): boolean {
    const lro = this.#lro;
    if (!lro.eligible(frame, len, status)) {
      this.#flush(base);
      return false;
    }
    const { pushed } = lro;
    if (lro.nbufs > 0) {
      if (lro.merge(this.#bufs, this.#nbufs, this.bufSize)) {
        if (pushed) this.#flush(base);
        return true;
      }
      this.#flush(base);
    }
    if (pushed) return false;
    lro.hold(this.#bufs, this.bufSize);
    return true;
  }

  /** Delivers the frame being coalesced, if any. */
  #flush(base: number): void {
    const lro = this.#lro;
    if (lro.nbufs === 0) return;
    const { stats } = this.core;
    const facts = this.core.ringFacts();
    let id = lro.ids[0]!;
    if (lro.segs > 1) {
      stats[TN_ST_RX_LRO]! += 1;
      stats[TN_ST_RX_LRO_SEGMENTS]! += lro.segs;
      if (id !== 0) {
        id = this.core.rxId();
        facts?.links(META_LINK_LRO, lro.ids, lro.segs);
      }
    }
    const status = lro.finish();
    const bufs = facts !== null ? lro.pairs(this.bufSize) : this.#bufs;
    this.#deliver(base, lro.len, status, id, bufs);
  }

  /**
   * Whether the frame passes the address filter: station address, broadcast, multicast hash, and
   * the two modes.
   */
  #accepts(frame: number): boolean {
    const { mem, promisc, allmulti } = this.core;
    return this.filter.accepts(mem, frame, promisc, allmulti);
  }

  /** VIRTIO 1.1, 5.1.6.4: either flag means that the data are unchanged since the sender. */
  #trusted(): boolean {
    const { view, sramOff, vnet } = this.core;
    if (!vnet) return false;
    const flags = view.getUint8(sramOff + SRAM_RX_VNET);
    return (flags & (VNET_F_NEEDS_CSUM | VNET_F_DATA_VALID)) !== 0;
  }

  /** Number of segments that the peer would have sent for this frame; 0 for an ordinary one. */
  #segments(len: number): number {
    const { view, sramOff } = this.core;
    const vnet = sramOff + SRAM_RX_VNET;
    const size = view.getUint16(vnet + 4, true);
    if (view.getUint8(vnet + 1) === VNET_GSO_NONE || size === 0) return 0;
    const payload = len - view.getUint16(vnet + 2, true);
    return Math.min(Math.max(Math.ceil(payload / size), 1), TN_RXS_SEGS_MASK);
  }

  /** Computes the checksum that the peer left out, for a frame without a TCP or UDP verdict. */
  #finishCsum(len: number): void {
    const { view, sramOff } = this.core;
    const vnet = sramOff + SRAM_RX_VNET;
    if ((view.getUint8(vnet) & VNET_F_NEEDS_CSUM) === 0) return;
    const start = view.getUint16(vnet + 6, true);
    const field = start + view.getUint16(vnet + 8, true);
    if (start < ETHER_HDR_LEN || field + 2 > Math.min(len, this.bufSize)) return;
    const sum = ~this.#checker.sum(start, len - start, this.bufSize, 0) & 0xffff;
    view.setUint16(this.#bufs[0]! + field, sum === 0 ? 0xffff : sum);
  }

  /**
   * Removes the four bytes of the VLAN tag and moves the following bytes forward, buffer by buffer.
   */
  #strip(frame: number, len: number): void {
    const { mem, view } = this.core;
    this.#vtag = view.getUint16(frame + 14);
    const size = this.bufSize;
    mem.copyWithin(frame + 12, frame + 16, frame + Math.min(len, size));
    for (let i = 1; i * size < len; i++) {
      const buf = this.#bufs[2 * i]!;
      const n = Math.min(len - i * size, size);
      mem.copyWithin(this.#bufs[2 * i - 2]! + size - 4, buf, buf + Math.min(n, 4));
      if (n > 4) mem.copyWithin(buf, buf + 4, buf + n);
    }
  }
}
