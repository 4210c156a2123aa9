/**
 * The TCP header and its options, after sys/netinet/tcp.h: RFC 9293, network byte order. Left out: MD5
 * signatures.
 */

import { tcpSeq, type Kva, type Port, type TcpSeq } from '../sys/types.ts';
import { mem, memView } from '../vm/arena.ts';

// th_flags
export {
  TH_ACK,
  TH_CWR,
  TH_ECE,
  TH_FIN,
  TH_PUSH,
  TH_RST,
  TH_SYN,
  TH_URG,
} from '../sys/protocols.ts';

/** The flag of accurate ECN, the lowest bit of the byte before the other flags: RFC 9768, 3.1. */
export const TH_AE = 0x100;

// Options: kind and length.
export const TCPOPT_EOL = 0;
export const TCPOPT_NOP = 1;
export const TCPOPT_MAXSEG = 2;
export const TCPOLEN_MAXSEG = 4;
export const TCPOPT_WINDOW = 3;
export const TCPOLEN_WINDOW = 3;
export const TCPOPT_SACK_PERMITTED = 4;
export const TCPOLEN_SACK_PERMITTED = 2;
export const TCPOPT_SACK = 5;
/** Kind and length; each block. */
export const TCPOLEN_SACKHDR = 2;
export const TCPOLEN_SACK = 8;
export const TCPOPT_TIMESTAMP = 8;
export const TCPOLEN_TIMESTAMP = 10;
/** Fast Open, RFC 7413; the length without a cookie. */
export const TCPOPT_FAST_OPEN = 34;
export const TCPOLEN_FAST_OPEN_EMPTY = 2;
/** A timestamp option with the two NOPs in front that align it. */
export const TCPOLEN_TSTAMP_APPA = TCPOLEN_TIMESTAMP + 2;

/** Largest length of all options in one header, bytes. */
export const TCP_MAXOLEN = 40;
/** The MSS of a peer whose SYN has no MSS option: RFC 9293, 3.7.1. */
export const TCP_MSS = 536;
/** Largest window field, and largest window scale (RFC 7323, 2.3). */
export const TCP_MAXWIN = 65535;
export const TCP_MAX_WINSHIFT = 14;

/** Offset of the checksum field in the header; CSUM_TCP's csum_data. */
export const TH_SUM_OFF = 16;

/**
 * A view of the header at `at`'s address; nothing is copied. The caller has checked that it has 20
 * bytes.
 */
export class Tcphdr {
  static readonly SIZE = 20;
  #off = 0;

  at(p: Kva): this {
    this.#off = p;
    return this;
  }

  get th_sport(): Port {
    return memView.getUint16(this.#off) as Port;
  }
  set th_sport(v: Port) {
    memView.setUint16(this.#off, v);
  }
  get th_dport(): Port {
    return memView.getUint16(this.#off + 2) as Port;
  }
  set th_dport(v: Port) {
    memView.setUint16(this.#off + 2, v);
  }
  get th_seq(): TcpSeq {
    return tcpSeq(memView.getInt32(this.#off + 4));
  }
  set th_seq(v: TcpSeq) {
    memView.setInt32(this.#off + 4, v);
  }
  get th_ack(): TcpSeq {
    return tcpSeq(memView.getInt32(this.#off + 8));
  }
  set th_ack(v: TcpSeq) {
    memView.setInt32(this.#off + 8, v);
  }
  /** Header length in 32-bit words. */
  get th_off(): number {
    return mem[this.#off + 12]! >>> 4;
  }
  set th_off(v: number) {
    mem[this.#off + 12] = v << 4;
  }
  /** TH_*. Set th_off first: the two share a byte. */
  get th_flags(): number {
    return mem[this.#off + 13]! | ((mem[this.#off + 12]! & 1) << 8);
  }
  set th_flags(v: number) {
    mem[this.#off + 13] = v;
    if ((v & TH_AE) !== 0) mem[this.#off + 12]! |= 1;
  }
  get th_win(): number {
    return memView.getUint16(this.#off + 14);
  }
  set th_win(v: number) {
    memView.setUint16(this.#off + 14, v);
  }
  get th_sum(): number {
    return memView.getUint16(this.#off + TH_SUM_OFF);
  }
  set th_sum(v: number) {
    memView.setUint16(this.#off + TH_SUM_OFF, v);
  }
  get th_urp(): number {
    return memView.getUint16(this.#off + 18);
  }
  set th_urp(v: number) {
    memView.setUint16(this.#off + 18, v);
  }
}
