/**
 * Finds the headers of an outgoing packet, for drivers whose NIC computes checksums. Reads the
 * Ethernet and IP headers, never a payload byte. Left out: IPv6 extension headers; the stack
 * computes the checksum of such a packet itself.
 */

import { EINVAL, type Errno } from '../src/sys/errno.ts';
import {
  ETHER_HDR_LEN,
  ETHER_VLAN_ENCAP_LEN,
  ETHERTYPE_IPV6,
  ETHERTYPE_VLAN,
} from '../src/sys/protocols.ts';
import type { Kva } from '../src/sys/types.ts';
import { memView } from '../src/vm/arena.ts';
import { m_copydata } from '../src/kern/m_copydata.ts';
import { type Mbuf, mtod } from '../src/kern/mbuf.ts';

/** Lengths of the headers of one packet. */
export class TxHeaders {
  /** Bytes of the Ethernet header, VLAN tag included. */
  l2 = 0;
  /** Bytes of the IP header. */
  l3 = 0;
  v6 = false;
  /** IPv4's protocol or IPv6's next header. */
  proto = 0;
}

/**
 * Returns the address of the packet's first `need` bytes, contiguous: in place if the first mbuf
 * has them, otherwise copied to the data area of `scratch`. The packet must have that many bytes.
 */
export function headerBytes(m: Mbuf, need: number, scratch: Mbuf): Kva {
  if (m.m_len >= need) return mtod(m);
  const copy = scratch.m_data as Kva;
  m_copydata(m, 0, need, copy);
  return copy;
}

/** Finds the headers of `m`, which it only reads. EINVAL: the packet ends inside them. */
export function txHeaders(m: Mbuf, scratch: Mbuf, headers: TxHeaders): Errno {
  const { len } = m.m_pkthdr;
  let l2 = ETHER_HDR_LEN;
  if (len < l2 + ETHER_VLAN_ENCAP_LEN) return EINVAL;
  let at = headerBytes(m, l2 + ETHER_VLAN_ENCAP_LEN, scratch);
  if (memView.getUint16(at + 12) === ETHERTYPE_VLAN) l2 += ETHER_VLAN_ENCAP_LEN;
  // csum_flags do not give the IP version: FreeBSD's TCP sets both bits of CSUM_TSO.
  const v6 = memView.getUint16(at + l2 - 2) === ETHERTYPE_IPV6;
  const fixed = v6 ? 40 : 20;
  if (len < l2 + fixed) return EINVAL;
  at = headerBytes(m, l2 + fixed, scratch);
  headers.l2 = l2;
  headers.l3 = v6 ? 40 : (memView.getUint8(at + l2) & 0xf) * 4;
  headers.v6 = v6;
  headers.proto = memView.getUint8(at + l2 + (v6 ? 6 : 9));
  return 0;
}
