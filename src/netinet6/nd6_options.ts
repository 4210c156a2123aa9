/**
 * The options of neighbour discovery, after nd6_option and nd6_options of sys/netinet6/nd6.c: RFC 4861,
 * 4.6, and the nonce of RFC 3971. A message is contiguous; offsets are addresses in memory.
 */

import { ETHER_ADDR_LEN } from '../net/if_var.ts';
import type { Vnet } from '../kern/vnet.ts';
import { mem } from '../vm/arena.ts';
import { V_icmp6 } from './icmp6_var.ts';
import { V_nd6 } from './nd6_var.ts';

/** Bytes of a link-layer address option of Ethernet. */
export const ND_OPT_LLADDR_LEN = 8;
/** Bytes of a nonce, and of its option. */
export const ND_OPT_NONCE_LEN = 6;

/** Types below this number are recorded: all that the stack reads. */
const TYPES = 16;

/** Result of `nd6_options`: the first option of each type. Valid until the next call. */
export const ndOpts = {
  /** Addresses of the options by type; 0: not there. */
  at: new Float64Array(TYPES),
  /** The link-level address that `ndLladdr` found. */
  lladdr: new Uint8Array(ETHER_ADDR_LEN),
};

/**
 * The length in bytes of the option at `p` in options that end at `end`; 0: the option has no length
 * or does not fit, so the message must be dropped. @see sys/netinet6/nd6.c
 */
function nd6_option(p: number, end: number): number {
  const len = p + 1 < end ? mem[p + 1]! << 3 : 0;
  return p + len > end ? 0 : len;
}

/**
 * Reads the options from `p` to `end` into `ndOpts`. Options after the first nd6_maxndopt are ignored.
 * False: a malformed option, so the message must be dropped; it was counted.
 * @see sys/netinet6/nd6.c
 */
export function nd6_options(vnet: Vnet, p: number, end: number): boolean {
  const { stat } = V_icmp6(vnet);
  const { nd6_maxndopt } = V_nd6(vnet).params;
  const { at } = ndOpts;
  at.fill(0);
  for (let n = 1; p < end; n++) {
    const len = nd6_option(p, end);
    if (len === 0) {
      stat.icp6s_nd_badopt++;
      return false;
    }
    const type = mem[p]!;
    if (type < TYPES && at[type] === 0) at[type] = p;
    if (n > nd6_maxndopt) {
      stat.icp6s_nd_toomanyopt++;
      return true;
    }
    p += len;
  }
  return true;
}

/**
 * Copies the address of the option `type` to `ndOpts.lladdr`. 1: done. 0: there is no such option. -1:
 * its length is not that of an Ethernet address.
 */
export function ndLladdr(type: number): number {
  const p = ndOpts.at[type]!;
  if (p === 0) return 0;
  if (mem[p + 1]! << 3 !== ND_OPT_LLADDR_LEN) return -1;
  for (let i = 0; i < ETHER_ADDR_LEN; i++) ndOpts.lladdr[i] = mem[p + 2 + i]!;
  return 1;
}
