/**
 * SYN cookies, after syncookie_* of sys/netinet/tcp_syncache.c: the initial sequence number of a
 * SYN-ACK is a keyed hash of the connection with a coarse note of the peer's options in it, so that
 * the final ACK can be believed without a record of the SYN. RFC 4987, 3.6.
 *
 *      31               8 7        0
 *     +------------------+----------+
 *     |  hash, 24 bits   |  note    |   the note is masked by the hash's top byte
 *     +------------------+----------+
 *     note: window scale 7-5, MSS 4-2, SACK 1, secret 0
 */

import { tcpSeq, type TcpSeq } from '../sys/types.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { VNET_DEFINE } from '../kern/vnet.ts';
import { type InConninfo, inpaf } from './in_pcb.ts';
import { hashCookie } from './tcp_isn.ts';
import { mssDefaults, type TcpVnet, V_tcp } from './tcp_var.ts';

/** How long a secret makes cookies; its cookies are good for as long again. */
export const SYNCOOKIE_LIFETIME = 15; // s

// What eight values each can say of the peer's offer: the next one down is used.
const tcp_sc_msstab: readonly number[] = [216, 536, 1200, 1360, 1400, 1440, 1452, 1460];
const tcp_sc_wstab: readonly number[] = [0, 0, 1, 2, 4, 6, 7, 8];

/** What a cookie says of its SYN. */
export const cookieSays = {
  mss: 0,
  /** -1: no window scaling. */
  wscale: -1,
  sack: false,
};

/** Two secrets, one in use, one on its way out; made anew as time goes by. */
class Secrets {
  readonly keys = [new Uint32Array(4), new Uint32Array(4)] as const;
  /** Lifetimes since the clock began when each was made. */
  readonly epochs = new Float64Array(2).fill(-2);
  readonly #tcp: TcpVnet;

  constructor(tcp: TcpVnet) {
    this.#tcp = tcp;
  }

  /** The index of the secret of this lifetime. */
  current(): number {
    const epoch = Math.floor(nowNs() / (SYNCOOKIE_LIFETIME * 1e9));
    const i = epoch & 1;
    if (this.epochs[i] !== epoch) {
      for (let w = 0; w < 4; w++) this.keys[i]![w] = this.#tcp.vnet.prng.next32();
      this.epochs[i] = epoch;
    }
    return i;
  }

  /** Whether secret `i` is of this lifetime or the one before. */
  good(i: number): boolean {
    return this.epochs[this.current()]! - this.epochs[i]! <= 1;
  }
}

const V_secrets = VNET_DEFINE((vnet) => new Secrets(V_tcp(vnet)));

/** The last entry of `table` that is no greater than `n`. */
function indexDown(table: readonly number[], n: number): number {
  let i = table.length - 1;
  while (i > 0 && table[i]! > n) i--;
  return i;
}

/**
 * The sequence number for the SYN-ACK to a SYN numbered `irs` whose sender offers `mss` (0: nothing),
 * window scale `wscale` (-1: none) and `sack`.
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
 * Whether an ACK of the sequence number `iss` from a peer that began with `irs` returns a cookie of
 * ours that is not too old. If so, `cookieSays` is what it says.
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
