/**
 * The receive engine of `tl`: reads a frame into one posted buffer, filters it by address, verifies
 * its checksums and writes the descriptor back. It reads the wire only while a buffer is posted, so
 * frames wait on the wire, and are not lost, while the driver is slow.
 */

import { CAPTURE_IN, CAPTURE_RING } from '../../sys/capture.ts';
import { META_CSUM_BAD, META_CSUM_UNKNOWN, META_CSUM_VERIFIED } from '../../sys/capture_meta.ts';
import { R_DEV_RX_BAD } from '../../sys/reason.ts';
import { EAGAIN } from '../../sys/errno.ts';
import { AddressFilter, hashBe } from '../blocks/address_filter.ts';
import { RxEngine } from '../blocks/ring_nic.ts';
import { RxVerdict, type VerdictNumbers } from '../blocks/rx_verdict.ts';
import { type TlCore, TlRing } from './tl_core.ts';
import {
  TL_BOUNDARY,
  TL_CTRL_MULTI,
  TL_CTRL_PROMISC,
  TL_CTRL_RXSUM,
  TL_FRAME_MAX,
  TL_INT_RX,
  TL_R_ADDR,
  TL_R_ID,
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

/** The unit does not verify frames with a VLAN tag or with IPv6 extension headers. */
const numbers: VerdictNumbers = {
  ip4: TL_RXS_IP4,
  ip4Bad: TL_RXS_IPBAD,
  l4: TL_RXS_L4,
  l4Bad: TL_RXS_L4BAD,
  ipErrors: TL_ST_RX_IP_ERROR,
  l4Errors: TL_ST_RX_L4_ERROR,
  vlan: false,
  extHeaders: 0,
  l3Max: 40,
};

/** The checksum state of a frame with `status`, for captures. */
function csumOf(status: number): number {
  if ((status & (TL_RXS_IPBAD | TL_RXS_L4BAD)) !== 0) return META_CSUM_BAD;
  return (status & TL_RXS_L4) !== 0 ? META_CSUM_VERIFIED : META_CSUM_UNKNOWN;
}

/** The receive ring, address filter and checksum verifier. */
export class TlRx extends RxEngine<TlCore, TlRing> {
  readonly #iov = new Uint32Array(2);
  readonly #checker: RxVerdict;

  constructor(core: TlCore, mac: Uint8Array) {
    super(core, new TlRing(), new AddressFilter(mac, hashBe));
    this.#iov[1] = TL_RXBUF_SIZE;
    this.#checker = new RxVerdict(core, this.#iov, numbers);
  }

  /** Handles a write of TL_RXPUT. Returns false if the descriptor does not exist. */
  setPut(index: number): boolean {
    if (!this.enabled || index >= this.ring.size) return false;
    this.ring.put = index;
    if (this.stalled && !this.stopped && this.ring.get !== index) this.resume();
    return true;
  }

  /** Receives waiting frames: at most TL_RX_BUDGET now, the rest on later turns of the loop. */
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
      if (!this.#aim(base, at)) continue;
      const n = wire.readv(this.#iov, 1);
      if (n < 0) {
        if (n !== -EAGAIN) this.wireGone();
        break;
      }
      this.#receive(base, at, n);
    }
    this.endRound(budget === 0);
  }

  /**
   * Prepares a descriptor's buffer for the next frame. Returns false if it is bad; the descriptor
   * was then completed with an error.
   */
  #aim(base: number, at: number): boolean {
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
    const { get, size } = this.ring;
    this.#writeBack(at, 0, TL_RXS_ERR, 0);
    this.core.eventFacts()?.descs(base, size, TL_RXD_SIZE, get, 1);
    this.core.captureDrop(CAPTURE_RING, CAPTURE_IN, 0, R_DEV_RX_BAD, 0);
    return false;
  }

  #writeBack(at: number, len: number, status: number, id: number): void {
    const { view } = this.core;
    view.setUint32(at + TL_R_ID, id, true);
    view.setUint32(at + TL_R_LEN, len, true);
    view.setInt32(at + TL_R_STATUS, TL_RXS_DONE | status, true);
    this.ring.advance();
    this.causes |= TL_INT_RX;
  }

  /** Filters and verifies a frame of `len` bytes in the buffer and hands it to the driver. */
  #receive(base: number, at: number, len: number): void {
    const { stats, ctrl } = this.core;
    const { get, size } = this.ring;
    const frame = this.#iov[0]!;
    const id = this.core.rxId();
    if (!this.core.arrived(len, TL_FRAME_MAX, id)) return;
    if (!this.#accepts(frame, ctrl)) {
      this.core.filtered(id, this.#iov, 1, len);
      return;
    }
    stats[TL_ST_RX_FRAMES]! += 1;
    stats[TL_ST_RX_BYTES]! += len;
    const wanted = (ctrl & TL_CTRL_RXSUM) !== 0;
    const status = wanted ? this.#checker.verdict(len, TL_RXBUF_SIZE, false, true, true) : 0;
    if (id !== 0) this.core.captureWire(CAPTURE_IN, id, this.#iov, 1, len, csumOf(status));
    this.#writeBack(at, len, status, id);
    const facts = this.core.ringFacts();
    if (facts === null) return;
    facts.csum = csumOf(status);
    facts.descs(base, size, TL_RXD_SIZE, get, 1);
    this.core.captureRing(CAPTURE_IN, id, this.#iov, 1, len);
  }

  /**
   * Whether the frame passes the address filter: station address, broadcast, all multicast, or
   * promiscuous mode.
   */
  #accepts(frame: number, ctrl: number): boolean {
    const { mem } = this.core;
    if ((ctrl & TL_CTRL_PROMISC) !== 0) return true;
    if ((mem[frame]! & 1) === 0) return this.filter.isOwn(mem, frame);
    return (ctrl & TL_CTRL_MULTI) !== 0 || this.filter.isBroadcast(mem, frame);
  }
}
