/**
 * Lifetimes of routers, prefixes, addresses and DNS servers, after nd6_timer of sys/netinet6/nd6.c. Unlike
 * FreeBSD, which looks at all of them every second: the timer runs when the next one changes.
 */

import { callout_stop, nowNs } from '../kern/kern_timeout.ts';
import type { Vnet } from '../kern/vnet.ts';
import { in6DadFailed, regen_tmpaddr, tmpRegenNs } from './in6_autoconf.ts';
import { in6_purgeaddr } from './in6_ifaddr.ts';
import {
  IFA6_IS_DEPRECATED,
  IFA6_IS_INVALID,
  IN6_IFF_DEPRECATED,
  IN6_IFF_TEMPORARY,
  type In6Ifaddr,
  in6Ifaddrs,
  ND6_INFINITE_LIFETIME,
} from './in6_var.ts';
import { V_ip6 } from './ip6_var.ts';
import {
  defrouter_remove,
  defrouter_select,
  defrouterDel,
  defrouterRestore,
} from './nd6_defrouter.ts';
import { nd6DnsExpire } from './nd6_dns.ts';
import {
  nd6_prefix_del,
  nd6_prefix_offlink,
  pfxlist_onlink_check,
  prefixConfigured,
  prefixExpired,
} from './nd6_prefix.ts';
import { NDPRF_ONLINK, nd6TimerAt, V_nd6rtr } from './nd6_rtr_var.ts';
import { V_nd6 } from './nd6_var.ts';

const SEC = 1e9;

/** The end of a lifetime in seconds; Infinity: it has no end, or has ended. */
function endOf(lifetime: number, sinceNs: number): number {
  const end = sinceNs + lifetime * SEC;
  return lifetime === ND6_INFINITE_LIFETIME || end <= nowNs() ? Infinity : end;
}

/** Routers. Returns when the next one expires. */
function nd6_defrouter_timer(vnet: Vnet): number {
  let next = Infinity;
  for (const dr of V_nd6rtr(vnet).nd_defrouter.slice()) {
    if (dr.expire <= nowNs()) defrouterDel(dr);
    else next = Math.min(next, dr.expire);
  }
  return next;
}

/** One address: removes, deprecates or replaces it. Returns when it changes next. */
function address(ia: In6Ifaddr, vnet: Vnet): number {
  const temporary = (ia.ia6_flags & IN6_IFF_TEMPORARY) !== 0 && V_ip6(vnet).params.use_tempaddr;
  if (IFA6_IS_INVALID(ia)) {
    // The machine may have been suspended for longer than all lifetimes.
    if (temporary) regen_tmpaddr(ia);
    in6_purgeaddr(ia);
    return Infinity;
  }
  const wasDeprecated = (ia.ia6_flags & IN6_IFF_DEPRECATED) !== 0;
  if (IFA6_IS_DEPRECATED(ia)) ia.ia6_flags |= IN6_IFF_DEPRECATED;
  else ia.ia6_flags &= ~IN6_IFF_DEPRECATED;
  const regen = temporary ? tmpRegenNs(ia) : Infinity;
  if (regen <= nowNs() && !wasDeprecated) regen_tmpaddr(ia);
  return Math.min(
    endOf(ia.ia6_vltime, ia.ia6_updatetime),
    endOf(ia.ia6_pltime, ia.ia6_updatetime),
    regen <= nowNs() ? Infinity : regen,
  );
}

/** Prefixes: one whose addresses are still valid leaves only the link. Returns when the next expires. */
function prefixes(vnet: Vnet): number {
  let next = Infinity;
  for (const pr of V_nd6rtr(vnet).nd_prefix.slice()) {
    if (prefixConfigured(pr)) continue;
    if (!prefixExpired(pr)) next = Math.min(next, pr.expireNs);
    else if (pr.ndpr_addrcnt === 0) nd6_prefix_del(pr);
    else if ((pr.ndpr_stateflags & NDPRF_ONLINK) !== 0) nd6_prefix_offlink(pr);
  }
  return next;
}

/** Ends what has expired, and sets the timer for the next change. @see sys/netinet6/nd6.c */
function nd6_timer(vnet: Vnet): void {
  let next = nd6_defrouter_timer(vnet);
  for (const ia of in6Ifaddrs(vnet).slice()) next = Math.min(next, address(ia, vnet));
  next = Math.min(next, prefixes(vnet), nd6DnsExpire(vnet));
  nd6TimerAt(vnet, next);
}

/** Stops the timer. Called when the stack is destroyed. */
export function nd6RtrDetach(vnet: Vnet): void {
  const v = V_nd6rtr(vnet);
  v.events = null;
  callout_stop(v.timer);
}

/** Connects router discovery with the events of the layers below, when IPv6 is attached to a stack. */
export function nd6RtrAttach(vnet: Vnet): void {
  V_nd6rtr(vnet).events = {
    reachability(): void {
      defrouter_select(vnet);
      pfxlist_onlink_check(vnet);
    },
    lost: defrouter_remove,
    addressGone: defrouterRestore,
    timer: () => nd6_timer(vnet),
  };
  V_nd6(vnet).dadFailed = in6DadFailed;
}
