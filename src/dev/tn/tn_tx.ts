/**
 * The transmit engine of `tn`: fetches descriptors, gathers data by physical address, inserts
 * checksums and VLAN tags, and cuts TSO packets into segments, with one gather write per frame.
 * Only headers are copied, to on-board memory, and changed there; payload is not copied. The
 * position inside a packet is kept while the wire is full and between turns of the loop. A
 * descriptor may contain any value: a bad packet is counted and dropped.
 */

import { CAPTURE_OUT, CAPTURE_RING } from '../../sys/capture.ts';
import type { FrameFacts } from '../../sys/capture_facts.ts';
import { META_CSUM_NIC, META_CSUM_SOFTWARE } from '../../sys/capture_meta.ts';
import { fold16 } from '../../sys/cksum.ts';
import {
  ETHER_HDR_LEN,
  ETHERTYPE_VLAN,
  TCP_CKSUM_OFF,
  TH_CWR,
  TH_FIN,
  TH_PUSH,
  UDP_CKSUM_OFF,
} from '../../sys/protocols.ts';
import { R_DEV_TX_BAD } from '../../sys/reason.ts';
import {
  VNET_F_NEEDS_CSUM,
  VNET_GSO_ECN,
  VNET_GSO_NONE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_HDR_LEN,
} from '../../sys/wire.ts';
import { BLOCKED as WIRE_BLOCKED, SENT } from '../blocks/nic_core.ts';
import { TxEngine } from '../blocks/ring_nic.ts';
import {
  SRAM_TX_FIFO,
  SRAM_TX_HDR,
  SRAM_TX_VNET,
  SRAM_ZERO,
  type TnCore,
  TnRing,
} from './tn_core.ts';
import {
  TN_C_HDRLEN,
  TN_C_L2_MASK,
  TN_C_L3_MASK,
  TN_C_L3_SHIFT,
  TN_C_L4_MASK,
  TN_C_L4_SHIFT,
  TN_C_MSS,
  TN_C_TAG,
  TN_D_ADDRH,
  TN_D_ADDRL,
  TN_D_LEN,
  TN_D_STAT,
  TN_DESC_SIZE,
  TN_FRAME_MAX,
  TN_FRAME_MIN,
  TN_HDR_MAX,
  TN_INT_TXDW,
  TN_MSS_MIN,
  TN_ST_TX_PACKETS,
  TN_ST_TX_SEGMENTS,
  TN_ST_TX_TSO,
  TN_TX_BUDGET,
  TN_TX_SEGS,
  TN_TXD_CTX,
  TN_TXD_EOP,
  TN_TXD_IXSM,
  TN_TXD_RS,
  TN_TXD_TCP,
  TN_TXD_TSE,
  TN_TXD_TXSM,
  TN_TXD_V6,
  TN_TXD_VLE,
  TN_TXS_DD,
  TN_TXS_ERR,
} from './tnreg.ts';

// Results of fetch() and emit().
const NOTHING = 0;
const PACKET = 1;
const DROPPED = 2;
const DONE = 3;
const MORE = 4;
const BLOCKED = 5;

/** The transmit ring and the packet being sent. */
export class TnTx extends TxEngine<TnCore, TnRing> {
  /** A bad packet is incomplete: drop its descriptors until its last one arrives. */
  #skipping = false;

  // The packet being sent.
  #active = false;
  #eopSlot = 0;
  #eopStat = 0;
  #npieces = 0;
  readonly #pieceOff = new Uint32Array(TN_TX_SEGS);
  readonly #pieceLen = new Uint32Array(TN_TX_SEGS);
  #total = 0;
  #cmd = 0;
  #vle = false;
  #vtag = 0;
  #l2 = 0;
  #l3 = 0;
  #l4 = 0;
  #mss = 0;
  /** The driver's packet id for captures; 0 for none. */
  #tag = 0;
  /** Bytes of headers in on-board memory; 0 if the frame is sent without changes. */
  #hdrLen = 0;
  // Position in the payload: piece, byte in it, bytes sent, segments sent.
  #pi = 0;
  #po = 0;
  #sent = 0;
  #segs = 0;
  // Values from which each segment's headers are computed.
  #seq0 = 0;
  #ipId0 = 0;
  #thFlags = 0;
  #pseudo = 0;

  // One frame. Pair 0 is the virtio-net header, used only in mode `vnet`.
  readonly #iov = new Uint32Array(2 * (TN_TX_SEGS + 3));
  readonly #frame = this.#iov.subarray(2);
  #niov = 0;
  #frameLen = 0;
  /** The packet as fetched, for captures. */
  readonly #fetched = new Uint32Array(2 * TN_TX_SEGS);

  constructor(core: TnCore) {
    super(core, new TnRing());
    this.#iov[0] = core.sramOff + SRAM_TX_VNET;
    this.#iov[1] = VNET_HDR_LEN;
  }

  protected override forget(): void {
    this.#active = false;
    this.#skipping = false;
  }

  /** Handles a write of TN_TDT. Returns false if the slot does not exist. */
  setTail(slot: number): boolean {
    if (!this.enabled || slot >= this.ring.ndesc) return false;
    this.ring.tail = slot;
    return true;
  }

  /**
   * Sends the packets on the ring: at most TN_TX_BUDGET frames now, the rest on later turns of the
   * loop.
   */
  consume(): void {
    if (!this.enabled || this.stopped || this.blocked) return;
    const { ring } = this;
    if (ring.head === ring.tail && !this.#active) return;
    const base = this.beginRound(ring.baseLo, ring.baseHi, ring.len);
    if (base < 0) return;
    let budget = TN_TX_BUDGET;
    for (; budget > 0; budget--) {
      if (!this.#active) {
        const found = this.#fetch(base);
        if (found === NOTHING) break;
        if (found === DROPPED) continue;
      }
      const did = this.#emit();
      if (did === BLOCKED) break;
      if (did === DONE) this.#complete(base, 0);
    }
    this.endRound(budget === 0 && (this.#active || ring.head !== ring.tail));
  }

  /** Writes the status back, if requested, and moves the head past the packet's descriptors. */
  #complete(base: number, status: number): void {
    if ((this.#eopStat & TN_TXD_RS) !== 0) {
      const at = base + this.#eopSlot * TN_DESC_SIZE + TN_D_STAT;
      this.core.view.setInt32(at, TN_TXS_DD | status, true);
      this.causes |= TN_INT_TXDW;
    }
    this.#active = false;
    this.ring.head = this.ring.next(this.#eopSlot);
    if (status === 0) this.core.stats[TN_ST_TX_PACKETS]! += 1;
  }

  /** @param n number of the packet's descriptors */
  #drop(base: number, n: number): number {
    this.#bad(base, n);
    this.#complete(base, TN_TXS_ERR);
    return DROPPED;
  }

  #bad(base: number, n: number): void {
    this.badPacket();
    const { head, ndesc } = this.ring;
    this.core.eventFacts()?.descs(base, ndesc, TN_DESC_SIZE, head, n);
    this.core.captureDrop(CAPTURE_RING, CAPTURE_OUT, this.#tag, R_DEV_TX_BAD, this.#total);
  }

  /** The checksum state of the packet, for captures. */
  get #csum(): number {
    const left = (this.#cmd & (TN_TXD_TXSM | TN_TXD_TSE)) !== 0;
    return left ? META_CSUM_NIC : META_CSUM_SOFTWARE;
  }

  /** Captures the packet in its `n` descriptors as it was fetched. */
  #captureRing(facts: FrameFacts, base: number, n: number): void {
    const pairs = this.#fetched;
    for (let i = 0; i < this.#npieces; i++) {
      pairs[2 * i] = this.#pieceOff[i]!;
      pairs[2 * i + 1] = this.#pieceLen[i]!;
    }
    facts.csum = this.#csum;
    facts.descs(base, this.ring.ndesc, TN_DESC_SIZE, this.ring.head, n);
    this.core.captureRing(CAPTURE_OUT, this.#tag, pairs, this.#npieces, this.#total);
  }

  /**
   * Reads the next packet's descriptors, at most one round of the ring. Returns DROPPED if they are
   * bad.
   */
  #fetch(base: number): number {
    const { view } = this.core;
    const { ring } = this;
    if (this.#skipping) return this.#skip(base);
    this.#npieces = 0;
    this.#total = 0;
    this.#cmd = 0;
    this.#tag = 0;
    this.#vle = false;
    let bad = false;
    let n = 0;
    for (let slot = ring.head; slot !== ring.tail; slot = ring.next(slot)) {
      const at = base + slot * TN_DESC_SIZE;
      const stat = view.getInt32(at + TN_D_STAT, true);
      n++;
      if ((stat & TN_TXD_CTX) !== 0) {
        if (n === 1 && (stat & TN_TXD_EOP) === 0) this.#context(at, stat);
        else bad = true;
      } else if (!bad) {
        bad = !this.#piece(at, stat);
      }
      if ((stat & TN_TXD_EOP) === 0) continue;
      this.#eopSlot = slot;
      this.#eopStat = stat;
      const facts = bad ? null : this.core.ringFacts();
      if (facts !== null) this.#captureRing(facts, base, n);
      return bad || !this.#prepare() ? this.#drop(base, n) : PACKET;
    }
    // The packet is not complete yet. Wait, unless it is bad or can never be complete.
    if (!bad && n < ring.ndesc - 1) return NOTHING;
    this.#skipping = true;
    this.#bad(base, n);
    ring.head = ring.tail;
    return DROPPED;
  }

  /** Drops descriptors up to the end of a bad packet, which has been counted. */
  #skip(base: number): number {
    const { ring } = this;
    for (let slot = ring.head; slot !== ring.tail; slot = ring.next(slot)) {
      const stat = this.core.view.getInt32(base + slot * TN_DESC_SIZE + TN_D_STAT, true);
      if ((stat & TN_TXD_EOP) === 0) continue;
      this.#skipping = false;
      this.#eopSlot = slot;
      this.#eopStat = stat;
      this.#complete(base, TN_TXS_ERR);
      return DROPPED;
    }
    ring.head = ring.tail;
    return NOTHING;
  }

  #context(at: number, stat: number): void {
    const { view } = this.core;
    const lens = view.getUint32(at + TN_C_HDRLEN, true);
    this.#cmd = stat;
    this.#l2 = lens & TN_C_L2_MASK;
    this.#l3 = (lens >>> TN_C_L3_SHIFT) & TN_C_L3_MASK;
    this.#l4 = (lens >>> TN_C_L4_SHIFT) & TN_C_L4_MASK;
    this.#mss = view.getUint32(at + TN_C_MSS, true) & 0xffff;
    this.#tag = view.getUint32(at + TN_C_TAG, true);
  }

  /** Adds a data descriptor to the packet. Returns false if it is bad. */
  #piece(at: number, stat: number): boolean {
    const { view, dma } = this.core;
    const lenTag = view.getUint32(at + TN_D_LEN, true);
    const len = lenTag & 0xffff;
    if (len === 0 || this.#npieces === TN_TX_SEGS) return false;
    if (this.#npieces === 0) {
      this.#vle = (stat & TN_TXD_VLE) !== 0;
      this.#vtag = lenTag >>> 16;
    }
    const lo = view.getInt32(at + TN_D_ADDRL, true);
    const hi = view.getInt32(at + TN_D_ADDRH, true);
    const off = dma.map(lo, hi, len, false);
    if (off < 0) {
      this.core.dmaFault();
      return false;
    }
    this.#pieceOff[this.#npieces] = off;
    this.#pieceLen[this.#npieces] = len;
    this.#npieces++;
    this.#total += len;
    return true;
  }

  /** Whether the context's header lengths and commands are valid for this packet. */
  #offloadsValid(): boolean {
    const cmd = this.#cmd;
    const tcp = (cmd & TN_TXD_TCP) !== 0;
    const v6 = (cmd & TN_TXD_V6) !== 0;
    const l4Wanted = (cmd & (TN_TXD_TXSM | TN_TXD_TSE)) !== 0;
    if (this.#l2 < ETHER_HDR_LEN || this.#l3 % 4 !== 0 || this.#l3 < (v6 ? 40 : 20)) return false;
    if (!v6 && this.#l3 > 60) return false;
    if (l4Wanted && tcp && (this.#l4 < 20 || this.#l4 > 60 || this.#l4 % 4 !== 0)) return false;
    if (l4Wanted && !tcp && this.#l4 !== 8) return false;
    const hdrLen = this.#l2 + this.#l3 + (l4Wanted ? this.#l4 : 0);
    if (hdrLen + 4 > TN_HDR_MAX || hdrLen > this.#total) return false;
    if ((cmd & TN_TXD_TSE) === 0) return true;
    return (
      tcp &&
      this.#mss >= TN_MSS_MIN &&
      hdrLen + 4 + this.#mss <= TN_FRAME_MAX &&
      this.#total > hdrLen &&
      this.#total - this.#l2 <= 65535
    );
  }

  /** Checks the packet and prepares its first frame. Returns false if the packet is bad. */
  #prepare(): boolean {
    const offloads = (this.#cmd & (TN_TXD_IXSM | TN_TXD_TXSM | TN_TXD_TSE)) !== 0;
    const tso = (this.#cmd & TN_TXD_TSE) !== 0;
    const total = this.#total + (this.#vle ? 4 : 0);
    if (this.#npieces === 0 || this.#total < ETHER_HDR_LEN) return false;
    if (!tso && total > TN_FRAME_MAX) return false;
    if (offloads && !this.#offloadsValid()) return false;
    this.#pi = 0;
    this.#po = 0;
    this.#sent = 0;
    this.#segs = 0;
    this.#hdrLen = 0;
    this.#active = true;
    if (offloads) {
      const l4Wanted = (this.#cmd & (TN_TXD_TXSM | TN_TXD_TSE)) !== 0;
      // A small frame is fetched completely, before the wire can block.
      const small = !tso && this.#total + 4 <= TN_HDR_MAX;
      const hdrLen = this.#l2 + this.#l3 + (l4Wanted ? this.#l4 : 0);
      this.#copyHeaders(small ? this.#total : hdrLen);
    } else if (this.#vle) {
      this.#copyHeaders(ETHER_HDR_LEN);
    }
    if (this.core.vnet) this.#clearVnet();
    if (tso) {
      this.#prepareTso();
    } else {
      this.#gather(total - this.#hdrLen);
      if (offloads) this.#insertCksums();
    }
    return true;
  }

  /** Copies `len` header bytes to on-board memory, with the VLAN tag if one is to be inserted. */
  #copyHeaders(len: number): void {
    const { mem, view, sramOff } = this.core;
    const hdr = sramOff + SRAM_TX_HDR;
    let n = 0;
    while (n < len) {
      const left = this.#pieceLen[this.#pi]! - this.#po;
      const from = this.#pieceOff[this.#pi]! + this.#po;
      const c = Math.min(left, len - n);
      mem.copyWithin(hdr + n, from, from + c);
      n += c;
      this.#po += c;
      if (c === left) {
        this.#pi++;
        this.#po = 0;
      }
    }
    if (this.#vle) {
      mem.copyWithin(hdr + 16, hdr + 12, hdr + len);
      view.setUint16(hdr + 12, ETHERTYPE_VLAN);
      view.setUint16(hdr + 14, this.#vtag);
      n += 4;
      this.#l2 += 4;
    }
    this.#hdrLen = n;
  }

  /**
   * Lists the headers and the next `len` payload bytes as one frame, without advancing the
   * position.
   */
  #gather(len: number): void {
    const frame = this.#frame;
    let n = 0;
    if (this.#hdrLen > 0) {
      frame[0] = this.core.sramOff + SRAM_TX_HDR;
      frame[1] = this.#hdrLen;
      n = 1;
    }
    let po = this.#po;
    let left = len;
    for (let pi = this.#pi; left > 0; pi++, po = 0) {
      const c = Math.min(this.#pieceLen[pi]! - po, left);
      frame[2 * n] = this.#pieceOff[pi]! + po;
      frame[2 * n + 1] = c;
      n++;
      left -= c;
    }
    this.#frameLen = this.#hdrLen + len;
    this.#niov = n;
  }

  /** Copies the listed frame's payload to on-board memory, so that it stays as it was summed. */
  #fill(): void {
    const { mem, sramOff } = this.core;
    const frame = this.#frame;
    const fifo = sramOff + SRAM_TX_FIFO;
    let to = fifo;
    for (let i = 1; i < this.#niov; i++) {
      const from = frame[2 * i]!;
      const len = frame[2 * i + 1]!;
      mem.copyWithin(to, from, from + len);
      to += len;
    }
    if (to === fifo) return;
    frame[2] = fifo;
    frame[3] = to - fifo;
    this.#niov = 2;
  }

  /** Advances the position by `len` payload bytes. */
  #advance(len: number): void {
    while (len > 0) {
      const left = this.#pieceLen[this.#pi]! - this.#po;
      if (len < left) {
        this.#po += len;
        return;
      }
      len -= left;
      this.#pi++;
      this.#po = 0;
    }
  }

  /**
   * Adds the listed frame, starting at byte `from` of its headers, to `sum`. Returns the folded
   * sum.
   */
  #sumFrame(from: number, sum: number): number {
    const { cksum } = this.core;
    const frame = this.#frame;
    let odd = false;
    for (let i = 0; i < this.#niov; i++) {
      const skip = i === 0 ? from : 0;
      const len = frame[2 * i + 1]! - skip;
      const s = cksum.sum(frame[2 * i]! + skip, len, 0);
      // If a piece starts at an odd byte, swap the two bytes of its sum.
      sum += odd ? ((s & 0xff) << 8) | (s >>> 8) : s;
      if ((len & 1) === 1) odd = !odd;
    }
    return fold16(sum);
  }

  #clearVnet(): void {
    const at = this.core.sramOff + SRAM_TX_VNET;
    this.core.mem.fill(0, at, at + VNET_HDR_LEN);
  }

  /**
   * Requests the TCP or UDP checksum from the peer. The checksum field holds the pseudo-header's
   * sum.
   */
  #vnetNeedsCsum(field: number): void {
    const { view, sramOff } = this.core;
    const at = sramOff + SRAM_TX_VNET;
    view.setUint8(at, VNET_F_NEEDS_CSUM);
    view.setUint16(at + 6, this.#l2 + this.#l3, true);
    view.setUint16(at + 8, field, true);
  }

  #ipCksum(): void {
    const { view, cksum, sramOff } = this.core;
    const ip = sramOff + SRAM_TX_HDR + this.#l2;
    view.setUint16(ip + 10, 0);
    view.setUint16(ip + 10, ~cksum.sum(ip, this.#l3, 0) & 0xffff);
  }

  /** Inserts the checksums of a packet that is one frame. */
  #insertCksums(): void {
    const { view, sramOff, vnet } = this.core;
    if ((this.#cmd & (TN_TXD_IXSM | TN_TXD_V6)) === TN_TXD_IXSM) this.#ipCksum();
    if ((this.#cmd & TN_TXD_TXSM) === 0) return;
    const tcp = (this.#cmd & TN_TXD_TCP) !== 0;
    const field = tcp ? TCP_CKSUM_OFF : UDP_CKSUM_OFF;
    if (vnet) {
      this.#vnetNeedsCsum(field);
      return;
    }
    this.#fill();
    const l4 = this.#l2 + this.#l3;
    // The field holds the pseudo-header's sum, so this sum includes it.
    let sum = ~this.#sumFrame(l4, 0) & 0xffff;
    if (sum === 0 && !tcp) sum = 0xffff; // RFC 768, RFC 8200: 0 means no checksum
    view.setUint16(sramOff + SRAM_TX_HDR + l4 + field, sum);
  }

  /**
   * Reads the values for the segments' headers from the packet's headers. Does not use the checksum
   * field.
   */
  #prepareTso(): void {
    const { view, cksum, sramOff, stats, vnet } = this.core;
    const ip = sramOff + SRAM_TX_HDR + this.#l2;
    const tcp = ip + this.#l3;
    const v6 = (this.#cmd & TN_TXD_V6) !== 0;
    stats[TN_ST_TX_TSO]! += 1;
    this.#seq0 = view.getInt32(tcp + 4);
    this.#thFlags = view.getUint8(tcp + 13);
    this.#ipId0 = v6 ? 0 : view.getUint16(ip + 4);
    this.#pseudo = fold16((v6 ? cksum.sum(ip + 8, 32, 0) : cksum.sum(ip + 12, 8, 0)) + 6);
    if (!vnet) return;
    const payload = this.#payloadLen();
    this.#gather(payload);
    this.#lengths(payload);
    view.setUint16(tcp + TCP_CKSUM_OFF, fold16(this.#pseudo + this.#l4 + payload));
    this.#vnetNeedsCsum(TCP_CKSUM_OFF);
    if (payload <= this.#mss) return;
    const at = sramOff + SRAM_TX_VNET;
    const ecn = (this.#thFlags & TH_CWR) !== 0 ? VNET_GSO_ECN : VNET_GSO_NONE;
    view.setUint8(at + 1, (v6 ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4) | ecn);
    view.setUint16(at + 2, this.#hdrLen, true);
    view.setUint16(at + 4, this.#mss, true);
  }

  #payloadLen(): number {
    return this.#total + (this.#vle ? 4 : 0) - this.#hdrLen;
  }

  /** Writes the IP lengths for `payload` bytes of TCP data, and the IPv4 header checksum. */
  #lengths(payload: number): void {
    const { view, sramOff } = this.core;
    const ip = sramOff + SRAM_TX_HDR + this.#l2;
    if ((this.#cmd & TN_TXD_V6) !== 0) {
      view.setUint16(ip + 4, this.#l3 - 40 + this.#l4 + payload);
    } else {
      view.setUint16(ip + 2, this.#l3 + this.#l4 + payload);
      this.#ipCksum();
    }
  }

  /** Makes the next segment of a TSO packet: updates the headers in place and lists the payload. */
  #segment(payload: number, last: boolean): void {
    const { view, sramOff } = this.core;
    const ip = sramOff + SRAM_TX_HDR + this.#l2;
    const tcp = ip + this.#l3;
    let flags = this.#thFlags;
    if (!last) flags &= ~(TH_FIN | TH_PUSH);
    if (this.#segs > 0) flags &= ~TH_CWR; // RFC 3168, 6.1.2: CWR is set only in the first segment
    if ((this.#cmd & TN_TXD_V6) === 0) view.setUint16(ip + 4, (this.#ipId0 + this.#segs) & 0xffff);
    this.#lengths(payload);
    view.setInt32(tcp + 4, this.#seq0 + this.#sent);
    view.setUint8(tcp + 13, flags);
    view.setUint16(tcp + TCP_CKSUM_OFF, 0);
    this.#gather(payload);
    const sum = this.#sumFrame(this.#l2 + this.#l3, this.#pseudo + this.#l4 + payload);
    view.setUint16(tcp + TCP_CKSUM_OFF, ~sum & 0xffff);
  }

  /**
   * Sends one frame of the active packet. Returns DONE after the last one, otherwise MORE or
   * BLOCKED.
   */
  #emit(): number {
    const { stats, vnet, linkUp } = this.core;
    if (!linkUp) {
      this.core.noLink(this.#total, this.#tag);
      return DONE;
    }
    const cut = !vnet && (this.#cmd & TN_TXD_TSE) !== 0;
    let payload = 0;
    let last = true;
    if (cut) {
      const left = this.#payloadLen() - this.#sent;
      payload = Math.min(left, this.#mss);
      last = payload === left;
      this.#segment(payload, last);
    }
    const sent = this.#write(cut ? this.#segs : -1);
    if (sent === BLOCKED) return BLOCKED;
    if (sent === DROPPED) return DONE; // drops the rest of a TSO packet, too
    if (!cut) return DONE;
    stats[TN_ST_TX_SEGMENTS]! += 1;
    this.#advance(payload);
    this.#sent += payload;
    this.#segs++;
    return last ? DONE : MORE;
  }

  /**
   * Writes the listed frame to the wire. Returns DONE, BLOCKED, or DROPPED if the wire refuses it.
   * @param child its number among the segments of a TSO packet; -1: it is no segment
   */
  #write(child: number): number {
    const { wire, vnet, sramOff } = this.core;
    if (!vnet && this.#frameLen < TN_FRAME_MIN) {
      this.#frame[2 * this.#niov] = sramOff + SRAM_ZERO;
      this.#frame[2 * this.#niov + 1] = TN_FRAME_MIN - this.#frameLen;
      this.#niov++;
      this.#frameLen = TN_FRAME_MIN;
    }
    const n = vnet ? wire.writev(this.#iov, this.#niov + 1) : wire.writev(this.#frame, this.#niov);
    const { core } = this;
    const len = this.#frameLen;
    const did = core.written(n, this.#frame, this.#niov, len, this.#tag, this.#csum, child);
    this.blocked = did === WIRE_BLOCKED;
    if (did === SENT) return DONE;
    return this.blocked ? BLOCKED : DROPPED;
  }
}
