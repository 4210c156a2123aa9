/** ICMPv6's per-stack state, after sys/netinet/icmp6.h: statistics, settings, the rate limit. */

import type { Mbuf } from '../kern/mbuf.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';

/** ICMPv6 statistics, with FreeBSD's names. @see sys/netinet/icmp6.h */
class Icmp6stat {
  icp6s_error = 0;
  icp6s_canterror = 0;
  icp6s_toofreq = 0;
  /** Sent messages by type. */
  readonly icp6s_outhist = new Float64Array(256);
  icp6s_badcode = 0;
  icp6s_tooshort = 0;
  icp6s_checksum = 0;
  icp6s_badlen = 0;
  icp6s_dropped = 0;
  icp6s_reflect = 0;
  /** Received messages by type. */
  readonly icp6s_inhist = new Float64Array(256);
  icp6s_nd_toomanyopt = 0;
  // Errors that this host generated, by kind.
  icp6s_odst_unreach_noroute = 0;
  icp6s_odst_unreach_admin = 0;
  icp6s_odst_unreach_beyondscope = 0;
  icp6s_odst_unreach_addr = 0;
  icp6s_odst_unreach_noport = 0;
  icp6s_opacket_too_big = 0;
  icp6s_otime_exceed_transit = 0;
  icp6s_otime_exceed_reassembly = 0;
  icp6s_oparamprob_header = 0;
  icp6s_oparamprob_nextheader = 0;
  icp6s_oparamprob_option = 0;
  icp6s_oredirect = 0;
  icp6s_ounknown = 0;
  icp6s_pmtuchg = 0;
  icp6s_nd_badopt = 0;
  icp6s_badns = 0;
  icp6s_badna = 0;
  icp6s_badrs = 0;
  icp6s_badra = 0;
  icp6s_badredirect = 0;
  /** Messages of neighbour discovery whose hop limit is not 255. */
  icp6s_invlhlim = 0;
}

/** Settings under net.inet6.icmp6, with FreeBSD's defaults. */
class Icmp6Params {
  /** Maximum number of errors per second; -1: no limit. */
  errppslimit = 100;
  /** Process redirects. */
  rediraccept = 1;
  /** Seconds until the route of a redirect ends. */
  redirtimeout = 600;
}

/** ICMPv6's state of one stack. */
class Icmp6Vnet {
  readonly stat = new Icmp6stat();
  readonly params = new Icmp6Params();
  /** The input of raw sockets; null while none exists. Takes `m`. */
  raw: ((m: Mbuf, off: number, vnet: Vnet) => void) | null = null;
  #windowNs = -1e9;
  #inWindow = 0;

  /** Counts one error. Returns whether it may be sent. @see sys/netinet6/icmp6.c, icmp6_ratelimit */
  allow(): boolean {
    const { errppslimit } = this.params;
    if (errppslimit < 0) return true;
    const now = nowNs();
    if (now - this.#windowNs >= 1e9) {
      this.#windowNs = now;
      this.#inWindow = 0;
    }
    return ++this.#inWindow <= errppslimit;
  }
}

export const V_icmp6 = VNET_DEFINE(() => new Icmp6Vnet());

/** Counts a sent message of `type`. */
export function icmp6Count(vnet: Vnet, type: number): void {
  V_icmp6(vnet).stat.icp6s_outhist[type]!++;
}
