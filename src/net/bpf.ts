/**
 * BPF taps, after sys/net/bpf.c: they pass the packets that an interface sends and receives to
 * listeners. A listener gets whole packets and copies what it needs with m_copydata. The descriptors
 * of bpf(4) are listeners (bpf_desc.ts).
 */

import { m_free, m_gethdr } from '../kern/kern_mbuf.ts';
import { type Mbuf, M_NOWAIT, M_PROMISC, MT_DATA, mtod, M_VLANTAG } from '../kern/mbuf.ts';
import { m_length } from '../kern/uipc_mbuf.ts';
import { mem, memView } from '../vm/arena.ts';
import { payloadReason, READ_BPF } from '../vm/payload.ts';
import { ETHER_HDR_LEN, ETHERTYPE_VLAN, ETHER_VLAN_ENCAP_LEN } from './ethernet.ts';
import type { BpfIf, Ifnet } from './if_var.ts';

// Data link types, as in pcap files.
export const DLT_NULL = 0;
export const DLT_EN10MB = 1;

// Direction of the packets that a listener gets, with the values of BIOCSDIRECTION.
export const BPF_D_IN = 0;
export const BPF_D_INOUT = 1;
export const BPF_D_OUT = 2;

/** A listener on an interface. */
export interface BpfListener {
  /** BPF_D_*. */
  readonly bd_direction: number;
  /**
   * Called for each packet of `pktlen` bytes that `ifp` sends or receives, link header included.
   * Reads of the payload are counted as READ_BPF. Must not change or keep `m`.
   */
  bpfPacket(ifp: Ifnet, m: Mbuf, pktlen: number, outgoing: boolean): void;
  /** Called when the tap of the interface is removed. */
  bpfDetached?(): void;
}

/** The listeners of an interface. */
export class BpfInterface implements BpfIf {
  readonly bif_ifp: Ifnet;
  readonly bif_dlt: number;
  readonly bif_hdrlen: number;
  readonly #listeners: BpfListener[] = [];

  constructor(ifp: Ifnet, dlt: number, hdrlen: number) {
    this.bif_ifp = ifp;
    this.bif_dlt = dlt;
    this.bif_hdrlen = hdrlen;
  }

  get listeners(): number {
    return this.#listeners.length;
  }

  /** Detaches all listeners. */
  close(): void {
    for (const listener of this.#listeners.splice(0)) listener.bpfDetached?.();
  }

  attach(listener: BpfListener): void {
    this.#listeners.push(listener);
  }

  detach(listener: BpfListener): void {
    const at = this.#listeners.indexOf(listener);
    if (at >= 0) this.#listeners.splice(at, 1);
  }

  mtap(m: Mbuf, outgoing: boolean): void {
    // A transmitted packet with M_PROMISC and no receive interface is feedback of a packet already
    // shown: skip it.
    if (outgoing && (m.m_flags & M_PROMISC) !== 0 && m.m_pkthdr.rcvif === null) {
      m.m_flags &= ~M_PROMISC;
      return;
    }
    const before = payloadReason(READ_BPF);
    if ((m.m_flags & M_VLANTAG) !== 0 && this.bif_dlt === DLT_EN10MB) this.#tapTagged(m, outgoing);
    else this.#show(m, outgoing);
    payloadReason(before);
  }

  /**
   * Shows a frame whose VLAN tag is only in its packet header as it looks on the wire: builds an
   * Ethernet header with the tag in a new mbuf and links the frame, less its own header, behind it.
   * Restores `m` afterwards. If there is no memory for the header, shows the frame untagged.
   */
  #tapTagged(m: Mbuf, outgoing: boolean): void {
    const head = m.m_len < ETHER_HDR_LEN ? null : m_gethdr(M_NOWAIT, MT_DATA);
    if (head === null) {
      this.#show(m, outgoing);
      return;
    }
    const src = mtod(m);
    const dst = head.m_data;
    mem.copyWithin(dst, src, src + 12);
    memView.setUint16(dst + 12, ETHERTYPE_VLAN);
    memView.setUint16(dst + 14, m.m_pkthdr.ether_vtag);
    mem.copyWithin(dst + 16, src + 12, src + ETHER_HDR_LEN);
    head.m_len = ETHER_HDR_LEN + ETHER_VLAN_ENCAP_LEN;
    head.m_next = m;
    head.m_pkthdr.pktId = m.m_pkthdr.pktId;
    m.m_data += ETHER_HDR_LEN;
    m.m_len -= ETHER_HDR_LEN;
    this.#show(head, outgoing);
    m.m_data -= ETHER_HDR_LEN;
    m.m_len += ETHER_HDR_LEN;
    head.m_next = null;
    m_free(head);
  }

  #show(m: Mbuf, outgoing: boolean): void {
    const pktlen = m_length(m);
    for (let i = 0; i < this.#listeners.length; i++) {
      const l = this.#listeners[i]!;
      if (l.bd_direction === BPF_D_INOUT || (l.bd_direction === BPF_D_OUT) === outgoing)
        l.bpfPacket(this.bif_ifp, m, pktlen, outgoing);
    }
  }
}

/** Creates the BPF tap of an interface. @see bpf(9) */
export function bpfattach(ifp: Ifnet, dlt: number, hdrlen: number): void {
  ifp.if_bpf = new BpfInterface(ifp, dlt, hdrlen);
}

/** Removes the tap; its listeners get no more packets. @see bpf(9) */
export function bpfdetach(ifp: Ifnet): void {
  const tap = bpfOf(ifp);
  ifp.if_bpf = null;
  tap?.close();
}

/** The BPF tap of an interface, or null if it has no tap. */
export function bpfOf(ifp: Ifnet): BpfInterface | null {
  return ifp.if_bpf instanceof BpfInterface ? ifp.if_bpf : null;
}
