/**
 * SYN cookies, after syncookie_* of sys/netinet/tcp_syncache.c: the initial sequence number of a
 * SYN-ACK is a keyed hash of the connection and encodes the peer's options approximately (the
 * note). The final ACK returns it, so a connection can be opened without state. RFC 4987, 3.6.
 *
 *      31               8 7        0
 *     +------------------+----------+
 *     |  hash, 24 bits   |  note    |   the note is XORed with the hash's top byte
 *     +------------------+----------+
 *     bits of the note: window scale 7-5, MSS 4-2, SACK 1, index of the secret 0
 */

import { tcpSeq, type TcpSeq } from '../sys/types.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { VNET_DEFINE } from '../kern/vnet.ts';
import { type InConninfo, inpaf } from './in_pcb.ts';
import { hashCookie } from './tcp_isn.ts';
import { mssDefaults, type TcpVnet, V_tcp } from './tcp_var.ts';

/** How long a secret generates cookies; it verifies them for the same time again. */
export const SYNCOOKIE_LIFETIME = 15; // s

// The encodable MSS and window scale values; an offer is rounded down to one of them.
const tcp_sc_msstab: readonly number[] = [216, 536, 1200, 1360, 1400, 1440, 1452, 1460];
const tcp_sc_wstab: readonly number[] = [0, 0, 1, 2, 4, 6, 7, 8];

/** The options of the SYN, decoded by syncookie_lookup. */
export const cookieSays = {
  mss: 0,
  /** -1: no window scaling. */
  wscale: -1,
  sack: false,
};

/** Two secrets: the current one and its predecessor. Each is replaced after two lifetimes. */
class Secrets {
  readonly keys = [new Uint32Array(4), new Uint32Array(4)] as const;
  /** When each secret was generated, in SYNCOOKIE_LIFETIMEs of the clock. */
  readonly epochs = new Float64Array(2).fill(-2);
  readonly #tcp: TcpVnet;

  constructor(tcp: TcpVnet) {
    this.#tcp = tcp;
  }

  /** The index of the current secret, which is generated if it is still missing. */
  current(): number {
    const epoch = Math.floor(nowNs() / (SYNCOOKIE_LIFETIME * 1e9));
    const i = epoch & 1;
    if (this.epochs[i] !== epoch) {
      for (let w = 0; w < 4; w++) this.keys[i]![w] = this.#tcp.vnet.prng.next32();
      this.epochs[i] = epoch;
    }
    return i;
  }

  /** Whether secret `i` is of the current or the previous lifetime. */
  good(i: number): boolean {
    return this.epochs[this.current()]! - this.epochs[i]! <= 1;
  }
}

const V_secrets = VNET_DEFINE((vnet) => new Secrets(V_tcp(vnet)));

/** The index of the last entry of `table` that is at most `n`; 0 if all are greater. */
function indexDown(table: readonly number[], n: number): number {
  let i = table.length - 1;
  while (i > 0 && table[i]! > n) i--;
  return i;
}

/**
 * The sequence number for the SYN-ACK that answers a SYN with sequence number `irs`, MSS option
 * `mss` (0: absent), window scale `wscale` (-1: absent) and SACK permission `sack`.
 * @see sys/netinet/tcp_syncache.c
 */
export function syncookie_generate(
  tcp: TcpVnet,
  inc: InConninfo,
  irs: TcpSeq,
  mss: number,
  wscale: number,
  sack: boolean,
): TcpSeq {
  const secrets = V_secrets(tcp.vnet);
  const key = secrets.current();
  const scale = wscale < 0 ? 0 : Math.max(indexDown(tcp_sc_wstab, wscale), 1);
  const af = inpaf(tcp.vnet, inc.inc_family);
  const size = indexDown(tcp_sc_msstab, mss === 0 ? mssDefaults(tcp, af).mssdflt : mss);
  const note = (scale << 5) | (size << 2) | (sack ? 2 : 0) | key;
  const mac = hashCookie(tcp, secrets.keys[key]!, inc, irs, note);
  return tcpSeq((mac & 0xffffff00) | (note ^ (mac >>> 24)));
}

/**
 * Whether `iss` is a valid cookie for a peer with initial sequence number `irs`, generated with a
 * secret that is still accepted. If so, stores the options of the SYN in `cookieSays`.
 * @see sys/netinet/tcp_syncache.c
 */
export function syncookie_lookup(tcp: TcpVnet, inc: InConninfo, irs: TcpSeq, iss: TcpSeq): boolean {
  const secrets = V_secrets(tcp.vnet);
  const note = (iss & 0xff) ^ (iss >>> 24);
  const key = note & 1;
  if (!secrets.good(key)) return false;
  const mac = hashCookie(tcp, secrets.keys[key]!, inc, irs, note);
  if (((mac ^ iss) & 0xffffff00) !== 0) return false;
  const scale = note >>> 5;
  cookieSays.wscale = scale === 0 ? -1 : tcp_sc_wstab[scale]!;
  cookieSays.mss = tcp_sc_msstab[(note >>> 2) & 7]!;
  cookieSays.sack = (note & 2) !== 0;
  return true;
}
