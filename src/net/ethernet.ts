/** The Ethernet header, after sys/net/ethernet.h: IEEE 802.3, network byte order. */

import type { Kva } from '../sys/types.ts';
import { mem, memView } from '../vm/arena.ts';
import { ETHER_ADDR_LEN } from './if_var.ts';

export {
  ETHER_HDR_LEN,
  ETHERTYPE_ARP,
  ETHERTYPE_IP,
  ETHERTYPE_IPV6,
  ETHERTYPE_QINQ,
  ETHERTYPE_VLAN,
  ETHER_VLAN_ENCAP_LEN,
} from '../sys/protocols.ts';
/** Payload bytes of a standard frame. */
export const ETHERMTU = 1500;

/** VLAN ids. 0 marks a frame that has only a priority; 4095 is reserved. IEEE 802.1Q, table 9-2. */
export const EVL_VLID_MASK = 0x0fff;

/** Returns the VLAN id of a tag. @see sys/net/if_vlan_var.h */
export function EVL_VLANOFTAG(tag: number): number {
  return tag & EVL_VLID_MASK;
}

/** Returns the tag of VLAN `vid` with priority `pri`, 0 to 7. @see sys/net/if_vlan_var.h */
export function EVL_MAKETAG(vid: number, pri: number): number {
  return (pri << 13) | vid;
}

export const etherbroadcastaddr = new Uint8Array(ETHER_ADDR_LEN).fill(0xff);

/** A view of the header at `at`'s address. The caller has checked that it has 14 bytes. */
export class EtherHeader {
  #off = 0;

  at(p: Kva): this {
    this.#off = p;
    return this;
  }

  get ether_type(): number {
    return memView.getUint16(this.#off + 12);
  }
  set ether_type(v: number) {
    memView.setUint16(this.#off + 12, v);
  }

  /** The group bit of the destination. */
  get isMulticast(): boolean {
    return (mem[this.#off]! & 1) !== 0;
  }
  get isBroadcast(): boolean {
    return (
      memView.getUint32(this.#off) === 0xffffffff && memView.getUint16(this.#off + 4) === 0xffff
    );
  }

  dhostIs(addr: Uint8Array): boolean {
    return sameBytes(this.#off, addr);
  }
  shostIs(addr: Uint8Array): boolean {
    return sameBytes(this.#off + ETHER_ADDR_LEN, addr);
  }

  setDhost(addr: Uint8Array): void {
    putBytes(this.#off, addr);
  }
  setShost(addr: Uint8Array): void {
    putBytes(this.#off + ETHER_ADDR_LEN, addr);
  }
}

// For six bytes a loop is faster than set() or copyWithin().
function sameBytes(off: number, addr: Uint8Array): boolean {
  for (let i = 0; i < ETHER_ADDR_LEN; i++) if (mem[off + i] !== addr[i]) return false;
  return true;
}

function putBytes(off: number, addr: Uint8Array): void {
  for (let i = 0; i < ETHER_ADDR_LEN; i++) mem[off + i] = addr[i]!;
}

/** Formats a 6-byte address with colons, for printing. @see ethers(3) */
export function ether_ntoa(addr: Uint8Array): string {
  return Array.from(addr.subarray(0, ETHER_ADDR_LEN), (b) => b.toString(16).padStart(2, '0')).join(
    ':',
  );
}
