/** The UDP header, after sys/netinet/udp.h: RFC 768, network byte order. */

import type { Kva, Port } from '../sys/types.ts';
import { memView } from '../vm/arena.ts';

/** Offset of the checksum field in the header; CSUM_UDP's csum_data. */
export const UH_SUM_OFF = 6;

/**
 * A view of a UDP header: `at` sets its address; nothing is copied or parsed. The caller must
 * ensure that 8 bytes are there.
 */
export class Udphdr {
  static readonly SIZE = 8;
  #off = 0;

  at(p: Kva): this {
    this.#off = p;
    return this;
  }

  get uh_sport(): Port {
    return memView.getUint16(this.#off) as Port;
  }
  set uh_sport(v: Port) {
    memView.setUint16(this.#off, v);
  }
  get uh_dport(): Port {
    return memView.getUint16(this.#off + 2) as Port;
  }
  set uh_dport(v: Port) {
    memView.setUint16(this.#off + 2, v);
  }
  /** Length of header and data in bytes. */
  get uh_ulen(): number {
    return memView.getUint16(this.#off + 4);
  }
  set uh_ulen(v: number) {
    memView.setUint16(this.#off + 4, v);
  }
  /** Checksum; 0: the sender computed none. */
  get uh_sum(): number {
    return memView.getUint16(this.#off + UH_SUM_OFF);
  }
  set uh_sum(v: number) {
    memView.setUint16(this.#off + UH_SUM_OFF, v);
  }
}
