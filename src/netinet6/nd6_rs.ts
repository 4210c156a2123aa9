/**
 * Router solicitations, after usr.sbin/rtsold: RFC 4861, 6.3.7. An interface that accepts advertisements
 * sends up to three, until a router answers. Unlike FreeBSD, where rtsol(8) and rtsold(8) do this: the stack
 * sends them itself.
 */

import { NetAddr } from '../sys/addr.ts';
import type { Task } from '../sys/clock.ts';
import { kva } from '../sys/types.ts';
import { Callout, callout_reset, callout_stop } from '../kern/kern_timeout.ts';
import { mtod } from '../kern/mbuf.ts';
import { VNET_DEFINE } from '../kern/vnet.ts';
import { IFF_UP, type Ifnet, IFT_ETHER } from '../net/if_var.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  ICMP6_CKSUM_OFF,
  ICMP6_MINLEN,
  ND_HLIM,
  ND_OPT_SOURCE_LINKADDR,
  ND_ROUTER_SOLICIT,
} from './icmp6.ts';
import { icmp6Count } from './icmp6_var.ts';
import { in6Addr, in6Put } from './in6.ts';
import { in6_cksum } from './in6_cksum.ts';
import {
  in6Enabled,
  IN6_IFF_DUPLICATED,
  IN6_IFF_TENTATIVE,
  in6Ifextra,
  in6ifa_ifpforlinklocal,
  ND6_IFF_ACCEPT_RTADV,
} from './in6_var.ts';
import { Ip6, IP6_DST_OFF, IP6_SRC_OFF, IPPROTO_ICMPV6 } from './ip6.ts';
import { ip6_output } from './ip6_output.ts';
import { Ip6Moptions } from './ip6_var.ts';
import { ND_OPT_LLADDR_LEN } from './nd6_options.ts';
import { ndPacket, ndPutLladdr } from './nd6_output.ts';
import { in6_setscope } from './scope6.ts';

// RFC 4861, 10; nanoseconds.
const MAX_RTR_SOLICITATION_DELAY = 1e9;
const RTR_SOLICITATION_INTERVAL = 4e9;
const MAX_RTR_SOLICITATIONS = 3;
/** Time between looks at a link-local address that is tentative. */
const TENTATIVE_NS = 0.1e9;

const allrouters = in6Addr(0xff020000, 0, 0, 2);
const $dst = new NetAddr();
const $imo = new Ip6Moptions();

/** Sends one solicitation from the link-local address. */
function nd6_rs_output(ifp: Ifnet): void {
  const ia = in6ifa_ifpforlinklocal(ifp, 0);
  const len = ICMP6_MINLEN + ND_OPT_LLADDR_LEN;
  const m = ia === null ? null : ndPacket(len);
  if (ia === null || m === null) return;
  $dst.setFrom(allrouters);
  in6_setscope($dst, ifp);
  const p = mtod(m);
  in6Put(p + IP6_SRC_OFF, ia.ifa_addr);
  in6Put(p + IP6_DST_OFF, $dst);
  const rs = kva(p + Ip6.SIZE);
  mem[rs] = ND_ROUTER_SOLICIT;
  ndPutLladdr(rs + ICMP6_MINLEN, ND_OPT_SOURCE_LINKADDR, ifp.if_lladdr);
  memView.setUint16(rs + ICMP6_CKSUM_OFF, in6_cksum(m, IPPROTO_ICMPV6, Ip6.SIZE, len));
  icmp6Count(ifp.if_vnet, ND_ROUTER_SOLICIT);
  $imo.im6o_multicast_ifp = ifp;
  $imo.im6o_multicast_hlim = ND_HLIM;
  $imo.im6o_multicast_loop = false;
  ip6_output(m, null, null, 0, $imo, ifp.if_vnet);
}

/** The solicitations of one interface since it, or its link, came up. */
class Solicitor implements Task {
  readonly #ifp: Ifnet;
  readonly #callout = new Callout(this);
  #sent = 0;

  constructor(ifp: Ifnet) {
    this.#ifp = ifp;
    // RFC 4861, 6.3.7: hosts that start together must not send together.
    const random = ifp.if_vnet.prng.next32() / 2 ** 32;
    callout_reset(this.#callout, random * MAX_RTR_SOLICITATION_DELAY);
  }

  stop(): void {
    callout_stop(this.#callout);
  }

  run(): void {
    const ifp = this.#ifp;
    const ia = in6ifa_ifpforlinklocal(ifp, 0);
    if (!in6Enabled(ifp) || ia === null || (ia.ia6_flags & IN6_IFF_DUPLICATED) !== 0) return;
    if ((ia.ia6_flags & IN6_IFF_TENTATIVE) !== 0) {
      callout_reset(this.#callout, TENTATIVE_NS);
      return;
    }
    nd6_rs_output(ifp);
    if (++this.#sent < MAX_RTR_SOLICITATIONS)
      callout_reset(this.#callout, RTR_SOLICITATION_INTERVAL);
  }
}

const V_nd6rs = VNET_DEFINE(() => new Map<Ifnet, Solicitor>());

/** Stops the solicitations of `ifp`; the next nd6RsStart begins again. */
export function nd6RsStop(ifp: Ifnet): void {
  const map = V_nd6rs(ifp.if_vnet);
  map.get(ifp)?.stop();
  map.delete(ifp);
}

/** A router has answered: sends no more solicitations while the interface and its link are up. */
export function nd6RsAnswered(ifp: Ifnet): void {
  V_nd6rs(ifp.if_vnet).get(ifp)?.stop();
}

/**
 * Solicits routers on `ifp` if it accepts advertisements, is up and has not done so since it came up.
 */
export function nd6RsStart(ifp: Ifnet): void {
  const map = V_nd6rs(ifp.if_vnet);
  const flags = in6Ifextra(ifp)?.nd_ifinfo.flags ?? 0;
  if ((flags & ND6_IFF_ACCEPT_RTADV) === 0 || !in6Enabled(ifp)) return;
  if (map.has(ifp) || (ifp.if_flags & IFF_UP) === 0 || ifp.if_type !== IFT_ETHER) return;
  map.set(ifp, new Solicitor(ifp));
}
